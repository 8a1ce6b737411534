# SPDX-License-Identifier: Apache-2.0
"""G4G: its losses and their weights, its training on frames and on clips."""

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipsync_bench.datamodules.faces.crop_rules.g4g import LandmarkCrop
from lipsync_bench.datamodules.recipes.recipe import Recipe, References
from lipsync_bench.models.core.frozen import frozen
from lipsync_bench.models.core.inputs import FaceInputs
from lipsync_bench.models.core.module import TalkingFaceModule
from lipsync_bench.models.core.session import PasteFace, Session, Video
from lipsync_bench.models.core.training import Stage, Terms
from lipsync_bench.models.g4g.contrast import Contrasted, Places, contrast
from lipsync_bench.models.g4g.discriminators import G4GDiscriminators, least_squares
from lipsync_bench.models.g4g.landmarks import INPUTS, Landmarks
from lipsync_bench.models.g4g.losses import VGGTwoSizesLoss, masked_l1
from lipsync_bench.models.g4g.network import REFERENCES, Features, G4GGenerator
from lipsync_bench.models.g4g.regions import HEIGHT, WIDTH, Mask, hidden_part, square
from lipsync_bench.models.g4g.session import G4GSession
from lipsync_bench.models.g4g.sync_expert import G4GSyncExpertModule
from lipsync_bench.models.g4g.windows import FAR_WINDOWS, G4GFrames, G4GWindows
from lipsync_bench.models.parts.layers import stack_lower_halves
from lipsync_bench.models.parts.losses import SyncLoss, check_weights
from lipsync_bench.models.parts.perceptual import TORCHVISION
from lipsync_bench.models.wav2lip.sync_expert import SyncExpert

ExpertForm = Literal["contrastive", "bce"]
SCALES = (0.25, 0.5, 1.0)

__all__ = ["G4G", "SCALES"]


class G4G(TalkingFaceModule):
    """G4G: features of five references are deformed as aligned features of face and audio say, and drawn as a mouth.

    G4G: A Generic Framework for High Fidelity Talking Face Generation with Fine-grained Intra-modal Alignment. 2024.
    https://arxiv.org/abs/2402.18122
    There is no official code and there are no official weights.

    ```
    target (B,T,3,416,320), mouth square zeroed --+
    references (B,5,3,416,320) -------------------+- G4GGenerator - G (B T,3,416,320) - L1 in a square, VGG, with target
    landmark image, face mask (B,1 or T,1,416,320)+                 G - discriminators of one frame and of five
    frame_mels (B,T,1,80,16) ---------------------+                 G, lower halves, and mel - frozen expert - sync
    aligned features and audio - contrastive; aligned features and landmarks - cosine
    ```
    Loss (Eq. 17): 1 L_v + 2 L_p + 3 L_GAN + 4 L_r + 5 L_con, L_con the contrastive term of the aligned features plus
    the expert's. Where the paper is silent, DINet's values are the defaults: it is G4G's parent, and G4G's ablation
    without alignment has its row of the tables to 0.01 dB.

    Training is in stages: single frames of 104 x 80, of 208 x 160, of 416 x 320, then clips of five frames with sync,
    each from the one before (`init_from`). There are two optimisers, and `trainer.global_step` counts the steps of
    both. On several GPUs use `--trainer.strategy ddp_find_unused_parameters_true`.

    Args:
        image_scale: 0.25, 0.5 or 1, of 416 x 320.
        width: factor on the channels; 1.0 is published.
        frames: 5, clips with the five-frame discriminator and the expert; 1, single frames without.
        mask: what of the source is hidden: the square of 256 pixels (4.3; DINet) or the lower_half (3.1.1, 3.2).
        landmarks: whose points are drawn: those of the first reference, or source_without_mouth, the target's own
            without jaw and lips.
        alignment: False has DINet's convolutions in its place, and none of its two losses (Table 2).
        supervision: False weighs L_r all over the image in the place of one of several squares (Table 2).
        fusion: False has neither face mask nor blend net; the decoder's image is pasted, as a box (Table 2).
        align_blocks: AdaIN blocks (choice).
        isotropic: channels turn in cells; False is the literal form, which shears.
        identity_init: the deformation starts as the identity; False starts at random, as DINet does.
        squares: sides of the squares of the multi-scale supervision, of a face of 416 x 320 (choice; the paper has no
            numbers). One is drawn for each window in training; else the middle one counts.
        landmark_weight, perceptual_weight, adversarial_weight, reconstruction_weight, contrastive_weight: of L_v, L_p,
            L_GAN, L_r, L_con. At 0 a term is not computed, but for L_r, which is logged all the same.
        sync_weight: of the expert's term inside L_con (choice).
        expert_form: contrastive, the same cross-entropy with the expert's embeddings of the generated frames, or bce,
            -log of the cosine as in Wav2Lip's family.
        tau: temperature of both contrastive terms.
        learn_tau: whether that of the aligned features is learnt.
        mask_frames: frames of one clip that are closer than this are no negatives of each other.
        hard_negatives: further windows of each clip, at most 5.
        momentum: of slow copies of the contrastive heads, ALBEF's 0.995; 0 for none.
        lr: learning rate of Adam, for generator and discriminators.
        betas: of Adam; the paper gives none, these are DINet's.
        sync_expert: path of a checkpoint of G4GSyncExpertModule, with frames: 5 needed to train and validate unless
            sync_weight is 0.
        expert_mode: "eval" fixes the expert's batch norms; "train" has them use the statistics of the batch.
        perceptual_weights: ImageNet weights of VGG-19: "torchvision", a folder, or "random" for smoke runs (the term is
            then called `perceptual_random_weights`).
        init_from: checkpoint of this class to start from, of any size: the stage before, or fine-tuning.

    Differs: the paper's features are vectors; those of source and references are maps here, and what the losses and the
    code of the deformation read is the mean over the aligned map. L_v stops the gradient into the landmarks' feature.
    Eq. 15 compares source with reference; generated and real faces are compared here. Its aligned feature sees no mouth
    of the moment, so that the first contrastive term has only identity and the upper face to go by; the expert's sees
    lips. Where the source is hidden the composite of the fusion shows the generated face, whatever the mask says: the
    blend net would else see the answer, or zeros. The paper names no expert: this suite's, trained on this crop.
    DINet's learning rate falls to 0 over its last 200 of 400 epochs; here it is constant.
    """

    experiment = "experiments/g4g.yaml"
    sync_expert_module = G4GSyncExpertModule
    perceptual_terms = ("perceptual",)
    generate_batch: ClassVar[int] = 16
    generator: G4GGenerator
    discriminator: G4GDiscriminators | None

    def __init__(
        self,
        image_scale: float = 1.0,
        width: float = 1.0,
        frames: Literal[1, 5] = 5,
        mask: Mask = "square",
        landmarks: Landmarks = "reference",
        alignment: bool = True,
        supervision: bool = True,
        fusion: bool = True,
        align_blocks: int = 2,
        isotropic: bool = True,
        identity_init: bool = True,
        squares: tuple[int, ...] = (192, 256, 320),
        landmark_weight: float = 1.0,
        perceptual_weight: float = 2.0,
        adversarial_weight: float = 3.0,
        reconstruction_weight: float = 4.0,
        contrastive_weight: float = 5.0,
        sync_weight: float = 1.0,
        expert_form: ExpertForm = "contrastive",
        tau: float = 0.07,
        learn_tau: bool = True,
        mask_frames: int = 3,
        hard_negatives: int = 5,
        momentum: float = 0.0,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        sync_expert: str | None = None,
        expert_mode: Literal["train", "eval"] = "eval",
        perceptual_weights: str = TORCHVISION,
        init_from: str | None = None,
        **steps: Any,
    ) -> None:
        for name, value, choices in (
            ("image_scale", float(image_scale), SCALES),
            ("frames", frames, (1, 5)),
            ("mask", mask, get_args(Mask)),
            ("landmarks", landmarks, get_args(Landmarks)),
            ("expert_form", expert_form, get_args(ExpertForm)),
            ("hard_negatives", hard_negatives, range(FAR_WINDOWS + 1)),
        ):
            if value not in choices:
                raise ValueError(
                    f"G4G: {name} is {value!r}. Expected one of {', '.join(map(str, choices))}. Set "
                    f"--model.init_args.{name}"
                )
        super().__init__((int(HEIGHT * image_scale), int(WIDTH * image_scale)), **steps)
        own = signature(type(self)).parameters
        self.save_hyperparameters(ignore=[name for name in signature(G4G).parameters if name not in own])
        self.set_adam(lr, betas)
        self.window = G4GWindows if frames == 5 else G4GFrames  # type: ignore[misc]
        self.expert_mode, self.landmarks = expert_mode, landmarks
        given = {
            "landmark": landmark_weight, "perceptual": perceptual_weight, "adversarial": adversarial_weight,
            "reconstruction": reconstruction_weight, "contrastive": contrastive_weight, "sync": sync_weight,
        }  # fmt: skip
        check_weights(given)
        self.sync_term = "sync" if expert_form == "bce" else "sync_contrastive"
        self.weights = {
            "landmark": landmark_weight if alignment else 0.0,
            "perceptual": perceptual_weight,
            "adversarial": adversarial_weight,
            "masked_l1": reconstruction_weight,
            "contrastive": contrastive_weight if alignment else 0.0,
            self.sync_term: contrastive_weight * sync_weight if frames == 5 else 0.0,
        }
        self.generator = G4GGenerator(
            width, alignment, fusion, align_blocks, isotropic, identity_init, momentum, tau, learn_tau
        )
        self.discriminator = G4GDiscriminators(frames, width) if adversarial_weight > 0 else None
        self.inputs = tuple(name for name, wanted in zip(INPUTS[landmarks], (alignment, fusion), strict=True) if wanted)
        self.tau, self.mask_frames, self.hard_negatives = tau, mask_frames, hard_negatives
        self.squares = tuple(squares) if supervision else ()
        self.perceptual_weights = perceptual_weights
        self.sync_loss = SyncLoss()
        self.hidden: Tensor
        self.register_buffer("hidden", hidden_part(self.size_hw, mask), persistent=False)

    @classmethod
    def smoke_arguments(cls, folder: Path) -> dict[str, Any]:
        # Without VGG, which takes most of the time; an identity would ignore the audio.
        small = {"image_scale": 0.25, "width": 0.0625, "perceptual_weight": 0.0, "identity_init": False}
        return {**super().smoke_arguments(folder), **small}

    @property
    def needs_sync_expert(self) -> bool:
        return self.weights[self.sync_term] > 0

    @frozen("vgg19")
    def vgg_loss(self) -> VGGTwoSizesLoss | None:
        return VGGTwoSizesLoss(self.perceptual_weights) if self.weights["perceptual"] > 0 else None

    def published(self) -> Recipe:
        """The crop of DINet, five frames drawn once for a video; enlarged a little more in training."""
        return Recipe(
            LandmarkCrop(),
            self.size_hw,
            LandmarkCrop(enlarge=1.1),
            references=References("random", REFERENCES),
            inputs=self.inputs,
            paste="mask" if self.generator.blend is not None else "box",
        )

    def session(self, video: Video, recipe: Recipe, paste: PasteFace) -> Session:
        return G4GSession(self, video, recipe, paste)

    def take_discriminator(self, other: nn.Module) -> None:
        """Stages of single frames have no five-frame discriminator: it begins untrained."""
        assert self.discriminator is not None
        own, given = self.discriminator.state_dict(), other.state_dict()
        self.discriminator.load_state_dict({**own, **{name: x for name, x in given.items() if name in own}})

    def hide_mouth(self, faces: Tensor) -> Tensor:
        return faces * (1 - self.hidden)

    def batch_inputs(self, batch: Mapping[str, Tensor]) -> FaceInputs:
        frames = batch["target"].shape[1]
        references = batch["references"].repeat_interleave(frames, dim=0)
        extras = {name: batch[name].expand(-1, frames, -1, -1, -1).flatten(0, 1) for name in self.inputs}
        return FaceInputs(batch["frame_mels"].flatten(0, 1), batch["target"].flatten(0, 1), references, extras)

    def generate_chunk(self, inputs: FaceInputs) -> Tensor:
        references, extras = inputs.references, dict(inputs.extras)
        if torch.equal(references, references[:1].expand_as(references)):  # those of a video: seen once
            references = references[:1]
        references = references.expand(-1, REFERENCES, -1, -1, -1)
        return self._draw(inputs.frame_mels, inputs.faces, references, extras)[0]

    def _draw(
        self, mels: Tensor, faces: Tensor, references: Tensor, extras: Mapping[str, Tensor]
    ) -> tuple[Tensor, Features]:
        """Mels (N,1,80,16), faces (N,3,H,W), references (M,5,3,H,W), inputs of M or N images each."""
        landmarks, mask = (extras.get(name) for name in INPUTS[self.landmarks])
        if mask is not None:
            mask = torch.maximum(mask, self.hidden)  # the source shows nothing there
        return self.generator(mels, self.hide_mouth(faces), references.flatten(1, 2), landmarks, mask)

    def loss_terms(self, batch: Mapping[str, Tensor], stage: Stage) -> Terms:
        """With images (B,T,3,H,W)."""
        target = batch["target"]
        frames, flat = target.shape[1], target.flatten(0, 1)
        extras = {name: batch[name].flatten(0, 1) for name in self.inputs}
        made, seen = self._draw(batch["frame_mels"].flatten(0, 1), flat, batch["references"], extras)
        generated = made.unflatten(0, target.shape[:2])
        mask = self._supervised(len(target), stage).repeat_interleave(frames, dim=0)
        terms = {"masked_l1": masked_l1(made, flat, mask)}
        watched: dict[str, Tensor] = {}
        if self.weights["landmark"] > 0:
            terms["landmark"] = self.generator.landmark_distance(seen)
        if self.vgg_loss is not None:
            terms["perceptual"] = self.vgg_loss(made, flat)
        if self.discriminator is not None:
            terms["adversarial"] = sum(
                (least_squares(scores, 1.0) for scores in self.discriminator(generated).values()),
                start=made.new_zeros(()),
            )
        if self.weights["contrastive"] > 0:
            found = self._contrast(batch, seen, stage)
            terms["contrastive"] = found.loss
            watched |= {"contrastive_accuracy": found.accuracy, "contrastive_chance": found.chance}
        expert = self.sync_expert if self.needs_sync_expert else None
        if isinstance(expert, SyncExpert):
            size = (SyncExpert.face_px, SyncExpert.face_px)
            bgr = F.interpolate(made, size, mode="area").unflatten(0, target.shape[:2]).flip(2)
            if self.sync_term == "sync":
                terms["sync"] = self.sync_loss(expert, batch["mel"], bgr)
            else:
                found = self._expert_contrast(expert, batch, bgr, stage)
                terms["sync_contrastive"], watched["sync_accuracy"] = found.loss, found.accuracy
        return Terms(terms, watched, target, generated)

    def discriminator_terms(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """For each of the two (mean (D(real) - 1)^2 + mean D(fake)^2) / 2."""
        of_real, of_fake = discriminator(real), discriminator(fake)
        halves = {name: (least_squares(of_real[name], 1.0) + least_squares(of_fake[name], 0.0)) / 2 for name in of_real}
        return {"disc" if name == "frame" else f"disc_{name}": value for name, value in halves.items()}

    def _supervised(self, windows: int, stage: Stage) -> Tensor:
        """(windows,1,H,W): 1 where L_r counts."""
        if not self.squares:
            return self.hidden.new_ones(windows, 1, *self.size_hw)
        middle = len(self.squares) // 2
        chosen = torch.randint(len(self.squares), (windows,)).tolist() if stage == "train" else [middle] * windows
        mask = self.hidden.new_zeros(windows, 1, *self.size_hw)
        for window, number in enumerate(chosen):
            rows, columns = square(self.size_hw, self.squares[number])
            mask[window, :, rows, columns] = 1
        return mask

    def _of_all(self, x: Tensor, stage: Stage) -> Tensor:
        """Rows of all processes in training, with their gradients; this process's in validation, where they vary."""
        if stage != "train" or self._trainer is None or self.trainer.world_size == 1:
            return x
        return self.all_gather(x, sync_grads=x.requires_grad).flatten(0, 1)  # type: ignore[union-attr]

    def _far(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Places]:
        """Mels (B K,1,80,16) of the further windows, and their places."""
        count = self.hard_negatives
        clips = batch["clip"].repeat_interleave(count)
        return batch["far_mels"][:, :count].flatten(0, 1), Places(clips, batch["far_places"][:, :count].flatten())

    def _contrast(self, batch: Mapping[str, Tensor], seen: Features, stage: Stage) -> Contrasted:
        """Aligned features of all frames against the audio of all frames, and further windows."""
        frames = batch["places"].shape[1]
        mels, far = self._far(batch)
        audio = torch.cat([seen.audio, self.generator.audio_encoder(mels)]) if len(mels) else seen.audio
        heads, count = self.generator.contrast, len(seen.audio)
        v, a, slow_v, slow_a = heads.vectors(seen.aligned, audio)
        vectors = [v, a[:count], slow_v, slow_a[:count], slow_a[count:]]
        v, a, slow_v, slow_a, slow_far = (self._of_all(x, stage) for x in vectors)
        own = Places(batch["clip"].repeat_interleave(frames), batch["places"].flatten())
        own, far = (Places(*(self._of_all(x, stage) for x in places)) for places in (own, far))
        scale = heads.scale
        return contrast(scale * v @ slow_a.T, scale * a @ slow_v.T, own, scale * v @ slow_far.T, far, self.mask_frames)

    def _expert_contrast(
        self, expert: SyncExpert, batch: Mapping[str, Tensor], bgr: Tensor, stage: Stage
    ) -> Contrasted:
        """The frozen expert's embeddings of generated clips (B,5,3,96,96) against those of all windows."""
        mels, far = self._far(batch)
        audio, video = expert(batch["mel"], stack_lower_halves(bgr))
        far_audio = F.normalize(expert.audio_encoder(mels).flatten(1)) if len(mels) else audio[:0]
        own = Places(batch["clip"], batch["places"][:, 0])
        v, a, far_a = (self._of_all(x.float(), stage) for x in (video, audio, far_audio))
        own, far = (Places(*(self._of_all(x, stage) for x in places)) for places in (own, far))
        to_audio = v @ a.T / self.tau
        return contrast(to_audio, to_audio.T, own, v @ far_a.T / self.tau, far, self.mask_frames)
