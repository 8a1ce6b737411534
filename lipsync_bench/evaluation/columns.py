# SPDX-License-Identifier: Apache-2.0
"""Every number a row can hold: its name, unit and direction. One name, one definition."""

from dataclasses import dataclass

__all__ = ["COLUMNS", "Column", "column"]


@dataclass(frozen=True)
class Column:
    """One metric of a row.

    Args:
        name: Key in clips.csv and leaderboard.csv.
        title: Heading in tables.
        unit: Unit of the value, empty for pure numbers.
        higher_is_better: None where a value has no better side (an offset).
        digits: Digits behind the point in tables.
    """

    name: str
    title: str
    unit: str
    higher_is_better: bool | None
    digits: int = 3

    @property
    def heading(self) -> str:
        """Title with unit and an arrow to the better side."""
        arrow = {True: " ↑", False: " ↓", None: ""}[self.higher_is_better]
        return f"{self.title}{f' ({self.unit})' if self.unit else ''}{arrow}"


COLUMNS = (
    Column("psnr", "PSNR", "dB", True, 2),
    Column("ssim", "SSIM", "", True),
    Column("psnr_mouth", "PSNR mouth", "dB", True, 2),
    Column("ssim_mouth", "SSIM mouth", "", True),
    Column("lmd", "LMD", "px", False),
    Column("lmd_centred", "LMD centred", "px", False),
    Column("lse_c_wav2lip_lrs", "LSE-C (Wav2Lip LRS)", "", True),
    Column("lse_d_wav2lip_lrs", "LSE-D (Wav2Lip LRS)", "", False),
    Column("lse_offset_wav2lip_lrs", "LSE offset (Wav2Lip LRS)", "frames", None, 1),
    Column("lse_c_wav2lip_real", "LSE-C (Wav2Lip real)", "", True),
    Column("lse_d_wav2lip_real", "LSE-D (Wav2Lip real)", "", False),
    Column("expert_cosine", "Expert cosine", "", True),
    Column("expert_confidence", "Expert confidence", "", True),
    Column("expert_offset_frames", "Expert offset", "frames", None, 1),
)


def column(name: str) -> Column:
    """The column of that name. Raises KeyError for a name no row can hold."""
    for candidate in COLUMNS:
        if candidate.name == name:
            return candidate
    raise KeyError(f"no metric {name!r}; there are {', '.join(c.name for c in COLUMNS)}")
