# SPDX-License-Identifier: Apache-2.0
"""Damage that a decoder met: concealed frames are counted; if too much is missing at the end, it is an error."""

import functools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from lipsync_bench.datamodules.errors import MediaError

REPAIR = "Replace the file, or re-encode what can be read of it with: ffmpeg -i INPUT OUTPUT.mp4"
# How much may be missing at the end: one frame or packet, or this share of the stated duration, but at most 0.5 s.
# Editors and muxers are not more exact.
_SHORTFALL_SHARE = 0.02
_MOST_SHORTFALL_S = 0.5

_log = logging.getLogger(__name__)

__all__ = ["REPAIR", "Damage", "check_end", "until_error"]


@functools.lru_cache(maxsize=4096)  # a file that is read twice is reported once
def _warn(text: str) -> None:
    _log.warning("%s", text)


@dataclass
class Damage:
    """Counts the damaged frames of the files that are read with it.

    Args:
        frames: Video frames and audio packets that the decoder concealed or could not decode, or that are missing at
            the end.
    """

    frames: int = 0

    def warn(self, path: Path) -> None:
        """Log a line about a file, if it has damaged frames."""
        if self.frames:
            _warn(
                f"{path}: {self.frames} damaged frames, concealed or left out by the decoder. Expected none. "
                f"Scores and crops of these frames are wrong. {REPAIR}"
            )


def until_error(frames: Iterator[Any], errors: list[Exception], damage: Damage | None = None) -> Iterator[Any]:
    """Yield decoded frames until decoding ends or fails; a failure is added to `errors`, for `check_end`."""
    try:
        for frame in frames:
            if damage is not None:
                damage.frames += frame.is_corrupt
            yield frame
    except (av.error.FFmpegError, ValueError) as error:
        errors.append(error)


def check_end(
    path: Path,
    kind: str,
    decoded_s: float,
    stated_s: float | None,
    unit_s: float,
    errors: list[Exception],
    damage: Damage,
) -> None:
    """Raise MediaError if a stream ended too early; count a small missing part as damage.

    Args:
        path: The file, for messages.
        kind: "video" or "audio".
        decoded_s: Decoded duration.
        stated_s: The duration that the file states; without it every error of the decoder is fatal.
        unit_s: Length of a frame or packet.
        errors: Errors of the decoder. One at the very end is tolerated: junk after the last frame is common.
        damage: Counts the missing frames or packets.
    """
    if stated_s is None:
        if errors:
            raise MediaError(
                f"{path}: {kind} cannot be decoded after {decoded_s:.2f} s ({errors[0].__class__.__name__}). Expected "
                f"a file that decodes to its end. {REPAIR}"
            ) from errors[0]
        return
    missing = stated_s - decoded_s
    if missing > min(_MOST_SHORTFALL_S, max(1.1 * unit_s, _SHORTFALL_SHARE * stated_s)):
        raise MediaError(
            f"{path}: {kind} ends after {decoded_s:.2f} s, the file is cut off or damaged. Expected {stated_s:.2f} s, "
            f"as its header states. {REPAIR}"
        ) from (errors[0] if errors else None)
    if errors:
        damage.frames += max(1, round(missing / unit_s))
