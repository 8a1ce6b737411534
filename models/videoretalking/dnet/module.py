# SPDX-License-Identifier: Apache-2.0
"""VideoReTalking's D-Net and its training on pairs of frames of one video."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lipsync_bench.datamodules.faces.crop_rules.ffhq_rectangle import FFHQRectangle
from lipsync_bench.datamodules.recipes.recipe import Recipe
from lipsync_bench.datamodules.windows.dataset import WindowDataset
from lipsync_bench.models.core.checkpoints import read_start
from lipsync_bench.models.core.frozen import frozen
from lipsync_bench.models.core.training import BenchModule, Stage, Terms
from lipsync_bench.models.parts.losses import check_weights
from lipsync_bench.models.parts.perceptual import RANDOM, TORCHVISION, VGGPyramidLoss
from lipsync_bench.models.videoretalking.dnet.network import DNet
from lipsync_bench.models.videoretalking.dnet.windows import CoefficientPairs

_DEAD = ("conv1", "norm1")

__all__ = ["VideoReTalkingDNet"]


class VideoReTalkingDNet(BenchModule):
    """D-Net of VideoReTalking: gives all frames of a video one expression, told by 3DMM coefficients.

    Kun Cheng, Xiaodong Cun, Yong Zhang, Menghan Xia, Fei Yin, Mingrui Zhu, Xuan Wang, Jue Wang, Nannan Wang:
    VideoReTalking: Audio-based Lip Synchronization for Talking Head Video Editing In the Wild. SIGGRAPH Asia 2022.
    https://arxiv.org/abs/2211.14758
    The network is PIRenderer's (Ren et al., ICCV 2021, https://arxiv.org/abs/2109.08379), and so are, by its public
    configuration, the settings of the training on which the paper is silent.

    ```
    source (B,1,3,256,256) and the target's coefficients (B,73,27) - warp - VGG features with the target
                                                                   - edit - VGG features and Gram matrices
    and the other way round in the same step
    ```
    Loss: 2.5 perceptual(warp) in the first phase (Eq. 1); from step `warp_steps` on 4 (perceptual(edit) + 250 Gram
    (edit)) are added (Eq. 2 to 4), and all networks are trained. Batches are `CoefficientPairs`; `bench coefficients`
    makes what they read. The mean of the weights over time, which is what the official file holds, is Lightning's
    callback EMAWeightAveraging in experiments/videoretalking_dnet.yaml. On several GPUs use
    `--trainer.strategy ddp_find_unused_parameters_true`: the first phase trains a part of the parameters.

    Args:
        image_size: height and width of the faces; a multiple of 32 from 64 on, 256 is published.
        width: factor on the channels; 1.0 is published.
        warp_steps: steps of the first phase.
        warp_weight: of the perceptual term of the warped image.
        edit_weight: of the terms of the edited image together.
        perceptual_weight, gram_weight: lambdas of Eq. 4; the first one counts for the warped image, too.
        l1_weight: of the mean absolute differences of both images, for runs without VGG; 0 is published. They are
            logged all the same.
        lr: learning rate of Adam.
        betas: of Adam.
        perceptual_weights: ImageNet weights of VGG-19: "torchvision", a folder, or "random" for smoke runs (the terms'
            names say so then).
        init_from: checkpoint of this class to start from (fine-tuning); `warp_steps: 0` then trains all at once.

    Differs: layers, scales and weights of the perceptual loss, Gram's norm, Adam's betas, the weight of warping in the
    second phase and the pairs' both directions are PIRenderer's; the paper does not give them. Faces are cut by
    `FFHQRectangle`, as the released inference cuts them, from the prepared clips.
    """

    experiment = "experiments/videoretalking_dnet.yaml"
    window: ClassVar[type[WindowDataset]] = CoefficientPairs
    perceptual_terms = ("warp", "perceptual", "gram")
    parameters_without_gradient = tuple(
        f"network.editing_net.decoder.res{level}.res{block}.{name}."
        for level in range(3)
        for block in range(2)
        for name in _DEAD
    )

    def __init__(
        self,
        image_size: int = 256,
        width: float = 1.0,
        warp_steps: int = 200_000,
        warp_weight: float = 2.5,
        edit_weight: float = 4.0,
        perceptual_weight: float = 1.0,
        gram_weight: float = 250.0,
        l1_weight: float = 0.0,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        perceptual_weights: str = TORCHVISION,
        init_from: str | None = None,
        **steps: Any,
    ) -> None:
        super().__init__(**steps)
        self.save_hyperparameters()
        self.set_adam(lr, betas)
        given = {"warp": warp_weight, "edit": edit_weight, "perceptual": perceptual_weight, "gram": gram_weight}
        check_weights({**given, "l1": l1_weight})
        self.weights = {
            "warp": warp_weight * perceptual_weight, "perceptual": edit_weight * perceptual_weight,
            "gram": edit_weight * gram_weight, "l1": l1_weight, "l1_warp": l1_weight,
        }  # fmt: skip
        self.image_size, self.warp_steps = image_size, warp_steps
        self.network = DNet(width)
        self.perceptual_weights = perceptual_weights

    @classmethod
    def smoke_arguments(cls, folder: Path) -> dict[str, Any]:
        return {
            "image_size": 64, "width": 0.125, "warp_steps": 0, "l1_weight": 1.0, "perceptual_weights": RANDOM,
        }  # fmt: skip

    def begin(self) -> None:
        source = read_start(self)
        if source is not None:
            self.network.load_state_dict(source.network.state_dict())
        super().begin()

    def published(self) -> Recipe:
        return Recipe(FFHQRectangle(), (self.image_size, self.image_size), mel_padding="constant")

    @frozen("vgg19")
    def vgg_loss(self) -> VGGPyramidLoss | None:
        wanted = max(self.weights[name] for name in self.perceptual_terms) > 0
        return VGGPyramidLoss(self.perceptual_weights) if wanted else None

    @property
    def warps_only(self) -> bool:
        """Whether the first phase goes on."""
        return self._trainer is not None and self.trainer.global_step < self.warp_steps

    def forward(self, image: Tensor, coeff: Tensor) -> dict[str, Tensor]:
        """The network's forward: images (N,3,H,W) RGB in [-1, 1], coefficients (N,73,T)."""
        return self.network(image, coeff)

    def loss_terms(self, batch: Mapping[str, Tensor], stage: Stage) -> Terms:
        source, target = (batch[name].flatten(0, 1) for name in ("source", "target"))
        images, goal = torch.cat([source, target]), torch.cat([target, source])
        coefficients = torch.cat([batch[f"{name}_coefficients"] for name in ("target", "source")])
        made = self.network(images * 2 - 1, coefficients, "warp" if self.warps_only else None)
        warped = (made["warp_image"] + 1) / 2
        terms = {"l1_warp": F.l1_loss(warped, goal)}
        if self.vgg_loss is not None and self.weights["warp"] > 0:
            terms["warp"] = self.vgg_loss(warped, goal)
        if "fake_image" in made:
            edited = (made["fake_image"] + 1) / 2
            terms["l1"] = F.l1_loss(edited, goal)
            if self.vgg_loss is not None and self.weights["perceptual"] > 0:
                terms["perceptual"] = self.vgg_loss(edited, goal)
            if self.vgg_loss is not None and self.weights["gram"] > 0:
                terms["gram"] = self.vgg_loss.gram(edited, goal)
        return Terms(terms)

    def predict_step(self, batch: Mapping[str, Tensor], batch_index: int) -> Tensor:
        """Sources (B,3,H,W) with the expression and pose of their targets, in [0, 1]."""
        made = self(batch["source"].flatten(0, 1) * 2 - 1, batch["target_coefficients"])
        return (made["fake_image"] + 1) / 2

    def example_batch(self, batch_size: int = 2, seed: int = 0) -> dict[str, Tensor]:
        """A random batch with every key that the training step reads."""
        return self.window.example_batch(batch_size, (self.image_size, self.image_size), seed)
