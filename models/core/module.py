# SPDX-License-Identifier: Apache-2.0
"""What every method has in common: how it generates frames, its frozen lip-sync expert, how a training starts."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn

from lipsync_bench.datamodules.faces.crop_rules.boxes import FaceMeshBox
from lipsync_bench.datamodules.recipes.recipe import Recipe
from lipsync_bench.datamodules.weights.store import Store
from lipsync_bench.datamodules.windows.dataset import WindowDataset
from lipsync_bench.datamodules.windows.generator import GeneratorWindows
from lipsync_bench.models.core.checkpoints import BenchModule, read_stage, read_start, save_module
from lipsync_bench.models.core.frozen import frozen
from lipsync_bench.models.core.inputs import FaceInputs, Generated
from lipsync_bench.models.core.session import CropSession, PasteFace, Session, Video
from lipsync_bench.models.parts.layers import mask_lower_half

_Own = TypeVar("_Own", bound="TalkingFaceModule")
_log = logging.getLogger(__name__)

__all__ = ["TalkingFaceModule"]


class TalkingFaceModule(BenchModule):
    """Base of every method: turns mel windows, faces and reference faces into talking faces.

    A method sets `generator` and `weights`, defines `loss_terms`, and `generate_chunk` where its generator needs it,
    and passes its size to this constructor. Batches are windows of the kind `window`, images float32 RGB in [0, 1]:
    `target`, `reference` (B,T,3,H,W), `mel` (B,1,80,16) for the whole window, `frame_mels` (B,T,1,80,16), unless a
    method brings its own. The frozen lip-sync expert is neither saved in nor needed by a checkpoint.

    Two more arguments mean the same in every method that has them: `sync_expert`, the path of a checkpoint of
    `sync_expert_module`, and `init_from`, the path of a checkpoint of the method's own class whose networks a training
    starts with (fine-tuning; a resumed training does not read it).

    Args:
        image_size: side of the square faces in pixels, or their height and width.
        steps: the arguments of `BenchModule`.
    """

    window: ClassVar[type[WindowDataset]] = GeneratorWindows
    """Kind of the batches in training, validation and test; data modules ask for it."""
    sync_expert_module: ClassVar[Any] = None
    """LightningModule class of the lip-sync expert; None for methods without."""
    method: ClassVar[str] = ""
    """Name in `list_methods()`; empty: the names of the folders of its module.py, or of its file."""
    generate_batch: ClassVar[int] = 64
    """Frames that go through the network at once in `generate`."""
    parts: ClassVar[Mapping[str, tuple[type[BenchModule], str]]] = {}
    """Of a system: what it is put together of by `assembled`, as its YAML names it: the class of each checkpoint, and
    the id of the official file."""
    networks: ClassVar[tuple[str, ...]] = ()
    """Ids of the files that `find_networks` looks for."""

    expert_mode: Literal["train", "eval"] = "eval"
    """"train" lets the expert's batch norms use batch statistics, as official code does; "eval" fixes them."""

    generator: nn.Module

    def __init__(self, image_size: int | tuple[int, int], **steps: Any) -> None:
        super().__init__(**steps)
        self.size_hw = (image_size, image_size) if isinstance(image_size, int) else image_size

    @property
    def image_size(self) -> int:
        """Side of the faces in pixels, of a method whose faces are square."""
        height, width = self.size_hw
        if height != width:
            raise ValueError(f"{type(self).__name__}: faces are {width} x {height}. Expected squares. Use size_hw")
        return height

    @classmethod
    def smoke_arguments(cls, folder: Path) -> dict[str, Any]:
        if cls.sync_expert_module is None:
            return {}
        path = folder / "sync_expert.ckpt"
        save_module(cls.sync_expert_module(**cls.sync_expert_module.smoke_arguments(folder)), path)
        return {"sync_expert": str(path)}

    @property
    def needs_sync_expert(self) -> bool:
        """Whether training and validation need the expert."""
        return self.weights.get("sync", 0) > 0

    @frozen("sync_expert_sha256", argument="sync_expert", training_mode=lambda module: module.expert_mode == "train")
    def sync_expert(self) -> nn.Module | None:
        """The frozen lip-sync expert."""
        if not (self.needs_sync_expert or self.hparams.get("sync_expert")):
            return None
        return read_stage(self, "sync_expert", self.sync_expert_module).network

    def smallest_batch(self, training: bool) -> int:
        return 2 if self.expert_mode == "train" and self.loaded("sync_expert") is not None else 1

    def begin(self) -> None:
        source = read_start(self)
        if source is not None:
            self.start_from(source)
        super().begin()

    def start_from(self: _Own, source: _Own) -> None:
        """Take the weights of another module of this class, whose training this one goes on with."""
        self.generator.load_state_dict(source.generator.state_dict())
        if self.discriminator is not None and source.discriminator is not None:
            self.take_discriminator(source.discriminator)
        elif self.discriminator is not None:
            _log.warning("%s: init_from has no discriminator; it starts untrained", type(self).__name__)

    def take_discriminator(self, other: nn.Module) -> None:
        """Start with the weights of another one of this class."""
        assert self.discriminator is not None
        self.discriminator.load_state_dict(other.state_dict())

    def hide_mouth(self, faces: Tensor) -> Tensor:
        """Faces (..., H, W) as the generator sees those whose mouth it draws: copies, 0 where they are hidden."""
        return mask_lower_half(faces)

    def input_faces(self, target: Tensor, reference: Tensor) -> Tensor:
        """What a generator sees of windows (B,T,3,H,W) in its colour order: (B,6,T,H,W), the target without its lower
        half, then the reference.
        """
        return torch.cat([self.hide_mouth(target), reference], dim=2).transpose(1, 2)

    def windows(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Generated and true windows (B,3,T,H,W) of a batch in the generator's colour order."""
        target, reference = (self.to_network(batch[key]) for key in ("target", "reference"))
        generated = self.generator(batch["frame_mels"], self.input_faces(target, reference))
        return generated, target.transpose(1, 2)

    def published(self) -> Recipe:
        """The recipe that the method was published with; the suite's own where a method states none."""
        return Recipe(FaceMeshBox(), self.size_hw, paste="feather")

    @property
    def recipe(self) -> Recipe:
        recipe = super().recipe
        assert recipe is not None
        return recipe

    def find_networks(self, store: Store) -> None:
        """Load the networks of others that its sessions need, before the first one; most need none.

        Raises:
            FileNotFoundError: Weights are not here without which it is another method.
            ValueError: They are those of something else.
        """

    @classmethod
    def networks_of(cls, options: Mapping[str, Any]) -> Sequence[str]:
        """Those of `networks` that a system with these arguments of the constructor looks for."""
        return cls.networks

    @classmethod
    def assembled(
        cls: type[_Own], modules: Mapping[str, BenchModule], sha256: Mapping[str, str], options: Mapping[str, Any]
    ) -> _Own:
        """A system of trained networks.

        Args:
            modules: One for each of `parts`.
            sha256: Of their files.
            options: Arguments of the constructor.

        Raises:
            TypeError, ValueError: The class does not take such options.
        """
        raise NotImplementedError(f"{cls.__name__} has no parts")

    def session(self, video: Video, recipe: Recipe, paste: PasteFace) -> Session:
        """The dubbing of one video: the way from its frames to dubbed ones.

        Args:
            video: The video and the audio's mel windows.
            recipe: How the method is fed, `self.recipe` or a change of it.
            paste: How its faces are pasted, as the recipe says.
        """
        return CropSession(self, video, recipe, paste)

    def generate_chunk(self, inputs: FaceInputs) -> Tensor | Generated:
        """Frames (N,3,h,w) for N frames' inputs, all images in the network's colour order.

        A generator that takes anything else than a mel, and the face without its lower half joined with the reference,
        needs a definition of its own; one with a fallback returns `Generated`.
        """
        faces = torch.cat([self.hide_mouth(inputs.faces), inputs.reference], dim=1)
        return self.generator(inputs.frame_mels, faces)

    @torch.no_grad()
    def generate(self, inputs: FaceInputs) -> Generated:
        """Talking faces, frame by frame, on the device of `inputs.faces`. Call it in evaluation mode.

        Raises:
            ValueError: a tensor has another shape, type or range.
        """
        self._check_inputs(inputs)
        frames, fallback = [], []
        for part in inputs.split(self.generate_batch):
            made = self.generate_chunk(self._placed(part))
            made = made if isinstance(made, Generated) else Generated.of(made)
            frames.append(self.from_network(made.frames).float().clamp(0, 1).to(part.faces.device))
            fallback.append(made.fallback.cpu())
        return Generated(torch.cat(frames), torch.cat(fallback))

    def _placed(self, inputs: FaceInputs) -> FaceInputs:
        """Inputs on the network's device, in its type and colour order."""
        mels, faces, references = (
            x.to(self.device).to(self.dtype) for x in (inputs.frame_mels, inputs.faces, inputs.references)
        )
        extras = {name: value.to(self.device).to(self.dtype) for name, value in inputs.extras.items()}
        return FaceInputs(mels, self.to_network(faces), self.to_network(references), extras)

    def _check_inputs(self, inputs: FaceInputs) -> None:
        frames, (height, width) = len(inputs.faces), self.size_hw
        count = self.recipe.references.count
        if inputs.references.shape[1:2] == (1,):  # one that stands for all, where a user asks for it
            count = 1
        for name, x, shape in (
            ("frame_mels", inputs.frame_mels, (frames, 1, 80, 16)),
            ("faces", inputs.faces, (frames, 3, height, width)),
            ("references", inputs.references, (frames, count, 3, height, width)),
        ):
            if frames == 0 or tuple(x.shape) != shape or not x.is_floating_point():
                raise ValueError(
                    f"generate: {name} is {x.dtype} {tuple(x.shape)}. Expected float {shape} with at least one frame. "
                    f"{type(self).__name__} works on {width} x {height} faces: resize them, or set image_size."
                )
        for name, x in (("faces", inputs.faces), ("references", inputs.references)):
            low, high = (float(value) for value in x.aminmax())
            if not (low >= 0 and high <= 1):
                raise ValueError(
                    f"generate: {name} lie in [{low:g}, {high:g}]. Expected [0, 1]. Divide 8-bit images by 255."
                )
        if set(inputs.extras) != set(self.recipe.inputs):
            raise ValueError(
                f"generate: further inputs {', '.join(inputs.extras) or 'none'}. Expected "
                f"{', '.join(self.recipe.inputs) or 'none'}, as the recipe says."
            )

    def batch_inputs(self, batch: Mapping[str, Tensor]) -> FaceInputs:
        """The inputs of all frames of a batch's windows, one window after the other."""
        return FaceInputs.of(*(batch[key].flatten(0, 1) for key in ("frame_mels", "target", "reference")))

    def predict_step(self, batch: Mapping[str, Tensor], batch_index: int) -> Tensor:
        """Generated windows (B,T,3,h,w) of a batch."""
        return self.generate(self.batch_inputs(batch)).frames.unflatten(0, batch["target"].shape[:2])

    def example_batch(self, batch_size: int = 2, seed: int = 0) -> dict[str, Tensor]:
        """A random batch with every key that the training step or `generate` reads (tests, memory checks)."""
        of_generate = GeneratorWindows.example_batch(batch_size, self.size_hw, seed)
        return {**of_generate, **self.window.example_batch(batch_size, self.size_hw, seed)}
