# SPDX-License-Identifier: Apache-2.0
"""VideoReTalking's L-Net as a method of its own: its training and generation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from lipsync_bench.datamodules.faces.crop_rules.boxes import DetectorBox
from lipsync_bench.datamodules.recipes.recipe import Recipe, References
from lipsync_bench.models.core.frozen import frozen
from lipsync_bench.models.core.module import TalkingFaceModule
from lipsync_bench.models.core.training import Stage, Terms
from lipsync_bench.models.parts.layers import from_time_major, to_time_major
from lipsync_bench.models.parts.losses import ReconstructionLoss, SyncLoss, check_weights
from lipsync_bench.models.parts.perceptual import RANDOM, TORCHVISION, VGGPyramidLoss
from lipsync_bench.models.videoretalking.lnet.network import SIDES, SIZE, LNet
from lipsync_bench.models.wav2lip.sync_expert import SyncExpertModule

_EXPERT_PX = 96

__all__ = ["VideoReTalkingLNet", "shown_to_expert"]


def shown_to_expert(generated: Tensor) -> Tensor:
    """Windows (B,3,T,H,W) as (B,T,3,96,96), the size that the lip-sync expert was trained with."""
    if generated.shape[-2:] != (_EXPERT_PX, _EXPERT_PX):
        frames = to_time_major(generated, 2)
        frames = F.interpolate(frames, (_EXPERT_PX, _EXPERT_PX), mode="bilinear", align_corners=False)
        generated = from_time_major(frames, generated.shape[2])
    return generated.transpose(1, 2)


class VideoReTalkingLNet(TalkingFaceModule):
    """L-Net of VideoReTalking: Fourier convolutions, steered by audio, draw the lower half of a face.

    Kun Cheng, Xiaodong Cun, Yong Zhang, Menghan Xia, Fei Yin, Mingrui Zhu, Xuan Wang, Jue Wang, Nannan Wang:
    VideoReTalking: Audio-based Lip Synchronization for Talking Head Video Editing In the Wild. SIGGRAPH Asia 2022.
    https://arxiv.org/abs/2211.14758
    Official code: github.com/OpenTalker/video-retalking (Apache-2.0; inference only; for its weights, see its README).

    ```
    target (B,5,3,96,96), lower half zeroed +- encoder, values of the reference by cross-attention - 1024@12 -+
    reference (B,5,3,96,96) ----------------+                                                                 |
    frame_mels (B,5,1,80,16) - audio encoder - z (B*5,512) - AdaIN of the FFC blocks - decoder ---------------+
    decoder - G (B,3,5,96,96) - L1 with target; VGG features - perceptual
              G, lower halves, and mel (B,1,80,16) - frozen expert - sync
    ```
    Loss (Eq. 9): L1 + perceptual + 0.3 sync. The perceptual term sums mean absolute differences of VGG-19 features over
    layers and sizes (`VGGPyramidLoss`); sync is -log of the cosine of Wav2Lip's expert. Training windows are Wav2Lip's,
    whose recipe the paper follows: their `frame_mels` start one frame early; `generate` expects the frame's own window.

    The complete method adds two networks, one that stabilises the expression of the reference (D-Net) and one that
    enlarges the face (E-Net). L-Net alone is a row of the paper's Table 3, and this class.

    Args:
        image_size: height and width of the faces, a multiple of 8 from 16 on; 96 is published. The expert sees them at
            96.
        width: factor on the channels; 1.0 is published.
        blocks: FFC residual blocks at each of the decoder's three sizes; 9 is published.
        cross_attention: False joins the features of target and reference without attention, the ablation of Table 3.
        sync_expert: path of a checkpoint of SyncExpertModule. Needed to train and validate unless sync_weight is 0.
        l1_weight, perceptual_weight, sync_weight: lambdas of Eq. 9. At 0 a term is not computed, but for L1, which
            is logged all the same.
        lr: learning rate of Adam.
        betas: of Adam; the paper does not give them.
        expert_mode: "eval" fixes the expert's batch norms; "train" has them use the statistics of the batch, as
            Wav2Lip's code does. The paper does not say.
        perceptual_weights: ImageNet weights of VGG-19: "torchvision", a folder, or "random" for smoke runs (the term is
            then called `perceptual_random_weights`).
        init_from: checkpoint of this class to start from (fine-tuning).

    Differs: layers, scales and weights of the perceptual loss are not published; those of PIRenderer, the parent of
    D-Net, stand in. Eq. 6 prints Euclidean norms; means of absolute differences do not grow with the image. The five
    reference frames are one window of the same video, other than the target's, as in Wav2Lip; the paper has "five
    randomly selected". At test time the paper's reference is the whole input frame, which D-Net has stabilised; here it
    is each frame's own crop, without D-Net. Adam's betas and the expert's mode are not published. Of the network:
    `LNet` (512 values of audio for the paper's 256), `LNetEncoder`, `LNetDecoder`.
    """

    channel_order: ClassVar[Literal["rgb", "bgr"]] = "bgr"
    experiment = "experiments/videoretalking_lnet.yaml"
    sync_expert_module = SyncExpertModule
    perceptual_terms = ("perceptual",)
    generator: LNet

    def __init__(
        self,
        image_size: int = SIZE,
        width: float = 1.0,
        blocks: int = 9,
        cross_attention: bool = True,
        sync_expert: str | None = None,
        l1_weight: float = 1.0,
        perceptual_weight: float = 1.0,
        sync_weight: float = 0.3,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        expert_mode: Literal["train", "eval"] = "eval",
        perceptual_weights: str = TORCHVISION,
        init_from: str | None = None,
        **steps: Any,
    ) -> None:
        super().__init__(image_size=image_size, **steps)
        self.save_hyperparameters()
        self.set_adam(lr, betas)
        SIDES.check(f"image_size is {image_size}", image_size, mend="Set --model.init_args.image_size.")
        self.expert_mode = expert_mode
        self.weights = {"l1": l1_weight, "perceptual": perceptual_weight, "sync": sync_weight}
        check_weights(self.weights)
        self.generator = LNet(width, blocks, cross_attention)
        self.perceptual_weights = perceptual_weights
        self.l1_loss, self.sync_loss = ReconstructionLoss(), SyncLoss()

    @classmethod
    def smoke_arguments(cls, folder: Path) -> dict[str, Any]:
        return {**super().smoke_arguments(folder), "width": 0.125, "blocks": 1, "perceptual_weights": RANDOM}

    @frozen("vgg19")
    def vgg_loss(self) -> VGGPyramidLoss | None:
        return VGGPyramidLoss(self.perceptual_weights) if self.weights["perceptual"] > 0 else None

    def forward(self, audio: Tensor, faces: Tensor) -> Tensor:
        """The generator's forward, BGR: audio (B,T,1,80,16), faces (B,6,T,96,96) -> (B,3,T,96,96), or 4-D without T."""
        return self.generator(audio, faces)

    def published(self) -> Recipe:
        """S3FD's boxes with 20 pixels below, as released; the input frame as its own reference (paper, C.2.3)."""
        boxes = DetectorBox("s3fd", pads=(0, 20, 0, 0), smoothing=5)
        return Recipe(boxes, self.size_hw, DetectorBox("s3fd"), references=References("same"), mel_padding="constant")

    def loss_terms(self, batch: Mapping[str, Tensor], stage: Stage) -> Terms:
        generated, target = self.windows(batch)
        terms = {"l1": self.l1_loss(generated, target)}
        if self.vgg_loss is not None:
            images = (self.from_network(to_time_major(x, 2)) for x in (generated, target))
            terms["perceptual"] = self.vgg_loss(*images)
        if self.sync_expert is not None:
            terms["sync"] = self.sync_loss(self.sync_expert, batch["mel"], shown_to_expert(generated))
        return Terms(terms)
