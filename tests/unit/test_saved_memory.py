"""Memory to files and back, with this process's own memory in the place of a guest's."""

import ctypes
import mmap
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from torpor.adapters.qemu import packed, sparse
from torpor.adapters.qemu.codec import Packing, choose, unpack
from torpor.adapters.qemu.installed import Accelerator
from torpor.adapters.qemu.layout import InstanceFolder
from torpor.adapters.qemu.memory import GuestMemory, guest_memory
from torpor.adapters.qemu.packed import EMPTY, TooMuchChanged
from torpor.adapters.qemu.pages import Numbers, PageIndex, checksum, hashes_of, read_index, runs, table_of, write_index
from torpor.adapters.qemu.ram import PAGE, Region
from torpor.adapters.qemu.state_files import Generation, Manifest, Part, StateFiles, Writer
from torpor.adapters.qemu.transfer import check_parts
from torpor.domain.errors import StateDamaged
from torpor.domain.ids import InstanceId
from torpor.domain.instance import Codec, Mechanism

PAGES = 3000
CODECS = list(Codec)


class Ram:
    """Memory that is saved and restored like a guest's."""

    def __init__(self) -> None:
        self.bytes = mmap.mmap(-1, PAGES * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._anchor = ctypes.c_char.from_buffer(self.bytes)
        self.region = Region("ram", PAGES * PAGE, ctypes.addressof(self._anchor))

    def put(self, page: int, data: bytes) -> None:
        self.bytes[page * PAGE : page * PAGE + len(data)] = data

    @contextmanager
    def opened(self) -> Iterator[GuestMemory]:
        with guest_memory(os.getpid(), self.region, os.O_RDWR) as opened:
            yield opened


def ignore(done: int, total: int) -> None:
    """Progress that nobody watches."""


@pytest.fixture
def ram() -> Ram:
    """Random in a run and in single pages, some compressible, some written with zeros, the rest never touched."""
    ram, draw = Ram(), random.Random(7)
    ram.put(0, draw.randbytes(400 * PAGE))
    for page in draw.sample(range(500, 1500), 300):
        ram.put(page, draw.randbytes(PAGE))
    ram.put(1600, b"torpor" * (200 * PAGE // 6))
    ram.put(1900, bytes(100 * PAGE))
    ram.put(2999, b"\0" * (PAGE - 1) + b"\1")
    return ram


def everything() -> Numbers:
    return np.arange(PAGES, dtype=np.uint32)


def save(ram: Ram, path: Path, codec: Codec | None) -> PageIndex:
    """Sparse without a codec, packed with one."""
    with ram.opened() as source:
        if codec is None:
            return sparse.save(source, list(runs(np.ones(PAGES, np.bool_), 16, 256)), path, 2, ignore)
        nothing = table_of(PAGES, EMPTY)
        return packed.save(source, everything(), nothing, EMPTY.numbers, None, Packing(codec), path, 2, ignore)


def load(into: Ram, index: PageIndex, path: Path, codec: Codec | None) -> None:
    with into.opened() as target:
        if codec is None:
            sparse.load(target, index, path, 2, ignore)
        else:
            packed.load(target, index, codec, path, 2, ignore)


def delta(ram: Ram, base: PageIndex, path: Path, limit: int | None = None) -> PageIndex:
    with ram.opened() as source:
        return packed.save(
            source, everything(), table_of(PAGES, base), EMPTY.numbers, limit, Packing(Codec.LZ4), path, 2, ignore
        )


@pytest.mark.parametrize("codec", [None, *CODECS])
def test_memory_comes_back_byte_for_byte(ram: Ram, tmp_path: Path, codec: Codec | None) -> None:
    index = save(ram, tmp_path / "memory", codec)
    back = Ram()
    load(back, index, tmp_path / "memory", codec)
    assert back.bytes[:] == ram.bytes[:]


@pytest.mark.parametrize("codec", [None, *CODECS])
def test_zero_pages_take_no_room(ram: Ram, tmp_path: Path, codec: Codec | None) -> None:
    index = save(ram, tmp_path / "memory", codec)
    not_zero = sum(any(ram.bytes[at : at + PAGE]) for at in range(0, PAGES * PAGE, PAGE))
    assert len(index.numbers) == not_zero
    stored = (tmp_path / "memory").stat().st_blocks * 512
    assert stored <= (not_zero + 300 * 16) * PAGE, "holes between single pages are joined, larger ones are not"


def test_a_sparse_file_has_every_page_in_its_place(ram: Ram, tmp_path: Path) -> None:
    save(ram, tmp_path / "memory", None)
    assert (tmp_path / "memory").read_bytes() == ram.bytes[:]


@pytest.mark.parametrize("codec", [Codec.LZ4, Codec.ZSTD])
def test_what_can_be_packed_is_smaller(tmp_path: Path, codec: Codec) -> None:
    ram = Ram()
    ram.put(0, b"torpor" * (PAGES * PAGE // 6))
    index = save(ram, tmp_path / "memory", codec)
    assert (tmp_path / "memory").stat().st_size < index.num_bytes / 10


def test_an_index_is_read_as_it_was_written(ram: Ram, tmp_path: Path) -> None:
    index = save(ram, tmp_path / "memory", Codec.LZ4)
    found = read_index(tmp_path / "index", write_index(tmp_path / "index", index))
    assert np.array_equal(found.numbers, index.numbers)
    assert np.array_equal(found.hashes, index.hashes)
    assert found.blocks == index.blocks


def test_sparse_memory_without_checksums_of_blocks_is_loaded(ram: Ram, tmp_path: Path) -> None:
    """As states were written once."""
    older = replace(save(ram, tmp_path / "memory", None), blocks=())
    back = Ram()
    load(back, older, tmp_path / "memory", None)
    assert back.bytes[:] == ram.bytes[:]
    with flipped(tmp_path / "memory", 8 * 100 * PAGE), pytest.raises(StateDamaged, match="checksum"):
        load(Ram(), older, tmp_path / "memory", None)


@pytest.mark.parametrize("codec", [None, *CODECS])
def test_no_flipped_bit_is_loaded(ram: Ram, tmp_path: Path, codec: Codec | None) -> None:
    path, draw = tmp_path / "memory", random.Random(13)
    index = save(ram, path, codec)
    for _ in range(30):
        block = draw.choice(index.blocks)
        bit = draw.randrange(block.offset * 8, (block.offset + block.size) * 8)
        with flipped(path, bit), pytest.raises(StateDamaged, match="checksum"):
            load(Ram(), index, path, codec)


def test_a_delta_holds_what_changed_and_nothing_else(ram: Ram, tmp_path: Path) -> None:
    base = save(ram, tmp_path / "base", None)
    ram.put(3, b"changed")
    ram.put(2500, b"new")
    ram.put(1601, bytes(PAGE))
    found = delta(ram, base, tmp_path / "delta")
    assert sorted(found.numbers.tolist()) == [3, 2500]
    assert found.zeros.tolist() == [1601]
    back = Ram()
    load(back, base, tmp_path / "base", None)
    load(back, found, tmp_path / "delta", Codec.LZ4)
    assert back.bytes[:] == ram.bytes[:]


def test_a_delta_of_nothing_is_empty(ram: Ram, tmp_path: Path) -> None:
    base = save(ram, tmp_path / "base", Codec.ZSTD)
    found = delta(ram, base, tmp_path / "delta")
    assert not len(found.numbers)
    assert not len(found.zeros)


def test_a_delta_that_grows_too_large_is_given_up(ram: Ram, tmp_path: Path) -> None:
    base = save(ram, tmp_path / "base", None)
    ram.put(1000, random.Random(1).randbytes(600 * PAGE))
    with pytest.raises(TooMuchChanged):
        delta(ram, base, tmp_path / "delta", limit=599)


def test_memory_of_another_machine_is_not_loaded(ram: Ram, tmp_path: Path) -> None:
    with pytest.raises(StateDamaged, match="does not fit"):
        table_of(PAGES - 1, save(ram, tmp_path / "memory", None))


def test_the_choice_of_a_codec_follows_disk_and_memory() -> None:
    random_data = [os.urandom(64 << 10) for _ in range(8)]
    text = [b"torpor " * 9000 for _ in range(8)]
    assert choose(random_data, 300e6, 2).codec is Codec.NONE
    assert choose(text, 1e6, 2).codec is Codec.ZSTD
    assert choose(text, 1e15, 2).codec is Codec.NONE
    assert choose([], 300e6, 2).codec is Codec.NONE


@pytest.mark.parametrize("codec", CODECS)
def test_a_codec_says_when_what_it_gets_is_not_its_own(codec: Codec) -> None:
    data = random.Random(3).randbytes(5000) + bytes(5000)
    found = bytes(Packing(codec).pack(data))
    assert bytes(unpack(codec, memoryview(found), len(data))) == data
    with pytest.raises(ValueError, match=r".+"):
        unpack(codec, memoryview(found[:-40]), len(data))


# --- damage ---


@contextmanager
def flipped(path: Path, bit: int) -> Iterator[None]:
    def flip() -> None:
        with path.open("r+b") as file:
            file.seek(bit // 8)
            byte = file.read(1)[0]
            file.seek(bit // 8)
            file.write(bytes([byte ^ 1 << bit % 8]))

    flip()
    yield
    flip()


def state(folder: Path, ram: Ram, codec: Codec | None) -> Generation:
    """A whole state of this memory, with a delta, on disk."""
    instance = InstanceId("8f8b2c52-6d9c-4c0e-9a1e-8c8f6a6b3d55")
    files = StateFiles(InstanceFolder(instance, folder))
    with files.new(1) as partial:
        base = save(ram, partial.part("memory"), codec)
        ram.put(10, b"later")
        later = delta(ram, base, partial.part("delta"))
        device = random.Random(5).randbytes(20000)
        partial.device.write_bytes(device)
        base_codec = codec or Codec.NONE
        parts = {
            "memory": Part(codec is not None, base_codec, write_index(partial.index("memory"), base), base.num_bytes),
            "delta": Part(True, Codec.LZ4, write_index(partial.index("delta"), later), later.num_bytes),
        }
        manifest = Manifest(
            instance, 1, Mechanism.MEMORY, 0.0, Writer(1, 1), "7.2", "pc", Accelerator.TCG, "", ("-m", "1M"),
            {"ram": PAGES * PAGE}, parts, None, checksum(device), 0, 0,
        )  # fmt: skip
        return files.publish(partial, manifest)


@pytest.mark.parametrize("codec", [None, Codec.LZ4, Codec.ZSTD])
def test_every_single_flipped_bit_is_found(ram: Ram, tmp_path: Path, codec: Codec | None) -> None:
    saved, draw = state(tmp_path, ram, codec), random.Random(11)
    check_parts(saved, saved.manifest(), ignore)
    files = sorted(saved.path.iterdir())
    sizes = [file.stat().st_size for file in files]
    missed = []
    for _ in range(334):
        (file,) = draw.choices(files, sizes) if draw.random() < 0.5 else [draw.choice(files)]
        bit = draw.randrange(file.stat().st_size * 8)
        with flipped(file, bit):
            try:
                check_parts(saved, saved.manifest(), ignore)
                missed.append((file.name, bit))
            except StateDamaged:
                pass
    assert not missed
    check_parts(saved, saved.manifest(), ignore)


def test_a_page_of_zeros_has_no_hash() -> None:
    data = bytearray(3 * PAGE)
    data[PAGE + 77] = 1
    assert hashes_of(memoryview(data)).any(axis=1).tolist() == [False, True, False]
