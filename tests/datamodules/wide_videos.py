# SPDX-License-Identifier: Apache-2.0
"""Videos of HDR and of wide primaries, made from SDR frames by the standards' own formulas."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])  # from BT.709
DISPLAY_P3 = np.array([[0.8225, 0.1774, 0.0], [0.0332, 0.9669, 0.0], [0.0171, 0.0724, 0.9108]])

__all__ = ["BT2020", "DISPLAY_P3", "hlg", "pq", "sdr", "write_wide"]


def hlg(light: np.ndarray) -> np.ndarray:
    """ARIB STD-B67; SDR's white at 75 %."""
    x, (a, b, c) = np.maximum(light, 0) * 0.26496, (0.17883277, 0.28466892, 0.55991073)
    return np.where(x <= 1 / 12, np.sqrt(3 * x), a * np.log(np.maximum(12 * x - b, 1e-9)) + c)


def pq(light: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084; SDR's white at 203 cd/m2."""
    y = (np.maximum(light, 0) * 203 / 10000) ** 0.1593017578125
    out: np.ndarray = ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375
    return out


def sdr(light: np.ndarray) -> np.ndarray:
    """Gamma 2.4 of BT.1886."""
    out: np.ndarray = np.maximum(light, 0) ** (1 / 2.4)
    return out


def write_wide(
    path: Path,
    frames: Sequence[np.ndarray],
    encode: Callable[[np.ndarray], np.ndarray],
    tags: tuple[int, int, int],
    primaries: np.ndarray = BT2020,
    *,
    audio: np.ndarray | None = None,
    codec: str = "ffv1",
) -> Path:
    """Write limited-range yuv420p10le at 25 fps with BT.2020's matrix (BT.709's if that is tagged).

    Args:
        path: The file.
        frames: uint8 RGB (H, W, 3), even sides.
        encode: From linear light, 1 is SDR's white, to coded values.
        tags: Primaries, transfer function, matrix, as numbers of H.273.
        primaries: From BT.709's.
        audio: float32 (S,) at 16 kHz.
        codec: Of the video.
    """
    red, blue = (0.2126, 0.0722) if tags[2] == 1 else (0.2627, 0.0593)
    with av.open(str(path), "w") as container:
        options = {"crf": "8", "preset": "ultrafast", "x265-params": "log-level=none"} if codec == "libx265" else {}
        stream: Any = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p10le"
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = *tags, 1
        track: Any = None if audio is None else container.add_stream("aac", rate=16000, layout="mono")
        for image in frames:
            coded = encode((image / 255.0) ** 2.4 @ primaries.T)
            luma = coded @ [red, 1 - red - blue, blue]
            blues, reds = ((coded[..., k] - luma) / (2 - 2 * weight) for k, weight in ((2, blue), (0, red)))
            small = (image.shape[1] // 2, image.shape[0] // 2)
            chroma = [512 + 896 * cv2.resize(p, small, interpolation=cv2.INTER_AREA) for p in (blues, reds)]
            frame: Any = av.VideoFrame(image.shape[1], image.shape[0], "yuv420p10le")
            for plane, values in zip(frame.planes, [64 + 876 * luma, *chroma], strict=True):
                rows = np.zeros((plane.height, plane.line_size // 2), "<u2")
                rows[:, : plane.width] = np.rint(values).clip(0, 1023)
                plane.update(rows.tobytes())
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if audio is not None:
            samples = av.AudioFrame.from_ndarray(audio[None].astype(np.float32), format="fltp", layout="mono")
            samples.sample_rate = 16000
            container.mux(track.encode(samples))
            container.mux(track.encode(None))
    return path
