# SPDX-License-Identifier: Apache-2.0
"""Frozen parts of every module: what has them, what has not, when they are loaded, and what checkpoints say of them."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lipsync_bench.models import VideoReTalkingLNet, Wav2Lip
from lipsync_bench.models.core.checkpoints import RECORD, load_checkpoint, load_module, save_module
from lipsync_bench.models.core.inputs import FaceInputs
from lipsync_bench.models.core.training import BenchModule
from tests.models.training import MODULES, ExampleData, fit, loader, trainer_for, without_perceptual

SHA256_KEYS = {
    "dinet": {"sync_expert": "sync_expert_sha256"},
    "g4g": {"sync_expert": "sync_expert_sha256"},
    "hyperlips_base": {"sync_expert": "sync_expert_sha256", "lpips_loss": "lpips_vgg16"},
    "hyperlips_hr": {"base": "base_sha256", "vgg_loss": "vgg19", "lpips_loss": "lpips_vgg16"},
    "hyperlips_sync_expert": {},
    "lipformer": {"codes": "codebook_sha256", "perceptual_loss": "perceptual_sha256"},
    "lipformer_codebook": {"perceptual_loss": "perceptual_sha256"},
    "sync_expert": {},
    "videoretalking": {"sync_expert": "sync_expert_sha256", "vgg_loss": "vgg19", "dnet": "dnet_sha256"},
    "videoretalking_dnet": {"vgg_loss": "vgg19"},
    "videoretalking_enet": {
        "sync_expert": "sync_expert_sha256",
        "vgg_loss": "vgg19",
    },
    "videoretalking_lnet": {"sync_expert": "sync_expert_sha256", "vgg_loss": "vgg19"},
    "wav2lip": {"sync_expert": "sync_expert_sha256"},
}
"""The record's key for the file that each frozen part comes from."""
CARRIED = {"hyperlips_hr": "base", "lipformer": "codes", "videoretalking": "dnet"}
FILES = {"base": "base.ckpt", "codes": "codebook.ckpt", "dnet": "dnet.ckpt"}

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*no `val_dataloader`.*")


def carried(name: str) -> set[str]:
    return {CARRIED[name]} if name in CARRIED else set()


def prepared(name: str, folder: Path, **changes: Any) -> BenchModule:
    torch.manual_seed(0)
    module = MODULES[name](**{**MODULES[name].smoke_arguments(folder), **changes})
    module.setup("fit")
    return module


@pytest.mark.parametrize("name", sorted(MODULES))
def test_frozen_parts_are_beside_the_module(name: str, tmp_path: Path) -> None:
    module = prepared(name, tmp_path)
    frozen: dict[str, nn.Module] = dict(module._frozen)
    assert set(frozen) == set(SHA256_KEYS[name])
    own = {id(x) for x in (*module.parameters(), *module.buffers())}
    optimizers: Any = module.configure_optimizers()
    for optimizer in optimizers if isinstance(optimizers, list) else [optimizers]:
        assert {id(x) for group in optimizer.param_groups for x in group["params"]} <= own
    for part, network in frozen.items():
        assert getattr(module, part) is network
        assert not any(key.startswith(part) for key in module.state_dict())
        assert not own & {id(x) for x in (*network.parameters(), *network.buffers())}
        assert not any(x.requires_grad for x in network.parameters())
        kept = {"sync_expert": getattr(module, "expert_mode", "eval") == "train"}.get(part, False)
        for mode in (True, False):
            module.train(mode)
            assert {x.training for x in network.modules()} == {kept}
    module.to(torch.float64)
    for network in frozen.values():
        values = (x for x in (*network.parameters(), *network.buffers()) if x.is_floating_point())
        assert {x.dtype for x in values} == {torch.float64}
    for copied in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert set(copied._frozen) == carried(name)
        assert set(copied.state_dict()) == set(module.state_dict())
        for part in frozen:
            again = getattr(copied, part)  # the others are loaded again
            assert again is not frozen[part]
            assert next(again.parameters()).dtype == torch.float64


@pytest.mark.parametrize("name", sorted(MODULES))
def test_checkpoints_say_which_frozen_weights_and_hold_those_that_they_carry(name: str, tmp_path: Path) -> None:
    module = prepared(name, tmp_path)
    save_module(module, tmp_path / "module.ckpt")
    checkpoint = load_checkpoint(tmp_path / "module.ckpt")
    for part, key in SHA256_KEYS[name].items():
        assert checkpoint[RECORD][key] == ("random" if part.endswith("loss") else getattr(module, part).source_sha256)
        assert part.endswith("loss") or len(checkpoint[RECORD][key]) == 64
    beginnings = {key.partition(".")[0] for key in checkpoint["state_dict"]}
    assert beginnings - {"generator", "discriminator", "network"} == carried(name)
    for part in carried(name):
        own = {f"{part}.{key}": value for key, value in getattr(module, part).state_dict().items()}
        assert list(own) == [key for key in checkpoint["state_dict"] if key.startswith(f"{part}.")]
        loaded = load_module(tmp_path / "module.ckpt", [MODULES[name]])
        assert all(torch.equal(value, own[f"{part}.{key}"]) for key, value in loaded.loaded(part).state_dict().items())


def test_nothing_is_loaded_to_predict_or_where_it_is_not_wanted(tmp_path: Path) -> None:
    gone = {"sync_expert": str(tmp_path / "gone.ckpt"), "perceptual_weights": str(tmp_path)}
    module = VideoReTalkingLNet(width=0.125, blocks=1, **gone)
    module.setup("predict")
    assert not module._frozen
    images = torch.rand(2, 3, 96, 96)
    module.eval().generate(FaceInputs.of(torch.zeros(2, 1, 80, 16), images, images))
    with pytest.raises(FileNotFoundError, match=r"no sync_expert at .*gone\.ckpt\. Expected a SyncExpertModule"):
        module.setup("validate")
    free = VideoReTalkingLNet(width=0.125, blocks=1, sync_weight=0.0, perceptual_weight=0.0)
    free.setup("fit")
    assert free.sync_expert is free.vgg_loss is None


def test_a_step_outside_of_a_trainer_has_every_term(tmp_path: Path) -> None:
    module = VideoReTalkingLNet(**VideoReTalkingLNet.smoke_arguments(tmp_path))
    with torch.inference_mode():
        terms = module.loss_terms(module.example_batch(1), "val").loss
    assert list(terms) == ["l1", "perceptual", "sync"]
    module.loss_terms(module.example_batch(1), "train").loss["sync"].backward()  # loaded for good, not for inference


def test_a_network_of_ones_own_takes_the_place_of_a_part(tmp_path: Path) -> None:
    module = Wav2Lip(**Wav2Lip.smoke_arguments(tmp_path))
    module.sync_expert = other = nn.Linear(2, 2)  # type: ignore[assignment]
    assert module.sync_expert is other
    assert not other.weight.requires_grad
    assert not any(key.startswith("sync_expert") for key in module.state_dict())
    module.sync_expert = None
    assert module.sync_expert is not other


def test_synchronised_batch_norms_are_those_of_the_expert_too(tmp_path: Path) -> None:
    module = nn.SyncBatchNorm.convert_sync_batchnorm(Wav2Lip(**Wav2Lip.smoke_arguments(tmp_path)))
    trainer_for(tmp_path, limit_train_batches=0).fit(module, loader(module.example_batch()))
    kinds = {type(layer).__name__ for layer in module.sync_expert.modules()}
    assert "SyncBatchNorm" in kinds
    assert "BatchNorm2d" not in kinds


@pytest.mark.parametrize("name", sorted(CARRIED))
def test_a_training_goes_on_without_the_file_of_what_its_checkpoint_carries(name: str, tmp_path: Path) -> None:
    off = without_perceptual(MODULES[name], {"adversarial_weight": 0.0})
    module = prepared(name, tmp_path, **off)
    fit(module, tmp_path, data=ExampleData(module, 1, 1), max_epochs=1).save_checkpoint(tmp_path / "run.ckpt")
    for damage in (lambda path: path.write_bytes(b"damaged"), lambda path: path.unlink()):
        damage(tmp_path / FILES[CARRIED[name]])
        resumed: Any = MODULES[name](**module.hparams)
        trainer = fit(resumed, tmp_path, data=ExampleData(module, 1, 1), ckpt=tmp_path / "run.ckpt")
        assert trainer.global_step == 2
        own: dict[str, Tensor] = getattr(module, CARRIED[name]).state_dict()
        assert all(torch.equal(value, own[key]) for key, value in resumed.loaded(CARRIED[name]).state_dict().items())
        copied = copy.deepcopy(resumed)
        images = torch.rand(1, 3, module.image_size, module.image_size)  # type: ignore[arg-type]
        frames = (
            x.eval().generate(FaceInputs.of(torch.zeros(1, 1, 80, 16), images, images)).frames
            for x in (resumed, copied)
        )
        assert torch.equal(*frames)


@pytest.mark.parametrize("name", sorted(CARRIED))
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.fill_(float("nan")), "has values that are not finite"),
        (lambda x: x.int(), r"torch\.int32"),
        (lambda x: x[:1], "size mismatch"),
        (lambda x: None, "Missing key"),
    ],
)
def test_what_a_checkpoint_carries_is_checked_like_the_rest(
    name: str, change: Any, message: str, tmp_path: Path
) -> None:
    save_module(prepared(name, tmp_path), tmp_path / "good.ckpt")
    checkpoint = torch.load(tmp_path / "good.ckpt", weights_only=True)
    state = checkpoint["state_dict"]
    key = next(key for key in state if key.startswith(f"{CARRIED[name]}.") and "weight" in key)
    changed = change(state.pop(key))
    state |= {} if changed is None else {key: changed}
    torch.save(checkpoint, tmp_path / "bad.ckpt")
    with pytest.raises(ValueError, match=rf"bad\.ckpt: .*{message}"):
        load_module(tmp_path / "bad.ckpt", [MODULES[name]])
