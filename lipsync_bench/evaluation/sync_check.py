# SPDX-License-Identifier: Apache-2.0
"""`bench sync`: SyncNet's scores of one video, without a data set or a target."""

from dataclasses import dataclass
from pathlib import Path

from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.files.disk import sha256
from lipsync_bench.datamodules.media.audio import load_audio, to_int16
from lipsync_bench.datamodules.media.video import FPS, probe, read_frames
from lipsync_bench.metrics.sync.distances import SyncScore
from lipsync_bench.metrics.sync.lse import score_clip, score_real_video
from lipsync_bench.models.pretrained.syncnet import load_syncnet
from lipsync_bench.models.pretrained.syncnet_s3fd import load_syncnet_s3fd
from lipsync_bench.processes import device_of

__all__ = ["SyncResult", "check_sync"]


@dataclass(frozen=True)
class SyncResult:
    """SyncNet's scores of a video.

    Args:
        video: The file.
        scores: One score; with a face detector one for each face track.
        protocol: `lse_wav2lip_lrs` (whole frames) or `lse_wav2lip_real` (face tracks).
        syncnet_sha256: SHA-256 of SyncNet's weights.
    """

    video: Path
    scores: list[SyncScore]
    protocol: str
    syncnet_sha256: str

    def lines(self) -> list[str]:
        """The result as text: one line a track, then protocol and weights."""
        out = [
            f"{f'track {k}: ' if len(self.scores) > 1 else ''}AV offset {score.offset_frames}, min distance "
            f"{score.lse_d:.3f} (LSE-D), confidence {score.lse_c:.3f} (LSE-C), {score.windows} windows"
            for k, score in enumerate(self.scores, 1)
        ]
        return [*out, f"protocol {self.protocol}, SyncNet {self.syncnet_sha256}"]


def check_sync(video: Path, syncnet: Path, syncnet_s3fd: Path | None = None, device: str = "auto") -> SyncResult:
    """Score one video with its own audio, at 25 fps.

    Args:
        video: Scored on whole frames (a face should fill them, as in SyncNet's training data), or with a detector on
            each face track.
        syncnet: Official weights, syncnet_v2.model.
        syncnet_s3fd: Official weights of the pipeline's detector, sfd_face.pth.
        device: "auto", "cpu" or "cuda:N".

    Raises:
        FileNotFoundError: The video or weights are missing.
        ValueError: Weights hold something else; the video has no audio, cannot be read, is too short or shows no face.
    """
    where = device_of(device)
    network = load_syncnet(syncnet).to(where)
    try:
        if not probe(video).has_audio:
            raise ValueError(f"{video} has no audio. Expected a video with speech. Choose another")
        samples = to_int16(load_audio(video))
        if syncnet_s3fd is None:
            scores = [score_clip(network, read_frames(video, FPS), samples)]
        else:
            detect = load_syncnet_s3fd(syncnet_s3fd).to(where).detect
            scores = score_real_video(network, lambda: read_frames(video, FPS), samples, detect)
    except MediaError as error:
        raise ValueError(str(error)) from error
    protocol = "lse_wav2lip_lrs" if syncnet_s3fd is None else "lse_wav2lip_real"
    return SyncResult(video, scores, protocol, sha256(syncnet))
