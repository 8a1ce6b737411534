# SPDX-License-Identifier: Apache-2.0
"""From a video and audio to dubbed frames: the one way that evaluation, dubbing, previews and second stages take.

A session is made for one video. It is given the video's frames chunk by chunk and gives them back with another mouth.
By default each face is cut by the recipe's rule, generated, and pasted back; a method that must see the whole video
before its first frame defines a session of its own, which opens the video once more through `Video.frames`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
import torch

from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.faces.crop_rules.rule import Cut
from lipsync_bench.datamodules.faces.geometry import Geometry
from lipsync_bench.datamodules.recipes.recipe import Recipe, References
from lipsync_bench.models.core.inputs import FaceInputs

if TYPE_CHECKING:
    from lipsync_bench.models.core.module import TalkingFaceModule

BATCH_FRAMES = 16

__all__ = [
    "BATCH_FRAMES",
    "CropSession",
    "FaceMaker",
    "PasteFace",
    "Session",
    "Video",
    "dub_frames",
    "face_bytes",
    "images_to_batch",
]


def _made_anew(network: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    return make()


@dataclass(frozen=True)
class Video:
    """A video to be dubbed.

    Args:
        geometry: Where the face is in each of its T frames.
        frame_mels: (first, count) -> float32 (count,1,80,16), the mel windows of the dubbed frames from `first` on.
        frames: Opens the video: its T frames, uint8 RGB (H,W,3), from the beginning.
        coefficients: (a network and what it is shown, what makes them) -> the 3DMM coefficients of the frames, float32
            (T,262): those that lie beside the clip, else made and left there; by default made anew.
    """

    geometry: Geometry
    frame_mels: Callable[[int, int], np.ndarray]
    frames: Callable[[], Iterator[np.ndarray]]
    coefficients: Callable[[str, Callable[[], np.ndarray]], np.ndarray] = _made_anew

    def __len__(self) -> int:
        return len(self.geometry)


class PasteFace(Protocol):
    """How generated faces are pasted into their frames."""

    name: str
    """In rows: "box", "contour", "parsing" and the start of the parser's SHA-256 ..."""
    left_out: tuple[str, ...] = ()
    """Names of its published steps that it leaves out, for want of their weights."""

    def __call__(self, frame: np.ndarray, cut: Cut, generated: np.ndarray, contour: np.ndarray) -> np.ndarray:
        """A changed copy of a frame.

        Args:
            frame: uint8 (H,W,3).
            cut: Where the face was cut out.
            generated: float32 (3,h,w) in [0, 1].
            contour: (30,2), the mesh points `geometry.CONTOUR` in pixels of the frame.
        """


def face_bytes(generated: np.ndarray) -> np.ndarray:
    """A generated face, float (3,h,w) in [0, 1], as uint8 (h,w,3): scaled to 0..255 and truncated, as published."""
    return (generated.transpose(1, 2, 0) * 255).astype(np.uint8)


def images_to_batch(images: Sequence[np.ndarray]) -> torch.Tensor:
    """uint8 images (H,W,3) of one size as float32 (T,3,H,W) in [0, 1]."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div_(255)


class Session(ABC):
    """The dubbing of one video. What it could not do is counted, not hidden."""

    def __init__(self) -> None:
        self.fallback_frames = 0
        """Frames so far that the method made by its fallback."""
        self.passed_through = 0
        """Frames so far without a visible face, which were returned as they came."""
        self.unenhanced = 0
        """Frames so far that the recipe's enhancement left as they were, because it found no face in them."""
        self.steps_left_out: tuple[str, ...] = ()
        """Names of published steps that were left out, for want of their weights."""

    ping_pong: bool = False
    """A video that is shorter than the audio goes backwards at its end, and forwards at its beginning; else it begins
    again."""

    def place(self, number: int, frames: int) -> int:
        """The frame of a video of so many frames that is the dubbed frame of this number."""
        turn, place = divmod(number, frames)
        return frames - 1 - place if self.ping_pong and turn % 2 else place

    @abstractmethod
    def frames(self, first: int, images: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """Dubbed frames of a chunk. Chunks come in order, from frame 0 on.

        Args:
            first: Number of the first frame; beyond the video's end it begins again, or goes backwards (`ping_pong`).
            images: The video's frames, uint8 RGB (H,W,3).

        Yields:
            A frame for each, of the same size; where no face is visible the very array that was given.

        Raises:
            MediaError: A generated value is not finite.
        """

    def close(self) -> None:  # noqa: B027 (most have nothing to free)
        """Free what the session holds."""


def dub_frames(
    session: Session, frames: Iterable[np.ndarray], batch_frames: int = BATCH_FRAMES
) -> Iterator[np.ndarray]:
    """The frames with new lips; holds `batch_frames` frames at a time.

    Args:
        session: Of the video.
        frames: uint8 RGB (H, W, 3), from the video's beginning; beyond its end it begins again.
        batch_frames: Frames per forward pass.

    Yields:
        uint8 RGB frames of the input's size. Where no face is visible it is the very array that came in.
    """
    stream, first = iter(frames), 0
    while chunk := list(islice(stream, batch_frames)):
        count = len(chunk)
        yield from session.frames(first, chunk)
        first += count


class FaceMaker:
    """Generates faces from cut-out ones, chunk by chunk, as a recipe says.

    Args:
        module: A method in evaluation mode, on its device.
        recipe: How it is fed.
        drawn: The faces that show the identity where they are those of certain frames, (R,3,H,W).
        extras: Names of the further inputs that are given to it.

    Raises:
        ValueError: The recipe has inputs that only a session of the method's own can make.
    """

    def __init__(
        self,
        module: "TalkingFaceModule",
        recipe: Recipe,
        drawn: Callable[[References], torch.Tensor] | None = None,
        extras: Sequence[str] = (),
    ) -> None:
        self.fallback_frames = 0
        self._module, self._references, self._drawn = module, recipe.references, drawn
        self._fixed: torch.Tensor | None = None  # references (R,3,H,W) of all frames
        if set(recipe.inputs) - set(extras) or (drawn is None and recipe.references.kind in ("random", "frame")):
            raise ValueError(
                f"{type(module).__name__}: its recipe is {recipe.text()}. Expected one without further inputs and "
                "with references same or first. Override its method session"
            )

    def __call__(
        self,
        faces: Sequence[np.ndarray],
        frame_mels: np.ndarray,
        extras: Mapping[str, torch.Tensor] = {},
        shown: Sequence[np.ndarray] = (),
    ) -> np.ndarray:
        """Generated faces, float32 (T,3,h,w) in [0, 1].

        Args:
            faces: T images, uint8 RGB (H,W,3); those of a video come in order.
            frame_mels: float32 (T,1,80,16).
            extras: Further inputs by name, (T, ...) each.
            shown: The face that shows the identity in each frame, if it is not one of the video's as it is.

        Raises:
            MediaError: A generated value is not finite.
        """
        batch = images_to_batch(faces)
        references = images_to_batch(shown)[:, None] if shown else self._shown(batch)
        inputs = FaceInputs(torch.from_numpy(np.ascontiguousarray(frame_mels)), batch, references, extras)
        with torch.inference_mode():
            made = self._module.generate(inputs)
        self.fallback_frames += int(made.fallback.sum())
        frames = made.frames.float().cpu().numpy()
        finite = np.isfinite(frames).all(axis=(1, 2, 3))
        if not finite.all():
            raise MediaError(
                f"{type(self._module).__name__}: {int((~finite).sum())} of {len(frames)} generated faces have values "
                "that are not finite. Expected numbers between 0 and 1. Use another checkpoint, or leave out this clip"
            )
        return frames

    def _shown(self, faces: torch.Tensor) -> torch.Tensor:
        """References (T,R,3,H,W) for the faces (T,3,H,W) of a chunk."""
        rule = self._references
        if rule.kind == "same":
            return faces[:, None]
        if self._fixed is None:
            self._fixed = faces[:1].clone() if self._drawn is None or rule.kind == "first" else self._drawn(rule)
        return self._fixed.expand(len(faces), *self._fixed.shape)


class CropSession(Session):
    """Cut, generate, paste: holds one chunk at a time.

    Args:
        module: A method in evaluation mode, on its device.
        video: The video and the audio's mel windows.
        recipe: How the method is fed.
        paste: How its faces are pasted; it belongs to the recipe.

    Raises:
        ValueError: The geometry lacks what the crop rule needs; or as `FaceMaker`.
    """

    def __init__(self, module: "TalkingFaceModule", video: Video, recipe: Recipe, paste: PasteFace) -> None:
        super().__init__()
        self._video, self._recipe, self._paste = video, recipe, paste
        self._cuts = recipe.crop.cuts(video.geometry)
        self._maker = FaceMaker(module, recipe, self._drawn, self.inputs)

    inputs: ClassVar[Sequence[str]] = ()
    """Names of the further inputs that `extras` can make."""

    def extras(self, places: Sequence[int]) -> Mapping[str, torch.Tensor]:
        """The recipe's further inputs for these frames of the video, (T, ...) each."""
        return {}

    def shown(self, places: Sequence[int], images: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """The faces that show the identity in these frames, all with a face, where a method makes them: uint8 RGB."""
        return ()

    def frames(self, first: int, images: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        places = [self.place(first + k, len(self._cuts)) for k in range(len(images))]
        cuts = [self._cuts[place] for place in places]
        faces = {k: self._face(images[k], cut) for k, cut in enumerate(cuts) if cut is not None}
        made = iter(())
        if faces:
            mels = self._video.frame_mels(first, len(images))[list(faces)]
            seen = [places[k] for k in faces]
            shown = self.shown(seen, [images[k] for k in faces])
            made = iter(self._maker(list(faces.values()), mels, self.extras(seen), shown))
            self.fallback_frames = self._maker.fallback_frames
        contours = self._video.geometry.contours
        for image, cut, place in zip(images, cuts, places, strict=True):
            if cut is None:
                self.passed_through += 1
                yield image
            else:
                yield self._paste(image, cut, next(made), contours[place])

    def _face(self, image: np.ndarray, cut: Cut) -> np.ndarray:
        return cut.face(image, self._recipe.size_hw, self._recipe.resize)

    def _drawn(self, rule: References) -> torch.Tensor:
        """Faces (R,3,H,W) of one frame, or of frames that are drawn once; reads the video up to the last of them.

        Raises:
            MediaError: The frame shows no face.
        """
        chosen = self._chosen(rule)
        found: dict[int, np.ndarray] = {}
        for place, image in enumerate(self._video.frames()):
            cut = self._cuts[place]
            if place in chosen and cut is not None:
                found[place] = self._face(image, cut)
            if place >= max(chosen):
                break
        return images_to_batch([found[place] for place in chosen])

    def _chosen(self, rule: References) -> list[int]:
        """The frames that show the identity: one, those drawn once, or the first with a face."""
        visible = [place for place, cut in enumerate(self._cuts) if cut is not None]
        if rule.kind == "frame":
            if rule.frame not in visible:
                raise MediaError(
                    f"frame {rule.frame} of {len(self._cuts)} shows no face to be the reference. Expected one of those "
                    "with a visible face. Choose another: --recipe.reference_frame"
                )
            return [rule.frame]
        if rule.kind != "random":
            return visible[:1]
        rng = np.random.default_rng(rule.seed)
        return list(map(int, rng.choice(visible, rule.count, replace=rule.count > len(visible))))
