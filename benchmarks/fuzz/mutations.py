# SPDX-License-Identifier: Apache-2.0
"""Seeded mutations of an intact file: of its bytes, and of the content of a text, table, header or archive."""

import struct
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from random import Random

from benchmarks.fuzz.structures import STRUCTURES, Form

BOMB_BYTES = 1 << 30

# The fields after a marker in a file: bytes before the first field, the fields' struct format.
_FIELDS = {
    b"RIFF": (0, "<I"),
    b"fmt ": (4, "<HHIIHH"),
    b"data": (0, "<I"),
    b"fLaC": (4, ">HHHHQ"),
    b"avih": (4, "<10I"),
    b"strh": (12, "<10I"),
    b"strf": (4, "<iiHHIIiiII"),
    b"mvhd": (0, ">5I"),
    b"mdhd": (0, ">5I"),
    b"tkhd": (0, ">10I"),
    b"elst": (4, ">3I"),
    b"stts": (4, ">3I"),
    b"ctts": (4, ">3I"),
    b"stsc": (4, ">4I"),
    b"stsz": (4, ">3I"),
    b"stco": (4, ">2I"),
    b"trun": (4, ">4I"),
    b"avc1": (24, ">HH"),
    b"\x2a\xd7\xb1\x83": (0, ">BH"),  # Matroska: nanoseconds of a tick
    b"\x44\x89\x88": (0, ">d"),  # its duration
    b"\xb0\x82": (0, ">H"),  # its width
    b"\xba\x82": (0, ">H"),  # its height
    b"GIF89a": (0, "<HHBBB"),
    b"IHDR": (0, ">IIBBB"),
    b"BM": (12, "<IiiHHII"),
    b"VP8 ": (10, "<HH"),
    b"\xff\xc0": (2, ">BHHB"),  # JPEG: depth, height, width, components
    b"PK\x03\x04": (0, "<HHHHHIIIHH"),
    b"PK\x01\x02": (0, "<HHHHHHIIIHHHHHII"),
    b"PK\x05\x06": (0, "<HHHHIIH"),
    b"\x93NUMPY": (0, "<BBH"),
}
_ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "utf-8-sig", "cp037")

__all__ = ["BOMB_BYTES", "PLACES", "malform"]

Bytes = Callable[[Random, bytes], bytes]

PLACES = ("directory", "fifo", "broken link", "link to itself", "nothing", "empty file")
"""What may be at the file's path instead of a spoilt copy."""


def _span(rng: Random, data: bytes) -> tuple[int, int]:
    """A piece of the file: mostly a few bytes, now and then most of it."""
    first = rng.randrange(len(data) + 1)
    return first, min(len(data), first + int(2 ** rng.uniform(0, max(1, len(data).bit_length()))))


def _flip_bits(rng: Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 4, 32, 256))):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _flip_first(rng: Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 4))):
        out[rng.randrange(min(len(out), 256))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(out)


def _truncate(rng: Random, data: bytes) -> bytes:
    return data[: rng.choice((rng.randrange(len(data)), len(data) - 1, len(data) // 2, min(len(data), 8)))]


def _insert(rng: Random, data: bytes) -> bytes:
    place, size = rng.randrange(len(data) + 1), rng.choice((1, 7, 64, 4096))
    return data[:place] + rng.choice((rng.randbytes(size), bytes(size), b"\xff" * size)) + data[place:]


def _delete(rng: Random, data: bytes) -> bytes:
    first, last = _span(rng, data)
    return data[:first] + data[last:]


def _duplicate(rng: Random, data: bytes) -> bytes:
    first, last = _span(rng, data)
    return data[:last] + data[first:last] * rng.choice((1, 2, 20)) + data[last:]


def _swap(rng: Random, data: bytes) -> bytes:
    a, b, c = sorted(rng.randrange(len(data) + 1) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def _overwrite(rng: Random, data: bytes) -> bytes:
    first, last = _span(rng, data)
    return data[:first] + rng.choice((bytes, rng.randbytes))(last - first) + data[last:]


def _number(rng: Random, data: bytes) -> bytes:
    """A number of 2, 4 or 8 bytes anywhere becomes an extreme one."""
    size = rng.choice((2, 4, 8))
    place = rng.randrange(max(1, len(data) - size))
    value = rng.choice((0, 1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1))
    return data[:place] + value.to_bytes(size, rng.choice(("little", "big"))) + data[place + size :]


def _field(rng: Random, data: bytes) -> bytes:
    """A field after a known marker becomes an extreme number."""
    known = [marker for marker in _FIELDS if marker in data]
    if not known:
        return _number(rng, data)
    marker = rng.choice(known)
    skip, form = _FIELDS[marker]
    places = [k for k in range(len(data)) if data.startswith(marker, k)]
    start = rng.choice(places) + len(marker) + skip
    out = bytearray(data)
    if start + struct.calcsize(form) > len(out):
        return _number(rng, data)
    sizes = _sizes(form)
    index = rng.randrange(len(sizes))
    size = sizes[index]
    value = rng.choice((0, 1, 2, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1, 65500))
    place = start + sum(sizes[:index])
    out[place : place + size] = (value % 2 ** (8 * size)).to_bytes(size, "little" if form[0] == "<" else "big")
    if marker == b"IHDR":  # otherwise the checksum would refuse it
        end = start + 13
        out[end : end + 4] = zlib.crc32(out[start - 4 : end]).to_bytes(4, "big")
    return bytes(out)


def _sizes(form: str) -> list[int]:
    """Bytes of each field of a struct format without padding."""
    letters: list[str] = []
    count = ""
    for letter in form[1:]:
        if letter.isdigit():
            count += letter
        else:
            letters += [letter] * int(count or 1)
            count = ""
    return [struct.calcsize(form[0] + letter) for letter in letters]


def _nul_bytes(rng: Random, data: bytes) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + b"\0" * rng.choice((1, 3, 5000)) + data[place:]


def _other_encoding(rng: Random, data: bytes) -> bytes:
    text = data.decode(errors="replace")
    place = rng.randrange(len(text) + 1)
    text = text[:place] + rng.choice(("é", "ß€", "ÿ", "")) + text[place:]
    return text.encode(rng.choice(_ENCODINGS), errors="replace")


def _control_characters(rng: Random, data: bytes) -> bytes:
    place = rng.randrange(len(data) + 1)
    return (
        data[:place]
        + rng.choice((b"\x1b[31m", b"\r", b"\x85", b"\xe2\x80\xa8", b"\x0c", b"\t", b"\x07"))
        + data[place:]
    )


@cache
def _bomb() -> bytes:
    """A deflated GiB of zeros."""
    packer = zlib.compressobj(1, wbits=-15)
    piece = bytes(1 << 24)
    return b"".join([*(packer.compress(piece) for _ in range(BOMB_BYTES >> 24)), packer.flush()])


def _zip_bomb(rng: Random, data: bytes) -> bytes:
    """The first member of an archive holds a GiB of zeros, deflated; or only states that size."""
    start = data.find(b"PK\x03\x04")
    directory = data.rfind(b"PK\x01\x02")
    if start < 0 or directory < 0:
        return _number(rng, data)
    name, extra = struct.unpack_from("<HH", data, start + 26)
    body = _bomb() if rng.random() < 0.5 else data[start + 30 + name + extra : start + 94 + name + extra]
    sizes = struct.pack("<HIII", 8, 0, len(body), BOMB_BYTES)
    label = data[start + 30 : start + 30 + name]
    local = b"PK\x03\x04\x14\0\0\0" + sizes[:2] + bytes(4) + sizes[2:] + struct.pack("<HH", name, 0) + label
    central = b"PK\x01\x02\x14\0\x14\0\0\0" + sizes[:2] + bytes(4) + sizes[2:]
    central += struct.pack("<HHHHHII", name, 0, 0, 0, 0, 0, 0) + label
    place = len(local) + len(body)
    return local + body + central + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), place, 0)


_ANY: Sequence[Bytes] = (
    _flip_bits,
    _flip_first,
    _truncate,
    _insert,
    _delete,
    _duplicate,
    _swap,
    _overwrite,
    _number,
)
_TEXT: Sequence[Bytes] = (_nul_bytes, _other_encoding, _other_encoding, _control_characters)
_BINARY: Sequence[Bytes] = (_field, _field, _field)
_TEXTS: frozenset[Form] = frozenset({"json", "yaml", "csv", "lines"})
_ARCHIVES: frozenset[Form] = frozenset({"npz", "torch"})


def malform(rng: Random, data: bytes, form: Form) -> tuple[str, bytes | None]:
    """Spoil a file.

    Args:
        rng: makes all choices.
        data: the intact file.
        form: what can be spoilt in it besides bytes.

    Returns:
        A description, and the spoilt file; None if the description is one of `PLACES`.
    """
    draw = rng.random()
    if draw < 0.08:
        return rng.choice(PLACES), None
    if form in _ARCHIVES and draw < 0.12:
        return "bomb", _zip_bomb(rng, data)
    structure = STRUCTURES.get(form)
    if structure is not None and draw < 0.65:
        changes, data = structure(rng, data)
        return changes, data
    changes = []
    choices = [*_ANY, *(_TEXT if form in _TEXTS else _BINARY)]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if data:
            change = rng.choice(choices)
            data = change(rng, data)
            changes.append(change.__name__.strip("_").replace("_", " "))
    return ", ".join(changes), data
