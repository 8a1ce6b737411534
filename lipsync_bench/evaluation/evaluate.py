# SPDX-License-Identifier: Apache-2.0
"""`bench evaluate`: a data set's test clips, or two folders of videos, to clips.csv and leaderboard.csv."""

import json
import logging
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch
import torch.distributed

from datamodules import ClipDataModule, ClipFolder
from datamodules.clip import read_header
from datamodules.files import remove_leftovers, write_atomic
from datamodules.prepare import prepare
from lipsync_bench.evaluation.benchmark import load_benchmark
from lipsync_bench.evaluation.candidates import Candidate, Checkpoint, GroundTruth, RepeatedFrame, VideoFolder
from lipsync_bench.evaluation.leaderboard import write_leaderboard
from lipsync_bench.evaluation.protocol import PAIRED_FACE_BOX, VIDEO_PAIRS, Protocol
from lipsync_bench.evaluation.rows import RowFile, read_rows
from lipsync_bench.evaluation.run import evaluate_clips
from lipsync_bench.evaluation.scorers import Scorers
from lipsync_bench.processes import device_of, rank_and_world
from lipsync_bench.version import __version__

_log = logging.getLogger(__name__)
LONGEST_WAIT = timedelta(days=7)  # of the quickest rank for the slowest
_PACKAGES = ("torch", "numpy", "opencv-contrib-python", "mediapipe", "dlib-bin", "av", "torchmetrics")

__all__ = ["Result", "evaluate_dataset", "evaluate_videos"]


@dataclass(frozen=True)
class Result:
    """What an evaluation left behind.

    Args:
        folder: Holds clips.csv, leaderboard.csv and manifest.json.
        leaderboard: The table.
        failures: Rows that failed.
    """

    folder: Path
    leaderboard: pd.DataFrame
    failures: int


def _wait_for_all(world: int) -> None:
    """Under torchrun: return when every rank has written its rows."""
    if world == 1 or "MASTER_ADDR" not in os.environ:
        return
    torch.distributed.init_process_group("gloo", timeout=LONGEST_WAIT)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def _write_manifest(
    out: Path, protocol: Protocol, candidates: Sequence[Candidate], scorers: Scorers, settings: Mapping[str, object]
) -> None:
    """State what the rows of this folder were measured with; refuse to mix two protocols or two scorers.

    Raises:
        ValueError: The folder holds rows of another protocol, data set or scorer weights.
    """
    path = out / "manifest.json"
    identity = {"protocol": protocol.key, "scorers": scorers.identity, **settings}
    old = json.loads(path.read_text()) if path.is_file() else None
    if old is not None and old["identity"] != identity:
        different = sorted(key for key in identity if old["identity"].get(key) != identity[key])
        raise ValueError(
            f"{out} holds rows measured with another {', '.join(different)}: "
            f"{ {k: old['identity'].get(k) for k in different} }. Expected { {k: identity[k] for k in different} }. "
            "Choose another folder with --out."
        )
    methods = {c.name: c.sha256 for c in candidates}
    manifest = {
        "identity": identity,
        "protocol": asdict(protocol),
        "methods": {**(old["methods"] if old else {}), **methods},
        "package_version": __version__,
        "versions": {name: version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "machine": {"processor": platform.machine(), "threads": torch.get_num_threads()},
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }
    write_atomic(path, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")


def _run(
    clips: Sequence[Path],
    source_root: Path,
    candidates: Sequence[Candidate],
    out: Path,
    protocol: Protocol,
    scorers: Scorers,
    settings: Mapping[str, object],
    progress: bool,
) -> Result:
    rank, world = rank_and_world()
    out.mkdir(parents=True, exist_ok=True)
    if world == 1:  # other ranks may be writing
        remove_leftovers(out)
    if rank == 0:
        _write_manifest(out, protocol, candidates, scorers, settings)
    rows = RowFile(out / ("clips.csv" if world == 1 else f"clips.rank{rank}.csv"))
    try:  # each rank takes its own clips, none twice: no padding to equal shares
        evaluate_clips(
            clips[rank::world],
            source_root,
            candidates,
            rows,
            protocol,
            scorers,
            out / "ground_truth",
            progress and rank == 0,
        )
    finally:
        rows.close()
    _wait_for_all(world)
    table = read_rows(out)
    board = write_leaderboard(table, out / "leaderboard.csv") if rank == 0 else pd.DataFrame()
    return Result(out, board, int((table["status"] == "failed").sum()))


def _chosen(clips: Sequence[Path], limit: int | None) -> list[Path]:
    return list(clips if limit is None else clips[:limit])


def _sources(clips: Sequence[Path]) -> dict[str, str]:
    """Source video of each clip, by clip id."""
    return {header.id: header.source for header in map(read_header, clips)}


def evaluate_dataset(
    dataset: str,
    out: Path,
    *,
    root: Path | None = None,
    methods: Mapping[str, Path] | None = None,
    split: str | None = None,
    syncnet: Path | None = None,
    syncnet_s3fd: Path | None = None,
    expert: Path | None = None,
    parsing: Path | None = None,
    limit: int | None = None,
    device: str = "auto",
    progress: bool = True,
    protocol: Protocol = PAIRED_FACE_BOX,
) -> Result:
    """Rank methods on a data set. Ground truth and the repeated reference frame always take part.

    Args:
        dataset: Name or path of a benchmark YAML.
        out: Results folder; a folder of an interrupted run is gone on with.
        root: Prepared clips, instead of the YAML's.
        methods: Checkpoint by method name, beside or instead of the YAML's.
        split: Instead of the YAML's.
        syncnet: Official SyncNet weights; without them LSE is not computed.
        syncnet_s3fd: Official face-detector weights of the SyncNet pipeline; with both, LSE is also computed on face
            tracks.
        expert: Checkpoint of a sync expert of this suite.
        parsing: Weights of the face parser, for methods that paste through a mask of the face; without them the mask
            is the Face Mesh contour.
        limit: Only the first clips.
        device: "auto", "cpu", "cuda:0" ...
        progress: Show a progress bar.
        protocol: How frames are compared.

    Raises:
        FileNotFoundError: A benchmark, checkpoint, weight file or data folder is missing.
        ValueError: The results folder belongs to another protocol, data set or scorer.
    """
    benchmark = load_benchmark(dataset, root, methods, split)
    benchmark.data.prepare_data()
    benchmark.data.setup("test")
    where = device_of(device)
    clips = _chosen(benchmark.data.clips(benchmark.split), limit)
    candidates: list[Candidate] = [GroundTruth(benchmark.data.source_root, _sources(clips)), RepeatedFrame()]
    candidates += [Checkpoint(name, Path(path), where, parsing) for name, path in benchmark.methods.items()]
    scorers = Scorers(syncnet, syncnet_s3fd, expert, where)
    settings = {"dataset": benchmark.name, "split": benchmark.split}
    return _run(clips, benchmark.data.source_root, candidates, out, protocol, scorers, settings, progress)


def evaluate_videos(
    pred: Path,
    target: Path,
    out: Path,
    *,
    name: str | None = None,
    syncnet: Path | None = None,
    syncnet_s3fd: Path | None = None,
    expert: Path | None = None,
    limit: int | None = None,
    device: str = "auto",
    workers: int | None = None,
    progress: bool = True,
) -> Result:
    """Score anybody's videos against their targets; no model and no data set needed.

    The targets are prepared into `out/targets` first (faces found once, failures counted). A prediction is matched by
    its path below the folder, or else its name; it is compared with the target at 25 fps from its first frame on,
    resized where the sizes differ, as far as the shorter of the two reaches (`frames` against `frames_target` in the
    row).

    Args:
        pred: Folder of generated videos.
        target: Folder of the real videos.
        out: Results folder.
        name: Of the method in the rows; the folder's name if None.
        workers: Processes that prepare the targets.
        syncnet: As for `evaluate_dataset`, and so the others.

    Raises:
        FileNotFoundError: A folder or weight file is missing, or no target could be prepared.
    """
    for label, folder in (("--pred", pred), ("--target", target)):
        if not folder.is_dir():
            raise FileNotFoundError(f"{label} {folder} is no folder. Expected one that holds videos.")
    report = prepare(target, out / "targets", "folder", workers=workers, progress=progress)
    data: ClipDataModule = ClipFolder(root=out / "targets", overfit=True)
    data.prepare_data()
    data.setup("test")
    clips = _chosen(data.clips("test"), limit)
    sources = _sources(clips)
    candidates: list[Candidate] = [
        GroundTruth(target, sources),
        RepeatedFrame(),
        VideoFolder(name or pred.resolve().name, pred, sources),
    ]
    scorers = Scorers(syncnet, syncnet_s3fd, expert, device_of(device))
    settings = {"dataset": "videos", "split": "all"}
    if report.failed:
        _log.warning("%d of the targets could not be prepared; see %s", report.failed, out / "targets" / "failures.csv")
    return _run(clips, target, candidates, out, VIDEO_PAIRS, scorers, settings, progress)
