# SPDX-License-Identifier: Apache-2.0
"""Inter-modal alignment: frames and audio windows of a batch, each frame's own window among all others.

The form is ALBEF's (Li et al., NeurIPS 2021, cited by the paper), symmetric cross-entropy with the diagonal as the
answer. A batch of three clips has three positive pairs, from which nothing is learnt: here every frame of all processes
counts. Windows of 0.2 s of neighbouring frames overlap by four fifths; pairs of one clip that are closer than
`mask_frames` are neither positive nor negative. Windows of the same clip further away are further negatives.

Differs: Eq. 8 and 9 print exp(s / tau) over a sum of exp(s tau), and Eq. 10 normalises a second time; here all are
divided by tau, once.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_SCALE = 100.0  # 1 / tau is no larger, as in CLIP

__all__ = ["ContrastHeads", "Contrasted", "Places", "contrast", "near"]


class Places(NamedTuple):
    """Where frames or windows come from: int64 (N,) each, a number for the clip, and the frame in it."""

    clip: Tensor
    frame: Tensor


class Contrasted(NamedTuple):
    """Args:
    loss: mean of both directions.
    accuracy: share of frames whose own window is the nearest of those that count, and chance for it.
    """

    loss: Tensor
    accuracy: Tensor
    chance: Tensor


def near(rows: Places, columns: Places, frames: int) -> Tensor:
    """bool (N,M): both of one clip, and fewer than so many frames apart."""
    same = rows.clip[:, None] == columns.clip[None]
    return same & ((rows.frame[:, None] - columns.frame[None]).abs() < frames)


def contrast(
    to_audio: Tensor, to_video: Tensor, places: Places, far: Tensor, far_places: Places, mask_frames: int
) -> Contrasted:
    """Cross-entropy in both directions.

    Args:
        to_audio: (N,N), similarities of every frame (row) with every window, divided by tau.
        to_video: (N,N), those of every window (row) with every frame.
        places: of the N frames and their windows.
        far: (N,M), similarities of every frame with further windows, which belong to no frame of the batch.
        far_places: of these.
        mask_frames: pairs of one clip that are closer than this are left out.
    """
    count = len(to_audio)
    own = torch.arange(count, device=to_audio.device)
    ignored = near(places, places, mask_frames)
    ignored[own, own] = False
    out = torch.cat([ignored, near(places, far_places, mask_frames)], dim=1)
    rows = torch.cat([to_audio, far], dim=1).float().masked_fill(out, -math.inf)
    columns = to_video.float().masked_fill(ignored.T, -math.inf)
    loss = (F.cross_entropy(rows, own) + F.cross_entropy(columns, own)) / 2
    right = (rows.argmax(dim=1) == own).float().mean()
    return Contrasted(loss, right, (1 / (~out).sum(dim=1)).mean())


class ContrastHeads(nn.Module):
    """g_v and g_a: features to unit vectors, and the temperature.

    Args:
        visual, audio: lengths of the features.
        length: of the vectors (256 in ALBEF).
        tau: temperature at the start.
        learn_tau: whether it is learnt, as a logarithm; 1 / tau stays below 100.
        momentum: of the copies g' of both heads, with which they are compared (ALBEF: 0.995); 0 for none. ALBEF has
            copies of whole encoders and a queue, which the paper does not name.
    """

    def __init__(
        self, visual: int, audio: int, length: int, tau: float = 0.07, learn_tau: bool = True, momentum: float = 0.0
    ) -> None:
        super().__init__()
        self.visual, self.audio = nn.Linear(visual, length), nn.Linear(audio, length)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(tau)), requires_grad=learn_tau)
        self.momentum = momentum
        self.slow: nn.ModuleDict | None = None
        if momentum > 0:
            self.slow = nn.ModuleDict({"visual": nn.Linear(visual, length), "audio": nn.Linear(audio, length)})
            self.slow["visual"].load_state_dict(self.visual.state_dict())
            self.slow["audio"].load_state_dict(self.audio.state_dict())
            self.slow.requires_grad_(False)

    @property
    def scale(self) -> Tensor:
        """1 / tau."""
        return self.log_scale.exp().clamp(max=MAX_SCALE)

    def vectors(self, visual: Tensor, audio: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features (N,V) and (M,A) -> g_v and g_a of them, then g'_v and g'_a, which are the same without copies."""
        own = [F.normalize(head(x).float()) for head, x in ((self.visual, visual), (self.audio, audio))]
        if self.slow is None:
            return own[0], own[1], own[0], own[1]
        with torch.no_grad():
            if self.training:
                for name, head in (("visual", self.visual), ("audio", self.audio)):
                    for slow, fast in zip(self.slow[name].parameters(), head.parameters(), strict=True):
                        slow.lerp_(fast, 1 - self.momentum)
            slow_v, slow_a = (
                F.normalize(self.slow[name](x).float()) for name, x in (("visual", visual), ("audio", audio))
            )
        return own[0], own[1], slow_v, slow_a
