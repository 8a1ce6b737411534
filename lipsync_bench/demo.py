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
from datamodules.audio import frame_mels
from datamodules.clip import Clip
from datamodules.crops import cut
from datamodules.prepare import prepare
from datamodules.synthetic import make_corpus
from datamodules.video import FPS, read_frames
from lipsync_bench.evaluation.candidates import RepeatedFrame, TargetChunk
from lipsync_bench.evaluation.evaluate import evaluate_dataset
from lipsync_bench.evaluation.leaderboard import rich_table
from lipsync_bench.evaluation.protocol import PAIRED_FACE_BOX
from lipsync_bench.inference import lip_sync
from lipsync_bench.preview import write_preview
from models import load_method
from models.checkpoints import load_module
from models.sync_expert import SyncExpertModule

SPEAKERS = 6
CLIPS_PER_SPEAKER = 6
SECONDS = 3.0
HELD_OUT_WINDOWS = 192
EXPERIMENTS = Path(lipsync_bench.__file__).parent.parent / "experiments"

_log = logging.getLogger(__name__)

__all__ = ["run_demo"]


def _fit(out: Path, method: str, seed: int) -> Path:
    """Train one method with `lightning fit` and its synthetic overlay, in the demo's folder; returns the checkpoint."""
    checkpoint = out / "runs" / method / "last.ckpt"
    done = checkpoint.with_name("done")
    if done.is_file():
        return checkpoint
    command = [sys.executable, "-m", "lipsync_bench", "fit"]
    for file in (EXPERIMENTS / f"{method}.yaml", EXPERIMENTS / "synthetic" / f"{method}.yaml"):
        command += ["-c", str(file.resolve())]
    command += [f"--seed_everything={seed}", "--data.init_args.root=clips", f"--data.init_args.seed={seed}"]
    if checkpoint.is_file():
        command.append(f"--ckpt_path={checkpoint.relative_to(out)}")
    _log.info("$ cd %s; python %s", out, " ".join(command[1:]))
    subprocess.run(command, check=True, cwd=out)  # its paths, such as runs/wav2lip, lie in the demo's folder then
    done.touch()
    return checkpoint


def _expert_loss(expert: Path, clips: Path, seed: int) -> float:
    """Held-out loss of the expert: BCE over windows of the test clips, which training and validation never saw."""
    data = Synthetic(root=clips, window="expert", batch_size=32, num_workers=0, val_length=HELD_OUT_WINDOWS, seed=seed)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    module = load_module(expert, [SyncExpertModule])
    return float(trainer.test(module, datamodule=data, verbose=False)[0]["test/loss"])


def _shift_table(expert: Path, clips: list[Path], shifts: tuple[int, ...] = (-5, -2, 0, 2, 5)) -> pd.DataFrame:
    """Offset that the expert finds when the sound of held-out clips is moved by k frames."""
    from metrics.expert_sync import expert_curve

    network = SyncExpertModule.load_network(expert)
    rows = []
    for path in clips:
        with Clip(path) as clip:
            faces = torch.from_numpy(clip.frames(size_hw=(96, 96))).permute(0, 3, 1, 2).float() / 255
            mel = clip.mel()
        for shift in shifts:
            start = round(shift * 80 / FPS)
            moved = mel[:, start:] if shift > 0 else np.pad(mel, ((0, 0), (-start, 0)), constant_values=-4.0)
            _, means = expert_curve(network, faces, torch.from_numpy(np.ascontiguousarray(moved)))
            found = len(means) // 2 - int(means.nan_to_num(-1).argmax())
            rows.append({"clip": path.stem, "shift": shift, "found": found})
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
    baseline = RepeatedFrame()

    def repeated() -> Iterator[np.ndarray]:
        for index, frame in enumerate(frames()):
            part = slice(index, index + 1)
            yield baseline.frames(TargetChunk("", index, [frame], boxes[part], mels[part], reference), PAIRED_FACE_BOX)[
                0
            ]

    generated = lip_sync(load_method(checkpoint, "cpu"), frames(), boxes, mels, reference)
    columns = {"ground truth": frames(), "repeated frame": repeated(), "Wav2Lip (small, just trained)": generated}
    write_preview(path, columns, samples)


def _stage(console: Console, title: str, run: Callable[[], object]) -> object:
    start = time.perf_counter()
    console.rule(title)
    value = run()
    console.print(f"[dim]{time.perf_counter() - start:.0f} s[/dim]")
    return value


def run_demo(out: Path, *, seed: int = 0, overwrite: bool = False) -> None:
    """Corpus, preparation, sync expert, Wav2Lip at small width, evaluation, table and preview video.

    Args:
        out: Folder for everything; gone on with if it is there.
        seed: Of the corpus and of training; the same seed gives the same numbers on the same machine.
        overwrite: Empty the folder first.

    Raises:
        ValueError: The folder holds a demo with another seed.
    """
    console = Console()
    started = time.perf_counter()
    if overwrite and out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    _check_seed(out, seed)
    videos, clips = out / "videos", out / "clips"
    _stage(
        console,
        "1/6 corpus: talking heads with true sync",
        lambda: make_corpus(videos, speakers=SPEAKERS, clips_per_speaker=CLIPS_PER_SPEAKER, seconds=SECONDS, seed=seed),
    )
    report = prepare(videos, clips, "synthetic")
    console.rule("2/6 preparation: faces, crops, mel")
    console.print(report.summary())
    expert = _stage(console, "3/6 lip-sync expert", lambda: _fit(out, "sync_expert", seed))
    assert isinstance(expert, Path)
    wav2lip = _stage(console, "4/6 Wav2Lip at small width", lambda: _fit(out, "wav2lip", seed))
    assert isinstance(wav2lip, Path)
    data = Synthetic(root=clips)
    test_clips = data.clips("test")
    loss, shifts = _expert_loss(expert, clips, seed), _shift_table(expert, test_clips)
    console.rule("5/6 evaluation")
    result = evaluate_dataset("synthetic", out / "results", root=clips, methods={"wav2lip": wav2lip}, expert=expert)
    _stage(
        console,
        "6/6 preview",
        lambda: _preview(out / "preview.mp4", test_clips[0], data.source_root, wav2lip),
    )
    console.print(rich_table(result.leaderboard, "embedded corpus, held-out clips"))
    console.print(
        "expert_* columns: judged by the expert just trained here, on this corpus. They are not LSE; "
        "LSE appears with the official SyncNet weights: bench evaluate --syncnet syncnet_v2.model"
    )
    right = shifts[shifts["found"] == shifts["shift"]]
    console.print(f"held-out loss of the expert: {loss:.3f} (chance 0.693)")
    console.print(f"sound moved by k frames, found as k: {len(right)} of {len(shifts)}")
    shifts.to_csv(out / "results" / "shifts.csv", index=False)
    summary = {"expert_loss": loss, "shifts_found": len(right), "shifts": len(shifts)}
    (out / "results" / "demo.json").write_text(json.dumps(summary, indent=2) + "\n")
    console.print(
        f"table {result.folder / 'leaderboard.csv'}   rows {result.folder / 'clips.csv'}   video {out / 'preview.mp4'}"
    )
    console.print(f"[dim]{time.perf_counter() - started:.0f} s in all[/dim]")


def _check_seed(out: Path, seed: int) -> None:
    stamp = out / "demo.json"
    if stamp.is_file() and json.loads(stamp.read_text())["seed"] != seed:
        raise ValueError(
            f"{out} holds a demo with another seed. Expected seed {seed}. Use --overwrite or another --out."
        )
    stamp.write_text(json.dumps({"seed": seed}) + "\n")
