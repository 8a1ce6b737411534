# SPDX-License-Identifier: Apache-2.0
"""`bench sync`: SyncNet's scores of one video, without a data set or a target."""

from dataclasses import dataclass
from pathlib import Path

from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.media.audio import load_audio, to_int16
from lipsync_bench.datamodules.media.video import FPS, probe, read_frames
from lipsync_bench.datamodules.weights.store import Found, Store
from lipsync_bench.metrics.sync.distances import SyncScore
from lipsync_bench.metrics.sync.lse import score_clip, score_real_video
from lipsync_bench.models.pretrained.syncnet import load_syncnet
from lipsync_bench.models.pretrained.syncnet_s3fd import load_syncnet_s3fd
from lipsync_bench.processes import device_of

__all__ = ["SyncResult", "check_sync"]


EXAMPLE = "example.avi"
EXAMPLE_SCORES = (3, 5.353, 10.021)
"""Offset in frames, least distance and confidence that SyncNet's authors print for it (README of syncnet_python)."""
_PRINTED = 0.0005  # their numbers have three decimals


@dataclass(frozen=True)
class SyncResult:
    """SyncNet's scores of a video.

    Args:
        video: The file.
        scores: One score; of face tracks one for each.
        protocol: `lse_wav2lip_lrs` (whole frames) or `lse_wav2lip_real` (face tracks).
        syncnet: SyncNet's weights.
    """

    video: Path
    scores: list[SyncScore]
    protocol: str
    syncnet: Found

    def lines(self) -> list[str]:
        """The result as text: one line a track, then protocol and weights; for the authors' example the comparison."""
        out = [
            f"{f'track {k}: ' if len(self.scores) > 1 else ''}AV offset {score.offset_frames}, min distance "
            f"{score.lse_d:.3f} (LSE-D), confidence {score.lse_c:.3f} (LSE-C), {score.windows} windows"
            for k, score in enumerate(self.scores, 1)
        ]
        whose = "official" if self.syncnet.official else "unofficial"
        out.append(f"protocol {self.protocol}, SyncNet {self.syncnet.sha256} ({whose})")
        if self.video.name == EXAMPLE:
            offset, distance, confidence = EXAMPLE_SCORES
            verdict = "met" if self.meets_example() else "NOT met"
            out.append(f"the authors' numbers ({offset} / {distance} / {confidence}) were {verdict}")
        return out

    def meets_example(self) -> bool:
        """Whether the scores are those that the authors print for their example."""
        offset, distance, confidence = EXAMPLE_SCORES
        return len(self.scores) == 1 and all(
            score.offset_frames == offset
            and abs(score.lse_d - distance) <= _PRINTED
            and abs(score.lse_c - confidence) <= _PRINTED
            for score in self.scores
        )


def check_sync(video: Path, store: Store, *, whole_frames: bool = False, device: str = "auto") -> SyncResult:
    """Score one video with its own audio, at 25 fps.

    Args:
        video: Scored on each face track where the weights of the pipeline's detector are in the store, else on whole
            frames, which a face should fill as in SyncNet's training data. The authors' example is such a video.
        store: Weight files: SyncNet's, and perhaps the detector's.
        whole_frames: Score whole frames in any case.
        device: "auto", "cpu" or "cuda:N".

    Raises:
        FileNotFoundError: The video or SyncNet's weights are missing.
        ValueError: Weights hold something else; the video has no audio, cannot be read, is too short or shows no face.
    """
    where = device_of(device)
    syncnet = store.need("syncnet_v2")
    detector = None if whole_frames or video.name == EXAMPLE else store.find("sfd_face")
    network = load_syncnet(syncnet.path).to(where)
    try:
        if not probe(video).has_audio:
            raise ValueError(f"{video} has no audio. Expected a video with speech. Choose another")
        samples = to_int16(load_audio(video))
        if detector is None:
            scores = [score_clip(network, read_frames(video, FPS), samples)]
        else:
            detect = load_syncnet_s3fd(detector.path).to(where).detect
            scores = score_real_video(network, lambda: read_frames(video, FPS), samples, detect)
    except MediaError as error:
        raise ValueError(str(error)) from error
    return SyncResult(video, scores, f"lse_wav2lip_{'lrs' if detector is None else 'real'}", syncnet)
