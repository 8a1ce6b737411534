# SPDX-License-Identifier: Apache-2.0
"""Audio-video sync measured by a sync expert trained with this suite, in columns of its own: its numbers are not LSE.

The expert is the one Wav2Lip is trained with (Prajwal et al., ACM MM 2020): useful where SyncNet's weights may not be
used, and biased in favour of methods trained against the same expert.
"""

from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.faces.crops import cut
from lipsync_bench.datamodules.files.disk import sha256
from lipsync_bench.datamodules.media.audio import MEL_BANDS, MEL_WINDOW, mel_start
from lipsync_bench.metrics.metric import Column, Description, Field, Network, ScoredClip, Scorer, Value, View
from lipsync_bench.metrics.sync.distances import curve_text
from lipsync_bench.models import load_expert
from lipsync_bench.models.wav2lip.sync_expert import SyncExpert

__all__ = ["ExpertClip", "ExpertSync", "expert_curve", "expert_score"]

MAX_SHIFT_FRAMES = 15
WINDOW_FRAMES = 5
BATCH_WINDOWS = 8


def _check_faces(faces: Tensor, size_px: int) -> None:
    if faces.ndim != 4 or faces.shape[1:] != (3, size_px, size_px) or not faces.is_floating_point():
        raise ValueError(
            f"faces has shape {tuple(faces.shape)} and dtype {faces.dtype}. Expected (T, 3, {size_px}, {size_px}), "
            "floating, RGB in [0, 1]. Resize the face crops and divide them by 255"
        )
    low, high = (float(value) for value in torch.aminmax(faces)) if faces.numel() else (0.0, 0.0)
    if not (low >= 0.0 and high <= 1.0):  # written so that NaN fails too
        raise ValueError(
            f"faces has values from {low:g} to {high:g}. Expected RGB in [0, 1]. Divide 8-bit frames by 255"
        )


class ExpertClip:
    """Scores one clip whose face crops come chunk by chunk; each window is embedded once and its pixels are dropped.

    Embeddings are dropped too when nothing is left to compare them with; only 31 cosines a window are kept.

    Args:
        expert: (B, 1, 80, 16), (B, 15, S/2, S) -> two (B, 512) of unit length; put into eval mode; stays on its device.
        mel: (80, M), 80 columns a second, the audio of the whole clip.
        max_shift_frames: largest shift in either direction.

    Raises:
        ValueError: wrong shape or dtype.
    """

    def __init__(self, expert: SyncExpert, mel: Tensor, max_shift_frames: int = MAX_SHIFT_FRAMES) -> None:
        if mel.ndim != 2 or mel.shape[0] != MEL_BANDS or not mel.is_floating_point():
            raise ValueError(
                f"mel has shape {tuple(mel.shape)} and dtype {mel.dtype}. Expected ({MEL_BANDS}, M), floating. "
                "Use lipsync_bench.datamodules.media.audio.mel_spectrogram(samples)"
            )
        if max_shift_frames < 1:
            raise ValueError(
                f"max_shift_frames is {max_shift_frames}. Expected at least 1. Use the default {MAX_SHIFT_FRAMES}"
            )
        self.frames = 0
        self._expert = expert.eval()
        self._mel = mel
        self._shift = max_shift_frames
        self._starts: list[int] = []  # first columns of the audio windows inside the mel spectrogram
        while (start := mel_start(len(self._starts))) + MEL_WINDOW <= mel.shape[1]:
            self._starts.append(start)
        self._waiting = torch.empty(0, 3, expert.face_px // 2, expert.face_px)
        self._windows = 0  # embedded so far, of video and audio each
        self._video = torch.empty(0, 0, dtype=torch.float64)  # embeddings of windows that wait for later audio,
        self._audio = torch.empty(0, 0, dtype=torch.float64)  # and of all windows they are compared with
        self._cosines: list[Tensor] = []
        self._compared = 0

    def add(self, faces: Tensor) -> None:
        """The next face crops: (N, 3, S, S), S = `expert.face_px`, RGB, float in [0, 1], whole faces at 25 fps."""
        _check_faces(faces, self._expert.face_px)
        lower = faces.flip(1)[:, :, self._expert.face_px // 2 :]  # BGR, the lower half of each face
        self._waiting = torch.cat([self._waiting.to(lower), lower])
        self.frames += len(faces)
        while len(self._waiting) >= BATCH_WINDOWS + WINDOW_FRAMES - 1:
            self._embed_video(BATCH_WINDOWS)

    def _embed_video(self, windows: int) -> None:
        pictures = torch.stack([self._waiting[k : k + WINDOW_FRAMES].flatten(0, 1) for k in range(windows)])
        self._embed(pictures)
        self._waiting = self._waiting[windows:]

    @torch.no_grad()
    def _embed(self, pictures: Tensor) -> None:
        """Embed the next windows of the video and as many of the audio: the expert takes both at once."""
        if not self._starts:
            return
        weight = next(self._expert.parameters())
        at = range(self._windows, self._windows + len(pictures))
        starts = [self._starts[min(k, len(self._starts) - 1)] for k in at]  # the surplus is cut off by `curve`
        mels = torch.stack([self._mel[None, :, start : start + MEL_WINDOW] for start in starts])
        audio, video = self._expert(mels.to(weight), pictures.to(weight))
        self._video, self._audio = (
            torch.cat([kept, new.double().cpu()]) if len(kept) else new.double().cpu()
            for kept, new in ((self._video, video), (self._audio, audio))
        )
        self._windows += len(pictures)
        self._compare(self._windows - self._shift, self._windows)

    def _compare(self, stop: int, audio_windows: int) -> None:
        """Cosines of the video windows up to `stop` with the audio windows around them."""
        start, audio_windows = self._compared, min(audio_windows, len(self._starts))
        if stop <= start:
            return
        first_audio = self._windows - len(self._audio)
        cosines = torch.full((stop - start, 2 * self._shift + 1), torch.nan, dtype=torch.float64)
        for j, shift in enumerate(range(-self._shift, self._shift + 1)):
            low, high = max(start, -shift), min(stop, audio_windows - shift)
            if low < high:
                audio = self._audio[low + shift - first_audio : high + shift - first_audio]
                cosines[low - start : high - start, j] = (self._video[low - start : high - start] * audio).sum(dim=1)
        self._cosines.append(cosines)
        self._compared = stop
        self._video = self._video[stop - start :].clone()  # a view would keep the whole
        self._audio = self._audio[max(0, stop - self._shift - first_audio) :].clone()

    def curve(self) -> tuple[Tensor, Tensor]:
        """The cosines of all windows and their means, see `expert_curve`; call it once, after the last `add`.

        Raises:
            ValueError: fewer than 5 frames or 16 mel columns.
        """
        if self.frames < WINDOW_FRAMES or not self._starts:
            raise ValueError(
                f"clip too short for the sync expert: {self.frames} frames, {self._mel.shape[1]} mel columns. Expected "
                f"at least {WINDOW_FRAMES} frames and {MEL_WINDOW} columns. Leave the clip out and count it as failed"
            )
        if len(self._waiting) >= WINDOW_FRAMES:
            self._embed_video(len(self._waiting) - WINDOW_FRAMES + 1)
        windows = self._windows
        audio_windows = min(len(self._starts), windows + self._shift)
        for first in range(windows, audio_windows, BATCH_WINDOWS):  # audio after the last frame, beside black frames
            count = min(BATCH_WINDOWS, audio_windows - first)
            self._embed(torch.zeros(count, 3 * WINDOW_FRAMES, *self._waiting.shape[2:]))
        self._compare(windows, audio_windows)
        curve = torch.cat(self._cosines)
        return curve, curve.nanmean(dim=0)

    def score(self) -> dict[str, float]:
        """The three numbers of `ExpertSync` by name; call it once, after the last `add`."""
        return expert_score(self.curve()[1])


def expert_score(means: Tensor) -> dict[str, float]:
    """The numbers of `ExpertSync` by name, from the mean cosine at each shift, (2 * shift + 1,), NaN where unknown."""
    shift = len(means) // 2
    best = int(means.nan_to_num(-torch.inf).argmax())
    return {
        "expert_cosine": float(means[shift]),
        "expert_confidence": float(means[best] - means.nanmedian()),
        "expert_offset_frames": float(shift - best),
    }


def expert_curve(
    expert: SyncExpert, faces: Tensor, mel: Tensor, max_shift_frames: int = MAX_SHIFT_FRAMES
) -> tuple[Tensor, Tensor]:
    """Cosine of each 5-frame window of the video with the audio at the shifts -max_shift..max_shift.

    Args:
        expert: (B, 1, 80, 16), (B, 15, S/2, S) -> two (B, 512) of unit length; put into eval mode; stays on its device.
        faces: (T, 3, S, S), S = `expert.face_px`, RGB, float in [0, 1], whole faces at 25 fps.
        mel: (80, M), 80 columns a second.
        max_shift_frames: largest shift in either direction.

    Returns:
        (V, 2 * max_shift + 1) float64, V = T - 4, entry [v, j] for the audio that starts at frame v + j - max_shift,
        NaN where there is none; and the mean over windows of each shift, (2 * max_shift + 1,), NaN for a shift without
        any. Unlike SyncNet's distances, windows that do not exist do not take part.

    Raises:
        ValueError: wrong shape, dtype or range; fewer than 5 frames or 16 columns.
    """
    clip = ExpertClip(expert, mel, max_shift_frames)
    clip.add(faces)
    return clip.curve()


class ExpertSync(Metric):
    r"""Means over clips of three numbers of the sync expert; a clip is one `update`.

    With :math:`c_j` the mean over 5-frame windows v of the cosine between video window v and the audio window at v + j:

    .. math:: \mathrm{cosine} = c_0, \quad \mathrm{confidence} = \max_j c_j - \mathrm{median}_j\, c_j, \quad
        \mathrm{offset} = -\arg\max_j c_j

    * `expert_cosine` in [-1, 1] (in [0, 1] for a network that ends in ReLU), higher is better.
    * `expert_confidence` in [0, 2], higher is better.
    * `expert_offset_frames` at 25 fps, best at 0, the sign as SyncNet's: positive means that the matching audio starts
      EARLIER than the video.
    * Input: face crops as the expert was trained on, `expert.face_px` a side, RGB in [0, 1] (their lower halves go in
      as BGR), and the mel spectrogram. For a video after encoding, cut the crops from the decoded frames.
    * Average: over windows, then clips.
    * Reference: none outside this package. It has its own names because LSE has another network, other audio features,
      windows and scale; no number of this metric can be compared with an LSE-C or LSE-D.
    * Known differences from the LSE recipe: windows beyond the ends of the audio are left out instead of counting as
      zeros.

    Args:
        expert: the trained `SyncExpert`, Wav2Lip's or HyperLips'; it stays on its own device and is
            not part of this metric's parameters or checkpoint.
        weights: identity of its weights, such as "sha256:...", kept as an attribute for the tables.
        max_shift_frames: largest shift in either direction.
        **kwargs: Arguments of `torchmetrics.Metric`.

    Example:
        >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
        <torch._C.Generator object at ...>
        >>> metric = ExpertSync(SyncExpert(), weights="untrained")
        >>> metric.update(torch.rand(6, 3, 96, 96), torch.rand(80, 24))
        >>> sorted(metric.compute())
        ['expert_confidence', 'expert_cosine', 'expert_offset_frames']
    """

    higher_is_better = None  # three values: see `directions`
    is_differentiable = False
    full_state_update = False
    directions: ClassVar[dict[str, bool | None]] = {
        "expert_cosine": True,
        "expert_confidence": True,
        "expert_offset_frames": None,
    }
    protocol: ClassVar[str] = "expert_sync"

    cosine_sum: Tensor
    confidence_sum: Tensor
    offset_sum: Tensor
    count: Tensor

    def __init__(
        self, expert: SyncExpert, weights: str, max_shift_frames: int = MAX_SHIFT_FRAMES, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if not weights:
            raise ValueError(
                'weights is empty. Expected the identity of the expert\'s weights. Set weights="sha256:..."'
            )
        # In a tuple nn.Module does not see it: an enclosing module's train(), parameters() and checkpoints leave it
        # alone.
        self._expert = (expert,)
        self.weights = weights
        self.max_shift_frames = max_shift_frames
        for state in ("cosine_sum", "confidence_sum", "offset_sum", "count"):
            self.add_state(state, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def score(self, faces: Tensor, mel: Tensor) -> dict[str, float]:
        """The three numbers of one clip without adding them; arguments as for `expert_curve`."""
        clip = ExpertClip(self._expert[0], mel, self.max_shift_frames)
        clip.add(faces)
        return clip.score()

    def add(self, score: dict[str, float]) -> None:
        """Add what `score` returned."""
        self.cosine_sum += score["expert_cosine"]
        self.confidence_sum += score["expert_confidence"]
        self.offset_sum += score["expert_offset_frames"]
        self.count += 1

    def update(self, faces: Tensor, mel: Tensor) -> None:
        """Score one clip and add it; see `expert_curve` for the arguments."""
        self.add(self.score(faces, mel))

    def compute(self) -> dict[str, Tensor]:
        """The three means over clips, float64; nan without any."""
        return {
            "expert_cosine": self.cosine_sum / self.count,
            "expert_confidence": self.confidence_sum / self.count,
            "expert_offset_frames": self.offset_sum / self.count,
        }


class _Scorer(Scorer):
    def __init__(self, clip: ScoredClip) -> None:
        module = clip.networks["expert"]
        self._side = module.image_size
        self._clip = ExpertClip(module.network, torch.from_numpy(clip.audio.mel))

    def update(self, view: View) -> None:
        size = (self._side, self._side)
        faces = [cut(frame, box) for frame, box in zip(view.frames, view.face_boxes, strict=True)]
        faces = [cv2.resize(face, size, interpolation=cv2.INTER_LINEAR) for face in faces]
        self._clip.add(torch.from_numpy(np.stack(faces)).permute(0, 3, 1, 2).float() / 255)

    def result(self) -> dict[str, Value]:
        try:
            _, means = self._clip.curve()
        except ValueError as error:
            raise MediaError(str(error)) from error
        return {**expert_score(means), "expert_curve": curve_text(means)}


def load(name: str, given: str | Path, device: str) -> tuple[torch.nn.Module, str]:
    """A sync expert of this suite, from its checkpoint."""
    return load_expert(Path(given)).to(device), sha256(Path(given))


def scorer(clip: ScoredClip) -> Scorer | None:
    """Scores the crops of the clip's face boxes."""
    return _Scorer(clip) if "expert" in clip.networks else None


METRIC = Description(
    columns=(
        Column("expert_cosine", "Expert cosine", "", True, 3, (-1, 1), "audio", network="expert", order=190),
        Column("expert_confidence", "Expert confidence", "", True, 3, (0, 2), "audio", network="expert", order=200),
        Column(
            "expert_offset_frames",
            "Expert offset",
            "frames",
            None,
            1,
            (-15.0, 15.0),
            "audio",
            network="expert",
            order=210,
        ),
    ),
    about={
        "expert_cosine": "How well lips and audio fit, by a sync expert trained with this suite; never LSE.",
        "expert_confidence": "How clearly the expert prefers one shift of the audio to the others; never LSE.",
        "expert_offset_frames": "The shift of the audio at which the expert finds the best fit; 0 is in sync.",
    },
    source="this suite: a sync expert trained with it, not LSE",
    checked="this suite's own sync expert; never LSE",
    curves=(Field("expert_curve", "The expert's cosine"),),
    networks=(Network("expert", option="expert"),),
)
