# SPDX-License-Identifier: Apache-2.0
"""Every command of docs/train_and_rank.md on data sets, official weights and papers, as it stands there, one after the
other in one folder; then what must be equal. Takes minutes: `make rehearsal`.

What is added to a command keeps it small: few steps, few workers, a small width. `weights fetch` needs a network, and
what it would fetch is there: it is left out here and tested against a server of our own.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from tests.rehearsal.trees import make_lrs2, make_mead
from tests.rehearsal.weights import make_backbones, make_weights

pytestmark = [
    pytest.mark.rehearsal,
    pytest.mark.skipif("LIPSYNC_REHEARSAL" not in os.environ, reason="takes minutes: make rehearsal"),
]

ROOT = Path(__file__).parents[2]
SECTIONS = ("Train and rank on a data set", "Official weights", "Compare with the papers")
TIMES = re.compile(r"seconds|_s$|time|date|started|ended")
STEPS = 2
BASE_STEPS = 40


def documented_commands() -> list[list[str]]:
    """The words of each command of these sections, in their order."""
    text = (ROOT / "docs" / "train_and_rank.md").read_text()
    parts = [text.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0] for title in SECTIONS]
    blocks = [block for part in parts for block in re.findall(r"```sh\n(.*?)```", part, re.DOTALL)]
    lines = [line for block in blocks for line in block.splitlines()]
    return [line.partition("  #")[0].split() for line in lines if line.strip()]


class Rehearsal:
    """A folder in which commands are typed.

    Args:
        folder: The working folder.
        python: The interpreter whose package is rehearsed.
    """

    def __init__(self, folder: Path, python: str = sys.executable) -> None:
        self.folder, self.python = folder, python
        cache = {"TORCH_HOME": str(folder / "torch"), "XDG_CACHE_HOME": str(folder / "cache")}
        self.environment = {**os.environ, **cache, "OMP_NUM_THREADS": "1", "LIPSYNC_DEBUG": "1"}
        if python == sys.executable:
            self.environment["PYTHONPATH"] = str(ROOT)

    def run(self, *words: str, **environment: str) -> str:
        """Run `bench` or `lightning` with these words; returns what it printed. It must end with 0."""
        module = {"bench": "lipsync_bench.bench", "lightning": "lipsync_bench"}[words[0]]
        command = [self.python, "-m", module, *words[1:]]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, f"$ {' '.join(words)}\n{done.stdout[-4000:]}"
        return done.stdout

    def allow_few_clips(self, *benchmarks: str) -> None:
        """Copy the YAML of benchmarks, whose data sets count their clips otherwise."""
        for name in benchmarks:
            self.run("bench", "experiments", "copy", f"benchmarks/{name}")
            path = self.folder / "experiments" / "benchmarks" / f"{name}.yaml"
            few = f"root: data/{name}\n    check_counts: warn\n    max_missing: 1.0"
            path.write_text(path.read_text().replace(f"\n    root: data/{name}\n", f"\n    {few}\n"))

    def type(self, words: list[str]) -> str:
        """Type a command of the page."""
        return self.run(Path(words[0]).name, *words[1:], *added(words))


def added(words: list[str]) -> list[str]:
    """What keeps a command small."""
    command = [Path(words[0]).name, *words[1:]]
    if command[:2] == ["lightning", "fit"]:
        run = command[3]
        more = {"trainer.max_steps": STEPS, "trainer.val_check_interval": STEPS, "trainer.limit_val_batches": 1}
        more |= {"trainer.accelerator": "cpu", "trainer.log_every_n_steps": 1, "trainer.enable_progress_bar": "false"}
        more |= {"trainer.num_sanity_val_steps": 0, "model.init_args.width": 0.125}
        more |= {"data.init_args.batch_size": 2, "data.init_args.num_workers": 0, "data.init_args.val_length": 2}
        more |= {"data.init_args.check_counts": "warn", "data.init_args.max_missing": 1}
        more |= {"model.init_args.recipe.crop": "mesh"}  # the stand-in for S3FD's weights finds no face
        if run == "hyperlips_hr":  # max_steps counts the steps of both optimisers
            more["trainer.max_steps"] = 2 * STEPS
        if run == "hyperlips_base":  # whose faces Face Mesh has to find
            more |= {"model.init_args.width": 0.25, "model.init_args.lr": 0.002, "data.init_args.batch_size": 4}
            more |= {"model.init_args.adversarial_weight": 0, "model.init_args.lpips_weight": 0}
            more |= {"trainer.max_steps": BASE_STEPS, "trainer.val_check_interval": BASE_STEPS}
            more |= {"data.init_args.epoch_length": 4 * BASE_STEPS}
        return [f"--{name}={value}" for name, value in more.items()]
    if command[:2] == ["bench", "prepare"]:
        return ["--workers", "2", "--recipe.crop", "mesh"]
    if command[1] in ("evaluate", "table") and "list" not in command:
        small = ["--weights", "syncnet_v2=weights/syncnet_v2.model", "--weights", "alexnet=torch/alexnet.pth"]
        official = ["--weights", "wav2lip_gan=weights/wav2lip_gan.pth"] if "official" in command else []
        runs = command[1] == "evaluate" or "--run" in command
        one = ["--limit", "1"] if "--run" in command else []
        return [*([*small, "--recipe.crop", "mesh"] if runs else []), *official, *one]
    return []


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Rehearsal:
    """The folder after every command of the page."""
    folder = tmp_path_factory.mktemp("rehearsal")
    make_lrs2(folder / "source" / "LRS2", folder / "made" / "lrs2")
    make_mead(folder / "source" / "MEAD", folder / "made" / "mead", (1, 6, 7, 8))
    make_weights(folder / "weights")
    make_backbones(folder / "torch" / "hub" / "checkpoints")
    alexnet = folder / "torch" / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    shutil.copyfile(alexnet, folder / "torch" / "alexnet.pth")
    rehearsal = Rehearsal(folder)
    rehearsal.allow_few_clips("lrs2", "mead")
    for words in documented_commands():
        if words[1:3] == ["weights", "fetch"]:
            continue
        typed = [word.replace("/data/LRS2", "source/LRS2").replace("/data/MEAD", "source/MEAD") for word in words]
        rehearsal.type(typed)
    return rehearsal


def without_times(node: object) -> object:
    if isinstance(node, dict):
        return {key: without_times(value) for key, value in node.items() if not TIMES.search(key)}
    return [without_times(item) for item in node] if isinstance(node, list) else node


def rows(folder: Path) -> pd.DataFrame:
    table = pd.read_csv(folder / "clips.csv", dtype=str, keep_default_na=False)
    return table[[name for name in table if not TIMES.search(name)]].sort_values(["method", "clip"], ignore_index=True)


def test_the_page_still_has_the_road() -> None:
    typed = [" ".join(words) for words in documented_commands()]
    for part in ("prepare --dataset lrs2", "prepare --dataset mead", "fit -c wav2lip", "fit -c hyperlips_hr", "import"):
        assert any(part in line for line in typed), part
    assert len(typed) >= 20


def test_every_run_has_its_folder_and_nothing_else_is_written(rehearsal: Rehearsal) -> None:
    plain = {"sync_expert", "wav2lip", "hyperlips_sync_expert", "hyperlips_base", "hyperlips_hr"}
    both = plain | {"hyperlips_base+mead", "hyperlips_hr+mead"}
    assert {path.name for path in (rehearsal.folder / "runs").iterdir()} == both
    for name in both:
        files = {path.name for path in (rehearsal.folder / "runs" / name).iterdir()}
        assert {"config.yaml", "last.ckpt", "lightning_logs"} <= files
    made_by_hand = {"source", "made", "weights", "torch", "cache", "experiments"}
    top = {path.name for path in rehearsal.folder.iterdir()} - made_by_hand
    assert top == {"data", "runs", "results", "all.csv", "report_lrs2"}


def test_the_runs_on_two_data_sets_keep_apart(rehearsal: Rehearsal) -> None:
    for name in ("hyperlips_base", "hyperlips_hr"):
        config = {
            run: yaml.safe_load((rehearsal.folder / "runs" / run / "config.yaml").read_text())
            for run in (name, f"{name}+mead")
        }
        assert config[name]["data"]["class_path"].endswith("LRS2")
        assert config[f"{name}+mead"]["data"]["class_path"].endswith("MEAD")
        first = rehearsal.folder / "runs" / name / "last.ckpt"
        second = rehearsal.folder / "runs" / f"{name}+mead" / "last.ckpt"
        assert first.stat().st_mtime < second.stat().st_mtime  # MEAD's came later, and LRS2's stayed as it was
        assert first.read_bytes() != second.read_bytes()
        if name == "hyperlips_base":  # the paper's expert is LRS2's, whatever the generator is trained on
            experts = {run["model"]["init_args"]["sync_expert"] for run in config.values()}
            assert experts == {"runs/hyperlips_sync_expert/last.ckpt"}
    stage = config["hyperlips_hr+mead"]["model"]["init_args"]["base"]
    assert stage == "runs/hyperlips_base+mead/last.ckpt"


def test_the_benchmark_ranks_what_is_trained(rehearsal: Rehearsal) -> None:
    board = pd.read_csv(rehearsal.folder / "results" / "lrs2" / "leaderboard.csv")
    assert {"ground_truth", "repeated_frame", "wav2lip", "hyperlips_base", "hyperlips_hr"} <= set(board["method"])
    merged = pd.read_csv(rehearsal.folder / "all.csv")
    assert set(merged["method"]) == {*board["method"], "wav2lip_gan"}  # the official file
    assert (board["failures"] == 0).all()
    assert {"lse_c_wav2lip_lrs", "lpips_alex", "psnr"} <= set(board)
    mead = pd.read_csv(rehearsal.folder / "results" / "mead" / "leaderboard.csv")
    assert {"ground_truth", "repeated_frame", "hyperlips_base", "hyperlips_hr"} == set(mead["method"])


def test_official_weights_by_path_and_imported_give_the_same_numbers(rehearsal: Rehearsal) -> None:
    common = ["evaluate", "--dataset", "lrs2", "--limit", "1", "--recipe.crop", "mesh", "--only"]
    files = {"file": "weights/wav2lip.pth", "imported": "weights/wav2lip.ckpt"}
    for name, path in files.items():
        rehearsal.run("bench", *common, name, "--out", f"results/{name}", f"--methods.{name}", path)
    one, other = (rows(rehearsal.folder / "results" / name) for name in files)
    measured = [name for name in ("psnr", "ssim", "lmd", "psnr_mouth") if name in one]
    assert measured
    pd.testing.assert_frame_equal(
        one[one["method"] == "file"][measured].reset_index(drop=True),
        other[other["method"] == "imported"][measured].reset_index(drop=True),
    )


def test_two_slices_prepare_what_one_process_prepares(rehearsal: Rehearsal) -> None:
    for method, number in product(("wav2lip", "hyperlips_base"), (1, 2)):  # one after the other, as on the page
        rehearsal.run(
            *("bench", "prepare", "--dataset", "lrs2", "--source", "source/LRS2", "--out", "data/sliced"),
            *("--for", method, "--recipe.crop", "mesh", "--slice", f"{number}/2", "--workers", "1"),
        )
    whole, sliced = (rehearsal.folder / "data" / name for name in ("lrs2", "sliced"))

    def made(folder: Path) -> set[Path]:
        suffixes = (".safetensors", ".track", ".txt")
        return {path.relative_to(folder) for path in folder.rglob("*.*") if path.suffix in suffixes}

    names = made(whole)
    assert len(names) == 3 + 8 + 2 * 8  # three lists, 8 clips, two tracks of each
    assert names == made(sliced)
    for name in sorted(names):
        assert (whole / name).read_bytes() == (sliced / name).read_bytes(), name
    one, two = (json.loads((folder / "manifest.json").read_text()) for folder in (whole, sliced))
    assert without_times(one) == without_times(two)
    assert two["complete"] is True


def test_slices_and_processes_give_the_rows_of_one_process(rehearsal: Rehearsal) -> None:
    common = ("bench", "evaluate", "--dataset", "lrs2", "--only", "wav2lip")
    rehearsal.run(*common, "--out", "results/one")
    rehearsal.run(*common, "--out", "results/two_devices", "--devices", "2", "--device", "cpu")
    for number in (1, 2):
        rehearsal.run(*common, "--out", "results/two_slices", "--slice", f"{number}/2")
    expected = rows(rehearsal.folder / "results" / "one")
    boards = [pd.read_csv(rehearsal.folder / "results" / "one" / "leaderboard.csv", dtype=str)]
    for name in ("two_devices", "two_slices"):
        files = sorted((rehearsal.folder / "results" / name).glob("clips*.csv"))
        table = pd.concat([pd.read_csv(path, dtype=str, keep_default_na=False) for path in files])
        table = table[list(expected)].sort_values(["method", "clip"], ignore_index=True)
        pd.testing.assert_frame_equal(table, expected)
        boards.append(pd.read_csv(rehearsal.folder / "results" / name / "leaderboard.csv", dtype=str))
    kept = [name for name in boards[0] if not TIMES.search(name)]
    for board in boards[1:]:
        pd.testing.assert_frame_equal(board[kept], boards[0][kept])


def test_a_training_that_is_typed_again_changes_nothing(rehearsal: Rehearsal) -> None:
    path = rehearsal.folder / "runs" / "wav2lip" / "last.ckpt"
    before = torch.load(path, weights_only=True)["state_dict"]
    words = [".venv/bin/lightning", "fit", "-c", "wav2lip"]
    rehearsal.type(words)
    torch.testing.assert_close(torch.load(path, weights_only=True)["state_dict"], before, rtol=0, atol=0)
