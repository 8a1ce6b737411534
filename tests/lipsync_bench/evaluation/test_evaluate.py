# SPDX-License-Identifier: Apache-2.0
"""Evaluation as a whole: real videos of the synthetic corpus, an untrained method, interruptions, wrong inputs."""

import gc
import json
import shutil
import weakref
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import lipsync_bench.metrics.image.cpbd
import lipsync_bench.metrics.image.psnr
import lipsync_bench.metrics.image.ssim
import lipsync_bench.metrics.sync.lse
from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.media.audio import frame_mels, load_audio, to_int16
from lipsync_bench.datamodules.media.video import VideoWriter, read_frames
from lipsync_bench.evaluation import candidates, run
from lipsync_bench.evaluation.evaluate import evaluate_dataset, evaluate_videos
from lipsync_bench.evaluation.options import Inputs, MetricOptions, Selection
from lipsync_bench.evaluation.target import chunks as targets
from lipsync_bench.evaluation.target import regions
from lipsync_bench.metrics.image.psnr import psnr
from lipsync_bench.metrics.image.ssim import ssim
from lipsync_bench.metrics.metric import Audio, ScoredClip, View
from lipsync_bench.metrics.registry import METRICS
from lipsync_bench.metrics.sync import expert as expert_sync
from lipsync_bench.metrics.sync.lse import score_clip
from lipsync_bench.models import SyncExpertModule, Wav2Lip
from lipsync_bench.models.core.checkpoints import save_module
from lipsync_bench.results.leaderboard import write_leaderboard
from lipsync_bench.results.rows import read_rows
from tests.quick_networks import QuickSyncNet
from tests.weight_files import given

WITHOUT_TIME = ["seconds", "generate_seconds"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    save_module(Wav2Lip(width=0.125, recipe={"crop": "mesh"}), folder / "wav2lip.ckpt")
    save_module(SyncExpertModule(width=0.125), folder / "expert.ckpt")
    return folder


@pytest.fixture(scope="module")
def result(corpus, weights, tmp_path_factory):
    """One whole evaluation: two test clips, three candidates, the expert as metric network."""
    return evaluate(corpus, weights, tmp_path_factory.mktemp("results") / "whole")


def evaluate(corpus, weights, out, root=None, methods=None, **more):
    methods = {"wav2lip": weights / "wav2lip.ckpt"} if methods is None else methods
    more = {"metrics": MetricOptions(expert=weights / "expert.ckpt"), **more}
    return evaluate_dataset("synthetic", out, inputs=Inputs(root or corpus / "clips", methods), progress=False, **more)


def comparable(folder: Path) -> pd.DataFrame:
    return read_rows(folder).drop(columns=WITHOUT_TIME)


def test_every_candidate_has_a_row_for_every_clip_and_the_ground_truth_is_best(result):
    rows = read_rows(result.folder)
    assert sorted(set(rows["method"])) == ["ground_truth", "repeated_frame", "wav2lip"]
    assert (rows["status"] == "ok").all()
    assert rows.groupby("method")["clip"].nunique().tolist() == [2, 2, 2]
    board = result.leaderboard.set_index("method")
    assert board.loc["ground_truth", "psnr"] == np.inf
    assert board.loc["ground_truth", "ssim"] == 1
    assert board.loc["ground_truth", "lmd"] == 0
    for name in ("repeated_frame", "wav2lip"):
        assert 5 < board.loc[name, "psnr"] < 40
        assert board.loc[name, "ssim"] < 0.99
    assert board.loc["repeated_frame", "lmd"] > 0.5


def test_a_row_records_what_it_was_measured_with(result, weights):
    from lipsync_bench.datamodules.files.disk import sha256

    rows = read_rows(result.folder)
    wav2lip = rows[rows["method"] == "wav2lip"].iloc[0]
    assert wav2lip["protocol"] == "paired_face_box-v2"
    assert wav2lip["generator_sha256"] == sha256(weights / "wav2lip.ckpt")
    assert wav2lip["expert_sha256"] == sha256(weights / "expert.ckpt")
    assert np.isnan(wav2lip["lse_c_wav2lip_lrs"])  # no official weights, no LSE
    manifest = json.loads((result.folder / "manifest.json").read_text())
    assert manifest["methods"]["wav2lip"] == wav2lip["generator_sha256"]
    (session,) = manifest["sessions"]
    assert session["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]


def test_an_interrupted_run_is_resumed_and_ends_with_the_same_rows(corpus, weights, result, tmp_path, monkeypatch):
    out = tmp_path / "interrupted"
    real, calls = candidates.RepeatedFrame.frames, []

    def interrupt(self, chunk):
        calls.append(chunk.clip)
        if len(set(calls)) == 2:
            raise KeyboardInterrupt
        return real(self, chunk)

    monkeypatch.setattr(candidates.RepeatedFrame, "frames", interrupt)
    with pytest.raises(KeyboardInterrupt):
        evaluate(corpus, weights, out)
    monkeypatch.undo()
    assert 0 < len(read_rows(out)) < 6

    rows_file = out / "clips.csv"
    rows_file.write_bytes(rows_file.read_bytes() + b"paired_face_box-v2,wav2l")  # what a kill in mid-write leaves
    evaluate(corpus, weights, out)
    pd.testing.assert_frame_equal(comparable(out), comparable(result.folder))
    before = rows_file.read_bytes()
    evaluate(corpus, weights, out)
    assert rows_file.read_bytes() == before  # nothing twice


def test_two_ranks_share_the_clips_and_together_have_the_same_rows(corpus, weights, result, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    evaluate(corpus, weights, tmp_path)
    share = pd.read_csv(tmp_path / "clips.rank1.csv")["clip"]
    assert 0 < len(set(share)) < len(set(result.rows["clip"]))
    monkeypatch.setenv("RANK", "0")
    evaluate(corpus, weights, tmp_path)
    pd.testing.assert_frame_equal(comparable(tmp_path), comparable(result.folder))
    assert {path.name for path in tmp_path.glob("clips*.csv")} == {"clips.csv"}  # joined by the last one
    assert (tmp_path / "leaderboard.csv").read_bytes() == (result.folder / "leaderboard.csv").read_bytes()


def test_the_target_is_decoded_once_for_all_candidates_and_its_landmarks_are_kept(
    corpus, weights, tmp_path, monkeypatch
):
    decoded, searched = [], []
    read, find = targets.read_frames, targets.find_landmarks

    def counting_read(path, fps, *rest):
        decoded.append(path)
        return read(path, fps, *rest)

    def counting_find(frames, *rest):
        searched.append(len(frames))
        return find(frames, *rest)

    monkeypatch.setattr(targets, "read_frames", counting_read)
    for module in (run, targets):
        monkeypatch.setattr(module, "find_landmarks", counting_find)
    evaluate(corpus, weights, tmp_path / "a", select=Selection(limit=1))
    assert len(decoded) == 1
    assert sum(searched) == 3 * 40  # target, repeated frame, wav2lip; the ground truth's are the target's
    searched.clear()
    (tmp_path / "a" / "clips.csv").unlink()
    evaluate(corpus, weights, tmp_path / "a", select=Selection(limit=1))
    assert sum(searched) == 2 * 40


@pytest.mark.slow
def test_lse_appears_with_syncnet_weights_under_the_name_of_its_protocol(corpus, tmp_path):
    from lipsync_bench.datamodules.files.disk import sha256
    from tests import golden

    weights = tmp_path / "syncnet_v2.model"
    torch.save(golden.filled(golden.names_and_shapes("syncnet_v2")), weights)
    result = evaluate_dataset(
        "synthetic",
        tmp_path / "out",
        inputs=Inputs(root=corpus / "clips", methods={}),
        weights=given(syncnet_v2=weights),
        select=Selection(limit=1),
        progress=False,
    )
    rows = read_rows(result.folder)
    assert rows["method"].tolist() == ["ground_truth", "repeated_frame"]
    assert (rows["lse_d_wav2lip_lrs"] > 0).all()
    assert rows["lse_c_wav2lip_lrs"].notna().all()
    assert set(rows["lse_sha256"]) == {sha256(weights)}
    assert rows["lse_c_wav2lip_real"].isna().all()


def test_a_missing_syncnet_says_where_it_comes_from(corpus, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.model: no such file.*syncnet_v2\.model.*weights where sync"):
        evaluate_dataset(
            "synthetic",
            tmp_path / "out",
            inputs=Inputs(root=corpus / "clips"),
            weights=given(syncnet_v2=tmp_path / "none.model"),
        )
    assert not (tmp_path / "out").exists()


def test_rows_of_other_scorers_are_not_mixed(corpus, weights, result):
    with pytest.raises(ValueError, match=r"another scorers.*--out"):
        evaluate(corpus, weights, result.folder, metrics=MetricOptions())


def test_a_missing_checkpoint_names_the_command_that_makes_it(corpus, weights, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"lightning fit -c RUN; runs: bench experiments list.*--methods\.wav2lip PATH"
    ):
        evaluate(corpus, weights, tmp_path, methods={"wav2lip": tmp_path / "none.ckpt"})


def test_a_changed_source_is_a_counted_failure_and_the_others_are_scored(corpus, weights, tmp_path):
    copy = tmp_path / "corpus"
    shutil.copytree(corpus, copy)
    manifest = copy / "clips" / "manifest.json"
    content = json.loads(manifest.read_text())
    content["source_root"] = str(copy / "videos")
    manifest.write_text(json.dumps(content))
    victim = sorted((copy / "videos" / "main").glob("*/*3.mp4"))[0]
    victim.write_bytes(victim.read_bytes()[:2000])
    result = evaluate(corpus, weights, tmp_path / "out", root=copy / "clips")
    rows = read_rows(result.folder)
    assert sorted(rows["status"]) == ["failed"] * 3 + ["ok"] * 3
    assert result.failures == 3
    assert rows[rows["status"] == "failed"]["reason"].str.contains(victim.name).all()
    assert result.leaderboard["failures"].tolist() == [1, 1, 1]


def test_a_folder_of_videos_is_scored_without_a_model(corpus, tmp_path):
    target = tmp_path / "target"
    pred = tmp_path / "mine"
    for folder in (target, pred):
        folder.mkdir()
    sources = sorted((corpus / "videos" / "main").glob("*/*.mp4"))[:4]
    for index, source in enumerate(sources[:3]):
        shutil.copy(source, target / f"{index}.mp4")
    shutil.copy(sources[0], pred / "0.mp4")  # a perfect prediction
    shutil.copy(sources[3], pred / "1.mp4")  # somebody else; 2 is missing
    result = evaluate_videos(pred, target, tmp_path / "out", workers=1, progress=False)
    rows = read_rows(result.folder).set_index(["method", "clip"])
    mine = rows.xs("mine")
    perfect, other, missing = (mine.iloc[k] for k in range(3))
    assert (perfect["psnr"], perfect["lmd"]) == (np.inf, 0)
    assert other["psnr"] < 30
    assert missing["status"] == "failed"
    assert "no prediction" in missing["reason"]
    board = result.leaderboard.set_index("method")
    assert board.loc["mine", ["clips", "failures"]].tolist() == [2, 1]


def test_a_shorter_prediction_is_scored_as_far_as_it_goes(corpus, tmp_path):
    from lipsync_bench.datamodules.media.video import VideoWriter, read_frames

    target, pred = tmp_path / "t", tmp_path / "p"
    target.mkdir()
    pred.mkdir()
    source = sorted((corpus / "videos" / "main").glob("*/*.mp4"))[0]
    shutil.copy(source, target / "a.mp4")
    frames = list(read_frames(source))[:20]
    with VideoWriter(pred / "a.mp4", 25.0, (128, 128), crf=1) as writer:
        for frame in frames:
            writer.write(np.ascontiguousarray(frame[::2, ::2]))  # half the size as well
    result = evaluate_videos(pred, target, tmp_path / "out", workers=1, progress=False)
    row = result.rows.set_index("method").loc["p"]
    assert (row["frames"], row["frames_target"], row["status"]) == (20, 40, "ok")
    assert row["psnr"] > 20


def test_missing_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"--pred .*nowhere"):
        evaluate_videos(tmp_path / "nowhere", tmp_path, tmp_path / "out")


def test_audio_and_video_are_aligned_in_prepared_clips(corpus):
    """The lips' opening in prepared clips follows the loudness of their mel windows best at a shift of 0 frames."""
    curves = []
    for path in sorted((corpus / "clips").glob("*/*.safetensors")):
        with Clip(path) as clip:
            lips = clip.landmarks()
            opening = np.linalg.norm(lips[:, 66] - lips[:, 62], axis=1)
            loudness = frame_mels(clip.mel(), len(clip))[:, 0, :40].mean(axis=(1, 2))
        a, b = (x - x.mean() for x in (opening, loudness))
        curves.append([np.dot(a[5 + k : len(a) - 5 + k], b[5 : len(b) - 5]) for k in range(-4, 5)])
    mean = np.mean(np.array(curves) / np.abs(curves).max(axis=1, keepdims=True), axis=0)
    # A mel window starts with its frame and lasts five, so that its middle is two frames later.
    assert int(mean.argmax()) - 4 == 2


def view(pred, target, lips, landmarks, is_target=False) -> View:
    boxes = np.zeros((len(pred), 4))
    points = (landmarks,) * 4
    return View(is_target, pred, target, boxes, pred, target, lips, 0.25, *points, np.ones(len(pred), bool))


def scored(view: View) -> dict[str, object]:
    """The results of all scorers without a network for these frames."""
    nothing = Audio(lambda: np.zeros(0), lambda: np.zeros(0))
    found = [metric.scorer(ScoredClip(True, nothing, {}, lambda *_: Path("none"))) for metric in METRICS]
    for scorer in found:
        if scorer is not None:
            scorer.update(view)
    return {name: value for scorer in found if scorer is not None for name, value in scorer.result().items()}


def test_the_ground_truth_has_the_computed_numbers_without_computing(corpus, monkeypatch):
    (path, *_) = sorted((corpus / "clips").glob("*/*.safetensors"))
    with Clip(path) as clip:
        header, boxes, lips_01 = clip.header, clip.boxes(), clip.landmarks()
    frames = list(read_frames(corpus / "videos" / header.source))
    crops = regions.compare_crops(frames, boxes, (160, 160))
    points = lips_01 * 160
    points[3] = np.nan
    results = []
    for known in (False, True):  # computed, then known
        results.append(scored(view(crops, crops, lips_01 * 160, points, is_target=known)))
        for module in (lipsync_bench.metrics.image.ssim, lipsync_bench.metrics.image.psnr):
            monkeypatch.setattr(module, module.__name__.rpartition(".")[2], None)
    assert results[0] == results[1]
    assert results[1]["psnr"] == results[1]["psnr_mouth"] == np.inf
    assert results[1]["ssim"] == results[1]["ssim_mouth"] == 1
    assert (results[1]["psnr_infinite_frames"], results[1]["lmd_skipped_frames"]) == (len(frames), 1)


def test_no_image_of_the_ground_truth_is_compared(corpus, weights, tmp_path, monkeypatch):
    compared = []

    def counting(pred, target):
        compared.append(len(pred))
        return ssim(pred, target)

    monkeypatch.setattr(lipsync_bench.metrics.image.ssim, "ssim", counting)
    evaluate(corpus, weights, tmp_path, methods={}, select=Selection(limit=1))
    assert sum(compared) == 2 * 40  # face and mouth of the repeated frame


def test_frames_are_compared_one_by_one_and_equal_the_whole_chunk(corpus):
    (path, *_) = sorted((corpus / "clips").glob("*/*.safetensors"))
    with Clip(path) as clip:
        header, boxes, lips_01 = clip.header, clip.boxes(), clip.landmarks()
    frames = list(read_frames(corpus / "videos" / header.source))
    target = regions.compare_crops(frames, boxes, (160, 160))
    pred = [target[-1], *target[:-1]]
    found = scored(view(pred, target, lips_01 * 160, lips_01))
    images = [torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2) for crops in (pred, target)]
    assert found["psnr"] == psnr(*images).numpy().mean()
    assert found["ssim"] == ssim(*images).numpy().mean()


def test_metric_networks_are_released_before_the_statistics(corpus, weights, tmp_path, monkeypatch):
    experts, still_there = [], []
    load = expert_sync.load_expert

    def loading(path):
        expert = load(path)
        experts.append(weakref.ref(expert))
        return expert

    def writing(*arguments):
        gc.collect()
        still_there.extend(expert() is not None for expert in experts)
        return write_leaderboard(*arguments)

    monkeypatch.setattr(expert_sync, "load_expert", loading)
    monkeypatch.setattr("lipsync_bench.evaluation.evaluate.write_leaderboard", writing)
    found = evaluate(corpus, weights, tmp_path, methods={}, select=Selection(limit=1))
    assert still_there == [False]
    assert found.leaderboard["expert_cosine"].notna().all()
    assert found.leaderboard["expert_sha256"].str.len().eq(64).all()


def test_images_are_scored_on_one_thread_and_the_setting_is_restored(monkeypatch):
    used, failing = [], []

    def counting(metric):
        def score(*images):
            used.append(torch.get_num_threads())
            if failing:
                raise ValueError("an image it does not take")
            return metric(*images)

        return score

    monkeypatch.setattr(lipsync_bench.metrics.image.ssim, "ssim", counting(ssim))
    monkeypatch.setattr(lipsync_bench.metrics.image.cpbd, "cpbd", counting(lipsync_bench.metrics.image.cpbd.cpbd))
    crops = list(np.random.default_rng(0).integers(0, 256, (2, 160, 160, 3), dtype=np.uint8))
    lips = np.random.default_rng(1).uniform(60, 120, (2, 68, 2))
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        compared = view(crops, crops[::-1], lips, lips)
        scored(compared)
        assert used == [1] * 6  # face and mouth of each pair, then each image alone
        assert torch.get_num_threads() == 3
        failing.append(True)
        with pytest.raises(ValueError, match="does not take"):
            scored(compared)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_the_audio_of_a_clip_is_embedded_once_for_all_candidates_without_audio(corpus, tmp_path, monkeypatch):
    network = QuickSyncNet()
    monkeypatch.setattr(lipsync_bench.metrics.sync.lse, "load_syncnet", lambda path: network)
    weights = tmp_path / "syncnet"
    weights.write_bytes(b"stands for the weights in the rows")
    target, silent, audible = (tmp_path / name for name in ("target", "silent", "audible"))
    source, other = sorted((corpus / "videos" / "main").glob("*/*.mp4"))[:2]
    for folder, origin in ((target, source), (audible, other)):
        folder.mkdir()
        shutil.copy(origin, folder / "a.mp4")
    silent.mkdir()
    frames = list(read_frames(source))
    with VideoWriter(silent / "a.mp4", 25.0, frames[0].shape[:2]) as writer:
        for frame in frames:
            writer.write(frame)
    rows = {}
    for pred, embedded in ((silent, [20, 15]), (audible, [20, 20, 15, 15])):  # 40 frames have 35 windows
        network.audio_batches.clear()
        result = evaluate_videos(
            pred, target, tmp_path / f"{pred.name}_out", weights=given(syncnet_v2=weights), workers=1, progress=False
        )
        assert network.audio_batches == embedded
        rows[pred] = read_rows(result.folder).set_index("method")
    with Clip(next((tmp_path / "silent_out" / "targets").glob("*/*.safetensors"))) as clip:
        samples = clip.wav()
    for folder, method, video, audio in (
        (silent, "ground_truth", source, samples),
        (silent, "silent", silent / "a.mp4", samples),
        (audible, "audible", other, to_int16(load_audio(other))),
    ):
        expected = score_clip(network, read_frames(video), audio)
        row = rows[folder].loc[method]
        assert row["lse_c_wav2lip_lrs"] == pytest.approx(expected.lse_c, rel=1e-12), method  # as CSV gives it back
        assert row["lse_d_wav2lip_lrs"] == pytest.approx(expected.lse_d, rel=1e-12), method
