# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in half precision, as the package ships one, and the word that means it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lipsync_bench.datamodules.recipes.options import RecipeOptions
from lipsync_bench.datamodules.weights.store import Store
from lipsync_bench.evaluation import evaluate_dataset
from lipsync_bench.evaluation.options import Inputs, Selection
from lipsync_bench.models import SyncExpertModule, Wav2Lip, load_expert, load_method
from lipsync_bench.models.core.checkpoints import RECORD, is_checkpoint, pack_checkpoint, read_about, save_module
from lipsync_bench.models.core.inputs import FaceInputs
from lipsync_bench.weights.methods import PRETRAINED_FILE, load_any, method_file
from tests.commands import run_bench


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint, and the same packed by the command."""
    folder = tmp_path_factory.mktemp("packed")
    torch.manual_seed(0)
    save_module(Wav2Lip(width=0.125, recipe={"crop": "mesh", "paste": "feather"}), folder / "m.ckpt")
    out = folder / "m.safetensors"
    flags = ("--about.about", "of nobody", "--about.licence", "Apache-2.0")
    assert run_bench("weights", "pack", str(folder / "m.ckpt"), "--out", str(out), *flags) == 0
    return folder / "m.ckpt", out


def test_a_packed_checkpoint_is_the_method_in_half_the_room(packed: tuple[Path, Path]) -> None:
    whole, half = (load_method(path) for path in packed)
    assert type(half) is Wav2Lip
    assert half.recipe == whole.recipe
    assert {x.dtype for x in half.parameters()} == {torch.float32}
    assert not half.training
    inputs = FaceInputs.of(torch.randn(2, 1, 80, 16), torch.rand(2, 3, 96, 96), torch.rand(2, 3, 96, 96))
    torch.testing.assert_close(half.generate(inputs).frames, whole.generate(inputs).frames, atol=2e-3, rtol=0)
    assert packed[1].stat().st_size < 0.6 * packed[0].stat().st_size
    assert read_about(packed[1]) == {"about": "of nobody", "licence": "Apache-2.0"}
    assert read_about(packed[0]) == {}


def test_what_is_said_of_weights_is_shown_where_they_are_used(
    packed: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    load_any("wav2lip", packed[1], "cpu", Store())
    assert "m.safetensors: of nobody" in caplog.text


def test_an_expert_is_packed_too(tmp_path: Path) -> None:
    save_module(SyncExpertModule(width=0.125), tmp_path / "e.ckpt")
    pack_checkpoint(tmp_path / "e.ckpt", tmp_path / "e.safetensors", {})
    assert load_expert(tmp_path / "e.safetensors").image_size == 96


@pytest.mark.parametrize("head", ["", "[1]", "7", '{"lipsync_bench": 3}', "{" * 5000])
def test_a_head_that_is_no_record_is_an_error_that_names_the_file(
    head: str, packed: tuple[Path, Path], tmp_path: Path
) -> None:
    save_file(load_file(packed[1]), tmp_path / "x.safetensors", {RECORD: head})
    with pytest.raises(ValueError, match=r"x\.safetensors: .*Expected"):
        load_method(tmp_path / "x.safetensors")


def test_safetensors_of_others_are_no_checkpoint(packed: tuple[Path, Path], tmp_path: Path) -> None:
    save_file(load_file(packed[1]), tmp_path / "x.safetensors")
    assert not is_checkpoint(tmp_path / "x.safetensors")
    save_file(load_file(packed[1]), tmp_path / "y.safetensors", {RECORD: json.dumps({"other": 1})})
    assert not is_checkpoint(tmp_path / "y.safetensors")


def test_a_weight_too_large_for_half_precision_is_refused(tmp_path: Path) -> None:
    module = Wav2Lip(width=0.125)
    with torch.no_grad():
        next(module.parameters())[0] = 1e6
    save_module(module, tmp_path / "m.ckpt")
    with pytest.raises(ValueError, match=r"m\.ckpt: generator\..* not finite"):
        pack_checkpoint(tmp_path / "m.ckpt", tmp_path / "m.safetensors", {})
    assert not (tmp_path / "m.safetensors").exists()


def test_the_word_pretrained_means_the_package_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert method_file("mine", Path("pretrained"), Store()) == PRETRAINED_FILE
    (tmp_path / "pretrained").mkdir()  # a run's folder of that name is one
    assert method_file("mine", Path("pretrained"), Store()) == Path("pretrained/last.ckpt")


def test_the_package_s_own_weights_say_what_they_are() -> None:
    about = read_about(PRETRAINED_FILE)
    assert about["about"].endswith("on others it is a demonstration only")
    assert (about["command"], about["licence"]) == ("make pretrained", "Apache-2.0")
    assert PRETRAINED_FILE.stat().st_size < 8_000_000
    module = load_any("wav2lip", PRETRAINED_FILE, "cpu", Store())
    assert module.recipe.text() == "mesh 96x96 / same / reflect / feather"


def test_the_package_s_own_weights_draw_the_mouth_from_the_audio(corpus: Path, tmp_path: Path) -> None:
    clips, select = corpus / "clips", Selection(limit=2, only=("own", "repeated_frame"))
    options = RecipeOptions(references="first")  # which hardly shows the mouth that is to be drawn
    inputs = Inputs(clips, {"own": PRETRAINED_FILE})
    rows = evaluate_dataset("synthetic", tmp_path, inputs=inputs, select=select, recipe=options, progress=False).rows
    found = rows[rows["status"] == "ok"].groupby("method")[["psnr_mouth", "lmd_centred"]].mean()
    assert found.loc["own", "psnr_mouth"] > found.loc["repeated_frame", "psnr_mouth"] + 2
    assert found.loc["own", "lmd_centred"] < found.loc["repeated_frame", "lmd_centred"] - 0.5
