"""Servers that others have made: all are listed, and those that are to be looked after are marked in their metadata."""

from collections.abc import Sequence

from torpor.adapters.openstack.cloud import Document
from torpor.adapters.openstack.metadata import KEYS, written
from torpor.adapters.openstack.obstacles import obstacle
from torpor.adapters.openstack.servers import Server, Servers
from torpor.domain.adoption import Mark, Stranger
from torpor.domain.errors import Conflict, NotFound
from torpor.domain.ids import InstanceId
from torpor.domain.instance import BackendState
from torpor.domain.workload import Flavor

_GIB_MB = 1024


class NovaAdoption:
    """The Adoption port, for the projects that have let Torpor in."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers

    def strangers(self) -> Sequence[Stranger]:
        found = [_stranger(server) for server in self._servers.all() if not server.made]
        return tuple(sorted(found, key=lambda each: (each.name, each.id)))

    def mark(self, instance: InstanceId, mark: Mark) -> None:
        server = self._require(instance)
        if server.said.mark != mark:
            self._change(server, "POST", "", {"metadata": written(mark)})

    def unmark(self, instance: InstanceId) -> None:
        try:
            server = self._require(instance)
        except NotFound:
            return
        for key in set(KEYS) & server.metadata.keys():
            try:
                self._change(server, "DELETE", f"/{key}", None)
            except NotFound:
                continue

    def _require(self, instance: InstanceId) -> Server:
        known = next((s for s in self._servers.all() if instance in (s.id, s.instance)), None)
        server = self._servers.look_at(known.id) if known else None
        if server is None:
            raise NotFound(f"there is no server {instance}", detail="Nova has none", remedy="see `torpor adopt`")
        if server.made:
            raise Conflict(f"server {server.name} is Torpor's own", remedy="leave its metadata as they are")
        return server

    def _change(self, server: Server, method: str, path: str, body: Document | None) -> None:
        try:
            self._servers.cloud.compute(
                method, f"/servers/{server.id}/metadata{path}", f"server {server.name} was not marked", body
            )
        finally:
            self._servers.forget()


def _stranger(server: Server) -> Stranger:
    mac = server.addresses[0][0] if server.addresses else ""
    said = server.said
    return Stranger(
        id=server.instance,
        name=server.name,
        flavor=Flavor(server.vcpus, server.memory_mb, server.disk_gb * _GIB_MB),
        mac=mac,
        state=BackendState.SHUT_OFF if server.status == "SHUTOFF" else server.state,
        mark=said.mark,
        defect=said.defect,
        unfit=obstacle(server.flavor_specs, server.image_properties),
        host=server.host,
        network=server.project,
    )
