# SPDX-License-Identifier: Apache-2.0
"""Face enhancement: which faces are found and how they are aligned, restored in batches and pasted."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lipsync_bench.datamodules.recipes.options import RecipeOptions
from lipsync_bench.datamodules.weights.store import Store
from lipsync_bench.evaluation import evaluate_dataset
from lipsync_bench.evaluation.options import Inputs, Selection
from lipsync_bench.inference.dub import dub, dub_frames
from lipsync_bench.inference.enhancing import TEMPLATE, EnhancedSession, FaceEnhancer, align, make_enhancer
from lipsync_bench.inference.sessions import Sessions
from lipsync_bench.models import Wav2Lip
from lipsync_bench.models.core.checkpoints import save_module
from lipsync_bench.models.core.session import Session, Video
from lipsync_bench.models.pretrained import gfpgan
from lipsync_bench.models.pretrained.gfpgan import GFPGAN
from tests.sessions import StandIn, geometry_with, recipe_of, session_of, video_of
from tests.weight_files import given, make_official


class Negative(GFPGAN):
    """Inverts faces, and remembers how many it has seen at once."""

    def __init__(self) -> None:
        super().__init__(0.01)
        self.batches: list[int] = []

    def forward(self, faces: Tensor) -> Tensor:
        self.batches.append(len(faces))
        return -faces


def noise(size_hw: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), dtype=np.uint8)


def landmarks(scale: float = 1.0, degrees: float = 0.0, shift: tuple[float, float] = (0, 0)) -> np.ndarray:
    """float32 (68, 2) of a face that is FFHQ's template, scaled, turned and moved; other points are NaN."""
    points = np.full((68, 2), np.nan)
    ring = 8 * np.stack([np.cos(np.arange(6)), np.sin(np.arange(6))], axis=1)
    ring -= ring.mean(axis=0)
    points[36:42], points[42:48] = TEMPLATE[0] + ring, TEMPLATE[1] + ring
    points[[30, 48, 54]] = TEMPLATE[2:]
    sin, cos = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    return (scale * points @ np.array([(cos, sin), (-sin, cos)]) + shift).astype(np.float32)


def test_a_face_like_the_template_is_its_own_alignment() -> None:
    frame = noise((512, 512))
    square = align(landmarks(), (512, 512))
    assert square is not None
    np.testing.assert_allclose(square.to_face, [(1, 0, 0), (0, 1, 0)], atol=1e-4)
    assert square.box == (0, 0, 512, 512)
    assert np.abs(square.cut(frame).astype(int) - frame).max() <= 8  # OpenCV samples at 1/32 pixel


@pytest.mark.parametrize(("scale", "degrees"), [(0.5, 0), (0.3, 25), (1.7, -40), (0.8, 180)])
def test_a_face_is_turned_scaled_and_moved(scale: float, degrees: float) -> None:
    shift = (300.0, 200.0)
    square = align(landmarks(scale, degrees, shift), (4000, 4000))
    assert square is not None
    cos, sin = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    to_frame = np.array([(cos, -sin, shift[0]), (sin, cos, shift[1]), (0, 0, 1)])
    np.testing.assert_allclose(np.vstack([square.to_face, (0, 0, 1)]) @ to_frame, np.eye(3), atol=2e-3)


def test_the_frame_is_grey_beyond_its_edge() -> None:
    square = align(landmarks(shift=(-100, 0)), (512, 512))
    assert square is not None
    face = square.cut(np.zeros((512, 512, 3), np.uint8))
    assert (face[200:300, :90] == (132, 133, 135)).all()  # facexlib's, which are (135, 133, 132) in BGR
    assert (face[200:300, 110:] == 0).all()
    assert square.box == (0, 0, 412, 512)


@pytest.mark.parametrize("scale", [0.4, 1.5])
def test_a_pasted_face_fades_into_the_frame_inside_its_square(scale: float) -> None:
    frame = np.full((600, 700, 3), 100, np.uint8)
    before = frame.copy()
    square = align(landmarks(scale, 10, (200, 60)), frame.shape[:2])
    assert square is not None
    out = square.paste(frame, np.full((512, 512, 3), 200, np.uint8))
    assert np.array_equal(frame, before)
    rows, columns = np.indices(frame.shape[:2])
    x, y = np.tensordot(square.to_face, np.stack([columns, rows, np.ones_like(rows)]), axes=1)
    to_edge = np.minimum(np.minimum(x, 511 - x), np.minimum(y, 511 - y))
    assert (out[to_edge < 0] == 100).all()
    assert (out[to_edge > 55] == 200).all()
    between = out[(to_edge > 10) & (to_edge < 40)]
    assert between.min() < 120 < 180 < between.max()
    assert ((out >= 100) & (out <= 200)).all()


def test_only_frames_with_a_face_change_and_the_others_are_counted() -> None:
    frames = [noise((600, 640), seed) for seed in range(6)] + [noise((300, 200), 6)]
    missing, no_nose = np.full((68, 2), np.nan), landmarks()
    no_nose[30] = np.nan
    points = [
        landmarks(),
        missing,
        landmarks(0.03),
        no_nose,
        landmarks(shift=(2000, 0)),
        landmarks(0.9),
        landmarks(0.3),
    ]
    before = [frame.copy() for frame in frames]
    network = Negative()
    out, unchanged = FaceEnhancer(network, batch_faces=2).enhance(frames, np.stack(points))
    assert unchanged == 4
    assert [new is old for new, old in zip(out, frames, strict=True)] == [False, True, True, True, True, False, False]
    assert all(np.array_equal(old, kept) for old, kept in zip(frames, before, strict=True))
    assert network.batches == [2, 1]
    middle = np.s_[100:400, 100:400]
    assert np.abs(out[0][middle].astype(int) - (255 - frames[0][middle])).max() <= 8
    for index in (5, 6):  # each face into its own frame
        square = align(points[index], frames[index].shape[:2])
        assert square is not None
        assert np.array_equal(out[index], square.paste(frames[index], 255 - square.cut(frames[index])))


def test_no_frames_and_no_faces_need_no_network() -> None:
    network = Negative()
    assert FaceEnhancer(network).enhance([], np.empty((0, 68, 2))) == ([], 0)
    frames = [noise((64, 64))]
    assert FaceEnhancer(network).enhance(frames, np.full((1, 68, 2), np.nan)) == (frames, 1)
    assert FaceEnhancer(network).enhance(frames, np.full((1, 68, 2), 30.0)) == (frames, 1)
    assert network.batches == []


@pytest.mark.parametrize(
    ("frames", "points"),
    [
        ([noise((64, 64))], np.zeros((2, 68, 2))),
        ([noise((64, 64))], np.zeros((1, 478, 2))),
        ([noise((64, 64)).astype(np.float32)], np.zeros((1, 68, 2))),
        ([noise((64, 64))[..., 0]], np.zeros((1, 68, 2))),
    ],
)
def test_other_shapes_and_types_are_refused(frames: list[np.ndarray], points: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"points are .* for 1 frames.*Expected \(N, 68, 2\) for N uint8 frames"):
        FaceEnhancer(Negative()).enhance(frames, points)


def test_the_name_tells_whose_weights_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"weights gfpgan_1_3: not in .*Run: bench weights fetch gfpgan_1_3"):
        make_enhancer(Store([tmp_path]))
    path = tmp_path / "face.pth"
    torch.save({"params_ema": {}}, path)
    monkeypatch.setattr(gfpgan, "load_gfpgan", lambda path: GFPGAN(0.01))
    assert make_enhancer(Store(given={"gfpgan_1_3": path})).name.startswith("gfpgan-1.3 ")
    make_official(monkeypatch, "gfpgan_1_3", path)
    assert make_enhancer(Store([tmp_path])).name == "gfpgan-1.3"


# As a part of a recipe


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that gives the network `Negative`."""
    path = tmp_path / "face.pth"
    torch.save({"params_ema": {}}, path)
    monkeypatch.setattr(gfpgan, "load_gfpgan", lambda path: Negative().eval())
    return path


HIDDEN, WITHOUT_LANDMARKS = 1, 3


def seven_frames() -> Video:
    """A face that is hidden in one frame, and whose landmarks were not found in another."""
    mel = np.random.default_rng(2).uniform(-4, 4, (80, 60)).astype(np.float32)
    video = video_of(
        [noise((120, 130), k) for k in range(7)], np.tile([30, 40, 80, 100], (7, 1)), mel, hidden=(HIDDEN,)
    )
    points = np.stack([landmarks(0.2, k, (10, 10 + k)) for k in range(7)])
    points[WITHOUT_LANDMARKS] = np.nan
    return replace(video, geometry=replace(video.geometry, landmarks=points))


def test_a_recipe_enhances_what_was_pasted_and_counts_what_it_could_not(weights: Path) -> None:
    video, store = seven_frames(), Store(given={"gfpgan_1_3": weights})
    darker = StandIn(lambda inputs: inputs.faces / 2)
    recipe = replace(recipe_of(paste="feather"), enhance="gfpgan")
    sessions = Sessions(darker, recipe, store)  # type: ignore[arg-type]
    assert sessions.paste == f"feather+{make_enhancer(store).name}"
    looped = [*video.frames(), *video.frames()][:10]
    session = sessions.of(video)
    out = list(dub_frames(session, looped, batch_frames=4))
    pasted = list(dub_frames(session_of(darker, video, recipe), looped, batch_frames=4))
    assert video.geometry.landmarks is not None
    for k, frame in enumerate(out):
        square = align(video.geometry.landmarks[k % 7], frame.shape[:2])
        if k % 7 == HIDDEN:
            assert frame is looped[k]
        elif square is None:
            assert np.array_equal(frame, pasted[k])
            assert not np.array_equal(frame, looped[k])
        else:
            assert np.array_equal(frame, square.paste(pasted[k], 255 - square.cut(pasted[k])))
    assert (session.passed_through, session.unenhanced) == (2, 1)


class OwnSession(Session):
    """Of a method that does not cut and paste as others do."""

    closed = False

    def frames(self, first: int, images: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        for k, image in enumerate(images, first):
            self.fallback_frames += k % 2
            self.passed_through += k == 0
            self.steps_left_out = ("expression",)
            yield image if k == 0 else 255 - image

    def close(self) -> None:
        self.closed = True


def test_any_session_is_enhanced_and_its_counts_stay() -> None:
    frames = [noise((120, 130), k) for k in range(4)]
    geometry = replace(
        geometry_with(np.tile([30, 40, 80, 100], (4, 1)), (120, 130)), landmarks=np.stack([landmarks(0.2)] * 4)
    )
    own = OwnSession()
    session = EnhancedSession(own, geometry, FaceEnhancer(Negative()))
    out = [*session.frames(0, frames[:3]), *session.frames(3, frames[3:])]
    assert out[0] is frames[0]
    assert all(not np.array_equal(new, 255 - old) for new, old in zip(out[1:], frames[1:], strict=True))
    assert (session.fallback_frames, session.passed_through, session.steps_left_out) == (2, 1, ("expression",))
    session.close()
    assert own.closed
    with pytest.raises(ValueError, match=r"without landmarks of the face\. Expected.*--recipe\.enhance none"):
        EnhancedSession(own, replace(geometry, landmarks=None), FaceEnhancer(Negative()))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "wav2lip.ckpt"
    torch.manual_seed(0)
    save_module(Wav2Lip(width=0.125, recipe={"crop": "mesh"}), path)
    return path


ENHANCED = RecipeOptions(enhance="gfpgan")


def test_rows_say_what_enhanced_the_faces(corpus: Path, checkpoint: Path, weights: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.ckpt"
    torch.manual_seed(0)
    save_module(Wav2Lip(width=0.125, recipe={"crop": "mesh", "enhance": "gfpgan"}), own)
    inputs = Inputs(corpus / "clips", {"plain": checkpoint, "enhanced": own})
    one = Selection(limit=1, only=("plain", "enhanced"))
    with pytest.raises(FileNotFoundError, match=r"weights gfpgan_1_3: not in .*Run: bench weights fetch gfpgan_1_3"):
        evaluate_dataset("synthetic", tmp_path / "out", inputs=inputs, recipe=ENHANCED, select=one, progress=False)
    assert not (tmp_path / "out").exists()
    rows = evaluate_dataset(
        *("synthetic", tmp_path / "out"),
        inputs=inputs,
        weights=given(gfpgan_1_3=weights),
        select=one,
        progress=False,
    ).rows.set_index("method")
    plain, enhanced = rows.loc["plain"], rows.loc["enhanced"]
    assert (plain["paste"], plain["recipe_text"]) == ("box", "mesh 96x96 / same / reflect / box")
    assert enhanced["paste"] == f"box+{make_enhancer(Store(given={'gfpgan_1_3': weights})).name}"
    assert enhanced["recipe_text"] == "mesh 96x96 / same / reflect / box+gfpgan"
    assert "enhance: gfpgan (published: none)" in enhanced["published"]
    assert (enhanced["status"], enhanced["unenhanced_frames"], plain["unenhanced_frames"]) == ("ok", 0, 0)
    assert enhanced["psnr"] < plain["psnr"] - 1  # the face is a negative


def test_a_dubbed_file_says_what_enhanced_its_faces(
    corpus: Path, checkpoint: Path, weights: Path, tmp_path: Path
) -> None:
    import av

    video = min((corpus / "videos").rglob("*.mp4"))
    with pytest.raises(FileNotFoundError, match="bench weights fetch gfpgan_1_3"):
        dub(checkpoint, video, video, tmp_path / "out.mp4", recipe=ENHANCED, progress=False)
    report = dub(
        *(checkpoint, video, video, tmp_path / "out.mp4"),
        recipe=ENHANCED,
        weights=given(gfpgan_1_3=weights),
        progress=False,
    )
    assert (report.unenhanced, report.without_face) == (0, 0)
    assert "to enhance" not in report.summary()
    assert "3 dubbed frames show no face to enhance" in replace(report, unenhanced=3).summary()
    with av.open(str(tmp_path / "out.mp4")) as container:
        mark = json.loads(container.metadata["lipsync_bench"])
    assert mark["paste"] == f"box+{make_enhancer(Store(given={'gfpgan_1_3': weights})).name}"
    assert mark["recipe"].endswith(" / box+gfpgan")
