"""KVM where it works, TCG otherwise, and a reason for either."""

from pathlib import Path

import pytest

from torpor.adapters.libvirt.accelerator import choose
from torpor.domain.errors import MissingPart


@pytest.fixture
def able(tmp_path: Path) -> Path:
    path = tmp_path / "able"
    path.write_text("processor\t: 0\nflags\t\t: fpu vmx sse\n")
    return path


@pytest.fixture
def unable(tmp_path: Path) -> Path:
    path = tmp_path / "unable"
    path.write_text("processor\t: 0\nflags\t\t: fpu sse\n")
    return path


def test_kvm_is_used_where_libvirt_offers_it_and_the_cpu_can(able: Path) -> None:
    assert choose("auto", True, able).type == "kvm"
    assert choose("kvm", True, able).type == "kvm"
    assert choose("tcg", True, able).type == "qemu"


def test_a_kvm_that_the_cpu_can_not_bear_is_not_used(unable: Path) -> None:
    choice = choose("auto", True, unable)
    assert choice.type == "qemu"
    assert "vmx" in choice.reason


def test_kvm_that_is_demanded_and_not_to_be_had_is_refused(able: Path, unable: Path) -> None:
    for offered, cpuinfo in ((False, able), (True, unable)):
        with pytest.raises(MissingPart, match="KVM can't be used"):
            choose("kvm", offered, cpuinfo)
