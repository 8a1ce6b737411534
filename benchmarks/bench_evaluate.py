# SPDX-License-Identifier: Apache-2.0
"""`bench evaluate --pred --target` on one pair of 720p files of 5 s, against the sum of its parts, each run alone.

Ground truth and prediction are scored: two files are decoded and searched for landmarks and faces, but images are
compared once, because the ground truth is not compared with itself. A part is the public function of a metric on its
inputs, which are cut and resized beforehand; so cutting, resizing for the networks, rows and tables are the
evaluation's own time. The networks have full width and random weights: times equal those of published weights, scores
are meaningless. Reading their files is a part. The target is prepared beforehand; another row of the table measures it.
"""

import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from benchmarks.tools.comparison import Aim, Comparison, Rounds
from benchmarks.tools.random_networks import RandomNetworks, write_random_networks
from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.media.audio import load_audio, mel_spectrogram, to_int16
from lipsync_bench.datamodules.media.video import VideoWriter, read_frames
from lipsync_bench.datamodules.prepare.options import PrepareOptions
from lipsync_bench.datamodules.prepare.prepare import prepare
from lipsync_bench.evaluation.evaluate import evaluate_videos
from lipsync_bench.evaluation.networks import MetricNetworks
from lipsync_bench.evaluation.options import Running, Selection
from lipsync_bench.evaluation.target.chunks import face_rectangles, find_landmarks
from lipsync_bench.evaluation.target.regions import Regions, compare_crops
from lipsync_bench.evaluation.task.protocol import VIDEO_PAIRS, load_protocol
from lipsync_bench.metrics.image.cpbd import cpbd
from lipsync_bench.metrics.image.lpips import lpips
from lipsync_bench.metrics.image.mse import mse
from lipsync_bench.metrics.image.psnr import psnr
from lipsync_bench.metrics.image.psnr_uint8 import SCRIPT_PX, psnr_uint8
from lipsync_bench.metrics.image.ssim import ssim
from lipsync_bench.metrics.metric import mouth_box
from lipsync_bench.metrics.sync.expert import expert_curve
from lipsync_bench.metrics.sync.lse import score_clip
from lipsync_bench.results.rows import read_rows

SIDES = ("target", "mine")
WITHOUT_NETWORKS = ("decoding", "landmarks", "Face Mesh", "CPBD", "PSNR, SSIM, MSE", "8-bit PSNR")
CRF = 35  # of the prediction: it differs everywhere
AIM = Aim("ratio", "<", 1.2)
Parts = dict[str, Callable[[], object]]

__all__: list[str] = []


@dataclass(frozen=True)
class _Pair:
    """A prepared pair of files.

    Args:
        target, mine: Folders, each with a video of the same name.
        clips: The prepared target.
        networks: Metric networks with random weights.
    """

    target: Path
    mine: Path
    clips: Path
    networks: RandomNetworks


@pytest.fixture(scope="module")
def pair(large_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> _Pair:
    folder = tmp_path_factory.mktemp("pair")
    target, mine, clips, weights = (folder / name for name in (*SIDES, "clips", "weights"))
    target.mkdir()
    weights.mkdir()
    (video,) = large_videos.rglob("*.mp4")
    shutil.copy(video, target / "a.mp4")
    with VideoWriter(mine / "a.mp4", 25.0, (720, 1280), audio=load_audio(video), preset="veryfast", crf=CRF) as writer:
        for frame in read_frames(video):
            writer.write(frame)
    assert prepare(target, clips, PrepareOptions("folder", workers=1), progress=False).done == 1
    return _Pair(target, mine, clips, write_random_networks(weights))


def _planes(images: Sequence[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def _one_by_one(score: Callable[..., torch.Tensor], *images: Sequence[torch.Tensor]) -> None:
    """As evaluation does, which is faster than a clip at once: float64 images stay in the processor's cache."""
    for arguments in zip(*images, strict=True):
        score(*arguments)


@pytest.fixture(scope="module")
def parts(pair: _Pair) -> Parts:
    """The computations that evaluation needs, by name; frames, crops, mouths and loaded networks exist already."""
    videos = [folder / "a.mp4" for folder in (pair.target, pair.mine)]
    frames = [list(read_frames(video)) for video in videos]
    audios = [load_audio(video) for video in videos]
    protocol = load_protocol(VIDEO_PAIRS)
    (path,) = pair.clips.rglob("*.safetensors")
    assert protocol.size_hw is not None
    with Clip(path) as clip:
        boxes, rectangles = clip.boxes(), face_rectangles(clip.mesh(), clip.boxes())
        lips = clip.landmarks() * np.array(protocol.size_hw[::-1], np.float32)
    crops = [compare_crops(images, boxes, protocol.size_hw) for images in frames]
    places = [mouth_box(points, protocol.size_hw, protocol.mouth_margin) for points in lips]
    faces = [list(_planes(images).split(1)) for images in crops]
    mouths = [
        [_planes([image[y1:y2, x1:x2]]) for image, (x1, y1, x2, y2) in zip(images, places, strict=True)]
        for images in crops
    ]
    script = [
        list(_planes([cv2.resize(c, (SCRIPT_PX, SCRIPT_PX), interpolation=cv2.INTER_AREA) for c in images]).split(1))
        for images in crops
    ]
    loaded = MetricNetworks(pair.networks.metrics, pair.networks.weights.store).loaded
    syncnet, expert, inception, alex = (loaded[name] for name in ("lse", "expert", "fid", "lpips_alex"))
    side = expert.image_size
    shown = [_planes(compare_crops(images, boxes, (side, side))).float() / 255 for images in frames]

    def find_faces() -> None:
        regions = Regions(protocol)
        for images in frames:
            regions.face_found(images, boxes, rectangles)
        regions.close()

    def compare() -> None:
        for images in (faces, mouths):
            for score in (psnr, ssim):
                _one_by_one(score, *images)
        _one_by_one(mse, *faces)

    def score_sync() -> None:
        for images, samples in zip(frames, audios, strict=True):
            score_clip(syncnet, images, to_int16(samples))

    def score_by_expert() -> None:
        for images, samples in zip(shown, audios, strict=True):
            expert_curve(expert.network, images, torch.from_numpy(mel_spectrogram(samples)))

    return {
        "decoding": lambda: [sum(1 for _ in read_frames(video)) for video in videos],
        "landmarks": lambda: [find_landmarks(images, rectangles) for images in frames],
        "Face Mesh": find_faces,
        "CPBD": lambda: _one_by_one(cpbd, [*faces[0], *faces[1]]),
        "PSNR, SSIM, MSE": compare,
        "8-bit PSNR": lambda: _one_by_one(psnr_uint8, *script),
        "reading weights": lambda: MetricNetworks(pair.networks.metrics, pair.networks.weights.store),
        "SyncNet": score_sync,
        "expert": score_by_expert,
        "LPIPS": lambda: _one_by_one(lambda x, y: lpips(x, y, alex), *faces),
        "Inception": lambda: _one_by_one(inception, [*faces[0], *faces[1]]),
    }


def _evaluation(pair: _Pair, out: Path, networks: RandomNetworks) -> Callable[[], None]:
    """A function that evaluates; it first removes the results of the previous round, but not the prepared target."""
    shutil.copytree(pair.clips, out / "targets")

    def evaluate() -> None:
        for left in [entry for entry in out.iterdir() if entry.name != "targets"]:
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        evaluate_videos(
            pair.mine,
            pair.target,
            out,
            running=Running(device="cpu"),
            metrics=networks.metrics,
            weights=networks.weights,
            select=Selection(only=["mine"]),
            workers=1,
            progress=False,
        )
        rows = read_rows(out).set_index("method")
        assert rows["status"].to_dict() == {"ground_truth": "ok", "mine": "ok"}
        assert rows.loc["mine", "frames"] == 125
        assert np.isfinite(rows.loc["mine", "psnr"])
        assert rows["lse_d_wav2lip_lrs"].notna().all() == ("syncnet_v2" in networks.names)
        assert rows["lpips_alex"].notna().all() == ("alexnet" in networks.names)

    return evaluate


def _sum(parts: dict[str, Rounds]) -> Rounds:
    first, *others = parts.values()
    for part in others:
        first = first + part
    return first


def _measure(
    comparison: Comparison, pair: _Pair, out: Path, name: str, networks: RandomNetworks, parts: Parts, rounds: int
) -> None:
    own, others = comparison.alternate(_evaluation(pair, out, networks), parts, rounds=rounds, warm_up=False)
    row = comparison.record(name, "s", own, "sum of its parts", _sum(others), AIM)
    listed = ", ".join(f"{part} {seconds.median:.2f} s" for part, seconds in others.items())
    comparison.note(
        f"{name}: 1 pair of 5 s, ground truth and prediction, {rounds} rounds; {listed}, "
        f"all the rest {row.value - row.reference_value:.2f} s."
    )


def _chosen(parts: Parts, names: Collection[str]) -> Parts:
    return {name: part for name, part in parts.items() if name in names}


def test_evaluate_without_networks(comparison: Comparison, pair: _Pair, parts: Parts, tmp_path: Path) -> None:
    """Without networks, whose time would dominate."""
    needed = _chosen(parts, WITHOUT_NETWORKS)
    _evaluation(pair, tmp_path / "warm_up", RandomNetworks())()
    _measure(comparison, pair, tmp_path / "timed", "`bench evaluate`, no networks", RandomNetworks(), needed, rounds=3)


def test_evaluate(comparison: Comparison, pair: _Pair, parts: Parts, tmp_path: Path) -> None:
    """All metrics except LSE on face tracks: a round takes a minute and a half."""
    _measure(comparison, pair, tmp_path / "timed", "`bench evaluate`, all networks", pair.networks, parts, rounds=3)
