# SPDX-License-Identifier: Apache-2.0
"""The candidates of an evaluation: ground truth, trivial baseline, a method with its weights, or a folder of videos."""

import unicodedata
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path, PurePath, PurePosixPath

import cv2
import numpy as np

from lipsync_bench.datamodules.clips.boxes import clip_geometry
from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.clips.coefficients import kept_coefficients
from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.faces.crop_rules.boxes import BoxCut
from lipsync_bench.datamodules.faces.geometry import Geometry
from lipsync_bench.datamodules.files.disk import sha256
from lipsync_bench.datamodules.media.audio import frame_mels
from lipsync_bench.datamodules.media.damage import Damage
from lipsync_bench.datamodules.media.video import FPS, read_frames
from lipsync_bench.datamodules.media.video_files import find_videos
from lipsync_bench.datamodules.recipes.options import RecipeOptions
from lipsync_bench.datamodules.recipes.recipe import Recipe
from lipsync_bench.datamodules.weights.registry import whose
from lipsync_bench.datamodules.weights.store import Store
from lipsync_bench.evaluation.task.pairs import Pair
from lipsync_bench.evaluation.task.protocol import Protocol
from lipsync_bench.inference.sessions import Sessions
from lipsync_bench.models import TalkingFaceModule
from lipsync_bench.models.core.checkpoints import read_origin
from lipsync_bench.models.core.session import Session, Video
from lipsync_bench.results.rows import GROUND_TRUTH, REPEATED_FRAME
from lipsync_bench.weights.methods import load_any, weights_files, weights_sha256

_EVEN_PX = 3  # largest difference from rounding the sides of target and prediction to even numbers
_MACROBLOCK_PX = 16  # some writers (imageio) round sides to multiples of this
_STRETCH = 0.03  # largest relative difference from that rounding, for predictions of another scale

__all__ = [
    "Candidate",
    "Checkpoint",
    "GroundTruth",
    "RepeatedFrame",
    "Target",
    "TargetChunk",
    "VideoFiles",
    "VideoFolder",
    "expected_name",
]


@dataclass(frozen=True)
class TargetChunk:
    """Consecutive frames of the target.

    Args:
        clip: Id of the clip.
        audio_clip: Id of the clip whose audio drives the frames; the same one if the protocol is paired.
        first: Number of the first frame in this chunk.
        frames: uint8 RGB source frames (H, W, 3).
        boxes: (N, 4) face boxes of these frames in pixels.
        reference: uint8 RGB crop of the clip's first frame.
    """

    clip: str
    audio_clip: str
    first: int
    frames: Sequence[np.ndarray]
    boxes: np.ndarray
    reference: np.ndarray


@dataclass(frozen=True)
class Target:
    """A pair of clips, from which a method makes a video.

    Args:
        video: The clip that is reproduced.
        audio: The clip whose audio drives the frames.
        source: The first one's video.
    """

    video: Clip
    audio: Clip
    source: Path

    @cached_property
    def geometry(self) -> Geometry:
        """Where the face of the clip is; read once for all methods.

        Raises:
            ClipError: A file of boxes beside the clip is broken.
        """
        return clip_geometry(self.video)


class Candidate(ABC):
    """One entry of the leaderboard.

    Args:
        name: Its method name in the rows.
        sha256: SHA-256 of its weights; empty without weights.
        weights: Whose they are: "official" or "unofficial"; empty without weights.
    """

    paste = ""
    """How faces are pasted into the frames, as in the rows: "box", "contour", "parsing" and the start of the parser's
    SHA-256; empty for whole videos."""
    own_audio = False
    """Whether its files are scored with their own audio, if they have any, instead of the clip's."""
    undubbed = False
    """True for the ground truth: under an unpaired protocol it is scored with its own audio."""

    recipe = ""
    """Digest of how it is fed, as in the rows; empty where the suite does not feed it."""

    def __init__(self, name: str, sha256: str = "", weights: str = "") -> None:
        self.name = name
        self.sha256 = sha256
        self.weights = weights

    @property
    def entry(self) -> tuple[str, str, str, str]:
        """The fields of `ENTRY` behind the protocol."""
        return self.name, self.sha256, self.paste, self.recipe

    def begin(self, target: Target) -> None:  # noqa: B027 (most need nothing but the chunks)
        """Called before the first chunk of a pair."""

    @abstractmethod
    def frames(self, chunk: TargetChunk) -> Sequence[np.ndarray]:
        """The candidate's frames for a chunk, in the size of the target's frames.

        Chunks of a clip come in order, beginning at 0. A shorter list means that the candidate has ended.
        """

    def counts(self) -> Mapping[str, object]:
        """Fields of its row that are known when the last chunk of a pair is done."""
        return {"fallback_frames": 0, "passed_through_frames": 0, "unenhanced_frames": 0}

    def damaged_frames(self) -> int:
        """Frames of its own videos so far that the decoder concealed or left out."""
        return 0

    def file(self, clip: str, audio_clip: str) -> Path | None:
        """The candidate's video of a clip with the audio of another; None if frames are generated on the fly."""
        return None

    def prediction_sha256(self, clip: str, audio_clip: str) -> str:
        """SHA-256 of a video that was made elsewhere; empty for all other candidates."""
        return ""

    def make(self, pairs: Sequence[Pair], progress: bool) -> None:  # noqa: B027 (most make frames on the fly)
        """Make the videos of these pairs before they are scored."""

    def facts(self, clip: str, audio_clip: str) -> Mapping[str, object]:
        """Further fields of its row."""
        return {}


class GroundTruth(Candidate):
    """The source video: the reference score of every metric (upper bound of PSNR and SSIM, 0 for LMD).

    Args:
        folder: Folder of the source videos.
        sources: Path of each clip's video below it, by clip id.
    """

    undubbed = True

    def __init__(self, folder: Path, sources: Mapping[str, str]) -> None:
        super().__init__(GROUND_TRUTH)
        self.folder = folder
        self.sources = sources

    def file(self, clip: str, audio_clip: str) -> Path:
        """The source video."""
        return self.folder / self.sources[clip]

    def frames(self, chunk: TargetChunk) -> Sequence[np.ndarray]:
        """The target's own frames, the same list object."""
        return chunk.frames


class RepeatedFrame(Candidate):
    """The face of the clip's first frame, pasted into every frame's box. A method should score better."""

    paste = "box"

    def __init__(self) -> None:
        super().__init__(REPEATED_FRAME)

    def frames(self, chunk: TargetChunk) -> Sequence[np.ndarray]:
        """The reference crop pasted, resized to each box."""
        cuts = [BoxCut((x1, y1, x2, y2)) for x1, y1, x2, y2 in np.rint(chunk.boxes).astype(int).tolist()]
        return [cut.paste(frame, chunk.reference) for frame, cut in zip(chunk.frames, cuts, strict=True)]


def _same_shape(size_hw: tuple[int, int], target_hw: tuple[int, int]) -> bool:
    """Whether one size is the other enlarged or shrunk, up to rounding: codecs need even sides, and scripts that write
    videos (imageio's) make them multiples of 16, which changes small frames by a tenth of a side.
    """
    for scale in (1.0, size_hw[0] / target_hw[0], size_hw[1] / target_hw[1]):
        off = [abs(side - scale * wanted) for side, wanted in zip(size_hw, target_hw, strict=True)]
        most = [_MACROBLOCK_PX - 1 if scale == 1 else min(_MACROBLOCK_PX - 1, _STRETCH * side) for side in size_hw]
        blocks = [side % _MACROBLOCK_PX == 0 for side in size_hw]
        if all(d <= (limit if block else _EVEN_PX) for d, limit, block in zip(off, most, blocks, strict=True)):
            return True
    return False


def _fit(image: np.ndarray, size_hw: tuple[int, int], path: Path) -> np.ndarray:
    if image.shape[:2] == size_hw:
        return image
    height, width = image.shape[:2]
    if not _same_shape((height, width), size_hw):
        wanted = f"{size_hw[1]}x{size_hw[0]}"
        raise MediaError(
            f"{path}: {width}x{height} px, another shape than the target's {wanted}. Expected the same aspect ratio, "
            "pixels taken as square. Paste faces into the target's frames; if whole frames were squeezed, undo it "
            f"with: ffmpeg -i INPUT -vf scale={wanted.replace('x', ':')},setsar=1 OUTPUT.mp4"
        )
    return cv2.resize(image, size_hw[::-1], interpolation=cv2.INTER_LINEAR)


def _whose(files: Iterable[Path], module: TalkingFaceModule) -> str:
    """Whose weights a method has, those of its first stage and of a system's parts included.

    Official are an official file as it is, and a checkpoint that was imported from one.
    """
    found: list[str] = []
    for path in files:
        origin = read_origin(path)
        if origin:
            second = ["base_origin_sha256"] if "base_sha256" in origin else []
            found += [origin.get(key) or "-" for key in ("sha256", *second)]
        else:
            found += [sha256(path), getattr(module, "base_sha256", None) or ""]
    return whose(found)


class Checkpoint(Candidate):
    """A method of this suite with trained weights.

    Args:
        name: Its method name in the rows.
        path: A checkpoint written by `lightning fit` or `bench import`, an official weight file, or a system's YAML.
        device: Where the network runs.
        store: Weight files: the face parser's, for methods that are pasted through a face mask; without it the mask is
            the contour of Face Mesh.
        changes: Parts of its recipe that are replaced.
        protocol: May name the reference frame.

    Raises:
        FileNotFoundError: No such checkpoint or weights.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        device: str = "cpu",
        store: Store | None = None,
        changes: RecipeOptions = RecipeOptions(),
        protocol: Protocol | None = None,
    ) -> None:
        if not path.is_file():
            raise FileNotFoundError(
                f"no checkpoint at {path}. Expected the file that training writes. Train it (lightning fit -c "
                f"RUN; runs: bench experiments list), or name another with --methods.{name} PATH"
            )
        store = store or Store()
        super().__init__(name, weights_sha256(path, store))
        self.module: TalkingFaceModule = load_any(name, path, device, store)
        self.weights = _whose(weights_files(path, store), self.module)
        own = (
            self.module.recipe.references.kind == "stabilised" and protocol is not None and protocol.reference == "same"
        )
        if protocol is not None and protocol.reference in ("first", "same") and changes.references is None and not own:
            changes = replace(changes, references=protocol.reference)
        self.fed: Recipe = changes.applied(self.module.recipe)
        """How it is fed here."""
        self.recipe = self.fed.digest
        self._sessions = Sessions(self.module, self.fed, store, device)
        self.paste = self._sessions.paste
        self._session: Session | None = None

    def begin(self, target: Target) -> None:
        """Open the session of a pair.

        Raises:
            MediaError: The clip lacks what the crop rule reads.
        """
        if self._session is not None:
            self._session.close()
        mel = target.audio.mel(self.fed.mel_padding)
        video = Video(
            target.geometry,
            lambda first, count: frame_mels(mel, count, first_frame=first),
            lambda: read_frames(target.source, FPS),
            partial(kept_coefficients, target.video),
        )
        try:
            self._session = self._sessions.of(video)
        except ValueError as error:
            raise MediaError(f"{target.video.path}: {error}") from error

    def counts(self) -> Mapping[str, object]:
        """What the session could not do, and how the method was fed."""
        done = self._session
        return {
            "fallback_frames": 0 if done is None else done.fallback_frames,
            "passed_through_frames": 0 if done is None else done.passed_through,
            "unenhanced_frames": 0 if done is None else done.unenhanced,
            "steps_left_out": "" if done is None else ", ".join(done.steps_left_out),
        }

    def facts(self, clip: str, audio_clip: str) -> Mapping[str, object]:
        """How the method is fed, in words."""
        departures = self.fed.departures(self.module.published())
        if self.paste.startswith("contour"):  # the parser's weights are not here
            departures = "; ".join(filter(None, (departures, f"paste: contour (published: {self.fed.paste})")))
        trained = self.fed.departures(self.module.recipe)
        return {
            "recipe_text": self.fed.text(),
            "published": f"no: {departures}" if departures else "yes",
            "trained_otherwise": trained.replace("(published: ", "(trained: "),
        }

    def frames(self, chunk: TargetChunk) -> Sequence[np.ndarray]:
        """Generated faces pasted into the target's frames."""
        assert self._session is not None
        return list(self._session.frames(chunk.first, chunk.frames))


def _plain(path: PurePath) -> str:
    """A path without its suffix, in Unicode's normal form, which writes accents in one way."""
    return unicodedata.normalize("NFC", path.with_name(path.stem).as_posix())


def expected_name(source: str, clip: str, audio_clip: str) -> PurePosixPath:
    """The path, without suffix, at which the video of a clip with the audio of another is looked for in a folder."""
    path = PurePosixPath(source)
    audio = "" if audio_clip == clip else f"--{audio_clip.replace('/', '_')}"
    return path.with_name(f"{path.stem}{audio}")


class VideoFiles(Candidate):
    """Videos made elsewhere, in files."""

    own_audio = True

    def __init__(self, name: str, sha256: str = "") -> None:
        super().__init__(name, sha256)
        self._path = Path()
        self._stream: Iterator[np.ndarray] = iter(())
        self._damage = Damage()

    @abstractmethod
    def file(self, clip: str, audio_clip: str) -> Path:
        """The video of a clip. Raises MediaError if there is not exactly one."""

    def damaged_frames(self) -> int:
        """Damaged frames as the decoder counts them."""
        return self._damage.frames

    def prediction_sha256(self, clip: str, audio_clip: str) -> str:
        """SHA-256 of the video's file; empty if there is none."""
        try:
            path = self.file(clip, audio_clip)
            return sha256(path) if path.is_file() else ""
        except (MediaError, OSError):
            return ""  # the row will give the reason

    def frames(self, chunk: TargetChunk) -> Sequence[np.ndarray]:
        """The next frames of the clip's video at 25 fps, resized to the target's size where they differ.

        Raises:
            MediaError: Their aspect ratio differs, so that they would be stretched.
        """
        if chunk.first == 0:
            self._path = self.file(chunk.clip, chunk.audio_clip)
            self._stream = read_frames(self._path, FPS, self._damage)
        height, width = chunk.frames[0].shape[:2]
        return [_fit(frame, (height, width), self._path) for frame in islice(self._stream, len(chunk.frames))]


class VideoFolder(VideoFiles):
    """Videos made elsewhere, one for each target, matched by name.

    Args:
        name: Its method name in the rows.
        folder: Folder of the videos. A video belongs to the clip whose source has the same path below its root,
            whatever the suffix, or else the same name, if no other target has that name. With the audio of another
            clip, `--` and that clip's id, with `/` as `_`, are appended: `S1/00007--S2_00003.mp4`.
            Names with accents match in either Unicode form.
        targets: Source path of each clip, relative to the targets' folder, by clip id.
        exclude: Folders below `folder` that hold other videos.
        others: Source paths of targets that are not evaluated, so that their predictions match no other clip.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        targets: Mapping[str, str],
        exclude: Iterable[Path] = (),
        others: Iterable[str] = (),
    ) -> None:
        super().__init__(name)
        self.folder = folder
        self.targets = targets
        self._videos: defaultdict[str, list[Path]] = defaultdict(list)
        for path in find_videos(folder, exclude):
            self._videos[_plain(path.relative_to(folder))].append(path)
        self._targets: defaultdict[str, list[str]] = defaultdict(list)
        for target in sorted(set(targets.values())):
            self._targets[_plain(PurePosixPath(target))].append(target)
        all_targets = {_plain(PurePosixPath(target)) for target in (*targets.values(), *others)}
        self._named = Counter(PurePosixPath(key).name for key in all_targets)

    def file(self, clip: str, audio_clip: str) -> Path:
        """The video of a clip. Raises MediaError if there is not exactly one, or another target has its name."""
        relative = PurePosixPath(self.targets[clip])
        own = _plain(relative)
        if len(same := self._targets[own]) > 1:
            raise MediaError(
                f"{clip}: {len(same)} targets have the name {own} ({', '.join(same[:3])}), and a prediction belongs to "
                "one. Expected a different name for each. Rename them and their predictions."
            )
        relative = expected_name(self.targets[clip], clip, audio_clip)
        wanted = unicodedata.normalize("NFC", str(relative))
        found = self._videos[wanted]
        if not found and self._named[PurePosixPath(own).name] == 1:  # in another folder, if the name is unique
            name = PurePosixPath(wanted).name
            found = [path for key, paths in self._videos.items() for path in paths if PurePosixPath(key).name == name]
        if len(found) > 1:  # a GIF preview beside the video does not count
            found = [path for path in found if path.suffix.lower() != ".gif"] or found
        if len(found) == 1:
            return found[0]
        if found:
            raise MediaError(
                f"{clip}: {len(found)} predictions ({', '.join(p.name for p in found[:3])}). "
                f"Expected one in {self.folder}. Remove the others."
            )
        raise MediaError(f"{clip}: no prediction in {self.folder}. Expected {relative}.mp4 or another video suffix.")
