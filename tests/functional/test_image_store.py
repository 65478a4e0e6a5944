"""The image store takes whole, bootable disks, and nothing else, in one piece."""

import hashlib
import json
import stat
import subprocess
from pathlib import Path

import pytest

from torpor.adapters.images.store import ImageStore
from torpor.domain.errors import Conflict, Invalid, NotFound
from torpor.domain.image import ImageKind
from torpor.ports import Disk

MEGABYTE = 1 << 20


def qemu_img(*arguments: str | Path) -> None:
    subprocess.run(["qemu-img", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """8 MiB with a boot sector, and some data behind a hole."""
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.write(bytes(510) + b"\x55\xaa")
        file.seek(5 * MEGABYTE)
        file.write(b"data")
        file.truncate(8 * MEGABYTE)
    return path


@pytest.fixture
def qcow2(raw: Path, tmp_path: Path) -> Path:
    path = tmp_path / "disk.qcow2"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, path)
    return path


def left_overs(tmp_path: Path) -> list[str]:
    return [entry.name for entry in (tmp_path / "images").iterdir()]


def test_raw_disk_is_stored_with_its_holes(store: ImageStore, raw: Path, tmp_path: Path) -> None:
    image = store.add("plain", str(raw))
    boot = store.boot("plain")
    assert (image.kind, image.format, image.virtual_bytes) == (ImageKind.DISK, "raw", 8 * MEGABYTE)
    assert isinstance(boot, Disk)
    assert boot == Disk(tmp_path / "images/plain/disk.raw", "raw", 8 * MEGABYTE)
    assert boot.path.read_bytes() == raw.read_bytes()
    assert image.sha256 == hashlib.sha256(raw.read_bytes()).hexdigest()
    assert image.size_bytes == boot.path.stat().st_blocks * 512 < 3 * MEGABYTE


def test_qcow2_disk_is_stored_as_it_is(store: ImageStore, qcow2: Path) -> None:
    image = store.add("cow", str(qcow2))
    boot = store.boot("cow")
    assert isinstance(boot, Disk)
    assert (boot.format, boot.virtual_bytes, boot.kernel) == ("qcow2", 8 * MEGABYTE, None)
    assert boot.path.read_bytes() == qcow2.read_bytes()
    assert store.get("cow") == image


def test_base_can_be_read_by_everyone_and_written_by_nobody(store: ImageStore, raw: Path, tmp_path: Path) -> None:
    store.add("plain", str(raw))
    folder = tmp_path / "images/plain"
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o444}
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(folder.parent.stat().st_mode) == 0o755


def test_images_are_listed_by_name_and_removed(store: ImageStore, raw: Path, tmp_path: Path) -> None:
    assert store.list() == ()
    both = (store.add("b", str(raw)), store.add("a", str(raw)))
    assert store.list() == both[::-1]
    store.remove("b")
    assert [image.name for image in store.list()] == left_overs(tmp_path) == ["a"]
    with pytest.raises(NotFound):
        store.remove("b")
    with pytest.raises(NotFound):
        store.boot("b")


def test_name_is_taken_once(store: ImageStore, raw: Path) -> None:
    first = store.add("plain", str(raw))
    with pytest.raises(Conflict):
        store.add("plain", str(raw))
    assert store.get("plain") == first


def test_text_file_is_no_disk(store: ImageStore, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a disk\n" * 500)
    with pytest.raises(Invalid, match="not a disk image: neither a qcow2 header nor a boot sector"):
        store.add("notes", str(text))
    assert store.list() == ()


@pytest.mark.parametrize("offset", [512, 4096])
def test_raw_disk_with_a_partition_table_only_is_taken(store: ImageStore, tmp_path: Path, offset: int) -> None:
    disk = tmp_path / "gpt.img"
    disk.write_bytes(bytes(offset) + b"EFI PART" + bytes(MEGABYTE - offset - 8))
    assert store.add("gpt", str(disk)).format == "raw"


def test_qcow2_that_reads_another_file_is_refused(store: ImageStore, raw: Path, tmp_path: Path) -> None:
    overlay, outside = tmp_path / "overlay.qcow2", tmp_path / "outside.qcow2"
    qemu_img("create", "-f", "qcow2", "-b", raw, "-F", "raw", overlay)
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={tmp_path / 'data.raw'}", outside, "8M")
    for path, other in ((overlay, raw), (outside, tmp_path / "data.raw")):
        with pytest.raises(Invalid, match=f"needs another file, {other}"):
            store.add("layered", str(path))
    assert store.list() == ()


def test_qcow2_that_was_cut_short_is_refused(store: ImageStore, qcow2: Path) -> None:
    with qcow2.open("r+b") as file:
        file.truncate(qcow2.stat().st_size - 2 * 65536)
    with pytest.raises(Invalid, match="damaged or cut short"):
        store.add("half", str(qcow2))


def test_other_formats_are_refused_with_the_way_to_convert_them(store: ImageStore, raw: Path, tmp_path: Path) -> None:
    vmdk = tmp_path / "disk.vmdk"
    qemu_img("convert", "-f", "raw", "-O", "vmdk", raw, vmdk)
    with pytest.raises(Invalid, match="vmdk format; convert it with 'qemu-img convert -O qcow2"):
        store.add("other", str(vmdk))


@pytest.mark.parametrize(
    ("path", "reason"), [("/nowhere/a.img", "no such file"), ("/", "not a file"), ("a.img", "abs")]
)
def test_path_that_leads_nowhere_is_refused(store: ImageStore, path: str, reason: str) -> None:
    with pytest.raises(Invalid, match=reason):
        store.add("lost", path)


def test_name_that_is_no_hostname_label_is_refused(store: ImageStore, raw: Path) -> None:
    for name in ("../up", "A", ".dot", ""):
        with pytest.raises(Invalid):
            store.add(name, str(raw))
        with pytest.raises(Invalid):
            store.boot(name)


def test_left_overs_of_a_process_that_is_gone_are_removed(store: ImageStore, raw: Path, tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    stale = tmp_path / "images" / f".staging-{gone.pid}-abc"
    stale.mkdir(parents=True)
    (stale / "disk.raw").write_bytes(b"half")
    assert store.list() == ()
    store.add("plain", str(raw))
    assert left_overs(tmp_path) == ["plain"]


def test_kernel_beside_a_disk_is_told_to_the_machine(store: ImageStore, qcow2: Path, tmp_path: Path) -> None:
    store.add("cow", str(qcow2))
    folder = tmp_path / "images/cow"
    record = json.loads((folder / "image.json").read_text())
    (folder / "image.json").chmod(0o644)
    (folder / "image.json").write_text(json.dumps({**record, "cmdline": "root=/dev/vda"}))
    boot = store.boot("cow")
    assert isinstance(boot, Disk) and boot.kernel is not None
    assert boot.kernel.kernel == folder / "vmlinuz"
    assert boot.kernel.initrd == folder / "initrd"
    assert boot.kernel.cmdline == "root=/dev/vda"


def test_who_has_no_image_yet_is_told_how_to_make_one(store: ImageStore, raw: Path) -> None:
    with pytest.raises(NotFound) as none:
        store.get("debian")
    assert "make one: `torpor image add NAME FILE` or `torpor image build" in str(none.value)
    store.add("plain", str(raw))
    with pytest.raises(NotFound) as other:
        store.get("debian")
    assert str(other.value) == "there is no image 'debian'; `torpor image ls` lists them."


def test_unknown_recipe_is_refused_with_those_there_are(store: ImageStore) -> None:
    with pytest.raises(Invalid, match=r"choose one of: .*tiny"):
        store.build("guest", "../recipes/tiny", print)
    assert store.list() == ()
