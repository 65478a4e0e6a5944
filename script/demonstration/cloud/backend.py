"""The lab, and what the demo has in it that is not Torpor's."""

import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from xml.etree import ElementTree as ET

from lab.openstack.clouds import ADMIN, API_FAILURES, ORDINARY, SERVICE_ACCOUNT, connect
from lab.openstack.failure import LabFailed
from lab.openstack.settings import Lab, folder_of
from lab.openstack.state import is_up
from openstack.connection import Connection

from demonstration import processes
from demonstration.backends import Document
from demonstration.cloud.probe import Probe
from demonstration.failure import DemoFailed
from demonstration.guests import Guests

REPOSITORY = Path(__file__).parents[3]
OWNER, RIVAL = ORDINARY
"""Clouds of the project whose servers Torpor looks after, and of one that has not let it in."""
PROJECT, NETWORK = "demo", "n1"
OTHERS = "torpor-demo-"
"""How the names of servers begin that the demo makes without Torpor."""
_DELETE_SECONDS = 180
_NOVA = "{http://openstack.org/xmlns/libvirt/nova/1.1}name"


class OpenStackBackend:
    """The lab of this number, brought up where it is down."""

    greeting = "Bring up the lab, and start a Torpor of our own"
    poll_seconds = 1.0

    def __init__(self, root: Path, number: int | None) -> None:
        self._number = root / "lab-number"
        if number is None:
            number = int(self._number.read_text()) if self._number.exists() else 0
        self.lab = Lab(folder_of(number, REPOSITORY / "build"), number=number)
        self.probe = Probe(self.lab)
        self.guests = Guests(self.probe.connect)
        self.name_server: str | None = f"127.0.{number}.92"
        self._was_up = True

    def settings(self) -> str:
        return 'backend = "openstack"\n'

    def section(self) -> str:
        return f"""[openstack]
cloud = "{SERVICE_ACCOUNT}"
project = "{PROJECT}"
networks = ["{NETWORK}"]
dns_address = "{self.name_server}"
"""

    def environment(self) -> Mapping[str, str]:
        return {"OS_CLIENT_CONFIG_FILE": str(self.lab.clouds)}

    def start(self) -> None:
        self._number.write_text(str(self.lab.number))
        if is_up(self.lab):
            return
        self._was_up = False
        self._call("up")

    def pids(self, instances: Collection[Document]) -> Mapping[str, int]:
        """Nova names a server's process after the server's own id, and writes down the server's name."""
        known = self._domains()
        running = processes.pids_with("guest=instance-")
        ids = {instance["id"]: known[instance["name"]] for instance in instances if instance["name"] in known}
        return {id: running[uuid] for id, (uuid, _) in ids.items() if uuid in running}

    def guests_running(self) -> int:
        """Servers of the lab, whoever's, that have a process."""
        uuids = {uuid for uuid, _ in self._domains().values()}
        return len(uuids & processes.pids_with("guest=instance-").keys())

    def saved_files(self, instance: Document) -> Iterator[Path]:
        """libvirt names them after the domain."""
        _, domain = self._domains().get(instance["name"], ("", ""))
        file = self.lab.inside(f"var/lib/libvirt/qemu/save/{domain}.save")
        return (each for each in (file,) if domain and each.exists())

    def end(self) -> list[str]:
        left = []
        try:
            if is_up(self.lab):
                self.probe.close(self.admin)
                for cloud in ORDINARY:
                    self.delete_others(self.cloud(cloud))
            if not self._was_up:
                self._call("down")
        except (DemoFailed, LabFailed, *API_FAILURES) as error:
            left.append(f"a part of the lab ({error})")
        self._number.unlink(missing_ok=True)
        return left

    # --- the cloud ---

    @cached_property
    def admin(self) -> Connection:
        return connect(self.lab, ADMIN)

    def cloud(self, name: str) -> Connection:
        return connect(self.lab, name)

    def delete_others(self, cloud: Connection) -> None:
        """Every server of the demo in that project that is not Torpor's."""
        ours = [server for server in cloud.compute.servers() if server.name.startswith(OTHERS)]
        for server in ours:
            cloud.compute.delete_server(server)
        for server in ours:
            cloud.compute.wait_for_delete(server, interval=1, wait=_DELETE_SECONDS)

    # --- parts of the above ---

    def _call(self, act: str) -> None:
        lab = ("--number", str(self.lab.number), "--folder", str(self.lab.folder))
        done = subprocess.run(
            [sys.executable, "-m", "lab.openstack", *lab, act],
            cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False,
        )  # fmt: skip
        if done.returncode:
            raise DemoFailed(f"lab {self.lab.number} can't be brought {act}")

    def _domains(self) -> dict[str, tuple[str, str]]:
        """(UUID, libvirt's name) by server's name, as libvirt has them in its configuration."""
        found = {}
        for file in self.lab.inside("etc/libvirt/qemu").glob("instance-*.xml"):
            try:
                tree = ET.parse(file)
            except (OSError, ET.ParseError):
                continue  # it is just being written, or removed
            name = tree.findtext(f".//{_NOVA}")
            if name:
                found[name] = (tree.findtext("uuid") or "", tree.findtext("name") or "")
        return found
