# SPDX-License-Identifier: Apache-2.0
"""The duration in the header of a wav file. libav reports only the data that is there: a cut file looks complete."""

import struct
from pathlib import Path
from typing import BinaryIO

_IMA_ADPCM, _MS_ADPCM, _EXTENSIBLE = 0x11, 0x02, 0xFFFE
_UNCOMPRESSED = frozenset({1, 3, 6, 7})  # integers, floats, A-law, mu-law: a block is one sample of every channel
_UNKNOWN_SIZE = 0x7FFF0000  # programs that write to a pipe leave 0 or a huge number
_MOST_BYTES = 64  # bytes of a chunk that are read

__all__ = ["wav_duration"]


def _samples(fmt: bytes, size: int) -> int:
    """Samples per channel in `size` bytes of data; 0 for codecs whose blocks vary."""
    kind, channels, _, _, block, bits = struct.unpack("<HHIIHH", fmt[:16])
    if kind == _EXTENSIBLE and len(fmt) >= 26:
        kind = struct.unpack("<H", fmt[24:26])[0]
    if kind in _UNCOMPRESSED and bits and channels:  # libav ignores the block's size too
        return int(size // (-(-bits // 8) * channels))
    if kind not in (_IMA_ADPCM, _MS_ADPCM) or not (block and bits and channels):
        return 0
    stated = struct.unpack("<H", fmt[18:20])[0] if len(fmt) >= 20 else 0
    head = (4 if kind == _IMA_ADPCM else 7) * channels
    first = 1 if kind == _IMA_ADPCM else 2  # samples in a block's head
    return int(size // block * (stated or max(0, block - head) * 8 // (bits * channels) + first))


def _chunks(file: BinaryIO) -> dict[bytes, bytes]:
    """The first bytes of each chunk up to the data chunk; for the data chunk only its size."""
    found: dict[bytes, bytes] = {}
    while len(head := file.read(8)) == 8:
        name, size = struct.unpack("<4sI", head)
        if name == b"data":
            found[name] = head[4:]
            break
        found[name] = file.read(min(size, _MOST_BYTES))
        file.seek(size + size % 2 - len(found[name]), 1)
    return found


def wav_duration(path: Path) -> float | None:
    """Seconds that a RIFF or RF64 header states; None if it states nothing reliable.

    The byte rate is ignored: encoders of compressed wav files and recorders write nominal values. The duration of
    uncompressed data and ADPCM follows from their blocks, that of other codecs from the samples in the fact chunk.
    """
    with path.open("rb") as file:
        riff = file.read(12)[:4]
        if riff not in (b"RIFF", b"RF64", b"BW64"):
            return None
        chunks = _chunks(file)
    fmt, fact = chunks.get(b"fmt ", b""), chunks.get(b"fact", b"")
    size = int.from_bytes(chunks.get(b"data", b""), "little")
    if len(sizes := chunks.get(b"ds64", b"")) >= 16 and size == 0xFFFFFFFF:
        size = int.from_bytes(sizes[8:16], "little")
    elif size >= _UNKNOWN_SIZE:
        size = 0
    if len(fmt) < 16 or size == 0:
        return None
    rate, samples = int.from_bytes(fmt[4:8], "little"), _samples(fmt, size)
    if not samples and len(fact) >= 4:
        samples = int.from_bytes(fact[:4], "little")
        samples = 0 if samples == 0xFFFFFFFF else samples
    return samples / rate if samples and rate else None
