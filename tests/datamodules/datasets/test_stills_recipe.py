# SPDX-License-Identifier: Apache-2.0
"""Single faces of clips as the model's recipe cuts them: LipFormer's are aligned as FFHQ's stills are."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from lipsync_bench.datamodules import FaceImages, Synthetic
from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.clips.track import TrackHeader, track_path, write_track
from lipsync_bench.datamodules.datasets.stills import read_still
from lipsync_bench.datamodules.faces.crop_rules.ffhq import FFHQQuad, QuadCut
from lipsync_bench.datamodules.media.video import read_frames
from lipsync_bench.datamodules.recipes.recipe import Recipe
from lipsync_bench.models.lipformer import LipFormer, LipFormerCodebook
from tests.datamodules.fake_trainer import FakeTrainer

SIZE = 64


def codebook() -> LipFormerCodebook:
    return LipFormerCodebook(image_size=SIZE, width=0.125, entries=8, code_channels=8, adversarial_weight=0.0)


def aligned(frames: Sequence[np.ndarray], clip: Clip, recipe: Recipe) -> list[np.ndarray]:
    cuts = recipe.crop.cuts(clip.geometry())
    return [cut.face(frame, recipe.size_hw) for frame, cut in zip(frames, cuts, strict=True) if cut is not None]


def write_tracks(corpus: Path, paths: Sequence[Path], recipe: Recipe) -> None:
    for path in paths:
        with Clip(path) as clip:
            frames = list(read_frames(corpus / "videos" / clip.header.source))[: len(clip)]
            header = TrackHeader.of(clip.header, recipe, "raw")
            write_track(track_path(path, recipe.track_digest), header, aligned(frames, clip, recipe))


@pytest.fixture
def clips(corpus: Path, tmp_path: Path) -> Synthetic:
    """The corpus in a folder of its own, without tracks."""
    shutil.copytree(corpus / "clips", tmp_path / "clips", ignore=shutil.ignore_patterns("*.track"))
    return Synthetic(tmp_path / "clips")


def fed(clips: Synthetic, module: Any) -> FaceImages:
    data = FaceImages(clips=clips, image_size=SIZE, batch_size=2, num_workers=0, epoch_length=4)
    data.trainer = FakeTrainer(0, 1)  # type: ignore[assignment]
    data.trainer.lightning_module = module
    return data


def test_both_stages_and_stills_see_faces_alike(tmp_path: Path) -> None:
    stage_1 = codebook()
    stage_2 = LipFormer(**LipFormer.smoke_arguments(tmp_path))
    assert stage_1.recipe == stage_1.published()
    assert isinstance(stage_1.recipe.crop, FFHQQuad)
    assert stage_1.recipe.resized((8, 8)) == stage_2.recipe.resized((8, 8))
    assert stage_1.recipe.text() == "ffhq~5 64x64 / first / reflect / quad"


def test_the_clips_half_is_the_aligned_square_of_the_video(corpus: Path, clips: Synthetic) -> None:
    module = codebook()
    assert module.recipe is not None
    write_tracks(corpus, [path for split in ("train", "val") for path in clips.clips(split)], module.recipe)
    data = fed(clips, module)
    data.setup()
    path = clips.clips("val")[0]
    with Clip(path) as clip:
        frames = list(read_frames(corpus / "videos" / clip.header.source))[: len(clip)]
        expected = aligned(frames, clip, module.recipe)[len(clip) // 2]
        own = cv2.resize(clip.frames(len(clip) // 2, 1)[0], (SIZE, SIZE))
    seen = [image.permute(1, 2, 0).numpy() for batch in data.val_dataloader() for image in batch["image"]]
    assert any(np.array_equal(image, expected) for image in seen)
    assert not any(np.array_equal(image, own) for image in seen)
    assert all(batch["image"].shape == (2, 3, SIZE, SIZE) for batch in data.train_dataloader())
    other = fed(clips, None)  # of another project: the clips' own crops, as ever
    other.setup()
    assert any(
        np.array_equal(image.permute(1, 2, 0).numpy(), own)
        for batch in other.val_dataloader()
        for image in batch["image"]
    )


def test_an_aligned_still_and_an_aligned_frame_have_the_same_framing(corpus: Path, tmp_path: Path) -> None:
    """The square of a photograph that is cut as FFHQ's is the still; eyes and mouth lie where the frame's do."""
    path = sorted((corpus / "clips").glob("*/*.safetensors"))[0]
    with Clip(path) as clip:
        (frame, *_), geometry = list(read_frames(corpus / "videos" / clip.header.source)), clip.geometry()
    cut = FFHQQuad(smoothing=0).cuts(geometry)[0]
    assert isinstance(cut, QuadCut)
    face = cut.face(frame, (SIZE, SIZE))
    cv2.imwrite(str(tmp_path / "00000.png"), face[..., ::-1])
    still = read_still(tmp_path / "00000.png", SIZE)
    assert torch.equal(still, torch.from_numpy(face.transpose(2, 0, 1).copy()))
    points = geometry.landmarks[0] if geometry.landmarks is not None else np.zeros((68, 2))
    axis = np.array(cut.right) / np.hypot(*cut.right)
    inside = (points - np.array(cut.centre)) @ np.stack([axis, [-axis[1], axis[0]]], axis=1) / cut.side + 0.5
    eyes, mouth = inside[36:48].mean(axis=0), inside[[48, 54]].mean(axis=0)
    assert eyes[0] == pytest.approx(0.5, abs=0.03)
    assert 0.44 < eyes[1] < 0.49  # the band of aligned FFHQ
    assert 0.64 < mouth[1] < 0.76


def test_clips_without_aligned_faces_are_an_error_that_names_the_command(clips: Synthetic) -> None:
    with pytest.raises(
        FileNotFoundError,
        match=r"have no faces ffhq~5 64x64.*bench prepare --source DIR --out .* --for lipformer_codebook",
    ):
        fed(clips, codebook()).setup()
