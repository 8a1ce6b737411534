# SPDX-License-Identifier: Apache-2.0
"""`bench demo`: every stage of the suite on the embedded corpus, with the commands a user would type.

Each stage leaves its result in the folder and is not done again when it is there; a training that was interrupted goes
on from its last checkpoint.
"""

import json
import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from rich.console import Console

import lipsync_bench
from datamodules import Synthetic
from datamodules.audio import SAMPLE_RATE, frame_mels, mel_spectrogram, to_float
from datamodules.clip import Clip
from datamodules.crops import cut
from datamodules.files import write_atomic
from datamodules.prepare import prepare
from datamodules.synthetic import make_corpus
from datamodules.video import FPS, read_frames
from lipsync_bench.evaluation.evaluate import evaluate_dataset
from lipsync_bench.evaluation.leaderboard import rich_table
from lipsync_bench.inference import lip_sync, paste_crop
from lipsync_bench.preview import write_preview
from metrics.expert_sync import expert_curve
from models import load_method
from models.checkpoints import load_module
from models.sync_expert import SyncExpertModule

SPEAKERS = 6
CLIPS_PER_SPEAKER = 8
SECONDS = 3.0
HELD_OUT_WINDOWS = 384
SHIFTS_FRAMES = (-5, -2, 0, 2, 5)
EXPERIMENTS = Path(lipsync_bench.__file__).parent.parent / "experiments"

_log = logging.getLogger(__name__)

__all__ = ["run_demo"]


def _fit(out: Path, method: str, seed: int) -> None:
    """Train one method with `lightning fit` and its synthetic overlay, in the demo's folder."""
    folder = out / "runs" / method
    done, last = folder / "done", folder / "last.ckpt"
    if done.is_file():
        return
    command = [sys.executable, "-m", "lipsync_bench", "fit"]
    for file in (EXPERIMENTS / f"{method}.yaml", EXPERIMENTS / "synthetic" / f"{method}.yaml"):
        command += ["-c", str(file.resolve())]
    command += [f"--seed_everything={seed}", "--data.init_args.root=clips", f"--data.init_args.seed={seed}"]
    if last.is_file():
        command.append(f"--ckpt_path={last.relative_to(out)}")
    _log.info("$ cd %s; python %s", out, " ".join(command[1:]))
    subprocess.run(command, check=True, cwd=out)  # its paths, such as runs/wav2lip, lie in the demo's folder then
    done.touch()


def _expert_loss(expert: Path, clips: Path, seed: int) -> float:
    """Held-out loss of the expert: BCE over windows of the test clips, which training and validation never saw."""
    data = Synthetic(root=clips, window="expert", batch_size=32, num_workers=0, val_length=HELD_OUT_WINDOWS, seed=seed)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    module = load_module(expert, [SyncExpertModule])
    return float(trainer.test(module, datamodule=data, verbose=False)[0]["test/loss"])


def _shift_table(expert: Path, clips: list[Path]) -> pd.DataFrame:
    """Offset that the expert finds when the sound of held-out clips is moved by k frames; positive: earlier."""
    network = SyncExpertModule.load_network(expert)
    rows = []
    for path in clips:
        with Clip(path) as clip:
            faces = torch.from_numpy(clip.frames(size_hw=(96, 96))).permute(0, 3, 1, 2).float() / 255
            sound = to_float(clip.wav())
        for shift in SHIFTS_FRAMES:
            samples = shift * round(SAMPLE_RATE / FPS)
            moved = sound[samples:] if shift >= 0 else np.concatenate([np.zeros(-samples, np.float32), sound])
            _, means = expert_curve(network, faces, torch.from_numpy(mel_spectrogram(moved)))
            found = len(means) // 2 - int(means.nan_to_num(-1).argmax())
            rows.append({"clip": f"{path.parent.name}/{path.stem}", "shift_frames": shift, "found_frames": found})
    return pd.DataFrame(rows)


def _preview(path: Path, clip_file: Path, source_root: Path, checkpoint: Path) -> None:
    """Truth, repeated frame and Wav2Lip of one test clip side by side."""
    with Clip(clip_file) as clip:
        source = source_root / clip.header.source
        boxes, mels, samples = clip.boxes(), frame_mels(clip.mel(), len(clip)), clip.wav()

    def frames() -> Iterator[np.ndarray]:
        return islice(read_frames(source, FPS), len(boxes))

    first = next(frames())
    reference = cut(first, boxes[0])
    repeated = (paste_crop(frame, reference, box) for frame, box in zip(frames(), boxes, strict=True))
    generated = lip_sync(load_method(checkpoint, "cpu"), frames(), boxes, mels, reference)
    columns = {"ground truth": frames(), "repeated frame": repeated, "Wav2Lip (small, just trained)": generated}
    write_preview(path, columns, samples)


def _stage(console: Console, title: str, run: Callable[[], object]) -> None:
    start = time.perf_counter()
    console.rule(title)
    run()
    console.print(f"[dim]{time.perf_counter() - start:.0f} s[/dim]")


def run_demo(out: Path, *, seed: int = 0, overwrite: bool = False) -> None:
    """Corpus, preparation, sync expert, Wav2Lip at small width, evaluation, table and preview video.

    Args:
        out: Folder for everything; gone on with if it is there.
        seed: Of the corpus and of training; the same seed gives the same numbers on the same machine.
        overwrite: Empty the folder first.

    Raises:
        ValueError: The folder holds something else, or a demo with another seed.
    """
    console = Console()
    started = time.perf_counter()
    _claim(out, seed, overwrite)
    videos, clips = out / "videos", out / "clips"
    _stage(
        console,
        "1/6 corpus: talking heads with true sync",
        lambda: make_corpus(videos, speakers=SPEAKERS, clips_per_speaker=CLIPS_PER_SPEAKER, seconds=SECONDS, seed=seed),
    )
    report = prepare(videos, clips, "synthetic")
    console.rule("2/6 preparation: faces, crops, mel")
    console.print(report.summary())
    _stage(console, "3/6 lip-sync expert", lambda: _fit(out, "sync_expert", seed))
    _stage(console, "4/6 Wav2Lip at small width", lambda: _fit(out, "wav2lip", seed))
    expert, wav2lip = out / "runs/sync_expert/best.ckpt", out / "runs/wav2lip/last.ckpt"
    data = Synthetic(root=clips)
    test_clips = data.clips("test")
    console.rule("5/6 evaluation")
    result = evaluate_dataset("synthetic", out / "results", root=clips, methods={"wav2lip": wav2lip}, expert=expert)
    _stage(console, "6/6 preview", lambda: _preview(out / "preview.mp4", test_clips[0], data.source_root, wav2lip))
    loss, shifts = _expert_loss(expert, clips, seed), _shift_table(expert, test_clips)
    write_atomic(out / "results" / "shifts.csv", shifts.to_csv(index=False))

    console.print(rich_table(result.leaderboard, "embedded corpus, held-out clips"))
    console.print(
        "Expert rows: judged by the expert just trained here, on this corpus. They are not LSE; LSE appears with the "
        "official SyncNet weights: bench evaluate --syncnet syncnet_v2.model"
    )
    right = int((shifts["found_frames"] == shifts["shift_frames"]).sum())
    console.print(f"held-out loss of the expert: {loss:.3f} (chance is 0.693)")
    console.print(f"sound of held-out clips moved by k frames and found as k: {right} of {len(shifts)}")
    for title, file in (("table", "results/leaderboard.csv"), ("rows", "results/clips.csv"), ("video", "preview.mp4")):
        console.print(f"{title}: {out / file}")
    console.print(f"[dim]{time.perf_counter() - started:.0f} s in all[/dim]")


def _claim(out: Path, seed: int, overwrite: bool) -> None:
    """Make the folder a demo's, or see that it is one with this seed; never touch anything else."""
    stamp = out / "demo.json"
    if out.exists() and any(out.iterdir()) and not stamp.is_file():
        raise ValueError(f"{out} is not empty and holds no demo. Expected an empty folder. Choose another with --out.")
    if overwrite and out.exists():
        shutil.rmtree(out)
    elif stamp.is_file() and json.loads(stamp.read_text())["seed"] != seed:
        raise ValueError(f"{out} holds a demo with another seed. Expected {seed}. Use --overwrite or another --out.")
    write_atomic(stamp, json.dumps({"seed": seed}) + "\n")
