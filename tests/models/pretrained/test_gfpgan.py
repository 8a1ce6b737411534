# SPDX-License-Identifier: Apache-2.0
"""GFPGAN against stored outputs of the class GFPGANv1Clean of the package gfpgan 1.3.8, with the noise of the weight
file (`randomize_noise=False`).

Arrays: `full`, `quarter`: float32 (2, 3, 32, 32), every 16th pixel of the outputs at widths 1 and 0.25, and `_mean` and
`_std` of all of them.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lipsync_bench.models.pretrained import gfpgan
from lipsync_bench.models.pretrained.gfpgan import GFPGAN, load_gfpgan, restore_faces
from tests import golden

REFERENCE = golden.arrays("gfpgan")
Shapes = dict[str, list[int]]


def shapes(network: GFPGAN) -> Shapes:
    return {name: list(value.shape) for name, value in network.state_dict().items()}


def test_names_and_shapes_are_the_official_ones_in_order() -> None:
    with torch.device("meta"):
        network = GFPGAN()
    assert list(shapes(network).items()) == list(golden.names_and_shapes("gfpgan").items())
    assert sum(parameter.numel() for parameter in network.parameters()) == 86_444_252


@pytest.mark.parametrize(("name", "width"), [("quarter", 0.25), pytest.param("full", 1.0, marks=pytest.mark.slow)])
def test_outputs_equal_the_official_ones(name: str, width: float) -> None:
    network = GFPGAN(width).eval()
    network.load_state_dict(golden.filled(shapes(network)))
    faces = torch.from_numpy(golden.uniform("gfpgan.x", (2, 3, 512, 512), -1, 1))
    with torch.inference_mode():
        own = network(faces)
    reference = torch.from_numpy(REFERENCE[name])
    assert own.shape == (2, 3, 512, 512)
    assert (own[:, :, ::16, ::16] - reference).abs().max() <= 1e-5 * reference.abs().max()
    assert float(own.double().mean()) == pytest.approx(float(REFERENCE[f"{name}_mean"]), rel=1e-5)
    assert float(own.double().std(correction=0)) == pytest.approx(float(REFERENCE[f"{name}_std"]), rel=1e-5)


class _Known(GFPGAN):
    """Gives what it is told to."""

    def __init__(self, change: str) -> None:
        super().__init__(0.01)
        self.change = change

    def forward(self, faces: Tensor) -> Tensor:
        return {"same": faces, "thrice": 3 * faces, "red": faces * torch.tensor([1, 0, 0])[:, None, None]}[self.change]


def test_faces_are_rgb_and_rounded_and_clipped() -> None:
    faces = np.arange(256, dtype=np.uint8).repeat(2 * 512 * 6).reshape(2, 512, 512, 3)
    assert np.array_equal(restore_faces(_Known("same"), faces), faces)
    thrice = restore_faces(_Known("thrice"), faces)
    assert np.array_equal(thrice, (3 * faces.astype(int) - 255).clip(0, 255))
    red = restore_faces(_Known("red"), faces)
    assert np.array_equal(red[..., 0], faces[..., 0])
    assert (red[..., 1:] == 128).all()  # 127.5


@pytest.mark.parametrize(
    "faces", [np.zeros((512, 512, 3), np.uint8), np.zeros((1, 256, 256, 3), np.uint8), np.zeros((1, 512, 512, 3))]
)
def test_other_images_are_refused(faces: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"faces are .*Expected uint8 \(N, 512, 512, 3\), RGB\. Use"):
        restore_faces(_Known("same"), faces)


def test_values_that_are_not_finite_are_refused() -> None:
    network = GFPGAN(0.01)
    torch.nn.init.constant_(network.conv_body_first.bias, torch.nan)
    with pytest.raises(
        ValueError, match=r"not finite\. Expected the file GFPGANv1\.3\.pth.*bench weights fetch gfpgan_1"
    ):
        restore_faces(network, np.zeros((1, 512, 512, 3), np.uint8))


# The weight file


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Tensors of a network that is small enough to be written to a file."""
    monkeypatch.setattr(gfpgan, "GFPGAN", partial(GFPGAN, 0.01))
    return golden.filled(shapes(GFPGAN(0.01)))


def other(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value + 1 for name, value in state.items()}


def test_the_averaged_weights_of_a_file_are_read(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "GFPGANv1.3.pth"
    for content in ({"params": other(state), "params_ema": state}, {"params": state}, state):
        torch.save(content, path)
        network = load_gfpgan(path)
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_any_other_file_is_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    path, name = tmp_path / "GFPGANv1.3.pth", "final_linear.bias"

    def message() -> str:
        with pytest.raises((ValueError, FileNotFoundError)) as raised:
            load_gfpgan(path)
        text = str(raised.value)
        assert text.startswith(f"{path}: ")
        assert "Expected the file GFPGANv1.3.pth of github.com/TencentARC/GFPGAN" in text
        assert "--weights gfpgan_1_3=PATH, or run: bench weights fetch gfpgan_1_3" in text
        return text

    assert "no such file" in message()
    for content, expected in {
        "renamed": ({"params_ema": {**state, "bias": state[name]}}, "Unknown: bias."),
        "missing": ({"params_ema": {k: v for k, v in state.items() if k != name}}, f"Missing: {name}."),
        "shape": ({"params_ema": {**state, name: torch.zeros(3)}}, f"{name} (3,) instead of"),
        "wrapped": ({"state_dict": state}, "is no flat mapping"),
        "number": ({"params_ema": 3}, "is no flat mapping"),
        "list": ([state], "is no flat mapping"),
    }.values():
        torch.save(content, path)
        assert expected in message()
    torch.save({"params_ema": state}, path)
    path.write_bytes(path.read_bytes()[:-1000])
    assert "truncated" in message()
