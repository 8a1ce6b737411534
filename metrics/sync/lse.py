# SPDX-License-Identifier: Apache-2.0
"""Lip-sync error of SyncNet v2: LSE-C (confidence), LSE-D (distance) and the audio-video offset.

Chung, Zisserman: "Out of time: automated lip sync in the wild", ACCV workshop 2016 (the network and the scores);
Prajwal et al.: "A Lip Sync Expert Is All You Need", ACM MM 2020 (their use as LSE-C and LSE-D).

Everything is streamed: a clip's frames are read once, and 25 of them are held at a time. Only 31 distances a window are
kept.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.files.disk import sha256
from lipsync_bench.datamodules.media.frame_store import FrameStore
from lipsync_bench.datamodules.media.video import FPS, read_frames
from lipsync_bench.metrics.metric import INF, Column, Description, Field, Network, ScoredClip, Scorer, Value, View
from lipsync_bench.metrics.sync.distances import SHIFT_FRAMES, SyncScore, curve_text, shifted_distances, sync_score
from lipsync_bench.metrics.sync.face_tracks import Detector, real_video_tracks
from lipsync_bench.metrics.sync.mfcc import mfcc
from lipsync_bench.models.pretrained.syncnet import SyncNetV2, load_syncnet
from lipsync_bench.models.pretrained.syncnet_s3fd import load_syncnet_s3fd

__all__ = [
    "LSE",
    "LSEAudio",
    "LSEClip",
    "LSEProtocol",
    "NoFaceTrackError",
    "score_clip",
    "score_real_video",
]


class NoFaceTrackError(ValueError):
    """A video without a face track."""


LSEProtocol = Literal["lse_wav2lip_lrs", "lse_wav2lip_real"]
FrameSource = Callable[[], Iterable[np.ndarray]]

WINDOW_FRAMES = 5
WINDOW_COLUMNS = 20
COLUMNS_PER_FRAME = 4
SAMPLES_PER_FRAME = 640  # 16 kHz at 25 fps
INPUT_PX = 224
BATCH_WINDOWS = 20
LIPS_AT_ONCE = 2  # on a CPU: a window's convolutions take 12 MB, and more at once are no faster
KEPT_BATCHES = 8  # of audio windows: several candidates, fed in turn, need 4 of them at a time


def _check_samples(samples: np.ndarray) -> None:
    if samples.ndim != 1 or samples.dtype != np.int16:
        seen = f", values from {samples.min():g} to {samples.max():g}" if samples.size else ""
        raise ValueError(
            f"samples has shape {samples.shape} and dtype {samples.dtype}{seen}. Expected a vector of int16 at 16 kHz. "
            "Use lipsync_bench.datamodules.media.audio.to_int16(samples)"
        )


def _full_float32() -> AbstractContextManager[None]:
    """Convolutions as on a CPU: cuDNN's default TF32 keeps three digits, the published scores have more."""
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


class LSEAudio:
    """The audio of a clip, embedded when a score needs it and shared by several `LSEClip` that are fed in turn.

    The batches last used are kept; an older one is computed again. A shorter video shares all batches but its last,
    smaller one: a network's last digits depend on the batch, and no score may depend on what else is scored.

    Args:
        network: SyncNet v2 with its weights; it is put into eval mode and stays on its device.
        samples: (S,) int16, 16 kHz, the audio of the whole clip.

    Raises:
        ValueError: not a vector of int16.
    """

    def __init__(self, network: SyncNetV2, samples: np.ndarray) -> None:
        _check_samples(samples)
        self.network = network.eval()
        self.samples = samples
        self._batches: OrderedDict[tuple[int, int], Tensor] = OrderedDict()

    @property
    def frames(self) -> int:
        """Length of the audio in whole frames at 25 fps."""
        return len(self.samples) // SAMPLES_PER_FRAME

    @cached_property
    def _columns(self) -> Tensor:
        return torch.from_numpy(mfcc(self.samples)).float().T  # (13, M)

    def around(self, start: int, stop: int, windows: int) -> Tensor:
        """Embeddings of the windows from `start` to `stop` (not included): (stop - start, 1024) float32, on the CPU.

        Windows before 0 and from `windows` on, 1 to `frames` - 5, are zeros.
        """
        low, high = max(start, 0), min(stop, windows)
        first = low // BATCH_WINDOWS * BATCH_WINDOWS
        parts = [self._batch(v, min(v + BATCH_WINDOWS, windows)) for v in range(first, high, BATCH_WINDOWS)]
        return F.pad(torch.cat(parts)[low - first : high - first], (0, 0, low - start, stop - high))

    def _batch(self, start: int, stop: int) -> Tensor:
        if (start, stop) not in self._batches:
            self._batches[start, stop] = self._embed(start, stop)
        self._batches.move_to_end((start, stop))
        while len(self._batches) > KEPT_BATCHES:
            self._batches.popitem(last=False)
        return self._batches[start, stop]

    @torch.no_grad()
    def _embed(self, start: int, stop: int) -> Tensor:
        batch = [self._columns[:, COLUMNS_PER_FRAME * v :][:, :WINDOW_COLUMNS] for v in range(start, stop)]
        device = next(self.network.parameters()).device
        with _full_float32():
            return self.network.forward_audio(torch.stack(batch)[:, None].to(device)).float().cpu()


class LSEClip:
    """Scores one clip whose frames come one by one (protocol `lse_wav2lip_lrs`, or the crops of one face track).

    A batch of windows is embedded as soon as it is complete, and its frames are dropped. With L = min(frames, whole
    frames of audio) there are L - 5 windows, not L - 4: 640 L samples give one MFCC column too few for the last one.
    So window v is complete only once frame v + 5 is there.

    Args:
        network: SyncNet v2 with its weights; it is put into eval mode and stays on its device.
        audio: (S,) int16, 16 kHz, the audio of the whole clip; or an `LSEAudio` of this network, to share it.

    Raises:
        ValueError: not a vector of int16, or audio embedded by another network.
    """

    def __init__(self, network: SyncNetV2, audio: np.ndarray | LSEAudio) -> None:
        self.audio = audio if isinstance(audio, LSEAudio) else LSEAudio(network, audio)
        if self.audio.network is not network:
            raise ValueError(
                "audio belongs to another network than the lips. Expected one network for both: otherwise their "
                "distances mean nothing. Use LSEAudio(network, samples) with this network"
            )
        self.network = network.eval()
        self.device = next(network.parameters()).device
        self.max_windows = self.audio.frames - WINDOW_FRAMES
        self.frames = 0
        self.waiting: list[np.ndarray] = []
        self.windows = 0
        self._lips: list[Tensor] = []  # embeddings of the windows that wait for later audio
        self._distances: list[Tensor] = []
        self._compared = 0

    @property
    def full(self) -> bool:
        """Whether all windows that the audio allows are complete: more frames change nothing."""
        return self.frames - WINDOW_FRAMES >= self.max_windows

    def add(self, frame: np.ndarray) -> None:
        """Add the next frame, (H, W, 3) uint8 RGB; it is ignored beyond the end of the audio."""
        if self.full:
            return
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise ValueError(
                f"frame {self.frames} has shape {frame.shape} and dtype {frame.dtype}. Expected (H, W, 3) uint8, RGB. "
                "Use lipsync_bench.datamodules.media.video.read_frames"
            )
        if frame.shape[:2] != (INPUT_PX, INPUT_PX):
            frame = cv2.resize(frame, (INPUT_PX, INPUT_PX), interpolation=cv2.INTER_LINEAR)
        self.waiting.append(frame)
        self.frames += 1
        if len(self.waiting) == BATCH_WINDOWS + WINDOW_FRAMES:
            self._embed(BATCH_WINDOWS)

    @torch.no_grad()
    def _embed(self, windows: int) -> None:
        windows = min(windows, self.max_windows - self.windows)
        if windows <= 0:
            return
        at_once = LIPS_AT_ONCE if self.device.type == "cpu" else windows
        for first in range(0, windows, at_once):
            count = min(at_once, windows - first)
            frames = np.stack(self.waiting[first : first + count + WINDOW_FRAMES - 1])[..., ::-1]  # RGB to BGR
            clip = torch.from_numpy(np.ascontiguousarray(frames)).to(self.device).float()  # (count + 4, 224, 224, 3)
            batch = clip.unfold(0, WINDOW_FRAMES, 1).permute(0, 3, 4, 1, 2)  # (count, 3, 5, 224, 224)
            with _full_float32():
                self._lips.append(self.network.forward_lips(batch).float().cpu())
        self.windows += windows
        del self.waiting[:windows]
        self._compare(self.windows - SHIFT_FRAMES)

    def _compare(self, stop: int) -> None:
        """Distances of the windows up to `stop`, whose audio windows are all available or known not to exist."""
        start = self._compared
        if stop <= start:
            return
        lips = torch.cat(self._lips)
        audio = self.audio.around(start - SHIFT_FRAMES, stop + SHIFT_FRAMES, self.windows)
        self._distances.append(shifted_distances(lips[: stop - start], audio))
        self._lips = [lips[stop - start :].clone()]  # a view would keep the whole
        self._compared = stop

    @torch.no_grad()
    def score(self) -> SyncScore:
        """The scores of all windows; call it once, after the last `add`.

        Raises:
            ValueError: fewer than 6 frames, or less audio than 6 frames (240 ms).
        """
        self._embed(len(self.waiting) - WINDOW_FRAMES)
        if self.windows == 0:
            audio = f"audio for {self.audio.frames} frames at 25 fps"
            short = f"{self.frames} frames" if self.max_windows > 0 else audio
            raise ValueError(
                f"clip too short for SyncNet: {short}. Expected at least {WINDOW_FRAMES + 1}. "
                "Leave the clip out and count it as failed"
            )
        self._compare(self.windows)
        return sync_score(torch.cat(self._distances))


def score_clip(network: SyncNetV2, frames: Iterable[np.ndarray], samples: np.ndarray) -> SyncScore:
    """Score a clip on its whole frames, resized to 224 x 224 whatever their aspect ratio (protocol `lse_wav2lip_lrs`).

    Args:
        network: SyncNet v2 with its weights; it is put into eval mode.
        frames: (H, W, 3) uint8 RGB at 25 fps; read once, and no further than the audio.
        samples: (S,) int16, 16 kHz.

    Raises:
        ValueError: fewer than 6 frames or less audio than 6 frames (240 ms); wrong shapes or dtypes.
    """
    scorer = LSEClip(network, samples)
    for frame in frames:
        scorer.add(frame)
        if scorer.full:
            break
    return scorer.score()


def score_real_video(
    network: SyncNetV2, frames_factory: FrameSource, samples: np.ndarray, detector: Detector
) -> list[SyncScore]:
    """Score every face track of a video (protocol `lse_wav2lip_real`), see `lipsync_bench.metrics.sync.face_tracks`.

    Args:
        network: SyncNet v2 with its weights; it is put into eval mode.
        frames_factory: called twice; gives the frames (H, W, 3), uint8 RGB, at 25 fps.
        samples: (S,) int16, 16 kHz, the audio of the whole video.
        detector: (H, W, 3) uint8 RGB -> (n, 5) boxes and score: `SyncNetS3FD.detect` for published
            numbers.

    Returns:
        One score a track, in the order of the tracks.

    Raises:
        NoFaceTrackError: no face track.
        ValueError: too little audio for one of them.
    """
    _check_samples(samples)
    tracks, crops = real_video_tracks(frames_factory, detector)
    if not tracks:
        raise NoFaceTrackError(
            "no face track. Expected at least one face wider or higher than 100 px in more than 100 frames of one "
            "shot. Leave the clip out and count it as failed, or score it by lse_wav2lip_lrs"
        )
    scorers = [
        LSEClip(network, samples[SAMPLES_PER_FRAME * track.first : SAMPLES_PER_FRAME * (track.last + 1)])
        for track in tracks
    ]
    for index, crop in crops:
        scorers[index].add(crop)
    return [scorer.score() for scorer in scorers]


class LSE(Metric):
    r"""Mean of LSE-C and LSE-D over clips (protocol `lse_wav2lip_lrs`) or face tracks (`lse_wav2lip_real`).

    With f the embeddings of 5-frame windows v of the video and g those of the audio, T windows and shifts j from -15 to
    15:

    .. math:: m_j = \frac{1}{T} \sum_v \lVert f_v - g_{v+j} + 10^{-6} \rVert_2, \quad
        \mathrm{LSE\text{-}D} = \min_j m_j, \quad \mathrm{LSE\text{-}C} = \mathrm{median}_j\, m_j - \min_j m_j

    * Input: 8-bit RGB frames at 25 fps (turned to BGR, 0..255, inside) and int16 samples at 16 kHz, both of the encoded
      video.
    * `lse_wav2lip_lrs`: whole frames resized to 224 x 224 (bilinear, aspect ratio not kept), for data that is cropped
      to the face already (LRW, LRS2, LRS3). In a large frame the face becomes too small to score.
    * `lse_wav2lip_real`: S3FD detection, shots, tracks, crops (`face_tracks`); a clip with two tracks counts
      twice.
    * Average: over windows before the minimum over shifts (no mean of minima, no fixed shift), then over clips or
      tracks.
    * Reference: the SyncNet evaluation class (Oxford) and the LSE scripts of Wav2Lip, window 5, 31 shifts, float32.
    * Known differences: the scripts pass the frames through JPEG (and AVI for real videos) first. LatentSync reports
      the confidence alone with minimum track length 50: another number, not computed here. Methods trained with a
      SyncNet-like loss can score better than real video.

    Args:
        network: SyncNet v2 with its weights (`load_syncnet`); it stays on its own device and is not part
            of this metric's parameters or checkpoint.
        weights: identity of those weights, such as "sha256:...", kept as an attribute for the tables; any other than
            the official file makes another number.
        protocol: `lse_wav2lip_lrs` or `lse_wav2lip_real`.
        detector: for `lse_wav2lip_real` alone: (H, W, 3) uint8 RGB -> (n, 5) boxes and score.
        **kwargs: Arguments of `torchmetrics.Metric`.

    Example:
        >>> from lipsync_bench.metrics.sync.distances import sync_distances, sync_score
        >>> lips = torch.eye(40)
        >>> score = sync_score(sync_distances(lips, lips.roll(-2, dims=0)))  # the audio comes 2 frames early
        >>> score.offset_frames, round(score.lse_d, 3), round(score.lse_c, 3)
        (2, 0.05, 1.281)
    """

    higher_is_better = None  # two values: see `directions`
    is_differentiable = False
    full_state_update = False
    directions: ClassVar[dict[str, bool]] = {"lse_c": True, "lse_d": False}

    lse_c_sum: Tensor
    lse_d_sum: Tensor
    count: Tensor

    def __init__(
        self,
        network: SyncNetV2,
        weights: str,
        protocol: LSEProtocol = "lse_wav2lip_lrs",
        detector: Detector | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if protocol not in get_args(LSEProtocol):
            raise ValueError(
                f"protocol is {protocol!r}. Expected one of {', '.join(get_args(LSEProtocol))}. Set protocol"
            )
        if (detector is not None) != (protocol == "lse_wav2lip_real"):
            raise ValueError(
                f"protocol {protocol} {'without' if detector is None else 'with'} a face detector. Expected a "
                "detector for lse_wav2lip_real and none for lse_wav2lip_lrs. Load one by "
                "lipsync_bench.models.pretrained.syncnet_s3fd.load_syncnet_s3fd (bench weights fetch sfd_face)"
            )
        if not weights:
            raise ValueError('weights is empty. Expected the identity of SyncNet\'s weights. Set weights="sha256:..."')
        # In a tuple nn.Module does not see it: an enclosing module's train(), parameters() and checkpoints leave it
        # alone.
        self._network = (network,)
        self._detector = (detector,)
        self.weights = weights
        self.protocol = protocol
        for state in ("lse_c_sum", "lse_d_sum", "count"):
            self.add_state(state, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def score(self, frames: FrameSource, samples: np.ndarray) -> list[SyncScore]:
        """The scores of one clip (one, or one a face track) without adding them; arguments as for `update`."""
        (network,), (detector,) = self._network, self._detector
        if detector is None:
            return [score_clip(network, frames(), samples)]
        return score_real_video(network, frames, samples, detector)

    def add(self, scores: Iterable[SyncScore]) -> None:
        """Add scores that `score` returned."""
        for score in scores:
            self.lse_c_sum += score.lse_c
            self.lse_d_sum += score.lse_d
            self.count += 1

    def update(self, frames: FrameSource, samples: np.ndarray) -> None:
        """Score one clip and add it.

        Args:
            frames: called for the clip's frames (H, W, 3), uint8 RGB, 25 fps: once, or twice for `lse_wav2lip_real`.
            samples: (S,) int16, 16 kHz.

        Raises:
            ValueError: the clip is too short or has no face track; nothing was added.
        """
        self.add(self.score(frames, samples))

    def compute(self) -> dict[str, Tensor]:
        """`lse_c` and `lse_d`: means over the clips or tracks, float64; nan without any."""
        return {"lse_c": self.lse_c_sum / self.count, "lse_d": self.lse_d_sum / self.count}


class _Scorer(Scorer):
    def __init__(self, clip: ScoredClip) -> None:
        network = clip.networks["lse"]
        self._audio: LSEAudio = clip.audio.shared("lse", lambda audio: LSEAudio(network, audio.samples))
        self._clip = LSEClip(network, self._audio)
        self._detector = clip.networks.get("syncnet_s3fd") if clip.face_tracks else None
        self._video = clip.video
        generated = self._detector is not None and clip.video is None
        self._store = FrameStore(clip.path("face_tracks", ".mkv")) if generated else None
        self._frames = 0

    def update(self, view: View) -> None:
        self._frames += len(view.frames)
        for frame in view.frames:
            self._clip.add(frame)
            if self._store is not None:
                self._store.add(frame)

    def result(self) -> dict[str, Value]:
        try:
            return {**self._of_frames(), **self._of_tracks()}
        except ValueError as error:
            raise MediaError(str(error)) from error

    def _of_frames(self) -> dict[str, Value]:
        score = self._clip.score()
        return {
            "lse_c_wav2lip_lrs": score.lse_c,
            "lse_d_wav2lip_lrs": score.lse_d,
            "lse_offset_wav2lip_lrs": score.offset_frames,
            "lse_curve_wav2lip_lrs": curve_text(score.distances.mean(dim=0)),
        }

    def _of_tracks(self) -> dict[str, Value]:
        if self._detector is None:
            return {}
        audio, detect = self._audio, self._detector.detect
        try:
            tracks = score_real_video(audio.network, self._read, audio.samples, detect)
        except NoFaceTrackError:  # such as a clip of less than 4 s: the other metrics count
            return {"lse_face_tracks": 0}
        return {
            "lse_c_wav2lip_real": float(np.mean([track.lse_c for track in tracks])),
            "lse_d_wav2lip_real": float(np.mean([track.lse_d for track in tracks])),
            "lse_face_tracks": len(tracks),
        }

    def _read(self) -> Iterable[np.ndarray]:
        """The frames that were scored, again."""
        if self._store is not None:
            return self._store.read()
        assert self._video is not None
        return islice(read_frames(self._video, FPS), self._frames)

    def close(self, keep: bool) -> None:
        if self._store is not None:
            self._store.close()


def load(name: str, given: str | Path, device: str) -> tuple[torch.nn.Module, str]:
    """SyncNet (`lse`) or its pipeline's face detector (`syncnet_s3fd`)."""
    network = load_syncnet(Path(given)) if name == "lse" else load_syncnet_s3fd(Path(given))
    return network.to(device), sha256(Path(given))


def scorer(clip: ScoredClip) -> Scorer | None:
    """Scores whole frames, and of large ones the face tracks too, if there is a detector."""
    return _Scorer(clip) if "lse" in clip.networks else None


METRIC = Description(
    columns=(
        Column("lse_c_wav2lip_lrs", "LSE-C (Wav2Lip LRS)", "", True, 3, (0, INF), "audio", network="lse", order=140),
        Column("lse_d_wav2lip_lrs", "LSE-D (Wav2Lip LRS)", "", False, 3, (0, INF), "audio", network="lse", order=150),
        Column(
            "lse_offset_wav2lip_lrs",
            "LSE offset (Wav2Lip LRS)",
            "frames",
            None,
            1,
            (-15.0, 15.0),
            "audio",
            network="lse",
            order=160,
        ),
        Column("lse_c_wav2lip_real", "LSE-C (Wav2Lip real)", "", True, 3, (0, INF), "audio", network="lse", order=170),
        Column("lse_d_wav2lip_real", "LSE-D (Wav2Lip real)", "", False, 3, (0, INF), "audio", network="lse", order=180),
    ),
    about={
        "lse_c_wav2lip_lrs": "How clearly SyncNet prefers one shift of the audio; for videos that are cut to the face.",
        "lse_d_wav2lip_lrs": "SyncNet's distance of lips and audio at the best shift; for videos cut to the face.",
        "lse_offset_wav2lip_lrs": "The shift of the audio at which SyncNet finds lips and audio closest; 0 is in sync.",
        "lse_c_wav2lip_real": "LSE-C on faces that are tracked through the whole video, for large frames.",
        "lse_d_wav2lip_real": "LSE-D on faces that are tracked through the whole video, for large frames.",
    },
    source="Chung and Zisserman, ACCV-W 2016; Prajwal et al., ACM MM 2020",
    checked="golden arrays; `lse_*_real`, on the face tracks of large frames, needs both files",
    counts=(Field("lse_face_tracks", "Face tracks in lse_*_wav2lip_real; 0 without one of more than 100 frames."),),
    curves=(Field("lse_curve_wav2lip_lrs", "SyncNet's distance"),),
    networks=(
        Network("lse", "syncnet_v2"),
        Network("syncnet_s3fd", "sfd_face", recorded=False, beside="lse"),
    ),
)
