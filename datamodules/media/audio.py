# SPDX-License-Identifier: Apache-2.0
"""The audio input of the networks: mono samples at 16 kHz, mel spectrograms with 80 columns a second, windows of 16
columns.

The mel spectrogram and its windows are those of Wav2Lip (Prajwal et al., ACM MM 2020), which its successors share.
The filters are librosa's; the transform is computed here with NumPy in float64, because librosa's, in float32, moves
pure tones by up to 1e-4.
"""

import functools
from pathlib import Path
from typing import Literal

import numpy as np
import soxr

from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.media.audio_track import audio_frames, mono_samples
from lipsync_bench.datamodules.media.damage import REPAIR, Damage

SAMPLE_RATE = 16000
MEL_BANDS = 80
MEL_WINDOW = 16
MELS_PER_SECOND = 80

HOP_SAMPLES = SAMPLE_RATE // MELS_PER_SECOND
FFT_SAMPLES = 800
PREEMPHASIS = 0.97
MIN_AMPLITUDE = 1e-5
REFERENCE_DB = 20.0
MIN_LEVEL_DB = -100.0
LOW_HZ, HIGH_HZ = 55.0, 7600.0

_COLUMNS_AT_ONCE = 2048  # so that an hour of audio takes no gigabytes
_SPECTRA_AT_ONCE = 128  # their float64 arrays stay in the cache: 1.6 ms for 5 s of audio instead of 3.7

__all__ = [
    "MELS_PER_SECOND",
    "MEL_BANDS",
    "MEL_WINDOW",
    "SAMPLE_RATE",
    "frame_mels",
    "load_audio",
    "mel_basis",
    "mel_spectrogram",
    "mel_start",
    "mel_window",
    "to_float",
    "to_int16",
]


def load_audio(path: Path | str, damage: Damage | None = None) -> np.ndarray:
    """The samples of a media file's audio track (the default one, else libav's best), mono.

    Channels are averaged first, then the mean is resampled with soxr "HQ", as librosa.load does by default. A 16-bit
    sample s at 16 kHz mono comes back as exactly s / 32768. Sample 0 is time 0 of the file as `video.read_frames`
    counts it, see `track_times.time_zero`. Audio that starts later is preceded by silence, priming samples of the codec
    are left out, and holes in the timestamps above 0.1 s are filled with silence.

    Memory: the result, and one decoded packet; files of more than 6 hours are refused.

    Args:
        path: any container and codec that PyAV reads.
        damage: counts what the decoder could not read; without it a warning is logged.

    Returns:
        float32 (S,), 16 kHz, [-1, 1] (a float file may exceed it); S = ceil(n 16000 / rate) for n samples in the file.

    Raises:
        FileNotFoundError: there is no such file.
        MediaError: not a media file, no audio in it, an unsupported rate or sample format, an end too long before the
            duration the file states (a packet or 2 %, at most 0.5 s), or NaN or infinite samples. A cut-off cannot be
            detected in formats that state no duration (raw mp3 or aac).
    """
    path = Path(path)
    parts: list[np.ndarray] = []
    count = rate = 0
    resampler = None
    found = Damage() if damage is None else damage
    for position, frame in audio_frames(path, found):
        rate = frame.sample_rate
        chunk = mono_samples(frame, path)[max(-position, 0) :]  # samples before time 0 are never presented
        if position > count:
            chunk = np.concatenate([np.zeros(position - count, np.float32), chunk])
        count += len(chunk)
        if rate != SAMPLE_RATE:
            resampler = resampler or soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="soxr_hq")
            chunk = resampler.resample_chunk(chunk, last=False)
        parts.append(chunk)
    if damage is None:
        found.warn(path)
    if count == 0:
        raise MediaError(f"{path}: the audio track has no samples. Expected audio. {REPAIR}")
    if resampler is not None:
        parts.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    length = -(-count * SAMPLE_RATE // rate)
    samples = np.concatenate(parts)[:length]
    return np.pad(samples, (0, length - len(samples)))


def to_int16(samples: np.ndarray) -> np.ndarray:
    """Float samples in [-1, 1] as int16 of the same shape: 32768 x, rounded, clipped."""
    return np.clip(np.rint(samples * np.float32(32768)), -32768, 32767).astype(np.int16)


def to_float(samples_int16: np.ndarray) -> np.ndarray:
    """int16 samples as float32 of the same shape in [-1, 1): s / 32768, exactly."""
    return samples_int16.astype(np.float32) / np.float32(32768)


@functools.cache
def mel_basis() -> np.ndarray:
    """Triangular filters (80, 401), float32, on the Slaney mel scale with unit area, from 55 to 7600 Hz."""
    from librosa.filters import mel  # takes seconds, which help and loader workers need not spend

    basis = mel(sr=SAMPLE_RATE, n_fft=FFT_SAMPLES, n_mels=MEL_BANDS, fmin=LOW_HZ, fmax=HIGH_HZ)
    basis.flags.writeable = False  # shared by all callers
    return basis


def mel_spectrogram(samples: np.ndarray, pad_mode: Literal["reflect", "constant"] = "reflect") -> np.ndarray:
    """Normalised log-mel spectrogram, 80 columns a second; column t is centred on sample 200 t.

    Pre-emphasis 0.97, periodic Hann window of 800, hop 200, magnitudes (not squared), 80 Slaney bands, 20 log10 of at
    least 1e-5, minus the reference of 20 dB, then -100..0 dB mapped to -4..4 and clipped. Silence is exactly -4.

    Args:
        samples: (S,) float samples in [-1, 1] at 16 kHz, S >= 1.
        pad_mode: padding at both ends: "reflect" as in Wav2Lip's pinned librosa 0.7, "constant" (zeros) as in librosa
            from 0.9.2 on, with which HyperLips and VideoReTalking were trained. Only the first two columns and the last
            one or two differ, by up to 2.4.

    Returns:
        float32 (80, 1 + floor(S / 200)) in [-4, 4], band 0 lowest.

    Raises:
        ValueError: not a vector of floats.
        MediaError: no samples, or NaN or infinite ones.
    """
    if samples.ndim != 1 or samples.dtype.kind != "f":
        raise ValueError(
            f"mel_spectrogram: {samples.dtype} samples of shape {samples.shape}. Expected float samples of shape (S,). "
            "Use lipsync_bench.datamodules.media.audio.to_float for int16 and the mean over channels for stereo."
        )
    if samples.size == 0 or not np.isfinite(samples).all():
        found = "no samples" if samples.size == 0 else "NaN or infinite samples"
        raise MediaError(f"mel_spectrogram: {found}. Expected finite samples. Check how the audio was made.")
    x = samples.astype(np.float64)
    x[1:] -= PREEMPHASIS * x[:-1].copy()
    x = np.pad(x, FFT_SAMPLES // 2, mode=pad_mode)
    frames = np.lib.stride_tricks.sliding_window_view(x, FFT_SAMPLES)[::HOP_SAMPLES]  # (M, 800), a view
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT_SAMPLES) / FFT_SAMPLES)
    mel = np.empty((MEL_BANDS, len(frames)), np.float32)
    for start in range(0, len(frames), _COLUMNS_AT_ONCE):
        part = frames[start : start + _COLUMNS_AT_ONCE]
        spectra = [
            np.abs(np.fft.rfft(part[first : first + _SPECTRA_AT_ONCE] * window).astype(np.complex64))
            for first in range(0, len(part), _SPECTRA_AT_ONCE)
        ]
        # One product for all: BLAS rounds a product of few columns differently from one of many.
        mel[:, start : start + len(part)] = mel_basis() @ np.concatenate(spectra).T
    level = 20 * np.log10(np.maximum(np.float32(MIN_AMPLITUDE), mel)) - np.float32(REFERENCE_DB)
    return np.clip(8 * (level - np.float32(MIN_LEVEL_DB)) / np.float32(-MIN_LEVEL_DB) - 4, -4, 4).astype(np.float32)


def mel_start(frame: int, fps: float = 25.0) -> int:
    """First mel column of the window of a video frame: 80 frame / fps, truncated, in float64 like the official code."""
    return int(frame * (MELS_PER_SECOND / fps))


def mel_window(mel: np.ndarray, start: int) -> np.ndarray:
    """Columns start .. start + 15 of a mel (80, M), as a view (80, 16).

    Raises:
        MediaError: the window does not lie inside the mel.
    """
    columns = mel.shape[1]
    if start < 0 or start + MEL_WINDOW > columns:
        raise MediaError(
            f"mel columns {start}..{start + MEL_WINDOW - 1} do not exist. Expected a window inside 0..{columns - 1}. "
            "Use longer audio, or fewer video frames."
        )
    return mel[:, start : start + MEL_WINDOW]


def frame_mels(mel: np.ndarray, frames: int, fps: float = 25.0, first_frame: int = 0) -> np.ndarray:
    """The mel window of each video frame, as at inference.

    Args:
        mel: (80, M).
        frames: number of video frames, T.
        fps: their rate.
        first_frame: number of the first of the T frames, counted from the beginning of the audio.

    Returns:
        float32 (T, 1, 80, 16). Windows that would extend beyond the mel's end are its last 16 columns.

    Raises:
        MediaError: fewer than 16 columns.
    """
    last = mel.shape[1] - MEL_WINDOW
    if last < 0:
        raise MediaError(
            f"the audio has {mel.shape[1]} mel columns ({mel.shape[1] / MELS_PER_SECOND:.2f} s). Expected at least "
            f"{MEL_WINDOW} ({MEL_WINDOW / MELS_PER_SECOND:.1f} s). Use longer audio."
        )
    starts = np.array([min(mel_start(first_frame + k, fps), last) for k in range(frames)], dtype=np.intp)
    columns = starts[:, None] + np.arange(MEL_WINDOW)  # (T, 16)
    return np.ascontiguousarray(mel[:, columns].transpose(1, 0, 2)[:, None], dtype=np.float32)
