"""Leases on libvirt's network of Torpor's own: the daemon's DHCP server, not libvirt's, which the network has not."""

from __future__ import annotations

from pathlib import Path

from tests.installation import BOOT_PATIENCE, installation, wait_until
from tests.udhcp import ASKS

from private_libvirtd import LibvirtHost


def test_a_guest_is_leased_its_own_address(daemon: LibvirtHost, tmp_path: Path) -> None:
    script = tmp_path / "user-data"
    script.write_text(ASKS)
    with installation(number=47, libvirt=daemon, dhcp=True) as torpor:
        torpor.ok("run", "asks", "--image", "tiny", "--memory", "128M", "--user-data", str(script), "--wait")
        wait_until(
            lambda: torpor.show("asks")["instances"][0]["address_state"] == "verified",
            BOOT_PATIENCE,
            "it has its address, which it flushed at its start",
        )
        torpor.ok("delete", "asks", "--yes")
