# SPDX-License-Identifier: Apache-2.0
"""The cepstral coefficients (MFCC) that SyncNet v2 takes: 13 values, 100 times a second, from 16 kHz int16 samples.

These are the definitions of the package python_speech_features 0.6 (base `mfcc` with its default arguments), which
differ from those of librosa and torchaudio in nearly every step, computed in float64.
"""

import numpy as np
from scipy.fft import dct

__all__ = ["COEFFICIENTS", "mfcc"]

SAMPLE_RATE = 16000
COEFFICIENTS = 13
WINDOW_SAMPLES = 400
HOP_SAMPLES = 160
FFT_SAMPLES = 512
BANDS = 26
PRE_EMPHASIS = 0.97
LIFTER = 22
EPSILON = float(np.finfo(np.float64).eps)
BLOCK_COLUMNS = 512  # bounds the memory: their complex spectra take 2 MB


def _filters() -> np.ndarray:
    """26 triangles (26, 257) of unit height, equally spaced on the mel scale from 0 to 8000 Hz."""
    top = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, top, BANDS + 2) / 2595) - 1)
    edges = np.floor((FFT_SAMPLES + 1) * hertz / SAMPLE_RATE).astype(int)
    filters = np.zeros((BANDS, FFT_SAMPLES // 2 + 1))
    for j, (left, peak, right) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        filters[j, left:peak] = (np.arange(left, peak) - left) / (peak - left)
        filters[j, peak:right] = (right - np.arange(peak, right)) / (right - peak)
    return filters


def _coefficients(frames: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """(m, 400) pre-emphasised samples -> (m, 13)."""
    power = np.abs(np.fft.rfft(frames, FFT_SAMPLES)) ** 2 / FFT_SAMPLES  # rectangular window
    energy = power.sum(axis=1)
    bands = power @ filters.T
    energy[energy == 0] = EPSILON
    bands[bands == 0] = EPSILON
    cepstrum = dct(np.log(bands), type=2, axis=1, norm="ortho")[:, :COEFFICIENTS]
    cepstrum *= 1 + LIFTER / 2 * np.sin(np.pi * np.arange(COEFFICIENTS) / LIFTER)
    cepstrum[:, 0] = np.log(energy)  # replaced after the lifter
    return cepstrum


def mfcc(samples: np.ndarray) -> np.ndarray:
    """13 cepstral coefficients every 10 ms.

    Args:
        samples: (S,) int16 at 16 kHz. Not scaled to [-1, 1]: the first coefficient is the logarithm of the energy.

    Returns:
        (M, 13) float64, M = 1 + ceil((S - 400) / 160), at least 1; the tail is padded with zeros.

    Raises:
        ValueError: not a vector of int16, or empty.

    Example:
        >>> silence = mfcc(np.zeros(16000, np.int16))
        >>> silence.shape, abs(silence[0, :3].round(4)).tolist()
        ((99, 13), [36.0437, 0.0, 0.0])
    """
    samples = np.asarray(samples)
    if samples.ndim != 1 or samples.dtype != np.int16 or samples.size == 0:
        seen = f", values from {samples.min():g} to {samples.max():g}" if samples.size else ""
        raise ValueError(
            f"samples has shape {samples.shape} and dtype {samples.dtype}{seen}. Expected a non-empty vector of int16 "
            "at 16 kHz. Use lipsync_bench.datamodules.media.audio.to_int16(samples)"
        )
    x = samples.astype(np.float64)
    columns = 1 if len(x) <= WINDOW_SAMPLES else 1 + -(-(len(x) - WINDOW_SAMPLES) // HOP_SAMPLES)
    padded = np.zeros((columns - 1) * HOP_SAMPLES + WINDOW_SAMPLES)
    padded[0] = x[0]
    padded[1 : len(x)] = x[1:] - PRE_EMPHASIS * x[:-1]
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_SAMPLES)[::HOP_SAMPLES]
    filters = _filters()
    blocks = [_coefficients(frames[k : k + BLOCK_COLUMNS], filters) for k in range(0, columns, BLOCK_COLUMNS)]
    return np.concatenate(blocks)
