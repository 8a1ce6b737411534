# SPDX-License-Identifier: Apache-2.0
"""Every number a row or a leaderboard can hold: its name, unit, direction, bounds and source. One name, one definition.

What a column is measured on (crop, pairs, frame rate) is the protocol's affair and stands beside it in every row.
"""

import math
from dataclasses import dataclass
from typing import Literal

__all__ = ["CLIP_COLUMNS", "COLUMNS", "RANKED", "Column", "column"]


@dataclass(frozen=True)
class Column:
    """One metric.

    Args:
        name: Key in clips.csv and leaderboard.csv.
        title: Heading in tables.
        unit: Unit of the value, empty for pure numbers.
        higher_is_better: None where a value has no better side (an offset).
        digits: Digits behind the point in tables.
        bounds: Least and greatest possible value.
        reference: What the value is compared with: "target" (the same frame of the real video), "sound" (what is
            heard) or "none" (the prediction alone).
        source: Paper or program whose definition it is.
        kind: "clip": one value a clip, averaged. "pooled": all clips together make one value, which no row has.
            "diagnostic": one value a clip that compares no methods; shown only beside a paper's table.
    """

    name: str
    title: str
    unit: str
    higher_is_better: bool | None
    digits: int
    bounds: tuple[float, float]
    reference: Literal["target", "sound", "none"]
    source: str
    kind: Literal["clip", "pooled", "diagnostic"] = "clip"

    @property
    def heading(self) -> str:
        """Title with unit and an arrow to the better side."""
        arrow = {True: " ↑", False: " ↓", None: ""}[self.higher_is_better]
        return f"{self.title}{f' ({self.unit})' if self.unit else ''}{arrow}"


_INF = math.inf
_WANG = "Wang et al., IEEE TIP 13(4), 2004"
_CHEN = "Chen et al., ECCV 2018, lip landmarks of dlib"
_LPIPS = "Zhang et al., CVPR 2018, lpips 0.1.4 (v0.1)"
_SYNCNET = "Chung and Zisserman, ACCV-W 2016; Prajwal et al., ACM MM 2020"
_EXPERT = "this suite: a sync expert trained with it, no LSE"
_OFFSET = (-15.0, 15.0)

COLUMNS = (
    Column("psnr", "PSNR", "dB", True, 2, (0, _INF), "target", "10 log10(255^2 / MSE) of RGB, frame by frame"),
    Column("ssim", "SSIM", "", True, 3, (-1, 1), "target", _WANG),
    Column("psnr_mouth", "PSNR mouth", "dB", True, 2, (0, _INF), "target", "PSNR of the box around the target's lips"),
    Column("ssim_mouth", "SSIM mouth", "", True, 3, (-1, 1), "target", "SSIM of the box around the target's lips"),
    Column("mse", "MSE", "", False, 5, (0, 1), "target", "mean squared error of RGB in 0..1"),
    Column("lpips_alex", "LPIPS (alex)", "", False, 3, (0, _INF), "target", _LPIPS),
    Column("lpips_vgg", "LPIPS (vgg)", "", False, 3, (0, _INF), "target", _LPIPS),
    Column("fid", "FID", "", False, 2, (0, _INF), "target", "Heusel et al., NeurIPS 2017, pytorch-fid 0.3", "pooled"),
    Column("cpbd", "CPBD", "", True, 3, (0, 1), "none", "Narvekar and Karam, IEEE TIP 20(9), 2011, cpbd 1.0.7"),
    Column("lmd", "LMD", "px", False, 3, (0, _INF), "target", _CHEN),
    Column("lmd_centred", "LMD centred", "px", False, 3, (0, _INF), "target", f"{_CHEN}, common mean point"),
    # Without a better side: too much is a tremble, too little a frozen mouth. The ground truth's own value tells which.
    Column("jitter", "Lip jitter", "px", None, 3, (0, _INF), "none", "this suite: second difference of lip landmarks"),
    Column(
        "detection_failure", "Face not found", "share", False, 3, (0, 1), "none", "this suite: frames without a face"
    ),
    Column("lse_c_wav2lip_lrs", "LSE-C (Wav2Lip LRS)", "", True, 3, (0, _INF), "sound", _SYNCNET),
    Column("lse_d_wav2lip_lrs", "LSE-D (Wav2Lip LRS)", "", False, 3, (0, _INF), "sound", _SYNCNET),
    Column("lse_offset_wav2lip_lrs", "LSE offset (Wav2Lip LRS)", "frames", None, 1, _OFFSET, "sound", _SYNCNET),
    Column("lse_c_wav2lip_real", "LSE-C (Wav2Lip real)", "", True, 3, (0, _INF), "sound", _SYNCNET),
    Column("lse_d_wav2lip_real", "LSE-D (Wav2Lip real)", "", False, 3, (0, _INF), "sound", _SYNCNET),
    Column("expert_cosine", "Expert cosine", "", True, 3, (-1, 1), "sound", _EXPERT),
    Column("expert_confidence", "Expert confidence", "", True, 3, (0, 2), "sound", _EXPERT),
    Column("expert_offset_frames", "Expert offset", "frames", None, 1, _OFFSET, "sound", _EXPERT),
    Column(
        "psnr_uint8",
        "PSNR uint8",
        "dB",
        None,
        2,
        (24, 100),
        "target",
        "wrapping 8-bit arithmetic of ATVGnet's script, 2019",
        "diagnostic",
    ),
)
CLIP_COLUMNS = tuple(column for column in COLUMNS if column.kind != "pooled")
"""Those that a row of clips.csv holds."""
RANKED = tuple(column for column in COLUMNS if column.kind != "diagnostic")
"""Those that a leaderboard shows."""


def column(name: str) -> Column:
    """The column of that name. Raises KeyError for a name no row can hold."""
    for candidate in COLUMNS:
        if candidate.name == name:
            return candidate
    raise KeyError(f"no metric {name!r}; there are {', '.join(c.name for c in COLUMNS)}")
