# SPDX-License-Identifier: Apache-2.0
"""`bench demo`: every stage of the suite on the synthetic corpus, with the commands a user would type.

Each stage leaves its result in the folder and is not done again when it is there; a training that was interrupted is
resumed from its last checkpoint.
"""

import json
import logging
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from rich.console import Console

from lipsync_bench.datamodules import Synthetic
from lipsync_bench.datamodules.clips.boxes import clip_geometry
from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.datasets.synthetic import make_corpus
from lipsync_bench.datamodules.faces.crop_rules.boxes import BoxCut
from lipsync_bench.datamodules.files.disk import write_atomic
from lipsync_bench.datamodules.files.texts import read_json, read_yaml
from lipsync_bench.datamodules.media.audio import SAMPLE_RATE, frame_mels, mel_spectrogram, to_float
from lipsync_bench.datamodules.media.video import FPS, read_frames
from lipsync_bench.datamodules.prepare.options import PrepareOptions
from lipsync_bench.datamodules.prepare.prepare import prepare
from lipsync_bench.datamodules.recipes.values import MelPadding
from lipsync_bench.datamodules.weights.store import Store
from lipsync_bench.evaluation.evaluate import evaluate_dataset
from lipsync_bench.evaluation.options import Inputs, MetricOptions, Running
from lipsync_bench.experiment_files import experiment_file, named_file
from lipsync_bench.inference.base_frames import make_base_frames
from lipsync_bench.inference.dub import dub_frames
from lipsync_bench.inference.preview import write_preview
from lipsync_bench.inference.sessions import Sessions
from lipsync_bench.metrics.sync.expert import expert_curve
from lipsync_bench.models import list_methods, load_expert, load_method
from lipsync_bench.models.core.session import Video
from lipsync_bench.models.wav2lip.sync_expert import SyncExpertModule
from lipsync_bench.recipes import recipe_named
from lipsync_bench.results.csv_tables import csv_text
from lipsync_bench.results.leaderboard import rich_table
from lipsync_bench.runs import STAGE, run_checkpoint
from lipsync_bench.weights.methods import PRETRAINED, PRETRAINED_FILE

SPEAKERS = 6
CLIPS_PER_SPEAKER = 8
SECONDS = 3.0
HELD_OUT_WINDOWS = 384
SHIFTS_FRAMES = (-5, -2, 0, 2, 5)
EXPERT = "sync_expert"
"""The run of the expert for methods that are trained without one."""

_log = logging.getLogger(__name__)

__all__ = ["run_demo", "trainings"]


def _names(run: str) -> list[str]:
    """The YAMLs of a run as they are typed: its own, and its overlay for the synthetic corpus.

    A variant, NAME_VARIANT, has those of NAME and an overlay of its own for the corpus.
    """
    base = [run] if experiment_file("", run) is not None or "_" not in run else _names(run.rpartition("_")[0])
    return [*base, f"synthetic/{run}"]


def _files(run: str) -> list[Path]:
    return [named_file("", name, "-c") for name in _names(run)]


def _arguments(run: str, part: str) -> dict[str, Any]:
    """What a run's YAML and its overlay say of the constructor of its "model" or "data"; `class_path` is the class."""
    merged: dict[str, Any] = {}
    for file in _files(run):
        node = read_yaml(file, "a training run", "See experiments/").get(part, {})
        merged |= {**(node.get("init_args") or {}), "class_path": node.get("class_path", merged.get("class_path"))}
    return merged


def trainings(method: str) -> list[str]:
    """What a demo trains, in order: each method of that name, after the runs whose checkpoints its YAML names.

    An expert is always among them, because it also scores the held-out clips.

    Args:
        method: A name of `list_methods()`, or what comes before the underscore of several.

    Raises:
        ValueError: There is none with an overlay for the synthetic corpus.
    """
    known = [name for name in list_methods() if all(experiment_file(kind, name) for kind in ("", "synthetic"))]
    runs: list[str] = []

    def add(run: str) -> None:
        for value in _arguments(run, "model").values():
            if isinstance(value, str) and (named := re.match(rf"{STAGE}(\w+)/", value)):
                add(named[1])
        if run not in runs:
            runs.append(run)

    for name in known:
        if name == method or name.startswith(f"{method}_"):
            add(name)
    if not runs:
        raise ValueError(f"no demo of {method!r}. Expected one of {', '.join(known)}. Set --method")
    return runs if any(map(_is_expert, runs)) else [EXPERT, *runs]


def _class(run: str) -> type:
    package, _, name = _arguments(run, "model")["class_path"].rpartition(".")
    kind = getattr(import_module(package), name)
    assert isinstance(kind, type)
    return kind


def _is_expert(run: str) -> bool:
    return issubclass(_class(run), SyncExpertModule)


def _fit(out: Path, method: str, seed: int) -> None:
    """Train one network with `lightning fit` and its synthetic overlay, in the demo's folder."""
    folder = out / "runs" / method
    done = folder / "done"
    if done.is_file():
        return
    command = [sys.executable, "-m", "lipsync_bench", "fit", "--run", method]
    for file in _files(method):
        command += ["-c", str(file.resolve())]
    clips = "clips.init_args." if "clips" in _arguments(method, "data") else ""  # its data module takes another's clips
    command += [f"--seed_everything={seed}", f"--data.init_args.{clips}root=clips", f"--data.init_args.seed={seed}"]
    _log.info("$ cd %s; python %s", out, " ".join(command[1:]))
    subprocess.run(command, check=True, cwd=out)  # its paths, such as runs/wav2lip, lie in the demo's folder then
    done.touch()


def _base_frames(out: Path) -> None:
    """What HyperLips-HR is trained on; kept where they are those of the base just trained."""
    report = make_base_frames(_weights(out, "hyperlips_base"), out / "clips")
    _log.info("%s", report.summary())


def _weights(out: Path, method: str) -> Path:
    return run_checkpoint(out / "runs" / method)


def _expert_loss(expert: Path, clips: Path, seed: int) -> float:
    """Held-out loss of the expert: BCE over windows of the test clips, which training and validation never saw."""
    module = load_expert(expert)
    data = Synthetic(
        root=clips, batch_size=32, num_workers=0,
        val_length=HELD_OUT_WINDOWS, seed=seed,
    )  # fmt: skip
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    return float(trainer.test(module, datamodule=data, verbose=False)[0]["test/loss"])


def _shift_table(expert: Path, clips: list[Path]) -> pd.DataFrame:
    """Offset that the expert finds when the audio of held-out clips is moved by k frames; positive: earlier."""
    module = load_expert(expert)
    size_hw = module.image_size, module.image_size
    rows = []
    for path in clips:
        with Clip(path) as clip:
            faces = torch.from_numpy(clip.frames(size_hw=size_hw)).permute(0, 3, 1, 2).float() / 255
            audio = to_float(clip.wav())
        for shift in SHIFTS_FRAMES:
            samples = shift * round(SAMPLE_RATE / FPS)
            moved = audio[samples:] if shift >= 0 else np.concatenate([np.zeros(-samples, np.float32), audio])
            _, means = expert_curve(module.network, faces, torch.from_numpy(mel_spectrogram(moved)))
            found = len(means) // 2 - int(means.nan_to_num(-1).argmax())
            rows.append({"clip": f"{path.parent.name}/{path.stem}", "shift_frames": shift, "found_frames": found})
    return pd.DataFrame(rows)


def _preview(path: Path, clip_file: Path, source_root: Path, checkpoints: Mapping[str, Path]) -> None:
    """Ground truth, repeated frame and the methods on one test clip, side by side."""
    with Clip(clip_file) as clip:
        source = source_root / clip.header.source
        boxes, samples, geometry = clip.boxes(), clip.wav(), clip_geometry(clip)
        mels = {padding: clip.mel(padding) for padding in get_args(MelPadding)}

    def frames() -> Iterator[np.ndarray]:
        return islice(read_frames(source, FPS), len(boxes))

    def dubbed(checkpoint: Path) -> Iterator[np.ndarray]:
        module = load_method(checkpoint, "cpu")
        recipe = module.recipe
        mel = mels[recipe.mel_padding]
        video = Video(geometry, lambda first, count: frame_mels(mel, count, FPS, first), frames)
        return dub_frames(Sessions(module, recipe, Store()).of(video), frames())

    cuts = [BoxCut((x1, y1, x2, y2)) for x1, y1, x2, y2 in boxes.astype(int).tolist()]
    reference = cuts[0].crop(next(frames()))
    columns: dict[str, Iterable[np.ndarray]] = {
        "ground truth": frames(),
        "repeated frame": (cut.paste(frame, reference) for frame, cut in zip(frames(), cuts, strict=True)),
        **{
            f"{name}{'' if checkpoint == PRETRAINED_FILE else ' (small)'}": dubbed(checkpoint)
            for name, checkpoint in checkpoints.items()
        },
    }
    write_preview(path, columns, samples)


def _stage(console: Console, title: str, run: Callable[[], object]) -> None:
    start = time.perf_counter()
    console.rule(title)
    run()
    console.print(f"[dim]{time.perf_counter() - start:.0f} s[/dim]")


def run_demo(out: Path, *, method: str = "wav2lip", seed: int = 0, overwrite: bool = False) -> None:
    """Corpus, preparation, sync expert, a method at small width, evaluation, table and preview video.

    Methods share the folder: what one has made, the corpus and the expert say, the next does not make again.

    Args:
        out: Folder for everything; resumed if it is there.
        method: As for `trainings`: "hyperlips" has both its stages and an expert of its own.
        seed: Of the corpus and of training; the same seed gives the same numbers on the same machine.
        overwrite: Empty the folder first.

    Raises:
        ValueError: The folder holds something else, or a demo with another seed; or an unknown method.
    """
    console = Console()
    started = time.perf_counter()
    runs = trainings(method)
    _claim(out, seed, overwrite)
    videos, clips, results = out / "videos", out / "clips", out / "results" / method
    recipes = [recipe_named("+".join(_names(run))) for run in runs]
    stages: list[tuple[str, Callable[[], object]]] = [
        ("corpus: talking heads with true sync", lambda: make_corpus(
            videos, speakers=SPEAKERS, clips_per_speaker=CLIPS_PER_SPEAKER, seconds=SECONDS, seed=seed
        )),
        ("preparation: faces, crops, mel", lambda: _log.info(
            "%s", prepare(videos, clips, PrepareOptions("synthetic"), recipes=recipes).summary()
        )),
    ]  # fmt: skip
    for name in runs:
        if name == "hyperlips_hr":
            stages.append(("base frames: what stage 1 makes of every clip", partial(_base_frames, out)))
        stages.append((f"training: {name}", partial(_fit, out, name, seed)))
    expert = next(filter(_is_expert, runs))
    preview = out / f"preview_{method}.mp4"
    boards: list[pd.DataFrame] = []

    def trained() -> dict[str, Path]:
        return {name: _weights(out, name) for name in runs if _class(name) in list_methods().values()}

    def shown() -> dict[str, Path]:  # beside its like: the weights of the package, which would take time to evaluate
        return trained() | ({PRETRAINED: PRETRAINED_FILE} if PRETRAINED_FILE.stem in runs else {})

    stages += [
        ("evaluation", lambda: boards.append(
            evaluate_dataset(
                "synthetic",
                results,
                inputs=Inputs(clips, trained()),
                metrics=MetricOptions(expert=_weights(out, expert)),
                running=Running(save_videos=True),
            ).leaderboard
        )),
        ("preview", lambda: _preview(preview, *_first_test_clip(clips), shown())),
    ]  # fmt: skip
    for number, (title, run) in enumerate(stages, 1):
        _stage(console, f"{number}/{len(stages)} {title}", run)
    weights = _weights(out, expert)
    loss, shifts = _expert_loss(weights, clips, seed), _shift_table(weights, Synthetic(root=clips).clips("test"))
    write_atomic(results / "shifts.csv", csv_text(shifts))

    console.print(rich_table(boards[0], "synthetic corpus, held-out clips"))
    console.print(
        "Expert rows: scores of the expert just trained here, on this corpus. They are not LSE; LSE appears with the "
        "official SyncNet weights: bench weights fetch syncnet_v2"
    )
    right = int((shifts["found_frames"] == shifts["shift_frames"]).sum())
    console.print(f"held-out loss of the expert: {loss:.3f} (chance is 0.693)")
    console.print(f"audio of held-out clips moved by k frames and found as k: {right} of {len(shifts)}")
    for title, file in (("table", results / "leaderboard.csv"), ("rows", results / "clips.csv"), ("video", preview)):
        console.print(f"{title}: {file}")
    console.print(f"[dim]{time.perf_counter() - started:.0f} s in all[/dim]")


def _first_test_clip(clips: Path) -> tuple[Path, Path]:
    data = Synthetic(root=clips)
    return data.clips("test")[0], data.source_root


def _claim(out: Path, seed: int, overwrite: bool) -> None:
    """Make the folder a demo's, or see that it is one with this seed; never touch anything else."""
    stamp = out / "demo.json"
    if out.exists() and any(out.iterdir()) and not stamp.is_file():
        raise ValueError(f"{out} is not empty and holds no demo. Expected an empty folder. Choose another with --out.")
    if overwrite and out.exists():
        shutil.rmtree(out)
    elif stamp.is_file() and read_json(stamp, "a demo's seed", "Use --overwrite").get("seed") != seed:
        raise ValueError(f"{out} holds a demo with another seed. Expected {seed}. Use --overwrite or another --out.")
    write_atomic(stamp, json.dumps({"seed": seed}) + "\n")
