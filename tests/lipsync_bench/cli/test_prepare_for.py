# SPDX-License-Identifier: Apache-2.0
"""`bench prepare --for`: from typed words to the tracks of methods' recipes."""

import logging
import re
from pathlib import Path
from typing import Any

import pytest

from lipsync_bench import recipes
from lipsync_bench.datamodules.faces.crop_rules.boxes import DetectorBox
from lipsync_bench.datamodules.recipes.options import RecipeOptions
from lipsync_bench.datamodules.recipes.recipe import Recipe
from tests.commands import run_bench
from tests.datamodules.preparation import manifest, write_video

PUBLISHED = {
    "wav2lip": Recipe(DetectorBox("s3fd", (0, 10, 0, 0), 5), (96, 96), DetectorBox("s3fd")),
    "hyperlips_hr": Recipe(DetectorBox("s3fd", (0, 0, 0, 0), 5), (128, 128), DetectorBox("s3fd")),
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, RecipeOptions]]:
    """The methods whose recipes were asked for, and the parts that were replaced."""
    found: list[tuple[str, RecipeOptions]] = []

    def named(name: str, options: RecipeOptions) -> Recipe:
        found.append((name, options))
        return options.applied(PUBLISHED[name])

    monkeypatch.setattr(recipes, "recipe_named", named)
    return found


@pytest.fixture
def command(tmp_path: Path) -> tuple[Any, ...]:
    write_video(tmp_path / "in" / "a" / "1.mp4", 5)
    return ("prepare", "--source", tmp_path / "in", "--out", tmp_path / "out", "--workers", 1)


def test_methods_are_given_their_recipes_tracks(
    command: tuple[Any, ...], tmp_path: Path, asked: list[tuple[str, RecipeOptions]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    words = ("--for", "wav2lip,hyperlips_hr", "--recipe.crop", "mesh", "--recipe.pads", "0,10,0,0")
    assert run_bench(*command, *words, "--track-codec", "raw") == 0
    options = RecipeOptions(crop="mesh", pads=(0, 10, 0, 0))
    assert asked == [("wav2lip", options), ("hyperlips_hr", options)]
    told = manifest(tmp_path / "out")
    assert {facts["cut"] for facts in told["tracks"].values()} == {"mesh 96x96", "mesh 128x128"}
    assert told["wanted"]["codec"] == "raw"
    assert "1 clips prepared, 0 already there, 0 failed; 1 tracks mesh 96x96 prepared, 0 already there" in caplog.text
    (tmp_path / "options.yaml").write_text("for: [wav2lip]\nrecipe: {crop: mesh}\ntrack_codec: raw\nboxes: dlib\n")
    assert run_bench(*command, "--config", tmp_path / "options.yaml") == 0
    assert asked[-1] == ("wav2lip", RecipeOptions(crop="mesh"))
    assert "0 tracks mesh 96x96 prepared, 1 already there, 0 failed" in caplog.text
    assert manifest(tmp_path / "out")["boxes"] == {"dlib": {"clips": 1, "failed": 0}}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--for", "wav2lip"), r"weights s3fd: not in .*fetch s3fd.*--recipe\.crop mesh"),
        (("--recipe.crop", "mesh"), r"--recipe without --for\. Expected .*--for"),
        (("--boxes", "retinaface"), r"boxes 'retinaface'\. Expected mediapipe or dlib or s3fd \(--boxes\)"),
        (("--track-codec", "png"), "track-codec"),
    ],
)
def test_what_cannot_be_prepared_is_one_line(
    command: tuple[Any, ...],
    tmp_path: Path,
    asked: list[tuple[str, RecipeOptions]],
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    message: str,
) -> None:
    assert run_bench(*command, *words) > 0
    assert re.search(message, caplog.text + capsys.readouterr().err)
    assert not (tmp_path / "out").exists()
