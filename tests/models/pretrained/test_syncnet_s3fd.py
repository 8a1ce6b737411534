# SPDX-License-Identifier: Apache-2.0
"""The S3FD detector of the SyncNet evaluation against the published implementation, on deterministic weights."""

import numpy as np
import pytest
import torch

from lipsync_bench.models.pretrained.syncnet_s3fd import SyncNetS3FD, decode, load_syncnet_s3fd, priors, suppress
from tests import golden

EVERY = 7  # the goldens hold every 7th prior


@pytest.fixture(scope="module")
def expected():
    return golden.arrays("syncnet_v2")


@pytest.fixture(scope="module")
def network():
    network = SyncNetS3FD()
    shapes = {name: list(value.shape) for name, value in network.state_dict().items()}
    network.load_state_dict(golden.filled(shapes))
    return network.eval()


@pytest.fixture(scope="module")
def outputs(network):
    with torch.no_grad():
        return network(torch.from_numpy(golden.uniform("syncnet_s3fd_in", (2, 3, 120, 160), -120, 130)))


def test_state_dict_is_the_published_one(network):
    state = network.state_dict()
    assert len(state) == 65
    assert sum(value.numel() for value in state.values()) == 22_459_110
    # The fill depends on every name and shape.
    assert sum(float(value.double().abs().sum()) for value in state.values()) == pytest.approx(313042.5113, abs=1e-3)
    parts = [name.split(".")[0] for name in state]
    assert list(dict.fromkeys(parts)) == ["vgg", "L2Norm3_3", "L2Norm4_3", "L2Norm5_3", "extras", "loc", "conf"]


def test_golden_heads(outputs, expected):
    loc, conf, boxes = outputs
    for name, value in (("loc", loc[:, ::EVERY]), ("conf", conf[:, ::EVERY]), ("priors", boxes[::EVERY])):
        reference = expected[f"s3fd_{name}"]
        np.testing.assert_allclose(value.numpy(), reference, rtol=0, atol=1e-5 * np.abs(reference).max(), err_msg=name)


def test_golden_detections(outputs, expected):
    loc, conf, boxes = outputs
    for image in range(2):
        faces = suppress(loc[image], conf[image, :, 1], boxes)
        assert len(faces) == expected["s3fd_ndet"][image]
        np.testing.assert_allclose(faces[:60].numpy(), expected["s3fd_det"][image], rtol=0, atol=1e-5)


def test_golden_caller(network, expected):
    image = np.rint(golden.uniform("syncnet_s3fd_image", (480, 640, 3), 0, 255)).astype(np.uint8)
    faces = network.detect(image, scale=0.25, threshold=0.5)
    assert faces.shape == expected["s3fd_boxes"].shape
    assert faces.dtype == np.float64
    np.testing.assert_allclose(faces, expected["s3fd_boxes"], rtol=0, atol=1e-5 * np.abs(expected["s3fd_boxes"]).max())
    assert network.detect(image, threshold=1.0).shape == (0, 5)


def test_prior_and_decoding_by_hand():
    boxes = priors((64, 128), [(16, 32), (8, 16), (4, 8), (2, 4), (1, 2), (1, 1)])
    assert boxes.shape == (16 * 32 + 8 * 16 + 4 * 8 + 2 * 4 + 2 + 1, 4)
    assert boxes[33].tolist() == pytest.approx([1.5 * 4 / 128, 1.5 * 4 / 64, 16 / 128, 16 / 64])
    assert decode(torch.zeros(1, 4), torch.tensor([[0.5, 0.5, 0.2, 0.4]])).tolist() == [
        pytest.approx([0.4, 0.3, 0.6, 0.7])
    ]


def test_detect_refuses_other_images(network):
    with pytest.raises(ValueError, match=r"float64. Expected \(H, W, 3\) uint8, RGB"):
        network.detect(np.zeros((64, 64, 3)))


def test_load(tmp_path, network):
    path = tmp_path / "sfd_face.pth"
    torch.save(network.state_dict(), path)
    loaded = load_syncnet_s3fd(path)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), network.state_dict().values(), strict=True)
    )


def test_load_refuses_what_is_missing_or_other(tmp_path, network):
    with pytest.raises(FileNotFoundError, match=r"sfd_face\.pth: no such file\. Expected .* --weights sfd_face=PATH"):
        load_syncnet_s3fd(tmp_path / "sfd_face.pth")
    state = network.state_dict()
    del state["loc.0.bias"]
    torch.save(state, tmp_path / "short.pth")
    with pytest.raises(ValueError, match=r"(?s)short\.pth: does not fit\. .*loc\.0\.bias.* Expected sfd_face\.pth"):
        load_syncnet_s3fd(tmp_path / "short.pth")
    (tmp_path / "text.pth").write_text("<html>not found</html>")
    with pytest.raises(ValueError, match=r"text\.pth: is a web page"):
        load_syncnet_s3fd(tmp_path / "text.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"list\.pth: is no flat mapping"):
        load_syncnet_s3fd(tmp_path / "list.pth")
