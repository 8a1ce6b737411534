# SPDX-License-Identifier: Apache-2.0
"""A small results folder with everything that a report shows: bad names, failures, curves, two protocols, videos."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lipsync_bench.datamodules.files.disk import write_arrays
from lipsync_bench.datamodules.media.video import VideoWriter
from lipsync_bench.evaluation.videos import video_path
from lipsync_bench.metrics.registry import column
from lipsync_bench.results.folder import ResultsFolder
from lipsync_bench.results.leaderboard import leaderboard
from lipsync_bench.results.manifest import Run, session
from lipsync_bench.results.rows import ENTRY, RowFile, read_rows

PAIRED, UNPAIRED = "paired_face_box-v2", "unpaired_face_box-v2"
SYNCNET = "5a" * 32
SOURCE = "d0" * 32
HOSTILE = ["../x", "s01/<script>alert(1)</script>", "s02/\"quoted\" & 'single'", "s03/😀 Ñandú", "S03/ñandú 😀"]
METHODS = {
    "ground_truth": "",
    "repeated_frame": "",
    "wav2lip": "a1" * 32,
    "hyperlips_hr": "b2" * 32,
    "lipformer": "c3" * 32,
}
WEIGHTS = {"wav2lip": "official", "hyperlips_hr": "unofficial"}

METRICS = {
    "psnr": (31.0, 1.5),
    "ssim": (0.90, 0.02),
    "psnr_mouth": (27.0, 1.5),
    "mse": (0.0011, 0.0003),
    "lpips_alex": (0.08, 0.02),
    "cpbd": (0.41, 0.05),
    "lmd": (1.6, 0.3),
    "jitter": (0.5, 0.1),
    "detection_failure": (0.01, 0.005),
    "lse_c_wav2lip_lrs": (6.4, 0.7),
    "lse_d_wav2lip_lrs": (7.5, 0.6),
    "lse_offset_wav2lip_lrs": (0.2, 1.0),
    "expert_cosine": (0.61, 0.1),
}


def clip_ids(count: int) -> list[str]:
    """`count` ids, the first of them hostile."""
    return [*HOSTILE, *(f"s{i % 9:02d}/{i:05d}" for i in range(count))][:count]


def _curve(rng: np.random.Generator, base: float, depth: float) -> str:
    shifts = np.arange(-15, 16)
    return " ".join(f"{base - depth * math.exp(-(s**2) / 4) + rng.normal(0, 0.05):.4f}" for s in shifts)


def _row(rng: np.random.Generator, protocol: str, method: str, clip: str, number: int) -> dict[str, object]:
    place = list(METHODS).index(method)
    row: dict[str, object] = {
        "protocol": protocol,
        "method": method,
        "generator_sha256": METHODS[method],
        "generator_weights": WEIGHTS.get(method, ""),
        "paste": "box" if METHODS[method] else "",
        "clip": clip,
        "audio_clip": clip,
        "target_sha256": SOURCE,
        "speaker": clip.partition("/")[0],
        "frames": 75,
        "frames_target": 75,
        "fallback_frames": 3 if method == "lipformer" else 0,
        "seconds": 4.0,
        "lse_sha256": SYNCNET,
        "expert_sha256": "e" * 64,
        "lpips_alex_sha256": "f" * 64,
        "package_version": "0.1.0",
    }
    if method == "lipformer" and number % 7 == 2:
        reason = "no face in frame 12" if number % 2 else "<b>ValueError</b>: 'mel' is shorter than the video"
        return {**row, "status": "failed", "reason": reason}
    for name, (mean, spread) in METRICS.items():
        better = column(name).higher_is_better
        step = 0.0 if better is None else (0.35 if better else -0.35) * place * spread
        row[name] = float(np.clip(rng.normal(mean + step, spread), *column(name).bounds))
    if method == "ground_truth":
        row |= {"psnr": math.inf, "ssim": 1.0, "psnr_mouth": math.inf, "mse": 0.0, "lpips_alex": 0.0, "lmd": 0.0}
    if METHODS[method]:
        row["recipe_text"] = "mesh 96x96 / first / reflect / box"
        row["published"] = "no: crop: mesh (published: s3fd)" if method == "wav2lip" else "yes"
        row["generate_seconds"] = float(rng.uniform(0.6, 1.4)) * (place + 1)
    row["lse_curve_wav2lip_lrs"] = _curve(rng, 12.0, 1.0 + place)
    row["expert_curve"] = _curve(rng, 0.2, -0.1 * place)
    return {**row, "status": "ok", "reason": ""}


def write_rows(folder: Path, clips: list[str], seed: int = 0) -> None:
    """clips.csv with a row for each method and clip."""
    rng = np.random.default_rng(seed)
    file = RowFile(folder / "clips.csv")
    for number, clip in enumerate(clips):
        for method in METHODS:
            file.append(_row(rng, PAIRED, method, clip, number))
    file.close()


def write_unpaired(folder: Path, clips: list[str]) -> None:
    """Rows of a second protocol, each clip with the audio of the next one: no metric that needs the target."""
    rng = np.random.default_rng(7)
    file = RowFile(folder / "clips.csv")
    for number, clip in enumerate(clips):
        for method in ("wav2lip", "hyperlips_hr"):
            row = _row(rng, UNPAIRED, method, clip, number)
            row |= {name: None for name in METRICS if column(name).reference == "target"}
            file.append({**row, "audio_clip": clips[(number + 1) % len(clips)]})
    file.close()


def write_board(folder: Path) -> pd.DataFrame:
    """leaderboard.csv, with a pooled FID of the paired entries."""
    rows = read_rows(folder)
    paired = rows[(rows["protocol"] == PAIRED) & (rows["method"] != "ground_truth")]
    pooled = paired[list(ENTRY)].drop_duplicates().reset_index(drop=True)
    pooled = pooled.assign(fid=10.0 + pooled.index, fid_n=75 * rows["clip"].nunique())
    boards = [leaderboard(own, pooled if protocol == PAIRED else None) for protocol, own in rows.groupby("protocol")]
    board = pd.concat(boards, ignore_index=True)
    board = board.fillna({name: 0 for name in board if str(name).endswith("_n")})
    board.to_csv(folder / "leaderboard.csv", index=False)
    return board


def write_manifest(folder: Path, clips: list[str], dataset: str = "lrs2") -> None:
    """manifest.json of one session."""
    run = Run(
        {"protocol": PAIRED, "scorers": {"lse_sha256": SYNCNET}, "dataset": dataset, "split": "test"},
        {"name": "paired_face_box", "version": 1, "reference": "first", "crop_px": 160},
        METHODS,
        {"dataset": dataset, "root": "data/lrs2", "limit": None},
        dict.fromkeys(clips, "0" * 64),
        {"syncnet": SYNCNET},
        {"bootstrap": 0},
        ["bench", "evaluate", "--dataset", dataset, "--name", "it's <b>"],
    )
    with session(folder, run):
        pass


def write_videos(folder: Path, clips: list[str], methods: list[str], frames: int = 50) -> None:
    """Moving squares with a tone, a colour for each method, where the run keeps them."""
    tone = (0.2 * np.sin(np.arange(frames * 640) * 2 * np.pi * 220 / 16000)).astype(np.float32)
    for number, method in enumerate(methods):
        for clip in clips:
            path = video_path(folder, (method, METHODS[method], "box" if METHODS[method] else "", ""), clip, clip)
            with VideoWriter(path, 25.0, (160, 160), audio=tone, threads=1) as out:
                for t in range(frames):
                    frame = np.full((160, 160, 3), 60 + 40 * number, np.uint8)
                    frame[60:100, (2 * t) % 120 : (2 * t) % 120 + 40] = (230, 200, 60 * number)
                    out.write(frame)


def write_found(folder: Path, clip: str, source: str = SOURCE) -> Path:
    """ground_truth/CLIP.npz as an evaluation writes it: a face from (50, 50) to (110, 120), the lips in it, moving."""
    points = np.full((50, 68, 2), (50.0, 50.0), np.float32)
    points[:, 1] = 110, 120
    points[:, 48:] = 70, 95
    points[:, 50] = 90, 105
    points[25:, 48:] += 5
    path = ResultsFolder(folder).found_file(clip)
    write_arrays(path, landmarks=points, source=source)
    return path


def write_unprepared(folder: Path) -> None:
    """targets/failures.csv as bench prepare writes it."""
    (folder / "targets").mkdir(exist_ok=True)
    lines = [
        "id,source,error,reason",
        "a/1,a/1.mp4,MediaError,no video track",
        "a/2,a/<i>2.mp4,FaceError,no face found",
    ]
    (folder / "targets" / "failures.csv").write_text("\n".join(lines) + "\n")


def make_results(folder: Path, count: int = 12, videos: bool = False) -> Path:
    """The whole folder."""
    clips = clip_ids(count)
    write_rows(folder, clips)
    write_unpaired(folder, clips[:4])
    write_board(folder)
    write_manifest(folder, clips)
    write_unprepared(folder)
    if videos:
        write_videos(folder, clips[5:7], ["ground_truth", "wav2lip", "hyperlips_hr"])
        write_found(folder, clips[5])
    return folder


def copy_results(results: Path, folder: Path) -> Path:
    """A copy of a results folder, without its videos."""
    return shutil.copytree(results, folder, ignore=shutil.ignore_patterns("videos"))


def set_values(folder: Path, methods: Sequence[str], **values: float) -> None:
    """Give the paired rows of these methods these values, and renew the leaderboard."""
    rows = pd.read_csv(folder / "clips.csv", dtype=str, keep_default_na=False)
    chosen = (rows["status"] == "ok") & (rows["protocol"] == PAIRED) & rows["method"].isin(methods)
    for name, value in values.items():
        rows.loc[chosen, name] = repr(value)
    rows.to_csv(folder / "clips.csv", index=False)
    write_board(folder)
