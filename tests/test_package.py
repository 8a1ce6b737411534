# SPDX-License-Identifier: Apache-2.0
"""One installed package: the wheel beside a foreign `models`, a plain checkout, and names of the first edition."""

import logging
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import lipsync_bench
from lipsync_bench.cli.lightning import main
from lipsync_bench.models import Wav2Lip, load_method
from lipsync_bench.models.core.checkpoints import RECORD, save_module
from lipsync_bench.old_names import renamed, renamed_words

ROOT = Path(__file__).parents[1]
FOLDERS = ("datamodules", "experiments", "metrics", "models")


def run(code: str, folder: Path, *paths: Path) -> str:
    """What Python prints that starts in `folder` and looks for packages there, then in `paths`."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that a wheel is built from, in a folder of their own, links as links."""
    folder = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    for name in (*FOLDERS, "lipsync_bench"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def installed(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what the wheel installs."""
    folder = tmp_path_factory.mktemp("wheel")
    run(f"from setuptools.build_meta import build_wheel; build_wheel({str(folder)!r})", checkout)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.fixture(params=[True, False], ids=["package", "namespace"])
def foreign(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A project that has folders called as ours, with and without `__init__.py`."""
    for name in ("models", "metrics", "datamodules"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "theirs.py").write_text("class Wav2Lip:\n    pass\n\n\nclass Wav2Net:\n    pass\n")
        if request.param:
            (tmp_path / name / "__init__.py").write_text("from models.theirs import Wav2Lip, Wav2Net\n")
    return tmp_path


def test_a_wheel_has_one_top_level_name_and_all_files(installed: Path) -> None:
    tops = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert tops == {"lipsync_bench"}
    folders = [(name, ".py") for name in FOLDERS if name != "experiments"]
    for folder, suffix in (*folders, ("experiments", ".yaml"), ("datamodules", ".yaml")):
        shipped = {
            str(path.relative_to(installed / "lipsync_bench"))
            for path in (installed / "lipsync_bench" / folder).rglob(f"*{suffix}")
        }
        assert shipped == {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob(f"*{suffix}")}
    assert (installed / "lipsync_bench" / "py.typed").is_file()


CODE = """
import models.theirs, lipsync_bench.evaluation, lipsync_bench.models
from lipsync_bench.evaluation import list_protocols, evaluate_videos
print(models.theirs.__file__, lipsync_bench.models.Wav2Lip.__module__, len(list_protocols()) > 4)
"""


def test_the_wheel_works_beside_a_foreign_models(installed: Path, foreign: Path) -> None:
    theirs, ours, protocols = run(CODE, foreign, installed).split()
    assert Path(theirs) == foreign / "models" / "theirs.py"
    assert (ours, protocols) == ("lipsync_bench.models.wav2lip.module", "True")


def test_an_editable_install_works_beside_a_foreign_models(foreign: Path) -> None:
    assert run(CODE, foreign).split()[0] == str(foreign / "models" / "theirs.py")


@pytest.mark.parametrize("foreign", [True], ids=["package"], indirect=True)
def test_a_checkout_works_beside_a_foreign_models_and_where_links_are_text(checkout: Path, foreign: Path) -> None:
    """git writes links as text files where the system has none. A checkout that is itself on the path of packages has
    a `models` there, which Python takes before a folder without `__init__.py`.
    """
    assert run(CODE, foreign, checkout).split()[0] == str(foreign / "models" / "theirs.py")
    texts = foreign / "checkout"
    shutil.copytree(checkout, texts, symlinks=True)
    for name in FOLDERS:
        (texts / "lipsync_bench" / name).unlink()
        (texts / "lipsync_bench" / name).write_text(f"../{name}")
    code = "from lipsync_bench import models, experiment_files as e; print(models.__file__, e.installed_experiments())"
    found, ours = run(CODE + code, foreign, texts).splitlines()
    assert found.split()[0] == str(foreign / "models" / "theirs.py")
    assert ours.split() == [str(texts / "models" / "__init__.py"), str(texts / "experiments")]


@pytest.mark.parametrize("name", FOLDERS)
def test_links_lead_to_the_folders_beside_the_package(name: str) -> None:
    assert (ROOT / "lipsync_bench" / name).resolve() == ROOT / name


def test_names_of_the_first_edition_are_taken_with_a_line(caplog: pytest.LogCaptureFixture) -> None:
    config = {"model": {"class_path": "models.Wav2Lip"}, "data": [{"class_path": "datamodules.lrs2.LRS2"}, 3]}
    new = {
        "model": {"class_path": "lipsync_bench.models.Wav2Lip"},
        "data": [{"class_path": "lipsync_bench.datamodules.LRS2"}, 3],
    }
    with caplog.at_level(logging.WARNING, logger="lipsync_bench"):
        assert renamed(config) == new
    assert caplog.messages == [
        "models.Wav2Lip is spelled lipsync_bench.models.Wav2Lip now; please write it so.",
        "datamodules.lrs2.LRS2 is spelled lipsync_bench.datamodules.LRS2 now; please write it so.",
    ]
    assert renamed(new) == new
    assert renamed_words(["fit", "--model=models.Wav2Lip", "--data", "datamodules.LRS2", "--x", "models.Wav2Lip"]) == [
        "fit", "--model=lipsync_bench.models.Wav2Lip", "--data", "lipsync_bench.datamodules.LRS2", "--x",
        "models.Wav2Lip",
    ]  # fmt: skip


@pytest.mark.parametrize("path", ["models.Wav3Lip", "mine.models.Wav2Lip", "models.", "models.a b", "metrics.PSNR", ""])
def test_other_names_stay(path: str) -> None:
    assert renamed({"class_path": path}) == {"class_path": path}


def test_a_class_of_the_user_with_such_a_name_is_meant(installed: Path, foreign: Path) -> None:
    code = "from lipsync_bench.old_names import renamed_words as r; print(*r(['--model', {!r}]))"
    assert run(code.format("models.theirs.Wav2Lip"), foreign, installed) == "--model models.theirs.Wav2Lip"
    assert run(code.format("models.wav2lip.Wav2Lip"), foreign, installed) == "--model lipsync_bench.models.Wav2Lip"


def test_a_checkpoint_of_the_first_edition_loads(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    module = Wav2Lip(width=0.125, recipe={"crop": "mesh"})
    save_module(module, tmp_path / "new.ckpt")
    checkpoint: dict[str, Any] = torch.load(tmp_path / "new.ckpt", weights_only=True)
    assert checkpoint[RECORD]["class_path"] == "lipsync_bench.models.Wav2Lip"
    checkpoint[RECORD]["class_path"] = "models.wav2lip.Wav2Lip"
    torch.save(checkpoint, tmp_path / "old.ckpt")
    with caplog.at_level(logging.INFO, logger="lipsync_bench"):
        loaded = load_method(tmp_path / "old.ckpt")
    assert isinstance(loaded, Wav2Lip)
    assert caplog.messages == [
        f"{tmp_path / 'old.ckpt'}: holds a models.wav2lip.Wav2Lip, which is called lipsync_bench.models.Wav2Lip now."
    ]
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in module.state_dict().items())


def test_a_yaml_of_the_first_edition_trains(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run_yaml = {
        "model": {"class_path": "models.SyncExpertModule", "init_args": {"width": 0.125, "recipe": {"crop": "mesh"}}},
        "data": {
            "class_path": "datamodules.Synthetic",
            "init_args": {"root": str(corpus / "clips"), "window": "expert", "batch_size": 2, "num_workers": 0},
        },
        "trainer": {"max_steps": 1, "accelerator": "cpu", "logger": False, "limit_val_batches": 0},
    }
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(run_yaml))
    monkeypatch.chdir(tmp_path)
    main(["fit", "-c", "old.yaml"])
    assert "models.SyncExpertModule is spelled lipsync_bench.models.SyncExpertModule now" in caplog.text


def test_the_package_says_where_it_is() -> None:
    assert Path(lipsync_bench.__file__).parent == ROOT / "lipsync_bench"
