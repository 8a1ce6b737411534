# SPDX-License-Identifier: Apache-2.0
"""Conversion of decoded frames to uint8 RGB of standard dynamic range (SDR) with BT.709 primaries.

The matrix and range in a frame's tags are undone, and so are transfer function and primaries where they differ from
those of SDR video. SDR transfer functions (BT.709, BT.601, sRGB, gamma 2.2 and 2.8 ...) are treated as equal, and so
are the primaries of BT.709 and of earlier television, as in players.

* HLG (BT.2100): the camera's light; the signal of 75 % is white (BT.2408). A screen on which that white is as bright as
  SDR's, 100 cd/m2, has a system gamma of 1.03 by BT.2100; it is taken as 1.
* PQ (SMPTE ST 2084): 203 cd/m2 is white (BT.2408).
* BT.2020 and Display P3 primaries become BT.709's by their 3 x 3 matrix, in linear light.

Light is encoded with BT.1886's gamma of 2.4. Values brighter than white or outside BT.709 are clipped: everything
inside SDR is exact and not compressed.
"""

import functools
import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from lipsync_bench.datamodules.errors import MediaError

# libav's fast conversion between YUV and RGB is ten times as fast, one level too dark, and differs between processors.
EXACT = 0x02 | 0x2000 | 0x40000 | 0x80000  # SWS_BILINEAR, FULL_CHR_H_INT, ACCURATE_RND, BITEXACT

# The numbers are those of ITU-T H.273, which libav uses too.
_UNSPECIFIED = 2
_LIMITED, _FULL = 1, 2
_PQ, _HLG, _BT2020 = 16, 18, 9
_GAMMA = 2.4
_WHITE_PQ = 203 / 10_000
_TO_BT709 = {
    _BT2020: [[1.6605, -0.5876, -0.0729], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1188]],
    12: [[1.2249, -0.2249, 0.0], [-0.0420, 1.0420, 0.0], [-0.0196, -0.0786, 1.0982]],  # Display P3
}
_MATRICES = {1, 4, 5, 6, 7, _BT2020}  # supported by libav, which treats others as BT.601 without a warning
_HDR = {_PQ: "PQ (SMPTE ST 2084)", _HLG: "HLG (ARIB STD-B67)"}
_REFUSED = {
    "transfer function": {
        8: "linear light",
        9: "logarithmic (100:1)",
        10: "logarithmic (316:1)",
        17: "SMPTE ST 428-1",
    },
    "primaries": {8: "generic film", 10: "SMPTE ST 428-1 (XYZ)", 11: "SMPTE RP 431-2 (DCI-P3)"},
    "matrix": {
        8: "YCgCo",
        10: "BT.2020 constant luminance",
        11: "SMPTE ST 2085",
        12: "derived from primaries",
        13: "derived from primaries, constant luminance",
        14: "ICtCp",
        15: "IPT-PQ-C2",
        16: "YCgCo-Re",
        17: "YCgCo-Ro",
    },
}
_LIMITED_BY_DEFAULT = {"av1", "h264", "hevc", "vvc"}  # by their standards; other codecs store grey in full range
_STRIP_PIXELS = 1 << 18  # converted at a time: 3 MB for each intermediate array

logger = logging.getLogger(__name__)

__all__ = ["EXACT", "SdrFrames"]


@functools.lru_cache(maxsize=1024)
def _warn_once(path: Path, transfer: str) -> None:
    logger.warning(
        "%s: HDR video, transfer function %s, is converted to SDR; values brighter than its reference white are "
        "clipped. Convert it in the same way for methods that run elsewhere.",
        path,
        transfer,
    )


def _light(values: np.ndarray, transfer: int) -> np.ndarray:
    """Coded values 0..1 -> linear light, 1 is white."""
    if transfer == _PQ:
        root = values ** (32 / 2523)
        return (np.maximum(root - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * root)) ** (8192 / 1305) / _WHITE_PQ
    if transfer == _HLG:
        a, b, c = 0.17883277, 0.28466892, 0.55991073

        def camera(v: Any) -> np.ndarray:
            return np.where(v <= 0.5, v * v / 3, (np.exp((v - c) / a) + b) / 12)

        return camera(values) / camera(0.75)
    return values**_GAMMA


def _to_sdr(image: np.ndarray, light_of: np.ndarray, to_bt709: np.ndarray) -> np.ndarray:
    """16-bit codes (H, W, 3), or (H, W) of grey -> uint8 (H, W, 3).

    Args:
        light_of: float32 (65536,), the linear light of each code.
        to_bt709: float32 (3, 3).
    """
    height, width = image.shape[:2]
    out = np.empty((height, width, 3), np.uint8)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        light = light_of[image[top : top + rows]]
        light = np.repeat(light[..., None], 3, axis=2) if light.ndim == 2 else cv2.transform(light, to_bt709)
        out[top : top + rows] = np.rint(255 * cv2.pow(np.clip(light, 0, 1), 1 / _GAMMA))
    return out


class SdrFrames:
    """Converts decoded frames of one video to uint8 RGB (H, W, 3), SDR, BT.709 primaries.

    Without tags matrix and range are BT.601 and limited, as in libav, OpenCV and so in the published pipelines, at any
    size. RGB and grey are full range unless they are tagged as limited, but grey of codecs whose standard says limited
    is limited unless it is tagged as full.

    Args:
        path: The file, for messages.
        codec: Name of the codec.
    """

    def __init__(self, path: Path, codec: str) -> None:
        self._path = path
        self._limited_grey = codec in _LIMITED_BY_DEFAULT
        self._reformatter = VideoReformatter()
        self._tags: tuple[Any, ...] = ()
        self._wide: np.ndarray | None = None
        self._table: np.ndarray | None = None
        self._arguments: dict[str, Any] = {}

    def __call__(self, frame: Any) -> np.ndarray:
        """Convert one frame. Raises MediaError if its colours are of an unsupported kind."""
        tags = frame.format.name, frame.colorspace, frame.color_range, frame.color_trc, frame.color_primaries
        if tags != self._tags:
            self._prepare(frame)
            self._tags = tags
        image: np.ndarray = self._reformatter.reformat(frame, interpolation=EXACT, **self._arguments).to_ndarray()
        if self._table is None:
            return image
        if self._wide is None:
            image = self._table[image]
            return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
        return _to_sdr(image, self._table, self._wide)

    def _refuse(self, kind: str, value: int) -> None:
        name = _REFUSED[kind].get(value)
        if name is not None:
            raise MediaError(
                f"{self._path}: the {kind} of its colours is {name}. Expected BT.709, BT.601, sRGB, BT.2020, Display "
                "P3, HLG or PQ. Convert it with: ffmpeg -i INPUT -vf "
                "zscale=matrix=709:primaries=709:transfer=709,format=yuv420p OUTPUT.mp4"
            )

    def _prepare(self, frame: Any) -> None:
        """Decide how frames with these tags are converted."""
        kind = frame.format
        grey = kind.name.startswith(("gray", "ya"))
        yuv = len(kind.components) > 2 and not kind.is_rgb and not kind.name.startswith("xyz")
        transfer, primaries, matrix = frame.color_trc, frame.color_primaries, frame.colorspace
        self._refuse("transfer function", transfer)
        self._refuse("primaries", primaries)
        if yuv:
            self._refuse("matrix", matrix)
        if primaries not in _TO_BT709 and (transfer in _HDR or (yuv and matrix == _BT2020)):
            # HLG and PQ are defined only with BT.2020; files with incomplete tags are common.
            primaries = _BT2020 if primaries in (0, _UNSPECIFIED) else primaries
        if matrix not in _MATRICES:
            matrix = _BT2020 if primaries == _BT2020 else Colorspace.ITU601
        if transfer in _HDR:
            _warn_once(self._path, _HDR[transfer])
        wide = primaries in _TO_BT709 or transfer in _HDR
        full = frame.color_range == _FULL or kind.name.startswith("yuvj")
        bits = kind.components[0].bits
        limited = frame.color_range == _LIMITED or (grey and self._limited_grey and not full)
        squeezed = limited and (grey or kind.is_rgb) and bits <= 16  # libav expands YUV, and floats have no range
        deep = wide or squeezed
        # libav's bilinear full-chroma conversion corrupts green and blue of rgb48le (seen with FFmpeg 8), not of gbrp.
        self._arguments = {"format": ("gray16le" if grey else "gbrp16le") if deep else "rgb24"}
        if yuv:
            self._arguments |= {
                "src_colorspace": matrix,
                "src_color_range": ColorRange.JPEG if full else ColorRange.MPEG,
                "dst_color_range": ColorRange.JPEG,
            }
        self._wide = self._table = None
        if deep:
            values = np.arange(65536) / 65535
            if squeezed:
                levels = values * (2**bits - 1) / 2 ** (bits - 8)
                values = ((levels - 16) / 219).clip(0, 1)
            if wide:
                self._table = _light(values, transfer).astype(np.float32)
                self._wide = np.array(_TO_BT709.get(primaries, np.eye(3)), np.float32)
            else:
                self._table = np.rint(255 * values).astype(np.uint8)
