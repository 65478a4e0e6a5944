"""The life of servers: implements the `Hypervisor` port for all hosts of a cloud."""

import base64
import json
import time
from collections.abc import Mapping
from dataclasses import replace

from torpor.adapters.openstack.cloud import COMPUTE, Cloud, Document
from torpor.adapters.openstack.metadata import INSTANCE, WORKLOAD
from torpor.adapters.openstack.networks import Networks
from torpor.adapters.openstack.placement import Placement, resources, retried
from torpor.adapters.openstack.servers import Server, Servers
from torpor.domain.capacity import Host, Resources
from torpor.domain.errors import BackendFailed, Conflict, InstanceGone, NoCapacity, NotFound
from torpor.domain.ids import HostId, InstanceId
from torpor.domain.instance import InstanceSpec, Observation
from torpor.ports import Capabilities

_MIB = 1 << 20
_NO_HOST = "no valid host"
SUSPENDED = "suspended to make room for others; it is resumed by itself"
"""What owners are told by the lock."""


class NovaHypervisor:
    """Pausing a server suspends it, for Nova refuses to suspend what stands still."""

    def __init__(self, servers: Servers, placement: Placement, networks: Networks) -> None:
        self._servers = servers
        self._placement = placement
        self._networks = networks

    @property
    def _cloud(self) -> Cloud:
        return self._servers.cloud

    def capabilities(self) -> Capabilities:
        return Capabilities(
            gang_pause=False, revert=False, guest_agent=False, keeps_process=False, adoption=True, shared_books=True
        )

    def host(self) -> Host:
        """The first one: a cloud has many, and the books know them all."""
        first = next(iter(self._placement.providers()), None)
        return Host(first.name, resources(first.capacity)) if first else Host(HostId("none"), Resources())

    def observe(self) -> Mapping[InstanceId, Observation]:
        return {
            server.instance: _observed(server)
            for server in reversed(self._servers.all())
            if server.ours and (server.has_process or (server.status == "SHUTOFF" and not server.stopped_by_us))
        }

    def boot(self, spec: InstanceSpec) -> None:
        """On the host where its room is. Raises NoCapacity where somebody else took that in the very last moment."""
        server = self._servers.fresh(spec.id)
        if server is not None and server.status != "ERROR":
            self._go_on_booting(server)
            return
        if server is not None:
            self._remove(server)
        self._let_go_of_promise(spec)
        made = self._create(spec)
        try:
            self._servers.await_status(made, "ACTIVE", f"server {spec.name} was not booted")
        except BackendFailed as error:
            if _NO_HOST not in error.detail.lower():
                raise
            raise NoCapacity(
                f"server {spec.name} was not booted",
                detail=f"somebody else took the room on {spec.host} between its release and the boot",
                remedy="it is tried again by itself",
            ) from error
        finally:
            self._servers.forget()

    def pause(self, instance: InstanceId) -> None:
        """Raises Conflict for a server that its owner has paused."""
        self.suspend(self._servers.require(instance))

    def run_on(self, instance: InstanceId) -> None:
        """Resumed, whoever suspended it; then its owner may do with it again what they like."""
        self.resume(self._servers.require(instance))

    def suspend(self, server: Server) -> float | None:
        """When Nova took the order, on the monotonic clock; None where there was nothing to order.

        It is locked at once: nobody is to resume it on room that others have. Raises InstanceGone, Conflict, TimedOut.
        """
        server, ordered = self._at_rest(server), None
        if not server.suspended:
            what = f"server {server.name} was not suspended"
            if server.status == "PAUSED":
                raise Conflict(what, detail="Nova suspends no paused server", remedy="unpause it first")
            if server.status != "ACTIVE":
                raise InstanceGone(what, detail=f"it is {server.status}", remedy="start it first")
            self._servers.act(server, "suspend", None, what)
            ordered = time.monotonic()
            server = self._servers.await_status(server, "SUSPENDED", what)
            self._servers.lock(server, SUSPENDED)
        return ordered

    def resume(self, server: Server) -> float | None:
        """As `suspend`. The lock goes once it runs.

        One that Nova has in error because what it did last has failed, and that runs all the same (it could not be
        suspended for want of room, say), is declared active again.
        """
        server, ordered = self._at_rest(server), None
        what = f"server {server.name} does not run on"
        if server.status in ("SUSPENDED", "PAUSED"):
            self._servers.act(server, "resume" if server.suspended else "unpause", None, what)
            ordered = time.monotonic()
            server = self._servers.await_status(server, "ACTIVE", what)
        elif server.status == "ERROR" and server.has_process and self._servers.runs(server):
            self._servers.act(server, "os-resetState", {"state": "active"}, what)
            server = self._servers.await_status(server, "ACTIVE", what)
        elif server.status == "ERROR" and server.locked_by_us:
            raise BackendFailed(
                what,
                detail=f"Nova could not resume it, and resumes nothing that is in error ({server.fault})",
                remedy=f"on {server.host}: virsh start {server.domain}; it is taken from there by itself. Its memory is"
                " saved there still, and a hard reboot would lose it",
            )
        elif server.status != "ACTIVE":
            raise InstanceGone(what, detail=f"it is {server.status}", remedy="start it by hand")
        self._servers.unlock(server)
        return ordered

    def stop(self, instance: InstanceId, grace: float) -> None:
        """Nova has its own patience with guests (os_shutdown_timeout of the image). What Torpor made is locked then:
        nobody is to start it on room that others have."""
        server = self._servers.fresh(instance)
        server = self._servers.await_rest(server) if server else None
        if server is None:
            return
        if server.status == "PAUSED":
            self._servers.act(server, "unpause")
            server = self._servers.await_status(server, "ACTIVE", f"server {server.name} was not stopped")
        if server.status == "ACTIVE":
            what = f"server {server.name} was not stopped"
            self._servers.act(server, "os-stop", None, what)
            server = self._servers.await_status(server, "SHUTOFF", what)
        if server.made:
            self._servers.lock(server, "it has ended, and its room was given back")

    def erase(self, instance: InstanceId) -> None:
        """Its ports stay, for a server that was not booted is tried again with the address that it was promised.

        Raises Conflict for a server that Torpor did not make.
        """
        server = self._servers.fresh(instance)
        if server is not None:
            if not server.made:
                raise Conflict(
                    f"server {server.name} is not deleted",
                    detail="it was not made by Torpor",
                    remedy="let go of it, and delete it as its owner",
                )
            self._remove(server)
        self._servers.forget()

    # Parts of the above

    def _at_rest(self, server: Server) -> Server:
        """As it is once Nova does nothing to it. Raises InstanceGone, TimedOut."""
        rested = self._servers.await_rest(server) if server.task else server
        if rested is None:
            raise InstanceGone(f"server {server.name} is gone", remedy="delete the workload, or run it anew")
        return rested

    def _go_on_booting(self, server: Server) -> None:
        """Of an earlier boot, whose end is waited for; one that was stopped since is started."""
        what = f"server {server.name} was not booted"
        rested = self._at_rest(server)
        if rested.suspended:
            raise Conflict(what, detail="its saved state would be lost", remedy="resume the workload, or delete it")
        if rested.status == "SHUTOFF":
            self._servers.act(rested, "os-start", None, what)
            rested = self._servers.await_status(rested, "ACTIVE", what)
        self._servers.unlock(rested)
        if rested.status != "ACTIVE":
            raise BackendFailed(what, detail=f"it is {rested.status}", remedy="delete the workload and run it anew")

    def _let_go_of_promise(self, spec: InstanceSpec) -> None:
        """What was held for it under its own id: until Nova's scheduler has claimed it anew, anybody may take it."""

        def once() -> None:
            held = self._placement.allocations(spec.id)
            if held.generation is not None:
                self._placement.write([replace(held, by_provider={})])

        retried(once)

    def _create(self, spec: InstanceSpec) -> Server:
        options = spec.options
        user_data = spec.user_data or _keys(spec)
        body: Document = {
            "name": spec.name,
            "flavorRef": options.flavor,
            "imageRef": self._image_id(spec),
            "networks": [{"port": port} for port in self._networks.ports(spec.id, options)],
            "config_drive": True,
            "metadata": {INSTANCE: spec.id, WORKLOAD: dict(spec.meta).get("workload", spec.name)},
            "hypervisor_hostname": spec.host,
        }
        if user_data:
            body["user_data"] = base64.b64encode(user_data.encode()).decode()
        if options.key_name:
            body["key_name"] = options.key_name
        what = f"server {spec.name} was not booted"
        told = self._cloud.ask("compute", "POST", "/servers", what, {"server": body}, COMPUTE, project=options.project)
        self._servers.forget()
        found = self._servers.look_at(told["server"]["id"])
        if found is None:
            raise InstanceGone(what, detail="it was deleted at once", remedy="run it anew")
        return found

    def _image_id(self, spec: InstanceSpec) -> str:
        """By name, or else the id that it was asked for by."""
        query, project = {"name": spec.image}, spec.options.project
        listed = self._cloud.ask("image", "GET", "/images", "the images can't be listed", query=query, project=project)
        return str(next((each["id"] for each in listed["images"]), spec.image))

    def _remove(self, server: Server) -> None:
        """And wait until it is gone: its claim is, then. Converges."""
        what = f"server {server.name} was not deleted"
        try:
            self._cloud.compute("DELETE", f"/servers/{server.id}", what)
        except NotFound:
            pass
        finally:
            self._servers.forget()
        self._servers.await_gone(server, what)


def _observed(server: Server) -> Observation:
    """Nova does not tell how much of its memory a guest uses: all of it may have to be written."""
    memory = server.memory_mb * _MIB if server.has_process else 0
    return Observation(server.state, memory, memory, 0 if server.has_process else None, server.host)


def _keys(spec: InstanceSpec) -> str:
    """User data for the configured SSH keys: Nova's own key pairs belong to users, not to projects."""
    if not spec.ssh_keys:
        return ""
    return "#cloud-config\n" + json.dumps({"ssh_authorized_keys": list(spec.ssh_keys)}) + "\n"
