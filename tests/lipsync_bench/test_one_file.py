# SPDX-License-Identifier: Apache-2.0
"""A method is one file and its YAML, a data set one file and its benchmark: everything else finds them.

Metrics have a test like these in evaluation/test_one_file_metric.py.
"""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

METHOD = '''"""Paints the reference's mouth into the face, brighter where the audio is louder."""

from pathlib import Path

import torch
from torch import nn

from lipsync_bench.datamodules.weights.official_weights import OfficialWeights
from lipsync_bench.datamodules.weights.registry import WeightFile
from lipsync_bench.models.core.module import TalkingFaceModule


class Painter(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(7, 3, 1)

    def forward(self, mels, faces, references):
        loudness = mels.mean(dim=(1, 2, 3))[:, None, None, None].expand_as(faces[:, :1])
        return torch.sigmoid(self.mix(torch.cat([loudness, faces, references], dim=1)))


class Paint(TalkingFaceModule):
    def __init__(self, image_size: int = 96, lr: float = 0.01):
        super().__init__(image_size)
        self.save_hyperparameters()
        self.generator, self.lr = Painter(), lr

    def training_step(self, batch, batch_index):
        frames = self.generator(*(batch[key].flatten(0, 1) for key in ("frame_mels", "target", "reference")))
        loss = (frames - batch["target"].flatten(0, 1)).abs().mean()
        self.log_terms("train", {"l1": loss}, batch)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.generator.parameters(), lr=self.lr)

    def generate_chunk(self, inputs):
        return self.generator(inputs.frame_mels, inputs.faces, inputs.reference)


def _module(generator, _):
    module = Paint()
    module.generator = generator
    return module


OFFICIAL = (
    OfficialWeights(
        name="paint",
        use="bench evaluate --methods.paint {out}",
        build=lambda _: Painter(),
        module=_module,
        own=(WeightFile(id="paint", file="paint.pth", documented="example.org/paint", licence="CC0"),),
    ),
)
'''

RUNS = {
    "experiments/paint.yaml": """# Paint on LRS2. Needs an expert nowhere.
model:
  class_path: lipsync_bench.models.Paint
data:
  class_path: lipsync_bench.datamodules.LRS2
  init_args: {root: data/lrs2}
trainer:
  logger: false
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
  max_steps: 1
  callbacks:
  - class_path: pytorch_lightning.callbacks.ModelCheckpoint
    init_args: {save_last: true}
""",
    "experiments/synthetic/paint.yaml": """# Overlay.
data:
  class_path: lipsync_bench.datamodules.Synthetic
  init_args: {root: clips, batch_size: 2, num_workers: 0}
""",
}

USES_OF_A_METHOD = """
import json, sys
from pathlib import Path
from lipsync_bench import models
models.__path__.append(sys.argv[1])
clips = Path(sys.argv[2])

import torch
from lipsync_bench import bench
from lipsync_bench.cli import demo, doctor, lightning
from lipsync_bench.datamodules.weights.store import Store
from lipsync_bench.weights import import_file

lightning.main([
    "fit", "-c", "experiments/paint.yaml", "-c", "experiments/synthetic/paint.yaml", f"--data.init_args.root={clips}"
])
method = models.load_method("runs/paint+synthetic/last.ckpt")
Path("weights").mkdir()
torch.save(method.generator.state_dict(), "weights/paint.pth")
import_file("paint", Path("weights/paint.pth"), Path("imported.ckpt"))
try:
    bench.main([
        "evaluate", "--dataset", "synthetic", "--root", str(clips), "--methods.paint", "runs/paint+synthetic/last.ckpt",
        "--out", "results", "--limit", "1", "--device", "cpu",
    ])
except SystemExit as ended:
    assert not ended.code
print(json.dumps({
    "listed": models.list_methods()["paint"] is models.Paint,
    "same": torch.equal(models.load_method("imported.ckpt").generator.mix.weight, method.generator.mix.weight),
    "steps": torch.load("runs/paint+synthetic/last.ckpt", weights_only=True)["global_step"],
    "demo": demo.trainings("paint"),
    "doctor": [check.found for check in doctor.checks(clips, Store()) if check.name == "weights paint"],
}))
"""

DATASET = '''"""Plays: actors on a stage."""

from lipsync_bench.datamodules.clip_datamodule import ClipDataModule


class Plays(ClipDataModule):
    """`<speaker>/takes/<clip>.mp4`; of each speaker the first clip is for testing, the second for validation."""

    name = "plays"
    videos = "{speaker}/takes/{clip}"
    audio = "{speaker}/lines/{clip}.wav"

    def split_ids(self, prepared):
        speakers = sorted({name.split("/")[0] for name in prepared})
        clips = [[name for name in prepared if name.startswith(f"{speaker}/")] for speaker in speakers]
        return {
            "train": [name for names in clips for name in names[2:]],
            "val": [names[1] for names in clips],
            "test": [names[0] for names in clips],
        }
'''

BENCHMARK = """# Plays, the first clip of each actor.
data:
  class_path: lipsync_bench.datamodules.datasets.plays.Plays
  init_args: {root: out, image_size: 96}
split: test
"""

USES_OF_A_DATASET = """
import json, sys
from pathlib import Path
from lipsync_bench.datamodules import datasets
datasets.__path__.append(sys.argv[1])

from lipsync_bench.datamodules.datasets.dataset import dataset_names
from lipsync_bench.evaluation.task.benchmark import load_benchmark
from lipsync_bench.experiment_files import experiment_names
from tests.datamodules.preparation import run

report = run(Path("source"), dataset="plays", progress=False)
data = load_benchmark("plays").data
data.setup()
print(json.dumps({
    "names": dataset_names(),
    "benchmarks": experiment_names("benchmarks"),
    "clips": report.clips,
    "sources": report.sources,
    "splits": {split: [path.stem for path in data.clips(split)] for split in ("train", "val", "test")},
    "batch": list(next(iter(data.test_dataloader()))["target"].shape),
    "root": str(data.source_root),
}))
"""


def used(folder: Path, file: str, text: str, code: str, *arguments: Path) -> dict:
    """What a new process says that has `text` in a file of another folder; `folder` is where it works."""
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / file).write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / "elsewhere"), *map(str, arguments)],
        capture_output=True, text=True, cwd=folder, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_file_in_another_folder_is_a_method_everywhere(corpus, tmp_path):
    (tmp_path / "experiments" / "synthetic").mkdir(parents=True)
    for name, text in RUNS.items():
        (tmp_path / name).write_text(text)
    found = used(tmp_path, "paint.py", METHOD, USES_OF_A_METHOD, corpus / "clips")
    assert found["listed"]
    assert found["steps"] == 1
    assert found["same"]
    assert found["demo"] == ["sync_expert", "paint"]
    rows = list(csv.DictReader((tmp_path / "results" / "clips.csv").open()))
    assert [row["method"] for row in rows] == ["ground_truth", "repeated_frame", "paint"]
    assert 5 < float(rows[2]["psnr"]) < 60
    assert found["doctor"][0].startswith("weights/paint.pth, of which no official SHA-256")


@pytest.mark.slow
def test_a_file_in_another_folder_is_a_data_set_everywhere(corpus, tmp_path):
    for speaker in ("s01", "s02"):
        for clip in ("00001", "00002", "00003"):
            video = tmp_path / "source" / speaker / "takes" / f"{clip}.mp4"
            video.parent.mkdir(parents=True, exist_ok=True)
            video.symlink_to(corpus / "videos" / "main" / speaker / f"{clip}.mp4")
    other = tmp_path / "source" / "s01" / "trailers" / "00009.mp4"
    other.parent.mkdir()
    other.symlink_to(video.resolve())
    (tmp_path / "experiments" / "benchmarks").mkdir(parents=True)
    (tmp_path / "experiments" / "benchmarks" / "plays.yaml").write_text(BENCHMARK)
    found = used(tmp_path, "plays.py", DATASET, USES_OF_A_DATASET)
    assert found["names"] == ["folder", "hdtf", "hdtf_512", "lrs2", "mead", "plays", "synthetic"]
    assert {"lrs2", "plays"} <= set(found["benchmarks"])
    assert found["clips"] == [f"{speaker}/0000{number}" for speaker in ("s01", "s02") for number in (1, 2, 3)]
    assert found["sources"][0] == "s01/takes/00001.mp4"
    assert found["splits"] == {"train": ["00003"] * 2, "val": ["00002"] * 2, "test": ["00001"] * 2}
    assert found["batch"] == [2, 5, 3, 96, 96]
    assert found["root"] == str(tmp_path / "source")
