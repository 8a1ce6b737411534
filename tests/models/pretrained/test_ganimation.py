# SPDX-License-Identifier: Apache-2.0
"""GANimation: the published size, tensors by their order, and faces that its mask and colours change."""

from pathlib import Path

import pytest
import torch

from lipsync_bench.models.pretrained.ganimation import (
    EMOTIONS,
    UNITS,
    GANimation,
    emotional_faces,
    load_ganimation,
)
from lipsync_bench.weights import import_official
from tests import golden


def test_size_is_that_of_the_published_file() -> None:
    with torch.device("meta"):
        count = sum(value.numel() for value in GANimation().parameters())
    assert round(4 * count / 1e6, 1) == 33.9  # megabytes


def test_tensors_are_taken_in_their_order(tmp_path: Path) -> None:
    network = GANimation()
    state = golden.filled({name: list(value.shape) for name, value in network.state_dict().items()})
    file = tmp_path / "30_net_gen.pth"
    torch.save({f"model.{number}": value for number, value in enumerate(state.values())}, file)
    for loaded in (load_ganimation(file), import_official("ganimation", file)):
        assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    torch.save({f"model.{number}": value for number, value in enumerate([*state.values()][::-1])}, file)
    with pytest.raises(ValueError, match=r"does not fit\. Missing: trunk\.0\.weight.*bench weights fetch ganimation"):
        load_ganimation(file)
    with pytest.raises(ValueError, match=r"is not a ganimation\. Missing"):
        import_official("ganimation", file)


def test_where_the_mask_is_one_a_face_stays() -> None:
    network = GANimation(width=0.125).eval()
    faces = torch.rand(2, 3, 96, 96)
    shown: list[torch.Tensor] = []
    hook = network.trunk[0].register_forward_pre_hook(lambda _, given: shown.append(given[0]))

    def with_mask(value: float) -> torch.Tensor:
        # the mean of instance-normed, rectified features is above 0, whatever the input is
        torch.nn.init.constant_(network.mask.weight, value)
        return emotional_faces(network, faces, "angry")

    small = torch.nn.functional.interpolate(faces, (128, 128), mode="bilinear", align_corners=False)
    back = torch.nn.functional.interpolate(small, (96, 96), mode="bilinear", align_corners=False)
    torch.testing.assert_close(with_mask(1e3), back)
    torch.nn.init.zeros_(network.colour.weight)
    torch.testing.assert_close(with_mask(-1e3), torch.full_like(back, 0.5))
    hook.remove()
    assert shown[0].shape == (2, 3 + len(UNITS), 128, 128)
    torch.testing.assert_close(shown[0][:, :3], small * 2 - 1)
    planes = shown[0][0, 3:].mean(dim=(1, 2))
    assert {UNITS[number]: round(float(value), 6) for number, value in enumerate(planes) if value} == EMOTIONS["angry"]
