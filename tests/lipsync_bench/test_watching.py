# SPDX-License-Identifier: Apache-2.0
"""What a training shows and how it is steered: sample clips, loggers, averages, flags, waiting for data."""

import importlib.util
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml
from PIL import Image

from lipsync_bench.callbacks import CompileNetworks, SampleClips, WaitsForData
from lipsync_bench.cli.lightning import main
from lipsync_bench.datamodules.media.video import probe
from lipsync_bench.models import load_method
from lipsync_bench.models.core.checkpoints import load_checkpoint

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*", "ignore:.*args parameter is intended.*", "ignore:.*treespec.*"
)


@pytest.fixture
def run(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Trains Wav2Lip for two steps, with a validation after each."""
    monkeypatch.chdir(tmp_path)
    model = {"width": 0.125, "recipe": {"crop": "mesh"}, "sync_weight": 0.0}
    data = {"root": str(corpus / "clips"), "batch_size": 2, "num_workers": 0, "epoch_length": 4, "val_length": 2}
    once = {"max_steps": 2, "max_epochs": -1, "val_check_interval": 1, "num_sanity_val_steps": 0}
    once |= {"log_every_n_steps": 1, "accelerator": "cpu", "enable_progress_bar": False}
    node = {
        "model": {"class_path": "lipsync_bench.models.Wav2Lip", "init_args": model},
        "data": {"class_path": "lipsync_bench.datamodules.Synthetic", "init_args": data},
        "trainer": once,
    }
    Path("small.yaml").write_text(yaml.safe_dump(node))

    def fit(name: str, *words: str) -> Path:
        main(["fit", "-c", "small.yaml", "--run", name, *words])
        return Path("runs") / name

    return fit


def weights(folder: Path, key: str = "state_dict") -> dict[str, torch.Tensor]:
    return dict(load_checkpoint(folder / "last.ckpt")[key])


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(value, two[name]) for name, value in one.items())


def test_every_validation_shows_the_same_clips_and_changes_nothing(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    shown, plain = run("shown", "--sample_clips", "2"), run("plain", "--sample_clips", "0")
    assert sorted(path.name for path in (shown / "samples").iterdir()) == [
        f"{step:09d}{suffix}" for step in (1, 2) for suffix in (".mp4", ".png")
    ]
    assert not (plain / "samples").exists()
    one, two = (np.asarray(Image.open(shown / "samples" / f"{step:09d}.png")) for step in (1, 2))
    assert one.shape == (2 * 280, 3 * 256, 3)
    assert np.array_equal(one[:, :256], two[:, :256])  # the same clips
    assert np.array_equal(one[:, 512:], two[:, 512:])
    assert not np.array_equal(one[:, 256:512], two[:, 256:512])  # another network
    assert probe(shown / "samples" / "000000002.mp4").frames == 2 * 16
    assert "sample clips" not in caplog.text
    assert same(weights(plain), weights(shown))


def test_a_clip_of_which_nothing_can_be_made_is_named_once_and_the_training_goes_on(
    run: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = SampleClips._columns

    def broken(self: SampleClips, module: Any, clip: Any, *rest: Any) -> Any:
        if clip.path.parent.name == "s01":
            raise RuntimeError("no face")
        return whole(self, module, clip, *rest)

    monkeypatch.setattr(SampleClips, "_columns", broken)
    folder = run("one", "--sample_clips", "4")  # of two that there are
    assert caplog.text.count("1 of 2 could not be made: s01/00002 (RuntimeError: no face)") == 1
    assert np.asarray(Image.open(folder / "samples" / "000000002.png")).shape[0] == 280
    caplog.clear()
    run("none", "--data.init_args.source", "nowhere")
    assert caplog.text.count("no source videos in nowhere") == 1
    assert not Path("runs/none/samples").exists()
    assert Path("runs/none/last.ckpt").is_file()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(pl.callbacks, "EMAWeightAveraging"), reason="Lightning before 2.6 has no averages")
def test_ema_is_one_flag_and_a_finished_run_is_trained_further_exactly(run: Any) -> None:
    whole = run("whole", "--ema", "0.5", "--trainer.max_steps", "3", "--sample_clips", "0")
    run("part", "--ema", "0.5", "--trainer.limit_val_batches", "0", "--sample_clips", "0")  # its end writes last.ckpt
    average, trained = (weights(Path("runs/part"), key) for key in ("state_dict", "current_model_state"))
    assert any(not torch.equal(average[name], trained[name]) for name in average)
    generator = load_method(Path("runs/part/last.ckpt"), "cpu").generator
    assert all(torch.equal(x, average[f"generator.{name}"]) for name, x in generator.state_dict().items())
    part = run("part", "--ema", "0.5", "--trainer.max_steps", "3", "--trainer.limit_val_batches", "0", "--resume")
    for key in ("state_dict", "current_model_state"):
        assert same(weights(whole, key), weights(part, key))
    with pytest.raises(SystemExit):
        run("wrong", "--ema", "1.5")


def test_networks_are_compiled_and_checkpoints_keep_their_names(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    translated = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: translated.append(type(self).__name__))
    folder = run("fast", "--compile", "--channels_last", "--sample_clips", "0")
    assert translated == ["Wav2LipGenerator"]
    assert not [name for name in weights(folder) if "_orig_mod" in name]
    assert weights(folder)["generator.face_decoder_blocks.1.0.conv_block.0.weight"].is_contiguous(
        memory_format=torch.channels_last
    )
    assert CompileNetworks().state_dict() == {}


def test_tensorboard_gets_scalars_pictures_and_videos(run: Any) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed (pip install 'lipsync_bench[tensorboard]')")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = run("small", "-c", "loggers/tensorboard", "--sample_clips", "1")
    (file,) = folder.rglob("*tfevents*")
    events = EventAccumulator(str(file))
    events.Reload()
    assert {"train/l1", "val/l1"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Images("samples/video")] == [1, 2]
    assert events.Images("samples/video")[0].encoded_image_string.startswith(b"GIF89a")
    assert events.Images("samples")[1].height == 280
    assert list(folder.rglob("metrics.csv"))


def test_mlflow_gets_scalars_pictures_and_videos(run: Any) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed (pip install 'lipsync_bench[mlflow]')")
    folder = run("small", "-c", "loggers/mlflow", "--sample_clips", "1")
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'lipsync_bench'")
    (logged,) = client.search_runs([experiment.experiment_id])
    assert logged.info.run_name == folder.name
    assert {"train/l1", "val/l1"} <= set(logged.data.metrics)
    names = sorted(path.name for path in (folder / "mlruns").rglob("samples/*"))
    assert names == ["000000001.mp4", "000000001.png", "000000002.mp4", "000000002.png"]


def test_a_logger_whose_package_is_missing_is_one_line(
    run: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None)
    for logger in ("tensorboard", "wandb", "mlflow"):
        caplog.clear()
        with pytest.raises(SystemExit):
            run("small", "-c", f"loggers/{logger}")
        (error,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert "\n" not in error
        assert f"pip install 'lipsync_bench[{logger}]'" in error
    assert not Path("runs").exists()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("wait", "warnings"), [(0.5, 1), (0.2, 0)])
def test_a_starved_step_is_told_once(wait: float, warnings: int, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    watch = WaitsForData(share=0.3, batches=5, clock=clock)
    trainer: Any = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    module: Any = pl.LightningModule()
    caplog.set_level(logging.WARNING)
    for step in range(30):
        if step % 10 == 9:  # not counted
            watch.on_validation_start(trainer, module)
            clock.now += 100
        clock.now += wait
        watch.on_train_batch_start(trainer, module)
        clock.now += 1 - wait
        watch.on_train_batch_end(trainer, module)
    assert caplog.text.count("spends 50% of its time waiting for data") == warnings
