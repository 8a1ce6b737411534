# SPDX-License-Identifier: Apache-2.0
"""Prepared folders that tests write: clips of random images and audio, split lists, a manifest."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import simplejpeg

from lipsync_bench.datamodules.clips.clip import ClipHeader, write_clip
from lipsync_bench.datamodules.datasets.splits import Split

__all__ = ["write_folder", "write_random"]


def write_random(root: Path, name: str, frames: int = 20, mel_columns: int = 64) -> Path:
    """A clip of random images and sound that are its own."""
    rng = np.random.default_rng([ord(letter) for letter in name])
    images = rng.integers(0, 256, (frames, 24, 20, 3), np.uint8)
    path = root / f"{name}.safetensors"
    write_clip(
        path,
        ClipHeader(
            name, name.split("/")[0], f"{name}.mp4", "0" * 64, 25.0, 64, 64, "none", "0", "mesh", frames, frames
        ),
        jpegs=[simplejpeg.encode_jpeg(image) for image in images],
        mel=rng.uniform(-4, 4, (mel_columns, 80)).astype(np.float32),
        wav=np.zeros(640 * frames, np.int16),
        boxes=np.zeros((frames, 4), np.float32),
        landmarks=np.zeros((frames, 68, 2), np.float32),
        mesh=np.zeros((frames, 478, 3), np.float32),
    )
    return path


def write_folder(root: Path, names: Iterable[str], lists: Mapping[Split, list[str]] | None = None) -> Path:
    for name in names:
        write_random(root, name)
    (root / "manifest.json").write_text(json.dumps({"source_root": str(root.parent)}))
    if lists is not None:
        (root / "splits").mkdir(exist_ok=True)
        for split, ids in lists.items():
            (root / "splits" / f"{split}.txt").write_text("".join(f"{name}\n" for name in ids))
    return root
