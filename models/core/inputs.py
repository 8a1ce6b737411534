# SPDX-License-Identifier: Apache-2.0
"""What a method is given to make frames, and what it gives back."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["FaceInputs", "Generated"]


@dataclass(frozen=True)
class FaceInputs:
    """Inputs of T frames. Images are RGB float in [0, 1] outside of a method, in its colour order inside.

    Args:
        frame_mels: (T,1,80,16), the mel window of each frame.
        faces: (T,3,H,W), unmasked; the method hides the mouth itself.
        references: (T,R,3,H,W), the R faces that show the identity.
        extras: Further inputs by the names in `Recipe.inputs`, (T, ...) each.
    """

    frame_mels: Tensor
    faces: Tensor
    references: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, frame_mels: Tensor, faces: Tensor, reference: Tensor) -> "FaceInputs":
        """Inputs with one reference a frame, (T,3,H,W)."""
        return cls(frame_mels, faces, reference[:, None])

    def __len__(self) -> int:
        return len(self.faces)

    @property
    def reference(self) -> Tensor:
        """(T,3,H,W), the first reference of each frame."""
        return self.references[:, 0]

    def split(self, frames: int) -> Iterator["FaceInputs"]:
        """The inputs of so many frames at a time."""
        for first in range(0, len(self), frames):
            part = slice(first, first + frames)
            extras = {name: value[part] for name, value in self.extras.items()}
            yield FaceInputs(self.frame_mels[part], self.faces[part], self.references[part], extras)


@dataclass(frozen=True)
class Generated:
    """Generated faces of T frames.

    Args:
        frames: (T,3,h,w) RGB float32 in [0, 1].
        fallback: bool (T,), True for frames that the method made by its fallback; its docstring says what that is.
    """

    frames: Tensor
    fallback: Tensor

    @classmethod
    def of(cls, frames: Tensor) -> "Generated":
        """Frames of which none is a fallback."""
        return cls(frames, torch.zeros(len(frames), dtype=torch.bool))
