# SPDX-License-Identifier: Apache-2.0
"""The face parser against stored outputs of the official class."""

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
