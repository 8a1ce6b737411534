# SPDX-License-Identifier: Apache-2.0
"""The two commands as a user types them: help, and every YAML of experiments/. Options: test_options.py."""

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from cyclopts import App

from lipsync_bench import bench
from lipsync_bench.cli import demo
from lipsync_bench.cli.lightning import BenchCLI
from lipsync_bench.evaluation.task.benchmark import load_benchmark
from lipsync_bench.experiment_files import named_file
from lipsync_bench.results.rows import RowFile
from tests.commands import run_bench

ROOT = Path(__file__).parents[3]
EXPERIMENTS = sorted(p for p in (ROOT / "experiments").rglob("*.yaml"))
RUNS = [p for p in EXPERIMENTS if p.parent.name == "experiments"]
OVERLAYS = [p for p in EXPERIMENTS if p.parent.name == "synthetic"]
TABLES = [p for p in EXPERIMENTS if p.parent.name == "tables"]
PROTOCOLS = [p for p in EXPERIMENTS if p.parent.name == "protocols"]
BENCHMARKS = [p for p in EXPERIMENTS if p.parent.name == "benchmarks"]
SYSTEMS = [p for p in EXPERIMENTS if p.parent.name == "systems"]
VARIANTS = [p for p in EXPERIMENTS if p not in {*RUNS, *OVERLAYS, *TABLES, *PROTOCOLS, *BENCHMARKS, *SYSTEMS}]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT / "experiments"))


def test_every_yaml_has_its_test():
    assert len(RUNS) >= 3
    assert len(OVERLAYS) >= 2
    assert len(BENCHMARKS) >= 3
    assert len(VARIANTS) >= 9
    assert len(TABLES) == 16
    assert len(PROTOCOLS) >= 4
    methods = [run.stem for run in RUNS]
    folders = {p.parent.name for p in VARIANTS} - {"overlays", "loggers", "pretrained"}  # these fit every run
    assert all(any(run.startswith(folder) for run in methods) for folder in folders)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=name)
def test_a_yaml_begins_with_what_it_is_and_names_no_absolute_path(path):
    text = path.read_text()
    assert text.startswith("# ")
    assert not [value for value in _strings(yaml.safe_load(text)) if value.startswith(("/", "~"))]


def _strings(node):
    if isinstance(node, dict):
        for value in node.values():
            yield from _strings(value)
    elif isinstance(node, list):
        for value in node:
            yield from _strings(value)
    elif isinstance(node, str):
        yield node


def print_config(capsys: pytest.CaptureFixture[str], *configs: Path) -> str:
    flags = [flag for path in configs for flag in ("-c", str(path))]
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lightning", "fit", *flags, "--print_config"])
        with pytest.raises(SystemExit) as ended:
            BenchCLI()
    printed = capsys.readouterr()
    assert ended.value.code in (0, None), printed.err
    return printed.out


def stages(overlay: Path) -> list[Path]:
    """The runs that the overlay of a variant is for: those that its comment names."""
    text = overlay.read_text()
    named = [p for p in RUNS if f"-c {p.stem} -c {name(overlay.with_suffix(''))}" in text]
    assert named
    return named


@pytest.mark.parametrize(
    "configs",
    [[p] for p in RUNS]
    + [[ROOT / "experiments" / f"{stem}.yaml" for stem in demo._names(p.stem)] for p in OVERLAYS]
    + [[run, p] for p in VARIANTS for run in stages(p)],
    ids=lambda c: "-".join(name(path) for path in c),
)
def test_a_printed_config_loads_again_and_prints_the_same(configs, tmp_path, capsys):
    printed = print_config(capsys, *configs)
    again = tmp_path / "config.yaml"
    again.write_text(printed)
    assert print_config(capsys, again) == printed
    assert yaml.safe_load(printed)["model"]["class_path"].startswith("lipsync_bench.models.")


class Trap:
    """Pickled, it is a program that writes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "ran")


def test_going_on_from_a_checkpoint_runs_no_code_of_it(tmp_path, monkeypatch):
    torch.save({"state_dict": Trap(tmp_path / "ran")}, tmp_path / "evil.ckpt")
    module = {"class_path": "pytorch_lightning.demos.boring_classes.BoringModel"}
    data = {"class_path": "pytorch_lightning.demos.boring_classes.BoringDataModule"}
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    run = {"model": module, "data": data, "trainer": {**quiet, "accelerator": "cpu", "max_steps": 1}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        BenchCLI(["fit", "-c", "run.yaml", "--ckpt_path", "evil.ckpt"])
    assert not (tmp_path / "ran").exists()


def test_the_lightning_command_prints_a_config():
    run = [sys.executable, "-m", "lipsync_bench", "fit", "-c", str(RUNS[0]), "--print_config"]
    done = subprocess.run(run, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "class_path: lipsync_bench.models." in done.stdout


@pytest.mark.parametrize("path", BENCHMARKS, ids=name)
def test_a_benchmark_is_found_by_name_and_loads(path):
    assert named_file("benchmarks", path.stem, "--dataset").samefile(path)
    benchmark = load_benchmark(path.stem, root=Path("elsewhere"), methods={"mine": Path("mine.ckpt")})
    assert benchmark.data.root == Path("elsewhere")
    assert benchmark.methods["mine"] == Path("mine.ckpt")
    assert set(yaml.safe_load(path.read_text())["methods"]) <= set(benchmark.methods)


def test_an_unknown_benchmark_lists_the_known_ones():
    with pytest.raises(FileNotFoundError, match=r"lrs2.*mead.*synthetic"):
        load_benchmark("lrs3")


def test_a_broken_benchmark_says_what_is_wrong(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(
        "data: {class_path: lipsync_bench.datamodules.LRS2, init_args: {root: x}}\nmetods: {wav2lip: x.ckpt}\n"
    )
    with pytest.raises(ValueError, match="metods"):
        load_benchmark(str(path))


PANELS = [item for panel in bench.SUBCOMMANDS.values() for item in panel.items()]
GROUPS = {word: [name for name in app if not name.startswith("-")] for word, app in PANELS if isinstance(app, App)}
SUBCOMMANDS = sorted({word for word, _ in PANELS} - set(GROUPS) | {f"{w} {name}" for w in GROUPS for name in GROUPS[w]})
WITHOUT_OPTIONS = ("experiments list",)


@pytest.mark.parametrize("subcommand", SUBCOMMANDS)
def test_every_subcommand_explains_every_option(subcommand, capsys):
    assert run_bench(*subcommand.split(), "--help") == 0
    text = capsys.readouterr().out
    _, apps, _ = bench.app.parse_commands(subcommand.split())
    arguments = [a for a in apps[-1].assemble_argument_collection(parse_docstring=True) if a.show]
    assert bool(arguments) == (subcommand not in WITHOUT_OPTIONS)
    for argument in arguments:
        assert argument.parameter.help, argument.name
        assert argument.name in text
        if argument.field_info.default not in (None, False, (), {}, argument.field_info.empty):
            assert f"[default: {argument.field_info.default}]" in " ".join(text.replace("│", "").split()), argument.name


@pytest.mark.parametrize("columns", [70, 130])
def test_help_is_as_wide_as_the_terminal(columns):
    command = [sys.executable, "-m", "lipsync_bench.bench", "evaluate", "--help"]
    environment = {**os.environ, "COLUMNS": str(columns), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert max(map(len, done.stdout.splitlines())) == columns


def test_the_subcommands_are_shown(capsys):
    assert run_bench("--help") == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^│ {word} +[A-Z]", shown, re.MULTILINE) for word, _ in PANELS)
    assert run_bench("leaderboard", "--help") == 0
    assert re.search(r"merge +Join the results of several runs", capsys.readouterr().out)


def rows_in(folder: Path, method: str) -> Path:
    file = RowFile(folder / "clips.csv")
    for k in range(2):
        line = {"protocol": "p-v1", "method": method, "clip": f"s/{k}", "audio_clip": f"s/{k}", "status": "ok"}
        file.append({**line, "psnr": 30.0 + k, "frames_target": 25, "fallback_frames": 0, "package_version": "0.1.0"})
    file.close()
    return folder


def test_leaderboards_are_merged_from_the_shell(tmp_path, capsys):
    a, b, out = rows_in(tmp_path / "a b", "one"), rows_in(tmp_path / "b", "two"), tmp_path / "all.csv"
    assert run_bench("leaderboard", "merge", str(a), str(b / "clips.csv"), "--out", str(out)) == 0
    assert pd.read_csv(out)["method"].tolist() == ["one", "two"]
    assert "two" in capsys.readouterr().out
    assert run_bench("leaderboard", "merge", f"--out={out}", str(b)) == 0
    assert pd.read_csv(out)["method"].tolist() == ["two"]


def test_a_merge_that_fails_says_so_in_one_line_and_ends_with_1(tmp_path, caplog):
    a = rows_in(tmp_path / "a", "one")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "clips.csv").write_text("method\nx\n")
    for part in (tmp_path / "none", tmp_path / "bad", a / "clips.csv"):
        caplog.clear()
        out = a / "clips.csv" if part.parent == a else tmp_path / "all.csv"
        assert run_bench("leaderboard", "merge", str(a), str(part), "--out", str(out)) == 1
        assert len(caplog.messages) == 1
        assert caplog.messages[0].startswith("error: ")
        assert "\n" not in caplog.messages[0]
    assert run_bench("leaderboard", "merge", "--out", "x.csv") == 2
    assert run_bench("leaderboard", "marge") == 2
    run = [
        sys.executable,
        "-m",
        "lipsync_bench.bench",
        "leaderboard",
        "merge",
        "none",
        "--out",
        str(tmp_path / "all.csv"),
    ]
    done = subprocess.run(run, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert re.fullmatch(r"error: none: no such file\. Expected .*: bench evaluate\n", done.stderr)
    assert not (tmp_path / "all.csv").exists()


def test_evaluate_wants_a_data_set_or_two_folders(caplog):
    assert run_bench("evaluate") == 1
    assert run_bench("evaluate", "--dataset", "lrs2", "--pred", "x", "--target", "y") == 1
    assert run_bench("evaluate", "--pred", "x") == 1
    assert caplog.text.count("either --dataset NAME, or both --pred DIR and --target DIR") == 3


@pytest.mark.parametrize("subcommand", ["", *SUBCOMMANDS])
def test_help_and_wrong_usage_import_nothing_heavy(subcommand):
    code = (
        "import sys\n"
        "from lipsync_bench.bench import main\n"
        f"for word in ('--help', '--nonsense'):\n"
        f"    try: main([*{subcommand.split()!r}, word])\n    except SystemExit: pass\n"
        "heavy = {'torch', 'cv2', 'mediapipe', 'dlib', 'librosa', 'pandas', 'numpy', 'jsonargparse', 'pydantic'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
