# SPDX-License-Identifier: Apache-2.0
"""Predictions that do not fit their targets: handled as `evaluate_videos` says and counted; others are unaffected."""

import shutil

import av
import numpy as np
import pytest

from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.media.audio import load_audio
from lipsync_bench.datamodules.media.video import VideoWriter, read_frames
from lipsync_bench.evaluation import MetricOptions, Selection, evaluate_videos
from lipsync_bench.evaluation.candidates import TargetChunk, VideoFolder
from lipsync_bench.models import SyncExpertModule
from lipsync_bench.models.core.checkpoints import save_module
from tests.datamodules.wide_videos import hlg, write_wide

FRAMES = 40


def write(path, frames, fps=25.0, audio=None):
    frames = list(frames)
    with VideoWriter(path, fps, frames[0].shape[:2], audio=audio, crf=1) as writer:
        for frame in frames:
            writer.write(np.ascontiguousarray(frame))


@pytest.fixture(scope="module")
def scored(corpus, tmp_path_factory):
    """One target, and predictions that are odd in one way each, all in one evaluation."""
    folder = tmp_path_factory.mktemp("odd")
    source = sorted((corpus / "videos" / "main").glob("*/*.mp4"))[0]
    (folder / "target").mkdir()
    shutil.copy(source, folder / "target" / "Ä b.mp4")
    frames, audio = list(read_frames(source)), load_audio(source)
    made = {
        "same": (frames, 25.0, audio),
        "short": (frames[:25], 25.0, audio[:16000]),
        "long": ([*frames, *frames[:10]], 25.0, audio),
        "small": ([frame[::2, ::2] for frame in frames], 25.0, audio),
        "odd_size": ([frame[:-1, :-3] for frame in frames], 25.0, audio),
        "face_only": ([f[: f.shape[0] // 2, : f.shape[1] // 3] for f in frames], 25.0, audio),
        "double_rate": ([frame for frame in frames for _ in (0, 1)], 50.0, audio),
        "silent": (frames, 25.0, None),
        "no_face": ([np.full_like(frame, 90) for frame in frames], 25.0, audio),
        "one_frame": (frames[:1], 25.0, audio[:640]),
    }
    for name, (images, fps, samples) in made.items():
        (folder / name).mkdir()
        write(folder / name / "Ä b.mp4", images, fps, samples)
    for name in ("hlg", "missing", "damaged", "two", "concealed", "tail_lost"):
        (folder / name).mkdir()
    whole = bytearray((folder / "same" / "Ä b.mp4").read_bytes())
    (folder / "tail_lost" / "Ä b.mp4").write_bytes(whole[: len(whole) * 9 // 10] + bytes(len(whole) // 10))
    with av.open(str(folder / "same" / "Ä b.mp4")) as container:
        packet = [bytes(packet) for packet in container.demux(video=0) if packet.size][20]
    at = whole.index(packet) + len(packet) // 2
    whole[at : at + len(packet) // 4] = np.random.default_rng(0).bytes(len(packet) // 4)
    (folder / "concealed" / "Ä b.mp4").write_bytes(whole)
    write_wide(folder / "hlg" / "Ä b.mkv", frames, hlg, (9, 18, 9), audio=audio)
    (folder / "damaged" / "Ä b.mp4").write_bytes((folder / "same" / "Ä b.mp4").read_bytes()[:3000])
    for suffix in ("mp4", "mkv"):
        shutil.copy(source, folder / "two" / f"Ä b.{suffix}")
    save_module(SyncExpertModule(width=0.125), folder / "expert.ckpt")
    names = [*made, "hlg", "missing", "damaged", "two", "concealed", "tail_lost"]
    return evaluate_videos(
        {name: folder / name for name in names},
        folder / "target",
        folder / "out",
        metrics=MetricOptions(expert=folder / "expert.ckpt"),
        select=Selection(only=names),
        workers=1,
        progress=False,
    ).rows.set_index("method")


def test_a_re_encoded_copy_is_nearly_identical_and_whole(scored):
    row = scored.loc["same"]
    assert (row["frames"], row["frames_target"], row["status"]) == (FRAMES, FRAMES, "ok")
    assert row["psnr"] > 38


def test_frames_the_decoder_concealed_are_counted_in_the_row(scored):
    assert scored.loc["same", "damaged_frames"] == 0
    assert scored.loc["concealed", ["status", "frames"]].tolist() == ["ok", FRAMES]
    assert scored.loc["concealed", "damaged_frames"] >= 1


def test_a_prediction_that_lost_its_end_is_a_failure(scored):
    assert scored.loc["tail_lost", "status"] == "failed"
    assert "the file is cut off or damaged. Expected 1.6" in scored.loc["tail_lost", "reason"]


def test_a_shorter_prediction_is_scored_as_far_as_it_goes_and_counted(scored):
    assert scored.loc["short", ["frames", "frames_target"]].tolist() == [25, FRAMES]
    assert scored.loc["short", "psnr"] > 38


def test_a_longer_prediction_is_scored_as_far_as_the_target_goes(scored):
    assert scored.loc["long", ["frames", "frames_target"]].tolist() == [FRAMES, FRAMES]
    assert scored.loc["long", "psnr"] == pytest.approx(scored.loc["same", "psnr"], abs=1)


def test_other_sizes_are_resized_to_the_targets(scored):
    assert scored.loc["small", "frames"] == FRAMES
    assert 20 < scored.loc["small", "psnr"] < scored.loc["same", "psnr"]
    assert 15 < scored.loc["odd_size", "psnr"] < scored.loc["same", "psnr"]


def test_hdr_is_compared_as_the_same_picture_in_sdr(scored):
    assert scored.loc["hlg", "frames"] == FRAMES
    assert scored.loc["hlg", ["psnr", "psnr_mouth"]].min() > 35


def test_another_rate_is_brought_to_25_frames_a_second(scored):
    row = scored.loc["double_rate"]
    assert row["frames"] == FRAMES
    assert row["psnr"] > 35  # frames that were doubled are halved again, in step with the target


def test_a_silent_prediction_is_scored_with_the_targets_audio(scored):
    for name in ("expert_cosine", "expert_confidence"):
        assert scored.loc["silent", name] == pytest.approx(scored.loc["ground_truth", name], abs=0.02)


def test_a_prediction_without_a_face_is_scored_and_counted(scored):
    assert scored.loc["no_face", "detection_failure"] == 1
    assert scored.loc["same", "detection_failure"] == 0
    assert scored.loc["no_face", "psnr"] < 20


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing", "no prediction in"),
        ("damaged", "MediaError"),
        ("two", "2 predictions"),
        ("one_frame", "too short for the sync expert"),
        ("face_only", "another shape than the target's"),
    ],
)
def test_a_prediction_that_cannot_be_scored_is_a_failed_row(scored, name, reason):
    assert scored.loc[name, "status"] == "failed"
    assert reason in scored.loc[name, "reason"]
    assert np.isnan(scored.loc[name, "psnr"])


@pytest.mark.parametrize(
    ("target_hw", "size_hw", "same"),
    [
        ((90, 160), (45, 80), True),
        ((90, 160), (180, 320), True),
        ((90, 160), (96, 160), True),  # a multiple of 16
        ((180, 320), (90, 160), True),
        ((90, 160), (88, 158), True),  # even sides
        ((90, 160), (89, 157), True),
        ((270, 480), (136, 240), True),
        ((270, 480), (144, 240), False),
        ((90, 160), (96, 96), False),
        ((90, 160), (160, 90), False),
        ((96, 128), (96, 96), False),
        ((96, 128), (96, 112), False),
        ((96, 128), (72, 128), False),
    ],
)
def test_no_prediction_is_stretched_to_another_shape(tmp_path, target_hw, size_hw, same):
    write(tmp_path / "a.mp4", [np.full((*size_hw, 3), 100, np.uint8)])
    empty = np.empty((1, 0))
    chunk = TargetChunk("a", "a", 0, [np.zeros((*target_hw, 3), np.uint8)], empty, empty)
    candidate = VideoFolder("mine", tmp_path, {"a": "a.mp4"})
    if same:
        assert candidate.frames(chunk)[0].shape == (*target_hw, 3)
        return
    shapes = f"{size_hw[1]}x{size_hw[0]} px, another shape than the target's {target_hw[1]}x{target_hw[0]}"
    with pytest.raises(MediaError, match=rf"a\.mp4: {shapes}\. Expected the same aspect ratio.*ffmpeg -i"):
        candidate.frames(chunk)
