# SPDX-License-Identifier: Apache-2.0
"""DINet, G4G's parent: the same deformation, without alignment, without multi-scale supervision, without fusion."""

from typing import Any, ClassVar, Literal

from lipsync_bench.models.g4g.module import G4G, ExpertForm
from lipsync_bench.models.g4g.regions import Mask
from lipsync_bench.models.parts.perceptual import TORCHVISION

__all__ = ["DINet"]


class DINet(G4G):
    """DINet, with G4G's audio: what G4G's Table 2 calls "without alignment", and a row of its tables 1.

    Zhimeng Zhang, Zhipeng Hu, Wenjin Deng, Changjie Fan, Tangjie Lv, Yu Ding: DINet: Deformation Inpainting Network for
    Realistic Face Visually Dubbing on High Resolution Video. AAAI 2023. https://arxiv.org/abs/2303.03988
    The official repository, github.com/MRzzm/DINet, has no licence and was not read; facts of it are those of the
    descriptions of its layers and losses.

    Loss: 10 perceptual + adversarial, of clips also the expert's sync loss. Batches and stages are G4G's.

    Args:
        image_scale, width, frames, mask, isotropic, identity_init, lr, betas, sync_expert, expert_mode, expert_form,
            perceptual_weights, init_from: those of G4G.
        perceptual_weight, adversarial_weight: of DINet's loss.
        reconstruction_weight: of L1 with the target, which DINet's loss has not; for runs without the other two.
        sync_weight: of the expert's term, in clips.

    Differs: the audio is a mel window, as in G4G, in the place of DeepSpeech's features. The deformation is sampled in
    one convention and starts as the identity (`Deformation`). Faces are pasted whole, the published script pastes
    their upper 3 R of 3.25 R rows.
    """

    method: ClassVar[str] = "dinet"
    experiment = "experiments/dinet.yaml"

    def __init__(
        self,
        image_scale: float = 1.0,
        width: float = 1.0,
        frames: Literal[1, 5] = 5,
        mask: Mask = "square",
        isotropic: bool = True,
        identity_init: bool = True,
        perceptual_weight: float = 10.0,
        adversarial_weight: float = 1.0,
        reconstruction_weight: float = 0.0,
        sync_weight: float = 0.1,
        expert_form: ExpertForm = "bce",
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        sync_expert: str | None = None,
        expert_mode: Literal["train", "eval"] = "eval",
        perceptual_weights: str = TORCHVISION,
        init_from: str | None = None,
        **steps: Any,
    ) -> None:
        super().__init__(
            image_scale, width, frames, mask, alignment=False, supervision=False, fusion=False, isotropic=isotropic,
            identity_init=identity_init, perceptual_weight=perceptual_weight, adversarial_weight=adversarial_weight,
            reconstruction_weight=reconstruction_weight, contrastive_weight=1.0, sync_weight=sync_weight,
            expert_form=expert_form, lr=lr, betas=betas, sync_expert=sync_expert, expert_mode=expert_mode,
            perceptual_weights=perceptual_weights, init_from=init_from, **steps,
        )  # fmt: skip
