# SPDX-License-Identifier: Apache-2.0
"""Fixtures for the tests of every layer."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session", autouse=True)
def no_weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No weight file of this machine takes part: variables, caches and working folder point at an empty folder."""
    empty = tmp_path_factory.mktemp("machine")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("LIPSYNC_WEIGHTS", "HF_HUB_CACHE"):
            patch.delenv(name, raising=False)
        for name in ("TORCH_HOME", "XDG_CACHE_HOME", "HF_HOME"):
            patch.setenv(name, str(empty / name))
        patch.chdir(empty)
        yield


@pytest.fixture(scope="session")
def real_clips() -> Path:
    """A folder of real talking-face videos (talk1.mp4 ... talk5.mp4, audio1.wav, audio2.wav), which is not
    distributed.
    """
    folder = Path(os.environ.get("LIPSYNC_CLIPS", REPOSITORY.parent / "shared" / "clips"))
    if not (folder / "talk1.mp4").is_file():
        pytest.skip(f"no real clips: {folder} has no talk1.mp4 (set LIPSYNC_CLIPS to a folder that has)")
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small synthetic corpus, prepared: `videos/` as LRS2 lays them out, `clips/` for the data modules. Read only."""
    from lipsync_bench.datamodules.datasets.synthetic import make_corpus
    from lipsync_bench.datamodules.faces.crop_rules.boxes import FaceMeshBox
    from lipsync_bench.datamodules.prepare.options import PrepareOptions
    from lipsync_bench.datamodules.prepare.prepare import prepare
    from lipsync_bench.datamodules.recipes.recipe import Recipe

    folder = tmp_path_factory.mktemp("corpus")
    make_corpus(folder / "videos", speakers=2, clips_per_speaker=3, seconds=1.6, seed=7, workers=1, progress=False)
    recipes = [Recipe(FaceMeshBox(), (size, size)) for size in (96, 128, 256)]  # as {crop: mesh} of several methods
    options = PrepareOptions("synthetic", workers=1)
    report = prepare(folder / "videos", folder / "clips", options, recipes=recipes, progress=False)
    assert (report.done, report.failed) == (6, 0)
    return folder
