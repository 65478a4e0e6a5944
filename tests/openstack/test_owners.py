"""Owners and administrators beside Torpor: what they may do with a suspended server, and what becomes of it."""

from __future__ import annotations

import time

import pytest
from lab.openstack.namespaces import Cell
from openstack.compute.v2.server import Server
from openstack.connection import Connection
from openstack.exceptions import ConflictException, ForbiddenException, HttpException
from tests.installation import wait_until
from tests.lab_machines import PATIENCE
from tests.openstack.conftest import GANG, Scene

pytestmark = pytest.mark.timeout(1800)


def test_an_owner_can_do_nothing_to_a_suspended_server_and_is_told_why(running: Scene, owner: Connection) -> None:
    running.suspend()
    running.check_suspended()
    server = running.servers()[0]
    compute = owner.compute
    with pytest.raises(ConflictException):
        compute.resume_server(server.id)
    with pytest.raises(ConflictException):
        compute.reboot_server(server.id, "HARD")
    with pytest.raises(ConflictException):
        compute.shelve_server(server.id)
    with pytest.raises(ConflictException):
        compute.delete_server(server.id)
    with pytest.raises((ForbiddenException, ConflictException)):
        compute.unlock_server(server.id)
    told = compute.get("/servers/" + server.id, microversion="2.90").json()["server"]
    assert told["locked_reason"].startswith("torpor: suspended")
    running.check_suspended()
    running.resume()


def test_what_an_administrator_resumes_where_there_is_room_runs_and_is_in_the_books(running: Scene) -> None:
    running.suspend()
    for server in running.servers():
        running.admin.compute.resume_server(server.id)
    wait_until(lambda: running.torpor.state(GANG) == "active", PATIENCE, "Torpor follows")
    wait_until(
        lambda: all(running.held(server.id).get("VCPU") == 1 for server in running.servers()),
        PATIENCE,
        "they are in the books again",
    )
    wait_until(lambda: not any(s.is_locked for s in running.servers()), PATIENCE, "they are their owner's again")


def test_what_is_resumed_without_room_is_suspended_again(running: Scene, stranger: Connection) -> None:
    running.suspend()
    fillers = [_boot(stranger, f"filler-{n}") for n in range(3)]
    try:
        for filler in fillers:
            stranger.compute.wait_for_server(filler, wait=PATIENCE)
        full = running.usage()
        asked = time.time()
        for server in running.servers():
            running.admin.compute.resume_server(server.id)
        wait_until(lambda: running.events("started-without-room"), PATIENCE, "it is told")
        operation = running.last("suspend", asked)
        assert operation["status"] == "succeeded", operation
        running.check_suspended()
        assert running.usage()["VCPU"] == full["VCPU"]
    finally:
        for filler in fillers:
            stranger.compute.delete_server(filler)
        for filler in fillers:
            stranger.compute.wait_for_delete(filler, wait=PATIENCE)
    running.resume()


def test_what_heal_allocations_gives_a_suspended_server_is_taken_back(running: Scene) -> None:
    """An administrator's `nova-manage placement heal_allocations --force` writes what the flavor says."""
    running.suspend()
    before = [running.held(server.id) for server in running.servers()]
    cell = Cell(running.bench.lab)
    for server in running.servers():
        files = ("--config-file=/etc/nova/nova.conf", "--config-file=/etc/nova/databases.conf")
        cell.run("nova-manage", *files, "placement", "heal_allocations", "--force", "--instance", server.id)
    wait_until(lambda: len(running.events("books-mended")) >= 2, PATIENCE, "it is told of both")
    assert [running.held(server.id) for server in running.servers()] == before
    running.check_suspended()
    running.resume()


def test_what_its_owner_suspends_is_followed_and_keeps_its_room(running: Scene, owner: Connection) -> None:
    for server in running.servers():
        owner.compute.suspend_server(server.id)
    running.torpor.wait_state(GANG, "suspended", PATIENCE)
    assert "saved by somebody else" in running.torpor.show(GANG)["reason"]
    assert [running.held(server.id)["VCPU"] for server in running.servers()] == [1, 1]
    running.resume()


def test_what_was_never_marked_is_never_touched(running: Scene, owner: Connection, stranger: Connection) -> None:
    """Of a project that has let Torpor in, and of one that has not: a priority workload waits rather."""
    theirs = _boot(stranger, "theirs")
    try:
        stranger.compute.wait_for_server(theirs, wait=PATIENCE)
        running.torpor.ok(
            "run", "greedy", "--image", "tiny", "--flavor", "g256", "--count", "3", "--priority", "50", "--protect"
        )
        wait_until(lambda: running.torpor.get("queue")["plans"], 60, "it waits")
        time.sleep(5)
        assert running.torpor.state("greedy") == "pending"
        assert stranger.compute.get_server(theirs.id).status == "ACTIVE"
        assert theirs.id not in {each["id"] for each in running.torpor.get("strangers")["vms"]}
    finally:
        running.torpor.ok("delete", "greedy", "--yes")
        stranger.compute.delete_server(theirs)
        stranger.compute.wait_for_delete(theirs, wait=PATIENCE)


def test_a_server_of_an_owner_takes_part_once_its_metadata_say_so(running: Scene, owner: Connection) -> None:
    made = _boot(owner, "mine")
    try:
        owner.compute.wait_for_server(made, wait=PATIENCE)
        owner.compute.set_server_metadata(made, **{"torpor:workload": "mine", "torpor:preemptible": "yes"})
        wait_until(lambda: running.torpor.has("mine"), PATIENCE, "it is taken in")
        running.torpor.wait_state("mine", "active", PATIENCE)
        running.torpor.request("POST", "workloads/mine/suspend").raise_for_status()
        running.torpor.wait_state("mine", "suspended", PATIENCE)
        assert owner.compute.get_server(made.id).status == "SUSPENDED"
        assert "VCPU" not in running.held(made.id)
        running.torpor.request("POST", "workloads/mine/resume").raise_for_status()
        running.torpor.wait_state("mine", "active", PATIENCE)
        running.torpor.ok("release", "mine")
        assert owner.compute.get_server(made.id).status == "ACTIVE"
        assert running.held(made.id)["VCPU"] == 1
    finally:
        owner.compute.delete_server(made)
        owner.compute.wait_for_delete(made, wait=PATIENCE)


def _boot(cloud: Connection, name: str) -> Server:
    compute = cloud.compute
    try:
        return compute.create_server(
            name=name,
            image_id=cloud.image.find_image("tiny", ignore_missing=False).id,
            flavor_id=compute.find_flavor("g256", ignore_missing=False).id,
            networks=[{"uuid": cloud.network.find_network("n1", ignore_missing=False).id}],
            config_drive=True,
        )
    except HttpException as error:
        raise AssertionError(f"{name} was not booted: {error}") from error
