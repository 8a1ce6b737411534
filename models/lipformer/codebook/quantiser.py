# SPDX-License-Identifier: Apache-2.0
"""A codebook of LipFormer's first stage: nearest entries, their loss, and new life for entries that nobody uses.

Vector quantisation as van den Oord et al., "Neural Discrete Representation Learning", NeurIPS 2017, arXiv 1711.00937.
Initialisation and re-seeding are choices of this project; LipFormer's paper does not mention them.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

INITIAL_DEVIATION = 0.3  # about that of an untrained encoder's outputs
_DISTANCES = 1 << 24  # in one piece: 64 MiB

__all__ = ["INITIAL_DEVIATION", "Quantised", "Quantiser"]


class Quantised(NamedTuple):
    """Encodings by their nearest entries."""

    codes: Tensor
    """(N,d,h,w): the entries' values; gradients pass to the encodings unchanged and not to the entries."""
    entries: Tensor
    """(N,d,h,w): the same values; gradients pass to the entries."""
    indices: Tensor
    """(N,h,w) int64: which entries."""


def _ranks() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _fewest(rows: Tensor) -> int:
    """The number of rows on the rank that has the fewest: last batches may differ."""
    if _ranks() == 1:
        return len(rows)
    count = torch.tensor(len(rows), device=rows.device)
    dist.all_reduce(count, dist.ReduceOp.MIN)
    return int(count)


class Quantiser(nn.Module):
    """A codebook C of n entries with d channels.

    Entries that no encoding chose for `reseed_after` steps are replaced by encodings drawn from the batch. An untrained
    codebook counts as unused: the first training steps fill it with encodings, which keeps small runs from
    collapsing on a few entries. Until then it holds normal values of the encoder's scale.

    Args:
        entries: n (not published; a choice).
        channels: d (not published; a choice).
        reseed_after: calls of `record`, one a training batch (not published; a choice).

    Raises:
        ValueError: an argument is below 1.
    """

    def __init__(self, entries: int = 1024, channels: int = 256, reseed_after: int = 1000) -> None:
        super().__init__()
        if min(entries, channels, reseed_after) < 1:
            raise ValueError(
                f"Quantiser: {entries} entries, {channels} channels, reseed_after {reseed_after}. Expected 1 or more "
                "of each. Set --model.init_args.entries, code_channels and reseed_after."
            )
        self.reseed_after = reseed_after
        self.embedding = nn.Parameter(INITIAL_DEVIATION * torch.randn(entries, channels))
        self.idle_steps: Tensor
        self.used: Tensor
        # Steps since the last use or re-seeding, and 1 if there was a use since then. (Not a bool: averages of weights
        # subtract.)
        self.register_buffer("idle_steps", torch.full((entries,), reseed_after))
        self.register_buffer("used", torch.zeros(entries, dtype=torch.int8))

    def forward(self, features: Tensor) -> Quantised:
        """The nearest entries, by Euclidean distance in float32, of encodings (N,d,h,w)."""
        indices = self._nearest(features.detach())
        entries = self.lookup(indices)
        # The sum is exactly the entries' values, as their sum with a rounded difference would not be.
        return Quantised(entries.detach() + (features - features.detach()), entries, indices)

    def lookup(self, indices: Tensor) -> Tensor:
        """Entries (N,d,h,w) of indices (N,h,w)."""
        return F.embedding(indices, self.embedding).movedim(-1, 1)

    def loss(self, features: Tensor, quantised: Quantised, commitment: float = 0.25) -> Tensor:
        """||sg[F] - H||^2 + commitment ||sg[H] - F||^2 (Eq. 3, one half of the face), means over all values: a scalar.

        Args:
            features: F (N,d,h,w), what `quantised` was made of.
            quantised: H.
            commitment: beta, 0.25 as published.
        """
        features, entries = features.float(), quantised.entries.float()
        return F.mse_loss(entries, features.detach()) + commitment * F.mse_loss(features, entries.detach())

    @torch.no_grad()
    def health(self, indices: Tensor) -> dict[str, Tensor]:
        """Whether the codebook collapses.

        Args:
            indices: of any shape, of a batch.

        Returns:
            Scalars: `perplexity` exp(-sum p ln p) of the batch's entries, 1 to n; `used`, the share of all entries that
            were used in the last `reseed_after` training steps, on any rank.
        """
        shares = torch.bincount(indices.flatten(), minlength=len(self.embedding)).float() / indices.numel()
        return {"perplexity": torch.special.entr(shares).sum().exp(), "used": self.used.float().mean()}

    @torch.no_grad()
    def record(self, indices: Tensor, features: Tensor) -> None:
        """Count a training step's uses and re-seed the unused; every rank has to call it, and all end up alike.

        A re-seeded entry gets a random encoding, no encoding is given twice, and entries in excess of the encodings
        wait for the next step. An optimiser's moments stay with the row: after so many steps without a gradient
        Adam's first moment (0.9 ** 1000) is zero in float32, so that nothing of the old entry is left; at a
        `reseed_after` below about 100 a trace of it moves the new one.

        Args:
            indices: (N,h,w), the entries that this step's encodings chose.
            features: (N,d,h,w), these encodings.
        """
        uses = torch.bincount(indices.flatten(), minlength=len(self.embedding))
        if _ranks() > 1:
            dist.all_reduce(uses)
        chosen = uses > 0
        self.used |= chosen
        self.idle_steps.add_(1).masked_fill_(chosen, 0)
        idle = self.idle_steps >= self.reseed_after
        self.used &= ~idle
        rows = features.detach().movedim(1, -1).flatten(0, -2)
        dead = idle.nonzero().flatten()[: _fewest(rows)]
        if len(dead) == 0:
            return
        seeds = rows[torch.randperm(len(rows), device=rows.device)[: len(dead)]].to(self.embedding.dtype)
        if _ranks() > 1:
            dist.broadcast(seeds, src=0)
        self.embedding[dead] = seeds
        self.idle_steps[dead] = 0

    @torch.no_grad()
    def _nearest(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            rows = features.float().movedim(1, -1).flatten(0, -2)
            entries = self.embedding.float()
            squares = entries.square().sum(dim=1)
            # |x - e|^2 without |x|^2, which is the same for every entry.
            parts = rows.split(max(1, _DISTANCES // len(entries)))
            nearest = [torch.addmm(squares, part, entries.T, alpha=-2).argmin(dim=1) for part in parts]
        return torch.cat(nearest).unflatten(0, (features.shape[0], *features.shape[2:]))
