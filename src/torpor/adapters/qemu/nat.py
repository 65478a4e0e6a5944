"""Letting guests reach other networks through the host, masqueraded, by an nftables table of our own."""

import re
import shutil
from ipaddress import IPv4Network
from pathlib import Path

from torpor.iproute import run

_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_WAS_OFF, _WAS_ON = "forwarding was off", "forwarding was on"


def nat_rules(table: str, interface: str, subnet: IPv4Network, marker: str) -> str:
    """The nftables script that puts our table, and nothing else, in place in one transaction.

    Guests reach other networks; what comes from there reaches guests only as an answer.
    """
    return f"""
add table ip {table}
delete table ip {table}
table ip {table} {{
  comment "{marker}"
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {subnet} oifname != "{interface}" masquerade
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    oifname "{interface}" ct state established,related accept
    oifname "{interface}" iifname != "{interface}" drop
  }}
}}
"""


class Nat:
    """NAT for one subnet behind one interface. The table itself remembers whether the host forwarded before."""

    def __init__(self, interface: str, subnet: IPv4Network) -> None:
        self._interface = interface
        self._subnet = subnet
        self.table = f"torpor_{re.sub(r'[^A-Za-z0-9]', '_', interface)}"

    def add(self) -> None:
        """Converges."""
        was_off = _FORWARDING.read_text().strip() == "0" or _WAS_OFF in self._listing()
        run(["nft", "-f", "-"], nat_rules(self.table, self._interface, self._subnet, _WAS_OFF if was_off else _WAS_ON))
        _FORWARDING.write_text("1\n")

    def remove(self) -> None:
        """Converges."""
        listing = self._listing()
        if not listing:
            return
        if _WAS_OFF in listing:
            _FORWARDING.write_text("0\n")
        run(["nft", "delete", "table", "ip", self.table])

    def _listing(self) -> str:
        """Our table as nft prints it; empty when it is not there (or nft is not)."""
        if not shutil.which("nft"):
            return ""
        if f"table ip {self.table}\n" not in run(["nft", "list", "tables"]):
            return ""
        return run(["nft", "list", "table", "ip", self.table])
