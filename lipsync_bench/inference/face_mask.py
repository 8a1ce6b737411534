# SPDX-License-Identifier: Apache-2.0
"""Paste a generated face into its frame as HyperLips does: I_P alpha + I_R (1 - alpha), its equation 17.

The alpha is the region of the face that was generated, eroded and blurred. HyperLips takes it from a face parser;
without the parser's weights the contour of the Face Mesh is used. All operations work channel by channel, so that RGB
here gives the same result as BGR in the released code.

Reference: Chen et al., "HyperLips: Hyper Control Lips with High Resolution Decoder for Talking Face Generation", 2023,
https://arxiv.org/abs/2310.05720, and facts of the released inference script.

Differs from the paper, as the released script does: the labels are those of the original crop, not the generated one.
"""

from pathlib import Path

import cv2
import numpy as np

from lipsync_bench.datamodules.faces.crop_rules.boxes import as_box
from lipsync_bench.datamodules.faces.crop_rules.rule import Cut
from lipsync_bench.datamodules.files.disk import sha256
from lipsync_bench.datamodules.weights.store import Store
from lipsync_bench.inference.blending import face_mask
from lipsync_bench.models.core.session import PasteFace
from lipsync_bench.models.pretrained.face_parsing import load_face_parser, parse_face

REDRAWN_LABELS = (1, 11, 12, 13)  # skin, mouth, upper lip, lower lip
LABELS_PX = 512
_SIDE_MARGIN = 0.15  # fraction of the box's width, on either side
_ERODE_PX = 5
_BLUR_PX = 75  # pixels of the frame, whatever the face's size
_SIGMA_Y = 4  # the released call passes its border mode, a 4, where the vertical sigma is expected
_REACH_PX = _BLUR_PX // 2 + 3  # beyond this distance from the box the alpha is 0

__all__ = ["LABELS_PX", "REDRAWN_LABELS", "FaceMaskPaste", "paste_contour", "paste_parsed"]


def _corners(box: np.ndarray, frame: np.ndarray, generated: np.ndarray) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2 as whole pixels, after all three arguments have been checked."""
    if frame.dtype != np.uint8 or frame.ndim != 3 or generated.ndim != 3 or generated.shape[0] != frame.shape[2]:
        raise ValueError(
            f"frame is {frame.dtype} {frame.shape}, generated {generated.dtype} {generated.shape}. Expected uint8 "
            "(H, W, 3) and float (3, h, w). Pass a frame of read_frames and one of generate_faces."
        )
    x1, y1, x2, y2 = (int(v) for v in np.rint(box))
    if not (0 <= x1 < x2 <= frame.shape[1] and 0 <= y1 < y2 <= frame.shape[0]):
        raise ValueError(
            f"box {x1}, {y1}, {x2}, {y2} does not lie inside the frame of {frame.shape[1]}x{frame.shape[0]} px. "
            "Expected x1 < x2 and y1 < y2 inside. Pass the boxes of the clip, or crop_boxes."
        )
    return x1, y1, x2, y2


def _resize(image: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    return cv2.resize(image, size_hw[::-1], interpolation=cv2.INTER_LINEAR)


def _as_image(generated: np.ndarray) -> np.ndarray:
    """(3, h, w) in [0, 1] -> float32 (h, w, 3), 0..255."""
    return np.ascontiguousarray(generated.transpose(1, 2, 0), np.float32) * np.float32(255)


def _blend(
    frame: np.ndarray, corners: tuple[int, int, int, int], face: np.ndarray, inside: np.ndarray, released: bool
) -> np.ndarray:
    """Equation 17 with the alpha of a mask.

    Args:
        frame: uint8 (H, W, 3).
        corners: x1, y1, x2, y2 inside the frame.
        face: uint8 (h, w, 3), the new content of the box.
        inside: uint8 (h, w), 1 in the generated region.
        released: see `paste_parsed`.
    """
    x1, y1, x2, y2 = corners
    height, width = inside.shape
    mask = inside * np.uint8(255)
    mask[: height // 2] = 0
    mask[:, : int(width * _SIDE_MARGIN)] = 0
    mask[:, int(width * (1 - _SIDE_MARGIN)) :] = 0
    # The alpha of the whole frame, restricted to where it can be above 0: the box and the kernels' reach around it.
    left, top = max(0, x1 - _REACH_PX), max(0, y1 - _REACH_PX)
    around = np.s_[top : y2 + _REACH_PX, left : x2 + _REACH_PX]
    source = frame[around]
    within = np.s_[y1 - top : y2 - top, x1 - left : x2 - left]
    placed = np.zeros(source.shape[:2], np.uint8)
    placed[within] = mask
    shrunk = cv2.erode(placed, np.ones((_ERODE_PX, _ERODE_PX), np.uint8))
    alpha = cv2.GaussianBlur(shrunk, (_BLUR_PX, _BLUR_PX), 0, sigmaY=_SIGMA_Y if released else 0)
    share = (alpha / 255)[..., None]  # float64
    changed = source.copy()
    changed[within] = face
    out = frame.copy()
    out[around] = (source * (1 - share) + changed * share).astype(np.uint8)  # truncated, as published
    return out


def paste_parsed(
    frame: np.ndarray, box: np.ndarray, generated: np.ndarray, labels: np.ndarray, *, released: bool = True
) -> np.ndarray:
    """A copy of the frame with the generated face where the parser found skin or lips in the original.

    At 512 x 512 the generated face replaces the original crop on those labels; the result is truncated to uint8 and
    brought to the box's size. The alpha is the same region, without the upper half of the box and 15 % of its width on
    either side, eroded 5 x 5 and blurred 75 x 75.

    Args:
        frame: uint8 (H, W, 3).
        box: x1, y1, x2, y2 in pixels inside the frame.
        generated: float32 (3, h, w) in [0, 1], of any size.
        labels: (512, 512), the parser's classes of the original crop (`face_parsing.parse_face`).
        released: blur with a vertical sigma of 4 px, as the released script does by a misplaced argument; otherwise
            both sigmas are OpenCV's automatic ones, 11.6 px.

    Returns:
        uint8 (H, W, 3). Pixels near the box may change by one grey level where the alpha is 0 < alpha < 1: the result
        is truncated.

    Raises:
        ValueError: a shape or type does not fit, or the box is not inside the frame.
    """
    corners = x1, y1, x2, y2 = _corners(box, frame, generated)
    if labels.shape != (LABELS_PX, LABELS_PX):
        raise ValueError(f"labels are {labels.shape}. Expected ({LABELS_PX}, {LABELS_PX}). Pass parse_face's.")
    redrawn = np.isin(labels, REDRAWN_LABELS)
    size_hw = (y2 - y1, x2 - x1)
    large = (LABELS_PX, LABELS_PX)
    original, face = _resize(frame[y1:y2, x1:x2], large), _resize(_as_image(generated), large)
    mixed = np.where(redrawn[..., None], face, original).astype(np.uint8)
    # Resized as the 0s and 1s it consists of: half-covered pixels are rounded.
    inside = _resize(redrawn.astype(np.uint8), size_hw)
    return _blend(frame, corners, _resize(mixed, size_hw), inside, released)


def paste_contour(
    frame: np.ndarray, box: np.ndarray, generated: np.ndarray, contour: np.ndarray, *, released: bool = True
) -> np.ndarray:
    """As `paste_parsed`, with the lower face inside the mesh's contour instead of the parser's labels.

    Args:
        frame, box, generated, released: as in `paste_parsed`.
        contour: (30, 2), the mesh points `geometry.CONTOUR` in pixels of the frame.

    Raises:
        ValueError: as `paste_parsed`.
    """
    corners = x1, y1, x2, y2 = _corners(box, frame, generated)
    inside = face_mask(contour, np.asarray(box), feather=0) > 0  # hard edge: the alpha is blurred later
    face = _resize(_as_image(generated), (y2 - y1, x2 - x1))
    mixed = np.where(inside[..., None], face, frame[y1:y2, x1:x2]).astype(np.uint8)
    return _blend(frame, corners, mixed, inside.astype(np.uint8), released)


def parser_in(store: Store) -> Path | None:
    """The face parser's weights, if they are here."""
    found = store.find("face_segmentation")
    return None if found is None else found.path


class FaceMaskPaste(PasteFace):
    """Pastes faces through the parser's mask if its weights are given, else through the mesh's contour.

    `name` is the value of `paste` in rows: "contour", or "parsing" and the first 12 digits of the weights' SHA-256, and
    "released" where it is.

    Args:
        parsing: Weights of the face parser.
        device: Where the parser runs.
        released: As in `paste_parsed`.

    Raises:
        FileNotFoundError, ValueError: As `load_face_parser`.
    """

    def __init__(self, parsing: Path | None = None, device: str = "cpu", released: bool = False) -> None:
        self._parser = None if parsing is None else load_face_parser(parsing).to(device)
        self._released = released
        name = "contour" if parsing is None else f"parsing {sha256(parsing)[:12]}"
        self.name = f"{name} released" if released else name

    def __call__(self, frame: np.ndarray, cut: Cut, generated: np.ndarray, contour: np.ndarray) -> np.ndarray:
        """A copy of the frame with the face pasted into it; arguments as `PasteFace`.

        Raises:
            ValueError: The cut is no rectangle.
        """
        rectangle = as_box(cut, "HyperLips' mask")
        box = np.array(rectangle.box)
        if self._parser is None:
            return paste_contour(frame, box, generated, contour, released=self._released)
        labels = parse_face(self._parser, np.ascontiguousarray(rectangle.crop(frame)))
        return paste_parsed(frame, box, generated, labels, released=self._released)
