"""Live snapshots under libvirt of guests with disks: what the disks hold, which files there are, what crashes leave."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import libvirt
import pytest
from tests.installation import CACHE
from tests.libvirt_host import LibvirtBench, libvirt_bench
from tests.vms import ignore, new_spec

from torpor.adapters.config_drive import config_drive_image
from torpor.adapters.images.store import ImageStore
from torpor.adapters.libvirt.backend import LibvirtBackend, make_backend
from torpor.adapters.libvirt.connection import Connection
from torpor.adapters.libvirt.domain_xml import NewDomain, domain_xml
from torpor.adapters.libvirt.snapshot_xml import FileDisk, sources_of, with_disks
from torpor.domain.errors import Conflict, InstanceGone, NotFound, Refused, StateDamaged, TorporError
from torpor.domain.instance import BackendState, InstanceSpec, StateStatus
from torpor.ports import Disk, Kernel

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # guests boot slowly on a busy machine
DISK_BYTES = 64 << 20


class WithDisk:
    """The tiny guest, with an empty disk in the image."""

    def __init__(self, folder: Path) -> None:
        self.base = folder / "base.raw"
        with self.base.open("wb") as file:
            file.write(b"from the image".ljust(512, b"\0"))
            file.truncate(DISK_BYTES)
        self.base.chmod(0o444)
        kernel = ImageStore(CACHE).boot("tiny")
        assert isinstance(kernel, Kernel)
        self.kernel = kernel

    def boot(self, name: str) -> Disk:
        return Disk(self.base, "raw", DISK_BYTES, self.kernel)


class Died(BaseException):
    """The daemon is no more."""


class Dying(Connection):
    """To libvirt, until so many calls were made: from then on nothing is done any more, and nothing is undone."""

    def __init__(self, uri: str, calls: int) -> None:
        super().__init__(uri)
        self._left = calls

    @contextmanager
    def call(self, what: str) -> Iterator[libvirt.virConnect]:
        self._left -= 1
        if self._left < 0:
            raise Died
        with super().call(what) as host:
            yield host


class Host:
    """A bench whose guests have a disk, `vda`."""

    def __init__(self, bench: LibvirtBench, folder: Path) -> None:
        self.bench = bench
        self.folder = folder
        self.images = WithDisk(folder)
        bench.backend = self.backend(bench.backend.connection)
        bench.hypervisor, bench.suspension = bench.backend.hypervisor, bench.backend.suspension
        self.snapshots = bench.backend.snapshots
        self.base = self.digest(self.images.base)
        self.veterans: list[InstanceSpec] = []
        self.lent: list[InstanceSpec] = []

    def backend(self, connection: Connection) -> LibvirtBackend:
        return make_backend(self.bench.settings, self.images, config_drive_image, connection)

    def running(self) -> InstanceSpec:
        """An instance that runs, without snapshots, which no other call of the same test gave; a boot takes long."""
        for spec in self.veterans:
            if spec not in self.lent:
                self.lent.append(spec)
                return spec
        self.veterans.append(self.bench.booted(new_spec()))
        return self.running()

    def take_back(self) -> None:
        """What was lent is made as it was, or is no more."""
        for spec in self.lent:
            try:
                self.bench.hypervisor.run_on(spec.id)
                for name in self.kept(spec):
                    self.snapshots.remove(spec.id, name)
                assert self.layers(spec) == []
            except (TorporError, AssertionError):
                self.bench.hypervisor.erase(spec.id)
                self.veterans.remove(spec)
        self.lent.clear()

    def adopted(self, disk: Path) -> InstanceSpec:
        """A domain that its owner made, with a raw file as its disk, and that carries a mark."""
        spec = new_spec()
        log = self.folder / f"{spec.name}.log"
        new = NewDomain(spec, "batch", "qemu", self.images.boot(""), disk, self.images.base, log, None, 32)
        xml = with_disks(domain_xml(new), {"vda": FileDisk("vda", disk, "raw")}).replace('made="yes"', "")
        with self.bench.backend.connection.call("it can't be defined") as host:
            host.defineXML(xml).create()
        self.bench.wait_guest(spec.id)
        return spec

    def write(self, spec: InstanceSpec, text: str, at: int = 0) -> None:
        """To the disk, in its MiB `at`."""
        self.bench.run_in(spec.id, f"echo {text} | dd of=/dev/vda bs=1M seek={at} conv=notrunc; sync")

    def read(self, spec: InstanceSpec, at: int = 0) -> str:
        """What is on the disk, and in the guest's memory of it, which are the same."""
        read = f"dd if=/dev/vda bs=4096 skip={at * 256} count=1 {{}} 2>/dev/null | head -n 1 | tr -d '\\0'"
        cached, stored = (self.bench.run_in(spec.id, read.format(how)).strip() for how in ("", "iflag=direct"))
        assert cached == stored
        return stored

    def counter(self, spec: InstanceSpec) -> float:
        return float(self.bench.ask(spec.id, "status")["counter"])

    def nonce(self, spec: InstanceSpec) -> str:
        return str(self.bench.ask(spec.id, "status")["nonce"])

    def take(self, spec: InstanceSpec, name: str) -> None:
        self.snapshots.take([spec], name, ignore)

    def go_back(self, spec: InstanceSpec, name: str) -> None:
        self.bench.hypervisor.stop(spec.id, 0.0)
        self.snapshots.verify(spec.id, name, ignore)
        self.snapshots.lay_down(spec, spec.id, name)
        self.resume(spec)

    def resume(self, spec: InstanceSpec) -> None:
        """And wait for its agent: its channel may take a moment to be connected again."""
        self.bench.resume(spec)
        self.bench.wait_guest(spec.id)

    def disk(self, spec: InstanceSpec) -> Path:
        """The file that its disk is written to, now and after the next start."""
        domain = self.bench.domain(spec.id)
        now, later = (sources_of(domain.XMLDesc(flags))["vda"] for flags in (0, libvirt.VIR_DOMAIN_XML_INACTIVE))
        assert now == later
        return now

    def layers(self, spec: InstanceSpec) -> list[str]:
        """Names of the files beside its disk."""
        folder = self.disk(spec).parent
        return sorted(path.name for path in folder.iterdir() if ".torpor-" in path.name or path.name.startswith("."))

    def kept(self, spec: InstanceSpec) -> list[str]:
        return [snapshot.name for snapshot in self.snapshots.list(spec.id)]

    @staticmethod
    def digest(file: Path) -> str:
        return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with libvirt_bench() as bench:
        yield Host(bench, tmp_path_factory.mktemp("owner"))


@pytest.fixture
def host(shared: Host) -> Iterator[Host]:
    yield shared
    assert shared.digest(shared.images.base) == shared.base, "an image is never written"
    shared.take_back()
    for domain in shared.bench.backend.domains.all():
        if not domain.tag.made:
            domain.destroy()
            domain.domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE)


def test_memory_and_disk_are_those_of_the_instant_again_and_again(host: Host) -> None:
    spec = host.running()
    nonce = host.nonce(spec)
    host.write(spec, "before")
    host.write(spec, "nothing", at=5)
    host.bench.run_in(spec.id, "echo before > /tmp/memory")
    counter = host.counter(spec)
    (snapshot,) = host.snapshots.take([spec], "s1", ignore)
    assert snapshot.pause_seconds > 0
    frozen = host.bench.folder(spec.id).disk
    digest = host.digest(frozen)
    for _ in range(2):
        host.write(spec, "after")
        host.write(spec, "more", at=5)
        host.bench.run_in(spec.id, "echo after > /tmp/memory")
        host.go_back(spec, "s1")
        assert (host.read(spec), host.read(spec, at=5)) == ("before", "nothing")
        assert host.bench.run_in(spec.id, "cat /tmp/memory") == "before\n"
        assert host.nonce(spec) == nonce
        assert host.counter(spec) >= counter
        assert host.digest(frozen) == digest
        assert len(host.layers(spec)) == 1, "what was given up takes no room"
        assert host.bench.suspension.states(spec.id)[0].status is StateStatus.SPENT
    host.snapshots.verify(spec.id, "s1", ignore)


def test_a_plain_start_takes_up_what_was_laid_down(host: Host) -> None:
    spec = host.running()
    host.write(spec, "before")
    host.take(spec, "s1")
    host.write(spec, "after")
    nonce = host.nonce(spec)
    host.bench.hypervisor.stop(spec.id, 0.0)
    host.snapshots.lay_down(spec, spec.id, "s1")
    host.bench.daemon.virsh("start", spec.name)
    host.bench.wait_guest(spec.id)
    assert (host.nonce(spec), host.read(spec)) == (nonce, "before")
    host.bench.daemon.virsh("destroy", spec.name)
    host.bench.daemon.virsh("start", spec.name)
    host.bench.wait_guest(spec.id)
    assert host.read(spec) == "before", "a cold boot has the disk that was gone on with"


def test_removal_gives_the_room_back_and_keeps_what_was_written(host: Host) -> None:
    spec = host.running()
    host.write(spec, "before")
    host.take(spec, "s1")
    assert host.layers(spec)
    host.write(spec, "after")
    counter = host.counter(spec)
    host.snapshots.remove(spec.id, "s1")
    host.snapshots.remove(spec.id, "s1")
    assert (host.read(spec), host.layers(spec)) == ("after", [])
    assert host.disk(spec) == host.bench.folder(spec.id).disk
    assert host.counter(spec) >= counter
    assert list(host.bench.folder(spec.id).snapshots.iterdir()) == []
    host.bench.suspend(spec)
    host.resume(spec)
    assert host.read(spec) == "after"


def test_the_disk_of_a_domain_that_is_off_is_merged_too(host: Host) -> None:
    spec = host.running()
    host.take(spec, "s1")
    host.write(spec, "after")
    host.bench.hypervisor.stop(spec.id, 0.0)
    host.snapshots.remove(spec.id, "s1")
    assert (host.disk(spec), host.layers(spec)) == (host.bench.folder(spec.id).disk, [])
    host.bench.booted(spec)
    assert host.read(spec) == "after"


def test_a_boot_goes_on_in_the_layer_that_was_written_last(host: Host) -> None:
    spec = host.running()
    host.take(spec, "s1")
    host.write(spec, "after")
    host.bench.hypervisor.stop(spec.id, 0.0)
    host.bench.booted(spec)
    assert host.read(spec) == "after"
    host.snapshots.verify(spec.id, "s1", ignore)


def test_layers_of_a_suspended_domain_stay_until_it_runs(host: Host) -> None:
    spec = host.running()
    host.take(spec, "s1")
    host.write(spec, "after")
    host.bench.suspend(spec)
    host.snapshots.remove(spec.id, "s1")
    assert len(host.layers(spec)) == 1
    host.resume(spec)
    assert host.read(spec) == "after"
    host.snapshots.remove(spec.id, "s1")
    assert (host.read(spec), host.layers(spec)) == ("after", [])


def test_snapshots_of_what_came_of_snapshots(host: Host) -> None:
    spec = host.running()
    for name in ("s1", "s2"):
        host.write(spec, name)
        host.take(spec, name)
    host.go_back(spec, "s1")
    assert host.read(spec) == "s1"
    host.write(spec, "s3")
    host.take(spec, "s3")
    assert host.kept(spec) == ["s1", "s2", "s3"]
    for name in ("s2", "s3", "s1", "s2"):
        host.write(spec, "lost")
        host.go_back(spec, name)
        assert host.read(spec) == name
    host.snapshots.remove(spec.id, "s1")
    for name in ("s3", "s2"):
        host.go_back(spec, name)
        assert host.read(spec) == name
    host.snapshots.remove(spec.id, "s3")
    host.snapshots.remove(spec.id, "s2")
    assert (host.read(spec), host.layers(spec)) == ("s2", [])
    assert host.disk(spec) == host.bench.folder(spec.id).disk


def test_an_adopted_domain_has_its_own_disk_again_in_the_end(host: Host) -> None:
    raw = host.folder / "theirs.img"
    with raw.open("wb") as file:
        file.truncate(DISK_BYTES)
    spec = host.adopted(raw)
    host.write(spec, "before")
    host.take(spec, "s1")
    assert host.disk(spec) == Path(f"{raw}.torpor-s1")
    host.write(spec, "after")
    host.go_back(spec, "s1")
    assert host.read(spec) == "before"
    host.write(spec, "own")
    host.bench.suspend(spec)
    host.resume(spec)
    host.snapshots.remove(spec.id, "s1")
    assert (host.read(spec), host.disk(spec), host.layers(spec)) == ("own", raw, [])
    host.bench.hypervisor.stop(spec.id, 0.0)
    assert raw.read_bytes().startswith(b"own")


def test_a_gang_is_kept_whole_with_the_instant_of_each(host: Host) -> None:
    gang = [host.running(), host.running()]
    for spec in gang:
        host.write(spec, spec.name)
    taken = host.snapshots.take(gang, "s1", ignore)
    assert [s.instance for s in taken] == [spec.id for spec in gang]
    assert all(s.pause_seconds > 0 for s in taken)
    for spec in gang:
        host.write(spec, "after")
        host.go_back(spec, "s1")
        assert host.read(spec) == spec.name


def test_one_that_fails_leaves_nothing_of_the_others(host: Host) -> None:
    first, second = host.running(), host.running()
    host.write(first, "before")
    host.write(second, "before")
    killed: list[object] = []

    def kill(done: int, total: int) -> None:
        if not killed:
            killed.append(host.bench.domain(second.id).destroy())

    with pytest.raises(TorporError):
        host.snapshots.take([first, second], "s1", kill)
    assert host.kept(first) == host.kept(second) == []
    assert host.bench.state(first.id) is BackendState.RUNNING
    host.write(first, "after", at=3)
    assert (host.read(first), host.read(first, at=3)) == ("before", "after")
    assert (host.layers(first), host.layers(second)) == ([], [])
    host.bench.booted(second)
    assert host.read(second) == "before"


def test_what_stands_still_is_kept_as_it_is(host: Host) -> None:
    spec = host.running()
    host.write(spec, "before")
    host.bench.hypervisor.pause(spec.id)
    (snapshot,) = host.snapshots.take([spec], "s1", ignore)
    assert snapshot.pause_seconds == 0
    assert host.bench.state(spec.id) is BackendState.PAUSED
    host.snapshots.remove(spec.id, "s1")
    assert host.layers(spec) == []
    host.take(spec, "s2")
    host.bench.hypervisor.run_on(spec.id)
    host.write(spec, "after")
    host.go_back(spec, "s2")
    assert host.read(spec) == "before"


def test_one_that_is_being_resumed_is_not_kept(host: Host) -> None:
    spec = host.running()
    host.bench.suspend(spec)
    with pytest.raises(InstanceGone):
        host.take(spec, "s1")
    host.bench.suspension.restore(spec, ignore)
    with pytest.raises(Conflict):
        host.take(spec, "s1")
    assert host.layers(spec) == []


def test_a_damaged_snapshot_is_found_out_before_anything_is_given_up(host: Host) -> None:
    spec = host.running()
    host.take(spec, "s1")
    host.take(spec, "s2")
    memory = host.bench.folder(spec.id).snapshots / "s1" / "memory"
    with memory.open("r+b") as file:
        file.seek(memory.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    host.bench.suspend(spec)
    refused(host, spec, "s1")
    frozen = sources_of(host.bench.domain(spec.id).XMLDesc())["vda"].with_name("disk.qcow2.torpor-s1")
    with frozen.open("r+b") as file:
        file.write(b"Q")
    refused(host, spec, "s2")
    assert host.bench.suspension.states(spec.id)[0].status is StateStatus.WHOLE
    host.resume(spec)


def refused(host: Host, spec: InstanceSpec, name: str) -> None:
    with pytest.raises(StateDamaged):
        host.snapshots.verify(spec.id, name, ignore)
    with pytest.raises(StateDamaged):
        host.snapshots.lay_down(spec, spec.id, name)


def test_disks_that_can_not_be_frozen_are_refused(host: Host) -> None:
    first, second = host.running(), host.running()
    shared = host.folder / "shared.img"
    with shared.open("wb") as file:
        file.truncate(1 << 20)
    more = f"<disk type='file'><source file='{shared}'/><target dev='vdc' bus='virtio'/><shareable/></disk>"
    host.bench.domain(second.id).attachDeviceFlags(more, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    with pytest.raises(Refused) as refusal:
        host.snapshots.take([first, second], "s1", ignore)
    assert "vdc is shared" in refusal.value.problem.sentence
    assert (host.layers(first), host.layers(second)) == ([], [])
    host.bench.hypervisor.stop(second.id, 0.0)  # with it goes the disk, which the domain's own description has not


def test_going_back_converges_wherever_it_was_cut_off(host: Host) -> None:
    spec = host.running()
    host.write(spec, "before")
    host.take(spec, "s1")
    host.write(spec, "after")
    host.bench.hypervisor.stop(spec.id, 0.0)
    for calls in range(1, 100):
        dying = host.backend(Dying(host.bench.daemon.uri, calls))
        try:
            dying.snapshots.lay_down(spec, spec.id, "s1")
        except Died:
            host.snapshots.lay_down(spec, spec.id, "s1")
        else:
            break
        finally:
            dying.close()
        assert host.bench.suspension.states(spec.id)[0].status is StateStatus.WHOLE
        assert len(host.layers(spec)) == 1
        host.resume(spec)
        assert host.read(spec) == "before", f"cut off after {calls} calls"
        host.write(spec, "after")
        host.bench.hypervisor.stop(spec.id, 0.0)
    assert 5 < calls < 99
    assert host.kept(spec) == ["s1"]


def test_a_snapshot_that_was_cut_off_leaves_nothing(host: Host) -> None:
    spec = host.running()
    for calls in range(1, 100):
        host.write(spec, f"before-{calls}")
        dying = host.backend(Dying(host.bench.daemon.uri, calls))
        try:
            dying.snapshots.take([spec], "s1", ignore)
        except Died:
            pass
        else:
            break
        finally:
            dying.close()
        host.snapshots.remove(spec.id, "s1")
        host.bench.hypervisor.run_on(spec.id)
        assert (host.read(spec), host.layers(spec), host.kept(spec)) == (f"before-{calls}", [], [])
    assert 5 < calls < 99


def test_removal_converges_wherever_it_was_cut_off(host: Host) -> None:
    spec = host.running()
    for calls in range(1, 100):
        host.take(spec, "s1")
        host.write(spec, f"after-{calls}")
        dying = host.backend(Dying(host.bench.daemon.uri, calls))
        try:
            dying.snapshots.remove(spec.id, "s1")
        except Died:
            host.snapshots.remove(spec.id, "s1")
        else:
            break
        finally:
            dying.close()
        assert (host.read(spec), host.layers(spec), host.kept(spec)) == (f"after-{calls}", [], [])
    assert 5 < calls < 99


def test_of_one_that_is_not_there_nothing_is_known(host: Host) -> None:
    spec = host.running()
    with pytest.raises(NotFound):
        host.snapshots.verify(spec.id, "s1", ignore)
    host.take(spec, "s1")
    with pytest.raises(Refused):
        host.snapshots.lay_down(new_spec(), spec.id, "s1")
