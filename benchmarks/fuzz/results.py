# SPDX-License-Identifier: Apache-2.0
"""Files that an evaluation writes and reads again, and the lists and YAML files that users write for it."""

import contextlib
import io
import json
import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.fuzz.kinds import Kind
from benchmarks.fuzz.media import FRAMES
from benchmarks.fuzz.prepared import IDS, make_clips, write_source
from lipsync_bench.bench import app
from lipsync_bench.cli.command_line import parse
from lipsync_bench.cli.config_files import bound_configs
from lipsync_bench.cli.lightning import BenchCLI
from lipsync_bench.datamodules.clips.clip import Clip, read_header
from lipsync_bench.datamodules.media.damage import Damage
from lipsync_bench.evaluation.features import pooled_values
from lipsync_bench.evaluation.target.chunks import read_target
from lipsync_bench.evaluation.target.regions import Regions
from lipsync_bench.evaluation.task.benchmark import load_benchmark
from lipsync_bench.evaluation.task.pairs import read_pairs
from lipsync_bench.evaluation.task.protocol import PAIRED_FACE_BOX, load_protocol
from lipsync_bench.evaluation.videos import row_path
from lipsync_bench.metrics.image.fid import MIN_FRAMES
from lipsync_bench.papers.leaderboards import read_sources
from lipsync_bench.papers.printed.table_files import read_table
from lipsync_bench.papers.ratings import Ratings, Votes
from lipsync_bench.report.contents import read_results
from lipsync_bench.results.leaderboard import leaderboard, write_leaderboard
from lipsync_bench.results.manifest import Run, session
from lipsync_bench.results.merge import merge_leaderboards, read_input
from lipsync_bench.results.rows import GROUND_TRUTH, RowFile, read_rows

_EXPERIMENTS = Path(__file__).parents[2] / "experiments"
_METHODS = {GROUND_TRUTH: "", "mine": "a" * 64}
_NOW = "2026-01-01T00:00:00+00:00"
_FEATURES = 8

__all__ = ["KINDS"]


class _Inception:
    """In place of FID's network, where features exist already."""

    size, recipe, weights = _FEATURES, "pytorch_fid", "f" * 64


def _write_rows(folder: Path) -> None:
    rng = np.random.default_rng(0)
    file = RowFile(folder / "clips.csv")
    for method, sha256 in _METHODS.items():
        for id in IDS:
            row = {
                "protocol": "paired_face_box-v2",
                "method": method,
                "generator_sha256": sha256,
                "paste": "box" if sha256 else "",
                "clip": id,
                "audio_clip": id,
                "speaker": id.partition("/")[0],
                "status": "ok",
                "frames": FRAMES,
                "frames_target": FRAMES,
                "fallback_frames": 0,
                "psnr": float(rng.uniform(20, 30)),
                "ssim": float(rng.uniform(0.5, 1)),
                "lmd": float(rng.uniform(1, 3)),
                "seconds": 0.5,
                "fid_sha256": "f" * 64,
                "package_version": "0.1.0",
            }
            file.append(
                row if method == GROUND_TRUTH or id != IDS[2] else {**row, "status": "failed", "reason": "none"}
            )
    file.close()


def _run() -> Run:
    return Run(
        {"protocol": "paired_face_box-v2", "scorers": {"fid_sha256": "f" * 64}, "dataset": "lrs2", "split": "test"},
        asdict(load_protocol(PAIRED_FACE_BOX)),
        _METHODS,
        {"dataset": "lrs2", "limit": None},
        dict.fromkeys(IDS, "0" * 64),
        command=["bench", "evaluate"],
    )


def _make_results(folder: Path) -> None:
    _write_rows(folder)
    write_leaderboard(read_rows(folder), folder / "leaderboard.csv")
    with session(folder, _run()):
        pass
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sessions"][0] |= {"id": "0" * 12, "started": _NOW, "ended": _NOW}  # the same bytes in every drill
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "targets").mkdir()
    lines = ["id,source,error,reason", "s3/1,s3/1.mp4,MediaError,no video track", 's3/2,s3/2.mp4,FaceError,"no, face"']
    (folder / "targets" / "failures.csv").write_text("\n".join(lines) + "\n")


def _make_board(folder: Path) -> None:
    _make_results(folder)
    (folder / "clips.csv").unlink()


def _rows(path: Path) -> None:
    """Read rows as a resumed evaluation does."""
    RowFile(path).close()
    leaderboard(read_rows(path.parent))


def _rows_merged(path: Path) -> None:
    merge_leaderboards(read_input(path.parent))


def _rows_report(path: Path) -> None:
    results = read_results(path.parent)
    for protocol in results.protocols:
        results.entries_of(protocol)
        results.board_of(protocol)
        results.columns(protocol)
        results.clip_columns(protocol)


def _rows_table(path: Path) -> None:
    read_sources(path.parent)


def _board_report(path: Path) -> None:
    if path.exists():
        os.utime(path)  # if it were older than the rows, it would not be read
    read_results(path.parent)


def _board_merged(path: Path) -> None:
    merge_leaderboards(read_input(path))


def _board_table(path: Path) -> None:
    read_sources(path)


def _session(path: Path) -> None:
    with session(path.parent, _run()):
        pass


def _failures(path: Path) -> None:
    read_results(path.parents[1])


def _make_target_cache(folder: Path) -> None:
    make_clips(folder, IDS[:1])
    write_source(folder)
    values = {
        "landmarks": np.zeros((FRAMES, 68, 2), np.float32),
        "boxes": np.tile(np.array([4, 4, 44, 44], np.float32), (FRAMES, 1)),
        "seen": np.ones(FRAMES, np.bool_),
    }
    header = read_header(folder / "s1" / "1.safetensors")
    facts = {"source": header.source_sha256, "faces": Regions(load_protocol(PAIRED_FACE_BOX)).key(header)}
    (folder / "ground_truth" / "s1").mkdir(parents=True)
    np.savez(folder / "ground_truth" / "s1" / "1.npz", **values, **facts)


def _target_cache(path: Path) -> None:
    folder = path.parents[2]
    regions = Regions(load_protocol(PAIRED_FACE_BOX))
    with Clip(folder / "s1" / "1.safetensors") as clip:
        deque(read_target(clip, folder / "sources" / "s1" / "1.mp4", clip, FRAMES, regions, path, Damage()), maxlen=0)


def _make_features(folder: Path) -> None:
    _make_results(folder)
    rng = np.random.default_rng(0)
    rows = read_rows(folder)
    for row in rows[rows["status"] == "ok"].to_dict("records"):
        entry = str(row["method"]), str(row["generator_sha256"]), str(row["paste"]), str(row["recipe"])
        path = row_path(folder / "features", entry, str(row["clip"]), str(row["audio_clip"]), ".f32")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.standard_normal((MIN_FRAMES, _FEATURES)).astype("<f4").tobytes())


def _features(path: Path) -> None:
    folder = path.parents[3]
    pooled_values(folder, read_rows(folder), {"fid": _Inception()})


def _copy(name: str, file: str) -> Callable[[Path], object]:
    return lambda folder: (folder / file).write_bytes((_EXPERIMENTS / name).read_bytes())


def _protocol(path: Path) -> None:
    load_protocol(str(path))


def _benchmark(path: Path) -> None:
    load_benchmark(str(path))


def _experiment(path: Path) -> None:
    """Parse and check it as `lightning fit -c FILE` does; wrong usage ends with 2 and a message on stderr."""
    with contextlib.redirect_stderr(io.StringIO()) as errors, contextlib.redirect_stdout(io.StringIO()):
        try:
            bound_configs(["-c", str(path)])
            BenchCLI(["fit", "-c", str(path), "--print_config"])
        except SystemExit as end:
            if end.code == 2:
                raise ValueError(errors.getvalue().rpartition("error: ")[2]) from end


def _make_options(folder: Path) -> None:
    (folder / "mine.yaml").write_text(
        "dataset: synthetic\nmethods: {wav2lip: a.ckpt, mine: b.ckpt}\npred: [c, d=e]\nonly: [wav2lip, mine]\n"
        "limit: 3\nsave_videos: true\nweights: [syncnet_v2=f.model]\nworkers: 2\n"
    )


def _options(path: Path) -> None:
    parse(app, ["evaluate", "--config", str(path)])


def _make_pairs(folder: Path) -> None:
    make_clips(folder)
    (folder / "pairs.txt").write_text(f"{IDS[0]} {IDS[1]}\n\n{IDS[1]}.mp4 {IDS[2]}\n{IDS[0]} {IDS[1]}\n")


def _pairs(path: Path) -> None:
    read_pairs(path, sorted(path.parent.glob("*/*.safetensors")))


def _make_ratings(folder: Path) -> None:
    cells: Sequence[tuple[str, str, str, str, int]] = [
        (video, method, rater, question, 1 + (k + len(method)) % 5)
        for video in ("a", "b")
        for method in ("mine", "wav2lip")
        for k, rater in enumerate(("r1", "r2", "r3"))
        for question in ("visual", "sync")
    ]
    columns = ("video", "method", "rater", "question", "score")
    pd.DataFrame(cells, columns=columns).to_csv(folder / "ratings.csv", index=False)


def _make_votes(folder: Path) -> None:
    asked = product(("a", "b"), ("r1", "r2", "r3"), ("visual", "sync"))
    cells = [(*key, ("mine", "wav2lip")[k % 2]) for k, key in enumerate(asked)]
    pd.DataFrame(cells, columns=["video", "rater", "question", "method"]).to_csv(folder / "votes.csv", index=False)


KINDS = (
    Kind("rows", "clips.csv", _make_results, _rows, "csv"),
    Kind("rows_in_merge", "clips.csv", _make_results, _rows_merged, "csv"),
    Kind("rows_in_report", "clips.csv", _make_results, _rows_report, "csv"),
    Kind("rows_in_table", "clips.csv", _make_results, _rows_table, "csv"),
    Kind("board_in_report", "leaderboard.csv", _make_results, _board_report, "csv"),
    Kind("board_in_merge", "leaderboard.csv", _make_board, _board_merged, "csv"),
    Kind("board_in_table", "leaderboard.csv", _make_board, _board_table, "csv"),
    Kind("failures_in_report", "targets/failures.csv", _make_results, _failures, "csv"),
    Kind("manifest_of_results", "manifest.json", _make_results, _session, "json"),
    Kind("manifest_in_merge", "manifest.json", _make_results, _rows_merged, "json"),
    Kind("manifest_in_report", "manifest.json", _make_results, _rows_report, "json"),
    Kind("manifest_in_table", "manifest.json", _make_results, _rows_table, "json"),
    Kind("target_cache", "ground_truth/s1/1.npz", _make_target_cache, _target_cache, "npz"),
    Kind("fid_features", "features/ground_truth/s1/1.f32", _make_features, _features),
    Kind("protocol", "mine.yaml", _copy("protocols/hyperlips.yaml", "mine.yaml"), _protocol, "yaml"),
    Kind("benchmark", "mine.yaml", _copy("benchmarks/synthetic.yaml", "mine.yaml"), _benchmark, "yaml"),
    Kind("table", "g4g-1.yaml", _copy("tables/g4g-1.yaml", "g4g-1.yaml"), read_table, "yaml"),
    Kind("experiment", "mine.yaml", _copy("synthetic/wav2lip.yaml", "mine.yaml"), _experiment, "yaml"),
    Kind("options", "mine.yaml", _make_options, _options, "yaml"),
    Kind("pairs", "pairs.txt", _make_pairs, _pairs, "lines"),
    Kind("ratings", "ratings.csv", _make_ratings, Ratings, "csv"),
    Kind("votes", "votes.csv", _make_votes, Votes, "csv"),
)
