# SPDX-License-Identifier: Apache-2.0
"""Windows of HyperLips' second stage: the right frames of clip and base frames, drawn fairly and repeatably."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.errors import ClipError
from lipsync_bench.datamodules.windows.samplers import EpochSampler
from lipsync_bench.models.hyperlips.hr import windows as hr_windows
from lipsync_bench.models.hyperlips.hr.base_frames import (
    BaseFrames,
    BaseFramesHeader,
    base_frames_path,
    write_base_frames,
)
from lipsync_bench.models.hyperlips.hr.sketch import draw_sketch, lip_box, lip_mask, lip_outline, training_sketch
from lipsync_bench.models.hyperlips.hr.windows import (
    HRWindow,
    HRWindows,
    cut_hr_window,
    usable_starts,
)

OUTSIDE = (3.0, 3.0)  # in crop coordinates


def write_base(
    path: Path,
    frames: int | None = None,
    lost: tuple[int, ...] = (),
    hidden: tuple[int, ...] = (),
    shade: bool = False,
    **changes: Any,
) -> Path:
    """The base frames of a clip file: its own crops at 128 pixels, and the drawings of its mesh.

    Args:
        frames: only so many of them, with a header that says so.
        lost: frames without a mesh.
        hidden: frames whose lips are outside the crop.
        shade: all images grey, frame t with the level 5 t, instead of the crops.
        changes: of the header.
    """
    with Clip(path) as clip:
        header = dataclasses.replace(BaseFramesHeader.of(clip.header, "1" * 64), **changes)
        count = clip.header.frames if frames is None else frames
        faces = clip.frames(0, count, size_hw=(128, 128))
        mesh = clip.mesh()[:count]
    if shade:
        faces = np.stack([np.full((128, 128, 3), 5 * t, np.uint8) for t in range(count)])
    outlines = np.stack([lip_outline(points) for points in mesh])
    outlines[list(hidden)] = OUTSIDE
    found = np.ones(count, bool)
    found[list(lost)] = False
    write_base_frames(
        base_frames_path(path),
        dataclasses.replace(header, frames=count),
        frames=list(faces),
        sketches=np.stack([draw_sketch(points, (128, 128)) for points in mesh]),
        found=found,
        lip_outlines=outlines,
    )
    return path


@pytest.fixture
def clips(corpus: Path, tmp_path: Path) -> list[Path]:
    """Copies of three prepared clips, without base frames."""
    out = []
    for source in sorted((corpus / "clips").glob("*/*.safetensors"))[:3]:
        target = tmp_path / "clips" / source.parent.name / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
        out.append(target)
    assert len(out) == 3
    return out


def window_of(path: Path, start: int, size: int) -> HRWindow:
    with Clip(path) as clip, BaseFrames(base_frames_path(path)) as base:
        return cut_hr_window(clip, base, start, size)


def first_frame(window: HRWindow) -> int:
    """The frame that the grey level of `write_base(shade=True)` tells; all five have to follow each other."""
    levels = [round(float(level) / 5) for level in window["base"].float().mean(dim=(1, 2, 3))]
    assert levels == list(range(levels[0], levels[0] + 5))
    return levels[0]


@pytest.mark.parametrize("size", [128, 256, 512])
def test_a_window_has_the_frames_of_both_files(clips: list[Path], size: int) -> None:
    path = write_base(clips[0])
    window = window_of(path, 7, size)
    assert {key: (value.dtype, tuple(value.shape)) for key, value in window.items()} == {  # type: ignore[attr-defined]
        "target": (torch.uint8, (5, 3, size, size)),
        "base": (torch.uint8, (5, 3, 128, 128)),
        "sketch": (torch.uint8, (5, 1, 128, 128)),
        "lip_mask": (torch.uint8, (5, 1, size, size)),
        "lip_box": (torch.int64, (5, 4)),
    }
    with Clip(path) as clip, BaseFrames(base_frames_path(path)) as base:
        crops = clip.frames(7, 5)
        mesh = clip.mesh()[7:12]
        faces = base.faces(7, 5)
    for k in range(5):
        target = cv2.resize(crops[k], (size, size))
        np.testing.assert_array_equal(window["target"][k].permute(1, 2, 0).numpy(), target)
        np.testing.assert_array_equal(window["base"][k].permute(1, 2, 0).numpy(), faces[k])
        drawn = training_sketch(draw_sketch(mesh[k], (128, 128)), 128, 5)
        np.testing.assert_array_equal(window["sketch"][k, 0].numpy(), drawn)
        mask = lip_mask(lip_outline(mesh[k]), crops[k].shape[:2])
        assert tuple(window["lip_box"][k].tolist()) == lip_box(mask, size)
        white = cv2.resize(mask, (size, size)) == 255
        np.testing.assert_array_equal(window["lip_mask"][k, 0].numpy(), white * np.uint8(255))


def test_mask_and_box_are_where_the_mouth_is(clips: list[Path]) -> None:
    window = window_of(write_base(clips[0]), 0, 256)
    for mask, box in zip(window["lip_mask"][:, 0].numpy(), window["lip_box"].tolist(), strict=True):
        rows, columns = np.nonzero(mask)
        assert box == [rows.min(), rows.max(), columns.min(), columns.max()]
        assert 128 < rows.mean() < 230  # the lower half
        assert 90 < columns.mean() < 166  # the middle
        assert 0.02 < (mask == 255).mean() < 0.2


def test_base_frames_of_another_size_are_resized(clips: list[Path]) -> None:
    path = write_base(clips[0])
    with Clip(path) as clip, BaseFrames(base_frames_path(path)) as base:
        large = [cv2.resize(face, (256, 256)) for face in base.faces()]
        write_base_frames(
            base_frames_path(path),
            BaseFramesHeader.of(clip.header, "1" * 64, size_px=256),
            frames=large,
            sketches=base.sketches(),
            found=base.found(),
            lip_outlines=base.lip_outlines(),
        )
    assert window_of(path, 3, 128)["base"].shape == (5, 3, 128, 128)


def test_usable_starts_are_those_of_five_frames_with_face_and_lips(clips: list[Path]) -> None:
    path = write_base(clips[0], lost=(10,), hidden=(22,))
    with BaseFrames(base_frames_path(path)) as base:
        count = len(base)
        expected = [s for s in range(count - 4) if not {10, 22} & set(range(s, s + 5))]
        assert usable_starts(base).tolist() == expected
        assert expected[:7] == [0, 1, 2, 3, 4, 5, 11]


def test_clips_of_fifteen_frames_have_no_window(clips: list[Path]) -> None:
    for frames, windows in ((15, 0), (16, 12)):
        with BaseFrames(base_frames_path(write_base(clips[0], frames=frames))) as base:
            assert len(usable_starts(base)) == windows


def test_clips_are_told_apart(clips: list[Path], tmp_path: Path) -> None:
    ready, missing, unusable = clips
    write_base(ready, lost=(0, 1))
    with Clip(unusable) as clip:
        count = len(clip)
    write_base(unusable, lost=tuple(range(4, count, 5)))
    with pytest.raises(
        FileNotFoundError,
        match=rf"1 of 3 clips in {tmp_path / 'clips'} have no base frames: .*\.base\. .*"
        rf"Run: bench base-frames .*--root {tmp_path / 'clips'}",
    ):
        HRWindows.separate(clips)
    write_base(missing)
    assert HRWindows.separate(clips) == ([ready, missing], [unusable])
    assert HRWindows.separate([]) == ([], [])
    base_frames_path(ready).write_bytes(base_frames_path(ready).read_bytes()[:-1])
    with pytest.raises(ClipError, match=r"cut short or overwritten\. Run: bench base-frames"):
        HRWindows.separate(clips)


@pytest.mark.parametrize(
    "change",
    [{"source_sha256": "2" * 64}, {"clip_settings": "{}"}, {"id": "a/b"}, {"detector_version": "mediapipe 99"}],
)
def test_faces_of_another_preparation_are_refused(clips: list[Path], change: dict[str, str]) -> None:
    path = write_base(clips[0], **change)
    for use in (lambda: HRWindows.separate([path]), lambda: window_of(path, 3, 128)):
        with pytest.raises(ClipError, match=r"made for another preparation .* Run: bench base-frames"):
            use()


def test_all_usable_windows_are_equally_likely(clips: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [write_base(path, lost=tuple(range(20)) if k == 0 else ()) for k, path in enumerate(clips)]
    drawn: list[tuple[Path, int]] = []

    def only_the_place(clip: Clip, base_frames: BaseFrames, start: int, *_: Any) -> HRWindow:
        drawn.append((clip.path, start))
        return HRWindow(target=torch.zeros(0))  # type: ignore[typeddict-item]

    monkeypatch.setattr(hr_windows, "cut_hr_window", only_the_place)
    dataset = HRWindows(paths, (128, 128), length=3000)
    for index in range(3000):
        dataset[5, index]
    for path in paths:
        with BaseFrames(base_frames_path(path)) as base:
            starts = usable_starts(base)
        own = [start for place, start in drawn if place == path]
        assert abs(len(own) - 1000) < 5 * np.sqrt(1000)  # clips are equally likely, whatever is usable of them
        values, counts = np.unique(own, return_counts=True)
        assert values.tolist() == starts.tolist()
        expected = len(own) / len(starts)
        assert abs(counts - expected).max() < 5 * np.sqrt(expected)


@pytest.mark.parametrize("read", ["mmap", "file"])
def test_dataset_equals_the_pure_function(clips: list[Path], read: Any) -> None:
    dataset = HRWindows([write_base(clips[0], shade=True)], (128, 128), length=20, read=read)
    starts = set()
    for index in range(20):
        window = dataset[2, index]
        start = first_frame(window)
        expected = window_of(clips[0], start, 128)
        assert window.keys() == expected.keys()
        assert all(torch.equal(value, expected[key]) for key, value in window.items())  # type: ignore[literal-required, arg-type]
        starts.add(start)
    assert len(starts) > 5


def test_windows_depend_on_seed_epoch_and_index_alone(clips: list[Path]) -> None:
    paths = [write_base(path, shade=True) for path in clips]

    def seen(dataset: HRWindows, epoch: int, order: list[int]) -> dict[int, tuple[int, int]]:
        return {i: (first_frame(dataset[epoch, i]), int(dataset[epoch, i]["target"].sum())) for i in order}

    forward = list(range(9))
    first = seen(HRWindows(paths, (128, 128), length=9), 3, forward)
    assert seen(HRWindows(paths, (128, 128), length=9), 3, forward[::-1]) == first
    assert seen(HRWindows(paths, (128, 128), length=9), 4, forward) != first
    assert seen(HRWindows(paths, (128, 128), length=9, seed=1), 3, forward) != first
    fixed = HRWindows(paths, (128, 128), length=9, fixed=True)
    assert seen(fixed, 3, forward) == seen(fixed, 4, forward)
    for index in forward:  # clips in order, evenly
        window = fixed[0, index]
        expected = window_of(paths[index // 3], first_frame(window), 128)
        assert torch.equal(window["target"], expected["target"])


def test_batches_from_worker_processes(clips: list[Path]) -> None:
    dataset = HRWindows([write_base(path) for path in clips], (128, 128), length=4)
    dataset[0]  # files are open already when the workers start
    batches = list(DataLoader(dataset, batch_size=2, sampler=EpochSampler(4), num_workers=2))
    assert [tuple(batch["lip_box"].shape) for batch in batches] == [(2, 5, 4)] * 2
    assert torch.equal(batches[1]["target"][1], dataset[0, 3]["target"])


def test_without_base_frames_or_windows_the_clip_is_named(clips: list[Path]) -> None:
    with pytest.raises(FileNotFoundError, match=base_frames_path(clips[0]).name):
        HRWindows(clips[:1], (128, 128))[0, 0]
    write_base(clips[0], frames=15)
    with pytest.raises(ValueError, match=r"\.base: no five frames .*separate"):
        HRWindows(clips[:1], (128, 128))[0, 0]


def test_lips_outside_the_crop_are_named(clips: list[Path]) -> None:
    path = write_base(clips[0], hidden=(9,))
    with pytest.raises(ClipError, match=rf"{path.name}: frame 9: the lip mask .* no white pixel"):
        window_of(path, 6, 128)


def test_windows_outside_the_clip_are_refused(clips: list[Path]) -> None:
    path = write_base(clips[0])
    with Clip(path) as clip:
        count = len(clip)
    for start in (-1, count - 4):
        with pytest.raises(IndexError, match="asked for"):
            window_of(path, start, 128)


def test_arguments(clips: list[Path]) -> None:
    path = write_base(clips[0])
    with pytest.raises(
        ValueError, match=r"targets of 96 x 96 pixels\. Expected squares of 128, 256, 512.*--data.init_args"
    ):
        HRWindows([path], (96, 96))
    with pytest.raises(ValueError, match=r"targets of 100 x 100 pixels"):
        window_of(path, 0, 100)
    with pytest.raises(ValueError, match="no clips"):
        HRWindows([])
    dataset = HRWindows([path], (128, 128), length=2)
    assert len(dataset) == 2
    assert torch.equal(dataset[1]["base"], dataset[0, 1]["base"])
    with pytest.raises(IndexError, match="window 2 of 2"):
        dataset[0, 2]
