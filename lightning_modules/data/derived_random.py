"""Random streams derived from the position of a batch, never carried from one batch to the next.

Whoever knows (seed, epoch, batch, rank) can draw the same numbers: a resumed, repeated or differently
scheduled run sees the same data. Streams are separated by numpy's SeedSequence, whose spawn keys hash to
independent states.
"""

from typing import NamedTuple

import numpy as np
import torch

__all__ = ["BatchKey", "epoch_order"]

_ORDER, _BATCH = 0, 1  # the first word of a spawn key: which kind of stream


class BatchKey(NamedTuple):
    """The position of a batch in a run: all that its random numbers depend on."""

    seed: int
    epoch: int
    batch: int
    rank: int

    def generator(self) -> torch.Generator:
        """Return a new generator on the CPU, in the state that belongs to this batch."""
        return _generator(self.seed, (_BATCH, self.epoch, self.batch, self.rank))


def epoch_order(num_samples: int, seed: int, epoch: int) -> torch.Tensor:
    """Return the permutation of `num_samples` samples for `epoch`: int64, the same on every rank."""
    return torch.randperm(num_samples, generator=_generator(seed, (_ORDER, epoch)))


def _generator(seed: int, spawn_key: tuple[int, ...]) -> torch.Generator:
    state = np.random.SeedSequence(seed, spawn_key=spawn_key).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))
