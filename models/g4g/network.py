# SPDX-License-Identifier: Apache-2.0
"""G4G's generator: encoders, alignment, deformation of the references' features, decoder, blend net."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipsync_bench.models.g4g.contrast import ContrastHeads
from lipsync_bench.models.g4g.deformation import Deformation
from lipsync_bench.models.g4g.fusion import BlendNet, composite
from lipsync_bench.models.g4g.layers import (
    AlignmentConvs,
    Decoder,
    IntraModalAlignment,
    PreActivationBlock,
    image_encoder,
)
from lipsync_bench.models.parts.layers import audio_encoder, scaled

REFERENCES = 5

__all__ = ["REFERENCES", "Features", "G4GGenerator"]


class Features(NamedTuple):
    """What is seen of the inputs of N frames.

    Args:
        source: (N,C,h,w), the map of E_s.
        references: (M,C,h,w), the map of E_r.
        landmarks: l_r, (M,C) or (N,C); None without alignment.
        aligned: (N,C), the aligned feature; without alignment what convolutions make of the maps.
        audio: (N,V), a.
    """

    source: Tensor
    references: Tensor
    landmarks: Tensor | None
    aligned: Tensor
    audio: Tensor


def _repeated(x: Tensor, frames: int) -> Tensor:
    """M values for N frames: each serves N / M frames in a row."""
    return x.repeat_interleave(frames // len(x), dim=0) if len(x) != frames else x


class G4GGenerator(nn.Module):
    """Draws a face with another mouth, of any size that is a multiple of 4.

    ```
    source (N,3,H,W), mouth hidden --- E_s --- (256,H/4,W/4) -+------------------------------- decoder - image
    references (N,15,H,W) ------------ E_r --- (256,H/4,W/4) -+- blocks - deformation - blocks ---+
    landmark image (N,1,H,W) --------- E_l - mean - l_r (256) -+- alignment - 128 -+- code
    mel (N,1,80,16) ------------------ E_a ------------------- a (128) ------------+
    image, source, mask - composite - blend net - result
    ```
    The paper gives E_a, E_s, E_r, E_l one length and neither layers nor numbers: the layers are DINet's, E_a is
    Wav2Lip's audio encoder and a linear layer, E_l is as E_s (choices).

    Args:
        width: factor on the channels; 1.0 is published.
        alignment: False has plain convolutions in its place (Table 2).
        fusion: False has neither mask nor blend net (Table 2).
        blocks: of the alignment.
        isotropic, identity_init: of the deformation.
        momentum, tau, learn_tau: of `ContrastHeads`.
    """

    def __init__(
        self,
        width: float = 1.0,
        alignment: bool = True,
        fusion: bool = True,
        blocks: int = 2,
        isotropic: bool = True,
        identity_init: bool = True,
        momentum: float = 0.0,
        tau: float = 0.07,
        learn_tau: bool = True,
    ) -> None:
        super().__init__()
        c128, c256, c512 = (scaled(channels, width) for channels in (128, 256, 512))
        self.audio_encoder = nn.Sequential(audio_encoder(width), nn.Flatten(), nn.Linear(c512, c128))
        self.source_encoder, self.reference_encoder = image_encoder(3, width), image_encoder(3 * REFERENCES, width)
        self.landmark_encoder: nn.Module | None = None
        self.alignment: IntraModalAlignment | None = None
        if alignment:
            self.landmark_encoder = image_encoder(1, width)
            self.alignment = IntraModalAlignment(c256, c256, blocks)
            self.to_code, self.to_landmarks = nn.Linear(c256, c128), nn.Linear(c256, c256)
            self.contrast = ContrastHeads(c256, c128, c256, tau, learn_tau, momentum)
        else:
            self.alignment_convs = AlignmentConvs(c256, width)
        self.before = nn.Sequential(*(PreActivationBlock(c256) for _ in range(4)))
        self.deformation = Deformation(c256, 2 * c128, isotropic, identity_init, width)
        self.after = nn.Sequential(*(PreActivationBlock(c256) for _ in range(4)))
        self.decoder = Decoder(2 * c256, width)
        self.blend = BlendNet(width=width) if fusion else None

    def forward(
        self,
        mels: Tensor,
        source: Tensor,
        references: Tensor,
        landmarks: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Features]:
        """The faces (N,3,H,W) in [0, 1] and what was seen of their inputs.

        Args:
            mels: (N,1,80,16).
            source: (N,3,H,W), with the mouth hidden.
            references: (M,15,H,W); M divides N, and each serves N / M frames in a row.
            landmarks: (M,1,H,W) or (N,1,H,W), the landmark image, with alignment.
            mask: (N,1,H,W) or (M,1,H,W), where the generated face is shown, with fusion.
        """
        seen = self.features(mels, source, references, landmarks)
        visual = seen.aligned if self.alignment is None else self.to_code(seen.aligned)
        shown = _repeated(self.before(seen.references), len(mels))
        deformed = self.after(self.deformation(shown, torch.cat([visual, seen.audio], dim=1)))
        image = self.decoder(torch.cat([seen.source, deformed], dim=1))
        if self.blend is not None:
            assert mask is not None, "fusion needs a mask"
            mask = _repeated(mask, len(mels))
            image = self.blend(composite(image, source, mask), mask)
        return image, seen

    def features(self, mels: Tensor, source: Tensor, references: Tensor, landmarks: Tensor | None) -> Features:
        """As `forward`."""
        source, references = self.source_encoder(source), self.reference_encoder(references)
        audio = self.audio_encoder(mels)
        if self.alignment is None:
            aligned = self.alignment_convs(source, _repeated(references, len(source)))
            return Features(source, references, None, aligned, audio)
        assert self.landmark_encoder is not None
        assert landmarks is not None, "the alignment needs a landmark image"
        vector = self.landmark_encoder(landmarks).mean(dim=(2, 3))
        return Features(source, references, vector, self._align(source, references, vector), audio)

    def _align(self, source: Tensor, references: Tensor, vector: Tensor) -> Tensor:
        assert self.alignment is not None
        return self.alignment(source, _repeated(references, len(source)), _repeated(vector, len(source)))

    def landmark_distance(self, seen: Features) -> Tensor:
        """L_v (Eq. 12): 1 - cosine of the aligned feature and the landmarks' feature, mean over frames.

        No gradient reaches the landmark encoder, neither through l_r nor through the alignment, which is done once more
        for it: else this term alone makes both encoders constant. What the aligned feature is compared as the paper
        does not define; it is projected by a linear layer (choice).
        """
        assert seen.landmarks is not None
        fixed = seen.landmarks.detach()
        projected = self.to_landmarks(self._align(seen.source, seen.references, fixed))
        return 1 - F.cosine_similarity(projected.float(), _repeated(fixed, len(projected)).float()).mean()
