# SPDX-License-Identifier: Apache-2.0
"""Kinds of batches: the model names its own, the argument `window` another, and one from outside needs nothing else."""

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from lipsync_bench.cli.lightning import BenchCLI
from lipsync_bench.datamodules import ClipFolder
from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.windows.dataset import Drawn, WindowDataset
from lipsync_bench.datamodules.windows.expert import ExpertWindows
from lipsync_bench.datamodules.windows.generator import GeneratorWindows, PunctualWindows
from tests.datamodules.prepared_folders import write_folder

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*", "ignore:.*number of training batches.*", "ignore:.*val_dataloader.*"
)
QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
KEYS = {
    GeneratorWindows: {"target", "reference", "mel", "frame_mels"},
    PunctualWindows: {"target", "reference", "mel", "frame_mels"},
    ExpertWindows: {"faces", "mel", "label"},
}


class Noted(WindowDataset[dict[str, torch.Tensor]]):
    """A single face with a number that somebody wrote beside the clip; where it says "none" there is no window."""

    name = "noted"
    unready = "have no number"

    @staticmethod
    def note(clip: Path) -> str:
        return clip.with_suffix(".note").read_text()

    @classmethod
    def separate(cls, clips: Sequence[Path]) -> tuple[list[Path], list[Path]]:
        missing = [clip for clip in clips if not clip.with_suffix(".note").is_file()]
        if missing:
            raise FileNotFoundError(f"{len(missing)} of {len(clips)} clips have no note. Run: note them")
        return super().separate(clips)

    @classmethod
    def starts(cls, clip: Clip) -> Sequence[int]:
        return range(0 if cls.note(clip.path) == "none" else len(clip))

    def draw(self, clip: Clip, rng: np.random.Generator) -> Drawn:
        start = int(rng.integers(len(self.starts(clip))))
        number = torch.tensor(float(self.note(clip.path)))
        return Drawn({"face": range(start, start + 1)}, {"number": number})

    def made_by(self) -> set[str]:
        return {f"{len(self.clips)} notes"}

    @classmethod
    def example_batch(cls, batch_size: int, size_hw: tuple[int, int], seed: int) -> dict[str, torch.Tensor]:
        return {"face": torch.zeros(batch_size, 1, 3, *size_hw), "number": torch.zeros(batch_size)}


class Plain(pl.LightningModule):
    """Notes the keys of what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.batches: list[dict[str, torch.Tensor]] = []

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        self.batches.append(batch)
        return self.weight * 1

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


class Expert(Plain):
    window = ExpertWindows


class Reader(Plain):
    window = Noted


class Foreign(Plain):
    """Of another project, where a window is another thing."""

    window: ClassVar[int] = 400


def data(root: Path, **arguments: Any) -> ClipFolder:
    write_folder(root, [f"a/{k}" for k in range(4)])
    return ClipFolder(root, overfit=True, **{"batch_size": 2, "image_size": 32, "num_workers": 0, **arguments})


def seen(module: Plain, clips: ClipFolder) -> set[str]:
    pl.Trainer(**QUIET, accelerator="cpu", max_epochs=1, limit_val_batches=0).fit(module, datamodule=clips)
    return set(module.batches[-1])


@pytest.mark.parametrize(
    ("module", "kind"), [(Plain, GeneratorWindows), (Expert, ExpertWindows), (Foreign, GeneratorWindows)]
)
def test_the_model_names_the_kind(module: type[Plain], kind: type[WindowDataset], tmp_path: Path) -> None:
    assert seen(module(), data(tmp_path)) == KEYS[kind]


def test_one_data_module_serves_models_of_two_kinds(tmp_path: Path) -> None:
    clips = data(tmp_path)
    for module, kind in ((Plain, GeneratorWindows), (Expert, ExpertWindows), (Plain, GeneratorWindows)):
        assert seen(module(), clips) == KEYS[kind]


def test_the_argument_names_the_kind_where_the_model_does_not(tmp_path: Path) -> None:
    for kind in KEYS:
        for window in (kind, kind.name):
            clips = data(tmp_path, window=window)
            assert seen(Plain(), clips) == KEYS[kind]
            assert set(next(iter(clips.train_dataloader()))) == KEYS[kind]
    assert seen(Expert(), data(tmp_path, window="expert")) == KEYS[ExpertWindows]
    generator = Plain()
    generator.window = GeneratorWindows  # type: ignore[assignment]
    clips = data(tmp_path, window="punctual")
    seen(generator, clips)
    assert {type(windows) for windows in clips._datasets.values() if windows} == {PunctualWindows}
    assert seen(Expert(), data(tmp_path, window=GeneratorWindows)) == KEYS[GeneratorWindows]


def test_names_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"^window is 'hr'\. Expected expert, generator, punctual or a class\..*window"
    ):
        data(tmp_path, window="hr").setup()
    with pytest.raises(ValueError, match=r"window is 'generator'\. Expected expert, which Expert reads\. Leave out"):
        seen(Expert(), data(tmp_path, window="generator"))


def test_a_kind_from_outside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clips = data(tmp_path)
    with pytest.raises(FileNotFoundError, match="4 of 4 clips have no note"):
        seen(Reader(), clips)
    for k, text in enumerate(("3", "none", "5", "7")):
        (tmp_path / f"a/{k}.note").write_text(text)
    module = Reader()
    assert seen(module, clips) == {"face", "number"}
    assert module.batches[0]["face"].shape == (2, 1, 3, 32, 32)
    assert module.batches[0]["face"].dtype == torch.float32
    assert {float(number) for batch in module.batches for number in batch["number"]} <= {3, 5, 7}
    assert "folder: 1 of 4 train clips have no number and are left out: a/1.safetensors" in caplog.text
    assert clips.made_by() == {"3 notes"}
    assert data(tmp_path).made_by() == set()
    names = {path.stem for path in clips.files_of_batch(0, 0)}
    assert names <= {"0", "2", "3"}


def test_a_kind_in_a_file_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that brings its kind, and a kind that a YAML names for it; both in a folder outside the package."""
    write_folder(tmp_path / "clips", [f"a/{k}" for k in range(4)])
    (tmp_path / "their_method.py").write_text(
        textwrap.dedent("""
        import torch
        from lipsync_bench.datamodules.windows.generator import GeneratorWindows
        from lipsync_bench.models import Wav2Lip

        class Darker(GeneratorWindows):
            name = "darker"

            def draw(self, clip, rng):
                window = super().draw(clip, rng)
                return window._replace(tensors={**window.tensors, "shade": torch.tensor(0.5)})

        class Fainter(Darker):
            name = "fainter"

        class Theirs(Wav2Lip):
            window = Darker

            def training_step(self, batch, batch_index):
                assert batch["shade"].tolist() == [0.5, 0.5]
                return super().training_step(batch, batch_index)
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)  # where the command leaves its config.yaml
    init = {"root": str(tmp_path / "clips"), "overfit": True, "batch_size": 2, "num_workers": 0, "val_length": 2}
    init["image_size"] = 96
    config = {
        "model": {
            "class_path": "their_method.Theirs",
            "init_args": {"width": 0.125, "sync_weight": 0.0, "recipe": {"crop": "mesh"}},
        },
        "data": {"class_path": "lipsync_bench.datamodules.ClipFolder", "init_args": init},
        "trainer": {**QUIET, "accelerator": "cpu", "max_steps": 1, "limit_val_batches": 0},
    }
    path = tmp_path / "theirs.yaml"
    path.write_text(json.dumps(config))
    for flags in ((), ("--data.init_args.window=darker",), ("--data.init_args.window=their_method.Fainter",)):
        cli = BenchCLI(["fit", "-c", str(path), *flags])
        assert cli.trainer.global_step == 1
        assert isinstance(cli.datamodule, ClipFolder)
        drawn = type(cli.datamodule.train_dataloader().dataset).__name__
        assert drawn == ("Fainter" if "Fainter" in str(flags) else "Darker")
