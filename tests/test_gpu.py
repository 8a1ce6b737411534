# SPDX-License-Identifier: Apache-2.0
"""Every method on a GPU: trained for a batch, in bfloat16 too, generating, evaluated; all close to the CPU.

Without a CUDA device they are skipped; LIPSYNC_TEST_DEVICE=cpu runs them all the same, to see that they work.

What is close: float32 sums are ordered otherwise on another device, which costs some units of 6e-8 in each of at most a
hundred layers, 1e-4 at the very most of values around 1; TF32 is switched off. A bfloat16 number has 8 bits, so that
each layer rounds by up to 2e-3, in either direction: 2 % after a hundred of them. Batch norms would enlarge it without
limit where the windows of a batch are all alike, as random ones are; so they differ in brightness and loudness here. Of
two codes that are as likely the other one may be taken, which changes all its pixels.
"""

import csv
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from lipsync_bench import bench, models
from lipsync_bench.models import list_methods, load_method
from lipsync_bench.models.core.checkpoints import BenchModule, save_module
from lipsync_bench.models.wav2lip.sync_expert import SyncExpertModule
from tests.models.training import loader, trainer_for

DEVICE = os.environ.get("LIPSYNC_TEST_DEVICE", "cuda")
WINDOWS = 4
METHODS = list_methods()
RUNS = sorted((Path(__file__).parents[1] / "experiments").glob("*.yaml"))
TRAINED = {getattr(models, yaml.safe_load(p.read_text())["model"]["class_path"].rpartition(".")[2]) for p in RUNS}
TRAINED |= set(METHODS.values())

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="no CUDA device"),
]
every_run = pytest.mark.parametrize("kind", sorted(TRAINED, key=lambda kind: kind.__name__))
every_method = pytest.mark.parametrize("kind", METHODS.values(), ids=METHODS)


@pytest.fixture(autouse=True)
def float32_as_it_is() -> Iterator[None]:
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


def fitted(
    kind: type[BenchModule], folder: Path, device: str, precision: str = "32-true"
) -> tuple[BenchModule, dict[str, float]]:
    """A small module after one batch, and the terms of that batch's loss."""
    torch.manual_seed(0)
    module = kind(**kind.smoke_arguments(folder))
    accelerator = "gpu" if device == "cuda" else device
    trainer = trainer_for(folder, accelerator=accelerator, devices=1, precision=precision)
    scale = torch.linspace(0.2, 1, WINDOWS)
    batch = {
        name: value * scale.reshape(-1, *[1] * (value.ndim - 1)) if value.ndim >= 4 else value
        for name, value in module.example_batch(batch_size=WINDOWS).items()
    }
    trainer.fit(module, loader(batch), loader(batch))
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert all(value == value and abs(value) < 1e6 for value in logged.values()), logged
    assert any(name.startswith("val/") for name in logged)
    return module, {name: value for name, value in logged.items() if name.startswith("train/")}


@every_run
def test_a_batch_of_training_has_the_losses_of_the_cpu(kind: type[BenchModule], tmp_path: Path) -> None:
    _, expected = fitted(kind, tmp_path / "cpu", "cpu")
    module, found = fitted(kind, tmp_path / "device", DEVICE)
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert all(parameter.isfinite().all() for parameter in module.parameters())


@every_run
def test_a_batch_of_training_in_bfloat16_is_near(kind: type[BenchModule], tmp_path: Path) -> None:
    _, expected = fitted(kind, tmp_path / "cpu", "cpu")
    module, found = fitted(kind, tmp_path / "device", DEVICE, "bf16-mixed")
    assert found == pytest.approx(expected, rel=0.1, abs=0.02)
    assert all(parameter.dtype == torch.float32 for parameter in module.parameters())
    assert all(parameter.isfinite().all() for parameter in module.parameters())


@every_method
def test_generated_frames_are_those_of_the_cpu(kind: type[BenchModule], tmp_path: Path) -> None:
    trained, _ = fitted(kind, tmp_path, "cpu")
    save_module(trained, tmp_path / "small.ckpt")
    frames = []
    for device in ("cpu", DEVICE):
        module = load_method(tmp_path / "small.ckpt", device)
        batch = {name: value.to(device) for name, value in module.example_batch(1, seed=3).items()}
        made = module.generate(module.batch_inputs(batch)).frames
        assert made.device.type == device
        frames.append(made.cpu())
    torch.testing.assert_close(frames[1], frames[0], rtol=0, atol=1e-3)  # a quarter of a grey level


@every_method
def test_frames_generated_in_bfloat16_are_near(kind: type[BenchModule], tmp_path: Path) -> None:
    trained, _ = fitted(kind, tmp_path, "cpu")
    frames = []
    for device, precision in (("cpu", "32-true"), (DEVICE, "bf16-mixed")):
        accelerator = "gpu" if device == "cuda" else device
        trainer = trainer_for(tmp_path, accelerator=accelerator, devices=1, precision=precision)
        (made,) = trainer.predict(trained, loader(trained.example_batch(seed=3)))
        frames.append(made.float().cpu())
    assert float((frames[1] - frames[0]).abs().mean()) < 0.05


@pytest.mark.slow
def test_an_evaluation_has_the_rows_of_the_cpu(corpus: Path, tmp_path: Path) -> None:
    """All methods and an expert, on one clip."""
    torch.manual_seed(0)
    save_module(SyncExpertModule(width=0.125), tmp_path / "expert.ckpt")
    arguments = ["--expert", str(tmp_path / "expert.ckpt")]
    for name, kind in METHODS.items():
        trained, _ = fitted(kind, tmp_path / name, "cpu")
        save_module(trained, tmp_path / f"{name}.ckpt")
        arguments += [f"--methods.{name}", str(tmp_path / f"{name}.ckpt")]
    rows = []
    for device in ("cpu", DEVICE):
        out = tmp_path / f"results_{len(rows)}"
        where = ["--dataset", "synthetic", "--root", str(corpus / "clips"), "--out", str(out), "--limit", "1"]
        with pytest.raises(SystemExit) as ended:
            bench.main(["evaluate", *where, "--device", device, *arguments])
        assert not ended.value.code
        with (out / "clips.csv").open(newline="", encoding="utf-8") as file:
            rows.append({row["method"]: row for row in csv.DictReader(file)})
    assert set(rows[1]) == {"ground_truth", "repeated_frame", *METHODS}
    for name, row in rows[1].items():
        assert row["status"] == "ok", f"{name}: {row['reason']}"
        for column, close in (("psnr", 0.02), ("ssim", 0.002), ("lmd", 0.2), ("expert_confidence", 0.002)):
            assert float(row[column] or "nan") == pytest.approx(
                float(rows[0][name][column] or "nan"), abs=close, nan_ok=True
            ), f"{name}: {column}"
