"""The lab is a cloud that can be used from this machine, and shows what Torpor is there for."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from lab.openstack.clouds import ORDINARY, connect
from lab.openstack.namespaces import Cell
from lab.openstack.settings import Lab
from openstack.compute.v2.server import Server
from openstack.connection import Connection
from openstack.exceptions import SDKException
from tests.installation import wait_until

pytestmark = pytest.mark.timeout(2400)  # one at a time on two busy cores, and the lab may have to be made first
_PATIENCE = 300
_HOLD = ("VCPU", "MEMORY_MB", "DISK_GB")


@contextmanager
def server(cloud: Connection, becomes: str = "ACTIVE") -> Iterator[Server]:
    """A server of the test guest, once it is what it `becomes`; deleted afterwards."""
    compute = cloud.compute
    made = compute.create_server(
        name=f"test-{uuid.uuid4().hex[:8]}",
        image_id=cloud.image.find_image("tiny", ignore_missing=False).id,
        flavor_id=compute.find_flavor("g256", ignore_missing=False).id,
        networks=[{"uuid": cloud.network.find_network("n1", ignore_missing=False).id}],
        config_drive=True,
    )
    try:
        failures = [status for status in ("ACTIVE", "ERROR") if status != becomes]
        yield compute.wait_for_server(made, status=becomes, failures=failures, wait=_PATIENCE)
    finally:
        compute.delete_server(made)
        compute.wait_for_delete(made, wait=_PATIENCE)


def console(cloud: Connection, made: Server) -> str:
    """What the guest has said; empty while there is no console."""
    try:
        return str(cloud.compute.get_server_console_output(made)["output"])
    except SDKException:
        return ""


def console_when_ready(cloud: Connection, made: Server) -> str:
    """What the guest has said, once its services listen and it counts; empty before."""
    text = console(cloud, made)
    return text if "guest ready" in text and ticks(text) else ""


def usages(admin: Connection, lab: Lab) -> dict[str, int]:
    """What Placement has in its books for the lab's host."""
    (provider,) = admin.placement.resource_providers(name=lab.hostname)
    answer = admin.placement.get(f"/resource_providers/{provider.id}/usages").json()["usages"]
    return {kind: answer[kind] for kind in _HOLD}


def address_of(made: Server) -> str:
    (entries,) = made.addresses.values()
    return str(entries[0]["addr"])


def ticks(text: str) -> list[tuple[int, str]]:
    """The guest's counter and the nonce of its boot, as often as its console says so."""
    return [(int(count), nonce) for count, nonce in re.findall(r"tick (\d+) up \S+ nonce (\w+)", text)]


def qemu_processes(lab: Lab, made: Server) -> int:
    """How many QEMU processes the lab's host has for this server."""
    running = [process for process in Cell(lab).processes() if process.name().startswith("qemu-system")]
    return sum(made.id in process.cmdline() for process in running)


def test_a_suspended_server_keeps_its_claim_and_goes_on_where_it_was(
    lab: Lab, admin: Connection, demo: Connection
) -> None:
    empty = usages(admin, lab)
    with server(demo) as made:
        told = wait_until(lambda: console_when_ready(demo, made), _PATIENCE, "the guest says that it is ready")
        assert f"has {address_of(made)}, hostname {made.name}" in told
        before = ticks(told)[-1]
        booked = usages(admin, lab)
        assert booked == {
            "VCPU": empty["VCPU"] + 1,
            "MEMORY_MB": empty["MEMORY_MB"] + 256,
            "DISK_GB": empty["DISK_GB"] + 1,
        }

        demo.compute.suspend_server(made)
        demo.compute.wait_for_server(made, status="SUSPENDED", wait=_PATIENCE)
        assert qemu_processes(lab, made) == 0, "the host is rid of it"
        assert usages(admin, lab) == booked, "and yet the books are as they were: nothing can be booted in its place"

        demo.compute.resume_server(made)
        demo.compute.wait_for_server(made, wait=_PATIENCE)
        after = wait_until(lambda: ticks(console(demo, made)), _PATIENCE, "the guest's counter goes on")[-1]
        assert after[1] == before[1], "it was not booted again"
        assert after[0] > before[0]
    wait_until(lambda: usages(admin, lab) == empty, _PATIENCE, "the books are as they were before")


def test_a_full_host_has_no_place_even_while_one_of_its_servers_is_suspended(lab: Lab, demo: Connection) -> None:
    with ExitStack() as servers:
        first, *_ = [servers.enter_context(server(demo)) for _ in range(lab.vcpus)]
        demo.compute.suspend_server(first)
        demo.compute.wait_for_server(first, status="SUSPENDED", wait=_PATIENCE)
        with server(demo, becomes="ERROR") as refused:
            assert "No valid host" in demo.compute.get_server(refused.id).fault["message"]


def test_this_machine_sees_no_more_of_it_than_the_end_of_a_cable(lab: Lab, demo: Connection) -> None:
    with server(demo):
        interfaces = {entry.name for entry in Path("/sys/class/net").iterdir()}
        assert lab.interface in interfaces
        assert not any(name.startswith("brq") for name in interfaces), "Neutron's bridges are the lab's own"
        assert str(lab.root) not in Path("/proc/self/mountinfo").read_text()


def test_two_projects_have_networks_of_the_same_names(lab: Lab) -> None:
    one, other = (connect(lab, cloud) for cloud in ORDINARY)
    for name in ("n1", "n2"):
        ids = {cloud.network.find_network(name, ignore_missing=False).id for cloud in (one, other)}
        assert len(ids) == 2
