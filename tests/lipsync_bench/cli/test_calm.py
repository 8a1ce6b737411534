# SPDX-License-Identifier: Apache-2.0
"""The screen of the commands has what matters to their user, and threads leave the cores to other work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lipsync_bench.cli.calm import calm

NOISE = (
    "Tip", "litlogger", "Deprecat", "deprecat", "treespec", "weights_only", "FLOPs", "TPU available", "site-packages",
    "absl::", "XNNPACK", "inference_feedback_manager", "landmark_projection", "does not have many workers",
)  # fmt: skip
_DIES = """
import os
from lipsync_bench.datamodules.native_messages import without_notices
with without_notices():
    os.write(2, b"W0000 00:00:1.5     1 graph.cc:1] a notice\\nINFO: Created a delegate\\n")
    os.write(2, b"E0000 00:00:1.5 1 x.cc:1] an error\\n")
    os.write(2, b"last words\\n")
    os.abort()
"""


def screen(folder: Path, *words: object) -> str:
    """What a command writes to a terminal."""
    command = [sys.executable, "-m", *map(str, words)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    return text


def test_training_and_preparing_say_nothing_of_other_libraries(corpus: Path, tmp_path: Path) -> None:
    model = {"width": 0.125, "recipe": {"crop": "mesh"}, "sync_weight": 0.0}
    data = {"root": str(corpus / "clips"), "batch_size": 2, "num_workers": 0, "epoch_length": 2, "val_length": 2}
    node = {
        "model": {"class_path": "lipsync_bench.models.Wav2Lip", "init_args": model},
        "data": {"class_path": "lipsync_bench.datamodules.Synthetic", "init_args": data},
        "trainer": {"max_steps": 1, "accelerator": "cpu", "num_sanity_val_steps": 0},
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(node))
    fitted = screen(tmp_path, "lipsync_bench", "fit", "-c", "small.yaml", "--sample_clips", "1")
    (clip,) = sorted((corpus / "videos" / "main").rglob("*.mp4"))[:1]
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / clip.name).symlink_to(clip)
    words = ("--source", "one", "--out", "out", "--workers", "1")
    prepared = screen(tmp_path, "lipsync_bench.bench", "prepare", *words)
    assert not [word for word in NOISE if word in fitted + prepared], fitted + prepared
    assert "Wav2Lip: parameters of generator" in fitted
    assert "1 clips prepared" in prepared


def test_errors_beside_notices_are_passed_on_even_when_the_process_dies() -> None:
    died = subprocess.run([sys.executable, "-c", _DIES], capture_output=True, text=True, timeout=300)
    assert died.returncode < 0
    assert died.stderr == "E0000 00:00:1.5 1 x.cc:1] an error\nlast words\n"


@pytest.mark.parametrize("given", [None, "ACTIVE"])
def test_waiting_threads_sleep_unless_the_user_says_otherwise(
    given: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIPSYNC_DEBUG", "1")  # which leaves warnings alone
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if given:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    calm()
    assert os.environ["OMP_WAIT_POLICY"] == (given or "PASSIVE")


@pytest.mark.parametrize("module", ["lipsync_bench.__main__", "lipsync_bench.bench"])
def test_commands_load_no_torch_before_they_set_it(module: str) -> None:
    loads = f"import sys, {module}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", loads], capture_output=True, text=True, timeout=300)
    assert done.stdout == "False\n"
