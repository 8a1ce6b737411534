# SPDX-License-Identifier: Apache-2.0
"""A method from a checkpoint, from an official weight file of any name, or by the word `official`."""

from pathlib import Path

import pytest
import torch

from lipsync_bench.datamodules.weights.store import Store
from lipsync_bench.models import load_method
from lipsync_bench.weights import import_file
from lipsync_bench.weights.methods import is_word, load_any, method_file
from tests.golden import filled, names_and_shapes


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """weights/ with files of official form, under names of their own."""
    folder = tmp_path_factory.mktemp("weights")
    trained = {f"module.{name}": value for name, value in filled(names_and_shapes("wav2lip")).items()}
    torch.save({"state_dict": trained, "optimizer": None, "global_step": 1, "global_epoch": 1}, folder / "a.pth")
    torch.save({"state_dict": filled(names_and_shapes("hyperlips_hr1"))}, folder / "hyperlipshr_mead_128.pth")
    torch.save({"state_dict": filled(names_and_shapes("hyperlips_base"))}, folder / "hyperlipsbase_mead.pth")
    return folder


def test_an_official_file_is_the_method_that_its_import_makes(files: Path, tmp_path: Path) -> None:
    module = load_any("mine", files / "a.pth", "cpu", Store([files]))
    import_file("wav2lip", files / "a.pth", tmp_path / "a.ckpt")
    imported = load_method(tmp_path / "a.ckpt")
    assert type(module) is type(imported)
    torch.testing.assert_close(module.state_dict(), imported.state_dict(), rtol=0, atol=0)
    assert not module.training
    again = load_any("mine", tmp_path / "a.ckpt", "cpu", Store([files]))
    torch.testing.assert_close(again.state_dict(), imported.state_dict(), rtol=0, atol=0)


def test_a_second_stage_takes_its_first_from_the_store(files: Path, tmp_path: Path) -> None:
    module = load_any("hyperlips_hr", files / "hyperlipshr_mead_128.pth", "cpu", Store([files]))
    import_file("hyperlips_base", files / "hyperlipsbase_mead.pth", tmp_path / "base.ckpt")
    import_file("hyperlips_hr", files / "hyperlipshr_mead_128.pth", tmp_path / "hr.ckpt", base=tmp_path / "base.ckpt")
    torch.testing.assert_close(
        module.checkpoint_state(), load_method(tmp_path / "hr.ckpt").checkpoint_state(), rtol=0, atol=0
    )
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "hyperlipshr_mead_128.pth").write_bytes((files / "hyperlipshr_mead_128.pth").read_bytes())
    with pytest.raises(FileNotFoundError, match="hyperlips_base_mead"):
        load_any("hyperlips_hr", alone / "hyperlipshr_mead_128.pth", "cpu", Store([alone]))


def test_the_word_official_means_the_file_of_the_methods_name(files: Path, tmp_path: Path) -> None:
    store = Store([files], {"wav2lip_gan": files / "a.pth"})
    assert method_file("wav2lip_gan", "official", store) == files / "a.pth"
    assert method_file("mine", Path("official:wav2lip_gan"), store) == files / "a.pth"
    assert method_file("hyperlips_hr", "official", store) == files / "hyperlipshr_mead_128.pth"
    assert method_file("wav2lip", tmp_path / "other.ckpt", store) == tmp_path / "other.ckpt"
    with pytest.raises(FileNotFoundError, match="bench weights fetch wav2lip"):
        method_file("wav2lip", "official", store)


@pytest.mark.parametrize("given", ["official", "official:syncnet_v2", "official:nothing"])
def test_what_is_no_official_method_lists_those(given: str, files: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected official:ID with one of wav2lip, .*hyperlips_base"):
        method_file("mine", given, Store([files]))


def test_a_file_of_that_name_is_no_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_word("official")
    (tmp_path / "official").touch()
    assert not is_word("official")
    assert not is_word(Path("weights/official.pth"))


def test_a_file_that_is_no_method_says_what_is_missing(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth: is not a "):
        load_any("wav2lip", tmp_path / "other.pth", "cpu", Store())
