# SPDX-License-Identifier: Apache-2.0
"""What a row was measured under: experiments/protocols/NAME.yaml. Rows of two protocols never share a table column."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentError, ArgumentParser

from lipsync_bench.datamodules.texts import flat, read_yaml
from lipsync_bench.experiment_files import experiment_file, experiment_names

_SIDES = (16, 4096)  # SSIM's window has 11 pixels
_MOST = 10**9

__all__ = ["PAIRED_FACE_BOX", "VIDEO_PAIRS", "Protocol", "list_protocols", "load_protocol"]


@dataclass(frozen=True)
class Protocol:
    """How clips become numbers.

    Args:
        version: Raised whenever a number can change.
        name: Stands in every row, with the version behind it; the file's name.
        paper: Paper whose evaluation this is, as experiments/tables/ calls it; empty for our own.
        about: What it is for, and what of it the paper does not state.
        pairing: "paired": the sound of the clip itself. "unpaired": of another clip, so that there is no target to
            compare with and only metrics that need none are computed.
        boxes: What is cut out of every frame and compared: "mesh", the prepared clip's box around the Face Mesh (with
            the chin's lowest position of the last frames); "dlib" or "s3fd", that detector's rectangle in the frame;
            "frame", the whole frame.
        own_boxes: Each video is cut by boxes found in itself, so that a face which moves is not a face which is wrong;
            else both are cut by the target's. Frames without a box are left out and counted.
        size_hw: Height and width in pixels to which the cut is resized (bilinear); none for whole frames as they are.
        mouth_margin: The mouth region is the box of the target's lip landmarks, this share of its width wider on each
            side.
        reference: "first": the first frame's crop is the reference of the whole clip; "same": each frame's own crop,
            which shows the true mouth to the method; "elsewhere": of videos that others made, nobody knows.
        codec: "memory": frames as the method made them. "h264": after encoding with x264 at `crf` and decoding, in
            groups of at most 16 frames. Videos that come as files have been through a codec and are taken as they are.
        crf: x264's quality, for "h264".
        pairs: How many clips (paired) or pairs of clips (unpaired) are drawn, by data set; all where not told.
        seconds: How much of each clip is used, from its beginning, by data set; all of it where not told.
        seed: Of drawing clips and pairs.
        fps: Frame rate at which everything is compared. There is no other.
        mel_columns: Of the sound window a method hears for each frame: 16 columns of 12.5 ms, from the frame's start.
    """

    version: int
    name: str = ""
    paper: str = ""
    about: str = ""
    pairing: Literal["paired", "unpaired"] = "paired"
    boxes: Literal["mesh", "dlib", "s3fd", "frame"] = "mesh"
    own_boxes: bool = False
    size_hw: tuple[int, int] | None = (160, 160)
    mouth_margin: float = 0.25
    reference: Literal["first", "same", "elsewhere"] = "first"
    codec: Literal["memory", "h264"] = "memory"
    crf: int = 18
    pairs: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    fps: Literal[25] = 25
    mel_columns: Literal[16] = 16

    def __post_init__(self) -> None:
        if self.size_hw is None and self.boxes != "frame":
            raise ValueError(
                f"protocol {self.name}: size_hw is none with boxes {self.boxes}. Expected a size, because faces differ "
                "in theirs. Set size_hw: [160, 160]"
            )
        if self.own_boxes and self.boxes not in ("dlib", "s3fd"):
            raise ValueError(
                f"protocol {self.name}: own_boxes with boxes {self.boxes}. Expected a detector that looks at the "
                "prediction, too. Set boxes: dlib or s3fd"
            )
        sides = self.size_hw or (_SIDES[0], _SIDES[0])
        bounds: list[tuple[str, float, float, float]] = [
            ("version", self.version, 1, _MOST),
            *(("size_hw", side, *_SIDES) for side in sides),
            ("mouth_margin", self.mouth_margin, 0, 10),
            ("crf", self.crf, 0, 51),
            ("seed", self.seed, 0, 2**63 - 1),
            *((f"pairs of {name}", count, 1, _MOST) for name, count in self.pairs.items()),
            *((f"seconds of {name}", length, 1 / self.fps, 1e6) for name, length in self.seconds.items()),
        ]
        for key, value, least, most in bounds:
            if not least <= value <= most:  # NaN neither
                shown = max(min(value, 1e308), -1e308)  # a whole number may be larger than any float
                raise ValueError(
                    f"protocol {self.name}: {key} is {shown:.6g}. Expected {least:.6g} to {most:.6g}. Correct its YAML"
                )
        if len(sides) != 2:
            raise ValueError(f"protocol {self.name}: size_hw is {sides}. Expected height and width. Correct its YAML")

    @property
    def key(self) -> str:
        """Name and version, as rows carry them."""
        return f"{self.name}-v{self.version}"

    @property
    def cut(self) -> str:
        """What is compared, in the words of the papers' tables."""
        size = "" if self.size_hw is None else f", resized to {self.size_hw[0]}x{self.size_hw[1]}"
        if self.boxes == "frame":
            return f"full frames{size}"
        detector = {"mesh": "Face Mesh", "dlib": "dlib", "s3fd": "S3FD"}[self.boxes]
        whose = "each video's own" if self.own_boxes else "the target's"
        return f"{whose} {detector} box{size}"


def list_protocols() -> list[str]:
    """Names of the protocols in experiments/protocols/, here or of the installation."""
    return experiment_names("protocols")


def load_protocol(name: str) -> Protocol:
    """A protocol by its name, or by the path of a YAML of your own.

    Raises:
        FileNotFoundError: No such protocol; lists those there are.
        ValueError: The YAML has other keys, types or values than expected.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else experiment_file("protocols", name)
    if path is None or not path.is_file():
        raise FileNotFoundError(
            f"no protocol {name!r}. Expected one of {', '.join(list_protocols())}, or the path of a YAML: --protocol "
            "FILE.yaml"
        )
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Protocol, skip={"name"})
    read_yaml(path, "a protocol", "See experiments/protocols/")  # jsonargparse reads without bounds
    try:
        values = parser.instantiate(parser.parse_path(path)).as_dict()
        values["size_hw"] = None if values["size_hw"] is None else tuple(values["size_hw"])
        return Protocol(**{**values, "name": path.stem})
    except (ArgumentError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{path} is not a protocol: {flat(error)[:500]}. Expected the keys of one in experiments/protocols/"
        ) from error


PAIRED_FACE_BOX = "paired_face_box"
"""What `bench evaluate --dataset` uses unless told otherwise."""
VIDEO_PAIRS = "video_pairs_face_box"
"""What `bench evaluate --pred --target` uses unless told otherwise."""
