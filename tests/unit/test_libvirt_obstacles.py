"""Which domains could not be saved and brought back."""

import pytest

from torpor.adapters.libvirt.obstacles import obstacle


def described(devices: str = "", beside: str = "") -> str:
    return f"<domain><name>x</name>{beside}<devices>{devices}</devices></domain>"


@pytest.mark.parametrize(
    "devices",
    [
        "",
        "<disk type='file' device='disk'><source file='/x'/></disk><interface type='network'/>",
        "<memory model='dimm'/><tpm model='tpm-crb'><backend type='emulator'/></tpm>",
        "<video><model type='virtio'><acceleration accel3d='no'/></model></video>",
    ],
)
def test_an_ordinary_domain_can_be_saved(devices: str) -> None:
    assert obstacle(described(devices), persistent=True) == ""


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        ("<hostdev mode='subsystem' type='pci'/>", "a device of the host's (pci)"),
        ("<hostdev mode='subsystem' type='usb'/>", "a device of the host's (usb)"),
        ("<interface type='hostdev'/>", "network card"),
        ("<shmem name='x'/>", "memory shared"),
        ("<filesystem type='mount'><driver type='virtiofs'/></filesystem>", "a folder of the host"),
        ("<disk type='nvme'/>", "disk controller"),
        ("<disk type='file'><transient/></disk>", "thrown away"),
        ("<tpm><backend type='passthrough'/></tpm>", "TPM"),
        ("<video><model type='virtio'><acceleration accel3d='yes'/></model></video>", "graphics"),
    ],
)
def test_what_is_bound_to_the_host_is_an_obstacle(devices: str, words: str) -> None:
    assert words in obstacle(described(devices), persistent=True)


def test_encrypted_memory_is_an_obstacle() -> None:
    assert "encrypted" in obstacle(described(beside="<launchSecurity type='sev'/>"), persistent=True)


def test_a_transient_domain_is_an_obstacle_to_itself() -> None:
    assert "transient" in obstacle(described(), persistent=False)
