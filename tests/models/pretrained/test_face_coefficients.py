# SPDX-License-Identifier: Apache-2.0
"""Deep3DFaceRecon's network and its crop of a face, against stored facts of VideoReTalking's released inference.

Keys of videoretalking_pipeline.golden.npz: `recon_5p` (5,2), points with y up; `recon_ts` x, y and scale of the crop;
`recon_img`, every third pixel of it; `recon_lm` the 68 points in the crop.
"""

import numpy as np
import torch
from torchvision.models import resnet50

from lipsync_bench.models.pretrained.face_coefficients import HEADS, FaceCoefficients, face_crop, points_as_standard
from tests import golden

STORED = golden.arrays("videoretalking_pipeline")
STANDING = {30: (128, 145), 48: (104, 180), 54: (152, 180)}


def landmarks() -> np.ndarray:
    points = np.full((68, 2), 128.0)
    points[36:42], points[42:48] = (96, 110), (160, 110)
    for number, place in STANDING.items():
        points[number] = place
    return points + golden.uniform("vrt/pipe/recon_lm", (1, 68, 2), -3, 3)[0]


def test_a_face_is_placed_as_the_released_code_places_it() -> None:
    image = np.floor(golden.uniform("vrt/pipe/recon_img", (256, 256, 3), 0, 256)).astype(np.uint8)
    points = landmarks()
    up = np.stack([points[:, 0], 255 - points[:, 1]], axis=1)
    np.testing.assert_allclose(points_as_standard(up), STORED["recon_5p"], atol=1e-9)
    crop, (width, height, scale, x, y) = face_crop(image, points)
    np.testing.assert_allclose([x, y, scale], STORED["recon_ts"], atol=1e-6)
    assert (width, height) == (256, 256)
    assert crop.shape == (224, 224, 3)
    difference = np.abs(crop[::3, ::3].astype(int) - STORED["recon_img"])
    assert difference.max() <= 1
    assert difference.mean() < 0.01


def test_names_are_torchvisions_and_seven_heads() -> None:
    with torch.device("meta"):
        network, known = FaceCoefficients(), resnet50()
    names = [f"backbone.{name}" for name in known.state_dict() if not name.startswith("fc.")]
    names += [f"final_layers.{number}.{name}" for number in range(7) for name in ("weight", "bias")]
    assert list(network.state_dict()) == names
    assert sum(HEADS) == 257


def test_heads_are_joined_in_their_order() -> None:
    network = FaceCoefficients().eval()
    for number, head in enumerate(network.final_layers):
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.constant_(head.bias, number)
    with torch.inference_mode():
        (row,) = network(torch.rand(1, 3, 64, 64))
    expected = [number for number, values in enumerate(HEADS) for _ in range(values)]
    assert row.tolist() == expected
