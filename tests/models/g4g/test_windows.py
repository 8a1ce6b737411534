# SPDX-License-Identifier: Apache-2.0
"""G4G's windows: five other moments, further windows of audio, drawn landmarks that do not show the target's mouth."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg

from lipsync_bench.datamodules.clips.clip import Clip, ClipHeader, write_clip
from lipsync_bench.datamodules.clips.track import TrackHeader, track_path, write_track
from lipsync_bench.datamodules.media.audio import mel_start
from lipsync_bench.datamodules.recipes.recipe import Recipe
from lipsync_bench.models import G4G
from lipsync_bench.models.g4g.landmarks import INPUTS, draw_landmarks, draw_mask, points_in_face
from lipsync_bench.models.g4g.regions import hidden_part
from lipsync_bench.models.g4g.windows import G4GFrames, G4GWindows, far_places, other_moments
from tests.talking_points import FRAME_HW, drawn_frames, face_points, geometry_of_points

COUNT, STEP = 60, 4
RANDOM = np.random.default_rng(5)
OPENING = RANDOM.uniform(0, 14, COUNT)
POINTS = face_points(OPENING, RANDOM.normal(0, 2, (COUNT, 2)).cumsum(0) / 3)


def recipe_of(**arguments: Any) -> Recipe:
    return G4G(image_scale=0.25, width=0.0625, sync_weight=0, perceptual_weight=0, **arguments).published()


def write_talk(root: Path, recipe: Recipe) -> Path:
    """A clip whose crop is the whole frame, and its track, whose face t has the grey level 4 t."""
    path = root / "a" / "0.safetensors"
    height, width = FRAME_HW
    names = ("a/0", "a", "a/0.mp4", "0" * 64, 25.0, width, height, "none", "0", "mesh", COUNT, COUNT)
    write_clip(
        path,
        ClipHeader(*names),
        jpegs=[simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8))] * COUNT,
        mel=np.tile(np.arange(200, dtype=np.float32)[:, None] / 100, 80),
        wav=np.zeros(640 * COUNT, np.int16),
        boxes=np.tile(np.float32([0, 0, width, height]), (COUNT, 1)),
        landmarks=POINTS / np.float32([width, height]),
        mesh=np.full((COUNT, 478, 3), 0.5, np.float32),
    )
    with Clip(path) as clip:
        header = TrackHeader.of(clip.header, recipe, "raw")
    faces = np.ones((COUNT, 104, 80, 3), np.uint8) * (STEP * np.arange(COUNT, dtype=np.uint8))[:, None, None, None]
    write_track(track_path(path, recipe.track_digest), header, faces)
    return path


@pytest.mark.parametrize("kind", [G4GWindows, G4GFrames])
def test_a_window_has_its_mels_five_other_moments_and_further_windows(tmp_path: Path, kind: type[G4GWindows]) -> None:
    recipe = recipe_of()
    data = kind([write_talk(tmp_path, recipe)], recipe=recipe, length=30)
    seen = set()
    for index in range(30):
        window = data[index]
        own = [int(level) // STEP for level in window["target"].float().mean((1, 2, 3))]
        shown = [int(level) // STEP for level in window["references"].float().mean((1, 2, 3))]
        assert window["places"].tolist() == own == list(range(own[0], own[0] + kind.frames))
        assert len(shown) == 5
        assert not set(shown) & set(own)
        assert len({frame // 9 for frame in shown}) == 5  # five different stretches
        first = [float(mel[0, 0, 0]) for mel in window["frame_mels"]]
        assert first == pytest.approx([mel_start(frame) / 100 for frame in own])
        assert float(window["mel"][0, 0, 0]) == pytest.approx(mel_start(own[0]) / 100)
        far = window["far_places"].tolist()
        assert min(abs(place - frame) for place in far for frame in own) >= 3
        assert [float(mel[0, 0, 0]) for mel in window["far_mels"]] == pytest.approx([mel_start(x) / 100 for x in far])
        seen |= {own[0]}
        for name in INPUTS["reference"]:  # those of the first reference
            draw = draw_landmarks if name.endswith("landmarks") else draw_mask
            cut = recipe.fed_crop.cuts(geometry_of_points(POINTS))[shown[0]]
            points = points_in_face(cut, POINTS[shown[0]], (104, 80))
            drawn = draw(points, (104, 80), "reference")
            assert (window[name][0, 0].numpy() == drawn).mean() > 0.995  # points are stored in 32 bits
    assert len(seen) > 15
    batch = kind.example_batch(1, (104, 80), 0)
    assert {name: batch[name].shape[1:] for name in window} == {name: value.shape for name, value in window.items()}


def test_short_clips_still_have_moments_and_windows() -> None:
    rng = np.random.default_rng(0)
    for start in range(12):
        own = range(start, start + 5)
        assert not set(other_moments(rng, 16, own)) & set(own)
        assert min(abs(x - frame) for x in far_places(rng, range(12), own) for frame in own) >= 3


def test_windows_need_the_recipe(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without a recipe"):
        G4GWindows([tmp_path / "x"], (104, 80))


def test_the_sources_own_landmarks_show_neither_jaw_nor_lips() -> None:
    closed, open_ = face_points(np.array([0.0, 14.0]), np.zeros((2, 2)))
    for kind, same in (("source_without_mouth", True), ("reference", False)):
        pictures = [draw_landmarks(points, FRAME_HW, kind) for points in (closed, open_)]  # type: ignore[arg-type]
        masks = [draw_mask(points, FRAME_HW, kind) for points in (closed, open_)]  # type: ignore[arg-type]
        assert np.array_equal(*pictures) == same
        assert np.array_equal(*masks) == same
        assert (pictures[0] > 0).sum() > 200
        assert set(np.unique(pictures[0])) == {0, 255}


def explained(inputs: np.ndarray, wanted: np.ndarray) -> float:
    """R^2 on the second half of what ridge regression learns on the first, at the best of several strengths."""
    half = len(wanted) // 2
    inputs = (inputs - inputs[:half].mean(0)) / (inputs[:half].std(0) + 1e-3)
    kernel, mean = inputs @ inputs[:half].T / inputs.shape[1], wanted[:half].mean()
    scores = []
    for strength in (0.01, 0.1, 1.0):
        weights = np.linalg.solve(kernel[:half] + strength * np.eye(half), wanted[:half] - mean)
        error = wanted[half:] - mean - kernel[half:] @ weights
        scores.append(1 - error.var() / wanted[half:].var())
    return max(scores)


def test_the_mouth_of_the_target_cannot_be_read_from_the_inputs() -> None:
    """A probe on everything that G4G is shown predicts the opening no better than one on a reference does; it does
    where the rectangle follows the jaw, as with DINet's maximum over few frames, or where the target's landmarks are
    drawn.
    """
    rng = np.random.default_rng(7)
    count, size_hw = 160, (104, 80)
    opening = rng.uniform(0, 14, count)
    points = face_points(opening, rng.normal(0, 1, (count, 2)))
    frames, geometry = drawn_frames(points), geometry_of_points(points)
    hidden = hidden_part(size_hw, "square")[0].numpy()
    others = rng.permutation(count)

    def seen(rule: Any, landmarks: str = "reference") -> tuple[np.ndarray, np.ndarray]:
        cuts = rule.cuts(geometry)
        faces = np.stack([cut.face(frame, size_hw) for cut, frame in zip(cuts, frames, strict=True)])
        source = (faces * (1 - hidden[..., None]))[:, ::4, ::4].reshape(count, -1).astype(np.float64)
        reference = faces[others][:, ::4, ::4].reshape(count, -1).astype(np.float64)
        whose = np.arange(count) if landmarks == "target" else others
        if landmarks == "source_without_mouth":
            whose, kind = np.arange(count), landmarks
        else:
            kind = "reference"
        placed = [points_in_face(cuts[k], points[k], size_hw) for k in whose]
        drawn = [np.stack([draw(p, size_hw, kind)[::2, ::2] for p in placed]) for draw in (draw_landmarks, draw_mask)]  # type: ignore[arg-type]
        maps = [x.reshape(count, -1).astype(np.float64) for x in drawn]
        return np.concatenate([source, *maps, reference], axis=1), reference

    rule = recipe_of().crop
    for landmarks in ("reference", "source_without_mouth"):
        inputs, reference = seen(rule, landmarks)
        assert explained(inputs, opening) <= max(explained(reference, opening), 0) + 0.1
    assert explained(seen(rule, "target")[0], opening) > 0.5
    follows_the_jaw = type(rule)(frames=1)  # type: ignore[call-arg]
    assert explained(seen(follows_the_jaw)[0], opening) > 0.3
