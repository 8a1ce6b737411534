# SPDX-License-Identifier: Apache-2.0
"""What LipFormer's codebooks make of held-out faces, each fed by its own recipe, for `bench evaluate --pred` to score.

    python -m benchmarks.codebook_faces --clips demo/clips --out OUT aligned=CKPT mesh=CKPT

Writes OUT/NAME/, the test clips with the reconstructed faces pasted into their frames; OUT/NAME_cut/, the same faces
cut and pasted without a network; and OUT/faces.jpg: three people's frame with the widest mouth, the ground truth on the
left and each codebook's beside it. Prints PSNR and SSIM of the faces as each network sees them.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from lipsync_bench.datamodules import Synthetic
from lipsync_bench.datamodules.clips.boxes import clip_geometry
from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.media.audio import to_float
from lipsync_bench.datamodules.media.video import FPS, VideoWriter, read_frames
from lipsync_bench.metrics.image.psnr import psnr
from lipsync_bench.metrics.image.ssim import ssim
from lipsync_bench.models.core.checkpoints import load_module
from lipsync_bench.models.lipformer import LipFormerCodebook

NEARLY_LOSSLESS = 1  # crf
PEOPLE, CELL_PX, MARGIN = 3, 176, 0.15  # of the picture; the margin about a face is a share of its height

__all__: list[str] = []


def _tensor(faces: Sequence[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(faces)).permute(0, 3, 1, 2)


def _reconstructed(module: LipFormerCodebook, faces: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    with torch.inference_mode():
        for face in faces:
            image = module(_tensor([face]).float() / 255)[0].clamp(0, 1)
            yield (image * 255).round().byte().permute(1, 2, 0).numpy()


def _cell(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    middle, half = (box[:2] + box[2:]) / 2, (0.5 + MARGIN) * (box[3] - box[1])
    (x1, y1), (x2, y2) = (np.rint(middle + side * half).astype(int).clip(0) for side in (-1, 1))
    return cv2.resize(frame[y1:y2, x1:x2], (CELL_PX, CELL_PX), interpolation=cv2.INTER_CUBIC)


def _write(path: Path, frames: Sequence[np.ndarray], audio: np.ndarray) -> None:
    with VideoWriter(path, FPS, frames[0].shape[:2], audio=audio, crf=NEARLY_LOSSLESS) as writer:
        for frame in frames:
            writer.write(frame)


def main() -> int:
    """Reconstruct the test clips."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for option in ("clips", "out"):
        parser.add_argument(f"--{option}", type=Path, required=True)
    parser.add_argument("checkpoints", nargs="+", metavar="NAME=CKPT")
    given = parser.parse_args()
    named = (text.partition("=") for text in given.checkpoints)
    modules = {name: load_module(Path(path), [LipFormerCodebook]) for name, _, path in named}
    data, scores, picture = Synthetic(root=given.clips), {name: [] for name in modules}, []
    for clip_file in data.clips("test"):
        with Clip(clip_file) as clip:
            source, boxes, lips, audio = clip.header.source, clip.boxes(), clip.landmarks(), to_float(clip.wav())
            geometry = clip_geometry(clip)
        frames = list(islice(read_frames(data.source_root / source, FPS), len(boxes)))
        widest = int(np.linalg.norm(lips[:, 62] - lips[:, 66], axis=1).argmax())
        row = [_cell(frames[widest], boxes[widest])]
        for name, module in modules.items():
            recipe = module.recipe
            cuts = recipe.crop.cuts(geometry)
            faces = [cut.face(frame, recipe.size_hw) for cut, frame in zip(cuts, frames, strict=True)]
            made = list(_reconstructed(module, faces))
            pair = _tensor(made), _tensor(faces)
            scores[name].append([float(metric(*pair).mean()) for metric in (psnr, ssim)])
            for variant, pictures in ((f"{name}_cut", faces), (name, made)):
                pasted = [cut.paste(*pair) for cut, *pair in zip(cuts, frames, pictures, strict=True)]
                _write((given.out / variant / source).with_suffix(".mp4"), pasted, audio)
            row.append(_cell(pasted[widest], boxes[widest]))
        picture.append(np.hstack(row))
    Image.fromarray(np.vstack(picture[:PEOPLE])).save(given.out / "faces.jpg", quality=90, optimize=True)
    for name, found in scores.items():
        mean_psnr, mean_ssim = np.mean(found, axis=0)
        sys.stdout.write(f"{name} ({modules[name].recipe.text()}): PSNR {mean_psnr:.2f} dB, SSIM {mean_ssim:.3f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
