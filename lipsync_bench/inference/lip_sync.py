# SPDX-License-Identifier: Apache-2.0
"""From a stream of video frames, boxes and mel windows to a stream of lip-synced frames.

Evaluation and dubbing share this code; of a method it calls only `generate`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import cv2
import numpy as np
import torch

from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.faces.crops import cut
from lipsync_bench.models import TalkingFaceModule

PasteFace = Callable[[int, np.ndarray, np.ndarray], np.ndarray]
"""(number of the frame, uint8 RGB frame, generated face as for `paste`) -> the changed frame."""

__all__ = ["PasteFace", "generate_faces", "lip_sync", "paste", "paste_crop", "to_batch"]


def to_batch(crops: Iterable[np.ndarray], size_px: int) -> torch.Tensor:
    """Crops of any size to one network batch.

    Args:
        crops: uint8 RGB images.
        size_px: Side of the square network input; bilinear on uint8, aspect not kept, as published.

    Returns:
        float32 (T, 3, size_px, size_px) in [0, 1].
    """
    resized = [cv2.resize(crop, (size_px, size_px), interpolation=cv2.INTER_LINEAR) for crop in crops]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float().div_(255)


def generate_faces(
    module: TalkingFaceModule,
    crops: Sequence[np.ndarray],
    frame_mels: np.ndarray,
    reference: np.ndarray | None = None,
) -> np.ndarray:
    """The generated faces of one batch.

    Args:
        module: A method in evaluation mode, on its device.
        crops: N uint8 RGB faces of any size.
        frame_mels: float32 (N, 1, 80, 16).
        reference: uint8 RGB crop used as reference of all frames; None: each frame's own crop.

    Returns:
        float32 (N, 3, h, w) in [0, 1].

    Raises:
        MediaError: a generated value is not finite.
    """
    faces = to_batch(crops, module.image_size)
    references = faces if reference is None else to_batch([reference], module.image_size).expand_as(faces)
    mels = torch.from_numpy(np.ascontiguousarray(frame_mels))
    device = module.device
    with torch.inference_mode():
        frames = module.generate(mels.to(device), faces.to(device), references.to(device)).float().cpu().numpy()
    finite = np.isfinite(frames).all(axis=(1, 2, 3))
    if not finite.all():
        raise MediaError(
            f"{type(module).__name__}: {int((~finite).sum())} of {len(frames)} generated faces have values that are "
            "not finite. Expected numbers between 0 and 1. Use another checkpoint, or leave out this clip"
        )
    return frames


def paste(frame: np.ndarray, generated: np.ndarray, box: np.ndarray) -> np.ndarray:
    """A copy of the frame with a generated face over the box, hard edges, as the official scripts paste it.

    Args:
        frame: uint8 (H, W, 3).
        generated: float32 (3, h, w) in [0, 1]; scaled to 0..255 and truncated, then resized bilinearly.
        box: x1, y1, x2, y2 in pixels inside the frame.
    """
    return paste_crop(frame, (generated.transpose(1, 2, 0) * 255).astype(np.uint8), box)  # the published truncation


def paste_crop(frame: np.ndarray, crop: np.ndarray, box: np.ndarray) -> np.ndarray:
    """As `paste`, for a uint8 image (h, w, 3)."""
    x1, y1, x2, y2 = (int(v) for v in np.round(box))
    out = frame.copy()
    out[y1:y2, x1:x2] = cv2.resize(crop, (x2 - x1, y2 - y1), interpolation=cv2.INTER_LINEAR)
    return out


def lip_sync(
    module: TalkingFaceModule,
    frames: Iterable[np.ndarray],
    boxes: np.ndarray,
    frame_mels: np.ndarray,
    reference: np.ndarray | None = None,
    batch_frames: int = 32,
    paste_face: PasteFace | None = None,
) -> Iterator[np.ndarray]:
    """Generate the face of every frame and paste it into the frame; holds `batch_frames` frames at a time.

    Args:
        module: A method in evaluation mode, on its device.
        frames: uint8 RGB (H, W, 3), at least as many as `frame_mels` holds.
        boxes: (T, 4) x1 y1 x2 y2 in pixels.
        frame_mels: float32 (T, 1, 80, 16), one window a frame.
        reference: uint8 RGB crop used as reference of all frames; None: each frame's own crop, as in the official
            scripts.
        batch_frames: Frames per forward pass.
        paste_face: Pastes a generated face into its frame; `paste` if not given.

    Yields:
        T uint8 RGB frames of the input's size.

    Raises:
        ValueError: Fewer frames than mel windows.
    """
    stream = iter(frames)
    for start in range(0, len(frame_mels), batch_frames):
        mels = frame_mels[start : start + batch_frames]
        chunk = list(islice(stream, len(mels)))
        if len(chunk) < len(mels):
            raise ValueError(
                f"the video has {start + len(chunk)} frames, expected {len(frame_mels)}, one for each mel window. "
                "Prepare the clip again: bench prepare --overwrite"
            )
        part = boxes[start : start + len(chunk)]
        crops = [cut(frame, box) for frame, box in zip(chunk, part, strict=True)]
        faces = generate_faces(module, crops, mels, reference)
        for index, (frame, image) in enumerate(zip(chunk, faces, strict=True), start):
            yield paste(frame, image, boxes[index]) if paste_face is None else paste_face(index, frame, image)
