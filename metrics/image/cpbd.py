# SPDX-License-Identifier: Apache-2.0
"""Sharpness without a reference: the cumulative probability of blur detection (CPBD), one value per image."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.ndimage import correlate
from skimage.feature import canny
from torch import Tensor

from lipsync_bench.metrics.frame_mean import FrameMean
from lipsync_bench.metrics.image.checks import checked_images
from lipsync_bench.metrics.image.gray import gray_8bit
from lipsync_bench.metrics.image.scorer import image, one_thread
from lipsync_bench.metrics.metric import Column, Description, FrameScorer, ScoredClip, Scorer, View

__all__ = ["CPBD", "EdgeSharpness", "cpbd", "edge_sharpness"]

BLOCK_PX = 64
BLOCK_EDGE_SHARE = 0.002
SOBEL = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]])
SOBEL_DIVISOR = 8.0
MAX_SIDE_PX = 101
MAX_WIDTH_PX = 2 * MAX_SIDE_PX
LOW_CONTRAST = 50  # grey levels
JUST_NOTICEABLE_PX = {True: 5.0, False: 3.0}  # blurred edge width that is just noticed, at low contrast or not
BETA = 3.6
SHARP_BINS = 64


@dataclass(frozen=True, eq=False)
class EdgeSharpness:
    """What was measured in one image.

    Attributes:
        histogram: (101,) measured edges by the probability, in per cent, that their blur is noticed.
        blocks: 64 x 64 blocks with enough edges to be measured.
    """

    histogram: np.ndarray
    blocks: int

    @property
    def edges(self) -> int:
        """Edges whose width was measured."""
        return int(self.histogram.sum())

    @property
    def score(self) -> float:
        """Share of the edges that look sharp, 0..1; 0 without edges."""
        return float(self.histogram[:SHARP_BINS].sum() / max(self.edges, 1))


def _by_blocks(image: np.ndarray) -> np.ndarray:
    """(H, W) -> (rows, columns, 64 * 64), from the top left; incomplete blocks are dropped."""
    rows, columns = (side // BLOCK_PX for side in image.shape)
    whole = image[: rows * BLOCK_PX, : columns * BLOCK_PX].reshape(rows, BLOCK_PX, columns, BLOCK_PX)
    return whole.swapaxes(1, 2).reshape(rows, columns, -1)


def _beside(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The neighbour of each pixel, `rows` down and `columns` right; 0 outside."""
    padded = np.pad(image, 1)
    height, width = image.shape
    return padded[1 + rows : 1 + rows + height, 1 + columns : 1 + columns + width]


def _edges(gray: np.ndarray) -> np.ndarray:
    """(H, W) bool: the pixels whose widths are measured. Responses are whole numbers until they are divided."""
    power = (correlate(gray, SOBEL, mode="nearest") / SOBEL_DIVISOR) ** 2
    power[power <= 2 * np.sqrt(power.mean())] = 0  # as Octave's edge(): a squared response, an unsquared threshold
    left, right, above, below = (_beside(power, *at) for at in ((0, -1), (0, 1), (-1, 0), (1, 0)))
    return ((power > left) & (power > right)) | ((power > above) & (power > below))


def _runs(moves: np.ndarray) -> np.ndarray:
    """How many `moves` (H, W - 1) between neighbours are true in a row from each pixel (H, W) to the right."""
    width = moves.shape[1] + 1
    columns = np.arange(width, dtype=np.int32)
    stops = np.where(moves, columns[-1], columns[:-1])
    first = np.minimum.accumulate(stops[:, ::-1], axis=1)[:, ::-1]
    return np.pad(first - columns[:-1], ((0, 0), (0, 1)))


def _widths(gray: np.ndarray, rows: np.ndarray, columns: np.ndarray, rising: np.ndarray) -> np.ndarray:
    """Widths in pixels of the edges at these places, along the row (Marziliano et al. 2002).

    Each side counts 1 and the pixels by which the grey values still move away from the neighbour of the edge.

    Args:
        gray: (H, W) int64.
        rows, columns: (N,) places inside the image.
        rising: (N,) brighter to the right; else darker to the right.
    """
    steps = np.diff(gray, axis=1)
    back = -steps[:, ::-1]  # of the mirrored image
    mirrored = gray.shape[1] - 1 - columns
    sides = []
    for right, up in ((True, rising), (False, ~rising)):
        move, at = (steps, columns) if right else (back, mirrored)
        run = np.where(up, _runs(move > 0)[rows, at + 1], _runs(move < 0)[rows, at + 1])
        sides.append(np.minimum(1 + run, MAX_SIDE_PX))
    return sides[0] + sides[1]


def _probability_bins() -> np.ndarray:
    """(2, MAX_WIDTH_PX + 1): the bin of each width, in blocks of high (0) and low (1) contrast."""
    widths = np.arange(MAX_WIDTH_PX + 1)
    seen = [1 - np.exp(-((widths / JUST_NOTICEABLE_PX[low]) ** BETA)) for low in (False, True)]
    return np.rint(100 * np.stack(seen)).astype(np.int64)


def edge_sharpness(gray: np.ndarray) -> EdgeSharpness:
    """Measure the edges of one gray image (H, W), uint8; see `CPBD`.

    Raises:
        ValueError: wrong shape or dtype.
    """
    if gray.ndim != 2 or gray.dtype != np.uint8:
        raise ValueError(
            f"gray has shape {gray.shape} and dtype {gray.dtype}. Expected (H, W), uint8. Use cpbd(images) for colour"
        )
    histogram = np.zeros(101, np.int64)
    if min(gray.shape) < BLOCK_PX:
        return EdgeSharpness(histogram, 0)
    blocks = _by_blocks(canny(gray.astype(np.float64), sigma=1)).sum(axis=2) > BLOCK_EDGE_SHARE * BLOCK_PX**2
    cells = _by_blocks(gray)
    low_contrast = (cells.max(axis=2).astype(int) - cells.min(axis=2)) <= LOW_CONTRAST

    values = gray.astype(np.int64)
    edges = _edges(values)
    edges[[0, -1]] = edges[:, [0, -1]] = False  # they have no neighbours on both sides
    rows, columns = (places.astype(np.intp) for places in np.nonzero(edges))
    whole = (rows // BLOCK_PX < blocks.shape[0]) & (columns // BLOCK_PX < blocks.shape[1])
    rows, columns = rows[whole], columns[whole]
    chosen = blocks[rows // BLOCK_PX, columns // BLOCK_PX]
    rows, columns = rows[chosen], columns[chosen]

    across = values[rows, columns + 1] - values[rows, columns - 1]
    down = values[rows + 1, columns] - values[rows - 1, columns]
    # An edge without a horizontal gradient counts as rising, whatever its vertical one: the published code's quirk.
    octants = np.where(across == 0, 0, np.rint(np.degrees(np.arctan2(down, across)) / 45))
    measured = (octants == 0) | (np.abs(octants) == 4)
    rows, columns, rising = rows[measured], columns[measured], octants[measured] == 0

    widths = _widths(values, rows, columns, rising)
    low = low_contrast[rows // BLOCK_PX, columns // BLOCK_PX].astype(int)
    np.add.at(histogram, _probability_bins()[low, widths], 1)
    return EdgeSharpness(histogram, int(blocks.sum()))


def cpbd(images: Tensor) -> Tensor:
    """Share of edges in each image whose blur is not noticed (Narvekar and Karam 2011); higher is sharper.

    Args:
        images: (B, C, H, W), C = 3 (RGB, mixed to gray as PIL's mode L does) or 1 (gray), uint8, or float in 0..255,
            which is rounded to 8 bits.

    Returns:
        (B,) float64, 0..1; 0 for an image without edges or under 64 pixels in one direction.

    Raises:
        ValueError: wrong shape, dtype or range.

    Example:
        >>> import torch
        >>> images = torch.zeros(2, 1, 64, 64, dtype=torch.uint8)
        >>> images[0, :, :, 32], images[0, :, :, 33:] = 100, 200  # two pixels wide: sharp
        >>> images[1] = torch.arange(0, 192, 3, dtype=torch.uint8)  # a slope without an edge
        >>> cpbd(images)
        tensor([1., 0.], dtype=torch.float64)
    """
    gray = gray_8bit(checked_images("images", images))
    scores = [edge_sharpness(image).score for image in gray.cpu().numpy()]
    return torch.tensor(scores, dtype=torch.float64, device=images.device)


class CPBD(FrameMean):
    r"""Mean over frames of the CPBD of Narvekar and Karam, IEEE TIP 20(9), 2011 (QoMEX 2009).

    .. math:: \mathrm{CPBD} = P(P_\mathrm{blur} \le 0.63), \qquad P_\mathrm{blur} = 1 - e^{-(w / w_\mathrm{jnb})^{3.6}}

    w is an edge's width along its row in pixels; w_jnb is 5 in 64 x 64 blocks whose grey values span 50 levels or
    fewer, else 3. Vertical edges alone are measured, in blocks where Canny's detector finds more than 0.2 % edge
    pixels.

    * Input: frames (B, C, H, W), RGB or gray, uint8, or float in 0..255, rounded. No reference: the target's own value
      is the one to compare with. Pixels are counted, so that the value depends on the size of the image; frames after
      another video encoding have other edges.
    * Average: over an image's edges, then frames, whatever clip they come from.
    * Protocol `cpbd_package`: as the Python package cpbd 1.0.7 computes it, edges after Octave. The authors' Matlab
      program and ATVGnet's script find other edges and give other values (0.748, 0.771 and 0.331 on one photograph);
      VideoReTalking does not say which one it printed.
    * Reference: the package's own output. Canny is scikit-image's.
    * Known differences: the package's thinning drops a perfect step, whose two sides are equally strong. Matlab's Canny
      chooses its thresholds; scikit-image's defaults pass nearly every block.

    Example:
        >>> import torch
        >>> images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
        >>> images[..., 32], images[..., 33:] = 100, 200
        >>> metric = CPBD()
        >>> metric.update(images)
        >>> metric.compute()
        tensor(1., dtype=torch.float64)
    """

    higher_is_better = True
    is_differentiable = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("cpbd_package", **kwargs)

    def update(self, images: Tensor, target: Tensor | None = None) -> None:
        """Add the frames of one batch; see `cpbd` for the argument.

        The target is ignored: a `MetricCollection` passes it to all its metrics.
        """
        self.add(cpbd(images))


class _Scorer(FrameScorer):
    def update(self, view: View) -> None:
        with one_thread():
            for crop in view.crops:
                self.add("cpbd", cpbd(image(crop)).numpy())


def scorer(clip: ScoredClip) -> Scorer:
    """Scores the candidate's crops."""
    return _Scorer()


METRIC = Description(
    columns=(
        Column(
            "cpbd",
            "CPBD",
            "",
            True,
            3,
            (0, 1),
            "none",
            "Narvekar and Karam, IEEE TIP 20(9), 2011, cpbd 1.0.7",
            order=90,
        ),
    ),
    about={
        "cpbd": "Sharpness: the share of the edges that look unblurred.",
    },
    checked="golden arrays of the package 1.0.7, 1e-9",
)
