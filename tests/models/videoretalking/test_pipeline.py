# SPDX-License-Identifier: Apache-2.0
"""The steps of VideoReTalking's released inference against stored facts (videoretalking_pipeline.golden.npz), and the
session that takes them.

Keys: `quads`, `crop0`, `align_coeff`, FFHQ's squares of three faces, what they cut out, and the way back; `coords` the
smoothed boxes y1 y2 x1 x2 of four frames; `img_batch_u8`, `img_batch_mean` what the networks see; `blend_*` Laplacian
pyramids of 10 and 6 levels; the others, every second pixel of a frame after a step with stand-ins for the networks.
"""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lipsync_bench.datamodules.faces.crop_rules.boxes import BoxCut
from lipsync_bench.datamodules.faces.geometry import Geometry
from lipsync_bench.datamodules.weights.store import Store
from lipsync_bench.inference.pasting import make_paste
from lipsync_bench.models.core.inputs import FaceInputs, Generated
from lipsync_bench.models.core.session import Video, dub_frames
from lipsync_bench.models.pretrained.ganimation import GANimation, emotional_faces
from lipsync_bench.models.videoretalking import session as sessions
from lipsync_bench.models.videoretalking.blending import blend_mouth, paste_face, pyramid_blend
from lipsync_bench.models.videoretalking.module import VideoReTalking
from lipsync_bench.models.videoretalking.references import crop_quad, ffhq_corners, paste_coefficients
from tests import golden

STORED = golden.arrays("videoretalking_pipeline")
STANDING = {30: (128, 145), 48: (104, 180), 54: (152, 180)}
BOXES = np.array([(60, 40, 180, 150), (62, 41, 183, 152), (58, 39, 178, 149)])
CUT = BoxCut((60, 40, 180, 170))
POINTS = np.array([(95, 85), (145, 86), (120, 110), (100, 140), (140, 141)], np.float64)


def u8(name: str, *shape: int) -> np.ndarray:
    return np.floor(golden.uniform(f"vrt/pipe/{name}", shape, 0, 256)).astype(np.uint8)


def landmarks() -> np.ndarray:
    points = np.full((68, 2), 128.0)
    points[36:42], points[42:48] = (96, 110), (160, 110)
    for number, place in STANDING.items():
        points[number] = place
    return points + golden.uniform("vrt/pipe/lm", (3, 68, 2), -3, 3)


def smooth(name: str) -> np.ndarray:
    return cv2.GaussianBlur(u8(name, 200, 240, 3), (0, 0), 2)


def is_stored(image: np.ndarray, key: str, levels: int = 1) -> None:
    difference = np.abs(image.astype(int) - STORED[key])
    assert difference.max() <= levels
    assert difference.mean() < 0.01


def test_squares_and_the_way_back() -> None:
    corners = np.stack([ffhq_corners(points, (256, 256)) for points in landmarks()])
    np.testing.assert_allclose(corners, STORED["quads"], atol=1e-9)
    is_stored(crop_quad(u8("enh0", 256, 256, 3), corners[0])[::5, ::5], "crop0")
    numbers = [paste_coefficients(quad, (256, 256)) for quad in corners]
    np.testing.assert_allclose(numbers, STORED["align_coeff"], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("levels", [10, 6])
def test_laplacian_pyramids(levels: int) -> None:
    images = u8("blendA", 512, 512, 3), u8("blendB", 512, 512, 3)
    hard = np.zeros((512, 512), np.float32)
    hard[200:330, 150:377] = 1
    for name, mask in (("soft", golden.uniform("vrt/pipe/blendM", (512, 512))), ("hard", hard)):
        made = pyramid_blend(*images, mask, levels)[::9, ::9]
        np.testing.assert_allclose(made, STORED[f"blend_{name}_{levels}"], atol=1e-3)


def labels(value: int, rows: slice, columns: slice) -> np.ndarray:
    image = np.zeros((512, 512), np.uint8)
    image[rows, columns] = value
    return image


def test_pasting() -> None:
    face, mouth = labels(1, slice(60, 480), slice(80, 430)), labels(11, slice(300, 420), slice(150, 360))
    original = smooth("paste_ori")
    predicted = (golden.uniform("vrt/pipe/paste_pred", (1, 384, 384, 3))[0] * 255).astype(np.uint8)
    pasted = CUT.paste(original, predicted)
    is_stored(pasted[::2, ::2], "frame_with_pred")
    with_mouth = blend_mouth(pasted, smooth("paste_restored"), CUT, lambda _: mouth)
    is_stored(with_mouth[::2, ::2], "mouth_blend")
    final = paste_face(original, with_mouth, POINTS, lambda _: face, cut=CUT)
    is_stored(final[::2, ::2], "final_frame", levels=2)
    image = smooth("paste_img")
    is_stored(paste_face(original, image, POINTS, lambda _: face, cut=CUT)[::2, ::2], "gpen_pyramid")
    enhanced = paste_face(original, image, POINTS, lambda _: face, restore=lambda face: 255 - face, face_px=90)
    is_stored(enhanced[::2, ::2], "gpen_plain")


@pytest.fixture
def small(tmp_path: Path) -> VideoReTalking:
    torch.manual_seed(0)
    return VideoReTalking(**VideoReTalking.smoke_arguments(tmp_path)).eval()


def points_of(count: int) -> np.ndarray:
    """68 points of a face that moves by a pixel a frame, (T,68,2)."""
    return (landmarks()[:1] * (0.55, 0.5) + (50, 40)).repeat(count, axis=0) + np.arange(count)[:, None, None]


class Opened:
    """A video of random frames that counts how far it was read."""

    def __init__(self, images: np.ndarray, hidden: tuple[int, ...] = (), boxes: np.ndarray | None = None) -> None:
        self.images, self.read = list(images), 0
        count = len(images)
        points = points_of(count)
        if boxes is None:
            boxes = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
        visible = np.ones(count, bool)
        visible[list(hidden)] = False
        contours = points[:, :30].astype(np.float32)
        self.geometry = Geometry(
            images.shape[1:3], visible, boxes, contours, points.astype(np.float32), {"s3fd": boxes.astype(np.float32)}
        )

    def frames(self) -> Iterator[np.ndarray]:
        for image in self.images:
            self.read += 1
            yield image

    def video(self, **further: object) -> Video:
        def mels(first: int, count: int) -> np.ndarray:
            return np.zeros((count, 1, 80, 16), np.float32)

        return Video(self.geometry, mels, self.frames, **further)  # type: ignore[arg-type]


def test_networks_see_what_the_released_inference_shows_them(
    small: VideoReTalking, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.size_hw = (384, 384)
    given: list[FaceInputs] = []

    def generate(inputs: FaceInputs) -> Generated:
        given.append(inputs)
        return Generated.of(inputs.faces)

    monkeypatch.setattr(small, "generate", generate)
    monkeypatch.setattr(sessions, "landmarks68", lambda image, _: seen[int(image[0, 0, 0])])
    enhanced = [u8(f"enh{number}", 256, 256, 3)[..., ::-1] for number in range(3)]
    seen = {int(image[0, 0, 0]): points for image, points in zip(enhanced, landmarks(), strict=True)}
    assert len(seen) == 3
    small.find_networks(Store())
    assert small._stabiliser is not None
    monkeypatch.setattr(sessions.Stabiliser, "edited", lambda *_: enhanced + enhanced[:1])
    object.__setattr__(small._stabiliser, "size_hw", (256, 256))
    frames = np.stack([u8(f"full{number}", 200, 240, 3)[..., ::-1] for number in range(3)])
    recipe = small.published()
    opened = Opened(frames, boxes=BOXES)
    video = opened.video(coefficients=lambda network, make: np.zeros((3, 262), np.float32))
    session = small.session(video, recipe, make_paste(recipe, Store()))
    assert isinstance(session, sessions.StabilisingSession)
    session._rectangle = BoxCut((30, 10, 220, 190))
    list(session.frames(0, [frames[0], frames[1], frames[2], frames[0]]))
    (inputs,) = given
    boxes = [cut.box for cut in session._cuts if isinstance(cut, BoxCut)]
    np.testing.assert_array_equal([(y1, y2, x1, x2) for x1, y1, x2, y2 in [*boxes, boxes[0]]], STORED["coords"])
    faces = small.to_network(inputs.faces)
    shown = (
        torch.cat([small.hide_mouth(faces), small.to_network(inputs.reference)], dim=1)
        .permute(0, 2, 3, 1)
        .double()
        .numpy()
    )
    is_stored(np.rint(shown[:, ::7, ::7] * 255), "img_batch_u8")
    np.testing.assert_allclose(shown.mean(axis=(1, 2)), STORED["img_batch_mean"], atol=1e-6)


def test_a_video_is_dubbed_whole_and_looped(small: VideoReTalking, monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(network: object, faces: np.ndarray, points: np.ndarray) -> np.ndarray:
        assert faces.shape[1:] == (64, 64, 3)
        assert np.isfinite(points).all()
        return np.random.default_rng(1).uniform(0.5, 1.5, (len(faces), 262)).astype(np.float32)

    monkeypatch.setattr(sessions, "regressed", rows)
    frames = np.random.default_rng(0).integers(0, 256, (5, 120, 160, 3), np.uint8)
    recipe, opened = small.recipe, Opened(frames, hidden=(0, 3))
    kept: dict[str, np.ndarray] = {}

    def coefficients(network: str, make: object) -> np.ndarray:
        if network not in kept:
            kept[network] = make()  # type: ignore[operator]
        return kept[network]

    video = opened.video(coefficients=coefficients)
    paste = make_paste(recipe, Store())
    assert (paste.name, paste.left_out) == ("contour laplacian", ("face parsing", "restored mouth"))

    def dubbed(batch: int) -> list[np.ndarray]:
        session = small.session(video, recipe, paste)
        made = list(dub_frames(session, [*frames, *frames[:2]], batch))
        assert session.passed_through == 3
        assert session.steps_left_out == ("neutral template (the mean face in its place)", "restored references")
        return made

    made = dubbed(3)
    assert [new is old for new, old in zip(made, [*frames, *frames[:2]], strict=True)].count(True) == 0
    changed = [(new != old).any() for new, old in zip(made, [*frames, *frames[:2]], strict=True)]
    assert changed == [False, True, True, False, True, False, True]
    (stored,) = kept.values()
    assert stored.shape == (5, 262)
    assert opened.read == 5  # once, for the coefficients, which the second session finds
    again = dubbed(7)
    assert opened.read == 5
    for one, other in zip(made, again, strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1


def test_upper_half_is_the_one_that_was_asked_for(small: VideoReTalking, tmp_path: Path) -> None:
    faces = torch.rand(3, 3, *small.size_hw)
    inputs = FaceInputs(torch.rand(3, 1, 80, 16), faces, torch.rand(3, 1, 3, *small.size_hw))
    half = small.size_hw[0] // 2
    made = small.generate(inputs).frames
    for upper_face in ("original", "sad", "angry"):
        small.upper_face = upper_face
        if upper_face == "sad":
            with pytest.raises(FileNotFoundError, match=r"weights ganimation: .*bench weights fetch ganimation"):
                small.find_networks(Store())
            network = GANimation()
            torch.save(network.state_dict(), tmp_path / "30.pth")
            small.find_networks(Store(given={"ganimation": tmp_path / "30.pth"}))
        other = small.generate(inputs).frames
        torch.testing.assert_close(other[:, :, half:], made[:, :, half:])
        wanted = faces if upper_face == "original" else emotional_faces(network.eval(), faces, upper_face)
        torch.testing.assert_close(other[:, :, :half], wanted[:, :, :half])
    assert small.networks_of({"upper_face": "sad"}) == [*small.networks_of({}), "ganimation"]
    with pytest.raises(ValueError, match=r"upper_face is 'happy'\. Expected one of generated, original, sad"):
        VideoReTalking(**{**VideoReTalking.smoke_arguments(tmp_path), "upper_face": "happy"})


def test_frames_in_flight_are_bounded(small: VideoReTalking, monkeypatch: pytest.MonkeyPatch) -> None:
    most = 0

    class Frame(np.ndarray):
        alive = 0

        def __array_finalize__(self, of: object) -> None:
            nonlocal most
            if of is None or self.base is None:
                Frame.alive += 1
                most = max(most, Frame.alive)

        def __del__(self) -> None:
            if self.base is None:
                Frame.alive -= 1

    opened = Opened(np.zeros((90, 64, 80, 3), np.uint8))

    def frames() -> Iterator[np.ndarray]:
        for _ in range(90):
            yield np.zeros((64, 80, 3), np.uint8).view(Frame).copy()

    opened.frames = frames  # type: ignore[method-assign]
    monkeypatch.setattr(sessions, "regressed", lambda network, faces, points: np.zeros((len(faces), 262), np.float32))
    small.session(opened.video(), small.recipe, make_paste(small.recipe, Store()))
    assert 0 < most <= 20
