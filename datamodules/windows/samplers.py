# SPDX-License-Identifier: Apache-2.0
"""Which windows a process gets: keys (epoch, index), which repeat, resume, and cover an evaluation exactly."""

from collections.abc import Iterator

from torch.utils.data import DistributedSampler, SequentialSampler

__all__ = ["EpochSampler", "EvaluationSampler"]


class EpochSampler(DistributedSampler[tuple[int, int]], SequentialSampler):
    """Training keys (epoch, index): each process takes every world_size-th index, all equally many.

    Nothing is shuffled: the data set draws clip and window from the key. Lightning calls `set_epoch`, but asks for the
    first iterator before it does; a training that is resumed says with `resume` where that one begins.

    Args:
        length: windows in an epoch, over all processes; a remainder that does not fill all processes is left out.
        rank, world_size: this process and the number of processes.
        repeats: every epoch has the keys of epoch 0 (Lightning's `overfit_batches`).
    """

    def __init__(self, length: int, rank: int = 0, world_size: int = 1, repeats: bool = False) -> None:
        # A subclass of DistributedSampler and SequentialSampler, so that Lightning does not put its own in place, not
        # even with overfit_batches.
        DistributedSampler.__init__(self, range(length), world_size, rank, shuffle=False, drop_last=True)  # type: ignore[arg-type]
        self.length, self.repeats = length, repeats
        self._first: tuple[int, int] | None = None

    def resume(self, epoch: int, skipped: int) -> None:
        """Have the next iterator be that of `epoch` without the first `skipped` keys of this process."""
        self._first = epoch, skipped

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        if self._first is not None and self._first[0] != epoch:
            self._first = None

    def key(self, epoch: int, place: int) -> tuple[int, int]:
        """The key of this process at a place of an epoch, counted from 0."""
        return 0 if self.repeats else epoch, self.rank + place * self.num_replicas

    def __iter__(self) -> Iterator[tuple[int, int]]:  # type: ignore[override]
        epoch, skipped = self._first or (self.epoch, 0)
        self._first = None
        return (self.key(epoch, place) for place in range(skipped, len(self)))

    def __len__(self) -> int:
        return self.length // self.num_replicas


class EvaluationSampler(EpochSampler):
    """Evaluation keys (0, index): every index exactly once over all processes, never padded, the same in every epoch.

    Args are those of `EpochSampler`.

    Raises:
        ValueError: a process would get nothing, which stalls the others.
    """

    def __init__(self, length: int, rank: int = 0, world_size: int = 1) -> None:
        if length < world_size:
            raise ValueError(
                f"{length} samples for {world_size} processes. Expected one or more for each. "
                "Use fewer devices (--trainer.devices), or hold out more (--data.init_args.val_length)."
            )
        super().__init__(length, rank, world_size, repeats=True)

    def __len__(self) -> int:
        return len(range(self.rank, self.length, self.num_replicas))
