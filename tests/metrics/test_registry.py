# SPDX-License-Identifier: Apache-2.0
"""The descriptions at the ends of metrics' files, and how the registry reads them."""

import importlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lipsync_bench.datamodules.weights.registry import official_file
from lipsync_bench.metrics import registry
from lipsync_bench.metrics.image.inception import FILE as INCEPTION
from lipsync_bench.metrics.image.lpips import TRUNKS
from lipsync_bench.metrics.registry import COLUMNS, METRICS, NETWORKS

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.module)
def test_a_file_defines_what_its_description_requires(metric):
    module = importlib.import_module(metric.module)
    assert replace(module.METRIC, module=metric.module) == metric  # what the registry read is what the file is
    assert callable(module.scorer)
    assert hasattr(module, "load") == bool(metric.networks)
    pooled = any(column.kind == "pooled" for column in metric.columns)
    assert pooled == hasattr(module, "pool") == hasattr(module, "is_complete") == bool(metric.files[0])
    networks = {network.name for network in metric.networks if network.recorded}
    assert {column.network for column in metric.columns} <= {"", *networks}
    assert metric.checked
    for described in metric.columns:
        assert described.bounds[0] < described.bounds[1]
        assert described.title
        assert described.source
        assert described.about.endswith(".")


def test_names_of_fields_and_networks_are_unique():
    names = [column.name for column in COLUMNS] + [field.name for field in (*registry.COUNTS, *registry.CURVES)]
    names += [network.sha256_field for _, network in NETWORKS]
    assert len(names) == len(set(names))
    files = {network.name: official_file(network.weights).file for _, network in NETWORKS if network.weights}
    assert {f"lpips_{net}": file for net, (_, file) in TRUNKS.items()}.items() <= files.items()
    assert files["fid"] == INCEPTION


def test_reading_the_descriptions_imports_no_library_that_takes_seconds():
    code = (
        "import sys; from lipsync_bench.metrics.registry import COLUMNS; "
        "print(len(COLUMNS), sorted({'torch', 'torchmetrics', 'torchvision', 'dlib', 'mediapipe', 'skimage', 'scipy', "
        "'librosa', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.strip() == f"{len(COLUMNS)} []"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("METRIC = Description(columns=(COLUMN,), checked='-')", "COLUMN.*as the last statement"),
        ("METRIC = Description(columns=(), checked='-')\n\nmore = 1", "cannot be read"),
        ("METRIC = Description(columns=())", "checked"),
        ("METRIC = 3", "METRIC is int. Expected a lipsync_bench.metrics.metric.Description"),
    ],
)
def test_a_description_that_cannot_be_read_is_named(tmp_path, text, message):
    path = tmp_path / "mine.py"
    path.write_text(f'"""Mine."""\n\nCOLUMN = None\n{text}\n')
    with pytest.raises(ValueError, match=rf"mine.py.*{message}"):
        registry.describe(path, tmp_path)


def test_importing_the_package_imports_no_library():
    code = (
        "import sys, lipsync_bench.metrics; print(sorted({'torch', 'numpy', 'dlib', 'torchvision'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "[]"
