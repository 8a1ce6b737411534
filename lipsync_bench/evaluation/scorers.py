# SPDX-License-Identifier: Apache-2.0
"""The networks that judge, and what those of synchrony have seen of a clip so far."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from datamodules.audio import mel_spectrogram, to_float, to_int16
from datamodules.clip import Clip
from datamodules.errors import MediaError
from datamodules.files import sha256
from datamodules.video import FPS, read_frames
from lipsync_bench.evaluation.regions import compare_crops
from metrics.expert_sync import ExpertClip, expert_score
from metrics.inception import InceptionFeatures
from metrics.lpips import LPIPSNet, LPIPSNetwork
from metrics.lse import LSEClip, LSESound, score_real_video
from models import load_expert
from models.syncnet import load_syncnet
from models.syncnet_s3fd import load_syncnet_s3fd

__all__ = ["NO_SCORERS", "ClipSound", "OwnSound", "ScorerFiles", "Scorers", "SyncScores"]


def _lpips(folder: str, device: str) -> dict[str, LPIPSNetwork]:
    """LPIPS of each trunk whose weights are there, by column name; the error for alex if there is none."""
    networks: dict[str, LPIPSNetwork] = {}
    nets: tuple[LPIPSNet, ...] = get_args(LPIPSNet)
    for net in nets:
        try:
            networks[f"lpips_{net}"] = LPIPSNetwork(net, folder).to(device)
        except FileNotFoundError:
            if net == nets[-1] and not networks:
                LPIPSNetwork(nets[0], folder)
    return networks


@dataclass(frozen=True)
class ScorerFiles:
    """Weights of the networks that judge; what is not given is not computed.

    Args:
        syncnet: Official SyncNet weights; without them LSE is not computed.
        syncnet_s3fd: Official face-detector weights of the SyncNet pipeline; with both, LSE is also computed on face
            tracks.
        expert: Checkpoint of a sync expert of this suite.
        lpips: Folder with ImageNet weights of AlexNet or VGG-16, or "torchvision".
        inception: Folder with pytorch-fid's Inception weights, or "torchvision"; for FID.
        detector_weights: S3FD's weights, for protocols that cut by its boxes.
    """

    syncnet: Path | None = None
    syncnet_s3fd: Path | None = None
    expert: Path | None = None
    lpips: str | None = None
    inception: str | None = None
    detector_weights: Path | None = None


NO_SCORERS = ScorerFiles()
"""No network judges: PSNR, SSIM, LMD and the like alone."""


class Scorers:
    """The judges that were asked for. Nothing is scored by a network whose weights were not given.

    Args:
        files: Their weights.
        device: Where they run.

    Raises:
        FileNotFoundError: A file is missing; says where it comes from.
        ValueError: A file holds something else, or the detector comes without SyncNet.
    """

    def __init__(self, files: ScorerFiles, device: str = "cpu") -> None:
        syncnet, syncnet_s3fd, expert = files.syncnet, files.syncnet_s3fd, files.expert
        if syncnet_s3fd is not None and syncnet is None:
            raise ValueError("--syncnet_s3fd without --syncnet. Expected both: the detector finds faces for SyncNet.")
        self.syncnet = None if syncnet is None else load_syncnet(syncnet).to(device)
        self.s3fd = None if syncnet_s3fd is None else load_syncnet_s3fd(syncnet_s3fd).to(device)
        self.expert = None if expert is None else load_expert(expert).to(device)
        self.lpips = {} if files.lpips is None else _lpips(files.lpips, device)
        self.inception = None if files.inception is None else InceptionFeatures(weights=files.inception).to(device)
        self.identity = {
            "lse_sha256": "" if syncnet is None else sha256(syncnet),
            "expert_sha256": "" if expert is None else sha256(expert),
            **{f"lpips_{net}_sha256": "" for net in get_args(LPIPSNet)},
            **{f"{name}_sha256": network.weights for name, network in self.lpips.items()},
            "fid_sha256": "" if self.inception is None else self.inception.weights,
        }

    @property
    def any_network(self) -> bool:
        """Whether a network judges at all."""
        return any((self.syncnet, self.s3fd, self.expert, self.lpips, self.inception))

    def release_judges(self) -> None:
        """Forget the networks when all clips are scored, but `inception`: FID asks it whose features it has."""
        self.syncnet = self.s3fd = self.expert = None
        self.lpips = {}


class ClipSound:
    """The sound of a clip, read and embedded once, when it is first needed, for all candidates that are heard with it.

    Args:
        scorers: The judges.
        clip: The clip whose sound it is; it stays open. Forget this object with the clip: it keeps the sound.
    """

    def __init__(self, scorers: Scorers, clip: Clip) -> None:
        self._scorers = scorers
        self._clip = clip

    @cached_property
    def wave(self) -> np.ndarray:
        """float32 (S,), 16 kHz, in [-1, 1)."""
        return to_float(self._clip.wav())

    @cached_property
    def mel(self) -> np.ndarray:
        """float32 (80, M)."""
        return self._clip.mel()

    @cached_property
    def lse(self) -> LSESound | None:
        """For SyncNet; None without it."""
        return None if self._scorers.syncnet is None else LSESound(self._scorers.syncnet, self._clip.wav())


class OwnSound:
    """The sound of a candidate's own file.

    Args:
        scorers: The judges.
        wave: float32 (S,), 16 kHz.
    """

    def __init__(self, scorers: Scorers, wave: np.ndarray) -> None:
        self.wave = wave
        self.mel = mel_spectrogram(wave)
        self.lse = None if scorers.syncnet is None else LSESound(scorers.syncnet, to_int16(wave))


def _text(curve: torch.Tensor) -> str:
    return " ".join(f"{float(value):.6g}" for value in curve)


class SyncScores:
    """What the judges of synchrony say of one candidate on one clip, fed chunk by chunk.

    Args:
        scorers: The judges.
        sound: Of the candidate's frames.
        file: The candidate's video, if it is a file.
    """

    def __init__(self, scorers: Scorers, sound: ClipSound | OwnSound, file: Path | None) -> None:
        self._scorers = scorers
        self._sound = sound.lse
        self._file = file
        self._lse = None if self._sound is None else LSEClip(self._sound.network, self._sound)
        self._expert = (
            None if scorers.expert is None else ExpertClip(scorers.expert.network, torch.from_numpy(sound.mel))
        )

    def update(self, frames: Sequence[np.ndarray], boxes: np.ndarray) -> None:
        """Show the next frames: uint8 RGB (H, W, 3), with their face boxes (N, 4)."""
        if self._lse is not None:
            for frame in frames:
                self._lse.add(frame)
        if self._expert is not None and self._scorers.expert is not None:
            side = self._scorers.expert.image_size
            crops = np.stack(compare_crops(frames, boxes, (side, side)))
            self._expert.add(torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255)

    def result(self) -> dict[str, float | int | str]:
        """The scores by column name. Raises MediaError for a clip too short to judge."""
        out: dict[str, float | int | str] = {}
        try:
            if self._lse is not None:
                score = self._lse.score()
                out["lse_c_wav2lip_lrs"] = score.lse_c
                out["lse_d_wav2lip_lrs"] = score.lse_d
                out["lse_offset_wav2lip_lrs"] = score.offset_frames
                out["lse_curve_wav2lip_lrs"] = _text(score.distances.mean(dim=0))
            if self._expert is not None:
                _, means = self._expert.curve()
                out |= expert_score(means)
                out["expert_curve"] = _text(means)
            if self._scorers.s3fd is not None and self._sound is not None and self._file is not None:
                file, sound, detect = self._file, self._sound, self._scorers.s3fd.detect
                tracks = score_real_video(sound.network, lambda: read_frames(file, FPS), sound.samples, detect)
                out["lse_c_wav2lip_real"] = float(np.mean([track.lse_c for track in tracks]))
                out["lse_d_wav2lip_real"] = float(np.mean([track.lse_d for track in tracks]))
        except ValueError as error:
            raise MediaError(str(error)) from error
        return out
