"""What a state does not fit is refused before anything is loaded, mostly before there is a process at all."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest
from tests.installation import CACHE
from tests.vms import Bench, bench, new_spec

from torpor.adapters.config_drive import config_drive_image
from torpor.adapters.images.store import ImageStore
from torpor.adapters.qemu import QemuBackend, make_backend
from torpor.adapters.qemu.pages import checksum
from torpor.adapters.qemu.state_files import Manifest, StateFiles
from torpor.domain.errors import MissingPart, StateDamaged, TorporError
from torpor.domain.instance import InstanceSpec, Mechanism, StateStatus

Change = Callable[[Manifest], Manifest]


@dataclass(frozen=True)
class Host:
    """A host with one suspended guest, whose QEMU keeps a list of what it was started for."""

    qemu: Bench
    backend: QemuBackend
    asleep: InstanceSpec
    starts: Path

    def started(self) -> list[str]:
        """Machines that were started to take up a state."""
        return [line for line in self.starts.read_text().splitlines() if "-incoming" in line]


@pytest.fixture(scope="module", params=list(Mechanism))
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("bin")
    starts, program = folder / "starts", folder / "qemu"
    starts.touch()
    program.write_text(f'#!/bin/sh\necho "$@" >>{starts}\nexec qemu-system-x86_64 "$@"\n')
    program.chmod(0o755)
    with bench(mechanism=request.param) as qemu:
        spec = qemu.booted(new_spec())
        qemu.suspend(spec)
        settings = replace(qemu.settings, binary=str(program))
        backend = make_backend(settings, ImageStore(CACHE), config_drive_image)
        yield Host(qemu, backend, spec, starts)
        qemu.backend.vms.monitors.forget(qemu.folder(spec.id).qmp_socket)
        backend.hypervisor.erase(spec.id)
        backend.close()


@pytest.mark.parametrize(
    ("change", "refusal", "said"),
    [
        (lambda m: replace(m, qemu="3.1"), MissingPart, "it needs QEMU 3.1 with"),
        (lambda m: replace(m, machine="pc-i440fx-0.9"), MissingPart, "with pc-i440fx-0.9"),
        (lambda m: replace(m, accelerator="kvm"), MissingPart, "it needs accelerator kvm"),
        (lambda m: replace(m, cpu="another model: flags"), MissingPart, "the CPU model and flags"),
        (lambda m: replace(m, arguments=(*m.arguments[1:], "-more")), StateDamaged, "saved with"),
    ],
    ids=["qemu", "machine", "accelerator", "cpu", "arguments"],
)
def test_another_host_s_state_starts_no_process(
    host: Host, change: Change, refusal: type[TorporError], said: str
) -> None:
    before = len(host.started())
    assert refused(host, change, refusal, said) == []
    assert len(host.started()) == before


def test_ram_blocks_are_compared_before_any_of_the_state_is_read(host: Host) -> None:
    """The waiting process has to be asked for its own; it is gone afterwards."""
    change: Change = lambda m: replace(m, blocks={n: size + 4096 for n, size in m.blocks.items()})  # noqa: E731
    before = len(host.started())
    assert refused(host, change, StateDamaged, "another size") == []
    assert len(host.started()) == before + 1


def test_what_fits_is_taken_up_after_all_those_refusals(host: Host) -> None:
    told: list[int] = []
    host.backend.suspension.restore(host.asleep, lambda done, total: told.append(done))
    assert told
    assert len(host.started()) > 0
    host.backend.suspension.spend(host.asleep.id)
    host.backend.hypervisor.run_on(host.asleep.id)
    assert host.qemu.wait_guest(host.asleep.id)["nonce"]


def refused(host: Host, change: Change, refusal: type[TorporError], said: str) -> list[tuple[int, int]]:
    """What was told of progress while a state with this manifest was refused and left as it was."""
    state = StateFiles(host.qemu.folder(host.asleep.id)).newest()
    assert state is not None
    written = state.manifest_file.read_bytes()
    body = json.dumps(asdict(change(state.manifest())))
    outer = {**json.loads(written), "checksum": checksum(body.encode()), "body": body}
    state.manifest_file.write_text(json.dumps(outer))
    told: list[tuple[int, int]] = []
    try:
        with pytest.raises(refusal, match=said):
            host.backend.suspension.restore(host.asleep, lambda done, total: told.append((done, total)))
    finally:
        state.manifest_file.write_bytes(written)
    assert host.backend.hypervisor.observe().get(host.asleep.id) is None
    assert [s.status for s in host.backend.suspension.states(host.asleep.id)] == [StateStatus.WHOLE]
    return told
