# SPDX-License-Identifier: Apache-2.0
import json
import shutil

import pytest

from lipsync_bench.cli import doctor
from lipsync_bench.cli.doctor import checks
from lipsync_bench.datamodules.weights.options import WeightOptions
from lipsync_bench.datamodules.weights.store import Store
from tests.weight_files import make_official


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(doctor, "SPEED_SECONDS", 0.2)


def by_name(report):
    return {check.name: check for check in report}


def test_a_working_installation_has_no_failure_and_every_warning_says_what_to_do(corpus, tmp_path, quick):
    report = checks(corpus, Store([tmp_path]))
    assert [check for check in report if check.status == "fail"] == []
    assert [check for check in report if check.status == "warn" and not check.advice] == []
    found = by_name(report)
    assert found["mediapipe"].found == "0.10.21"
    assert "6 clips, 0 failed" in found[f"data {corpus / 'clips'}"].found
    assert "windows/s" in found[f"loader {corpus / 'clips'}"].found
    assert found["weights syncnet_v2"].found == "not here"
    assert found["weights syncnet_v2"].advice.endswith(": bench weights fetch syncnet_v2")
    assert found["weights gfpgan_1_3"].advice.startswith("face enhancement of bench evaluate and bench dub: ")


def test_broken_versions_are_named_with_the_command_that_mends_them(monkeypatch):
    versions = {"torch": "2.9", "numpy": "2.1.0", "mediapipe": "0.10.30", "av": None}
    monkeypatch.setattr(doctor, "versions", lambda: versions)
    monkeypatch.setattr(
        doctor.importlib.metadata,
        "packages_distributions",
        lambda: {"cv2": ["opencv-contrib-python", "opencv-python", "opencv-python"]},
    )
    found = by_name(doctor._packages())
    assert {name for name, check in found.items() if check.status == "fail"} == {"numpy", "mediapipe", "av", "opencv"}
    assert "numpy<2" in found["numpy"].advice
    assert "mediapipe==0.10.21" in found["mediapipe"].advice
    assert "pip uninstall opencv-python;" in found["opencv"].advice


def test_somebody_elses_lightning_is_noticed(monkeypatch, tmp_path):
    script = tmp_path / "lightning"
    script.write_text("from lightning_sdk.cli.entrypoint import main_cli\n")
    monkeypatch.setattr(shutil, "which", lambda name: str(script))
    (check,) = doctor._commands()
    assert check.status == "warn"
    assert "python -m lipsync_bench" in check.advice


def test_weights_are_found_by_their_content(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "any name").write_bytes(b"x")
    (tmp_path / "deep" / "wav2lip.pth").write_bytes(b"y")
    make_official(monkeypatch, "syncnet_v2", tmp_path / "deep" / "any name")
    found = by_name(doctor._weights(Store([tmp_path])))
    assert found["weights syncnet_v2"].status == "ok"
    assert found["weights syncnet_v2"].found == str(tmp_path / "deep" / "any name")
    assert found["weights wav2lip"].status == "warn"
    assert found["weights wav2lip"].advice.endswith(": bench weights fetch wav2lip")


def test_the_json_form_is_json(corpus, tmp_path, quick, capsys):
    assert doctor.doctor(data=corpus, weights=WeightOptions((str(tmp_path),)), as_json=True) == 0
    report = json.loads(capsys.readouterr().out)
    assert {"name", "status", "found", "advice"} == set(report[0])
