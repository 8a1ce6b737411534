# SPDX-License-Identifier: Apache-2.0
"""Inception's features of every scored frame, kept a file for each row, and the FID of all of them together.

FID is no mean over clips: it needs the features of all clips at once. As files (8 kB a frame, float32) they survive a
killed run like the rows, add up over ranks, and are read one clip at a time.
"""

import logging
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from datamodules.files import atomic_path
from lipsync_bench.evaluation.rows import GROUND_TRUTH, LINE
from lipsync_bench.evaluation.videos import row_path
from metrics.fid import FID, MIN_FRAMES
from metrics.inception import InceptionFeatures

_log = logging.getLogger(__name__)

__all__ = ["FrameFeatures", "features_path", "pooled_fid"]


def features_path(folder: Path, line: tuple[str, str, str], clip: str, audio_clip: str) -> Path:
    """Where the features of a row of a results folder are; arguments as in the row."""
    return row_path(folder / "features", line, clip, audio_clip, ".f32")


class FrameFeatures:
    """Features of one candidate on one clip, on disk as they come, named when the clip is finished.

    Args:
        network: FID's network.
        folder: The results folder.
        line: Method, generator_sha256 and paste.
        clip: Of the row.
        audio_clip: Of the row.
    """

    def __init__(
        self, network: InceptionFeatures, folder: Path, line: tuple[str, str, str], clip: str, audio_clip: str
    ) -> None:
        self._network = network
        self._path = features_path(folder, line, clip, audio_clip)
        self._path.unlink(missing_ok=True)  # of an earlier row
        self._open = ExitStack()
        self._temporary: Path | None = None

    def add(self, crops: Sequence[np.ndarray]) -> None:
        """The next crops, uint8 RGB (H, W, 3), as they are compared."""
        if self._temporary is None:
            self._temporary = self._open.enter_context(atomic_path(self._path))
            self._temporary.write_bytes(b"")  # one of that name may be left of a killed process
        with self._temporary.open("ab") as file:
            for crop in crops:
                image = torch.from_numpy(np.ascontiguousarray(crop)).permute(2, 0, 1)[None]
                file.write(self._network(image).cpu().numpy().astype("<f4").tobytes())

    def close(self, failure: BaseException | None = None) -> None:
        """Give the file its name; after a failure nothing is left of it."""
        if failure is None:
            self._open.close()
            return
        with suppress(type(failure)):
            self._open.__exit__(type(failure), failure, failure.__traceback__)


def _files(folder: Path, rows: pd.DataFrame) -> list[Path]:
    rows = rows.sort_values(["clip", "audio_clip"])
    names = zip(*(rows[name].astype(str) for name in (*LINE[1:], "clip", "audio_clip")), strict=True)
    return [features_path(folder, (method, sha, paste), clip, sound) for method, sha, paste, clip, sound in names]


def _read(path: Path, size: int) -> np.ndarray:
    """Features (N, size) of a row. Raises ValueError where the file holds something else."""
    values = np.fromfile(path, "<f4")
    if path.stat().st_size % (4 * size) or not np.isfinite(values).all():
        raise ValueError(
            f"{path}: {path.stat().st_size} bytes, cut short or with values that are not finite. Expected {size} "
            "numbers a frame. Remove the file, then run the same bench evaluate again"
        )
    return values.reshape(-1, size)


def _value(network: InceptionFeatures, pred: Sequence[Path], target: Sequence[Path]) -> tuple[float, int]:
    """FID and the number of frames on the smaller side; NaN below the fewest that are allowed."""
    if lost := [path for path in (*pred, *target) if not path.is_file()]:
        _log.warning(
            "no FID: %d files of features are gone, such as %s. Evaluate their method again", len(lost), lost[0]
        )
        return float("nan"), 0
    frames = min(sum(path.stat().st_size // (4 * network.size) for path in side) for side in (pred, target))
    if frames < MIN_FRAMES:
        _log.warning("no FID of %d frames; expected at least %d on each side. Score more clips", frames, MIN_FRAMES)
        return float("nan"), frames
    metric = FID(network, MIN_FRAMES)
    for side, paths in (("pred", pred), ("target", target)):
        for path in paths:
            features = torch.from_numpy(_read(path, network.size))
            if len(features):
                metric.update(features if side == "pred" else None, features if side == "target" else None)
    return float(metric.compute()), frames


def pooled_fid(folder: Path, rows: pd.DataFrame, network: InceptionFeatures) -> pd.DataFrame:
    """FID of each line over all its scored frames against the real frames of the same videos, each video once.

    The truth's value is the floor: the real frames of every other video against those of the rest.

    Args:
        folder: Results folder with the features.
        rows: As `read_rows` gives them.
        network: That of the features.

    Returns:
        Columns of `LINE`, fid, fid_n (frames on the smaller side).
    """
    good = rows[rows["status"] == "ok"]
    out = []
    for line, own in good.groupby(list(LINE), sort=True):
        protocol, method = line[:2]
        real = good[(good["protocol"] == protocol) & (good["method"] == GROUND_TRUTH)]
        if method == GROUND_TRUTH:
            sides = real.iloc[0::2], real.iloc[1::2]
        else:
            sides = own, real[real["clip"].isin(own["clip"])]
        value, frames = _value(network, *(_files(folder, side) for side in sides))
        out.append({**dict(zip(LINE, line, strict=True)), "fid": value, "fid_n": frames})
    return pd.DataFrame(out, columns=[*LINE, "fid", "fid_n"])
