# SPDX-License-Identifier: Apache-2.0
"""`bench evaluate`: a data set's test clips, or folders of videos, to clips.csv and leaderboard.csv."""

import contextlib
import fnmatch
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import pandas as pd
import torch
import torch.distributed

from datamodules import ClipDataModule, ClipFolder
from datamodules.clip import ClipHeader, read_header
from datamodules.files import remove_leftovers, sha256
from datamodules.prepare import prepare
from lipsync_bench.evaluation import manifest
from lipsync_bench.evaluation.benchmark import load_benchmark
from lipsync_bench.evaluation.candidates import Candidate, Checkpoint, GroundTruth, RepeatedFrame, VideoFolder
from lipsync_bench.evaluation.features import pooled_values
from lipsync_bench.evaluation.leaderboard import write_leaderboard
from lipsync_bench.evaluation.pairs import Pair, draw_pairs
from lipsync_bench.evaluation.protocol import PAIRED_FACE_BOX, VIDEO_PAIRS, Protocol, load_protocol
from lipsync_bench.evaluation.regions import Regions
from lipsync_bench.evaluation.rows import GROUND_TRUTH, RowFile, read_rows
from lipsync_bench.evaluation.run import Evaluation, evaluate_pairs
from lipsync_bench.evaluation.scorers import NO_SCORERS, ScorerFiles, Scorers
from lipsync_bench.processes import device_of, rank_and_world, return_memory

_log = logging.getLogger(__name__)
LONGEST_WAIT = timedelta(days=7)  # of the quickest rank for the slowest

__all__ = ["Result", "Selection", "evaluate_dataset", "evaluate_videos"]


@dataclass(frozen=True)
class Selection:
    """A part of an evaluation; the rest can follow later in the same folder.

    Args:
        limit: Only the first clips (pairs).
        methods: Only these names; the truth always takes part.
        clips: Only clips whose id is one of these, or fits one of these patterns (`S1/*`).
    """

    limit: int | None = None
    methods: Sequence[str] = ()
    clips: Sequence[str] = ()

    def of_methods(self, names: Sequence[str]) -> list[str]:
        """The names that take part, in their order. Raises ValueError for one that there is not."""
        unknown = sorted(set(self.methods) - set(names))
        if unknown:
            raise ValueError(
                f"--methods: no {', '.join(unknown)}. Expected some of {', '.join(names)}. Add a checkpoint with "
                f"--methods.{unknown[0]} PATH, or videos with --pred {unknown[0]}=DIR"
            )
        return [name for name in names if not self.methods or name in self.methods or name == GROUND_TRUTH]

    def of_pairs(self, pairs: Sequence[Pair], ids: Mapping[Path, str]) -> list[Pair]:
        """The pairs that take part. Raises ValueError for a pattern that no clip fits."""
        for pattern in self.clips:
            if not any(fnmatch.fnmatchcase(ids[pair.video], pattern) for pair in pairs):
                raise ValueError(
                    f"--clips {pattern}: none of the {len(pairs)} clips fits. Expected an id such as "
                    f"{ids[pairs[0].video] if pairs else 'S1/00007'}, or a pattern such as 'S1/*'"
                )
        fit = [p for p in pairs if not self.clips or any(fnmatch.fnmatchcase(ids[p.video], c) for c in self.clips)]
        return fit if self.limit is None else fit[: self.limit]


@dataclass(frozen=True)
class Result:
    """What an evaluation left behind.

    Args:
        folder: Holds clips.csv, leaderboard.csv and manifest.json.
        leaderboard: One line a method, as in leaderboard.csv.
        rows: One line for each method and clip, as in clips.csv.
    """

    folder: Path
    leaderboard: pd.DataFrame
    rows: pd.DataFrame

    @property
    def failures(self) -> int:
        """Rows that failed."""
        return int((self.rows["status"] == "failed").sum())

    @property
    def without_any_score(self) -> list[str]:
        """Methods of which every row failed."""
        scored = set(self.rows[self.rows["status"] == "ok"]["method"])
        return sorted(set(self.rows["method"]) - scored)


def _wait_for_all(world: int) -> None:
    """Under torchrun: return when every rank has written its rows."""
    if world == 1 or "MASTER_ADDR" not in os.environ:
        return
    torch.distributed.init_process_group("gloo", timeout=LONGEST_WAIT)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def _run(
    run: Evaluation,
    pairs: Sequence[Pair],
    headers: Mapping[Path, ClipHeader],
    identity: Mapping[str, object],
    config: Mapping[str, object],
    progress: bool,
) -> Result:
    rank, world = rank_and_world()
    out, protocol, scorers = run.out, run.regions.protocol, run.scorers
    out.mkdir(parents=True, exist_ok=True)
    if world == 1:  # other ranks may be writing
        remove_leftovers(out)
    session = manifest.Run(
        identity={"protocol": protocol.key, "scorers": scorers.identity, "boxes": run.regions.version, **identity},
        protocol=asdict(protocol),
        methods={candidate.name: candidate.sha256 for candidate in run.candidates},
        config=config,
        clips={headers[clip].id: headers[clip].source_sha256 for pair in pairs for clip in (pair.video, pair.audio)},
        weights=scorers.identity,
        seeds={"pairs": protocol.seed},
    )
    return_memory()  # of preparing targets and loading weights
    with manifest.session(out, session) if rank == 0 else contextlib.nullcontext():
        rows = RowFile(out / ("clips.csv" if world == 1 else f"clips.rank{rank}.csv"))
        try:  # each rank takes its own pairs, none twice: no padding to equal shares
            evaluate_pairs(pairs[rank::world], run, rows, progress and rank == 0)
        finally:
            rows.close()
            run.regions.close()
        _wait_for_all(world)
        table = read_rows(out)
        if rank != 0:
            return Result(out, pd.DataFrame(), table)
        scorers.release()
        return_memory()  # for the statistics, and for FID's matrices of 34 MB each
        pooled = pooled_values(out, table, scorers.networks)
        return Result(out, write_leaderboard(table, out / "leaderboard.csv", pooled), table)


def _protocol(protocol: str | Protocol) -> Protocol:
    return load_protocol(protocol) if isinstance(protocol, str) else protocol


def evaluate_dataset(
    dataset: str,
    out: Path,
    *,
    root: Path | None = None,
    methods: Mapping[str, Path] | None = None,
    pred: Mapping[str, Path] | None = None,
    split: str | None = None,
    protocol: str | Protocol = PAIRED_FACE_BOX,
    pairs: Path | None = None,
    scorers: ScorerFiles = NO_SCORERS,
    parsing: Path | None = None,
    select: Selection = Selection(),
    save_videos: bool = False,
    device: str = "auto",
    progress: bool = True,
) -> Result:
    """Rank methods on a data set. Ground truth always takes part, and the repeated reference frame unless left out.

    Args:
        dataset: Name or path of a benchmark YAML.
        out: Results folder; a folder of an interrupted run is gone on with.
        root: Prepared clips, instead of the YAML's.
        methods: Checkpoint by method name, beside or instead of the YAML's.
        pred: Folder of a method's videos by the method's name, for methods that this suite does not have; see
            `VideoFolder` for the names of the files.
        split: Instead of the YAML's.
        protocol: Name or YAML of how clips are drawn, paired and compared.
        pairs: List of pairs, "audio video" a line, for unpaired protocols.
        scorers: Weights of the networks that judge.
        parsing: Weights of the face parser, for methods that paste through a mask of the face; without them the mask
            is the Face Mesh contour.
        select: A part of the methods or clips.
        save_videos: Keep what was scored, for the report's players.
        device: "auto", "cpu", "cuda:0" ...
        progress: Show progress and the means so far.

    Raises:
        FileNotFoundError: A benchmark, protocol, checkpoint, weight file or data folder is missing.
        ValueError: The results folder belongs to another protocol, data set or scorer; or a name is not known.
    """
    rules = _protocol(protocol)
    benchmark = load_benchmark(dataset, root, methods, split)
    folders = {name: Path(folder) for name, folder in (pred or {}).items()}
    checkpoints = {name: path for name, path in benchmark.methods.items() if name not in folders}
    names = select.of_methods([GROUND_TRUTH, "repeated_frame", *checkpoints, *folders])
    for name, folder in folders.items():
        if not folder.is_dir():
            raise FileNotFoundError(f"--pred {name}={folder} is no folder. Expected one that holds videos.")
    benchmark.data.prepare_data()
    benchmark.data.setup("test")
    where = device_of(device)
    everything = draw_pairs(benchmark.data.clips(benchmark.split), rules, benchmark.name, pairs)
    headers = {clip: read_header(clip) for pair in everything for clip in (pair.video, pair.audio)}
    chosen = select.of_pairs(everything, {clip: header.id for clip, header in headers.items()})
    sources = {header.id: header.source for header in headers.values()}

    def candidates() -> Iterator[Candidate]:
        yield GroundTruth(benchmark.data.source_root, sources)
        if "repeated_frame" in names:
            yield RepeatedFrame()
        for name, path in checkpoints.items():
            if name in names:
                yield Checkpoint(name, Path(path), where, parsing)
        for name, folder in folders.items():
            if name in names:
                yield VideoFolder(name, folder, sources)

    run = Evaluation(
        benchmark.data.source_root,
        list(candidates()),
        Regions(rules, scorers.detector_weights, where),
        Scorers(scorers, where),
        benchmark.name,
        out,
        save_videos,
    )
    identity = {
        "dataset": benchmark.name,
        "split": benchmark.split,
        "pairs_sha256": "" if pairs is None else sha256(pairs),
    }
    config = {
        "dataset": dataset,
        "out": out,
        "root": root,
        "methods": checkpoints,
        "pred": folders,
        "split": benchmark.split,
        "protocol": protocol if isinstance(protocol, str) else rules.key,
        "pairs": pairs,
        "scorers": asdict(scorers),
        "parsing": parsing,
        "select": asdict(select),
        "save_videos": save_videos,
        "device": where,
    }
    return _run(run, chosen, headers, identity, config, progress)


def evaluate_videos(
    pred: Path | Mapping[str, Path],
    target: Path,
    out: Path,
    *,
    protocol: str | Protocol = VIDEO_PAIRS,
    scorers: ScorerFiles = NO_SCORERS,
    select: Selection = Selection(),
    save_videos: bool = False,
    device: str = "auto",
    workers: int | None = None,
    progress: bool = True,
) -> Result:
    """Score anybody's videos against their targets; no model and no data set needed.

    The targets are prepared into `out/targets` first (faces found once, failures counted). A prediction is matched by
    its path below the folder, or else its name; it is compared with the target at 25 fps from its first frame on,
    resized where the sizes differ, as far as the shorter of the two reaches (`frames` against `frames_target` in the
    row). A missing prediction is a failed row.

    Args:
        pred: Folder of generated videos, which gives the method its name; or several by name.
        target: Folder of the real videos.
        out: Results folder.
        protocol: As for `evaluate_dataset`; a paired one.
        scorers: As there, and so the others.
        workers: Processes that prepare the targets.

    Raises:
        FileNotFoundError: A folder or weight file is missing, or no target could be prepared.
        ValueError: As for `evaluate_dataset`.
    """
    rules = _protocol(protocol)
    if rules.pairing != "paired":
        raise ValueError(
            f"{rules.key} dubs with the sound of other clips. Expected a paired protocol for --target; score dubbed "
            "videos with --dataset NAME --pred NAME=DIR"
        )
    folders = {name: Path(folder) for name, folder in pred.items()} if isinstance(pred, Mapping) else {}
    if not isinstance(pred, Mapping):
        folders = {Path(pred).resolve().name: Path(pred)}
    for label, folder in (*((f"--pred {name}", folder) for name, folder in folders.items()), ("--target", target)):
        if not folder.is_dir():
            raise FileNotFoundError(f"{label} {folder} is no folder. Expected one that holds videos.")
    names = select.of_methods([GROUND_TRUTH, "repeated_frame", *folders])
    report = prepare(target, out / "targets", "folder", workers=workers, progress=progress)
    if report.failed:
        _log.warning("%d of the targets could not be prepared; see %s", report.failed, out / "targets" / "failures.csv")
    data: ClipDataModule = ClipFolder(root=out / "targets", overfit=True)
    data.prepare_data()
    data.setup("test")
    everything = draw_pairs(data.clips("test"), rules, "videos")
    headers = {pair.video: read_header(pair.video) for pair in everything}
    chosen = select.of_pairs(everything, {clip: header.id for clip, header in headers.items()})
    sources = {header.id: header.source for header in headers.values()}
    candidates: list[Candidate] = [GroundTruth(target, sources)]
    candidates += [RepeatedFrame()] if "repeated_frame" in names else []
    candidates += [VideoFolder(name, folder, sources) for name, folder in folders.items() if name in names]
    where = device_of(device)
    regions = Regions(rules, scorers.detector_weights, where)
    run = Evaluation(target, candidates, regions, Scorers(scorers, where), "videos", out, save_videos)
    config = {
        "pred": folders,
        "target": target,
        "out": out,
        "protocol": protocol if isinstance(protocol, str) else rules.key,
        "scorers": asdict(scorers),
        "select": asdict(select),
        "save_videos": save_videos,
        "device": where,
    }
    return _run(run, chosen, headers, {"dataset": "videos", "split": "all"}, config, progress)
