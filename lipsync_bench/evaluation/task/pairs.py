# SPDX-License-Identifier: Apache-2.0
"""Which video is dubbed with which audio: drawn by seed, or read from a list in the published format.

A list has one pair a line, the **audio first**: `6330311066473698535/00011 6331559613336179781/00037`, blanks between,
suffixes allowed; a name is the clip's id.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from lipsync_bench.datamodules.clips.clip import read_header
from lipsync_bench.datamodules.files.texts import read_text
from lipsync_bench.evaluation.task.protocol import Protocol

__all__ = ["Pair", "draw_pairs", "read_pairs"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pair:
    """A video and the audio that it is dubbed with, both prepared clips; the same one where the protocol is paired.

    Args:
        video: Clip that is reproduced or dubbed.
        audio: Clip whose audio is used.
        first: Whether this is the first pair of its video: the ground truth, which keeps its own audio, is scored once.
    """

    video: Path
    audio: Path
    first: bool = True


def _stem(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.name else ""


def read_pairs(path: Path, clips: Sequence[Path]) -> list[Pair]:
    """The pairs of a list, in its order, each once.

    Args:
        path: UTF-8 text, `audio video` a line; empty lines are passed over.
        clips: Prepared clips that may take part.

    Raises:
        FileNotFoundError: No such file.
        ValueError: A line is no pair, a clip is not among those prepared, or no pair is left.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such list. Expected one pair 'audio video' a line: --pairs FILE")
    known = {read_header(clip).id: clip for clip in clips}
    pairs: dict[Pair, None] = {}
    lines = 0
    text = read_text(path, "one pair 'audio video' a line", "Correct --pairs")
    for number, line in enumerate(text.splitlines(), 1):
        names = line.split()
        if not names:
            continue
        if len(names) != 2:
            raise ValueError(f"{path}, line {number}: {len(names)} names. Expected 'audio video'. Correct --pairs")
        found = []
        for name in names:
            clip = known.get(name, known.get(_stem(name)))
            if clip is None:
                raise ValueError(
                    f"{path}, line {number}: no prepared clip {name!r} among the {len(known)} of this split. Expected "
                    "the id of one. Prepare it with bench prepare, or take the line out of --pairs"
                )
            found.append(clip)
        pairs[Pair(video=found[1], audio=found[0])] = None
        lines += 1
    if lines > len(pairs):
        _log.warning("%s: %d pairs stand in it twice and count once", path, lines - len(pairs))
    if not pairs:
        raise ValueError(f"{path} has no line. Expected one pair 'audio video' a line: --pairs FILE")
    return list(pairs)


def _unpaired(clips: Sequence[Path], count: int, rng: np.random.Generator) -> list[Pair]:
    """`count` different pairs of different clips; every clip is dubbed before one is dubbed a second time."""
    pairs: dict[Pair, None] = {}
    total = len(clips)
    for shift in rng.permutation(np.arange(1, total)):  # each shift pairs every video with another audio
        order = rng.permutation(total)
        for place in order:
            if len(pairs) == count:
                return list(pairs)
            pairs[Pair(clips[place], clips[(place + int(shift)) % total])] = None
    return list(pairs)


def draw_pairs(clips: Sequence[Path], protocol: Protocol, dataset: str, pairs_file: Path | None = None) -> list[Pair]:
    """The pairs of an evaluation, the same for the same clips and protocol.

    Args:
        clips: Prepared clips of the split; a clip that is named twice takes part once.
        protocol: Says how they are paired, how many are drawn, and the seed.
        dataset: Its name, as in `protocol.pairs`.
        pairs_file: A list, for unpaired protocols; then nothing is drawn.

    Raises:
        FileNotFoundError: No such list.
        ValueError: The list is not in order, comes with a paired protocol, or there are too few clips to pair.
    """
    clips = sorted(dict.fromkeys(clips))
    wanted = protocol.pairs.get(dataset)
    if pairs_file is not None:
        if protocol.pairing == "paired":
            raise ValueError(
                f"--pairs {pairs_file} with {protocol.key}, whose clips keep their own audio. Expected an unpaired "
                "protocol, as --protocol videoretalking"
            )
        return _numbered(read_pairs(pairs_file, clips))
    rng = np.random.default_rng(protocol.seed)
    if protocol.pairing == "unpaired":
        if len(clips) < 2:
            raise ValueError(f"{len(clips)} clips. Expected at least 2 for {protocol.key}: prepare more, or --split")
        pairs = _unpaired(clips, wanted or len(clips), rng)
    else:
        chosen = clips if wanted is None else [clips[k] for k in rng.permutation(len(clips))[:wanted]]
        pairs = [Pair(clip, clip) for clip in sorted(chosen)]
    if wanted is not None and len(pairs) < wanted:
        _log.warning("%s draws %d pairs of %s; there are only %d", protocol.key, wanted, dataset, len(pairs))
    return _numbered(sorted(pairs, key=lambda pair: (pair.video, pair.audio)))


def _numbered(pairs: Sequence[Pair]) -> list[Pair]:
    seen: set[Path] = set()
    out = []
    for pair in pairs:
        out.append(replace(pair, first=pair.video not in seen))
        seen.add(pair.video)
    return out
