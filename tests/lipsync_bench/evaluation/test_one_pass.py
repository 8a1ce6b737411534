# SPDX-License-Identifier: Apache-2.0
"""One pass: how often files are read and detectors run. (Audio, ground truth's images: test_evaluate.py.)"""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from lipsync_bench.datamodules.media.video import VideoWriter, read_frames
from lipsync_bench.evaluation import candidates, evaluate_dataset, evaluate_videos
from lipsync_bench.evaluation.options import Rules, Running, Selection
from lipsync_bench.evaluation.target import chunks as targets
from lipsync_bench.evaluation.target import regions
from lipsync_bench.metrics.sync import face_tracks, lse
from tests.quick_networks import QuickSyncNet
from tests.weight_files import given

FRAMES = 40
BOX = np.array([60, 60, 200, 220], np.float32)


@pytest.fixture
def videos(corpus, tmp_path):
    """`target/a.mp4`, and the same name in four folders of other takes."""
    sources = sorted((corpus / "videos" / "main").glob("*/*.mp4"))
    for folder, source in zip(("target", "one", "two", "three", "four"), sources, strict=False):
        (tmp_path / folder).mkdir()
        shutil.copy(source, tmp_path / folder / "a.mp4")
    return tmp_path


@pytest.fixture
def counts(monkeypatch):
    """Counts of an evaluation: `read NAME` files, `landmarks`, `checks` and `boxes` one a frame."""
    counter: Counter[str] = Counter()

    def counting(name, real):
        def call(*arguments):
            counter[name] += 1
            return real(*arguments)

        return call

    def read(path, *arguments):
        counter[f"read {Path(path).parent.name}"] += 1
        return read_frames(path, *arguments)

    for module in (targets, candidates, lse):
        monkeypatch.setattr(module, "read_frames", read)
    monkeypatch.setattr(targets, "landmarks68", counting("landmarks", targets.landmarks68))
    monkeypatch.setattr(regions.FaceCheck, "__call__", counting("checks", regions.FaceCheck.__call__))
    monkeypatch.setattr(regions, "dlib_rectangle", counting("boxes", lambda frame: BOX))
    return counter


def evaluate(videos, names, **more):
    arguments = {"workers": 1, "progress": False, "running": Running(device="cpu")}
    pred = {name: videos / name for name in names}
    result = evaluate_videos(pred, videos / "target", videos / "out", **{**arguments, **more})
    assert (result.rows["status"] == "ok").all()
    return result.rows


@pytest.mark.parametrize("names", [["one"], ["one", "two", "three"]], ids=len)
def test_every_file_is_read_once_and_every_frame_searched_once_however_many_candidates(videos, counts, names):
    rows = evaluate(videos, names)
    assert sorted(rows["method"]) == sorted(["ground_truth", "repeated_frame", *names])
    searched = FRAMES * len(["target", "repeated_frame", *names])  # none for the ground truth, which is the target
    assert counts == {
        "read target": 1,
        **{f"read {name}": 1 for name in names},
        "landmarks": searched,
        "checks": searched,
    }


def test_the_ground_truth_alone_costs_no_more_than_the_target(videos, counts):
    rows = evaluate(videos, ["one"], select=Selection(only=["ground_truth"]))
    assert rows["method"].tolist() == ["ground_truth"]
    assert counts == {"read target": 1, "landmarks": FRAMES, "checks": FRAMES}


def test_a_later_candidate_costs_only_its_own_frames(videos, counts):
    evaluate(videos, ["one", "two"])
    counts.clear()
    rows = evaluate(videos, ["one", "two", "three"])
    assert len(rows) == 5
    assert counts == {"read target": 1, "read three": 1, "landmarks": FRAMES, "checks": FRAMES}
    counts.clear()
    evaluate(videos, ["one", "two", "three"])
    assert not counts  # nothing is left to do: not even a file is opened


def test_a_replaced_target_is_searched_again(videos, counts):
    """The cache belongs to a file's content, not to its name."""
    evaluate(videos, ["one"])
    (videos / "out" / "clips.csv").unlink()
    shutil.copy(videos / "four" / "a.mp4", videos / "target" / "a.mp4")
    shutil.rmtree(videos / "out" / "targets")
    counts.clear()
    evaluate(videos, ["one"])
    assert counts["landmarks"] == counts["checks"] == FRAMES * 3  # target, repeated frame, one


@pytest.mark.parametrize("own", [False, True], ids=["target's boxes", "own boxes"])
def test_boxes_are_searched_in_the_target_once_and_in_predictions_only_if_the_protocol_requires_it(videos, counts, own):
    protocol = videos / "boxed.yaml"
    protocol.write_text(f"version: 1\nboxes: dlib\nown_boxes: {str(own).lower()}\nreference: elsewhere\n")
    evaluate(videos, ["one", "two"], rules=Rules(str(protocol)))
    assert counts["boxes"] == FRAMES * (4 if own else 1)  # target, repeated frame, one, two; never the ground truth
    counts.clear()
    evaluate(videos, ["one", "two", "three"], rules=Rules(str(protocol)))
    assert counts["boxes"] == (FRAMES if own else 0)
    assert counts["read target"] == counts["read three"] == 1


class OneFace(torch.nn.Module):
    """In place of the detector of the SyncNet pipeline."""

    def detect(self, frame: np.ndarray) -> np.ndarray:
        return np.array([[*BOX, 1.0]], np.float32)


@pytest.fixture
def tracking(videos, monkeypatch):
    """Weights of SyncNet and its detector, and tracks as short as the corpus' clips."""
    weights = {name: videos / name for name in ("syncnet_v2", "sfd_face")}
    for path in weights.values():
        path.write_bytes(b"stands for the weights in the rows")
    monkeypatch.setattr(lse, "load_syncnet", lambda path: QuickSyncNet())
    monkeypatch.setattr(lse, "load_syncnet_s3fd", lambda path: OneFace())
    for limit in ("MIN_SHOT_FRAMES", "MIN_DETECTIONS"):  # 4 s, which the corpus does not have
        monkeypatch.setattr(face_tracks, limit, 20)
    return given(**weights)


def test_lse_on_face_tracks_alone_reads_a_file_again_twice(videos, counts, tracking):
    """Tracks are known only at the end of the video, then their crops are cut: nothing is kept in between."""
    rows = evaluate(videos, ["one"], weights=tracking).set_index("method")
    assert rows["lse_d_wav2lip_lrs"].notna().all()
    assert rows["lse_d_wav2lip_real"].notna().all()
    assert (rows["lse_face_tracks"] == 1).all()
    assert (counts["read target"], counts["read one"]) == (1 + 2, 1 + 2)
    assert counts["landmarks"] == counts["checks"] == FRAMES * 3


def test_generated_frames_have_the_lse_of_a_file_with_the_same_frames(videos, tracking, monkeypatch):
    """The repeated frame, which is made on the fly, is the target's own frames here."""
    frames = lambda self, chunk: [frame.copy() for frame in chunk.frames]  # noqa: E731
    monkeypatch.setattr(candidates.RepeatedFrame, "frames", frames)
    rows = evaluate(videos, ["one"], weights=tracking).set_index("method")
    columns = [name for name in rows if name.startswith("lse_") and name != "lse_weights"]
    assert rows.loc["repeated_frame", columns].equals(rows.loc["ground_truth", columns])
    assert rows.loc["one", "lse_d_wav2lip_real"] != rows.loc["ground_truth", "lse_d_wav2lip_real"]
    assert not [path for path in (videos / "out").rglob("*") if "face_tracks" in str(path) and path.is_file()]


def test_a_clip_without_a_face_track_keeps_its_other_scores(videos, tracking, monkeypatch):
    monkeypatch.setattr(face_tracks, "MIN_SHOT_FRAMES", 100)
    rows = evaluate(videos, ["one"], weights=tracking)
    assert (rows["status"] == "ok").all()
    assert (rows["lse_face_tracks"] == 0).all()
    assert rows["lse_d_wav2lip_real"].isna().all()
    assert rows[["lse_d_wav2lip_lrs", "psnr"]].notna().all(axis=None)


@pytest.mark.parametrize(("more", "tracked"), [("", False), ("lse: wav2lip_real\n", True), ("in_papers: hdtf\n", True)])
def test_the_data_set_says_whether_lse_is_measured_on_face_tracks(corpus, videos, tracking, more, tracked):
    mine = videos / "mine.yaml"
    data = "lipsync_bench.datamodules.Synthetic, init_args: {root: PATH}".replace("PATH", str(corpus / "clips"))
    mine.write_text(f"data: {{class_path: {data}}}\n{more}")
    select, out = Selection(limit=1), videos / "out"
    rows = evaluate_dataset(str(mine), out, weights=tracking, select=select, progress=False).rows.set_index("method")
    assert rows["lse_d_wav2lip_real"].notna().to_dict() == {"ground_truth": tracked, "repeated_frame": tracked}
    assert rows["lse_d_wav2lip_lrs"].notna().all()


def test_without_face_tracks_lse_reads_no_file_again(videos, counts, monkeypatch):
    weights = videos / "syncnet"
    weights.write_bytes(b"stands for the weights in the rows")
    monkeypatch.setattr(lse, "load_syncnet", lambda path: QuickSyncNet())
    rows = evaluate(videos, ["one", "two"], weights=given(syncnet_v2=weights))
    assert rows["lse_d_wav2lip_lrs"].notna().all()
    assert {name: n for name, n in counts.items() if name.startswith("read")} == {
        "read target": 1,
        "read one": 1,
        "read two": 1,
    }


def test_a_prediction_of_another_size_is_read_once_and_scored_in_the_targets_size(videos, counts):
    frames = list(read_frames(videos / "one" / "a.mp4"))
    with VideoWriter(videos / "two" / "a.mp4", 25.0, (128, 128)) as writer:
        for frame in frames:
            writer.write(np.ascontiguousarray(frame[::2, ::2]))
    evaluate(videos, ["two"])
    assert counts["read two"] == 1
    assert counts["landmarks"] == FRAMES * 3
