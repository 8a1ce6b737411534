# SPDX-License-Identifier: Apache-2.0
"""The face parser against stored outputs of the official class, and the loading of its weight file."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lipsync_bench.models.pretrained.face_parsing import (
    CLASSES,
    MEAN_RGB,
    STD_RGB,
    FaceParser,
    load_face_parser,
    parse_face,
)
from tests import golden

REFERENCE = golden.arrays("hyperlips_parsing")


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return golden.filled(golden.names_and_shapes("hyperlips_parsing"))


@pytest.fixture(scope="module")
def weight_file(weights: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parsing") / "face_segmentation.pth"
    torch.save(weights, path)
    return path


@pytest.fixture(scope="module")
def parser(weight_file: Path) -> FaceParser:
    return load_face_parser(weight_file)


@pytest.fixture(scope="module")
def image_rgb() -> np.ndarray:
    """(160,208,3); the stored labels belong to it as BGR."""
    small_bgr = np.floor(256 * golden.uniform("hyperlips.parsing.img", (20, 26, 3))).astype(np.uint8)
    return small_bgr.repeat(8, axis=0).repeat(8, axis=1)[..., ::-1]


# Network and labels


def test_names_and_shapes_are_the_official_ones_in_order() -> None:
    network = FaceParser()
    own = {name: list(value.shape) for name, value in network.state_dict().items()}
    assert list(own.items()) == list(golden.names_and_shapes("hyperlips_parsing").items())
    assert sum(parameter.numel() for parameter in network.parameters()) == 13_300_416


def test_outputs_equal_the_official_ones(parser: FaceParser) -> None:
    assert not parser.training
    assert not any(parameter.requires_grad for parameter in parser.parameters())
    images = torch.from_numpy(golden.uniform("hyperlips.parsing.x", (2, 3, 256, 256), -2.1, 2.6))
    with torch.no_grad():
        outputs = parser(images)
        assert torch.equal(parser.logits(images), outputs[0])
    for i, own in enumerate(outputs):
        reference = torch.from_numpy(REFERENCE[f"out{i}"])
        assert own.shape == (2, 19, 256, 256)
        assert (own[:, :, ::16, ::16] - reference).abs().max() <= 1e-5 * reference.abs().max()
        assert float(own.double().mean()) == pytest.approx(float(REFERENCE[f"out{i}_mean"]), abs=1e-6)
        assert float(own.double().std(correction=0)) == pytest.approx(float(REFERENCE[f"out{i}_std"]), rel=1e-6)


def test_labels_equal_the_official_ones(parser: FaceParser, image_rgb: np.ndarray) -> None:
    labels = parse_face(parser, image_rgb)
    assert (labels.shape, labels.dtype) == ((512, 512), np.uint8)
    # All are equal where the goldens were made; another processor may decide a tie the other way.
    assert np.mean(labels[::8, ::8] != REFERENCE["labels"]) <= 0.001
    swapped = parse_face(parser, image_rgb[..., ::-1])
    assert np.mean(swapped[::8, ::8] != REFERENCE["labels"]) > 0.01  # the order of colours matters
    assert len(CLASSES) == 19
    assert [CLASSES[i] for i in (0, 1, 10, 11, 12, 13, 17)] == [
        "background", "skin", "nose", "mouth", "upper_lip", "lower_lip", "hair",
    ]  # fmt: skip


def test_image_is_resized_as_bytes_and_normalised(image_rgb: np.ndarray) -> None:
    class Recorder(FaceParser):
        def logits(self, images: torch.Tensor) -> torch.Tensor:
            self.seen = images
            return torch.zeros(1, 19, 512, 512)

    recorder = Recorder().eval()
    parse_face(recorder, image_rgb)
    pixels = cv2.resize(image_rgb.copy(), (512, 512)).astype(np.float64) / 255
    expected = (pixels - MEAN_RGB) / STD_RGB
    assert recorder.seen.shape == (1, 3, 512, 512)
    np.testing.assert_allclose(recorder.seen[0].permute(1, 2, 0).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3), np.float32)]
)
def test_other_images_are_refused(parser: FaceParser, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"image_rgb has shape .*Expected \(H, W, 3\) uint8, RGB"):
        parse_face(parser, image)


# The weight file


def test_counters_of_batches_may_be_missing(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    old = {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth")
    network = load_face_parser(str(tmp_path / "old.pth"))
    assert torch.equal(network.state_dict()["ffm.conv1.weight"], weights["ffm.conv1.weight"])


def test_other_names_and_shapes_are_listed(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    changed = dict(weights)
    changed["ffm.conv9.weight"] = changed.pop("ffm.conv1.weight")
    changed["cp.resnet.bn1.bias"] = torch.zeros(3)
    torch.save(changed, tmp_path / "changed.pth")
    with pytest.raises(ValueError, match=r"Missing: ffm\.conv1\.weight\. Unknown: ffm\.conv9\.weight\.") as error:
        load_face_parser(tmp_path / "changed.pth")
    assert "cp.resnet.bn1.bias (3,) instead of (64,)" in str(error.value)
    assert "--weights face_segmentation=PATH" in str(error.value)


def test_missing_file_says_where_to_get_it_and_which_flag_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"HyperLips.*face-parsing.*--weights face_segmentation=PATH"):
        load_face_parser(tmp_path / "none.pth")


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>"])
def test_damaged_file_is_reported_with_its_path(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged\.pth: (cannot be read|is a web page).*the file face_segmentation"):
        load_face_parser(path)


def test_wrapped_state_dict_is_refused(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save({"state_dict": weights}, tmp_path / "wrapped.pth")
    with pytest.raises(ValueError, match="no flat mapping"):
        load_face_parser(tmp_path / "wrapped.pth")
