# SPDX-License-Identifier: Apache-2.0
"""How a method was fed stands in its rows; two recipes are two entries, and no table takes them for one."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lipsync_bench.datamodules.clips.boxes import BoxesHeader, boxes_path, write_boxes
from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.recipes.options import RecipeOptions
from lipsync_bench.evaluation import evaluate_dataset
from lipsync_bench.evaluation.options import Inputs, Selection
from lipsync_bench.models import Wav2Lip
from lipsync_bench.models.core import training
from lipsync_bench.models.core.checkpoint_files import RECORD
from lipsync_bench.models.core.checkpoints import load_checkpoint, save_module
from lipsync_bench.papers.leaderboards import read_sources
from lipsync_bench.results.merge import merge_leaderboards, read_input
from lipsync_bench.results.rows import read_rows
from tests.commands import run_bench

PUBLISHED = "s3fd+0,10,0,0~5 96x96 / same / reflect / box"


@pytest.fixture
def clips(corpus: Path, tmp_path: Path) -> Path:
    """Prepared clips, with boxes that S3FD might have found: 6 px beside those of the mesh."""
    folder = Path(shutil.copytree(corpus / "clips", tmp_path / "clips"))
    for path in folder.glob("*/*.safetensors"):
        with Clip(path) as clip:
            boxes = clip.boxes() + np.array([6, -6, 6, -6], np.float32)
            header = BoxesHeader.of(clip.header, "s3fd", "stand-in")
            write_boxes(boxes_path(path, "s3fd"), header, boxes, np.ones(len(clip), bool))
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_module(Wav2Lip(width=0.125), tmp_path / "wav2lip.ckpt")
    return tmp_path / "wav2lip.ckpt"


def scored(clips: Path, checkpoint: Path, out: Path, recipe: RecipeOptions = RecipeOptions()) -> pd.DataFrame:
    result = evaluate_dataset(
        "synthetic",
        out,
        inputs=Inputs(clips, {"wav2lip": checkpoint}),
        recipe=recipe,
        select=Selection(limit=1),
        progress=False,
    )
    return result.rows[result.rows["method"] == "wav2lip"]


def test_one_checkpoint_fed_in_two_ways_is_two_labelled_entries(clips, checkpoint, tmp_path):
    out = tmp_path / "results"
    scored(clips, checkpoint, out)
    rows = scored(clips, checkpoint, out, RecipeOptions(crop="mesh"))
    assert len(rows) == rows["recipe"].nunique() == 2
    one, two = (rows[rows["recipe_text"].str.startswith(rule)].iloc[0] for rule in ("s3fd", "mesh"))
    assert (one["recipe_text"], one["published"]) == (PUBLISHED, "yes")
    assert two["recipe_text"] == "mesh 96x96 / same / reflect / box"
    assert two["published"] == "no: crop: mesh (published: s3fd+0,10,0,0~5)"
    assert two["trained_otherwise"] == "crop: mesh (trained: s3fd+0,10,0,0~5)"
    assert pd.isna(one["trained_otherwise"])
    assert one["psnr"] != two["psnr"]
    board = pd.read_csv(out / "leaderboard.csv", keep_default_na=False)
    entries = board[board["method"] == "wav2lip"]
    assert sorted(entries["published"]) == sorted([one["published"], two["published"]])
    with pytest.raises(
        ValueError, match=r"has 2 entries for wav2lip \(.*mesh.*s3fd.*Evaluate each into its own folder"
    ):
        read_sources(out)


def test_parts_of_two_recipes_are_merged_as_two_entries_and_never_averaged(clips, checkpoint, tmp_path):
    scored(clips, checkpoint, tmp_path / "one")
    scored(clips, checkpoint, tmp_path / "two", RecipeOptions(references="first"))
    board = merge_leaderboards(*(read_input(tmp_path / name) for name in ("one", "two")))
    entries = board[board["method"] == "wav2lip"]
    assert entries["recipe_text"].tolist().count(PUBLISHED) == 1
    assert "s3fd+0,10,0,0~5 96x96 / first / reflect / box" in set(entries["recipe_text"])
    assert entries["clips"].tolist() == [1, 1]


def test_clips_without_the_detectors_boxes_are_refused_before_anything_is_scored(corpus, checkpoint, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"2 of 2 clips have no boxes of s3fd.*--boxes s3fd.*--recipe.crop mesh"
    ):
        scored(corpus / "clips", checkpoint, tmp_path / "results")
    assert not list(tmp_path.glob("results/clips*.csv"))


def test_methods_of_a_benchmark_that_lack_a_file_are_left_out_unless_named(corpus, checkpoint, tmp_path, caplog):
    for name, recipe in {"meshed": {"crop": "mesh"}, "enhanced": {"crop": "mesh", "enhance": "gfpgan"}}.items():
        save_module(Wav2Lip(width=0.125, recipe=recipe), tmp_path / f"{name}.ckpt")
    names = ("wav2lip", "enhanced", "meshed", "absent")
    data = f"data: {{class_path: lipsync_bench.datamodules.Synthetic, init_args: {{root: {corpus / 'clips'}}}}}\n"
    methods = "".join(f"  {name}: {tmp_path / name}.ckpt\n" for name in names)
    (tmp_path / "mine.yaml").write_text(f"{data}methods:\n{methods}")
    arguments = ("evaluate", "--dataset", tmp_path / "mine.yaml", "--limit", 1, "--out", tmp_path / "out")
    with caplog.at_level(logging.INFO, "lipsync_bench"):
        assert run_bench(*arguments) == 0
    assert "not here yet, and therefore left out: absent" in caplog.text
    assert "left out: wav2lip: 2 of 2 clips have no boxes of s3fd" in caplog.text
    assert "Add them with: bench prepare --boxes s3fd" in caplog.text
    assert "left out: enhanced: weights gfpgan_1_3: not in" in caplog.text
    rows = read_rows(tmp_path / "out")
    assert sorted(rows["method"]) == ["ground_truth", "meshed", "repeated_frame"]
    assert set(rows["status"]) == {"ok"}
    config = json.loads((tmp_path / "out" / "manifest.json").read_text())["sessions"][0]["config"]
    assert list(config["methods"]) == ["meshed"]
    for named in (("--only", "wav2lip,meshed"), ("--methods.wav2lip", checkpoint), ("--only", "enhanced")):
        caplog.clear()
        assert run_bench(*arguments, *named) == 1
        assert f"{'wav2lip: 2 of 2' if 'enhanced' not in named else 'enhanced: weights gfpgan_1_3'}" in caplog.text
    assert len(read_rows(tmp_path / "out")) == 3


def test_a_checkpoint_of_the_first_edition_is_fed_as_that_edition_fed_it(corpus, checkpoint, tmp_path, caplog):
    training._warn_once.cache_clear()  # another test of this process may have been told
    stored = load_checkpoint(checkpoint)
    del stored[RECORD]["recipe"]
    torch.save(stored, tmp_path / "first.ckpt")
    (row,) = scored(corpus / "clips", tmp_path / "first.ckpt", tmp_path / "results").to_dict("records")
    assert row["recipe_text"] == "mesh 96x96 / first / reflect / box"
    assert "written by the first edition" in caplog.text
