# SPDX-License-Identifier: Apache-2.0
"""The training loader, windows a second in one process, against a plain loader and against JPEG decoding alone.

All three read the same ten JPEGs of each window, byte for byte. The plain one works as described for Wav2Lip (Prajwal
et al., ACM MM 2020): one JPEG file a frame and one wav a clip; every sample reads ten files, resizes them to 96 x 96,
and computes the mel spectrogram of the whole wav to cut six windows out of it. It has advantages: it lists no folder
and repeats no draw, the wav is read by the standard library, and the mel is our own.
"""

import os
import wave
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.tools.comparison import Aim, Comparison
from lipsync_bench.datamodules.clip_datamodule import ClipDataModule
from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.media.audio import MEL_WINDOW, SAMPLE_RATE, mel_spectrogram, to_float
from lipsync_bench.datamodules.windows.generator import window_columns
from lipsync_bench.datamodules.windows.starts import WINDOW_FRAMES

BATCH = 16
WINDOWS = 128  # in an epoch; rounds are short, so that other load on the machine affects all equally
COPIES = 80  # of each clip: far more than the loader keeps open, as in a real data set
SIZE_PX = 96

__all__: list[str] = []


@dataclass(frozen=True)
class _Drawn:
    """What the loader read for one window."""

    clip: Path
    start: int
    other: int
    jpegs: list[bytes]


class _PlainDataset(Dataset[tuple[torch.Tensor, ...]]):
    """The same windows from one JPEG file a frame and one wav a clip: x, single mels, mel, y."""

    def __init__(self, folders: dict[Path, Path], drawn: list[_Drawn]) -> None:
        self.folders = folders
        self.drawn = drawn

    def __len__(self) -> int:
        return len(self.drawn)

    def _faces(self, folder: Path, start: int) -> np.ndarray:
        images = [cv2.imread(str(folder / f"{start + k}.jpg")) for k in range(WINDOW_FRAMES)]
        squares = [cv2.resize(image, (SIZE_PX, SIZE_PX)) for image in images]
        return np.stack(squares).transpose(3, 0, 1, 2) / 255.0  # (3, 5, 96, 96), float64 as NumPy divides

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        window = self.drawn[index]
        folder = self.folders[window.clip]
        target, reference = self._faces(folder, window.start), self._faces(folder, window.other)
        with wave.open(str(folder / "audio.wav")) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        mel = mel_spectrogram(to_float(samples))
        own, singles = window_columns(window.start)
        cuts = np.stack([mel[:, column : column + MEL_WINDOW] for column in singles])[:, None]
        masked = target.copy()
        masked[:, :, SIZE_PX // 2 :] = 0
        x = np.concatenate([masked, reference])
        arrays = x, cuts, mel[None, :, own : own + MEL_WINDOW], target
        return tuple(torch.from_numpy(np.ascontiguousarray(array, np.float32)) for array in arrays)


def _many_clips(corpus: Path, folder: Path) -> Path:
    """A prepared folder with `COPIES` links to each clip."""
    (folder / "splits").mkdir(parents=True)
    (folder / "manifest.json").write_bytes((corpus / "manifest.json").read_bytes())
    names = []
    for clip in sorted(corpus.glob("*/*.safetensors")):
        (folder / clip.parent.name).mkdir(exist_ok=True)
        for copy in range(COPIES):
            names.append(f"{clip.parent.name}/{clip.stem}_{copy}")
            os.link(clip, folder / f"{names[-1]}.safetensors")
    for split, ids in (("train", names), ("val", []), ("test", [])):
        (folder / "splits" / f"{split}.txt").write_text("".join(f"{name}\n" for name in ids))
    return folder


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


def _drawn_windows(loader: DataLoader, monkeypatch: pytest.MonkeyPatch) -> list[_Drawn]:
    """Run one epoch and record what is read from which clip."""
    calls: list[tuple[Path, int, list[bytes]]] = []
    read = Clip.jpegs

    def noting(clip: Clip, start: int = 0, count: int | None = None) -> list[bytes]:
        jpegs = read(clip, start, count)
        calls.append((clip.path, start, jpegs))
        return jpegs

    with monkeypatch.context() as patch:
        patch.setattr(Clip, "jpegs", noting)
        _run_through(loader)
    pairs = list(zip(calls[::2], calls[1::2], strict=True))
    drawn = [_Drawn(a[0], a[1], b[1], a[2] + b[2]) for a, b in pairs]
    assert len(drawn) == WINDOWS
    assert all(a[0] == b[0] and len(window.jpegs) == 10 for (a, b), window in zip(pairs, drawn, strict=True))
    return drawn


def _run_through(loader: DataLoader) -> None:
    for _ in loader:
        pass


def _decode(drawn: list[_Drawn]) -> None:
    for window in drawn:
        for jpeg in window.jpegs:
            simplejpeg.decode_jpeg(jpeg, colorspace="RGB")


@pytest.mark.parametrize("material", ["small", "large"])
@pytest.mark.usefixtures("one_thread_opencv")
def test_loader(
    comparison: Comparison,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    material: str,
    request: pytest.FixtureRequest,
) -> None:
    clips: Path = request.getfixturevalue(f"{material}_clips")
    data = ClipDataModule(
        _many_clips(clips, tmp_path / "clips"),
        batch_size=BATCH,
        image_size=SIZE_PX,
        num_workers=0,
        epoch_length=WINDOWS,
    )
    data.setup("fit")
    loader = data.train_dataloader()
    drawn = _drawn_windows(loader, monkeypatch)
    plain = _PlainDataset(_plain_folders(drawn, tmp_path / "plain"), drawn)
    ours, theirs = next(iter(loader)), next(iter(DataLoader(plain, BATCH)))
    # The same windows: the plain mel is that of rounded samples, and its images are BGR with the frames second.
    assert (ours["frame_mels"] - theirs[1]).abs().mean() < 0.005
    torch.testing.assert_close(ours["target"].flip(2).transpose(1, 2).float(), theirs[3] * 255, atol=1.01, rtol=0)

    own, others = comparison.alternate(
        lambda: _run_through(loader),
        {"plain": lambda: _run_through(DataLoader(plain, BATCH)), "JPEG": lambda: _decode(drawn)},
        rounds=9,
    )
    own, plainly, decoding = (rounds.each(lambda s: WINDOWS / s) for rounds in (own, others["plain"], others["JPEG"]))
    sizes = [simplejpeg.decode_jpeg_header(jpeg)[:2] for window in drawn for jpeg in window.jpegs]
    height, width = np.median(sizes, axis=0).astype(int)
    name = f"training loader, faces {width} x {height}"
    comparison.record(name, "windows/s", own, "plain loader", plainly, Aim("ratio", ">=", 5))
    comparison.record(name, "windows/s", own, "decoding its JPEGs", decoding, Aim("ratio", ">=", 0.8))
    comparison.note(
        f"{name}: 1 process, {WINDOWS} windows in batches of {BATCH}, {len(data.clips('train'))} clips of 5 s in the "
        f"page cache; JPEGs of {np.mean([len(jpeg) for window in drawn for jpeg in window.jpegs]) / 1000:.1f} kB."
    )
