# SPDX-License-Identifier: Apache-2.0
"""Videos that the tests of preparation share."""

import shutil
from pathlib import Path

import pytest

from tests.datamodules.preparation import write_video


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("good") / "good.mp4")


@pytest.fixture
def source(tmp_path: Path, good: Path) -> Path:
    """Three good videos of three speakers."""
    for name in ("anna/1.mp4", "bob/1.mp4", "zoë/клип 7.mp4"):
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        shutil.copy(good, tmp_path / "in" / name)
    return tmp_path / "in"
