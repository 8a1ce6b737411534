# SPDX-License-Identifier: Apache-2.0
"""Which parts of a clip's frames the players can enlarge: the face, the mouth.

The landmarks are those that the evaluation found in the real video (`ground_truth/` of the results folder). A part is
the box around all places where its landmarks are in the clip, so that it does not move while the videos play.
"""

import logging
from collections.abc import Container

import numpy as np

from lipsync_bench.datamodules.files.disk import read_arrays
from lipsync_bench.metrics.metric import LIPS
from lipsync_bench.report.contents import Results

_PARTS = {"face": (slice(None), 0.3), "mouth": (LIPS, 0.4)}
"""Landmarks of a part, and the margin on each side as a fraction of their box's width."""

_log = logging.getLogger(__name__)

__all__ = ["zoom_boxes"]


def zoom_boxes(results: Results, clip: str, sources: Container[str]) -> dict[str, tuple[int, ...]]:
    """x1, y1, x2, y2 of each part in pixels of the frames, beyond which they may reach; empty if it is not known.

    Args:
        results: The results.
        clip: Id of the clip.
        sources: `target_sha256` of its rows; what was found in another video is not used.
    """
    path = results.folder.found_file(clip)
    if not path.resolve().is_relative_to(results.folder.path.resolve()) or not path.is_file():
        return {}
    try:
        found = read_arrays(path)
    except ValueError as error:
        _log.warning("%s; the players of %s show whole frames only", error, clip)
        return {}
    points = found.get("landmarks", np.empty(0))
    if points.ndim != 3 or points.shape[1:] != (68, 2) or str(found.get("source")) not in sources:
        return {}
    boxes = {}
    for part, (chosen, margin) in _PARTS.items():
        known = points[:, chosen].reshape(-1, 2)
        known = known[np.isfinite(known).all(axis=1)]
        if len(known) == 0:
            return {}
        low, high = known.min(axis=0), known.max(axis=0)
        pad = margin * (high - low)[0]
        boxes[part] = tuple(int(side) for side in np.rint([*(low - pad), *(high + pad)]))
    return boxes
