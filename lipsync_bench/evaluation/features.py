# SPDX-License-Identifier: Apache-2.0
"""Inception's features of every scored frame, kept a file for each row, and the FID of all of them together.

FID is no mean over clips: it needs the features of all clips at once. As files (8 kB a frame, float32) they survive a
killed run like the rows, add up over ranks, and are read one clip at a time.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lipsync_bench.evaluation.rows import LINE
from lipsync_bench.evaluation.videos import video_path
from metrics.fid import FID
from metrics.inception import InceptionFeatures

TRUTH = "ground_truth"  # its frames are the real ones

_log = logging.getLogger(__name__)

__all__ = ["FrameFeatures", "pooled_fid"]


def _path(folder: Path, method: str, generator_sha256: str, paste: str, clip: str, audio_clip: str) -> Path:
    return video_path(folder / "features", method, generator_sha256, paste, clip, audio_clip, ".f32")


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
        self._path = _path(folder, *line, clip, audio_clip)
        self._temporary = self._path.with_name(f".{self._path.name}.tmp-{os.getpid()}")
        self._begun = False

    def add(self, crops: Sequence[np.ndarray]) -> None:
        """The next crops, uint8 RGB (H, W, 3), as they are compared."""
        self._temporary.parent.mkdir(parents=True, exist_ok=True)
        with self._temporary.open("ab" if self._begun else "wb") as file:
            self._begun = True
            for crop in crops:
                image = torch.from_numpy(np.ascontiguousarray(crop)).permute(2, 0, 1)[None]
                file.write(self._network(image).cpu().numpy().astype("<f4").tobytes())

    def close(self, keep: bool) -> None:
        """Give the file its name, or leave nothing."""
        if self._begun and keep:
            self._temporary.replace(self._path)
        self._temporary.unlink(missing_ok=True)


def _features(folder: Path, rows: pd.DataFrame, size: int) -> Iterator[torch.Tensor]:
    for row in rows.sort_values(["clip", "audio_clip"]).itertuples():
        names = (row.method, row.generator_sha256, row.paste, row.clip, row.audio_clip)
        yield torch.from_numpy(np.fromfile(_path(folder, *map(str, names)), "<f4").reshape(-1, size))


def _value(
    network: InceptionFeatures, pred: Iterator[torch.Tensor], target: Iterator[torch.Tensor]
) -> tuple[float, int]:
    """FID and the number of frames on the smaller side; NaN below the fewest that are allowed."""
    metric = FID(network)
    for side, features in (("pred", pred), ("target", target)):
        for part in features:
            metric.update(part if side == "pred" else None, part if side == "target" else None)
    frames = min(metric.frames, metric.target_frames)
    try:
        return float(metric.compute()), frames
    except RuntimeError as error:  # too few frames
        _log.warning("no FID: %s", error)
        return float("nan"), frames


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
        real = good[(good["protocol"] == protocol) & (good["method"] == TRUTH)]
        if method == TRUTH:
            sides = real.iloc[0::2], real.iloc[1::2]
        else:
            sides = own, real[real["clip"].isin(own["clip"])]
        value, frames = _value(network, *(_features(folder, side, network.size) for side in sides))
        out.append({**dict(zip(LINE, line, strict=True)), "fid": value, "fid_n": frames})
    return pd.DataFrame(out, columns=[*LINE, "fid", "fid_n"])
