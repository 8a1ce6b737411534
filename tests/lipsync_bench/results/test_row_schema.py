# SPDX-License-Identifier: Apache-2.0
"""The JSON schema of rows: it can be printed, and accepts only what a run writes."""

import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from jsonschema import Draft202012Validator

from lipsync_bench.evaluation.evaluate import evaluate_dataset
from lipsync_bench.evaluation.options import Inputs, Running
from lipsync_bench.metrics.registry import CLIP_COLUMNS
from lipsync_bench.models import Wav2Lip
from lipsync_bench.models.core.checkpoints import save_module
from lipsync_bench.results.row_schema import row_schema
from lipsync_bench.results.rows import CURVES, ENTRY, FIELDS, NETWORK_HASHES, RowFile

SCHEMA = row_schema()
CURVE = " ".join(["nan", "-0.25", "1e-05", *(f"{k / 7:.17g}" for k in range(28))])


def problems(record: dict[str, object]) -> list[str]:
    errors = Draft202012Validator(SCHEMA).iter_errors(record)
    return sorted(f"{'.'.join(map(str, error.path)) or 'row'}: {error.message}" for error in errors)


def records(path: Path) -> list[dict[str, object]]:
    """The rows of a clips.csv as the schema describes them, read without pandas."""

    def cell(name: str, text: str) -> object:
        rule = SCHEMA["properties"][name]
        is_text = "enum" in rule or "string" in rule.get("type", ())
        if text == "" or is_text or text == "inf":
            return text or None
        return float(text) if set(text) & set(".en") else int(text)

    with path.open(newline="", encoding="utf-8") as file:
        return [{name: cell(name, text) for name, text in line.items()} for line in csv.DictReader(file)]


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A clips.csv with a full row, an unpaired one without target metrics, identical images, and a failed one."""
    base = {"protocol": "paired_face_box-v2", "method": "x", "clip": "007/1", "audio_clip": "007/1", "status": "ok"}
    base |= {"frames": 40, "frames_target": 40, "fallback_frames": 0, "package_version": "0.1.0", "speaker": "007"}
    metrics = {c.name: (c.bounds[0] + min(c.bounds[1], 1)) / 2 + 12 * (c.name == "psnr_uint8") for c in CLIP_COLUMNS}
    hashes = dict.fromkeys((*NETWORK_HASHES, "generator_sha256"), "5c" * 32)
    full = {**base, **metrics, **hashes, **dict.fromkeys(CURVES, CURVE), "seconds": 1.5, "generate_seconds": 0.25}
    unpaired = {**full, "audio_clip": "008/2", "paste": "parsing 0123456789ab"}
    unpaired |= {c.name: None for c in CLIP_COLUMNS if c.reference == "target"}
    same = {**base, "method": "ground_truth", "psnr": math.inf, "psnr_mouth": math.inf, "ssim": 1.0}
    failed = {name: base[name] for name in ("protocol", "clip", "audio_clip", "package_version")}
    failed |= {"method": "y", "status": "failed", "reason": "MediaError: no frame to score"}
    path = tmp_path_factory.mktemp("schema") / "clips.csv"
    file = RowFile(path)
    for item in (full, unpaired, same, failed):
        file.append(item)
    file.close()
    return path


def test_the_printed_schema_is_what_is_built():
    command = [sys.executable, "-m", "lipsync_bench.results.row_schema"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    assert json.loads(done.stdout) == SCHEMA
    assert list(json.loads(done.stdout)["properties"]) == SCHEMA["required"] == list(FIELDS)


def test_it_is_a_schema_and_describes_every_field():
    Draft202012Validator.check_schema(SCHEMA)
    assert all(len(rule["description"]) > 10 for rule in SCHEMA["properties"].values())
    for column in CLIP_COLUMNS:
        described = SCHEMA["properties"][column.name]["description"]
        assert column.meaning in described
        assert column.source in described
    assert "Neither direction is better" in SCHEMA["properties"]["psnr_uint8"]["description"]
    ssim, lmd = (SCHEMA["properties"][name]["description"] for name in ("ssim", "lmd"))
    assert ssim.startswith("SSIM. How alike")
    assert "Higher is better; compared with the same frame of the real video." in ssim
    assert lmd.startswith("LMD in px. Mean distance")


def test_every_written_row_fits(written):
    rows = records(written)
    assert [record["status"] for record in rows] == ["ok", "ok", "ok", "failed"]
    assert (rows[0]["speaker"], rows[2]["psnr"], rows[1]["psnr"]) == ("007", "inf", None)
    for record in rows:
        assert problems(record) == []


def test_every_row_of_a_real_evaluation_fits(corpus, tmp_path):
    torch.manual_seed(0)
    save_module(Wav2Lip(width=0.0625, recipe={"crop": "mesh"}), tmp_path / "one.ckpt")
    methods = {"one": tmp_path / "one.ckpt"}
    out = tmp_path / "out"
    evaluate_dataset(
        "synthetic",
        out,
        inputs=Inputs(root=corpus / "clips", methods=methods),
        running=Running(device="cpu"),
        progress=False,
    )
    rows = records(out / "clips.csv")
    assert {record["method"] for record in rows} == {"ground_truth", "repeated_frame", "one"}
    assert {record["psnr"] for record in rows if record["method"] == "ground_truth"} == {"inf"}
    for record in rows:
        assert problems(record) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ssim": 1.5}, "ssim: 1.5 is greater than the maximum of 1"),
        ({"lmd": -0.1}, "lmd: -0.1 is less than the minimum of 0"),
        ({"lmd": "inf"}, "lmd: 'inf' is not of type 'number', 'null'"),
        ({"psnr": "infinite"}, "psnr: 'infinite' is not valid under any of the given schemas"),
        ({"psnr_uint8": 23.0}, "psnr_uint8: 23.0 is less than the minimum of 24"),
        ({"frames": 0}, "frames: 0 is less than the minimum of 1"),
        ({"frames": None}, "frames: None is not of type 'integer'"),
        ({"status": "maybe"}, "status: 'maybe' is not one of"),
        ({"generator_sha256": "abc"}, "generator_sha256: 'abc' does not match"),
        ({"protocol": "paired"}, "protocol: 'paired' does not match"),
        ({"reason": "because"}, "reason: 'because' is not of type 'null'"),
        ({"paste": ""}, "paste: '' "),
        ({"audio_clip": None}, "audio_clip: None is not of type 'string'"),
        ({CURVES[0]: CURVE + " 1"}, f"{CURVES[0]}: "),
        ({CURVES[1]: CURVE.replace("nan", "x")}, f"{CURVES[1]}: "),
        ({"psrn": 30.0}, "row: Additional properties are not allowed ('psrn' was unexpected)"),
    ],
)
def test_a_wrong_row_does_not_fit(written, change, message):
    record = records(written)[0]
    (found,) = problems({**record, **change})
    assert found.startswith(message)


def test_a_failed_row_needs_its_reason_and_every_row_every_field(written):
    failed = records(written)[3]
    assert problems({**failed, "reason": None}) == ["reason: None is not of type 'string'"]
    for name in (*ENTRY, "fid_sha256"):
        missing = {key: value for key, value in failed.items() if key != name}
        assert problems(missing) == [f"row: '{name}' is a required property"]


@pytest.mark.parametrize("text", ["box", "contour", "parsing 0123456789ab", "whole frame, feathered"])
def test_a_way_of_pasting_is_any_text(written, text):
    assert problems({**records(written)[0], "paste": text}) == []
