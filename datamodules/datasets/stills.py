# SPDX-License-Identifier: Apache-2.0
"""Single faces for networks that learn how faces look: still images, frames of prepared clips, or both mixed."""

import io
import logging
import os
import struct
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, TypedDict

import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from lipsync_bench.datamodules.clip_datamodule import ClipDataModule
from lipsync_bench.datamodules.clips.clip import Clip, read_header
from lipsync_bench.datamodules.clips.tensor_reader import Read
from lipsync_bench.datamodules.clips.track import Track, track_path
from lipsync_bench.datamodules.cores import usable_cores
from lipsync_bench.datamodules.datasets.folder import shuffled
from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.media.container import MAX_PIXELS
from lipsync_bench.datamodules.windows.decoding import stack_frames
from lipsync_bench.datamodules.windows.faces import check_faces, method_words
from lipsync_bench.datamodules.windows.loading import FaceDataModule

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_REPAIR = "Copy it again from its source, or move it out of the folder"
_HELD_OUT_SEED = 0  # fixed, so that every training on a folder holds out the same images

logger = logging.getLogger(__name__)

__all__ = ["SUFFIXES", "FaceImage", "FaceImages", "open_faces", "read_clip_frame", "read_image", "read_still"]


class FaceImage(TypedDict):
    """Sample; a batch has B in front. `image` uint8 (3, S, S), RGB."""

    image: torch.Tensor


def _damaged(data: bytes) -> str:
    return f"{len(data)} bytes that are cut short, damaged or no image. Expected a whole PNG, JPEG, WebP or BMP file."


def _refuse_large(path: Path, data: bytes) -> None:
    """OpenCV takes the memory for the picture that a head states, whatever follows; Pillow reads the head alone."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP", "BMP", "DIB")) as image:
                width, height = image.size
    except Image.DecompressionBombError as error:
        raise MediaError(f"{path}: {error}. Expected an image of a face. {_REPAIR}.") from error
    except (OSError, ValueError, SyntaxError, struct.error, OverflowError) as error:
        raise MediaError(f"{path}: {_damaged(data)} {_REPAIR}.") from error
    if width * height > MAX_PIXELS:
        raise MediaError(
            f"{path}: {width}x{height} pixels. Expected at most {MAX_PIXELS / 1e6:.0f} million. {_REPAIR}."
        )


def read_image(path: Path) -> np.ndarray:
    """An image file as uint8 RGB (H, W, 3).

    Grey becomes three equal channels; of 16 bits the upper eight stay; an alpha channel is dropped, so that the
    stored colours show; an image that its EXIF entry turns or mirrors (JPEG, PNG) is upright.

    Raises:
        MediaError: it cannot be read, is empty, is cut short, or is no image that OpenCV decodes.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise MediaError(f"{path}: is no file. Expected an image file. {_REPAIR}.")
    try:
        data = path.read_bytes()  # not cv2.imread, which takes no names outside the locale's encoding on some systems
    except OSError as error:
        raise MediaError(
            f"{path}: cannot be read ({error.strerror or error}). Expected an image file. {_REPAIR}."
        ) from error
    if not data:
        raise MediaError(f"{path}: the file is empty (0 bytes). Expected an image. {_REPAIR}.")
    _refuse_large(path, data)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:  # more pixels than OpenCV's limit
        raise MediaError(f"{path}: cannot be decoded ({error.err}). Expected an image. {_REPAIR}.") from error
    if image is None:
        raise MediaError(f"{path}: {_damaged(data)} {_REPAIR}.")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_still(path: Path, size: int) -> torch.Tensor:
    """An image file as uint8 RGB (3, size, size).

    A square is cut from the middle of an image that is none, then resized: by area when it shrinks, bilinearly when it
    grows.

    Raises:
        MediaError: As `read_image`.
    """
    image = read_image(path)
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    if side != size:
        square = cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_LINEAR)
    return stack_frames([square], (size, size))[0]


def open_faces(path: Path, track: str | None, read: Read) -> Clip | Track:
    """The faces of a clip: those of a recipe, by its `track_digest`, or the clip's own crops."""
    return Clip(path, read) if track is None else Track(track_path(path, track), read)


def read_clip_frame(faces: Clip | Track, frame: int, size: int) -> torch.Tensor:
    """One face of a clip as uint8 RGB (3, size, size), resized as the frames of windows are: bilinearly, whatever its
    shape.

    Raises:
        IndexError: the clip has no such frame.
        ClipError: the file or the frame is broken.
    """
    found = faces.frames(frame, 1) if isinstance(faces, Clip) else faces.faces(frame, 1)
    return stack_frames(found, (size, size))[0]


class _Drawn(Dataset[FaceImage]):
    """Training images; each depends on the seed and the key (epoch, index) alone."""

    def __init__(
        self,
        stills: Sequence[Path],
        clips: Sequence[Path],
        clip_share: float,
        image_size: int,
        seed: int,
        length: int,
        read: Read,
        mirror: bool,
        track: str | None,
    ) -> None:
        self.stills, self.clips, self.clip_share = stills, clips, clip_share
        self.image_size, self.seed, self.length, self.read, self.mirror = image_size, seed, length, read, mirror
        self.track = track

    def __len__(self) -> int:
        return self.length

    def file_of(self, key: tuple[int, int]) -> Path:
        """The still or the clip that the image of a key comes from."""
        return self._draw_file(key)[0]

    def _draw_file(self, key: tuple[int, int]) -> tuple[Path, bool, np.random.Generator]:
        """The file of a key, whether it is a clip, and the generator that draws the rest."""
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, *key]))
        is_clip = rng.random() < self.clip_share
        files = self.clips if is_clip else self.stills
        return files[int(rng.integers(len(files)))], is_clip, rng

    def __getitem__(self, key: tuple[int, int]) -> FaceImage:
        path, is_clip, rng = self._draw_file(key)
        if is_clip:
            with open_faces(path, self.track, self.read) as faces:  # few come up twice in a row: not kept open
                image = read_clip_frame(faces, int(rng.integers(len(faces))), self.image_size)
        else:
            image = read_still(path, self.image_size)
        # Drawn last, and always, so that the same images come with and without.
        mirrored = bool(rng.integers(2)) and self.mirror
        return FaceImage(image=image.flip(-1) if mirrored else image)


class _Fixed(Dataset[FaceImage]):
    """Validation images: stills (frame None) and frames of clips, as listed."""

    def __init__(
        self, items: Sequence[tuple[Path, int | None]], image_size: int, read: Read, track: str | None
    ) -> None:
        self.items, self.image_size, self.read, self.track = items, image_size, read, track

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: tuple[int, int]) -> FaceImage:
        path, frame = self.items[key[1]]
        if frame is None:
            return FaceImage(image=read_still(path, self.image_size))
        with open_faces(path, self.track, self.read) as faces:
            return FaceImage(image=read_clip_frame(faces, frame, self.image_size))


def _image_files(root: Path) -> Iterator[Path]:
    """Image files below a folder; hidden ones aside. Links to folders are followed, a folder is visited once."""

    def stop(error: OSError) -> None:
        raise MediaError(
            f"{error.filename}: cannot be listed ({error.strerror}). Expected a folder of images. Correct its "
            "permissions, or set --data.init_args.images."
        ) from error

    visited: set[Path] = set()
    for name, folders, files in os.walk(root, onerror=stop, followlinks=True):
        folder = Path(name)
        real = folder.resolve()
        if real in visited:  # a link to a folder above, or to one seen before
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(entry for entry in folders if not entry.startswith("."))
        yield from (folder / file for file in files if file.lower().endswith(SUFFIXES) and not file.startswith("."))


def _spread_frames(clips: Sequence[Path], count: int) -> list[tuple[Path, int | None]]:
    """`count` frames, spread evenly over the clips and within each; none twice."""
    items: list[tuple[Path, int | None]] = []
    for number, share in Counter(index * len(clips) // count for index in range(count)).items():
        frames = read_header(clips[number]).frames
        if share > frames:
            raise ValueError(
                f"{clips[number]} has {frames} frames, and {share} of {count} validation frames fall to it. Expected "
                "no frame twice. Set --data.init_args.val_length, or --data.init_args.val_images, lower."
            )
        items += [(clips[number], (2 * place + 1) * frames // (2 * share)) for place in range(share)]
    return items


class FaceImages(FaceDataModule):
    """Single faces, for codebooks and auto-encoders: still images and frames of prepared clips, mixed.

    `images` is any folder of aligned faces, such as FFHQ's tree::

        <images>/00000/00000.png ... <images>/69000/69999.png       1024 x 1024 pixels, or a copy of 512 x 512

    Size: 70,000 images. FFHQ has no official split for this. Here `val_images` of a folder are held out, chosen by the
    hash of their names: every run holds out the same, and an image that is added or missing moves one at most.
    Licence of FFHQ: the single images are under CC BY 2.0, CC BY-NC 2.0, Public Domain Mark 1.0, CC0 1.0 or as works
    of the U.S. government; the data set itself is CC BY-NC-SA 4.0 by NVIDIA.
    How to obtain: https://github.com/NVlabs/ffhq-dataset

    References: Karras, Laine, Aila, "A Style-Based Generator Architecture for Generative Adversarial Networks", CVPR
    2019, https://arxiv.org/abs/1812.04948. The mixture with clips is that of Wang et al., "LipFormer: High-fidelity and
    Generalizable Talking Face Generation with A Pre-learned Facial Codebook", CVPR 2023, which takes FFHQ and LRS2's
    training frames and does not say in which ratio: half and half is our choice.

    Batches have `image` (B, 3, S, S), RGB: uint8 until they are on the device, float32 in [0, 1] from there on. Stills
    come as `read_still` describes. Clips' frames come as in the windows that a second stage is trained on: the faces
    that the model's recipe asks for, which for LipFormer are aligned as FFHQ's are; those of a model without a recipe
    are the clips' own crops, squeezed to a square.

    A training image is a clip's frame with probability `clip_share`: a clip with equal chances, then a frame with equal
    chances; else a still with equal chances; by a generator seeded with (seed, epoch, index). Validation is fixed: the
    held-out images and frames of the clips' split val, evenly spread, in the same ratio and in an order drawn by
    `seed`. Where nothing is held out on one side (`val_images` is 0, or the split val is empty), validation has the
    other side alone, and a warning says so; where both are empty there is no validation. There is no test split.

    Args:
        images: folder of images (.png, .jpg, .jpeg, .webp, .bmp), searched with its subfolders; None for clips alone.
        clips: data module of prepared clips; only its root, its splits and how it reads are used, not its windows,
            sizes, workers and seed. None for stills alone.
        clip_share: probability that a training image is a clip's frame, 0 to 1. Without images it is taken as 1 and
            without clips as 0, whatever is given. With both, a share of 0 or 1 leaves the other side unread.
        image_size: side S of the square images, pixels.
        batch_size: images in a batch, for each process.
        num_workers: loader processes; without it the number of cores, at most 4.
        seed: of the draws. What is held out does not depend on it.
        epoch_length: training images in an epoch over all processes; without it the number of stills for training, or
            of training clips where there are no stills, or one batch for each process where that is more.
        val_images: stills held out of training.
        val_length: images of a validation pass, not more than are held out; without it all held-out stills with as many
            frames as keep the ratio, or one frame a clip where there are no stills.
        mirror: whether training images are mirrored, each with probability 1/2.
    """

    name: str = "face_images"

    def __init__(
        self,
        images: Path | None = None,
        clips: ClipDataModule | None = None,
        clip_share: float = 0.5,
        image_size: int = 512,
        batch_size: int = 16,
        num_workers: int | None = None,
        seed: int = 0,
        epoch_length: int | None = None,
        val_images: int = 500,
        val_length: int | None = None,
        mirror: bool = False,
    ) -> None:
        super().__init__()
        if images is None and clips is None:
            raise ValueError(
                f"{self.name}: no images and no clips. Expected one of them or both. Set --data.init_args.images or "
                "--data.init_args.clips."
            )
        lengths = {
            "image_size": image_size,
            "batch_size": batch_size,
            "epoch_length": epoch_length,
            "val_length": val_length,
        }
        for argument, value in lengths.items():
            if value is not None and value < 1:
                raise ValueError(f"{argument} is {value}. Expected 1 or more. Set --data.init_args.{argument}.")
        if val_images < 0:
            raise ValueError(f"val_images is {val_images}. Expected 0 or more. Set --data.init_args.val_images.")
        if not 0 <= clip_share <= 1:
            raise ValueError(f"clip_share is {clip_share}. Expected 0 to 1. Set --data.init_args.clip_share.")
        self.clip_share = 1.0 if images is None else 0.0 if clips is None else float(clip_share)
        self.images = None if images is None or self.clip_share == 1 else Path(images)
        self.clips = None if self.clip_share == 0 else clips
        self.image_size, self.batch_size, self.seed, self.mirror = image_size, batch_size, seed, mirror
        self.num_workers = min(4, usable_cores()) if num_workers is None else num_workers
        self.epoch_length, self.val_images, self.val_length = epoch_length, val_images, val_length
        self._stills: dict[Literal["train", "val"], list[Path]] | None = None
        self._fixed: _Fixed | None = None

    def prepare_data(self) -> None:
        """Check that there are images, and that the clips' folder is a prepared one.

        Raises:
            FileNotFoundError: no folder, no images in it, or no clips.
        """
        if self.images is not None and (not self.images.is_dir() or next(_image_files(self.images), None) is None):
            found = "no images in" if self.images.is_dir() else "no folder"
            raise FileNotFoundError(
                f"{self.name}: {found} {self.images}. Expected {', '.join(SUFFIXES)} files there or in folders below, "
                "such as FFHQ's 00000/00000.png. Set --data.init_args.images."
            )
        if self.clips is not None:
            self.clips.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """List the images, hold some out, and choose the validation images; for every stage alike.

        Raises:
            FileNotFoundError: no images, no clips or no split lists, or clips without the faces of the model's recipe.
            ValueError: `val_images` leaves none for training, `val_length` asks for more than is held out, or what
                `ClipDataModule.setup` raises.
            ClipError: a validation clip is broken.
        """
        if self._stills is None:
            self.prepare_data()
            stills = self._split_stills()
            val = [] if self.clips is None else self.clips.clips("val")
            recipe = self._recipe()
            if recipe is not None and self.clips is not None:
                wanted = [*self.clips.clips("train"), *val]
                check_faces(wanted, recipe, method_words(self._module), own_crops=False)
            self._fixed = self._choose(stills["val"], val)
            self._stills = stills

    def train_dataloader(self) -> DataLoader[FaceImage]:
        stills = self._ready()["train"]
        clips = [] if self.clips is None else self.clips.clips("train")
        if self.clips is not None and not clips:
            raise ValueError(
                f"{self.name}: no training clips in {self.clips.root}. Expected one or more in the split train. "
                "Correct the clips' splits, or leave out --data.init_args.clips."
            )
        _, world_size = self._place()
        needed = self.batch_size * world_size
        if self.epoch_length is not None and self.epoch_length < needed:
            raise ValueError(
                f"{self.name}: epoch_length is {self.epoch_length}. Expected {needed} or more, one batch of "
                f"{self.batch_size} for each of {world_size} processes. Set --data.init_args.epoch_length."
            )
        length = self.epoch_length or max(needed, len(stills) or len(clips))
        dataset = _Drawn(
            stills, clips, self.clip_share, self.image_size, self.seed, length, self._read_how(), self.mirror,
            self._track(),
        )  # fmt: skip
        return self._training_loader(dataset, length)

    def val_dataloader(self) -> DataLoader[FaceImage] | list[DataLoader[FaceImage]]:
        self._ready()
        if self._fixed is None:  # Lightning skips the pass
            return []
        return self._validation_loader(self._fixed)

    def _split_stills(self) -> dict[Literal["train", "val"], list[Path]]:
        if self.images is None:
            return {"train": [], "val": []}
        # Names that are no UTF-8 are escaped, because only then they can be hashed.
        names = {
            path: os.fsencode(path.relative_to(self.images).as_posix()).decode("utf-8", "backslashreplace")
            for path in _image_files(self.images)
        }
        if self.val_images >= len(names):
            raise ValueError(
                f"{self.name}: val_images is {self.val_images}, and {self.images} has {len(names)} images. Expected "
                "fewer, so that one or more are left for training. Set --data.init_args.val_images."
            )
        held_out = set(shuffled(list(names.values()), _HELD_OUT_SEED)[: self.val_images])
        ordered = sorted(names, key=lambda path: names[path])
        return {
            "train": [path for path in ordered if names[path] not in held_out],
            "val": [path for path in ordered if names[path] in held_out],
        }

    def _choose(self, stills: Sequence[Path], clips: Sequence[Path]) -> _Fixed | None:
        """The validation images from held-out stills and validation clips; None if both are empty."""
        if not stills and not clips:
            return None
        share = 0.0 if not clips else 1.0 if not stills else self.clip_share
        if share != self.clip_share:
            logger.warning(
                "%s: validation has %s alone: %s.",
                self.name,
                "clips' frames" if share else "images",
                "val_images is 0" if share else "the clips' split val is empty",
            )
        if self.val_length is not None:
            frames = round(share * self.val_length)
            count = self.val_length - frames
        else:
            count = len(stills)
            frames = round(count * share / (1 - share)) if share < 1 else len(clips)
        if count > len(stills):
            raise ValueError(
                f"{self.name}: val_length is {self.val_length}, of which {count} are images, and {len(stills)} are "
                "held out. Expected no image twice. Set --data.init_args.val_length lower or "
                "--data.init_args.val_images higher."
            )
        items: list[tuple[Path, int | None]] = [(stills[k * len(stills) // count], None) for k in range(count)]
        items += _spread_frames(clips, frames)
        # Mixed, so that every batch and every process has both kinds.
        order = np.random.default_rng(self.seed).permutation(len(items))
        return _Fixed([items[k] for k in order], self.image_size, self._read_how(), self._track())

    def _ready(self) -> dict[Literal["train", "val"], list[Path]]:
        if self._stills is None:
            raise RuntimeError(f"{self.name}: no data yet. Expected setup before loaders. Call setup().")
        return self._stills

    def _read_how(self) -> Read:
        return "file" if self.clips is None else self.clips.read

    def _track(self) -> str | None:
        recipe = self._recipe()
        return None if recipe is None else recipe.track_digest
