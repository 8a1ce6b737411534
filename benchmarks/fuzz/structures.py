# SPDX-License-Identifier: Apache-2.0
"""Seeded mutations of a file's content that keep its format valid: JSON, YAML, tables, headers, archives."""

import contextlib
import copy
import csv
import io
import json
import struct
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Literal

import numpy as np
import torch
import yaml

Form = Literal["bytes", "json", "yaml", "csv", "lines", "head", "npz", "torch"]
Structure = Callable[[Random, bytes], tuple[str, bytes]]

__all__ = ["STRUCTURES", "Form"]

_DEEP, _ALIASES, _DIGITS = "NESTEDDEEPLY", "ALIASBOMB", "MANYDIGITS"  # replaced after a tree was written as text
_TEXTS = (
    *(
        "",
        " ",
        "null",
        "nan",
        "inf",
        "-1",
        "0",
        "1e400",
        "true",
        "[]",
        "=1+1",
        "a\nb",
        "a\0b",
        "\x1b[31m",
        "\udc80",
        "é",
    ),
    *("../../x", "/", "..", "a/b/c", "a" * 300, "x" * 200_000, "%s{0}", "1" * 400, "2026-13-45", "0x10", "1_000", "٣"),
)
_VALUES = (
    *(0, -1, 1, 2**31, -(2**31), 2**63, 2**64, -(2**63) - 1, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf")),
    *(None, True, False, [], {}, [[]], [None], {"": None}, {"a": {"b": 1}}, [1, "a", None], _DEEP, _ALIASES, _DIGITS),
)


def _value(rng: Random) -> Any:
    return copy.deepcopy(rng.choice(rng.choice((_TEXTS, _VALUES))))


def _places(node: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Every container of a tree with each of its keys."""
    for key, child in node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ():
        found.append((node, key))
        _places(child, found)
    return found


def _spoil_tree(rng: Random, tree: Any) -> tuple[str, Any]:
    """Change, remove, duplicate or rename one to three values, in place."""
    changes = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = _places(tree, [])
        if not places or rng.random() < 0.04:
            tree = _value(rng)
            changes.append("the whole tree")
            continue
        parent, key = rng.choice(places)
        kind = rng.choice(("value", "value", "value", "gone", "renamed", "in a list", "twice"))
        changes.append(f"{kind}: {str(key)[:40]!r}")
        child = parent[key]
        if kind == "value":
            parent[key] = _value(rng)
        elif kind == "gone":
            del parent[key]
        elif kind == "in a list":
            parent[key] = [child]
        elif isinstance(parent, list):
            parent.insert(key, child)
        else:
            if kind == "renamed":
                del parent[key]
            parent[rng.choice(_TEXTS)] = child
    return "; ".join(changes), tree


def _written(text: str, rng: Random, *, aliases: bool) -> str:
    """Replace the placeholders in a text by content that no library would write."""
    deep = rng.choice((200, 100_000))
    bomb = "[0]"
    if aliases:
        lists = ["&n0 [" + ",".join("x" * 20) + "]"]
        lists += [f"&n{k} [" + ",".join([f"*n{k - 1}"] * 20) + "]" for k in range(1, 8)]
        bomb = "[" + ",".join(lists) + "]"
    for name, value in ((_DEEP, "[" * deep + "]" * deep), (_ALIASES, bomb), (_DIGITS, "9" * 5000)):
        text = text.replace(f'"{name}"', value).replace(name, value)
    return text


def _json(rng: Random, data: bytes) -> tuple[str, bytes]:
    changes, tree = _spoil_tree(rng, json.loads(data))
    text = json.dumps(tree, ensure_ascii=rng.random() < 0.7)
    return changes, _written(text, rng, aliases=False).encode(errors="surrogatepass")


def _yaml(rng: Random, data: bytes) -> tuple[str, bytes]:
    changes, tree = _spoil_tree(rng, yaml.safe_load(data))
    text = _written(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), rng, aliases=True)
    if rng.random() < 0.1:
        tag = rng.choice(
            ("!!python/object/apply:os.getpid []", "!!binary '%'", "!unknown 1", "*nowhere", "&a [*a]", "- b")
        )
        changes, text = f"{changes}; {tag}", f"{text.rstrip()}\nmore: {tag}\n"
    return changes, text.encode(errors="surrogatepass")


def _csv(rng: Random, data: bytes) -> tuple[str, bytes]:
    rows = list(csv.reader(io.StringIO(data.decode(), newline="")))
    changes = []
    for _ in range(rng.choice((1, 1, 2, 4))):
        kind = rng.choice(("cell", "cell", "cell", "name", "column gone", "cell gone", "row twice", "columns", "rows"))
        row = rows[0] if kind == "name" else rng.choice(rows)
        changes.append(kind)
        if kind in ("cell", "name") and row:
            row[rng.randrange(len(row))] = rng.choice((*_TEXTS, "nan", "-inf", "1e999", "9" * 30, "failed"))
        elif kind == "column gone":
            column = rng.randrange(max(1, len(rows[0])))
            for one in rows:
                del one[column : column + 1]
        elif kind == "cell gone":
            del row[-rng.choice((1, 5)) :]
        elif kind == "row twice":
            rows.append([*row, *rng.choice(((), ("more", "cells")))])
        elif kind == "columns" and rows[0]:
            column = rng.randrange(len(rows[0]))
            for one in rows:
                one += one[column : column + 1]
        else:
            rows = rng.choice((rows[:1], rows[1:] or rows, [[], *rows], rows * 50))
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator=rng.choice(("\n", "\r\n", "\r")), delimiter=rng.choice(",,,,;\t")).writerows(rows)
    text = out.getvalue()
    if rng.random() < 0.1:
        place = rng.randrange(len(text) + 1)
        changes.append("a quote")
        text = text[:place] + '"' + text[place:]
    return ", ".join(changes), text.encode(errors="surrogatepass")


def _lines(rng: Random, data: bytes) -> tuple[str, bytes]:
    lines = data.decode().splitlines()
    changes = []
    for _ in range(rng.choice((1, 1, 3))):
        number = rng.randrange(len(lines) or 1)
        kind = rng.choice(("word", "line", "twice", "gone", "first word"))
        changes.append(kind)
        if kind == "word":
            lines[number:number] = [f"{' '.join(lines[number : number + 1])} {rng.choice(_TEXTS)}"]
        elif kind == "line":
            lines.insert(number, rng.choice(_TEXTS))
        elif kind == "first word":
            lines[number : number + 1] = [f"{rng.choice(_TEXTS)}/{line}" for line in lines[number : number + 1]]
        else:
            lines[number : number + 1] = lines[number : number + 1] * (2 if kind == "twice" else 0)
    return ", ".join(changes), "\n".join(lines).encode(errors="surrogatepass")


def _head(rng: Random, data: bytes) -> tuple[str, bytes]:
    """A safetensors file: its head, our header inside it, or numbers of its tensors."""
    (length,) = struct.unpack("<Q", data[:8])
    head, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    draw = rng.random()
    if draw < 0.35:
        name = next(iter(head["__metadata__"]))
        changes, inner = _spoil_tree(rng, json.loads(head["__metadata__"][name]))
        head["__metadata__"][name] = _written(json.dumps(inner), rng, aliases=False)
    elif draw < 0.75:
        changes, head = _spoil_tree(rng, head)
    else:
        name = rng.choice([name for name in head if name != "__metadata__"])
        first, last = head[name]["data_offsets"]
        value = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * 8
        place = rng.choice((first, rng.randrange(first, max(last, first + 1)) // 8 * 8))
        changes, body = (
            f"numbers of {name}",
            body[:place] + value[: last - place] + body[place + len(value[: last - place]) :],
        )
    text = _written(json.dumps(head), rng, aliases=False).encode(errors="surrogatepass")
    return changes, struct.pack("<Q", len(text)) + text + body


def _array(rng: Random, array: np.ndarray) -> np.ndarray:
    with contextlib.suppress(Exception):
        change = rng.choice(("dtype", "shape", "empty", "scalar", "nan", "object", "more axes", "shorter"))
        if change == "dtype":
            return array.astype(rng.choice((np.complex64, "U8", np.bool_, np.float16, "S4", "M8[s]", np.int8)))
        if change in ("empty", "scalar"):
            return array[:0] if change == "empty" else array.ravel()[0]
        if change == "nan":
            return np.full_like(array, np.nan)
        if change == "object":
            return np.array([{"a": 1}], dtype=object)
        return {"shape": array.ravel(), "more axes": array[None], "shorter": array[:-1]}[change]
    return np.zeros(0)


def _npz(rng: Random, data: bytes) -> tuple[str, bytes]:
    arrays = dict(np.load(io.BytesIO(data)))
    name = rng.choice(list(arrays))
    changes = f"array {name}"
    draw = rng.random()
    if draw < 0.2:
        del arrays[name]
    elif draw < 0.8:
        arrays[name] = _array(rng, arrays[name])
    out = io.BytesIO()
    rng.choice((np.savez, np.savez_compressed))(out, **arrays)
    content = out.getvalue()
    if draw >= 0.8:  # a shape that the member does not hold
        changes = "stated shape"
        shape = b"'shape': ("
        place = content.find(shape)
        if place >= 0:
            place += len(shape)
            content = content[:place] + b"9" * rng.choice((1, 9)) + content[place:]
    return changes, content


class _Code:
    """A hostile pickle, whose function has no effect."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        import os

        return os.getenv, ("HOME",)


def _tensor(rng: Random, tensor: torch.Tensor) -> Any:
    return rng.choice(
        (
            lambda: tensor.to(rng.choice((torch.float64, torch.int64, torch.bool, torch.complex64, torch.bfloat16))),
            lambda: tensor[None],
            lambda: tensor.flatten()[:0],
            lambda: torch.full_like(tensor, float("nan")) if tensor.is_floating_point() else tensor * 0 - 1,
            lambda: tensor.flatten()[:1].expand(tensor.numel()) if tensor.numel() else tensor,
            lambda: torch.zeros(1).expand(1 << 20, 1 << 20),
            lambda: tensor.to_sparse() if tensor.ndim else tensor,
            lambda: tensor.tolist(),
            lambda: torch.empty(tensor.shape, device="meta"),
            _Code,
        )
    )()


def _torch(rng: Random, data: bytes) -> tuple[str, bytes]:
    out = io.BytesIO()
    try:
        tree = torch.load(io.BytesIO(data), weights_only=True)
        tensors = [(p, k) for p, k in _places(tree, []) if isinstance(p[k], torch.Tensor)]
        if tensors and rng.random() < 0.5:
            parent, key = rng.choice(tensors)
            parent[key] = _tensor(rng, parent[key])
            changes = f"tensor {key}"
        else:
            changes, tree = _spoil_tree(rng, tree)
        protocol, new = rng.choice((2, 2, 4)), rng.random() < 0.8
        torch.save(tree, out, pickle_protocol=protocol, _use_new_zipfile_serialization=new)
    except Exception:  # a program in an archive, or what this framework cannot write
        return "first byte", bytes([data[0] ^ 1 << rng.randrange(8)]) + data[1:]
    return changes, out.getvalue()


STRUCTURES: Mapping[Form, Structure] = {
    "json": _json,
    "yaml": _yaml,
    "csv": _csv,
    "lines": _lines,
    "head": _head,
    "npz": _npz,
    "torch": _torch,
}
"""The mutation of each form; returns a description and the file."""
