# SPDX-License-Identifier: Apache-2.0
"""What a row was measured under. A row of one protocol never shares a table column with another's."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["PAIRED_FACE_BOX", "VIDEO_PAIRS", "Protocol"]


@dataclass(frozen=True)
class Protocol:
    """How clips become numbers.

    Args:
        name: Stands in every row, with the version behind it.
        version: Raised whenever a number can change.
        reference: "first": the first frame's crop is the reference of the whole clip; "same": each frame's own crop,
            which shows the true mouth to the method.
        crop_px: Side of the square to which the box of every frame is resized (bilinear) before it is compared.
        mouth_margin: The mouth region is the box of the target's lip landmarks, this share of its width wider on each
            side.
    """

    name: str
    version: int
    reference: Literal["first", "same"] = "first"
    crop_px: int = 160
    mouth_margin: float = 0.25

    @property
    def key(self) -> str:
        """Name and version, as rows carry them."""
        return f"{self.name}-v{self.version}"


# Audio of the same clip; prediction pasted into the decoded source frame; both cut by the target's box of that frame.
PAIRED_FACE_BOX = Protocol("paired_face_box", 1)
# Two videos of one length, neither made by us; both cut by the box found in the target.
VIDEO_PAIRS = Protocol("video_pairs_face_box", 1)
