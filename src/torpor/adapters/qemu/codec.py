"""Packing of memory: what each codec makes of a block of pages, and which is soonest done."""

import time
from dataclasses import dataclass

import lz4.block
import zstandard

from torpor.domain.instance import Codec

_WORTH = 0.9
"""A codec must take less than this share of the plain write's time: plain states can be restored lazily."""
_FASTEST = 1
"""zstd's level for the automatic choice."""


@dataclass(frozen=True, slots=True)
class Packing:
    codec: Codec
    level: int = _FASTEST
    """zstd: 1 to 22; for lz4 its acceleration, 1 or more; without meaning for none."""

    def pack(self, data: bytes | memoryview) -> bytes | memoryview:
        match self.codec:
            case Codec.LZ4:
                return bytes(lz4.block.compress(data, acceleration=self.level, store_size=False))
            case Codec.ZSTD:
                return zstandard.ZstdCompressor(self.level).compress(data)
            case Codec.NONE:
                return data


def unpack(codec: Codec, data: memoryview, size: int) -> memoryview:
    """`size` is what comes out. Raises ValueError when `data` is not what `pack` made."""
    try:
        match codec:
            case Codec.LZ4:
                found = memoryview(lz4.block.decompress(data, uncompressed_size=size))
            case Codec.ZSTD:
                found = memoryview(zstandard.ZstdDecompressor().decompress(data, max_output_size=size))
            case Codec.NONE:
                found = data
    except (lz4.block.LZ4BlockError, zstandard.ZstdError) as error:
        raise ValueError(str(error)) from error
    if len(found) != size:
        raise ValueError(f"{len(found)} bytes instead of {size}")
    return found


def choose(samples: list[bytes], write_rate: float, cores: int) -> Packing:
    """The packing with which this memory is soonest on this disk, judged by samples of it.

    `write_rate` is the disk's, in bytes a second. Writing and packing overlap, so the slower one counts.
    """
    total = sum(len(s) for s in samples)
    if not total:
        return Packing(Codec.NONE)
    best, best_seconds = Packing(Codec.NONE), total / write_rate * _WORTH
    for packing in (Packing(Codec.LZ4), Packing(Codec.ZSTD)):
        began = time.perf_counter()
        packed = sum(len(packing.pack(s)) for s in samples)
        busy = time.perf_counter() - began
        seconds = max(busy / cores, packed / write_rate)
        if seconds < best_seconds:
            best, best_seconds = packing, seconds
    return best
