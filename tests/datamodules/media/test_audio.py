# SPDX-License-Identifier: Apache-2.0
"""Waveforms from any file, the mel-spectrogram against the official one, and the windows cut from it."""

import math
import struct
from fractions import Fraction
from pathlib import Path

import av
import librosa
import numpy as np
import pytest

from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.media import audio
from tests import golden

MEL = golden.arrays("mel")
STARTS = golden.arrays("wav2lip")


def _signals() -> dict[str, np.ndarray]:
    t = np.arange(24000) / 16000
    chirp = 0.5 * np.sin(2 * np.pi * (60 * t + 7340 / 3 * t**2))
    noise = np.float32(0.1) * golden.uniform("mel/noise", (24001,), -1, 1)
    t = np.arange(19999) / 16000
    tones = 0.3 * np.sin(2 * np.pi * 220 * t) + 0.2 * np.sin(2 * np.pi * 3000 * t)
    tones[8000:14400] = 0
    signals = {"chirp": chirp, "noise": noise, "tones": tones, "noise_1000": noise[:1000], "noise_500": noise[:500]}
    return {name: samples.astype(np.float32) for name, samples in signals.items()}


SIGNALS = _signals()


def _write(path: Path, codec: str, samples: np.ndarray, rate: int, *, layout: str, start_s: float = 0.0) -> Path:
    """Encode float samples (channels, S) with PyAV, from `start_s` on; mp4 and mkv get a black video from 0 with it."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25) if start_s else None
        stream = container.add_stream(codec, rate=rate, layout=layout)
        if codec == "vorbis":
            stream.codec_context.options = {"strict": "-2"}
        if video is not None:
            video.width = video.height = 32
            video.pix_fmt = "yuv420p"
            for k in range(25):
                black = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
                black.pts, black.time_base = k, Fraction(1, 25)
                container.mux(video.encode(black))
            container.mux(video.encode(None))
        resampler = av.AudioResampler(format=stream.format.name, layout=layout, rate=rate)
        for start in range(0, samples.shape[1], 1024):
            piece = np.ascontiguousarray(samples[:, start : start + 1024], np.float32)
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            for ready in resampler.resample(frame):
                ready.pts, ready.time_base = start + round(start_s * rate), Fraction(1, rate)
                container.mux(stream.encode(ready))
        container.mux(stream.encode(None))
    return path


def _burst(rate: int, channels: int = 1, seconds: float = 1.5, begin: float = 0.5, end: float = 1.0) -> np.ndarray:
    """A 440 Hz tone between two instants, silence around it: (channels, S)."""
    t = np.arange(round(seconds * rate)) / rate
    tone = 0.5 * np.sin(2 * np.pi * 440 * t) * ((t >= begin) & (t < end))
    return np.tile(tone, (channels, 1)).astype(np.float32)


def _loud_span(samples: np.ndarray) -> tuple[float, float]:
    """First and last second at which the signal is loud."""
    loud = np.flatnonzero(np.abs(samples) > 0.15) / 16000
    return float(loud[0]), float(loud[-1])


def _wav(path: Path, samples: np.ndarray, rate: int = 16000, kind: int = 1) -> Path:
    """A wav file written byte by byte: kind 1 integers, 3 floats; samples (S,) or (S, channels)."""
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    width = samples.dtype.itemsize
    fmt = struct.pack("<HHIIHH", kind, channels, rate, rate * channels * width, channels * width, 8 * width)
    data = samples.tobytes()
    chunks = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", len(chunks)) + chunks)
    return path


# Mel-spectrogram


@pytest.mark.parametrize("name", list(SIGNALS))
def test_mel_equals_official(name: str) -> None:
    if f"{name}_wave_sum" in MEL:
        assert np.abs(SIGNALS[name]).sum(dtype=np.float64) == pytest.approx(float(MEL[f"{name}_wave_sum"]), abs=1e-3)
    mel = audio.mel_spectrogram(SIGNALS[name])
    assert mel.dtype == np.float32
    assert mel.shape == MEL[name].shape
    np.testing.assert_allclose(mel, MEL[name], atol=2e-5, rtol=0)


def test_mel_basis_equals_official() -> None:
    basis = audio.mel_basis()
    bounds = [(np.flatnonzero(row)[0], np.flatnonzero(row)[-1]) for row in basis]
    np.testing.assert_array_equal(bounds, MEL["basis_nonzero_first_last"])
    np.testing.assert_allclose(basis.sum(1, dtype=np.float64), MEL["basis_rowsum"], rtol=1e-6)
    np.testing.assert_allclose(basis[40], MEL["basis_row40"], rtol=1e-6)
    with pytest.raises(ValueError, match="read-only"):
        basis[0] = 0


@pytest.mark.parametrize("samples", [1, 199, 200, 401, 16000])
def test_mel_of_silence_is_exactly_minus_four(samples: int) -> None:
    mel = audio.mel_spectrogram(np.zeros(samples, np.float32))
    assert mel.shape == (80, 1 + samples // 200)
    assert (mel == -4).all()


def test_constant_padding_changes_only_the_edges() -> None:
    reflect, constant = (audio.mel_spectrogram(SIGNALS["noise"], mode) for mode in ("reflect", "constant"))
    np.testing.assert_array_equal(reflect[:, 2:-2], constant[:, 2:-2])
    assert np.abs(reflect[:, :2] - constant[:, :2]).max() > 0.1


def test_long_audio_is_transformed_in_parts_without_a_seam() -> None:
    samples = np.tile(SIGNALS["noise"], 20)
    mel = audio.mel_spectrogram(samples)
    assert mel.shape == (80, 2401)  # in two parts that meet at column 2048
    alone = audio.mel_spectrogram(samples[2030 * 200 : 2070 * 200])
    np.testing.assert_allclose(mel[:, 2040:2060], alone[:, 10:30], atol=1e-5)


@pytest.mark.parametrize("columns", [1, 127, 128, 129, 257, 401, 2049])
def test_mel_does_not_depend_on_how_many_spectra_are_made_at_once(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = np.random.default_rng(columns).uniform(-0.5, 0.5, 200 * columns - 1).astype(np.float32)
    parts = audio.mel_spectrogram(samples, "constant")
    assert parts.shape == (80, columns)
    monkeypatch.setattr(audio, "_SPECTRA_AT_ONCE", 4096)
    np.testing.assert_array_equal(parts, audio.mel_spectrogram(samples, "constant"))  # to the last bit


def test_input_samples_are_not_changed() -> None:
    samples = SIGNALS["noise_1000"].astype(np.float64)
    before = samples.copy()
    audio.mel_spectrogram(samples)
    np.testing.assert_array_equal(samples, before)


@pytest.mark.parametrize("samples", [np.zeros(999, np.int16), np.zeros((2, 999), np.float32)])
def test_mel_needs_a_vector_of_floats(samples: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"Expected float samples of shape \(S,\).*to_float"):
        audio.mel_spectrogram(samples)


@pytest.mark.parametrize(
    ("samples", "found"), [(np.zeros(0, np.float32), "no samples"), (np.array([0, np.nan], np.float32), "NaN")]
)
def test_mel_refuses_unusable_samples(samples: np.ndarray, found: str) -> None:
    with pytest.raises(MediaError, match=found):
        audio.mel_spectrogram(samples)


# Windows


def test_frame_mels_start_where_the_official_ones_do() -> None:
    rates = {"25.000": 25.0, "30.000": 30.0, "29.970": 30000 / 1001, "23.976": 24000 / 1001, "60.000": 60.0}
    columns = np.tile(np.arange(401, dtype=np.float32), (80, 1))
    for name, fps in rates.items():
        starts = STARTS[f"starts_{name}_T401"]  # the last one is the end of the audio
        np.testing.assert_array_equal(audio.frame_mels(columns, len(starts), fps)[:, 0, 0, 0], starts)
    np.testing.assert_array_equal([audio.mel_start(f) for f in range(200)], STARTS["starts_train_25"])


def test_mel_window_is_inside_or_refused() -> None:
    mel = np.arange(80 * 20, dtype=np.float32).reshape(80, 20)
    np.testing.assert_array_equal(audio.mel_window(mel, 4), mel[:, 4:])
    for start in (-1, 5):
        with pytest.raises(MediaError, match=rf"mel columns {start}\..*Expected a window inside 0\.\.19"):
            audio.mel_window(mel, start)


def test_frame_mels_are_those_of_inference_and_clamped() -> None:
    mel = golden.uniform("test_audio/mel", (80, 100), -4, 4)
    windows = audio.frame_mels(mel, 40)
    assert windows.shape == (40, 1, 80, 16)
    assert windows.dtype == np.float32
    for frame in range(27):
        start = audio.mel_start(frame)
        np.testing.assert_array_equal(windows[frame, 0], mel[:, start : start + 16])
    np.testing.assert_array_equal(windows[39, 0], mel[:, -16:])
    np.testing.assert_array_equal(audio.frame_mels(mel, 3, fps=40.0)[2, 0], mel[:, 4:20])
    np.testing.assert_array_equal(audio.frame_mels(mel, 9, first_frame=31), windows[31:])
    np.testing.assert_array_equal(audio.frame_mels(mel[:, :16], 2), np.stack([mel[None, :, :16]] * 2))
    with pytest.raises(MediaError, match=r"15 mel columns \(0\.19 s\)\. Expected at least 16.*longer audio"):
        audio.frame_mels(mel[:, :15], 1)


# Samples


def test_every_int16_value_survives() -> None:
    every = np.arange(-32768, 32768).astype(np.int16)
    samples = audio.to_float(every)
    assert samples.dtype == np.float32
    assert samples.min() == -1
    np.testing.assert_array_equal(audio.to_int16(samples), every)
    np.testing.assert_array_equal(audio.to_int16(np.array([1.5, 1.0, -1.5], np.float32)), [32767, 32767, -32768])


# Files


def test_wav_at_16_khz_is_bit_exact(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(-32768, 32768, 5001).astype(np.int16)
    np.testing.assert_array_equal(
        audio.load_audio(_wav(tmp_path / "12:30 a.wav", samples)), samples / np.float32(32768)
    )


@pytest.mark.parametrize(("dtype", "kind"), [("u1", 1), ("<i2", 1), ("<i4", 1), ("<f4", 3), ("<f8", 3)])
def test_sample_types_have_the_same_full_scale(tmp_path: Path, dtype: str, kind: int) -> None:
    samples = np.linspace(-1, 0.99, 3000)
    scale = {"u1": 128, "<i2": 2**15, "<i4": 2**31}.get(dtype, 1)
    stored = (np.floor(samples * scale) + (128 if dtype == "u1" else 0) if kind == 1 else samples).astype(dtype)
    loaded = audio.load_audio(_wav(tmp_path / "a.wav", stored, kind=kind))
    assert loaded.dtype == np.float32
    np.testing.assert_allclose(loaded, samples, atol=1.01 / scale if kind == 1 else 1e-7)


@pytest.mark.parametrize(("rate", "channels"), [(44100, 2), (48000, 6), (8000, 1), (22050, 1), (16000, 2)])
def test_wav_at_other_rates_equals_librosa(tmp_path: Path, rate: int, channels: int) -> None:
    samples = np.random.default_rng(rate).integers(-9000, 9000, (rate + 77, channels)).astype(np.int16)
    path = _wav(tmp_path / "a.wav", samples, rate)
    expected, _ = librosa.load(path, sr=16000)
    loaded = audio.load_audio(path)
    assert len(loaded) == math.ceil((rate + 77) * 16000 / rate)
    np.testing.assert_allclose(loaded, expected, atol=2e-6)


@pytest.mark.parametrize(
    ("name", "codec", "rate", "layout"),
    [
        ("a.mp3", "libmp3lame", 44100, "stereo"),
        ("a.flac", "flac", 8000, "mono"),
        ("a.ogg", "vorbis", 44100, "stereo"),
        ("a.m4a", "aac", 48000, "5.1"),
        ("a.mp4", "aac", 44100, "stereo"),
        ("a.mka", "aac", 16000, "mono"),
        ("a.webm", "libopus", 48000, "stereo"),
        ("a.mkv", "pcm_s16le", 44100, "5.1"),
    ],
)
def test_containers_and_codecs_keep_time_and_level(
    tmp_path: Path, name: str, codec: str, rate: int, layout: str
) -> None:
    channels = {"mono": 1, "stereo": 2, "5.1": 6}[layout]
    samples = audio.load_audio(_write(tmp_path / name, codec, _burst(rate, channels), rate, layout=layout))
    assert 1.5 <= len(samples) / 16000 < 1.6  # the last block of a codec may be filled up
    assert _loud_span(samples) == pytest.approx((0.5, 1.0), abs=0.006)
    inside = samples[9600:14400]
    # LAME turns the level down by 5 %. 5.1 carries the tone in five full-range channels; AAC low-passes the sixth.
    assert np.sqrt((inside**2).mean()) == pytest.approx(0.5 / math.sqrt(2), rel=0.2 if channels == 6 else 0.06)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_audio_that_starts_late_is_preceded_by_silence(tmp_path: Path, name: str) -> None:
    samples = audio.load_audio(_write(tmp_path / name, "aac", _burst(16000), 16000, layout="mono", start_s=0.7))
    assert _loud_span(samples) == pytest.approx((1.2, 1.7), abs=0.006)
    assert np.abs(samples[: round(0.65 * 16000)]).max() < 1e-4


def test_holes_in_the_timestamps_are_filled_with_silence(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        for block in (0, 1, 8, 9):
            frame = av.AudioFrame.from_ndarray(np.full((1, 1600), 8000, np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, block * 1600, Fraction(1, 16000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    expected = np.repeat([8000 / 32768, 0, 8000 / 32768], [3200, 9600, 3200])
    np.testing.assert_array_equal(audio.load_audio(path), expected.astype(np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_unusable_samples_in_a_file(tmp_path: Path, bad: float) -> None:
    path = _wav(tmp_path / "a.wav", np.array([0, 0.1, bad, 0], "<f4"), kind=3)
    with pytest.raises(MediaError, match=r"a\.wav: NaN or infinite.*Expected finite.*Export"):
        audio.load_audio(path)


def test_file_without_audio(tmp_path: Path) -> None:
    path = tmp_path / "mute.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    with pytest.raises(MediaError, match=r"mute\.mp4: no audio track\. Expected a file with audio\. .*ffmpeg"):
        audio.load_audio(path)
    with pytest.raises(MediaError, match=r"empty\.wav: the audio track has no samples"):
        audio.load_audio(_wav(tmp_path / "empty.wav", np.zeros(0, np.int16)))


def test_files_that_are_not_media(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.wav: no such file\. Expected .* Check"):
        audio.load_audio(tmp_path / "none.wav")
    with pytest.raises(MediaError, match="not a regular file"):
        audio.load_audio(tmp_path)
    (tmp_path / "zero.mp4").touch()
    with pytest.raises(MediaError, match=r"0 bytes.*Expected.*Copy it again"):
        audio.load_audio(tmp_path / "zero.mp4")
    for name, content in {"noise.mp4": bytes(range(256)) * 9, "readme.wav": b"Hello. " * 99, "a.txt": b"Hi\n"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MediaError, match="Expected"):
            audio.load_audio(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.wav", "pcm_s16le"), ("a.mp3", "libmp3lame"), ("a.flac", "flac"), ("a.m4a", "aac"), ("a.mka", "aac")],
)
def test_cut_off_file(tmp_path: Path, name: str, codec: str) -> None:
    path = _write(tmp_path / name, codec, _burst(44100, 2, 3.0), 44100, layout="stereo")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(MediaError, match=r"cut off|cannot be opened"):
        audio.load_audio(path)


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0xFFFFFFFF])
def test_wav_from_a_pipe_states_no_length(tmp_path: Path, size: int) -> None:
    path = _wav(tmp_path / "a.wav", np.arange(20000, dtype=np.int16))
    content = bytearray(path.read_bytes())
    content[40:44] = struct.pack("<I", size)
    path.write_bytes(content)
    assert len(audio.load_audio(path)) == 20000


def test_real_clips(real_clips: Path) -> None:
    for name, seconds in {"talk1.mp4": 6.11, "talk2.mp4": 5.02, "audio1.wav": 5.02, "audio2.wav": 5.01}.items():
        samples = audio.load_audio(real_clips / name)
        assert len(samples) / 16000 == pytest.approx(seconds, abs=0.02)
        assert 0.02 < samples.std() < 0.5
        mel = audio.mel_spectrogram(samples)
        assert mel.shape == (80, 1 + len(samples) // 200)
        assert mel.min() >= -4
        assert 0 < mel.max() <= 4
    expected, _ = librosa.load(real_clips / "audio1.wav", sr=16000)
    np.testing.assert_allclose(audio.load_audio(real_clips / "audio1.wav"), expected, atol=2e-6)
