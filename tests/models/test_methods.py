# SPDX-License-Identifier: Apache-2.0
"""What every method must hold, run on each of `list_methods()`: a new method is tested without a change here."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from lipsync_bench.models import TalkingFaceModule, list_methods, load_method
from lipsync_bench.models.core.checkpoints import RECORD
from lipsync_bench.models.core.inputs import FaceInputs
from tests.models.training import Gradients, trainer_for

METHODS = list_methods()
FIRST_EDITION = ("wav2lip", "hyperlips_base", "hyperlips_hr", "lipformer", "videoretalking_lnet")
PLAIN = (bool, int, float, str, type(None))

pytestmark = pytest.mark.parametrize("name", sorted(METHODS))


def small(name: str, folder: Path) -> TalkingFaceModule:
    torch.manual_seed(0)
    return METHODS[name](**METHODS[name].smoke_arguments(folder))


def logged_names() -> set[str]:
    """Those that docs/training.md explains."""
    table = (Path(__file__).parents[2] / "docs" / "training.md").read_text().partition("## Logged names")[2]
    rows = re.findall(r"^\| (`.*?) \|", table.partition("\n## ")[0], re.MULTILINE)
    return set(re.findall(r"`(\w+)`", " ".join(rows)))


def inputs(module: TalkingFaceModule, frames: int = 3) -> FaceInputs:
    return next(module.batch_inputs(module.example_batch(1, seed=5)).split(frames))


def test_is_listed_documented_and_has_plain_arguments(name: str, tmp_path: Path) -> None:
    assert {"wav2lip"} <= set(METHODS)
    assert name == name.lower()
    assert "http" in (METHODS[name].__doc__ or "")
    assert "Args:" in (METHODS[name].__doc__ or "")
    for argument, value in small(name, tmp_path).hparams.items():
        values = value if isinstance(value, list | tuple) else [value]
        assert all(isinstance(item, PLAIN) for item in values), f"{argument} is {value!r}"


def test_a_checkpoint_without_a_recipe_is_fed_as_the_first_edition_fed_it(name: str, tmp_path: Path) -> None:
    if name not in FIRST_EDITION:
        pytest.skip(f"the first edition had no {name}")
    module = small(name, tmp_path)
    module.on_load_checkpoint({RECORD: {}, "state_dict": {}})
    assert module.recipe is not None
    assert re.match(r"mesh \d+x\d+ / first / reflect / (box|parser)", module.recipe.text())


def test_one_batch_fit_gives_every_parameter_a_gradient(name: str, tmp_path: Path) -> None:
    module = small(name, tmp_path)
    batches = DataLoader([module.example_batch()], batch_size=None)  # type: ignore[arg-type, var-annotated]
    gradients = Gradients()
    before: dict[str, torch.Tensor] = {}

    class Before(pl.Callback):  # what a training begins with may come from files
        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            before.update({key: value.detach().clone() for key, value in pl_module.named_parameters()})

    trainer = trainer_for(tmp_path, callbacks=[gradients, Before()])
    trainer.fit(module, batches, batches)
    trained = {key for key, parameter in module.named_parameters() if parameter.requires_grad}
    without = {key for key in trained if key.startswith(module.parameters_without_gradient or "\0")}
    frozen = {key for key, parameter in module.named_parameters() if not parameter.requires_grad}
    assert trained
    assert gradients.names == trained - without
    assert not gradients.not_finite
    after = dict(module.named_parameters())
    assert any(not torch.equal(after[key], before[key]) for key in trained)
    assert all(torch.equal(after[key], before[key]) for key in frozen & set(before))
    logged = {key: float(value) for key, value in trainer.callback_metrics.items()}
    assert {key.partition("/")[2].removesuffix("_random_weights") for key in logged} <= logged_names() | {"loss"}
    assert any(key.startswith("train/") for key in logged)
    assert any(key.startswith("val/") for key in logged)
    assert all(torch.isfinite(torch.tensor(value)) for value in logged.values())


def test_save_and_load_give_the_same_frames(name: str, tmp_path: Path) -> None:
    files = tmp_path / "files"
    module = small(name, files)
    trainer = trainer_for(tmp_path)
    trainer.fit(module, DataLoader([module.example_batch()], batch_size=None))  # type: ignore[arg-type]
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    checkpoint = torch.load(tmp_path / "run.ckpt", weights_only=True)
    assert not any(key.startswith("sync_expert.") for key in checkpoint["state_dict"])
    for path in files.glob("sync_expert*"):
        path.unlink()  # generating needs no expert
    loaded = load_method(tmp_path / "run.ckpt")
    assert type(loaded) is METHODS[name]
    assert not loaded.training
    assert torch.equal(
        loaded.generate(inputs(loaded)).frames,
        module.eval().generate(inputs(module)).frames,
    )


def test_generated_frames_are_images_in_range(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = small(name, tmp_path).eval()
    given = inputs(module)
    frames = module.generate(given).frames
    assert frames.dtype == torch.float32
    assert frames.ndim == 4
    assert frames.shape[:2] == (3, 3)
    assert not frames.requires_grad
    assert torch.isfinite(frames).all()
    assert frames.min() >= 0
    assert frames.max() <= 1
    monkeypatch.setattr(METHODS[name], "generate_batch", 2)
    torch.testing.assert_close(module.generate(given).frames, frames, atol=1e-5, rtol=1e-5)


def test_generation_hears_the_audio_and_does_not_see_the_mouth(name: str, tmp_path: Path) -> None:
    module = small(name, tmp_path).eval()
    given = inputs(module)
    frames = module.generate(given).frames
    hidden = module.hide_mouth(torch.ones_like(given.faces)) == 0
    assert 0.3 < hidden.float().mean() < 0.7
    other_mouth = torch.where(hidden, 1 - given.faces, given.faces)
    assert torch.equal(module.generate(replace(given, faces=other_mouth)).frames, frames)
    assert not torch.equal(module.generate(replace(given, frame_mels=-given.frame_mels)).frames, frames)
    assert not torch.equal(module.generate(replace(given, references=1 - given.references)).frames, frames)


def test_predict_step_generates_whole_windows(name: str, tmp_path: Path) -> None:
    module = small(name, tmp_path).eval()
    batch = module.example_batch()
    windows = module.predict_step(batch, 0)
    assert windows.shape[:3] == (2, 5, 3)
    first = module.generate(next(module.batch_inputs(batch).split(5))).frames
    torch.testing.assert_close(windows[0], first, atol=1e-5, rtol=1e-5)
