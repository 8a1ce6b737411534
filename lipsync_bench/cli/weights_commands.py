# SPDX-License-Identifier: Apache-2.0
"""The subcommands of `bench weights`; heavy imports happen inside, so that help is quick."""

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from lipsync_bench.datamodules.option_types import Words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lipsync_bench.datamodules.weights.registry import WeightFile
    from lipsync_bench.datamodules.weights.store import Found

Folders = Annotated[tuple[Path, ...], Parameter(json_list=False)]
_CAPTION = "sources: independent owners who name the same SHA-256; 0: none is public, and the file cannot be checked"
_log = logging.getLogger(__name__)

__all__ = ["weights_fetch", "weights_list", "weights_pack", "weights_verify", "weights_where"]


def weights_list(*, weights: Folders = (), csv: Path | None = None) -> int:
    """List official weight files: what each is, whether it is here, its licence, and what needs it.

    Args:
        weights: Folder that is searched too, at any depth, besides LIPSYNC_WEIGHTS, weights/ and known caches.
        csv: Write the table to this file, with every column, instead of printing it.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from lipsync_bench.datamodules.weights.store import Store

    store = Store(weights)
    found = {id: store.find(id) for id in store.files}
    if csv is not None:
        _write_csv(csv, store.files, found)
        return 0
    table = Table(caption=_CAPTION, show_lines=True)
    for title in ("id, file", "MB", "here", "needed by; licence", "sources"):
        table.add_column(title, justify="right" if title in ("MB", "sources") else "left", overflow="fold")
    for id, file in store.files.items():
        at = found[id]
        here = "no" if at is None else "yes" if at.official else "unchecked"
        size = "" if file.size is None else f"{file.size / 1e6:.1f}"
        name, about = escape(f"{id}\n{file.file}"), escape(f"{file.use}\n{file.licence}")
        table.add_row(name, size, here, about, str(file.sources))
    Console().print(table)
    return 0


def _write_csv(path: Path, files: "Mapping[str, WeightFile]", found: "Mapping[str, Found | None]") -> None:
    from lipsync_bench.datamodules.files.csv_files import write_csv
    from lipsync_bench.datamodules.files.disk import printable

    fields = ("id", "file", "size", "use", "licence", "sources", "sha256", "kind", "what", "note")
    rows = []
    for id, file in files.items():
        at = found[id]
        place = ["", ""] if at is None else [printable(str(at.path)), str(at.official)]
        values = (getattr(file, name) for name in fields)
        rows.append([*("" if value is None else str(value) for value in values), *place])
    write_csv(path, (*fields, "here", "official"), rows)


def weights_where(id: str, /, *, weights: Folders = ()) -> int:
    """Print the path of an official weight file on this machine; ends with 1 if there is none.

    Args:
        id: As bench weights list names it.
        weights: Folder that is searched too, at any depth.
    """
    from lipsync_bench.datamodules.files.disk import printable
    from lipsync_bench.datamodules.weights.store import Store

    found = Store(weights).need(id)
    if not found.official:
        _log.warning("%s: its SHA-256 is not public; found by its name, not checked", id)
    sys.stdout.write(f"{printable(str(found.path))}\n")
    return 0


def weights_verify(*, weights: Folders = ()) -> int:
    """Say of each file in the folders of weights what it is; ends with 1 if one has an official name wrongly.

    Args:
        weights: Folder that is looked at too, at any depth, besides LIPSYNC_WEIGHTS and weights/. Of known caches,
            files whose name tells their hash.
    """
    from lipsync_bench.datamodules.files.disk import printable
    from lipsync_bench.datamodules.weights.store import Store

    store = Store(weights)
    seen = store.verify()
    for file in seen:
        sys.stdout.write(f"{file.status:9} {printable(f'{file.path}: {file.what}')}\n")
    if not seen:
        _log.info("no files in %s", ", ".join(map(str, store.folders)))
    return int(any(file.status == "wrong" for file in seen))


def weights_fetch(
    *ids: str,
    for_: Annotated[Words, Parameter(name="--for")] = (),
    weights: Path | None = None,
    mirrors: bool = False,
    accept_licence: bool = False,
) -> int:
    """Download official weight files, after showing their licences.

    Resumes what was interrupted. A file appears under its name only if its SHA-256 is right.

    Args:
        ids: As bench weights list names them.
        for_: Everything for wav2lip, hyperlips, videoretalking, lipformer, lse, sync, lpips or fid, with commas
            between.
        weights: Folder to write to; if not given the first of LIPSYNC_WEIGHTS, else weights/.
        mirrors: Ask third parties where no official address gives the file; the SHA-256 is checked all the same.
        accept_licence: The licences are accepted; nobody is asked.
    """
    from lipsync_bench.datamodules.files.disk import printable
    from lipsync_bench.datamodules.weights.registry import chosen_files
    from lipsync_bench.datamodules.weights.store import HERE, VARIABLE, Store
    from lipsync_bench.weights.fetch import fetch

    wanted = chosen_files(ids, for_)
    if not wanted:
        raise ValueError("nothing to fetch. Expected ids or --for GROUP. Run: bench weights list")
    first = next((name for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name), HERE)
    folder = weights or Path(first)
    store = Store([folder] if folder.is_dir() else [])
    missing = []
    for file in wanted:
        found = store.find(file.id)
        if found is None:
            missing.append(file)
        else:
            _log.info("%s: is here: %s", file.id, found.path)
    if missing:
        for path in fetch(missing, folder, mirrors=mirrors, accept_licence=accept_licence).values():
            sys.stdout.write(f"{printable(str(path))}\n")
    return 0


def weights_pack(checkpoint: Path, /, *, out: Path, about: dict[str, str] | None = None) -> int:
    """Write a checkpoint in half precision, with what made it, as a safetensors file of a few MB, to hand it on.

    Every command takes it in the checkpoint's place, except that no training is resumed from it.

    Args:
        checkpoint: Of lightning fit, or the folder of a run.
        out: The file to write.
        about: What to say of it, as --about.licence Apache-2.0; --about.about is shown wherever it is used.
    """
    from lipsync_bench.models.core.checkpoints import pack_checkpoint
    from lipsync_bench.runs import run_checkpoint

    pack_checkpoint(run_checkpoint(checkpoint), out, about or {})
    _log.info("%s: %.1f MB", out, out.stat().st_size / 1e6)
    return 0
