# SPDX-License-Identifier: Apache-2.0
"""The trainings of D-Net and E-Net: phases, losses, degradation, and what they begin with.

Keys of videoretalking_pipeline.golden.npz: `gram1`, the Gram matrix of a map as PIRenderer computes it; `style_l1`, its
mean absolute difference to that of another map.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipsync_bench.models.core.checkpoints import load_module, save_module
from lipsync_bench.models.parts.patch_discriminator import PatchDiscriminator
from lipsync_bench.models.parts.perceptual import gram_matrix
from lipsync_bench.models.pretrained.arcface import SIZE, ArcFace, IdentityLoss
from lipsync_bench.models.videoretalking import VideoReTalkingDNet, VideoReTalkingENet, VideoReTalkingLNet
from lipsync_bench.models.videoretalking.enet.degradation import through_jpeg
from tests import golden
from tests.models.training import loader, trainer_for

PLAIN: dict[str, Any] = {"perceptual_weight": 0.0, "sync_weight": 0.0, "sync_expert": None}

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*")


def test_gram_matrices_are_pirenderers() -> None:
    stored = {key: torch.from_numpy(golden.arrays("videoretalking_pipeline")[key]) for key in ("gram1", "style_l1")}
    maps = [torch.from_numpy(golden.uniform(f"vrt/pipe/loss_f{k}", (2, 8, 5, 7), -1, 1)) for k in (1, 2)]
    torch.testing.assert_close(gram_matrix(maps[0]), stored["gram1"])
    torch.testing.assert_close(F.l1_loss(*map(gram_matrix, maps)), stored["style_l1"])


# D-Net


def test_published_weights_of_d_net(tmp_path: Path) -> None:
    with torch.device("meta"):
        module = VideoReTalkingDNet()
    assert module.weights == {"warp": 2.5, "perceptual": 4.0, "gram": 1000.0, "l1": 0.0, "l1_warp": 0.0}
    assert (module.lr, module.betas, module.warp_steps) == (1e-4, (0.5, 0.999), 200_000)
    assert module.recipe.text().startswith("ffhq_rectangle 256x256")


def test_d_net_learns_to_warp_first(tmp_path: Path) -> None:
    torch.manual_seed(0)
    arguments = VideoReTalkingDNet.smoke_arguments(tmp_path) | {"perceptual_weight": 0.0, "gram_weight": 0.0}
    module = VideoReTalkingDNet(**arguments | {"warp_steps": 2})
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    trainer = trainer_for(tmp_path, max_steps=2)
    trainer.fit(module, loader(*[module.example_batch(1)] * 2))
    assert {name.partition("/")[2] for name in trainer.callback_metrics} == {"l1_warp", "loss"}
    changed = {name.split(".")[1] for name, value in module.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {"mapping_net", "warpping_net"}
    trainer.save_checkpoint(tmp_path / "dnet.ckpt")
    module = load_module(tmp_path / "dnet.ckpt", [VideoReTalkingDNet]).train()
    module.warp_steps = 0
    trainer = trainer_for(tmp_path, max_steps=1)
    trainer.fit(module, loader(module.example_batch(1)))
    assert {name.partition("/")[2] for name in trainer.callback_metrics} == {"l1_warp", "l1", "loss"}


def test_d_net_starts_from_another_checkpoint(tmp_path: Path) -> None:
    arguments = VideoReTalkingDNet.smoke_arguments(tmp_path)
    first = VideoReTalkingDNet(**arguments)
    save_module(first, tmp_path / "first.ckpt")
    module = VideoReTalkingDNet(**arguments, lr=0.0, init_from=str(tmp_path / "first.ckpt"))
    trainer_for(tmp_path).fit(module, loader(module.example_batch(1)))
    own = dict(module.network.named_parameters())
    assert all(torch.equal(own[name], value) for name, value in first.network.named_parameters())


def test_each_pair_is_used_in_both_directions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = VideoReTalkingDNet(**VideoReTalkingDNet.smoke_arguments(tmp_path) | {"perceptual_weight": 0.0})
    module.vgg_loss = None
    batch = module.example_batch(1)
    seen: list[Tensor] = []

    def network(image: Tensor, coeff: Tensor, stage: str | None) -> dict[str, Tensor]:
        seen.extend([image, coeff])
        return {"warp_image": image.flip(0), "fake_image": image}

    monkeypatch.setattr(module, "network", nn.Module())
    monkeypatch.setattr(module.network, "forward", network)
    monkeypatch.setattr(type(module), "vgg_loss", None)
    terms = module.loss_terms(batch, "train").loss
    assert float(terms["l1_warp"]) == pytest.approx(0, abs=1e-6)  # each the other's target
    torch.testing.assert_close(terms["l1"], (batch["source"] - batch["target"]).abs().mean())
    assert torch.equal(seen[1], torch.cat([batch["target_coefficients"], batch["source_coefficients"]]))


# E-Net


def small(tmp_path: Path, **changes: Any) -> VideoReTalkingENet:
    torch.manual_seed(0)
    return VideoReTalkingENet(**{**VideoReTalkingENet.smoke_arguments(tmp_path), **PLAIN, **changes})


def test_published_weights_of_e_net(tmp_path: Path) -> None:
    with torch.device("meta"):
        usual, paper = VideoReTalkingENet(), VideoReTalkingENet(variant="paper")
    shared = {"l1": 0.2, "perceptual": 1.0, "identity": 0.4}
    assert usual.weights == {**shared, "adversarial": 1.0, "sync": 0.3}
    assert paper.weights == {**shared, "adversarial": 100.0, "sync": 0.0}
    assert (usual.lr, usual.betas, usual.image_size) == (1e-5, (0.9, 0.99), 384)
    with pytest.raises(ValueError, match=r"variant is 'x'\. Expected suite or paper"):
        small(tmp_path, variant="x")


def test_e_net_begins_with_a_trained_l_net_and_leaves_it(tmp_path: Path) -> None:
    module = small(tmp_path)
    lnet = load_module(Path(module.hparams["lnet"]), [VideoReTalkingLNet]).generator.state_dict()
    trainer_for(tmp_path).fit(module, loader(module.example_batch(1)))
    own = module.generator.low_res.state_dict()
    assert all(torch.equal(value, lnet[name]) for name, value in own.items())
    assert not module.identity_loss
    with pytest.raises(ValueError, match=r"an L-Net of .*Expected .*'width': 0\.25.*lnet_width"):
        trainer_for(tmp_path).fit(small(tmp_path, lnet_width=0.25), loader(module.example_batch(1)))
    with pytest.raises(ValueError, match=r"'image_size': 16}\. Expected .*'image_size': 32}.* 4 times L-Net's"):
        trainer_for(tmp_path).fit(small(tmp_path, image_size=128), loader(module.example_batch(1)))
    with pytest.raises(ValueError, match=r"lnet is None.*lightning fit -c experiments/videoretalking_lnet"):
        trainer_for(tmp_path).fit(small(tmp_path, lnet=None), loader(module.example_batch(1)))


def test_jpeg_makes_images_poorer_the_lower_its_quality() -> None:
    image = F.interpolate(torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(1)), 96, mode="bicubic")
    images = image.clamp(0, 1).expand(3, -1, -1, -1).requires_grad_()
    out = through_jpeg(images, [10, 50, 95])
    assert not out.requires_grad
    errors = (out - images).abs().mean(dim=(1, 2, 3))
    assert errors[0] > errors[1] > errors[2] > 0
    assert errors[2] < 0.05


def test_the_discriminator_sees_70_pixels() -> None:
    network = PatchDiscriminator(0.125)
    assert network(torch.zeros(1, 3, 384, 384)).shape == (1, 1, 46, 46)
    assert not any(isinstance(network.model[index], nn.InstanceNorm2d) for index in (1, -2))
    for layer in network.modules():
        if isinstance(layer, nn.InstanceNorm2d):
            layer.forward = nn.Identity().forward  # type: ignore[method-assign]
    image = torch.zeros(1, 3, 128, 128, requires_grad=True)
    network(image)[0, 0, 7, 7].backward()
    assert image.grad is not None
    rows = image.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
    assert int(rows.max() - rows.min()) + 1 == 70


def test_identity_is_a_distance_of_features(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):
        network = ArcFace()
        assert network(torch.zeros(2, 3, SIZE, SIZE)).shape == (2, 512)
    assert round(sum(value.numel() for value in network.parameters()) / 1e6, 2) == 43.59
    monkeypatch.setattr(ArcFace, "__init__", lambda self: nn.Module.__init__(self))
    monkeypatch.setattr(ArcFace, "forward", lambda self, faces: F.normalize(faces.mean(dim=(2, 3)) + 2))
    loss = IdentityLoss("random")
    red, blue = torch.zeros(2, 3, 64, 64), torch.zeros(2, 3, 64, 64)
    red[:, 0, 10:50, 10:50], blue[:, 2, 10:50, 10:50] = 1, 1
    assert float(loss(red, red)) == 0
    assert 0 < float(loss(red, blue)) < 2
