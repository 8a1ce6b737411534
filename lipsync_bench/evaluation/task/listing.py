# SPDX-License-Identifier: Apache-2.0
"""The pairs of a data set under a protocol: what evaluation, commands of other repositories and export work through."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lipsync_bench.datamodules.clips.clip import ClipHeader, read_header
from lipsync_bench.datamodules.files.texts import few
from lipsync_bench.evaluation.options import Rules, Selection
from lipsync_bench.evaluation.task.benchmark import Benchmark
from lipsync_bench.evaluation.task.pairs import Pair, draw_pairs
from lipsync_bench.evaluation.task.protocol import Protocol
from lipsync_bench.evaluation.task.selection import pairs_of

logger = logging.getLogger(__name__)

__all__ = ["Listing", "list_pairs"]


@dataclass(frozen=True)
class Listing:
    """The pairs of an evaluation.

    Args:
        protocol: Its rules.
        dataset: Name of the data set, for the protocol's limits.
        clips: All clips of the split.
        everything: All pairs.
        chosen: Those that were asked for.
        headers: Of all clips in pairs.
    """

    protocol: Protocol
    dataset: str
    clips: Sequence[Path]
    everything: Sequence[Pair]
    chosen: Sequence[Pair]
    headers: Mapping[Path, ClipHeader]

    def ids(self, pair: Pair) -> tuple[str, str]:
        """Ids of the video's clip and of the audio's."""
        return self.headers[pair.video].id, self.headers[pair.audio].id

    def frames(self, pair: Pair) -> int:
        """How many frames of a pair are compared."""
        video, audio = (self.headers[clip].frames for clip in (pair.video, pair.audio))
        return self.protocol.frames(self.dataset, video, audio)

    @property
    def sources(self) -> dict[str, str]:
        """Path of each clip's video below the folder of the source videos, by clip id."""
        return {header.id: header.source for header in self.headers.values()}


def _long_enough(clips: Sequence[Path], protocol: Protocol, dataset: str) -> list[Path]:
    """The clips that last as long as the protocol compares of each; the others are named."""
    wanted = protocol.wanted_frames(dataset)
    if wanted is None:
        return list(clips)
    headers = {clip: read_header(clip) for clip in clips}
    short = [header.id for header in headers.values() if header.frames < wanted]
    if len(short) == len(headers):
        raise ValueError(
            f"{protocol.key} compares {wanted / protocol.fps:g} s of each clip, and all {len(short)} are shorter. "
            "Expected some that are as long. Use longer clips, or another protocol (--protocol)"
        )
    if short:
        logger.warning(
            "%s compares %g s of each clip; %d of %d clips are shorter and are left out: %s",
            *(protocol.key, wanted / protocol.fps, len(short), len(headers), few(short)),
        )
    return [clip for clip, header in headers.items() if header.frames >= wanted]


def list_pairs(benchmark: Benchmark, protocol: Protocol, rules: Rules, select: Selection) -> Listing:
    """The pairs of a benchmark.

    Raises:
        FileNotFoundError: A data folder or list is missing.
        ValueError: All clips are too short for the protocol; or as `draw_pairs` and `pairs_of`.
    """
    benchmark.data.prepare_data()
    clips = benchmark.data.clips(benchmark.split)
    everything = draw_pairs(_long_enough(clips, protocol, benchmark.name), protocol, benchmark.name, rules.pairs)
    headers = {clip: read_header(clip) for pair in everything for clip in (pair.video, pair.audio)}
    chosen = pairs_of(select, everything, {clip: header.id for clip, header in headers.items()})
    return Listing(protocol, benchmark.name, clips, everything, chosen, headers)
