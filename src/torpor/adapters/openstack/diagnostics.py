"""What the backend needs of the cloud, for `torpor doctor`."""

from collections.abc import Callable, Sequence

from torpor.adapters.openstack.cloud import Cloud
from torpor.adapters.openstack.placement import Placement
from torpor.adapters.openstack.servers import Servers
from torpor.domain.errors import TorporError
from torpor.ports import Check


class OpenStackDiagnostics:
    def __init__(self, cloud: Cloud, servers: Servers, placement: Placement) -> None:
        self._cloud = cloud
        self._servers = servers
        self._placement = placement

    def checks(self) -> Sequence[Check]:
        first = _check("account", self._account)
        return (first,) if not first.ok else (
            first,
            _check("projects", self._projects),
            _check("nova", self._nova),
            _check("placement", self._books),
        )  # fmt: skip

    def self_test(self, progress: Callable[[str], None]) -> Check:
        """Nova's suspend is Nova's to test."""
        return Check("self-test", True, "under OpenStack the saving is Nova's; suspend and resume a server to try it")

    def _account(self) -> str:
        own = self._cloud.own
        return f"{self._cloud.settings.cloud}: logged in to project {own.current_project.name}"

    def _projects(self) -> str:
        found = self._cloud.projects()
        if not found:
            raise TorporError(
                "no project has let Torpor in",
                remedy="give its account a role in one: see docs/how-to/run-torpor-on-openstack.md",
            )
        return f"let in by {', '.join(sorted(found.values()))}"

    def _nova(self) -> str:
        servers = self._servers.all()
        return f"{len(servers)} servers, {sum(s.ours for s in servers)} looked after"

    def _books(self) -> str:
        version = ".".join(map(str, self._placement.version()))
        hosts = self._placement.providers()
        if not hosts:
            raise TorporError("Placement has no compute host", remedy="check openstack.hosts, and nova-compute")
        return f"microversion {version}; {len(hosts)} hosts: {', '.join(h.name for h in hosts)}"


def _check(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look())
    except TorporError as error:
        return Check(name, False, error.detail or error.what, error.remedy)
