# SPDX-License-Identifier: Apache-2.0
"""The S3FD detector of the Wav2Lip scripts against the published implementation, on deterministic weights."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage.data import astronaut

from lipsync_bench.datamodules.clips.boxes import Boxes, clip_geometry
from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.errors import FaceError
from lipsync_bench.datamodules.faces import s3fd
from lipsync_bench.datamodules.faces.crop_rules.boxes import BoxCut, DetectorBox
from lipsync_bench.datamodules.faces.crops import crop_boxes
from lipsync_bench.datamodules.faces.detectors import S3FDDetector, _Mesh, detector_version, make_detector
from lipsync_bench.datamodules.faces.options import FaceOptions
from lipsync_bench.datamodules.faces.s3fd import S3FD, find_faces, load_s3fd, network_input, rectangle, rectangles
from lipsync_bench.datamodules.files.disk import sha256
from lipsync_bench.datamodules.media.video import VideoWriter
from lipsync_bench.datamodules.prepare.make_clip import Settings
from lipsync_bench.datamodules.prepare.options import PrepareOptions
from lipsync_bench.datamodules.prepare.prepare import prepare
from lipsync_bench.datamodules.recipes.recipe import Recipe
from tests import golden
from tests.datamodules.tracks import track_faces
from tests.weight_files import given

ROOT = Path(__file__).parents[3]
FACE = (110, 20, 190, 140)  # in the photograph below: forehead to chin


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    return golden.arrays("s3fd")


@pytest.fixture(scope="module")
def network() -> S3FD:
    network = S3FD()
    network.load_state_dict(golden.filled(golden.names_and_shapes("s3fd")))
    return network.eval()


@pytest.fixture(scope="module")
def weights(network: S3FD, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "s3fd.pth"
    torch.save(network.state_dict(), path)
    return path


def bgr(count: int, height: int, width: int) -> np.ndarray:
    """The pattern of the goldens: (count, height, width, 3), in BGR order."""
    image, row, column, channel = np.ogrid[:count, :height, :width, :3]
    return ((2 * row + 3 * column + 17 * image + 64 * channel) % 256).astype(np.uint8)


def photograph() -> np.ndarray:
    return np.ascontiguousarray(astronaut()[30:230, 75:375])


def test_state_dict_is_the_published_one(network: S3FD) -> None:
    shapes = {name: list(value.shape) for name, value in network.state_dict().items()}
    assert shapes == golden.names_and_shapes("s3fd")
    assert list(shapes) == list(golden.names_and_shapes("s3fd"))
    assert sum(parameter.numel() for parameter in network.parameters()) == 22_459_110
    assert sum(float(x.double().abs().sum()) for x in network.state_dict().values()) == pytest.approx(313043.7689973675)


def test_golden_maps(network: S3FD, expected: dict[str, np.ndarray]) -> None:
    with torch.no_grad():
        maps = network(torch.from_numpy(golden.uniform("s3fd/image", (2, 3, 160, 192), -123, 151)))
    assert [tuple(x.shape[2:]) for x in maps[::2]] == [(40, 48), (20, 24), (10, 12), (9, 10), (5, 5), (3, 3)]
    for scale in range(6):
        for kind, value in zip(("cls", "reg"), maps[2 * scale : 2 * scale + 2], strict=True):
            reference = expected[f"{kind}{scale + 1}"]
            tolerance = 2e-5 * reference.std()  # float32 against float64 differs by 5e-6
            np.testing.assert_allclose(value.numpy(), reference, rtol=0, atol=tolerance, err_msg=f"{kind}{scale + 1}")


def test_golden_input_reverses_and_subtracts(expected: dict[str, np.ndarray]) -> None:
    images = bgr(3, 24, 20)
    np.testing.assert_array_equal(network_input(images[..., ::-1]).numpy()[:, :, :24, :20], expected["net_input"])


def test_golden_decoding(expected: dict[str, np.ndarray]) -> None:
    maps = []
    for scale, side in enumerate((16, 8, 4, 6, 3, 2)):
        cls = golden.uniform(f"s3fd/maps/cls{scale}", (3, 2, side, side), -3, 3)
        cls[2, 0], cls[2, 1] = 9, -9
        maps += [cls, golden.uniform(f"s3fd/maps/reg{scale}", (3, 4, side, side), -2, 2)]
    faces = find_faces([torch.from_numpy(x) for x in maps])
    assert [len(found) for found in faces] == expected["det_count"].tolist() == [54, 54, 0]
    for image in range(2):
        np.testing.assert_allclose(faces[image].numpy(), expected["det_boxes"][image], rtol=0, atol=1e-3)
    assert [rectangle(found) or (-1, -1, -1, -1) for found in faces] == list(map(tuple, expected["det_api"].tolist()))


def test_golden_chain(network: S3FD, expected: dict[str, np.ndarray]) -> None:
    images = np.ascontiguousarray(bgr(2, 64, 80)[..., ::-1])
    with torch.no_grad():
        faces = find_faces(network(network_input(images)))
    assert [len(found) for found in faces] == expected["full_count"].tolist() == [54, 55]
    for image, found in enumerate(faces):
        np.testing.assert_allclose(
            found.numpy(), expected["full_boxes"][image, : len(found)], rtol=0, atol=1e-3, err_msg=str(image)
        )
    assert rectangles(network, images) == list(map(tuple, expected["full_api"].tolist()))
    everybody = s3fd.all_rectangles(network, images)
    assert [len(found) for found in everybody] == [54, 55]
    assert [found[0] for found in everybody] == rectangles(network, images)


def test_the_best_face_is_not_the_largest() -> None:
    faces = torch.tensor([[-3.5, 2.9, 20.9, 30.0, 0.9], [0.0, 0.0, 90.0, 90.0, 0.8]])
    assert rectangle(faces) == (0, 2, 20, 30)
    assert rectangle(faces[:0]) is None


def test_wrong_images_are_refused(network: S3FD) -> None:
    with pytest.raises(ValueError, match=r"float64 \(1, 64, 64, 3\)\. Expected uint8 RGB \(B, H, W, 3\)"):
        rectangles(network, np.zeros((1, 64, 64, 3)))
    with pytest.raises(ValueError, match=r"Expected 32 or more a side"):
        rectangles(network, np.zeros((1, 31, 64, 3), np.uint8))


def test_load(network: S3FD, weights: Path) -> None:
    loaded = load_s3fd(weights)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), network.parameters(), strict=True))


def test_load_refuses_missing_and_other_weights(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.pth: no such file\. .*face-alignment.*--weights s3fd=PATH"):
        load_s3fd(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("<html>not found</html>")
    with pytest.raises(ValueError, match=r"text\.pth: is a web page.*s3fd"):
        load_s3fd(tmp_path / "text.pth")
    torch.save({"fc6.weight": torch.zeros(1)}, tmp_path / "short.pth")
    with pytest.raises(ValueError, match=r"(?s)short\.pth: does not fit.*conv1_1\.weight.*Other shape: fc6\.weight"):
        load_s3fd(tmp_path / "short.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"list\.pth: is no flat mapping"):
        load_s3fd(tmp_path / "list.pth")


# From here on: as third detector. Random weights find nothing, so a known rectangle takes the network's place.


@pytest.fixture
def rectangle_found(monkeypatch: pytest.MonkeyPatch) -> list[s3fd.Rectangle | None]:
    """What the detector finds in every frame; a test may change the entry."""
    answer: list[s3fd.Rectangle | None] = [FACE]
    monkeypatch.setattr(s3fd, "rectangles", lambda network, images: answer * len(images))
    return answer


def test_detector_has_rectangle_mesh_and_landmarks(weights: Path, rectangle_found: list[s3fd.Rectangle | None]) -> None:
    frames = [photograph()] * 3
    track = track_faces(frames, "s3fd", detector_weights=weights)
    assert track.detector == "s3fd"
    assert sha256(weights) in track.detector_version
    assert track.detector_version == detector_version("s3fd", weights)
    np.testing.assert_array_equal(track.boxes, [FACE] * 3)
    np.testing.assert_array_equal(crop_boxes(track, "detector", (200, 300)), [FACE] * 3)
    ours = track_faces(frames)
    assert np.linalg.norm(ours.mesh[..., :2] - track.mesh[..., :2], axis=-1).mean() < 3
    assert np.linalg.norm(ours.landmarks - track.landmarks, axis=-1).mean() < 3
    with make_detector("s3fd", weights, landmarks=False) as detector:
        (bare,) = detector.detect(frames[0])
    np.testing.assert_array_equal(bare.mesh, track.mesh[0])
    assert bare.landmarks.shape == (0, 2)
    for found in (None, (290, 190, 400, 300), (320, 20, 400, 90), (120, 60, 120, 60)):
        rectangle_found[0] = found
        with pytest.raises(FaceError, match="no face"):
            track_faces(frames, "s3fd", detector_weights=weights)


def test_the_rectangle_of_the_frame_itself_is_found(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []

    def look(network: S3FD, images: np.ndarray) -> list[Any]:
        seen.append(images)
        return [FACE]

    monkeypatch.setattr(s3fd, "rectangles", look)
    with make_detector("s3fd", weights) as detector:
        assert isinstance(detector, S3FDDetector)
        detector.detect(photograph())
        assert detector.detect(np.zeros((1, 1, 3), np.uint8)) == []
    assert len(seen) == 1
    np.testing.assert_array_equal(seen[0], photograph()[None])  # RGB, whole, unscaled


def test_weights_are_asked_for_and_checked(tmp_path: Path, weights: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"s3fd: no weights.*s3fd-619a316812\.pth.*bench weights fetch s3fd"):
        make_detector("s3fd")
    with pytest.raises(FileNotFoundError, match=r"none\.pth: no weights"):
        make_detector("s3fd", tmp_path / "none.pth")
    with pytest.raises(ValueError, match=r"detector 'dlib' with the weights .*Expected .*--detector s3fd"):
        make_detector("dlib", weights)
    with pytest.raises(FileNotFoundError, match=r"weights s3fd: not in .*619a3168.*Run: bench weights fetch s3fd"):
        prepare(tmp_path, tmp_path / "out", faces=FaceOptions(detector="s3fd"))
    assert not (tmp_path / "out").exists()


def test_a_wrong_weight_file_is_one_error_not_one_a_clip(tmp_path: Path) -> None:
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"(?s)other\.pth: does not fit.*conv1_1\.weight"):
        prepare(
            tmp_path, tmp_path / "out", faces=FaceOptions(detector="s3fd"), weights=given(s3fd=tmp_path / "other.pth")
        )
    assert not (tmp_path / "out").exists()


def test_prepare_records_the_weights_not_their_path(
    tmp_path: Path, weights: Path, rectangle_found: list[s3fd.Rectangle | None]
) -> None:
    with VideoWriter(tmp_path / "in" / "a" / "1.mp4", 25.0, (200, 300), audio=np.zeros(6400, np.float32)) as writer:
        for _ in range(10):
            writer.write(photograph())
    rectangle_found[0] = (*FACE[:3], 240)  # beyond the lower edge

    def run(path: Path) -> tuple[int, int, int]:
        report = prepare(
            tmp_path / "in",
            tmp_path / "out",
            PrepareOptions(workers=1),
            faces=FaceOptions(detector="s3fd", crop="detector"),
            weights=given(s3fd=path),
            progress=False,
        )
        return report.done, report.skipped, report.failed

    assert run(weights) == (1, 0, 0)
    with Clip(tmp_path / "out" / "a" / "1.safetensors") as clip:
        np.testing.assert_array_equal(clip.boxes(), [(*FACE[:3], 200)] * 10)
        assert clip.header.detector_version == detector_version("s3fd", weights)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["detector_version"] == detector_version("s3fd", weights)
    assert manifest["settings"]["detector"] == "s3fd"
    moved = tmp_path / "moved.pth"
    moved.write_bytes(weights.read_bytes())
    assert run(moved) == (0, 1, 0)
    state = torch.load(weights, weights_only=True)
    state["conv1_1.bias"] += 1
    torch.save(state, moved)
    assert run(moved) == (1, 0, 0)


def test_boxes_beside_a_clip_are_the_published_rectangles(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the frame, and of frames without a mesh too; of two faces the clip's, not the one with the best score."""
    with VideoWriter(tmp_path / "in" / "a" / "1.mp4", 25.0, (200, 300), audio=np.zeros(6400, np.float32)) as writer:
        for _ in range(10):
            writer.write(photograph())
    beyond = (*FACE[:3], 240)
    monkeypatch.setattr(s3fd, "all_rectangles", lambda network, images: [[(200, 0, 300, 90), beyond]])
    monkeypatch.setattr(_Mesh, "around", lambda *_: None)

    def run(path: Path, recipe: Recipe) -> tuple[tuple[str, int, int, int], ...]:
        options = PrepareOptions(workers=1)
        store = given(s3fd=path)
        return prepare(
            tmp_path / "in", tmp_path / "out", options, weights=store, recipes=[recipe], progress=False
        ).parts

    recipe = Recipe(DetectorBox("s3fd", (0, 10, 0, 0), 5), (96, 96), DetectorBox("s3fd"))
    assert run(weights, recipe) == (("boxes of s3fd", 1, 0, 0), ("tracks s3fd 96x96", 1, 0, 0))
    with Boxes(tmp_path / "out" / "a" / "1.s3fd.boxes") as boxes:
        np.testing.assert_array_equal(boxes.boxes(), [beyond] * 10)
        assert boxes.header.detector_version == detector_version("s3fd", weights)
    with Clip(tmp_path / "out" / "a" / "1.safetensors") as clip:
        assert clip.header.detector == "mediapipe"
        inside = [BoxCut((*FACE[:3], 200))] * 10
        assert list(recipe.crop.cuts(clip_geometry(clip))) == inside
    state = torch.load(weights, weights_only=True)
    state["conv1_1.bias"] += 1
    torch.save(state, tmp_path / "other.pth")
    assert run(tmp_path / "other.pth", recipe) == (("boxes of s3fd", 1, 0, 0), ("tracks s3fd 96x96", 1, 0, 0))
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"list\.pth: is no flat mapping"):
        run(tmp_path / "list.pth", recipe)


def test_a_frame_too_small_for_the_network_has_no_boxes(weights: Path) -> None:
    with make_detector("s3fd", weights) as detector:
        assert detector.boxes(np.zeros((31, 64, 3), np.uint8)) == []


def test_settings_without_weights_are_those_of_earlier_clips() -> None:
    keys = json.loads(Settings().key())
    assert set(keys) == {
        "crop", "detector", "face", "jpeg_quality", "max_crop_px", "max_gap_frames", "revision"
    }  # fmt: skip


def test_other_detectors_do_not_import_pytorch() -> None:
    code = "import sys, lipsync_bench.datamodules.prepare.prepare; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
