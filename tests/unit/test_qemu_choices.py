"""When the host's KVM is trusted, and when guest memory is saved from outside of QEMU."""

from pathlib import Path

import pytest

from torpor.adapters.qemu.installed import Accelerator, choose_accelerator
from torpor.adapters.qemu.self_test_record import passed_here, record_result
from torpor.adapters.qemu.suspension import choose_mechanism
from torpor.domain.errors import MissingPart
from torpor.domain.instance import Mechanism

BLOCKS = {"ram": 128 << 20, "pc.bios": 256 << 10, "pc.rom": 128 << 10, "/rom@etc/acpi/tables": 128 << 10}
QEMU = "7.2.22"


def cpu(folder: Path, *flags: str) -> Path:
    """What /proc/cpuinfo says of two CPUs with these flags."""
    file = folder / "cpuinfo"
    one = f"model name\t: Some CPU\nflags\t\t: {' '.join(('fpu', 'sse2', *flags, 'avx'))}\nbugs\t\t: none\n\n"
    file.write_text(one * 2)
    return file


@pytest.fixture
def opens(tmp_path: Path) -> Path:
    """A /dev/kvm that opens."""
    (device := tmp_path / "kvm").touch()
    return device


@pytest.mark.parametrize("flag", ["vmx", "svm"])
@pytest.mark.parametrize("setting", ["auto", "kvm"])
def test_kvm_is_chosen_where_it_opens_and_the_cpu_has_it(tmp_path: Path, opens: Path, setting: str, flag: str) -> None:
    choice = choose_accelerator(setting, cpu(tmp_path, flag), opens)  # type: ignore[arg-type]
    assert choice.accelerator is Accelerator.KVM


@pytest.mark.parametrize("flags", [(), ("vmxoff", "svm_lock")], ids=["neither", "names-that-begin-alike"])
def test_kvm_that_opens_on_a_cpu_without_it_is_not_trusted(tmp_path: Path, opens: Path, flags: tuple[str, ...]) -> None:
    choice = choose_accelerator("auto", cpu(tmp_path, *flags), opens)
    assert choice.accelerator is Accelerator.TCG
    assert "neither vmx nor svm" in choice.reason
    with pytest.raises(MissingPart, match="neither vmx nor svm"):
        choose_accelerator("kvm", cpu(tmp_path, *flags), opens)


def test_without_kvm_guests_are_emulated_and_demanding_it_is_refused(tmp_path: Path) -> None:
    missing = tmp_path / "no-kvm"
    choice = choose_accelerator("auto", cpu(tmp_path, "vmx"), missing)
    assert choice.accelerator is Accelerator.TCG
    assert "does not open" in choice.reason
    with pytest.raises(MissingPart, match="does not open"):
        choose_accelerator("kvm", cpu(tmp_path, "vmx"), missing)


def test_a_cpu_that_says_nothing_of_its_flags_has_no_kvm(tmp_path: Path, opens: Path) -> None:
    (silent := tmp_path / "silent").write_text("processor\t: 0\n")
    assert choose_accelerator("auto", silent, opens).accelerator is Accelerator.TCG


def test_emulation_that_was_asked_for_is_taken_whatever_there_is(tmp_path: Path, opens: Path) -> None:
    choice = choose_accelerator("tcg", cpu(tmp_path, "vmx"), opens)
    assert (choice.accelerator, choice.reason) == (Accelerator.TCG, "configured")


def test_an_emulated_guest_s_memory_is_saved_from_outside(tmp_path: Path) -> None:
    assert choose_mechanism(Accelerator.TCG, BLOCKS, tmp_path / "none", QEMU) is Mechanism.MEMORY


@pytest.mark.parametrize("accelerator", list(Accelerator))
def test_a_machine_with_memory_of_an_unknown_kind_is_saved_by_qemu(tmp_path: Path, accelerator: Accelerator) -> None:
    record_result(tmp_path / "self-test", QEMU, accelerator, passed=True)
    blocks = {**BLOCKS, "0000:00:02.0/vga.vram": 16 << 20}
    assert choose_mechanism(accelerator, blocks, tmp_path / "self-test", QEMU) is Mechanism.STREAM


def test_under_kvm_memory_is_saved_by_qemu_until_the_self_test_has_passed(tmp_path: Path) -> None:
    record = tmp_path / "self-test"
    assert choose_mechanism(Accelerator.KVM, BLOCKS, record, QEMU) is Mechanism.STREAM
    record_result(record, QEMU, Accelerator.KVM, passed=False)
    assert choose_mechanism(Accelerator.KVM, BLOCKS, record, QEMU) is Mechanism.STREAM
    record_result(record, QEMU, Accelerator.KVM, passed=True)
    assert choose_mechanism(Accelerator.KVM, BLOCKS, record, QEMU) is Mechanism.MEMORY


def test_a_self_test_counts_for_the_qemu_and_accelerator_that_passed_it(tmp_path: Path) -> None:
    record = tmp_path / "self-test"
    record_result(record, QEMU, Accelerator.TCG, passed=True)
    assert choose_mechanism(Accelerator.KVM, BLOCKS, record, QEMU) is Mechanism.STREAM
    record_result(record, "7.2.21", Accelerator.KVM, passed=True)
    assert choose_mechanism(Accelerator.KVM, BLOCKS, record, QEMU) is Mechanism.STREAM


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"passed": 1}', b"\xff{"])
def test_a_record_that_makes_no_sense_is_no_pass(tmp_path: Path, content: bytes) -> None:
    (record := tmp_path / "self-test").write_bytes(content)
    assert not passed_here(record, QEMU, Accelerator.KVM)


def test_a_self_test_of_another_kernel_does_not_count(tmp_path: Path) -> None:
    record = tmp_path / "self-test"
    record_result(record, QEMU, Accelerator.KVM, passed=True)
    record.write_text(record.read_text().replace('"kernel": "', '"kernel": "another-'))
    assert not passed_here(record, QEMU, Accelerator.KVM)
