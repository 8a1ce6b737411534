# SPDX-License-Identifier: Apache-2.0
"""What is typed becomes groups of options, which reach the functions as they are; what cannot be is told at once."""

import inspect
import re
import shlex
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from lipsync_bench import bench
from lipsync_bench.cli.command_line import WrongUsage, parse
from lipsync_bench.datamodules.faces.options import FaceOptions
from lipsync_bench.datamodules.prepare.options import PrepareOptions
from lipsync_bench.datamodules.recipes.options import RecipeOptions
from lipsync_bench.datamodules.weights.options import WeightOptions
from lipsync_bench.evaluation.options import Inputs, MetricOptions, Rules, Running, Selection
from lipsync_bench.inference.options import DubOptions
from lipsync_bench.papers.options import RunOptions, TableOptions

DUB = "dub --checkpoint a.ckpt --video v.mp4 --audio a.wav --out o.mp4"
PREPARE = "prepare --source a --out b"


def given(words: str) -> dict[str, Any]:
    """The keyword arguments of the function that is meant."""
    return parse(bench.app, shlex.split(words)).keywords


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("evaluate --save-videos", {"running": Running(save_videos=True)}),
        ("evaluate --save_videos", {"running": Running(save_videos=True)}),
        ("evaluate --save-videos=true --limit 3", {"running": Running(save_videos=True), "select": Selection(3)}),
        ("evaluate --save-videos=false", {"running": Running()}),
        ("evaluate --limit 3 --limit=4", {"select": Selection(4)}),
        ("evaluate --pred a --pred=B=b/c", {"inputs": Inputs(pred={"a": Path("a"), "B": Path("b/c")})}),
        (
            "evaluate --methods.a_b x.ckpt --methods.C-d=y.ckpt",
            {"inputs": Inputs(methods={"a_b": Path("x.ckpt"), "C-d": Path("y.ckpt")})},
        ),
        (
            "evaluate --methods.v1 x --methods.v1.5 y",
            {"inputs": Inputs(methods={"v1": Path("x"), "v1.5": Path("y")})},
        ),
        ("evaluate --pred.a x --pred.b.c y", {"inputs": Inputs(pred={"a": Path("x"), "b.c": Path("y")})}),
        ("evaluate --metrics.x w.pt", {"metrics": MetricOptions(metrics={"x": "w.pt"})}),
        ("evaluate --only a,b --only c", {"select": Selection(only=("a", "b", "c"))}),
        ("""evaluate --only '["a", "b"]'""", {"select": Selection(only=("a", "b"))}),
        ("evaluate --only [a,b] --clips '[s]1/[ab]'", {"select": Selection(None, ("a", "b"), ("[s]1/[ab]",))}),
        ("evaluate --metrics csim_dlib,x=w.pt", {"metrics": MetricOptions(metrics={"csim_dlib": "", "x": "w.pt"})}),
        (
            "evaluate --weights w --weights=sfd_face=s,t --protocol g4g",
            {"weights": WeightOptions(("w", "sfd_face=s,t")), "rules": Rules("g4g")},
        ),
        (f"{PREPARE} --overwrite", {"options": PrepareOptions(overwrite=True)}),
        (f"{PREPARE} --face 2 --crop detector", {"faces": FaceOptions(face=2, crop="detector")}),
        (f"{DUB} --no-mark", {"options": DubOptions(no_mark=True)}),
        (
            f"{DUB} --no_mark --recipe.no_smooth",
            {"options": DubOptions(no_mark=True), "recipe": RecipeOptions(smooth=False)},
        ),
        (f"{DUB} --recipe.smooth=false", {"recipe": RecipeOptions(smooth=False)}),
        (
            f"{DUB} --recipe.pads 0 10 -3 0 --recipe.no-smooth",
            {"recipe": RecipeOptions(pads=(0, 10, -3, 0), smooth=False)},
        ),
        (f"{DUB} --recipe.pads [0,10,-3,0]", {"recipe": RecipeOptions(pads=(0, 10, -3, 0))}),
        (
            f"{DUB} --recipe.pads '0, 10, -3, 0' --device cpu --recipe.crop mesh",
            {"recipe": RecipeOptions("mesh", (0, 10, -3, 0)), "options": DubOptions(device="cpu")},
        ),
        ("table --run lipformer-1", {"show": TableOptions(run=True)}),
        (
            "table lipformer-1 --run --limit 1 --expert e --clips a --save-videos",
            {
                "show": TableOptions(run=True),
                "options": RunOptions(
                    Selection(1, clips=("a",)), metrics=MetricOptions(expert=Path("e")), running=Running(True)
                ),
            },
        ),
        ("report r --tables a --tables b,c", {"tables": ("a", "b", "c")}),
        ("evaluate --pred '[1] a' --pred '{b}'", {"inputs": Inputs(pred={n: Path(n) for n in ("[1] a", "{b}")})}),
        ("evaluate --root [1] --target '{'", {"target": Path("{"), "inputs": Inputs(Path("[1]"))}),
        ("report r --tables [g4g-2]", {"tables": ("g4g-2",)}),
        ("leaderboard merge [a] --out c", {"out": Path("c")}),
        ("doctor --json", {"as_json": True}),
    ],
)
def test_what_is_typed_becomes_groups(words, expected):
    assert expected.items() <= given(words).items()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", r"no subcommand .*Expected one"),
        ("leaderboard", r"no subcommand .*See: bench leaderboard --help"),
        ("evalute --limit 3", r'"evalute"\. Did you mean "evaluate"\?'),
        ("leaderboard marge", r'"marge"\. Did you mean "merge"\?'),
        ("evaluate --limt 3", r"--limt\. Did you mean --limit\? See: bench evaluate --help"),
        ("evaluate --savevideos", r"--savevideos\. Did you mean --save-videos\?"),
        ("evaluate --no-such-flag", "--no-such-flag"),
        ("evaluate --limit x", "--limit: 'x' is no whole number. Expected one"),
        ("evaluate --limit 2.5", "--limit: '2.5' is no whole number. Expected one"),
        (f"{PREPARE} --workers 1.5", "--workers: '1.5' is no whole number. Expected one"),
        ("demo --seed 0.7", "--seed: '0.7' is no whole number. Expected one"),
        ("evaluate --limit", "--limit without a value"),
        ("evaluate --limit 0", "limit is 0. Expected 1 or more. Correct --limit"),
        (
            "evaluate --methods wav2lip,mine",
            r"--methods: 'wav2lip,mine'.*Expected --methods\.NAME PATH; --only NAME,NAME",
        ),
        ("evaluate --pred a --pred b/a", r"b/a: 'a' twice\. Expected a name of its own: --pred NAME=DIR"),
        ("evaluate lrs2", r"'lrs2' belongs to no option\. Expected --OPTION VALUE"),
        ("evaluate --save-videos false", r"'false' .*as in --FLAG=false"),
        ("evaluate --split all", r'"all" for --split\. Choose from: "train", "val", "test"'),
        ("table a b", "'b' belongs to no option"),
        ("table", "ID is missing"),
        ("sync", "VIDEO is missing"),
        ("sync v.mp4 --syncnet s.model", "--syncnet"),
        ("dub --checkpoint a", "--video is missing"),
        (f"{DUB} --recipe.pads 1 2 3", r"'1 2 3'\. Expected four whole numbers of pixels for --recipe.pads"),
        (f"{DUB} --recipe.pads 1 2 3 4.5", r"'1 2 3 4.5'\. Expected four whole numbers of pixels for --recipe.pads"),
        (f"{DUB} --fit bounce", r'"bounce" for --fit\. Choose from: "loop", "cut"'),
        (f"{DUB} --face nose", r"--face: 'nose'\. Expected largest, first, left, right, centre, or a number from 0"),
        (f"{DUB} --face -1", "--face: '-1'"),
        (f"{DUB} --max-gap-frames -1", "max_gap_frames is -1. Expected 0 or more. Correct --max-gap-frames"),
        (f"{PREPARE} --max-crop-px 8193", "max_crop_px is 8193. Expected 1 to 8192. Correct --max-crop-px"),
        (f"{PREPARE} --max-failures nan", "max_failures is nan. Expected 0 to 1. Correct --max-failures"),
        ("evaluate --config none.yaml", r'"none.yaml" for --config'),
    ],
)
def test_wrong_usage_is_one_line_before_anything_is_read_or_written(words, message, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        bench.main(shlex.split(words))
    assert ended.value.code == 2
    (line,) = caplog.messages
    assert re.search(message, line), line
    assert re.fullmatch(r"error: [^\n]+ See: bench( [a-z-]+)? --help", line)
    assert list(tmp_path.iterdir()) == []


# Files of options


def test_a_file_of_options_fills_in_what_is_not_typed(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "methods: {a_b: x.ckpt, 2024: y.ckpt, c: null}\npred: [a, B=b]\nsave_videos: true\nlimit: 3\n"
        "clips: 'S1/*,b'\nonly: [a]\ndevice: null\n"
    )
    found = given(f"evaluate --config {file} --limit 4 --dataset d")
    methods = {"a_b": Path("x.ckpt"), "2024": Path("y.ckpt")}
    assert found["inputs"] == Inputs(methods=methods, pred={"a": Path("a"), "B": Path("b")})
    assert found["select"] == Selection(4, ("a",), ("S1/*", "b"))
    assert found["running"] == Running(save_videos=True)
    assert found["dataset"] == "d"
    assert given("evaluate") == {}  # nothing of the file is left


def test_options_may_stand_below_a_subcommand_and_the_last_file_counts_most(tmp_path):
    first, second = tmp_path / "1.yaml", tmp_path / "2.yaml"
    first.write_text("evaluate: {limit: 7, only: [a]}\ntable: {run: true}\n")
    second.write_text("limit: 8\n")
    assert given(f"--config {first} evaluate") == {"select": Selection(7, ("a",))}
    assert given(f"evaluate --config {first} --config {second}") == {"select": Selection(8, ("a",))}
    assert given(f"table --config={first} hyperlips-1") == {"show": TableOptions(run=True)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("limt: 7", r"limt.*mine\.yaml\. Did you mean --limit"),
        ("limit: x", r"mine\.yaml: .*no whole number"),
        ("limit: 2.5", r"mine\.yaml: .*no whole number"),
        ("limit: 0", r"mine\.yaml: limit is 0"),
        ("limit: {a: 3}", r"limit.*mine\.yaml"),
        ("3: x", r"mine\.yaml"),
        ("- 1", r"mine\.yaml holds no options\. Expected NAME: VALUE"),
        ("", r"mine\.yaml holds no options"),
    ],
)
def test_a_file_of_wrong_options_is_wrong_usage(text, message, tmp_path, caplog):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(SystemExit) as ended:
        bench.main(["evaluate", "--config", str(tmp_path / "mine.yaml")])
    assert ended.value.code == 2
    (line,) = caplog.messages
    assert re.search(message, line), line


def test_a_file_says_no_by_false(tmp_path):
    (tmp_path / "a.yaml").write_text("{no_mark: true, recipe: {smooth: false, pads: [0, 10, 0, 0]}}")
    found = given(f"{DUB} --config {tmp_path / 'a.yaml'}")
    assert found["options"] == DubOptions(no_mark=True)
    assert found["recipe"] == RecipeOptions(smooth=False, pads=(0, 10, 0, 0))
    (tmp_path / "b.yaml").write_text("recipe: {no_smooth: true}")  # cyclopts would smooth
    with pytest.raises(WrongUsage, match=r"b\.yaml: .*no_smooth"):
        given(f"{DUB} --config {tmp_path / 'b.yaml'}")


# Declared once


def group_fields() -> set[str]:
    groups = (
        FaceOptions,
        PrepareOptions,
        DubOptions,
        Inputs,
        Rules,
        Selection,
        MetricOptions,
        Running,
        TableOptions,
        WeightOptions,
    )
    return {field.name for group in groups for field in fields(group)}


def test_no_function_declares_an_option_of_a_group_again():
    from lipsync_bench.cli import data_commands, method_commands, scoring_commands
    from lipsync_bench.datamodules.prepare.prepare import prepare
    from lipsync_bench.evaluation import evaluate_dataset, evaluate_videos
    from lipsync_bench.inference.dub import dub
    from lipsync_bench.inference.find_face import find_face
    from lipsync_bench.papers import table

    own = {"dataset", "out", "pred", "workers"}  # what is evaluated, where to
    for function in (
        *(data_commands.prepare, method_commands.dub, scoring_commands.evaluate, scoring_commands.table),
        *(prepare, evaluate_dataset, evaluate_videos, dub, find_face, table),
    ):
        parameters = inspect.signature(function).parameters
        single = {name for name, parameter in parameters.items() if not is_dataclass(parameter.default)}
        assert not single & (group_fields() - own), function
        assert any(is_dataclass(parameter.default) for parameter in parameters.values())


def test_the_groups_reach_the_functions_as_they_are(monkeypatch, tmp_path):
    from lipsync_bench.evaluation import evaluate

    taken: dict[str, Any] = {}

    class Enough(Exception): ...

    def take(*arguments: Any, **groups: Any) -> None:
        taken.update(groups)
        raise Enough

    monkeypatch.setattr(evaluate, "evaluate_dataset", take)
    run = parse(bench.app, ["evaluate", "--dataset", "synthetic", "--limit", "2", "--expert", "e.ckpt", "--out", "o"])
    with pytest.raises(Enough):
        run()
    for name in ("select", "metrics"):
        assert taken[name] is run.keywords[name]
    assert taken.keys() == {"inputs", "rules", "recipe", "metrics", "weights", "select", "running", "splitting"}
