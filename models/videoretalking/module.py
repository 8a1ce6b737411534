# SPDX-License-Identifier: Apache-2.0
"""VideoReTalking as a whole: L-Net, E-Net, D-Net and the editing around them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch

from lipsync_bench.datamodules.recipes.recipe import Recipe, References
from lipsync_bench.datamodules.weights.store import Store
from lipsync_bench.models.core.checkpoints import read_stage, save_module
from lipsync_bench.models.core.frozen import frozen
from lipsync_bench.models.core.inputs import FaceInputs, Generated
from lipsync_bench.models.core.session import PasteFace, Session, Video
from lipsync_bench.models.core.training import BenchModule
from lipsync_bench.models.core.weight_files import RANDOM, WithoutInit
from lipsync_bench.models.pretrained.face_coefficients import DEEP3D, FROM_STORE, find_face_coefficients
from lipsync_bench.models.pretrained.ganimation import EMOTIONS, GANimation, emotional_faces, shared_ganimation
from lipsync_bench.models.pretrained.gfpgan import restore_faces, shared_gfpgan
from lipsync_bench.models.pretrained.parsenet import parse_aligned, shared_parsenet
from lipsync_bench.models.videoretalking.blending import Parse, Restore
from lipsync_bench.models.videoretalking.dnet.module import VideoReTalkingDNet
from lipsync_bench.models.videoretalking.dnet.network import DNet
from lipsync_bench.models.videoretalking.enet.module import VideoReTalkingENet
from lipsync_bench.models.videoretalking.enet.network import SIZE
from lipsync_bench.models.videoretalking.expressions import NEUTRAL, TEMPLATES, expression_template
from lipsync_bench.models.videoretalking.session import Stabiliser, StabilisingSession

_RESTORED = "restored references"
_GANIMATION = "ganimation"
UpperFace = Literal["generated", "original", "sad", "angry", "surprise"]

__all__ = ["VideoReTalking"]


def _of_size(network: DNet, image_size: int) -> DNet:
    network.image_size = image_size
    return network


class VideoReTalking(VideoReTalkingENet):
    """VideoReTalking: frames with a neutral expression show L-Net and E-Net whom they draw, and a parser where.

    Kun Cheng, Xiaodong Cun, Yong Zhang, Menghan Xia, Fei Yin, Mingrui Zhu, Xuan Wang, Jue Wang, Nannan Wang:
    VideoReTalking: Audio-based Lip Synchronization for Talking Head Video Editing In the Wild. SIGGRAPH Asia 2022.
    https://arxiv.org/abs/2211.14758
    Official code: github.com/OpenTalker/video-retalking (Apache-2.0; inference only; for its weights, see its README).
    The row "L + E + D" of the paper's Table 3, and with `template: smile` those of Table 4.

    ```
    frames - FFHQ's rectangle of the first face - 256 px - 3DMM coefficients, their expression replaced - D-Net
           - (GFPGAN) - FFHQ's square of it pasted into the frame - S3FD's box - reference (T,3,384,384)
    S3FD's box of the frame, its lower half hidden, reference, audio - L-Net, E-Net - face (T,3,384,384)
           - pasted - (mouth of GFPGAN's) - pasted where ParseNet finds a face, by Laplacian pyramids
    ```
    It is put together of trained or official networks by a YAML in experiments/systems/, or of a checkpoint. It is not
    trained itself: the networks are, by their own runs.

    Args:
        image_size: height and width of the faces, as of VideoReTalkingENet.
        dnet: path of a checkpoint of VideoReTalkingDNet. A checkpoint of this class contains its network.
        template: the expression that all frames get: neutral, smile, or the path of a photograph.
        share: how far it lies on the way from neutral to the template (Table 4).
        one_shot: make all references of the first face, moved as the video's (appendix B).
        upper_face: what is above the hidden half of the face: "generated" as E-Net draws it, "original" as the video
            has it, or that with an emotion, sad, angry or surprise, by GANimation (appendix A).
        coefficients: weights of the network that regresses 3DMM coefficients: "official" for the file in the store, a
            path, or "random" for smoke runs.
        enet: the other arguments of VideoReTalkingENet.

    Differs: all 68 points are dlib's, where the released code has those of 2D-FAN and of RetinaFace. GFPGAN 1.3
    restores the stabilised faces in GPEN's place, whose network is not here. Steps whose weights are not here are left
    out and named in rows, but for the coefficients, without which it would be another method. Upper-face emotions
    (GANimation) are not here. The released code does not smooth the landmarks of the stabilised faces, which the paper
    (3.1) does; neither does this one.
    """

    parts: ClassVar[Mapping[str, tuple[type[BenchModule], str]]] = {
        "enet": (VideoReTalkingENet, "videoretalking_enet"),
        "dnet": (VideoReTalkingDNet, "videoretalking_dnet"),
    }
    networks = (DEEP3D, TEMPLATES, "parsenet", "gfpgan_1_3", _GANIMATION)

    def __init__(
        self,
        image_size: int = SIZE,
        dnet: str | None = None,
        template: str = NEUTRAL,
        share: float = 1.0,
        one_shot: bool = False,
        upper_face: UpperFace = "generated",
        coefficients: str = FROM_STORE,
        **enet: Any,
    ) -> None:
        super().__init__(image_size=image_size, **enet)
        if not 0 <= share <= 1:
            raise ValueError(f"share is {share}. Expected a number from 0 to 1. Correct it where it is set: share")
        if upper_face not in get_args(UpperFace):
            raise ValueError(
                f"upper_face is {upper_face!r}. Expected one of {', '.join(get_args(UpperFace))}. Correct it where it "
                "is set: upper_face"
            )
        self.upper_face: str = upper_face
        self.template, self.share, self.one_shot, self.coefficients = template, share, one_shot, coefficients
        self._stabiliser: Stabiliser | None = None
        self._emotions: GANimation | None = None

    @classmethod
    def smoke_arguments(cls, folder: Path) -> dict[str, Any]:
        with torch.random.fork_rng(devices=[]):  # E-Net's random weights stay what they are without D-Net
            save_module(VideoReTalkingDNet(**VideoReTalkingDNet.smoke_arguments(folder)), folder / "dnet.ckpt")
        return {**super().smoke_arguments(folder), "dnet": str(folder / "dnet.ckpt"), "coefficients": RANDOM}

    @classmethod
    def networks_of(cls, options: Mapping[str, Any]) -> Sequence[str]:
        return [id for id in cls.networks if id != _GANIMATION or options.get("upper_face") in EMOTIONS]

    @classmethod
    def assembled(
        cls, modules: Mapping[str, BenchModule], sha256: Mapping[str, str], options: Mapping[str, Any]
    ) -> "VideoReTalking":
        enet, dnet = modules["enet"], modules["dnet"]
        assert isinstance(enet, VideoReTalkingENet)
        assert isinstance(dnet, VideoReTalkingDNet)
        sizes = {name: enet.hparams[name] for name in ("image_size", "width", "lnet_width", "lnet_blocks")}
        with WithoutInit():  # E-Net's weights come next
            system = cls(**sizes, adversarial_weight=0.0, **options)
        system.generator = enet.generator
        system.dnet = _of_size(dnet.network, dnet.image_size)
        system.dnet.source_sha256 = sha256["dnet"]  # type: ignore[assignment]
        own = system.published()
        fed = replace(enet.recipe, references=own.references, paste=own.paste)
        system._recipe = system.recipe_changes.applied(fed)
        return system.eval()

    @frozen(
        "dnet_sha256",
        argument="dnet",
        make_without_weights=lambda module, record: _of_size(DNet(record["dnet_width"]), record["dnet_size"]),
        recorded_attributes={"dnet_width": "width", "dnet_size": "image_size"},
    )
    def dnet(self) -> DNet:
        with torch.random.fork_rng(devices=[]):  # it is read when it is first needed, wherever the random numbers are
            stored = read_stage(self, "dnet", VideoReTalkingDNet)
        return _of_size(stored.network, stored.image_size)

    def published(self) -> Recipe:
        """As E-Net's, with stabilised references and the parser's paste."""
        return replace(super().published(), references=References("stabilised"), paste="parser_pyramid")

    def find_networks(self, store: Store) -> None:
        device = str(self.device)
        size_hw = (self.dnet.image_size, self.dnet.image_size)
        regress, digest = find_face_coefficients(self.coefficients, store)
        expression, instead = expression_template(self.template, self.share, store, regress, size_hw)
        if self.upper_face in EMOTIONS:
            editor = store.need(_GANIMATION)
            self._emotions = shared_ganimation(editor.path, editor.sha256, device)
        parser, restorer = store.find("parsenet"), store.find("gfpgan_1_3")
        parse: Parse | None = None
        restore: Restore | None = None
        if parser is not None and restorer is not None:
            parse = partial(parse_aligned, shared_parsenet(parser.path, parser.sha256, device))
            gfpgan = shared_gfpgan(restorer.path, restorer.sha256, device)

            def restore(face: np.ndarray) -> np.ndarray:
                return restore_faces(gfpgan, face[None])[0]

        left_out = instead if restore else (*instead, _RESTORED)
        self._stabiliser = Stabiliser(
            self.dnet, size_hw, regress.to(device), digest, expression, self.one_shot, parse, restore, left_out
        )

    def generate(self, inputs: FaceInputs) -> Generated:
        """As `TalkingFaceModule.generate`, with the upper half that was asked for."""
        made = super().generate(inputs)
        if self.upper_face == "generated":
            return made
        faces = inputs.faces
        if self.upper_face in EMOTIONS:
            if self._emotions is None:
                self.find_networks(Store())
            assert self._emotions is not None
            faces = emotional_faces(self._emotions, faces.to(self.device), self.upper_face)
        frames = made.frames.clone()
        upper = slice(frames.shape[2] // 2)
        frames[:, :, upper] = faces[:, :, upper].to(frames)
        return Generated(frames, made.fallback)

    def session(self, video: Video, recipe: Recipe, paste: PasteFace) -> Session:
        if recipe.references.kind != "stabilised":
            return super().session(video, recipe, paste)
        if self._stabiliser is None:
            self.find_networks(Store())
        assert self._stabiliser is not None
        return StabilisingSession(self, video, recipe, paste, self._stabiliser)
