# SPDX-License-Identifier: Apache-2.0
"""What a row was measured under: experiments/protocols/NAME.yaml. Rows of two protocols never share a table column."""

import csv
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, field
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from lipsync_bench.experiment_files import experiment_names, installed_experiments, named_file, read_experiment

_Count = Annotated[int, Field(ge=1, le=10**9)]
_Side = Annotated[int, Field(ge=16, le=4096)]  # SSIM's window has 11 pixels
_Seconds = Annotated[float, Field(ge=1 / 25, le=1e6, strict=False)]  # YAML takes 1e3 for a text

_VERSIONS = "versions.csv"  # beside the protocols of the package: SHA-256 of each version's fields
_IMPLIED = {"landmarks": "frame"}
"""Fields that earlier versions of the package did not have, with what they did: it changes no hash."""

__all__ = [
    "PAIRED_FACE_BOX",
    "VIDEO_PAIRS",
    "Protocol",
    "fields_sha256",
    "list_protocols",
    "load_protocol",
    "recorded_versions",
    "rules_sha256",
]


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))
class Protocol:
    """How clips become numbers.

    Args:
        version: Raised whenever a number can change.
        name: Stands in every row, with the version behind it; the file's name.
        paper: Paper whose evaluation this is, as experiments/tables/ calls it; empty for our own.
        about: What it is for, and what of it the paper does not state.
        pairing: "paired": the audio of the clip itself. "unpaired": of another clip, so that there is no target to
            compare with and only metrics that need none are computed.
        boxes: What is cut out of every frame and compared: "mesh", the prepared clip's box around the Face Mesh (with
            the chin's lowest position of the last frames); "dlib" or "s3fd", that detector's rectangle in the frame;
            "atvg", the square that ATVGnet cuts about dlib's rectangle; "frame", the whole frame.
        own_boxes: Each video is cut by boxes found in itself, so that a face which moves is not a face which is wrong;
            else both are cut by the target's. Frames without a box are left out and counted.
        landmarks: Where dlib's 68 points, of which LMD and jitter are made, are found: "frame", in the whole frame,
            from the target's face rectangle in both videos, which is steady and counts every frame; "crop", by dlib's
            detector in the crop that is compared, of each video by itself. Frames without a face are left out then.
        size_hw: Height and width in pixels to which the cut is resized (bilinear); none for whole frames as they are.
        mouth_margin: The mouth region is the box of the target's lip landmarks, this share of its width wider on each
            side.
        reference: Which frame shows the identity to every method, whatever its recipe says: "first", or "same", each
            frame's own crop, which shows the true mouth to the method; "method": as its recipe says; "elsewhere": of
            videos that others made, nobody knows.
        codec: "memory": frames as the method made them. "h264": after encoding with x264 at `crf` and decoding, in
            groups of at most 16 frames. Videos that come as files have been through a codec and are taken as they are.
        crf: x264's quality, for "h264".
        pairs: How many clips (paired) or pairs of clips (unpaired) are drawn, by data set; all where not told.
        seconds: How much of each clip is used, from its beginning, by data set, and clips that are shorter are left
            out by name; all of each where not told.
        seed: Of drawing clips and pairs.
        fps: Frame rate at which everything is compared. There is no other.
        mel_columns: Of the mel window that a method reads for each frame: 16 of 12.5 ms, from the frame's start.
    """

    version: _Count
    name: str = ""
    paper: str = ""
    about: str = ""
    pairing: Literal["paired", "unpaired"] = "paired"
    boxes: Literal["mesh", "dlib", "atvg", "s3fd", "frame"] = "mesh"
    own_boxes: bool = False
    landmarks: Literal["frame", "crop"] = "frame"
    size_hw: Annotated[tuple[_Side, _Side], Field(strict=False)] | None = (160, 160)  # a YAML has a list
    mouth_margin: Annotated[float, Field(ge=0, le=10, strict=False)] = 0.25
    reference: Literal["method", "first", "same", "elsewhere"] = "method"
    codec: Literal["memory", "h264"] = "memory"
    crf: Annotated[int, Field(ge=0, le=51)] = 18
    pairs: Mapping[str, _Count] = field(default_factory=dict)
    seconds: Mapping[str, _Seconds] = field(default_factory=dict)
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    fps: Literal[25] = 25
    mel_columns: Literal[16] = 16

    def __post_init__(self) -> None:
        if self.size_hw is None and self.boxes != "frame":
            raise ValueError(
                f"size_hw is none with boxes {self.boxes}, but faces differ in theirs: set size_hw: [160, 160]"
            )
        if self.own_boxes and self.boxes not in ("dlib", "atvg", "s3fd"):
            raise ValueError(
                f"own_boxes with boxes {self.boxes}, which do not look at the prediction: set boxes: dlib, atvg or s3fd"
            )

    @property
    def key(self) -> str:
        """Name and version, as rows carry them."""
        return f"{self.name}-v{self.version}"

    def wanted_frames(self, dataset: str) -> int | None:
        """How many frames of each clip are used; None for all."""
        limit = self.seconds.get(dataset)
        return None if limit is None else round(limit * self.fps)

    def frames(self, dataset: str, video: int, audio: int) -> int:
        """How many frames of a pair are compared: the shorter of the two clips, up to the limit."""
        return min(video, audio, self.wanted_frames(dataset) or video)

    @property
    def cut(self) -> str:
        """What is compared, in the words of the papers' tables."""
        size = "" if self.size_hw is None else f", resized to {self.size_hw[0]}x{self.size_hw[1]}"
        if self.boxes == "frame":
            return f"full frames{size}"
        detector = {"mesh": "Face Mesh", "dlib": "dlib", "atvg": "ATVGnet", "s3fd": "S3FD"}[self.boxes]
        whose = "each video's own" if self.own_boxes else "the target's"
        return f"{whose} {detector} box{size}"


def list_protocols() -> list[str]:
    """Names of the protocols in experiments/protocols/, here or of the installation."""
    return experiment_names("protocols")


def load_protocol(name: str) -> Protocol:
    """A protocol by its name, or by the path of a YAML of your own.

    Raises:
        FileNotFoundError: No such protocol; lists those there are.
        ValueError: The YAML has other keys, types or values than expected; or it has the name and version of a
            protocol of the package, but other fields.
    """
    path = named_file("protocols", name, "--protocol")
    protocol = read_experiment("protocols", path, lambda **node: Protocol(**node, name=path.stem))
    recorded = recorded_versions().get(protocol.key)
    if recorded not in (None, fields_sha256(protocol)):
        raise ValueError(
            f"{path}: it is called {protocol.key}, but its fields are not those of {protocol.key} (SHA-256 "
            f"{fields_sha256(protocol)[:12]}, recorded {str(recorded)[:12]}). Expected another version where a field "
            "changes, because rows name nothing else. Raise version in it, or give a protocol of your own another name"
        )
    return protocol


def recorded_versions() -> dict[str, str]:
    """`fields_sha256` of all versions that the package has had, by name and version."""
    with (installed_experiments() / "protocols" / _VERSIONS).open(newline="", encoding="utf-8") as file:
        return {f"{line['name']}-v{line['version']}": line["sha256"] for line in csv.DictReader(file)}


def _sha256(protocol: Protocol, **values: Any) -> str:
    fields = asdict(protocol) | values
    kept = {k: v for k, v in fields.items() if k not in ("about", "paper") and (k not in _IMPLIED or v != _IMPLIED[k])}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def fields_sha256(protocol: Protocol) -> str:
    """SHA-256 of everything by which a protocol changes numbers."""
    return _sha256(protocol)


def rules_sha256(protocol: Protocol, dataset: str) -> str:
    """SHA-256 of what a protocol says of this data set: in a YAML of one's own the version is soon forgotten."""
    return _sha256(protocol, **{key: dict(getattr(protocol, key)).get(dataset) for key in ("pairs", "seconds")})


PAIRED_FACE_BOX = "paired_face_box"
"""What `bench evaluate --dataset` uses unless told otherwise."""
VIDEO_PAIRS = "video_pairs_face_box"
"""What `bench evaluate --pred --target` uses unless told otherwise."""
