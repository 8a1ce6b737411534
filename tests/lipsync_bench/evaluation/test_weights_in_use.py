# SPDX-License-Identifier: Apache-2.0
"""Which weight files an evaluation uses, and what it says of them."""

import re
from pathlib import Path

import pytest
import torch

import lipsync_bench.metrics.sync.lse
from lipsync_bench.datamodules.files.disk import sha256
from lipsync_bench.evaluation import candidates
from lipsync_bench.evaluation.evaluate import evaluate_dataset
from lipsync_bench.evaluation.networks import MetricNetworks
from lipsync_bench.evaluation.options import Inputs, MetricOptions, Selection
from lipsync_bench.models import Wav2Lip
from lipsync_bench.models.core.checkpoints import save_module
from lipsync_bench.results.rows import read_rows
from tests import golden
from tests.commands import run_bench
from tests.quick_networks import QuickSyncNet
from tests.weight_files import given, make_official


def test_a_file_in_weights_is_used_under_any_name_and_rows_say_whose_weights_were_used(corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lipsync_bench.metrics.sync.lse, "load_syncnet", lambda path: QuickSyncNet())
    found = tmp_path / "weights" / "from a colleague" / "sync.bin"
    found.parent.mkdir(parents=True)
    found.write_bytes(b"stands for the weights")
    digest = make_official(monkeypatch, "syncnet_v2", found)
    make_official(monkeypatch, "wav2lip", "ab" * 32)
    torch.manual_seed(0)
    module = Wav2Lip(width=0.125, recipe={"crop": "mesh"})
    save_module(module, tmp_path / "official.ckpt", {"kind": "wav2lip", "sha256": "ab" * 32})
    save_module(module, tmp_path / "other.ckpt", {"kind": "wav2lip", "sha256": "cd" * 32})
    save_module(module, tmp_path / "trained.ckpt")
    methods = {name: tmp_path / f"{name}.ckpt" for name in ("official", "other", "trained")}
    inputs, one = Inputs(corpus / "clips", methods), Selection(limit=1)
    result = evaluate_dataset("synthetic", tmp_path / "out", inputs=inputs, select=one, progress=False)
    rows, board = read_rows(result.folder).set_index("method"), result.leaderboard.set_index("method")
    assert set(rows["lse_sha256"]) == {digest}
    assert rows["lse_c_wav2lip_lrs"].notna().all()
    whose = {"official": "official", "other": "unofficial", "trained": "unofficial"}
    whose |= dict.fromkeys(("ground_truth", "repeated_frame"), "")
    assert rows["generator_weights"].fillna("").to_dict() == board["generator_weights"].to_dict() == whose
    assert set(board["lse_weights"]) == {"official"}
    assert set(board["fid_weights"]) == {""}
    mine = tmp_path / "mine.model"
    mine.write_bytes(b"stands for other weights")
    inputs = Inputs(corpus / "clips", {})
    here = given(syncnet_v2=mine)  # counts more than what is found
    other = evaluate_dataset(
        "synthetic", tmp_path / "b", inputs=inputs, weights=here, select=one, progress=False
    ).leaderboard
    assert set(other["lse_weights"]) == {"unofficial"}


def test_a_second_stage_is_official_only_with_an_official_first(tmp_path, monkeypatch):
    make_official(monkeypatch, "hyperlips_base", "ab" * 32)
    make_official(monkeypatch, "hyperlips_hr", "cd" * 32)
    module, whose = Wav2Lip(width=0.125, recipe={"crop": "mesh"}), {}
    for base in ("ab" * 32, "ef" * 32, ""):
        origin = {"sha256": "cd" * 32, "base_sha256": "12" * 32, "base_origin_sha256": base}
        save_module(module, tmp_path / "hr.ckpt", origin)
        whose[base] = candidates.Checkpoint("hr", tmp_path / "hr.ckpt").weights
    assert list(whose.values()) == ["official", "unofficial", "unofficial"]


@pytest.mark.parametrize(("changed", "whose"), [("", "official"), ("base", "unofficial"), ("hr1", "unofficial")])
def test_an_official_second_stage_needs_an_official_first_one_in_the_store(changed, whose, tmp_path, monkeypatch):
    files = {}
    for part, id in (("hr1", "hyperlips_hr"), ("base", "hyperlips_base_mead")):
        files[part] = tmp_path / f"{part}.pth"
        torch.save({"state_dict": golden.filled(golden.names_and_shapes(f"hyperlips_{part}"))}, files[part])
        make_official(monkeypatch, id, "ab" * 32 if part == changed else files[part])
    store = given(hyperlips_base_mead=files["base"]).store
    candidate = candidates.Checkpoint("hyperlips_hr", files["hr1"], store=store)
    assert candidate.weights == whose
    assert candidate.sha256 == sha256(files["hr1"])  # the same row's name, whatever its base


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("synknet_v2=x.pth", r"error: weights 'synknet_v2': no such id\. Expected one of .*syncnet_v2.*weights list"),
        (
            "syncnet_v2=none.pth",
            r"error: none\.pth: no such file\. Expected syncnet_v2\.model .*weights where syncnet_v2",
        ),
        ("syncnet_v2=.", r"error: \.: is a folder\. Expected syncnet_v2\.model"),
        ("nowhere", r"error: --weights nowhere: no such folder\. Expected a folder of weight files, or ID=FILE"),
        ("syncnet_v2=", r"error: --weights syncnet_v2=?: no such folder"),
    ],
)
@pytest.mark.parametrize(
    "command", ["evaluate --dataset synthetic --root CLIPS --out out", "sync talk.mp4", "doctor --data CLIPS"]
)
def test_wrong_weights_are_one_line(corpus, tmp_path, monkeypatch, caplog, command, words, message):
    monkeypatch.chdir(tmp_path)
    Path("x.pth").touch()
    typed = [str(corpus / "clips") if word == "CLIPS" else word for word in command.split()]
    assert run_bench(*typed, "--weights", words) == 1
    (line,) = (message for message in caplog.messages if message.startswith("error"))
    assert re.match(message, line), line
    assert "\n" not in line
    assert not Path("out").exists()


def test_the_pipelines_detector_alone_is_not_used(tmp_path):
    """It finds faces for SyncNet; its file need not even be read."""
    (tmp_path / "sfd_face.pth").write_bytes(b"no weights")
    networks = MetricNetworks(MetricOptions(), given(sfd_face=tmp_path / "sfd_face.pth").store)
    assert networks.loaded == {}
    assert set(networks.identity.values()) == {""}
