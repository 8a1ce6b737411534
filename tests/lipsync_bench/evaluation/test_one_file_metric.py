# SPDX-License-Identifier: Apache-2.0
"""A metric is one file: put into a folder beside the others, it is in rows, schema, leaderboard, doctor and docs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lipsync_bench.datamodules.weights.store import Store
from lipsync_bench.evaluation.networks import MetricNetworks
from lipsync_bench.evaluation.options import MetricOptions

REPOSITORY = Path(__file__).parents[3]

METRIC = '''"""Brightness of the crops, and the level below which a fake network calls them dark."""

import hashlib
from pathlib import Path

import numpy as np

from lipsync_bench.metrics.frame_mean import FrameMean
from lipsync_bench.metrics.metric import Column, Description, Field, Network
from lipsync_bench.metrics.metric import FrameScorer, ScoredClip, Scorer, Value, View


class Brightness(FrameMean):
    higher_is_better = True
    is_differentiable = False

    def __init__(self, **kwargs):
        super().__init__("brightness", **kwargs)

    def update(self, images):
        self.add(images.double().mean(dim=(1, 2, 3)))


class _Scorer(FrameScorer):
    def __init__(self, level):
        super().__init__()
        self.level = level

    def update(self, view: View) -> None:
        means = np.array([crop.mean() for crop in view.crops])
        self.add("brightness", means)
        if self.level is not None:
            self.add("darkness", (means < self.level).astype(float))

    def result(self) -> dict[str, Value]:
        return {**super().result(), "brightness_frames": len(self.values("brightness"))}


def load(name, given, device):
    text = Path(given).read_bytes()
    return float(text), hashlib.sha256(text).hexdigest()


def scorer(clip: ScoredClip) -> Scorer:
    return _Scorer(clip.networks.get("level"))


METRIC = Description(
    columns=(
        Column("brightness", "Brightness", "levels", True, 1, (0, 255), "none"),
        Column("darkness", "Darkness", "share", False, 2, (0, 1), "none", network="level"),
    ),
    source="this test",
    checked="nothing",
    counts=(Field("brightness_frames", "Frames whose brightness is in the mean."),),
    networks=(Network("level", option="darkness"),),
)
'''

RUN = """
import json, sys
from pathlib import Path
from lipsync_bench import metrics
metrics.__path__.append(sys.argv[1])

from rich.console import Console
from lipsync_bench.evaluation import Inputs, MetricOptions, Running, Selection, evaluate_dataset
from lipsync_bench.results.leaderboard import rich_table
from lipsync_bench.cli.doc_tables import metric_table
from lipsync_bench.results.row_schema import row_schema
from lipsync_bench.results.rows import FIELDS, NETWORK_HASHES

root, out, level = Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
result = evaluate_dataset(
    "synthetic", out, inputs=Inputs(root), select=Selection(limit=1), running=Running(device="cpu"), progress=False,
    metrics=MetricOptions(metrics={"darkness": str(level)}),
)
console = Console(width=120, record=True, file=open("/dev/null", "w"))
console.print(rich_table(result.leaderboard, "x"))
print(json.dumps({
    "fields": FIELDS, "scorers": NETWORK_HASHES, "schema": row_schema()["properties"], "docs": metric_table(),
    "screen": console.export_text(), "class": metrics.Brightness.__module__,
}))
"""


@pytest.mark.slow
def test_a_file_in_another_folder_is_a_metric_everywhere(corpus, tmp_path):
    import pandas as pd
    from jsonschema import Draft202012Validator

    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "brightness.py").write_text(METRIC)
    (tmp_path / "level.txt").write_text("1000")
    arguments = [tmp_path / "more", corpus / "clips", tmp_path / "out", tmp_path / "level.txt"]
    done = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, arguments)],
        capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    rows = pd.read_csv(tmp_path / "out" / "clips.csv")
    assert list(rows.columns) == found["fields"]
    assert rows["brightness"].between(1, 254).all()
    assert rows["darkness"].eq(1).all()
    assert rows["brightness_frames"].eq(rows["frames"]).all()
    assert rows["level_sha256"].str.len().eq(64).all()
    assert "level_sha256" in found["scorers"]
    assert found["schema"]["brightness"]["description"].startswith(
        "Brightness in levels; higher is better; of the pred"
    )
    value = float(rows["brightness"][0])
    schema = {"properties": found["schema"], "additionalProperties": False}
    assert Draft202012Validator(schema).is_valid({"brightness": value, "brightness_frames": 40})
    assert not Draft202012Validator(schema).is_valid({"brightness": 256.0})
    board = pd.read_csv(tmp_path / "out" / "leaderboard.csv").set_index("method")
    assert board.loc["ground_truth", "brightness"] == rows.set_index("method").loc["ground_truth", "brightness"]
    assert {"brightness_low", "brightness_n", "brightness_rank", "darkness_group", "level_sha256"} <= set(board)
    assert "Brightness (levels) ↑" in found["screen"]
    assert "| `brightness` ↑, `darkness` ↓ | `--metrics darkness` | nothing |" in found["docs"]
    assert found["class"] == "lipsync_bench.metrics.brightness"


@pytest.mark.parametrize("name", ["csim", "psnr", "syncnet"])
def test_unknown_and_default_metrics_cannot_be_named(name):
    with pytest.raises(ValueError, match=rf"--metrics {name}: no such metric. Expected one of csim_dlib; "):
        MetricNetworks(MetricOptions(metrics={name: ""}), Store())
