"""A method: a class derived from TalkingFaceModule. This one mixes face and reference, brighter where it is loud."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lipsync_bench.models.core.inputs import FaceInputs
from lipsync_bench.models.core.module import TalkingFaceModule
from lipsync_bench.models.core.training import Stage, Terms


class Mixer(nn.Module):
    """The network; its state-dict names are those of the checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(7, 3, 1)

    def forward(self, mels: Tensor, faces: Tensor, references: Tensor) -> Tensor:
        """(N, 1, 80, 16) and twice (N, 3, H, W) in [0, 1] to (N, 3, H, W)."""
        loudness = mels.mean(dim=(1, 2, 3))[:, None, None, None].expand_as(faces[:, :1])
        return torch.sigmoid(self.mix(torch.cat([loudness, faces, references], dim=1)))


class Tint(TalkingFaceModule):
    """Arguments of the constructor are those of YAMLs and checkpoints: plain values with the published defaults.

    Args:
        image_size: Height and width of the faces, in pixels.
        l1_weight: Of the only loss term.
        steps: Those of BenchModule: optimisers, accumulation, clipping.
    """

    def __init__(self, image_size: int = 96, l1_weight: float = 1.0, **steps: Any) -> None:
        super().__init__(image_size, **steps)
        self.save_hyperparameters()
        self.generator = Mixer()
        self.weights = {"l1": l1_weight}

    def loss_terms(self, batch: Mapping[str, Tensor], stage: Stage) -> Terms:
        """For training, validation and test alike; batches have target, reference, mel and frame_mels."""
        parts = (batch[name].flatten(0, 1) for name in ("frame_mels", "target", "reference"))
        return Terms({"l1": (self.generator(*parts) - batch["target"].flatten(0, 1)).abs().mean()})

    def generate_chunk(self, inputs: FaceInputs) -> Tensor:
        """What evaluation and dubbing call; the faces are unmasked."""
        frames: Tensor = self.generator(inputs.frame_mels, inputs.faces, inputs.reference)
        return frames
