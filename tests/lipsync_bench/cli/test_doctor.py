# SPDX-License-Identifier: Apache-2.0
import json
import shutil

import pytest

from lipsync_bench.cli import doctor
from lipsync_bench.cli.doctor import checks


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(doctor, "SPEED_SECONDS", 0.2)


def by_name(report):
    return {check.name: check for check in report}


def test_a_working_installation_has_no_failure_and_every_warning_says_what_to_do(corpus, tmp_path, quick):
    report = checks(corpus, tmp_path)
    assert [check for check in report if check.status == "fail"] == []
    assert [check for check in report if check.status == "warn" and not check.advice] == []
    found = by_name(report)
    assert found["mediapipe"].found == "0.10.21"
    assert "6 clips, 0 failed" in found[f"data {corpus / 'clips'}"].found
    assert "windows/s" in found[f"loader {corpus / 'clips'}"].found
    assert "none in" in found["weights syncnet_v2"].found


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


def test_weights_are_found_by_their_names(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "syncnet_v2.model").write_bytes(b"x")
    found = by_name(doctor._weights(tmp_path))
    assert found["weights syncnet_v2"].status == "ok"
    assert "2d711642b726" in found["weights syncnet_v2"].found  # the hash of b"x"
    assert found["weights wav2lip"].status == "warn"
    assert "github.com/Rudrabha/Wav2Lip" in found["weights wav2lip"].advice


def test_the_json_form_is_json(corpus, tmp_path, quick, capsys):
    assert doctor.doctor(data=corpus, weights=tmp_path, as_json=True) == 0
    report = json.loads(capsys.readouterr().out)
    assert {"name", "status", "found", "advice"} == set(report[0])
