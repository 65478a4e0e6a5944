"""What lies on disk of saved states: implements the `StateStore` port."""

from collections.abc import Set

from torpor.adapters.libvirt.domains import Domains, Vm
from torpor.adapters.libvirt.hypervisor import LibvirtHypervisor
from torpor.adapters.libvirt.layout import InstanceFolder
from torpor.adapters.libvirt.manifests import Manifest, Manifests
from torpor.adapters.libvirt.saved_states import SavedStates, read_through, saved_states
from torpor.adapters.libvirt.suspension import explained
from torpor.domain.errors import BackendFailed, Conflict, NotFound, StateDamaged
from torpor.domain.ids import InstanceId
from torpor.files import remove_tree
from torpor.ports import Progress


class LibvirtStateStore:
    """Verifies, removes and tidies up; never touches an image of a domain that Torpor did not make."""

    def __init__(self, domains: Domains, hypervisor: LibvirtHypervisor) -> None:
        self._domains = domains
        self._hypervisor = hypervisor

    def verify(self, instance: InstanceId, generation: int, progress: Progress) -> None:
        """A spent state holds no memory any more: there is nothing to read. Raises NotFound, StateDamaged."""
        vm, states, manifest = self._find(instance, generation)
        if manifest.spent:
            progress(1, 1)
            return
        try:
            with explained(instance):
                read_through(vm, states, manifest, progress)
        except (StateDamaged, BackendFailed) as error:
            if states.whole() is None:
                raise _unknown(instance, generation) from error
            raise

    def remove(self, instance: InstanceId, generation: int) -> None:
        with self._domains.exclusive(instance), explained(instance):
            _, states, manifest = self._find(instance, generation)
            if not manifest.spent:
                raise Conflict(
                    f"saved state {generation} of instance {instance} can't be removed",
                    detail="it is whole: nothing else is left of the instance's memory",
                    remedy="resume the workload, or delete it",
                )
            states.manifests.remove(generation)

    def collect(self, known: Set[InstanceId]) -> int:
        return sum(self._collect(folder, folder.id in known) for folder in self._domains.layout.instances())

    def to_write(self, instance: InstanceId) -> int:
        vm = self._domains.marked(instance)
        return self._domains.resident_bytes(vm) if vm else 0

    def mapped(self, instance: InstanceId) -> bool:
        """libvirt reads all of an image before the guest runs."""
        return False

    def _find(self, instance: InstanceId, generation: int) -> tuple[Vm, SavedStates, Manifest]:
        vm = self._domains.marked(instance)
        if vm:
            states = self._states(vm)
            for manifest in states.all():
                if manifest.generation == generation:
                    return vm, states, manifest
        raise _unknown(instance, generation)

    def _states(self, vm: Vm) -> SavedStates:
        return saved_states(vm, self._domains.settings.save_dir)

    def _collect(self, folder: InstanceFolder, known: bool) -> int:
        """Bytes freed. Nobody writes a manifest while we hold the instance."""
        with self._domains.exclusive(folder.id), explained(folder.id):
            before = folder.num_bytes()
            if known:
                Manifests(folder.states).sweep()
                return max(0, before - folder.num_bytes())
            try:
                vm = self._domains.find(folder.id)
            except Conflict:  # it is others' (again), and of ours there is nothing but notes
                if folder.layers.exists():
                    return 0  # its disks still lie in files of ours: whoever marks it again finds its snapshots, too
                remove_tree(folder.path)
                return before
            if vm is None:
                remove_tree(folder.path)
                return before
            if vm.active() or not vm.tag.made:
                return 0
            image = self._states(vm).image
            stored = image.stored_bytes() if image.is_there() else 0
            self._hypervisor.erase(folder.id)
            return before + stored


def _unknown(instance: InstanceId, generation: int) -> NotFound:
    return NotFound(f"instance {instance} has no saved state {generation}", remedy="see `torpor state ls`")
