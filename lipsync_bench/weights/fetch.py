# SPDX-License-Identifier: Apache-2.0
"""Downloads of official weight files: resumed, checked, and under their names only when they are whole."""

import glob
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

from lipsync_bench.datamodules.errors import JobsFailed
from lipsync_bench.datamodules.files.disk import sha256
from lipsync_bench.datamodules.progress import progress_bar
from lipsync_bench.datamodules.weights.identify import identify
from lipsync_bench.datamodules.weights.registry import WeightFile
from lipsync_bench.datamodules.weights.store import PART
from lipsync_bench.weights.download import Refused, download

_log = logging.getLogger(__name__)

__all__ = ["agree", "fetch"]


def _fetch(wanted: WeightFile, folder: Path, mirrors: bool, bar: Progress) -> Path:
    """One file under its name.

    Raises:
        ValueError: No address gives it, or something else has its name; says what came back and what to do by hand.
    """
    path = folder / wanted.file
    if path.exists():
        raise ValueError(
            f"{path}: is there already, and is {identify(path, sha256(path), wanted)}. Expected {wanted.told}, or "
            "nothing. Remove it, or name another folder: --weights DIR"
        )
    addresses = [*wanted.official, *(wanted.mirrors if mirrors and wanted.sha256 else ())]
    answers = []
    task = bar.add_task(wanted.file, total=wanted.size)
    for address in addresses:
        try:
            part = download(address, wanted, folder, bar, task)
        except Refused as refused:
            answers.append(f"{address} {refused}")
            _log.info("%s: %s", wanted.id, answers[-1])
            continue
        part.replace(path)
        for left in folder.glob(f"{glob.escape(wanted.file)}.*{PART}*"):
            left.unlink(missing_ok=True)
        checked = f"sha256 {wanted.sha256}" if wanted.sha256 else "its SHA-256 is not public, so it is not checked"
        _log.info("%s: %s, from %s, %s", wanted.id, path, address, checked)
        return path
    bar.remove_task(task)
    by_hand = f"Download it by hand ({next(iter(wanted.official), wanted.documented)}) into {folder}"
    if wanted.mirrors and wanted.sha256 and not mirrors:
        by_hand += ", or add --mirrors"
    raise ValueError(
        f"weights {wanted.id}: not fetched: {'; '.join(answers) or 'no address is known'}. Expected {wanted.told}. "
        f"{by_hand}"
    )


def agree(files: Sequence[WeightFile], accepted: bool) -> None:
    """Show the licences of files, and ask on a terminal whether they are accepted.

    Args:
        files: To be downloaded.
        accepted: They are, which `--accept-licence` says: nobody is asked.

    Raises:
        ValueError: They are not, or there is nobody to ask.
    """
    for file in files:
        note = f" ({file.note})" if file.note else ""
        _log.info("%s (%s): licence: %s; see %s%s", file.id, file.file, file.licence, file.documented, note)
    if accepted:
        return
    if not sys.stdin.isatty():
        raise ValueError(
            "the licences above are not accepted, and no terminal is there to ask. Expected that you have read them. "
            "Add --accept-licence"
        )
    sys.stderr.write("Accept these licences? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ValueError("the licences were not accepted; nothing was downloaded. Expected y. Run the command again")


def fetch(
    files: Sequence[WeightFile], folder: Path, *, mirrors: bool = False, accept_licence: bool = False
) -> dict[str, Path]:
    """Download official weight files, after showing their licences.

    An interrupted download is resumed by the next call. A file appears under its name when its SHA-256 is right; one
    whose hash is not public comes from its author's address alone, and is only checked to be no web page or the like.

    Args:
        files: Of the registry.
        folder: Where they go; made if it is not there.
        mirrors: Third parties' addresses are asked when no official one gives the file.
        accept_licence: The licences are accepted; otherwise a person is asked.

    Returns:
        The paths by id.

    Raises:
        ValueError: The licences were not accepted.
        JobsFailed: Some files could not be had; each has been logged, and the others are there.
        OSError: The folder cannot be written to, or the disk has no room.
    """
    agree(files, accept_licence)
    folder.mkdir(parents=True, exist_ok=True)
    done: dict[str, Path] = {}
    failures: dict[str, str] = {}
    with progress_bar(sys.stderr.isatty(), DownloadColumn(), TransferSpeedColumn()) as bar:
        for wanted in files:
            try:
                done[wanted.id] = _fetch(wanted, folder, mirrors, bar)
            except ValueError as error:
                failures[wanted.id] = str(error)
    if len(files) == 1 and failures:
        raise JobsFailed(*failures.values())
    if failures:
        for text in failures.values():
            _log.error("%s", text)
        raise JobsFailed(
            f"{len(failures)} of {len(files)} files were not fetched: {', '.join(failures)}. Expected all. "
            "Do what the lines above say, and run the same command again"
        )
    return done
