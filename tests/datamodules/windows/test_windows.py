# SPDX-License-Identifier: Apache-2.0
"""Windows: the published samples (golden), valid starts, lazy reading, repeatability."""

import itertools
from pathlib import Path
from typing import Any, cast
from unittest.mock import MagicMock

import cv2
import numpy as np
import pytest
import simplejpeg
import torch
from torch.utils.data import DataLoader

from lipsync_bench.datamodules.clips import open_files
from lipsync_bench.datamodules.clips.clip import Clip, ClipHeader, write_clip
from lipsync_bench.datamodules.clips.open_files import OpenFiles
from lipsync_bench.datamodules.clips.tensor_file import Rows
from lipsync_bench.datamodules.errors import ClipError
from lipsync_bench.datamodules.media.audio import frame_mels, mel_start
from lipsync_bench.datamodules.media.video import FPS
from lipsync_bench.datamodules.windows import dataset as dataset_file
from lipsync_bench.datamodules.windows.dataset import Drawn, WindowDataset
from lipsync_bench.datamodules.windows.decoding import stack_frames
from lipsync_bench.datamodules.windows.expert import ExpertWindows
from lipsync_bench.datamodules.windows.generator import GeneratorWindows, PunctualWindows, window_columns
from lipsync_bench.datamodules.windows.starts import MIN_FRAMES, draw_starts, window_starts
from tests import golden


@pytest.fixture(autouse=True)
def numbered_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mels here hold the numbers of their columns, which no audio gives."""
    monkeypatch.setitem(Clip.kind.tensors, "mel", Rows(np.float32, (80,)))


KINDS = [GeneratorWindows, PunctualWindows, ExpertWindows]
STEP = 8  # grey levels between the frames of a generated clip: more than JPEG changes


def golden_clip() -> tuple[list[np.ndarray], np.ndarray]:
    """The clip of the golden samples: 20 images as RGB (the formula counts the channels of BGR), and a mel."""
    images = []
    for j in range(20):
        row, column, channel = np.ogrid[: 100 + j, : 90 + 2 * j, :3]
        images.append(((2 * row + 3 * column + 17 * j + 64 * channel) % 256).astype(np.uint8)[..., ::-1])
    return [np.ascontiguousarray(image) for image in images], golden.arrays("mel")["chirp"]


class Uncompressed:
    """The clip of the golden samples, whose images were never compressed."""

    path = Path("golden")

    def __init__(self) -> None:
        self.images, self.mel = golden_clip()

    def __len__(self) -> int:
        return len(self.images)

    def stored(self, start: int, count: int) -> list[np.ndarray]:
        return self.images[start : start + count]

    def mel_window(self, start: int, padding: str, columns: int = 16) -> np.ndarray:
        return np.ascontiguousarray(self.mel[:, start : start + columns])


def of_uncompressed(kind: type[WindowDataset], drawn: Drawn, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The window of 96 x 96 pixels that a kind makes of the golden clip."""
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda image, colorspace: image)
    monkeypatch.setattr(kind, "draw", lambda *_: drawn)
    monkeypatch.setattr(OpenFiles, "get", lambda *_: Uncompressed())
    return kind([Path()], (96, 96))[0]


def published(faces: torch.Tensor) -> np.ndarray:
    """uint8 RGB (5, 3, H, W) as the published loader has it: BGR, in [0, 1], (3, 5, H, W)."""
    return faces.flip(1).permute(1, 0, 2, 3).numpy().astype(np.float32) / 255


def header(name: str, frames: int) -> ClipHeader:
    return ClipHeader(
        name, name.split("/")[0], f"{name}.mp4", "0" * 64, 25.0, 64, 64, "none", "0", "mesh", frames, frames
    )


def write_coded(root: Path, name: str, frames: int = 24, mel_columns: int | None = None, number: int = 0) -> Path:
    """A clip whose frame t has the grey level STEP * t and red 2 * number, and whose mel has column m equal to m."""
    images = [np.full((40 + t, 36 + 2 * t, 3), STEP * t, np.uint8) for t in range(frames)]
    for image in images:
        image[..., 0] = 2 * number
    columns = frames * 16 // 5 if mel_columns is None else mel_columns
    path = root / f"{name}.safetensors"
    write_clip(
        path,
        header(name, frames),
        jpegs=[simplejpeg.encode_jpeg(image, quality=95, colorsubsampling="444") for image in images],
        mel=np.repeat(np.arange(columns, dtype=np.float32)[:, None], 80, axis=1),
        wav=np.zeros(640 * frames, np.int16),
        boxes=np.zeros((frames, 4), np.float32),
        landmarks=np.zeros((frames, 68, 2), np.float32),
        mesh=np.zeros((frames, 478, 3), np.float32),
    )
    return path


def times(faces: torch.Tensor) -> list[int]:
    """Frame numbers that the green channel of (5, 3, H, W) tells."""
    return [round(float(level) / STEP) for level in faces[:, 1].float().mean(dim=(1, 2))]


def columns(mel: torch.Tensor) -> list[int]:
    """Column numbers that a mel cut (1, 80, 16) of a coded clip tells; all bands have to agree."""
    assert torch.equal(mel, mel[:, :1].expand_as(mel))
    return mel[0, 0].int().tolist()


def test_generator_sample_is_the_published_one(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = golden.arrays("wav2lip")
    drawn = GeneratorWindows.cut(cast(Any, Uncompressed()), 3, 9)
    window = of_uncompressed(GeneratorWindows, drawn, monkeypatch)
    target, reference = published(window["target"]), published(window["reference"])
    masked = target.copy()
    masked[:, :, 48:] = 0
    x = np.concatenate([masked, reference])
    np.testing.assert_array_equal(x[:, :, ::6, ::6], expected["data_x_s6"])
    np.testing.assert_array_equal(target[:, :, ::6, ::6], expected["data_y_s6"])
    np.testing.assert_allclose(
        [x.mean(dtype=np.float64), x.std(dtype=np.float64)], expected["data_x_mean_std"], rtol=1e-6
    )
    # The mel came from another run of the spectrogram: its own tolerance.
    np.testing.assert_allclose(window["mel"].numpy(), expected["data_mel"], atol=2e-5, rtol=0)
    np.testing.assert_allclose(window["frame_mels"].numpy(), expected["data_indiv_mels"], atol=2e-5, rtol=0)


@pytest.mark.parametrize("label", ["pos", "neg"])
def test_expert_sample_is_the_published_one(label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = golden.arrays("wav2lip")
    drawn = ExpertWindows.cut(cast(Any, Uncompressed()), 3, 9, label == "pos")
    window = of_uncompressed(ExpertWindows, drawn, monkeypatch)
    x = published(window["faces"]).transpose(1, 0, 2, 3).reshape(15, 96, 96)[:, 48:]
    np.testing.assert_array_equal(x[:, ::3, ::6], expected[f"data_expert_x_{label}_s3"])
    np.testing.assert_array_equal(window["label"].numpy(), expected[f"data_expert_y_{label}"])
    np.testing.assert_allclose(window["mel"].numpy(), expected["data_mel"], atol=2e-5, rtol=0)


def test_mel_columns_of_a_window() -> None:
    starts = golden.arrays("wav2lip")["starts_train_25"]
    for s in range(1, 190):
        own, singles = window_columns(s)
        assert own == starts[s]
        assert singles == list(starts[s - 1 : s + 4])


def test_punctual_windows_have_the_mel_cuts_of_inference(tmp_path: Path) -> None:
    path = write_coded(tmp_path, "a/0")
    with Clip(path) as clip:
        drawn = PunctualWindows.cut(clip, 3, 9)
        assert [columns(cut) for cut in drawn.tensors["frame_mels"]] == [
            columns(torch.from_numpy(cut)) for cut in frame_mels(clip.mel(), 5, FPS, 3)
        ]
        assert columns(drawn.tensors["mel"]) == columns(drawn.tensors["frame_mels"][0])
        early = GeneratorWindows.cut(clip, 4, 9).tensors["frame_mels"]
    torch.testing.assert_close(early, drawn.tensors["frame_mels"], rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_valid_starts_are_those_whose_every_cut_exists(kind: type[WindowDataset]) -> None:
    for frames, mel_columns in itertools.product(range(3, 30), range(0, 110, 3)):
        valid = []
        for s in range(frames - 4):
            early = kind is GeneratorWindows
            own, singles = mel_start(s), [mel_start(s + k - early) for k in range(5)]
            needed = [own] if kind is ExpertWindows else [own, *singles]
            if s >= early and max(needed) + 16 <= mel_columns:
                valid.append(s)
        sizes = MagicMock(mel_columns=mel_columns, __len__=lambda _, frames=frames: frames)
        assert list(kind.starts(sizes)) == valid, (frames, mel_columns)


def test_all_pairs_of_starts_are_equally_likely() -> None:
    rng = np.random.default_rng(0)
    starts = window_starts(12, 32, 1, 3)
    draws = [draw_starts(rng, starts, 12) for _ in range(6000)]
    pairs, counts = np.unique(draws, axis=0, return_counts=True)
    # Frames 0 to 7 have five frames; the mel allows starts 1 and 2; the other start may be any but the same.
    assert starts == range(1, 3)
    assert {tuple(pair) for pair in pairs.tolist()} == {(s, w) for s in starts for w in range(8) if w != s}
    expected = 6000 / len(pairs)
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_no_draw_from_a_clip_that_is_too_short() -> None:
    for frames, starts in ((5, range(1)), (16, range(0))):
        with pytest.raises(ValueError, match=f"no window fits in {frames} frames, {len(starts)} of which"):
            draw_starts(np.random.default_rng(0), starts, frames)


def test_frames_are_resized_each_from_its_own_size() -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in [(50, 41), (96, 96), (200, 130)]]
    stacked = stack_frames(images, (96, 96))
    assert stacked.shape == (3, 3, 96, 96)
    assert stacked.dtype == torch.uint8
    assert stacked.is_contiguous()
    for one, image in zip(stacked, images, strict=True):
        np.testing.assert_array_equal(one.permute(1, 2, 0).numpy(), cv2.resize(image, (96, 96)))


@pytest.mark.parametrize(("start", "other"), [(0, 9), (20, 9), (3, 20), (3, -1)])
def test_windows_outside_the_clip_are_refused(
    start: int, other: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_coded(tmp_path, "a/0")
    monkeypatch.setattr(GeneratorWindows, "draw", lambda _, clip, rng: GeneratorWindows.cut(clip, start, other))
    with pytest.raises(IndexError, match="asked for"):
        GeneratorWindows([path], (32, 32))[0]


@pytest.mark.parametrize(("start", "other"), [(-1, 9), (40, 9), (3, 20)])
def test_expert_windows_outside_the_clip_are_refused(
    start: int, other: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_coded(tmp_path, "a/0")
    monkeypatch.setattr(ExpertWindows, "draw", lambda _, clip, rng: ExpertWindows.cut(clip, start, other, False))
    with pytest.raises(IndexError, match="asked for"):
        ExpertWindows([path], (32, 32))[0]


@pytest.mark.parametrize("read", ["mmap", "file"])
def test_dataset_cuts_the_right_frames_and_columns(tmp_path: Path, read: str) -> None:
    paths = [write_coded(tmp_path, f"a/{k}", number=k) for k in range(3)]
    dataset = GeneratorWindows(paths, (32, 32), length=40, read=read)  # type: ignore[arg-type]
    starts, clips = set(), set()
    for index in range(40):
        window = dataset[0, index]
        s, w = times(window["target"])[0], times(window["reference"])[0]
        assert s != w
        assert times(window["target"]) == list(range(s, s + 5))
        assert times(window["reference"]) == list(range(w, w + 5))
        assert columns(window["mel"]) == list(range(mel_start(s), mel_start(s) + 16))
        for k in range(5):
            first = mel_start(s + k - 1)
            assert columns(window["frame_mels"][k]) == list(range(first, first + 16))
        starts.add(s)
        clips.add(round(float(window["target"][:, 0].float().mean()) / 2))
    assert len(starts) > 5
    assert clips == {0, 1, 2}


def test_expert_dataset_pairs_frames_and_sound_by_the_label(tmp_path: Path) -> None:
    dataset = ExpertWindows([write_coded(tmp_path, "a/0")], (32, 32), length=60)
    labels = []
    for index in range(60):
        window = dataset[0, index]
        first = times(window["faces"])[0]
        assert times(window["faces"]) == list(range(first, first + 5))
        column = columns(window["mel"])[0]
        in_sync = column == mel_start(first)
        assert window["label"].tolist() == [float(in_sync)]
        labels.append(in_sync)
    assert 15 < sum(labels) < 45


def test_windows_depend_on_seed_epoch_and_index_alone(tmp_path: Path) -> None:
    paths = [write_coded(tmp_path, f"a/{k}", frames=30, number=k) for k in range(4)]

    def seen(dataset: GeneratorWindows, epoch: int, order: list[int]) -> dict[int, tuple[int, int, int]]:
        out = {}
        for index in order:
            window = dataset[epoch, index]
            red = round(float(window["target"][:, 0].float().mean()) / 2)
            out[index] = (red, times(window["target"])[0], times(window["reference"])[0])
        return out

    forward = list(range(12))
    first = seen(GeneratorWindows(paths, (32, 32), length=12), 3, forward)
    assert seen(GeneratorWindows(paths, (32, 32), length=12), 3, forward[::-1]) == first
    assert seen(GeneratorWindows(paths, (32, 32), length=12), 4, forward) != first
    assert seen(GeneratorWindows(paths, (32, 32), length=12, seed=1), 3, forward) != first
    fixed = GeneratorWindows(paths, (32, 32), length=12, fixed=True)
    assert seen(fixed, 3, forward) == seen(fixed, 4, forward)
    assert [seen(fixed, 0, forward)[k][0] for k in forward] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert len({window[1:] for window in seen(fixed, 0, forward).values()}) > 4


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (GeneratorWindows, [(3, 16, 7), (0, 21, 18), (1, 16, 0), (1, 7, 12), (1, 22, 23), (2, 15, 14)]),
        (ExpertWindows, [(3, 7, 57), (0, 23, 73), (1, 0, 57), (1, 7, 22), (1, 22, 80), (2, 17, 54)]),
    ],
)
def test_the_windows_of_a_seed_stay_the_same(
    tmp_path: Path, kind: type[WindowDataset], expected: list[tuple[int, int, int]]
) -> None:
    """Clip, first frame, and first frame of the reference or mel column, as version 0.1.0 drew them: a training that
    is resumed with a later version goes on with the same windows.
    """
    paths = [write_coded(tmp_path, f"a/{k}", frames=30, number=k) for k in range(4)]
    dataset = kind(paths, (32, 32), seed=5, length=6)
    drawn = []
    for index in range(6):
        window = cast(Any, dataset[3, index])
        generator = kind is GeneratorWindows
        faces = window["target" if generator else "faces"]
        last = times(window["reference"]) if generator else columns(window["mel"])
        drawn.append((round(float(faces[:, 0].float().mean()) / 2), times(faces)[0], last[0]))
    assert drawn == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_has_the_windows_that_single_keys_give(
    tmp_path: Path, kind: type[WindowDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_file, "_READ_AT_ONCE", 3)
    monkeypatch.setattr(open_files, "OPEN_FILES", 1)  # clips are closed again before their JPEGs are decoded
    paths = [write_coded(tmp_path, f"a/{k}", number=k) for k in range(3)]
    dataset = kind(paths, (32, 32), length=8)
    keys = [(2, index) for index in (5, 0, 7, 1, 2, 3, 6)]
    batch = dataset.__getitems__(keys)
    for window, key in zip(batch, keys, strict=True):
        expected = dataset[key]
        assert list(window) == list(expected)
        assert all(torch.equal(cast(Any, window)[name], value) for name, value in cast(Any, expected).items())
    for collate in (None, dataset.collate):
        (loaded,) = DataLoader(dataset, batch_sampler=[keys], collate_fn=collate)
        for name, values in loaded.items():
            assert torch.equal(values, torch.stack([cast(Any, window)[name] for window in batch]))


def test_few_files_are_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_files, "OPEN_FILES", 2)
    dataset = GeneratorWindows([write_coded(tmp_path, f"a/{k}", number=k) for k in range(5)], (32, 32), fixed=True)
    for index in [0, 1, 0, 2, 3, 4]:
        assert round(float(dataset[0, index]["target"][:, 0].float().mean()) / 2) == index
    assert [path.stem for path in dataset._clips._open] == ["3", "4"]


def test_short_clips_are_told_apart(tmp_path: Path) -> None:
    long = write_coded(tmp_path, "a/long", frames=MIN_FRAMES)
    few_frames = write_coded(tmp_path, "a/frames", frames=MIN_FRAMES - 1)
    few_columns = write_coded(tmp_path, "a/columns", mel_columns=20)
    clips = [few_frames, long, few_columns]
    assert GeneratorWindows.separate(clips) == ([long], [few_frames, few_columns])
    assert ExpertWindows.separate(clips) == ([long, few_columns], [few_frames])


def test_broken_clips_are_named(tmp_path: Path) -> None:
    paths = [write_coded(tmp_path, f"a/{k}") for k in range(2)]
    data = paths[0].read_bytes()
    paths[0].write_bytes(data[: len(data) // 2])
    with Clip(paths[1]) as clip:
        jpeg = clip.jpegs(0, 1)[0]
    position = paths[1].read_bytes().index(jpeg)
    with paths[1].open("r+b") as file:  # all images overwritten, sizes kept
        file.seek(position)
        file.write(bytes(12000))
    for path in paths:
        with pytest.raises(ClipError, match=str(path)):
            GeneratorWindows([path], (32, 32))[0, 0]
    with pytest.raises(ClipError, match=str(paths[0])):
        GeneratorWindows.separate(paths)
    with pytest.raises(FileNotFoundError, match="absent"):
        GeneratorWindows([tmp_path / "absent.safetensors"], (32, 32))[0, 0]


def test_dataset_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no clips"):
        GeneratorWindows([])
    with pytest.raises(ValueError, match="neither a size nor a recipe"):
        GeneratorWindows([Path()])
    dataset = GeneratorWindows([write_coded(tmp_path, "a/0")], (32, 32), length=2)
    assert len(dataset) == 2
    assert torch.equal(dataset[1]["mel"], dataset[0, 1]["mel"])
    with pytest.raises(IndexError):
        dataset[0, 2]
