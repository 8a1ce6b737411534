# SPDX-License-Identifier: Apache-2.0
"""Checks that metrics respond to known degradations of real clips, scored by `bench evaluate`.

    python -m benchmarks.degraded_clips --clips DIR --out DIR [--expert CKPT] [--weights DIR|ID=FILE ...]

Writes the degraded videos, the results of one evaluation, `table.md`, `curves.png`, and `checks.md`: the expected
responses, and whether they were observed. Returns 1 if one was not. Existing files are not made again.
"""

import argparse
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, pairwise
from pathlib import Path

import av
import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.media.audio import SAMPLE_RATE, load_audio, to_int16
from lipsync_bench.datamodules.media.video import FPS, VideoWriter, read_frames
from lipsync_bench.datamodules.prepare.options import PrepareOptions
from lipsync_bench.datamodules.prepare.prepare import prepare
from lipsync_bench.evaluation import COLUMNS, MetricOptions, WeightOptions, evaluate_videos
from lipsync_bench.evaluation.target.chunks import in_frame
from lipsync_bench.metrics.metric import LIPS

BLURS = (1, 2, 4)  # standard deviation in pixels
CRFS = (23, 35, 45)
SHIFTS = (0, 2, 5, 10)  # frames by which the audio is late
OPUS_BITS = 8000
NEARLY_LOSSLESS = 1  # crf of all variants that do not test the codec
MOUTH_MARGIN = 0.35  # of the lips' width

Frames = Iterator[np.ndarray]


def _blurred(frames: Frames, clip: Clip, sigma: float) -> Frames:
    return (cv2.GaussianBlur(frame, (0, 0), sigma) for frame in frames)


def _same(frames: Frames, clip: Clip) -> Frames:
    return frames


def _frozen(frames: Frames, clip: Clip) -> Frames:
    """The first frame's mouth in every frame, positioned by the lips' box and blended at its edge."""
    lips = in_frame(clip.landmarks(), clip.boxes())[:, LIPS]
    pad = MOUTH_MARGIN * (lips[:, :, 0].max(axis=1) - lips[:, :, 0].min(axis=1))[:, None]
    boxes = np.concatenate([lips.min(axis=1) - pad, lips.max(axis=1) + pad], axis=1)
    first = next(frames)
    x1, y1, x2, y2 = np.rint(boxes[0]).astype(int)
    mouth = first[y1:y2, x1:x2].copy()
    height, width = mouth.shape[:2]
    centre = boxes[:, :2] + (boxes[:, 2:] - boxes[:, :2]) / 2
    ramp = [np.minimum(1, np.minimum(np.arange(n) + 1, n - np.arange(n)) / (0.2 * n)) for n in (height, width)]
    weight = (ramp[0][:, None] * ramp[1][None])[..., None]
    for frame, (x, y) in zip(chain([first], frames), centre, strict=False):
        left, top = round(x - width / 2), round(y - height / 2)
        out = frame.copy()
        region = out[top : top + height, left : left + width]
        h, w = region.shape[:2]
        region[:] = np.rint(weight[:h, :w] * mouth[:h, :w] + (1 - weight[:h, :w]) * region).astype(np.uint8)
        yield out


def _late(samples: np.ndarray, frames: int) -> np.ndarray:
    delay = round(frames / FPS * SAMPLE_RATE)
    return np.concatenate([np.zeros(delay, np.float32), samples])[: len(samples)]


def _opus(samples: np.ndarray) -> np.ndarray:
    """Encode the audio with Opus and decode it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "audio.ogg"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libopus", rate=48000, layout="mono", bit_rate=OPUS_BITS)
            resampler = av.AudioResampler("s16", "mono", 48000)
            frame = av.AudioFrame.from_ndarray(to_int16(samples)[None], "s16", "mono")
            frame.sample_rate = SAMPLE_RATE
            for part in chain(resampler.resample(frame), resampler.resample(None)):
                container.mux(stream.encode(part))
            container.mux(stream.encode(None))
        return load_audio(path)[: len(samples)]


ChangeFrames = Callable[[Frames, Clip], Frames]
ChangeAudio = Callable[[np.ndarray], np.ndarray]


def _variants() -> dict[str, tuple[ChangeFrames, int, ChangeAudio]]:
    """By name: the change of the frames, the crf they are stored with, and the change of the audio."""
    out: dict[str, tuple[ChangeFrames, int, ChangeAudio]] = {"copy": (_same, NEARLY_LOSSLESS, lambda samples: samples)}
    for sigma in BLURS:
        out[f"blur_{sigma}"] = (partial(_blurred, sigma=sigma), NEARLY_LOSSLESS, lambda samples: samples)
    for crf in CRFS:
        out[f"h264_{crf}"] = (_same, crf, lambda samples: samples)
    out["opus_8k"] = (_same, NEARLY_LOSSLESS, _opus)
    for shift in SHIFTS[1:]:
        out[f"late_{shift}"] = (_same, NEARLY_LOSSLESS, partial(_late, frames=shift))
    out["frozen"] = (_frozen, NEARLY_LOSSLESS, lambda samples: samples)
    return out


def degrade(clips: Path, targets: Path, out: Path) -> dict[str, Path]:
    """Write every variant of every prepared clip below `out/NAME`; existing files are kept."""
    folders = {}
    for name, (change_frames, crf, change_audio) in _variants().items():
        folders[name] = out / name
        for path in sorted(targets.glob("*/*.safetensors")):
            with Clip(path) as clip:
                source = clips / clip.header.source
                made = (folders[name] / clip.header.source).with_suffix(".mp4")
                if made.is_file():
                    continue
                # One thread, because x264's output depends on their number and late variants must equal the copy.
                frames = change_frames(read_frames(source, FPS), clip)
                first = next(frames)
                size = (first.shape[0], first.shape[1])
                with VideoWriter(made, FPS, size, audio=change_audio(load_audio(source)), crf=crf, threads=1) as writer:
                    for frame in chain([first], frames):
                        writer.write(frame)
    return folders


def _ordered(board: pd.DataFrame, names: Sequence[str], metric: str, falling: bool) -> bool:
    values = [float(board.loc[name, metric]) for name in names]
    return all((a > b) if falling else (a < b) for a, b in pairwise(values))


def checks(board: pd.DataFrame, rows: pd.DataFrame) -> list[tuple[str, bool | None]]:
    """The expected responses, and whether they hold; None if the network is missing or finds no clip in sync.

    Args:
        board: Leaderboard by method.
        rows: All rows.
    """
    blurs, crfs = ["copy", *(f"blur_{s}" for s in BLURS)], ["copy", *(f"h264_{c}" for c in CRFS)]
    lates = [f"late_{s}" for s in SHIFTS[1:]]
    out: list[tuple[str, bool | None]] = []
    for names, what in ((blurs, "blur"), (crfs, "crf")):
        for metric, falling in (("psnr", True), ("ssim", True), ("psnr_mouth", True), ("mse", False)):
            out.append(
                (f"{metric} {'falls' if falling else 'rises'} with {what}", _ordered(board, names, metric, falling))
            )
        for metric in (m for m in ("lpips_alex", "lpips_vgg") if m in board):
            out.append((f"{metric} rises with {what}", _ordered(board, names, metric, False)))
    out.append(("cpbd falls with blur", _ordered(board, blurs, "cpbd", True)))
    for name in ("opus_8k", *lates):
        same = all(board.loc[name, m] == board.loc["copy", m] for m in ("psnr", "ssim", "lmd", "cpbd", "jitter"))
        out.append((f"{name} changes no metric of the frames", same))
    for metric in ("psnr_mouth", "lmd_centred"):
        rises = metric == "lmd_centred"
        holds = (board.loc["frozen", metric] > board.loc["copy", metric]) == rises
        out.append((f"frozen: {metric} {'rises' if rises else 'falls'}", bool(holds)))
    for metric, confidence in (
        ("expert_offset_frames", "expert_confidence"),
        ("lse_offset_wav2lip_lrs", "lse_c_wav2lip_lrs"),
    ):
        if metric not in board:
            continue
        in_sync = rows[rows["method"] == "ground_truth"].set_index("clip")[metric] == 0
        clips = list(in_sync[in_sync].index)
        for shift, name in zip(SHIFTS[1:], lates, strict=True):
            own = rows[(rows["method"] == name) & rows["clip"].isin(clips)][metric]
            holds = None if not len(clips) else bool((own == -shift).all())
            out.append(
                (
                    f"{name}: {metric} is -{shift} in all {len(clips)} of {len(in_sync)} clips whose ground truth is "
                    "at 0",
                    holds,
                )
            )
        holds = None if not len(clips) else bool(board.loc["frozen", confidence] < board.loc["copy", confidence])
        out.append((f"frozen: {confidence} falls", holds))
    return out


def _table(board: pd.DataFrame) -> str:
    shown = [c for c in COLUMNS if c.kind != "diagnostic" and c.name in board]
    lines = ["| | " + " | ".join(c.heading for c in shown) + " |", "|---|" + "---:|" * len(shown)]
    for name, entry in board.iterrows():
        cells = []
        for c in shown:
            value = float(entry[c.name])
            cells.append("identical" if math.isinf(value) else "–" if math.isnan(value) else f"{value:.{c.digits}f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _plot(board: pd.DataFrame, path: Path) -> None:
    series = {
        "blur, standard deviation (px)": [(0, "copy"), *((s, f"blur_{s}") for s in BLURS)],
        "x264, crf": [(1, "copy"), *((c, f"h264_{c}") for c in CRFS)],
        "audio late by (frames)": [(0, "copy"), *((s, f"late_{s}") for s in SHIFTS[1:])],
    }
    metrics = [m for m in ("psnr", "ssim", "cpbd", "lmd", "expert_confidence", "expert_offset_frames") if m in board]
    figure, axes = plt.subplots(len(metrics), len(series), figsize=(9, 1.7 * len(metrics)), squeeze=False, sharey="row")
    titles = {c.name: c.heading for c in COLUMNS}
    for row, metric in zip(axes, metrics, strict=True):
        for axis, (title, points) in zip(row, series.items(), strict=True):
            x = [p for p, _ in points]
            y, low, high = ([float(board.loc[n, metric + s]) for _, n in points] for s in ("", "_low", "_high"))
            axis.fill_between(x, low, high, alpha=0.2, linewidth=0)
            axis.plot(x, y, marker="o", markersize=3)
            axis.set_xlabel(title if metric == metrics[-1] else "")
            axis.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel(titles[metric], fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> int:
    """Run the study; 0 if everything that could be checked held."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name in ("clips", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--expert", type=Path)
    parser.add_argument("--weights", action="append", default=[])
    given = parser.parse_args()
    results = given.out / "results"
    prepare(given.clips, results / "targets", PrepareOptions("folder"))
    folders = degrade(given.clips, results / "targets", given.out / "videos")
    options = {"metrics": MetricOptions(given.expert), "weights": WeightOptions(tuple(given.weights))}
    result = evaluate_videos(folders, given.clips, results, **options)
    board = result.leaderboard.set_index("method").loc[["ground_truth", "repeated_frame", *folders]]
    found = checks(board, result.rows)
    answers = {True: "held", False: "**did not hold**", None: "could not be checked"}
    (given.out / "table.md").write_text(_table(board))
    (given.out / "checks.md").write_text("".join(f"- {what}: {answers[holds]}\n" for what, holds in found))
    _plot(board, given.out / "curves.png")
    sys.stdout.write((given.out / "checks.md").read_text())
    return int(any(holds is False for _, holds in found))


if __name__ == "__main__":
    sys.exit(main())
