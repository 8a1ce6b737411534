# SPDX-License-Identifier: Apache-2.0
"""The training loader, windows a second in one process, against a plain loader and against JPEG decoding alone.

The loader reads faces of a recipe's size from tracks. The reference for decoding decodes the same JPEGs, byte for byte,
as a user of simplejpeg would. The plain loader works as described for Wav2Lip (Prajwal et al., ACM MM 2020) on the same
windows: one JPEG file a frame, at the size that faces have in the video, and one wav a clip; every sample reads ten
files, resizes them, and computes the mel spectrogram of the whole wav with librosa to cut six windows out of it. It has
advantages: it lists no folder and repeats no draw, and the wav is read by the standard library.

Faces are real ones where the variable LIPSYNC_CLIPS names a folder of videos, else those of the synthetic corpus.
"""

import os
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import librosa
import numpy as np
import pytest
import simplejpeg
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.tools.comparison import Aim, Comparison
from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.clips.track import Track, TrackHeader, track_path, write_track
from lipsync_bench.datamodules.faces.crop_rules.boxes import FaceMeshBox
from lipsync_bench.datamodules.media.audio import MEL_WINDOW, PREEMPHASIS, SAMPLE_RATE, mel_basis, to_float
from lipsync_bench.datamodules.prepare.options import PrepareOptions
from lipsync_bench.datamodules.prepare.prepare import prepare
from lipsync_bench.datamodules.recipes.recipe import Recipe
from lipsync_bench.datamodules.recipes.values import Codec
from lipsync_bench.datamodules.windows.generator import GeneratorWindows, window_columns
from lipsync_bench.datamodules.windows.samplers import EpochSampler
from lipsync_bench.datamodules.windows.starts import WINDOW_FRAMES

BATCH = 16
WINDOWS = 128  # in an epoch; rounds are short, so that other load on the machine affects all equally
COPIES = 80  # of each clip: far more than the loader keeps open, as in a real data set

__all__: list[str] = []


@dataclass(frozen=True)
class _Drawn:
    """What the loader read for one window."""

    clip: Path
    start: int
    other: int
    jpegs: list[bytes]


def _whole_mel(samples: np.ndarray) -> np.ndarray:
    """As published, with librosa."""
    emphasised = np.append(samples[0], samples[1:] - PREEMPHASIS * samples[:-1])
    spectrum = np.abs(librosa.stft(y=emphasised, n_fft=800, hop_length=200, win_length=800, pad_mode="reflect"))
    level = 20 * np.log10(np.maximum(1e-5, mel_basis() @ spectrum)) - 20
    return np.clip(8 * ((level + 100) / 100) - 4, -4, 4)


class _PlainDataset(Dataset[tuple[torch.Tensor, ...]]):
    """The same windows from one JPEG file a frame and one wav a clip: x, single mels, mel, y."""

    def __init__(self, folders: dict[Path, Path], drawn: list[_Drawn], side: int) -> None:
        self.folders, self.drawn, self.side = folders, drawn, side

    def __len__(self) -> int:
        return len(self.drawn)

    def _faces(self, folder: Path, start: int) -> np.ndarray:
        images = [cv2.imread(str(folder / f"{start + k}.jpg")) for k in range(WINDOW_FRAMES)]
        squares = [cv2.resize(image, (self.side, self.side)) for image in images]
        return np.stack(squares).transpose(3, 0, 1, 2) / 255.0  # (3, 5, H, W), float64 as NumPy divides

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        window = self.drawn[index]
        folder = self.folders[window.clip]
        target, reference = self._faces(folder, window.start), self._faces(folder, window.other)
        with wave.open(str(folder / "audio.wav")) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        mel = _whole_mel(to_float(samples))
        own, singles = window_columns(window.start)
        cuts = np.stack([mel[:, column : column + MEL_WINDOW] for column in singles])[:, None]
        masked = target.copy()
        masked[:, :, self.side // 2 :] = 0
        x = np.concatenate([masked, reference])
        arrays = x, cuts, mel[None, :, own : own + MEL_WINDOW], target
        return tuple(torch.from_numpy(np.ascontiguousarray(array, np.float32)) for array in arrays)


@pytest.fixture(scope="module")
def faces(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared clips."""
    videos = os.environ.get("LIPSYNC_CLIPS")
    if videos is None:
        return Path(request.getfixturevalue("small_clips"))
    clips = tmp_path_factory.mktemp("real_clips")
    assert prepare(Path(videos), clips, PrepareOptions(), progress=False).done > 0
    return clips


def _many_clips(corpus: Path, folder: Path, recipe: Recipe, codec: Codec) -> list[Path]:
    """`COPIES` links to each clip and to its track, which is made of the clip's crops."""
    clips = []
    for path in sorted(corpus.glob("*/*.safetensors")):
        track = track_path(path, recipe.track_digest)
        with Clip(path) as clip:
            write_track(track, TrackHeader.of(clip.header, recipe, codec), clip.frames(size_hw=recipe.size_hw))
        for copy in range(COPIES):
            clips.append(folder / path.parent.name / f"{path.stem}_{copy}.safetensors")
            clips[-1].parent.mkdir(parents=True, exist_ok=True)
            os.link(path, clips[-1])
            os.link(track, track_path(clips[-1], recipe.track_digest))
    return clips


def _plain_folders(drawn: list[_Drawn], folder: Path) -> dict[Path, Path]:
    """Each clip as JPEG files and a wav; links of one clip share them. By clip."""
    folders: dict[Path, Path] = {}
    for clip in {window.clip for window in drawn}:
        folders[clip] = out = folder / str(clip.stat().st_ino)
        if out.is_dir():
            continue
        out.mkdir(parents=True)
        with Clip(clip) as content, wave.open(str(out / "audio.wav"), "wb") as audio:
            for k, jpeg in enumerate(content.jpegs()):
                (out / f"{k}.jpg").write_bytes(jpeg)
            audio.setnchannels(1)
            audio.setsampwidth(2)
            audio.setframerate(SAMPLE_RATE)
            audio.writeframes(content.wav().tobytes())
    return folders


def _drawn_windows(loader: DataLoader[Any], monkeypatch: pytest.MonkeyPatch) -> list[_Drawn]:
    """Run one epoch and record what is read from which track."""
    calls: list[tuple[Path, int, list[bytes]]] = []
    read = Track.stored

    def noting(track: Track, start: int = 0, count: int | None = None) -> list[bytes]:
        jpegs = read(track, start, count)
        calls.append((track.path.with_suffix("").with_suffix(".safetensors"), start, jpegs))
        return jpegs

    with monkeypatch.context() as patch:
        patch.setattr(Track, "stored", noting)
        _run_through(loader)
    pairs = list(zip(calls[::2], calls[1::2], strict=True))
    drawn = [_Drawn(a[0], a[1], b[1], a[2] + b[2]) for a, b in pairs]
    assert len(drawn) == WINDOWS
    assert all(a[0] == b[0] and len(window.jpegs) == 10 for (a, b), window in zip(pairs, drawn, strict=True))
    return drawn


def _run_through(loader: DataLoader[Any]) -> None:
    for _ in loader:
        pass


def _decode(drawn: list[_Drawn]) -> None:
    for window in drawn:
        for jpeg in window.jpegs:
            simplejpeg.decode_jpeg(jpeg, colorspace="RGB")


@pytest.mark.parametrize("side", [96, 128, 512])
@pytest.mark.parametrize("codec", ["jpeg", "jpeg420"])
@pytest.mark.usefixtures("one_thread_opencv")
def test_loader(
    comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int, codec: Codec, faces: Path
) -> None:
    recipe = Recipe(FaceMeshBox(), (side, side))
    clips = _many_clips(faces, tmp_path / "clips", recipe, codec)
    dataset = GeneratorWindows(clips, recipe=recipe, length=WINDOWS)
    loader: DataLoader[Any] = DataLoader(dataset, BATCH, sampler=EpochSampler(WINDOWS), collate_fn=dataset.collate)
    drawn = _drawn_windows(loader, monkeypatch)
    plain = _PlainDataset(_plain_folders(drawn, tmp_path / "plain"), drawn, side)
    ours, theirs = next(iter(loader)), next(iter(DataLoader(plain, BATCH)))
    # The same windows: the plain mel is that of rounded samples, and its images are BGR with the frames second, which
    # were not encoded again.
    assert (ours["frame_mels"] - theirs[1]).abs().mean() < 0.005
    assert (ours["target"].flip(2).transpose(1, 2).float() - theirs[3] * 255).abs().mean() < 3

    own, others = comparison.alternate(
        lambda: _run_through(loader),
        {"plain": lambda: _run_through(DataLoader(plain, BATCH)), "JPEG": lambda: _decode(drawn)},
        rounds=7,
    )
    busy = sorted(own.busy)[len(own.busy) // 2] / WINDOWS * 1000
    own, plainly, decoding = (rounds.each(lambda s: WINDOWS / s) for rounds in (own, others["plain"], others["JPEG"]))
    with Clip(clips[0]) as clip:
        height, width = clip.frames(0, 1)[0].shape[:2]
    name = (
        f"training loader, {'real' if 'LIPSYNC_CLIPS' in os.environ else 'synthetic'} faces, {side} x {side}, {codec}"
    )
    comparison.record(name, "windows/s", own, "plain loader", plainly, Aim("ratio", ">=", 10))
    comparison.record(name, "windows/s", own, "decoding its JPEGs", decoding, Aim("ratio", ">=", 0.8))
    comparison.note(
        f"{name}: 1 process, {WINDOWS} windows in batches of {BATCH}, {len(clips)} clips in the page cache; "
        f"{busy:.2f} ms of processor time a window; JPEGs of "
        f"{np.mean([len(jpeg) for window in drawn for jpeg in window.jpegs]) / 1000:.1f} kB; those of the plain loader "
        f"are of {width} x {height} pixels in the first clip."
    )
