# SPDX-License-Identifier: Apache-2.0
"""What there is on Linux alone is asked for where it is used, so that the package imports on macOS and Windows."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from lipsync_bench.results import rows
from lipsync_bench.results.rows import RowFile, read_rows

ROOT = Path(__file__).parents[2]
IMPORT_ALL = """
import builtins, importlib, os, pkgutil, sys
import torch, pytorch_lightning, torchvision, mediapipe, cv2, dlib, pandas, matplotlib, skimage.data, lpips  # may look

usual = builtins.__import__

def without(name, globals=None, locals=None, fromlist=(), level=0):
    if name == "fcntl" and (globals or {}).get("__name__", "").startswith("lipsync_bench"):
        raise ImportError("no fcntl here")
    return usual(name, globals, locals, fromlist, level)

import lipsync_bench
names = ["lipsync_bench", *(m.name for m in pkgutil.walk_packages(lipsync_bench.__path__, "lipsync_bench."))]
builtins.__import__ = without
del os.sched_getaffinity
for name in names:
    importlib.import_module(name)
print(len(names))
"""
ROW = {"protocol": "p-v1", "method": "m", "clip": "s/0", "audio_clip": "s/0", "status": "ok", "package_version": "0"}


@pytest.mark.slow
def test_every_module_imports_without_what_linux_alone_has():
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) > 150


def test_rows_are_written_without_locks_and_that_is_said_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    rows._say_without_locks.cache_clear()
    with caplog.at_level(logging.WARNING, "lipsync_bench"):
        for number in range(2):
            file = RowFile(tmp_path / "clips.csv")
            file.append({**ROW, "clip": f"s/{number}", "audio_clip": f"s/{number}"})
            file.close()
    assert list(read_rows(tmp_path)["clip"]) == ["s/0", "s/1"]
    assert [message.partition(".")[0] for message in caplog.messages] == ["this system has no file locks"]
    rows._say_without_locks.cache_clear()
