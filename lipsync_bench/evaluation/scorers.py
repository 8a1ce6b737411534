# SPDX-License-Identifier: Apache-2.0
"""The networks that judge synchrony, and what they have seen of a clip so far."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from datamodules.clip import Clip
from datamodules.errors import MediaError
from datamodules.files import sha256
from datamodules.video import FPS, read_frames
from lipsync_bench.evaluation.scoring import compare_crops
from metrics.expert_sync import ExpertClip
from metrics.lse import LSEClip, LSESound, score_real_video
from models import load_expert
from models.syncnet import load_syncnet
from models.syncnet_s3fd import load_syncnet_s3fd

__all__ = ["ClipScorers", "Scorers", "SyncScores"]


class Scorers:
    """The judges that were asked for. Nothing is scored by a network whose weights were not given.

    Args:
        syncnet: Official SyncNet weights; LSE on whole frames (protocol lse_wav2lip_lrs).
        syncnet_s3fd: Official detector of the SyncNet pipeline; also LSE on face tracks (lse_wav2lip_real), for
            candidates that are files.
        expert: Checkpoint of a sync expert trained with this suite.
        device: Where they run.

    Raises:
        FileNotFoundError: A file is missing; says where it comes from.
        ValueError: A file holds something else, or the detector comes without SyncNet.
    """

    def __init__(
        self, syncnet: Path | None, syncnet_s3fd: Path | None, expert: Path | None, device: str = "cpu"
    ) -> None:
        if syncnet_s3fd is not None and syncnet is None:
            raise ValueError("--syncnet_s3fd without --syncnet. Expected both: the detector finds faces for SyncNet.")
        self.syncnet = None if syncnet is None else load_syncnet(syncnet).to(device)
        self.s3fd = None if syncnet_s3fd is None else load_syncnet_s3fd(syncnet_s3fd).to(device)
        self.expert = None if expert is None else load_expert(expert).to(device)
        self.identity = {
            "lse_sha256": "" if syncnet is None else sha256(syncnet),
            "expert_sha256": "" if expert is None else sha256(expert),
        }

    def of(self, clip: Clip) -> "ClipScorers":
        """The judges of one clip's candidates. Forget them with the clip: they keep its sound."""
        return ClipScorers(self, clip)


class ClipScorers:
    """The judges of one clip's candidates. The clip's sound is read and embedded once, when it is first needed.

    Args:
        scorers: The judges.
        clip: The clip; it stays open.
    """

    def __init__(self, scorers: Scorers, clip: Clip) -> None:
        self.scorers = scorers
        self.clip = clip

    @cached_property
    def _own_sound(self) -> LSESound | None:
        return self._sound(self.clip.wav())

    def _sound(self, samples: np.ndarray) -> LSESound | None:
        return None if self.scorers.syncnet is None else LSESound(self.scorers.syncnet, samples)

    def start(self, samples: np.ndarray | None, file: Path | None) -> "SyncScores":
        """Begin to judge a candidate's version of the clip.

        Args:
            samples: int16 (S,), 16 kHz, the sound that belongs to the candidate's frames; None for the clip's.
            file: The candidate's video, if it is a file.

        Raises:
            ClipError: The clip's sound cannot be read.
        """
        sound = self._own_sound if samples is None else self._sound(samples)
        return SyncScores(self.scorers, self.clip, sound, file)


class SyncScores:
    """What the judges say of one candidate on one clip, fed chunk by chunk.

    Args:
        scorers: The judges.
        clip: The clip.
        sound: Of the candidate's frames, perhaps shared with other candidates; None without SyncNet.
        file: The candidate's video, if it is a file.
    """

    def __init__(self, scorers: Scorers, clip: Clip, sound: LSESound | None, file: Path | None) -> None:
        self._scorers = scorers
        self._sound = sound
        self._file = file
        self._lse = None if sound is None else LSEClip(sound.network, sound)
        self._expert = (
            None if scorers.expert is None else ExpertClip(scorers.expert.network, torch.from_numpy(clip.mel()))
        )

    def update(self, frames: Sequence[np.ndarray], boxes: np.ndarray) -> None:
        """Show the next frames: uint8 RGB (H, W, 3), with their face boxes (N, 4)."""
        if self._lse is not None:
            for frame in frames:
                self._lse.add(frame)
        if self._expert is not None and self._scorers.expert is not None:
            crops = torch.from_numpy(compare_crops(frames, boxes, self._scorers.expert.image_size)).permute(0, 3, 1, 2)
            self._expert.add(crops.float() / 255)

    def result(self) -> dict[str, float | int]:
        """The scores by column name. Raises MediaError for a clip too short to judge."""
        out: dict[str, float | int] = {}
        try:
            if self._lse is not None:
                score = self._lse.score()
                out["lse_c_wav2lip_lrs"] = score.lse_c
                out["lse_d_wav2lip_lrs"] = score.lse_d
                out["lse_offset_wav2lip_lrs"] = score.offset_frames
            if self._expert is not None:
                out |= self._expert.score()
            if self._scorers.s3fd is not None and self._sound is not None and self._file is not None:
                file, sound, detect = self._file, self._sound, self._scorers.s3fd.detect
                tracks = score_real_video(sound.network, lambda: read_frames(file, FPS), sound.samples, detect)
                out["lse_c_wav2lip_real"] = float(np.mean([track.lse_c for track in tracks]))
                out["lse_d_wav2lip_real"] = float(np.mean([track.lse_d for track in tracks]))
        except ValueError as error:
            raise MediaError(str(error)) from error
        return out
