# SPDX-License-Identifier: Apache-2.0
"""Lightning's averages of weights run with everything that is trained: fit, checkpoint, resume."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from lipsync_bench.models import VideoReTalkingLNet
from lipsync_bench.models.core.checkpoints import load_checkpoint, load_module, save_module
from tests.models.training import MODULES, ExampleData, SaveAfter, fit, without_perceptual

pytestmark = [
    pytest.mark.skipif(not hasattr(pl.callbacks, "EMAWeightAveraging"), reason="Lightning before 2.6 has no averages"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
]


def averaging(kind: str, **settings: Any) -> pl.Callback:
    return getattr(pl.callbacks, kind)(**settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [*((name, "EMAWeightAveraging") for name in sorted(MODULES)), ("wav2lip", "WeightAveraging")],
)
def test_a_resumed_average_ends_like_an_unbroken_one(name: str, kind: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    arguments = without_perceptual(MODULES[name], MODULES[name].smoke_arguments(tmp_path))
    settings = {"decay": 0.5} if kind == "EMAWeightAveraging" else {}
    whole, part = (MODULES[name](**arguments) for _ in range(2))
    last = {}

    class Last(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
            last.update({name: value.clone() for name, value in pl_module.state_dict().items()})

    average, save, ckpt = averaging(kind, **settings), SaveAfter(tmp_path / "mid.ckpt", 2), tmp_path / "mid.ckpt"
    fit(whole, tmp_path, average, save, Last(), data=ExampleData(whole, 2, 6, 2), max_epochs=1)
    fit(part, tmp_path, averaging(kind, **settings), ckpt=ckpt, data=ExampleData(part, 2, 6, 2), max_epochs=1)
    assert any(not torch.equal(value, last[key]) for key, value in whole.state_dict().items())  # it is the average
    for key, value in whole.state_dict().items():
        assert torch.equal(part.state_dict()[key], value), key
    copied = average._average_model.module  # type: ignore[attr-defined]
    kept = {key for key, frozen in whole.frozen_parts().items() if frozen.make_without_weights is not None}
    assert set(copied._frozen) <= kept
    checkpoint = load_checkpoint(ckpt)
    assert set(whole.checkpoint_state()) == set(checkpoint["state_dict"])
    assert set(whole.state_dict()) == set(checkpoint["current_model_state"])
    loaded = load_module(ckpt, [MODULES[name]])
    assert all(torch.equal(value, checkpoint["state_dict"][key]) for key, value in loaded.state_dict().items())


def test_an_average_that_begins_later_holds_what_the_training_started_from(tmp_path: Path) -> None:
    arguments = VideoReTalkingLNet.smoke_arguments(tmp_path) | {"perceptual_weight": 0.0, "sync_weight": 0.0}
    torch.manual_seed(2)
    source = VideoReTalkingLNet(**arguments)
    save_module(source, tmp_path / "source.ckpt")
    module = VideoReTalkingLNet(**arguments, init_from=str(tmp_path / "source.ckpt"))
    fit(module, tmp_path, averaging("EMAWeightAveraging", update_starting_at_step=100), max_epochs=1)
    for key, value in source.generator.named_parameters():
        assert torch.equal(dict(module.generator.named_parameters())[key], value), key
