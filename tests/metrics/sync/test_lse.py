# SPDX-License-Identifier: Apache-2.0
"""LSE-C, LSE-D and offset against the official evaluation class, on deterministic weights and clips.

The clips: a mouth-like dark box opens and closes over moving stripes while the audio gets louder and softer with it.
The fill makes embeddings without a common direction, so three entries are scaled or shared to give the score a minimum.
"""

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import torch

from lipsync_bench.metrics.sync.distances import sync_distances, sync_score
from lipsync_bench.metrics.sync.lse import (
    BATCH_WINDOWS,
    KEPT_BATCHES,
    LIPS_AT_ONCE,
    LSE,
    LSEAudio,
    LSEClip,
    score_clip,
    score_real_video,
)
from lipsync_bench.metrics.sync.mfcc import mfcc
from lipsync_bench.models.pretrained.syncnet import SyncNetV2
from tests import golden
from tests.quick_networks import QuickSyncNet

FRAMES = 60


@pytest.fixture(scope="module")
def expected():
    return golden.arrays("syncnet_v2")


@pytest.fixture(scope="module")
def syncnet():
    state = golden.filled(golden.names_and_shapes("syncnet_v2"))
    state["netfcaud.3.weight"] = 0.3 * state["netfclip.3.weight"]
    state["netfcaud.3.bias"] = state["netfclip.3.bias"].clone()
    state["netfclip.3.weight"] = 0.2 * state["netfclip.3.weight"]
    network = SyncNetV2()
    network.load_state_dict(state)
    return network.eval()


def triangle(n, p: int):
    """Triangle wave 0..p."""
    return np.abs(n % (2 * p) - p)


def picture(t: int, height: int, width: int, a: int, p: int, k: int) -> np.ndarray:
    """Frame t (H, W, 3), uint8 RGB; the goldens' channel c counts B, G, R."""
    y, x, c = np.ogrid[:height, :width, :3]
    opening = triangle(a * t, p)
    stripes = np.minimum(triangle(k * x + 2 * y + 50 * c + 4 * t, 256), 255) * (opening + 6) // (p + 6)
    mouth = (np.abs(y - 3 * height // 4) * 224 <= opening * height) & (np.abs(x - width // 2) * 5 <= width)
    return np.ascontiguousarray(np.where(mouth, 30 + 20 * c, stripes).astype(np.uint8)[..., ::-1])


def audio(name: str, samples: int, a: int, p: int) -> np.ndarray:
    n = np.arange(samples)
    opening = triangle(a * (n // 640), p)
    tone = (triangle(5 * n, 200) - 100) * opening**2 // 9 + (triangle(61 * n, 300) - 150) * opening // 4
    noise = np.rint(golden.uniform(name, (samples,), -12, 12)).astype(np.int64)
    return (tone + noise).astype(np.int16)


CLIPS = {
    "clip_a": ({"height": 224, "width": 224, "a": 7, "p": 30, "k": 3}, 38400),
    "clip_b": ({"height": 192, "width": 256, "a": 5, "p": 24, "k": 3}, 37000),
}


def clip(name: str) -> tuple[list[np.ndarray], np.ndarray]:
    shape, samples = CLIPS[name]
    frames = [picture(t, **shape) for t in range(FRAMES)]
    return frames, audio(f"syncnet_{name}", samples, shape["a"], shape["p"])


@pytest.mark.parametrize("name", list(CLIPS))
def test_the_clips_are_those_of_the_goldens(name, expected):
    frames, samples = clip(name)
    resized = [cv2.resize(frame, (224, 224)) for frame in frames]
    np.testing.assert_array_equal(resized[0][::16, ::16, ::-1], expected[f"{name}_frame0"])
    sums = [sum(int(frame.sum()) for frame in series) for series in (frames, resized)]
    assert sums == expected[f"{name}_framesum"].tolist()
    np.testing.assert_array_equal(samples[::997], expected[f"{name}_audio"])


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CLIPS))
def test_golden_clip(name, expected, syncnet):
    frames, samples = clip(name)
    score = score_clip(syncnet, iter(frames), samples)
    np.testing.assert_allclose(score.distances, expected[f"{name}_dists"], rtol=0, atol=1e-3)
    np.testing.assert_allclose(score.distances.mean(dim=0), expected[f"{name}_mean"], rtol=0, atol=1e-3)
    np.testing.assert_allclose(frame_confidence(score.distances), expected[f"{name}_frameconf"], rtol=0, atol=1e-3)
    assert score.windows == len(expected[f"{name}_dists"])
    assert score.offset_frames == expected[f"{name}_offset"]
    assert score.lse_d == pytest.approx(float(expected[f"{name}_lse_d"]), abs=1e-3)
    assert score.lse_c == pytest.approx(float(expected[f"{name}_lse_c"]), abs=1e-4)


def frame_confidence(distances: torch.Tensor) -> torch.Tensor:
    """The official script's: median over shifts minus the distance at the best shift, median-filtered (9)."""
    means = distances.mean(dim=0)
    raw = means.median() - distances[:, means.argmin()]
    return torch.nn.functional.pad(raw, (4, 4)).unfold(0, 9, 1).median(dim=1).values


def test_golden_distances(expected):
    lips = golden.uniform("syncnet_dist_lip", (40, 1024), -1, 1)
    audio = np.float32(0.4) * golden.uniform("syncnet_dist_aud", (40, 1024), -1, 1)
    audio[4:] += np.float32(0.8) * lips[:-4]
    score = sync_score(sync_distances(torch.from_numpy(lips), torch.from_numpy(audio)))
    np.testing.assert_allclose(score.distances, expected["dist_matrix"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(score.distances.mean(dim=0), expected["dist_mean"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(frame_confidence(score.distances), expected["dist_frameconf"], rtol=0, atol=1e-4)
    assert score.offset_frames == expected["dist_offset"] == -4
    assert score.lse_d == pytest.approx(float(expected["dist_lse_d"]), abs=1e-4)
    assert score.lse_c == pytest.approx(float(expected["dist_lse_c"]), abs=1e-4)


def speech(frames: int, late_frames: int = 0, seed: int = 0, size: int = 8) -> tuple[list[np.ndarray], np.ndarray]:
    """Frames as bright as their audio is loud, the audio delayed."""
    random = np.random.default_rng(seed)
    loud = random.uniform(0, 8, frames)  # steps small enough not to be taken for a cut
    samples = random.choice([-1, 1], frames * 640) * np.repeat(np.exp(np.roll(loud, late_frames) / 2), 640) * 100
    level = 10 * (loud + np.log(100**2) + np.log(400 / 2))  # about 10 times the log energy of a window
    return [np.full((size, size, 3), min(round(value), 255), np.uint8) for value in level], samples.astype(np.int16)


@pytest.mark.parametrize("late_frames", [-4, 0, 3])
def test_offset_is_positive_when_the_audio_is_early(late_frames):
    score = score_clip(QuickSyncNet(), *speech(80, late_frames))
    assert score.offset_frames == -late_frames
    assert score.distances.shape == (75, 31)


def test_scores_fall_as_image_noise_grows():
    frames, samples = speech(120)
    random = np.random.default_rng(1)
    jitter = random.normal(size=len(frames))
    scores = []
    for sigma in (0, 5, 15, 40):
        noisy = [np.clip(f + sigma * j, 0, 255).astype(np.uint8) for f, j in zip(frames, jitter, strict=True)]
        scores.append(score_clip(QuickSyncNet(), noisy, samples))
    assert [s.lse_d for s in scores] == sorted(s.lse_d for s in scores)
    assert [s.lse_c for s in scores] == sorted((s.lse_c for s in scores), reverse=True)


@pytest.mark.parametrize(
    ("frames", "samples", "windows"),
    [
        (6, 6 * 640, 1),
        (30, 30 * 640, 25),
        (60, 20 * 640 + 639, 15),
        (20, 60 * 640, 15),
        (45, 45 * 640, 40),
        (46, 46 * 640, 41),
    ],
)
def test_number_of_windows_and_batches(frames, samples, windows):
    network = QuickSyncNet()
    pictures = [np.full((8, 8, 3), t, np.uint8) for t in range(frames)]
    score = score_clip(network, pictures, np.ones(samples, np.int16))
    assert score.windows == windows
    groups = [min(BATCH_WINDOWS, windows - first) for first in range(0, windows, BATCH_WINDOWS)]
    parts = [min(LIPS_AT_ONCE, group - first) for group in groups for first in range(0, group, LIPS_AT_ONCE)]
    assert network.lip_batches == parts


def test_streaming_equals_all_windows_at_once():
    frames, samples = speech(70)
    network = QuickSyncNet()
    pixels = torch.stack([torch.from_numpy(cv2.resize(f, (224, 224))).permute(2, 0, 1).float() for f in frames], dim=1)
    columns = torch.from_numpy(mfcc(samples)).float().T
    with torch.no_grad():
        lips = network.forward_lips(torch.stack([pixels[:, v : v + 5] for v in range(65)]))
        audio = network.forward_audio(torch.stack([columns[None, :, 4 * v : 4 * v + 20] for v in range(65)]))
    at_once = sync_distances(lips, audio)
    torch.testing.assert_close(score_clip(network, frames, samples).distances, at_once, rtol=1e-5, atol=1e-5)


def test_frames_beyond_the_audio_are_ignored():
    frames, samples = speech(70)
    scorer = LSEClip(QuickSyncNet(), samples[: 640 * 50])
    for frame in frames:
        scorer.add(frame)
    assert scorer.score().lse_d == score_clip(QuickSyncNet(), frames[:50], samples[: 640 * 50]).lse_d


def test_frames_are_read_only_as_far_as_there_is_audio():
    read = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal read
        while True:
            read += 1
            yield np.zeros((8, 8, 3), np.uint8)

    assert score_clip(QuickSyncNet(), endless(), np.ones(30 * 640, np.int16)).windows == 25
    assert read == 30


@pytest.mark.parametrize(("frames", "samples"), [(5, 6400), (10, 5 * 640 + 600), (0, 6400), (10, 0)])
def test_short_clips_are_refused(frames, samples):
    with pytest.raises(
        ValueError, match=r"clip too short for SyncNet: .*frames.* Expected at least 6. Leave the clip out"
    ):
        score_clip(QuickSyncNet(), [np.zeros((8, 8, 3), np.uint8)] * frames, np.ones(samples, np.int16))


def test_wrong_input_is_refused():
    picture = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match=r"float32, values from 0 to 0\.5\. Expected a vector of int16 at 16 kHz"):
        score_clip(QuickSyncNet(), [picture] * 10, np.array([0, 0.5], np.float32))
    with pytest.raises(
        ValueError, match=r"frame 0 has shape \(8, 8\) and dtype uint8. Expected \(H, W, 3\) uint8, RGB"
    ):
        score_clip(QuickSyncNet(), [picture[..., 0]] * 10, np.ones(6400, np.int16))
    with pytest.raises(ValueError, match=r"lips has shape \(3, 4\), audio \(2, 4\)"):
        sync_distances(torch.zeros(3, 4), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="shift_frames is 0"):
        sync_distances(torch.zeros(3, 4), torch.zeros(3, 4), 0)
    with pytest.raises(ValueError, match=r"distances has shape \(0, 31\)"):
        sync_score(torch.zeros(0, 31))


def test_real_video_is_scored_by_track():
    frames, samples = speech(250, size=400)
    faces = np.array([[60.0, 80, 190, 200, 0.95], [250.0, 80, 370, 200, 0.9]])

    def detector(frame: np.ndarray) -> np.ndarray:
        detector.calls += 1
        return faces[: 1 if detector.calls > 130 else 2]

    detector.calls = 0
    scores = score_real_video(QuickSyncNet(), lambda: iter(frames), samples, detector)
    assert [score.windows for score in scores] == [245, 125]
    assert [score.offset_frames for score in scores] == [0, 0]
    with pytest.raises(
        ValueError, match=r"no face track. Expected at least one face .* or score it by lse_wav2lip_lrs"
    ):
        score_real_video(QuickSyncNet(), lambda: iter(frames[:20]), samples, lambda frame: np.empty((0, 5)))


def test_metric_of_real_videos_counts_tracks():
    frames, samples = speech(140, size=400)
    faces = np.array([[60.0, 80, 190, 200, 0.95], [250.0, 80, 370, 200, 0.9]])
    metric = LSE(QuickSyncNet(), "test", "lse_wav2lip_real", detector=lambda frame: faces)
    metric.update(lambda: frames, samples)
    assert metric.count == 2


def test_syncnet_is_not_part_of_an_enclosing_module():
    network = QuickSyncNet().eval()
    outer = torch.nn.Module()
    outer.metric = LSE(network, "test")
    outer.train()
    assert not network.training
    assert list(outer.parameters()) == []
    assert not any("scale" in name for name in outer.state_dict())


def test_constructor_refuses_contradictions():
    with pytest.raises(ValueError, match=r"protocol is 'lse'. Expected one of lse_wav2lip_lrs, lse_wav2lip_real"):
        LSE(QuickSyncNet(), "test", "lse")
    with pytest.raises(ValueError, match=r"lse_wav2lip_real without a face detector.*bench weights fetch sfd_face"):
        LSE(QuickSyncNet(), "test", "lse_wav2lip_real")
    with pytest.raises(ValueError, match="lse_wav2lip_lrs with a face detector"):
        LSE(QuickSyncNet(), "test", detector=lambda frame: np.empty((0, 5)))
    with pytest.raises(ValueError, match="weights is empty"):
        LSE(QuickSyncNet(), "")


class CountingAudio(QuickSyncNet):
    """Full-size audio embeddings, whose last digits may depend on the batch, and fast lip embeddings."""

    def __init__(self, audio: SyncNetV2) -> None:
        super().__init__()
        self._audio = (audio,)

    def forward_lips(self, lips: torch.Tensor) -> torch.Tensor:
        return lips.mean(dim=(1, 2, 3, 4))[:, None].expand(-1, 1024) / 255

    def forward_audio(self, mfcc: torch.Tensor) -> torch.Tensor:
        self.audio_batches.append(len(mfcc))
        return self._audio[0].forward_audio(mfcc)


def test_shared_audio_is_embedded_once_and_equals_each_clip_scored_alone(syncnet):
    frames, samples = speech(60)
    bright = [255 - frame for frame in frames]
    network = CountingAudio(syncnet)
    videos = [frames, bright, frames[:40], bright[:47]]  # 55, 55, 35 and 42 windows
    alone = [score_clip(network, video, samples) for video in videos]
    assert network.audio_batches == [20, 20, 15, 20, 20, 15, 20, 15, 20, 20, 2]
    network.audio_batches.clear()
    audio = LSEAudio(network, samples)
    scorers = [LSEClip(network, audio) for _ in videos]
    assert network.audio_batches == []  # not before it is needed
    for scorer, video in zip(scorers, videos, strict=True):
        for frame in video:
            scorer.add(frame)
    for scorer, expected in zip(scorers, alone, strict=True):
        score = scorer.score()
        assert torch.equal(score.distances, expected.distances)
        assert (score.lse_c, score.lse_d) == (expected.lse_c, expected.lse_d)
    assert network.audio_batches == [20, 20, 15, 15, 2]  # of the shorter ones only their last, smaller batches


def test_memory_does_not_grow_with_the_clip():
    kept: list[int] = []
    frames, samples = speech(250)
    network = QuickSyncNet()
    audio = LSEAudio(network, samples)
    scorers = [LSEClip(network, audio) for _ in range(2)]
    for frame in frames:
        for scorer in scorers:
            scorer.add(frame)
        kept.append(sum(map(len, audio._batches.values())) + sum(len(lips) for lips in scorers[0]._lips))
    first, second = (scorer.score() for scorer in scorers)
    assert first.windows == 245
    assert torch.equal(first.distances, second.distances)
    assert max(kept) <= (KEPT_BATCHES + 2) * BATCH_WINDOWS
    assert first.lse_d == score_clip(QuickSyncNet(), frames, samples).lse_d


def test_audio_of_another_network_is_refused():
    samples = speech(10)[1]
    with pytest.raises(ValueError, match=r"another network than the lips\. Expected one network .* Use LSEAudio"):
        LSEClip(QuickSyncNet(), LSEAudio(QuickSyncNet(), samples))
    with pytest.raises(ValueError, match=r"float32, values from 0 to 0\.5\. Expected a vector of int16 at 16 kHz"):
        LSEAudio(QuickSyncNet(), np.array([0, 0.5], np.float32))
