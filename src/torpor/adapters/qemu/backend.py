"""The embedded backend, put together."""

from collections.abc import Callable
from dataclasses import dataclass

from torpor.adapters.qemu.diagnostics import QemuDiagnostics
from torpor.adapters.qemu.gangs import QemuGangs
from torpor.adapters.qemu.layout import Layout
from torpor.adapters.qemu.live_snapshots import QemuSnapshots
from torpor.adapters.qemu.machine import QemuHypervisor, SoftShutdown
from torpor.adapters.qemu.qmp import Monitors
from torpor.adapters.qemu.settings import QemuSettings
from torpor.adapters.qemu.state_store import QemuStateStore
from torpor.adapters.qemu.suspension import QemuSuspension
from torpor.adapters.qemu.vms import Taps, Vms
from torpor.domain.instance import InstanceSpec, Mechanism
from torpor.ports import BootImages


@dataclass(frozen=True, slots=True)
class QemuBackend:
    """The ports of one host, over the same VMs."""

    hypervisor: QemuHypervisor
    gangs: QemuGangs
    suspension: QemuSuspension
    states: QemuStateStore
    diagnostics: QemuDiagnostics
    layout: Layout
    vms: Vms
    snapshots: QemuSnapshots

    def close(self) -> None:
        """Close the connections to monitors; the VMs go on."""
        self.vms.monitors.close()


def make_backend(
    settings: QemuSettings,
    images: BootImages,
    config_drive: Callable[[InstanceSpec], bytes],
    taps: Taps | None = None,
    shutdown: SoftShutdown | None = None,
    mechanism: Mechanism | None = None,
) -> QemuBackend:
    """Without `taps` VMs have no network; `mechanism` overrides how memory is saved."""
    layout = Layout(settings.state_dir)
    vms = Vms(settings, layout, Monitors(), images, taps)
    hypervisor = QemuHypervisor(vms, config_drive, shutdown, guest_agent=shutdown is not None)
    return QemuBackend(
        hypervisor,
        QemuGangs(vms),
        QemuSuspension(vms, config_drive, mechanism),
        QemuStateStore(vms),
        QemuDiagnostics(vms, config_drive),
        layout,
        vms,
        QemuSnapshots(vms, config_drive),
    )
