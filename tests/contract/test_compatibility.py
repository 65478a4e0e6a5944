"""A state is taken up only by what it was saved from: everything else is refused before anything is loaded."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace

import pytest
from tests.vms import Bench, bench, ignore, new_spec

from torpor.adapters.qemu.pages import checksum
from torpor.adapters.qemu.state_files import Generation, Manifest, StateFiles
from torpor.domain.errors import MissingPart, StateDamaged, TorporError
from torpor.domain.instance import BackendState, InstanceSpec, StateStatus

Change = Callable[[Manifest], Manifest]


@pytest.fixture(scope="module")
def host() -> Iterator[Bench]:
    with bench() as qemu:
        yield qemu


@pytest.fixture(scope="module")
def asleep(host: Bench) -> InstanceSpec:
    spec = new_spec()
    host.hypervisor.boot(spec)
    host.suspend(spec)
    return spec


@pytest.mark.parametrize(
    ("change", "refusal", "said"),
    [
        (lambda m: replace(m, qemu="3.1"), MissingPart, "it needs QEMU 3.1 with"),
        (lambda m: replace(m, machine="pc-i440fx-0.9"), MissingPart, "with pc-i440fx-0.9"),
        (lambda m: replace(m, accelerator="kvm"), MissingPart, "it needs accelerator kvm"),
        (lambda m: replace(m, cpu="another model: flags"), MissingPart, "the CPU model and flags"),
        (lambda m: replace(m, arguments=(*m.arguments[1:], "-more")), StateDamaged, "saved with"),
        (lambda m: replace(m, blocks={n: size + 4096 for n, size in m.blocks.items()}), StateDamaged, "another size"),
    ],
    ids=["qemu", "machine", "accelerator", "cpu", "arguments", "ram-blocks"],
)
def test_what_does_not_fit_is_refused_and_the_state_is_left_whole(
    host: Bench, asleep: InstanceSpec, change: Change, refusal: type[TorporError], said: str
) -> None:
    state = StateFiles(host.folder(asleep.id)).newest()
    assert state is not None
    written = state.manifest_file.read_bytes()
    rewrite(state, change(state.manifest()))
    try:
        with pytest.raises(refusal, match=said):
            host.suspension.restore(asleep, ignore)
    finally:
        state.manifest_file.write_bytes(written)
    assert host.state(asleep.id) is BackendState.ABSENT
    assert [s.status for s in host.suspension.states(asleep.id)] == [StateStatus.WHOLE]


def test_what_fits_is_taken_up_after_all_those_refusals(host: Bench, asleep: InstanceSpec) -> None:
    host.resume(asleep)
    assert host.state(asleep.id) is BackendState.RUNNING


def rewrite(state: Generation, manifest: Manifest) -> None:
    outer = json.loads(state.manifest_file.read_bytes())
    body = json.dumps(asdict(manifest))
    state.manifest_file.write_text(json.dumps({**outer, "checksum": checksum(body.encode()), "body": body}))
