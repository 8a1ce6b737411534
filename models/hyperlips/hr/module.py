# SPDX-License-Identifier: Apache-2.0
"""HyperLips-HR: the second stage, which gives the base's face detail, at 128, 256 or 512 pixels."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipsync_bench.datamodules.recipes.recipe import Recipe
from lipsync_bench.datamodules.windows.loading import FaceDataModule
from lipsync_bench.models.core.checkpoints import read_stage, save_module
from lipsync_bench.models.core.frozen import frozen
from lipsync_bench.models.core.inputs import FaceInputs, Generated
from lipsync_bench.models.core.module import TalkingFaceModule
from lipsync_bench.models.core.training import Stage, Terms
from lipsync_bench.models.hyperlips.base.module import HyperLipsBase, Variant, adam_of, recipe_of
from lipsync_bench.models.hyperlips.base.network import HyperLipsBaseGenerator
from lipsync_bench.models.hyperlips.discriminators import HRDiscriminator
from lipsync_bench.models.hyperlips.hr.guide import Guide, Rule, guide
from lipsync_bench.models.hyperlips.hr.network import HRDecoder
from lipsync_bench.models.hyperlips.hr.windows import HRWindows
from lipsync_bench.models.hyperlips.losses import AdversarialName, LipLoss, make_adversarial
from lipsync_bench.models.parts.layers import mask_lower_half
from lipsync_bench.models.parts.losses import ReconstructionLoss, check_weights
from lipsync_bench.models.parts.perceptual import RANDOM, TORCHVISION, LPIPSLoss, VGGLoss

BASE_PX = 128
DECODER_PIXELS = 1 << 20  # of output in one call at inference: a quarter of a gigabyte for each of its maps
_ADVERSARIAL: dict[Variant, AdversarialName] = {"paper": "non_saturating", "released": "relativistic"}

__all__ = ["HyperLipsHR"]


class HyperLipsHR(TalkingFaceModule):
    """HyperLips-HR: a decoder that sharpens the base's face, guided by a sketch of its landmarks.

    Yaosen Chen, Yu Yao, Zhiqiang Li, Wei Wang, Yanru Zhang, Han Yang, Xuming Wen: HyperLips: Hyper Control Lips with
    High Resolution Decoder for Talking Face Generation. 2023. https://arxiv.org/abs/2310.05720
    Official code: github.com/semchan/HyperLips; it has no licence.

    ```
    base (B,5,3,128,128) ---+
    sketch (B,5,1,128,128) -+- (5B,6,128,128) - HRDecoder - I_HR (5B,3,S,S) - L1, VGG features with target
                                                            I_HR - discriminator
                                                            I_HR in lip_box, lip_mask - LPIPS, L1 with target
    ```
    Batches are windows of this method's own kind (windows.py), which read what `bench base-frames` wrote. The loss is
    the sum of all terms (Eq. 16, all lambdas 1). At inference the base network, which a checkpoint carries with it,
    makes the base frames, and Face Mesh finds the landmarks of the sketch in them. Where it finds none the enlarged
    base frame is the result (the failure that the paper's Fig. 6 shows), a fallback frame.

    There are two optimisers, and `trainer.global_step` counts the steps of both: `max_steps` and the step in a
    checkpoint's name are twice the number of batches. On several GPUs use
    `--trainer.strategy ddp_find_unused_parameters_true`.

    Args:
        scale: 1, 2 or 4, for faces of 128, 256 or 512 pixels.
        width: factor on the channels; 1.0 is published.
        base: path of a checkpoint of HyperLipsBase. Needed to train; a trained checkpoint contains it.
        variant: "paper" or "released": the adversarial term, what perceptual networks see, Adam, the form of Eq. 15.
        sketch: False: the sketch's channels are black, and no face is looked for at inference (Table IV).
        adversarial: kind of that term: "non_saturating", "relativistic" as released, or "as_printed" in Eq. 11 and 12,
            which does not train; None takes the variant's.
        adversarial_weight, vgg_weight, l1_weight, lip_lpips_weight, lip_l1_weight: lambdas; 0 leaves a term out.
        inference: "training": inputs as in training. "released": as the released inference, which enlarges the base
            frames to 128 * scale before the decoder, so that frames get scale * 128 * scale pixels; official weights
            are used with it.
        smooth_frames: half the length of the landmarks' running mean at inference; None for none, as published.
        lr: learning rate of Adam for the decoder.
        discriminator_lr: the same for the discriminator (paper: 1e-4, released: 5e-4).
        betas: of Adam (paper: not stated, 0.9 and 0.999 here; released: 0.5 and 0.999).
        perceptual_weights: ImageNet weights of VGG-19 and of the LPIPS network: "torchvision", a folder, or "random"
            for smoke runs (the terms' names say so then).
        init_from: checkpoint of this class to start from (fine-tuning, Table V).

    Differs: Eq. 11 and 12, taken literally, do not train (see `HyperLipsBase`); BCE for D and -log D for the decoder
    take their place. The paper names neither the layer of Eq. 13 nor the network of Eq. 15's LPIPS; VGG-19's conv5_4
    and VGG-16 are the released code's. Base frames are taken from the network as they are; the released preparation
    pastes them into the video, encodes it, and finds and cuts the faces again. Face Mesh looks at every frame by
    itself.
    """

    channel_order: ClassVar[Literal["rgb", "bgr"]] = "bgr"
    experiment = "experiments/hyperlips_hr.yaml"
    window = HRWindows
    perceptual_terms = ("vgg", "lip_lpips")
    generator: HRDecoder

    def __init__(
        self,
        scale: Literal[1, 2, 4] = 1,
        width: float = 1.0,
        base: str | None = None,
        variant: Variant = "paper",
        sketch: bool = True,
        adversarial: AdversarialName | None = None,
        adversarial_weight: float = 1.0,
        vgg_weight: float = 1.0,
        l1_weight: float = 1.0,
        lip_lpips_weight: float = 1.0,
        lip_l1_weight: float = 1.0,
        inference: Rule = "training",
        smooth_frames: int | None = None,
        lr: float = 1e-4,
        discriminator_lr: float | None = None,
        betas: tuple[float, float] | None = None,
        perceptual_weights: str = TORCHVISION,
        init_from: str | None = None,
        **steps: Any,
    ) -> None:
        super().__init__(image_size=BASE_PX * scale, **steps)
        self.save_hyperparameters()
        self.set_adam(lr, *adam_of(variant, betas, discriminator_lr))
        self.released = variant == "released"
        if variant not in _ADVERSARIAL:
            raise ValueError(f"variant is {variant!r}. Expected paper or released. Set --model.init_args.variant.")
        if inference not in ("training", "released"):
            raise ValueError(
                f"inference is {inference!r}. Expected training or released. Set --model.init_args.inference."
            )
        self.weights = {
            "adversarial": adversarial_weight, "vgg": vgg_weight, "l1": l1_weight, "lip_lpips": lip_lpips_weight,
            "lip_l1": lip_l1_weight,
        }  # fmt: skip
        check_weights(self.weights)
        self.generator = HRDecoder(scale, width)
        self.discriminator = HRDiscriminator(width) if adversarial_weight > 0 else None
        self.use_sketch, self.inference, self.smooth_frames = sketch, inference, smooth_frames
        self.perceptual_weights = perceptual_weights
        self.l1_loss, self.adversarial_loss = (
            ReconstructionLoss(),
            make_adversarial(adversarial or _ADVERSARIAL[variant]),
        )

    def published(self) -> Recipe:
        return recipe_of(self.hparams["variant"], self.size_hw)

    @classmethod
    def smoke_arguments(cls, folder: Path) -> dict[str, Any]:
        path = folder / "base.ckpt"
        save_module(HyperLipsBase(width=0.125), path)
        return {"width": 0.125, "base": str(path), "perceptual_weights": RANDOM}

    @frozen(
        "base_sha256",
        argument="base",
        make_without_weights=lambda module, record: HyperLipsBaseGenerator(record["base_width"]),
        recorded_attributes={"base_width": "width"},
    )
    def base(self) -> HyperLipsBaseGenerator:
        return read_stage(self, "base", HyperLipsBase).generator

    @frozen("vgg19")
    def vgg_loss(self) -> VGGLoss | None:
        wanted = self.weights["vgg"] > 0
        return VGGLoss(self.perceptual_weights, normalised=not self.released) if wanted else None

    @frozen("lpips_vgg16")
    def lpips_loss(self) -> LPIPSLoss | None:
        wanted = self.weights["lip_lpips"] > 0
        return LPIPSLoss(self.perceptual_weights, normalised=not self.released) if wanted else None

    @property
    def base_sha256(self) -> str | None:
        """SHA-256 of the checkpoint that the base comes from; None while it has not been loaded."""
        return getattr(self.loaded("base"), "source_sha256", None)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        made = data.made_by() if isinstance(data, FaceDataModule) else set()
        if made and made != {self.base_sha256}:
            makers, base = ", ".join(sorted(digest[:12] for digest in made)), str(self.base_sha256)[:12]
            raise ValueError(
                f"HyperLipsHR: the base frames were made by {makers}, the base is {base} (SHA-256). "
                "Expected the same checkpoint: a decoder is used on the faces it was trained on. Run: "
                "bench base-frames --checkpoint BASE.ckpt --root ROOT, with the BASE.ckpt of --model.init_args.base"
            )

    def attach_base(self, network: HyperLipsBaseGenerator, digest: str) -> HyperLipsBaseGenerator:
        """Make a stage-1 network, which stays frozen, part of this module.

        Args:
            network: The base.
            digest: SHA-256 of the checkpoint that it comes from.
        """
        self.base = network
        self.base.source_sha256 = digest  # type: ignore[assignment]
        return network

    def forward(self, base: Tensor, sketch: Tensor) -> Tensor:
        """Base faces (N,3,h,w) BGR and sketches (N,1,h,w), both in [0, 1] -> (N,3,scale*h,scale*w) BGR."""
        sketch = sketch if self.use_sketch else torch.zeros_like(sketch)
        return self.generator(torch.cat([base, sketch.expand_as(base)], dim=1))

    def generate_chunk(self, inputs: FaceInputs) -> Generated:
        faces, references = (self._small(x) for x in (inputs.faces, inputs.reference))
        base = self.base(inputs.frame_mels, torch.cat([mask_lower_half(faces), references], dim=1))
        seen = guide(base, self.inference, self.generator.scale, self.smooth_frames, self.use_sketch)
        frames = self._decoded(seen)
        missing = ~seen.found
        if missing.any():
            frames[missing] = F.interpolate(base[missing].to(frames), frames.shape[-2:], mode="bilinear")
        return Generated(frames, missing)

    def _decoded(self, seen: Guide) -> Tensor:
        """The decoder's frames, as many at a time as memory is meant to hold."""
        pixels = (seen.faces.shape[-1] * self.generator.scale) ** 2
        parts = (x.split(max(1, DECODER_PIXELS // pixels)) for x in (seen.faces, seen.sketches))
        return torch.cat([self(faces, sketches) for faces, sketches in zip(*parts, strict=True)])

    @staticmethod
    def _small(faces: Tensor) -> Tensor:
        if faces.shape[-1] == BASE_PX:
            return faces
        return F.interpolate(faces, (BASE_PX, BASE_PX), mode="bilinear")

    def loss_terms(self, batch: Mapping[str, Tensor], stage: Stage) -> Terms:
        """With images (5B,3,S,S), BGR."""
        base, target = (self.to_network(batch[key]).flatten(0, 1) for key in ("base", "target"))
        generated = self(base, batch["sketch"].flatten(0, 1))
        terms = {"l1": self.l1_loss(generated, target)}
        shown = (generated, target) if self.released else (self.from_network(generated), self.from_network(target))
        if self.vgg_loss is not None:
            terms["vgg"] = self.vgg_loss(*shown)
        if self.lpips_loss is not None or self.weights["lip_l1"] > 0:
            lips = LipLoss(self.lpips_loss, masked=not self.released)
            distance, terms["lip_l1"] = lips(*shown, *(batch[key].flatten(0, 1) for key in ("lip_mask", "lip_box")))
            if distance is not None:
                terms["lip_lpips"] = distance
        if self.discriminator is not None:
            terms["adversarial"] = self.adversarial_loss.of_generator(self.discriminator, target, generated)
        return Terms(terms, real=target, fake=generated)

    def discriminator_terms(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        return self.adversarial_loss.of_discriminator(discriminator, real, fake)
