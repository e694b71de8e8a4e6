"""Batches cut from whole tensors: one index operation a batch, no work for single samples.

Not a torch DataLoader: it has no workers and no collating, and for data that fits in memory (or is memory
mapped) it is faster than one with workers.
"""

import hashlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from lightning_modules.data.derived_random import BatchKey, epoch_order

__all__ = ["BatchOrder", "TensorBatches"]

_PIECE = 4096  # samples
Transform = Callable[[Tensor, BatchKey], Tensor]


class BatchOrder:
    """Which samples make up which batch of an epoch on one rank; derived from (seed, epoch) alone.

    **Training** (`shuffle=True`). All ranks permute alike and take every `world_size`-th sample, so the
    samples of a step do not depend on how they are dealt. The last round is filled up from the epoch's
    beginning, or with `drop_last` left out, so every rank has equally many batches of equal sizes. A last
    batch of a single sample joins the batch before it, because batch normalisation cannot train on one.

    **Evaluation** (`shuffle=False`). No sample is counted twice or left out, so ranks may have one sample
    more or less; yet all have equally many batches, because a rank that stops early would hang the others.

    Args:
        num_samples: samples over all ranks.
        batch_size: samples of a batch on each rank.
        shuffle: whether this is for training, see above.
        seed: any non-negative number.
        drop_last: whether an incomplete last batch is left out; of all batches, only in training.
        rank: this rank.
        world_size: the number of ranks.

    Raises:
        ValueError: there are fewer samples than can be dealt to all ranks, or a number is out of its range.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, but got {batch_size}")
        if not 0 <= rank < world_size:
            raise ValueError(f"0 <= rank < world_size must hold, but got rank {rank} of {world_size}")
        if seed < 0:
            raise ValueError(f"seed must be at least 0, but got {seed}")
        needed = world_size * (batch_size if shuffle and drop_last else 1)
        if num_samples < needed:
            raise ValueError(
                f"{world_size} ranks with batches of {batch_size} need {needed} samples or more, but there "
                f"are {num_samples}: set a smaller data.batch_size, data.drop_last=false, or fewer "
                "trainer.devices"
            )
        self.num_samples = num_samples
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.bounds = self._bounds(batch_size)

    def __len__(self) -> int:
        """Return the number of batches, the same on every rank."""
        return len(self.bounds) - 1

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next; Lightning calls it before each."""
        self.epoch = epoch

    def indices(self) -> Tensor:
        """Return the samples of this rank in this epoch, in order: int64. `bounds` cuts them into batches."""
        if not self.shuffle:
            return torch.arange(self.rank, self.num_samples, self.world_size)
        order = epoch_order(self.num_samples, self.seed, self.epoch)
        if not self.drop_last and (missing := -self.num_samples % self.world_size):
            order = torch.cat([order, order[:missing]])
        return order[self.rank :: self.world_size][: self.bounds[-1]]

    def _bounds(self, batch_size: int) -> list[int]:
        """Return where each batch begins in `indices()`, and the end of the last."""
        fewest, most = self.num_samples // self.world_size, -(-self.num_samples // self.world_size)
        if self.shuffle and self.drop_last:
            return list(range(0, fewest + 1, batch_size))
        count = -(-most // batch_size)
        if self.shuffle:
            if most % batch_size == 1 and count > 1 and batch_size > 1:
                count -= 1
            return [*range(0, count * batch_size, batch_size), most]
        size = len(range(self.rank, self.num_samples, self.world_size))
        if size < count:
            raise ValueError(
                f"{self.world_size} ranks cannot share {self.num_samples} samples one by one in equally many "
                "batches: set data.eval_batch_size=2 or more"
            )
        # Every later batch keeps at least one sample, so a rank with one less still has `count` batches.
        return [*(min(batch * batch_size, size - (count - batch)) for batch in range(count)), size]


class TensorBatches:
    """Iterate over (inputs, class numbers) in the batches of one rank, ordered by `BatchOrder`.

    It can be saved and restored in the middle of an epoch (Lightning does so with every checkpoint) and then
    continues with the next batch.

    Args:
        x: inputs of all samples, N x ..., of any type.
        y: class numbers of all samples, N.
        batch_size: samples of a batch on each rank.
        shuffle: whether this is for training; see `BatchOrder`.
        seed: where order and random transforms are derived from, with the epoch, the batch and the rank.
        drop_last: whether training leaves out an incomplete last batch.
        rank: this rank.
        world_size: the number of ranks.
        indices: which samples of `x` and `y` to use (int64); all if None.
        transform: maps the inputs of a batch and its `BatchKey` to the inputs that are given out.

    Raises:
        ValueError: `x` and `y` differ in length, or see `BatchOrder`.
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        *,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
        indices: Tensor | None = None,
        transform: Transform | None = None,
    ) -> None:
        if len(x) != len(y):
            raise ValueError(f"there must be one label a sample, but got {len(x)} samples and {len(y)} labels")
        self.x = x
        self.y = y
        self.subset = indices
        self.transform = transform
        self.sampler = BatchOrder(
            len(x) if indices is None else len(indices),
            batch_size,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
            rank=rank,
            world_size=world_size,
        )
        self.batch_sampler = None  # Lightning asks for it where there is a `sampler`
        self._position = {"epoch": 0, "batch": 0}  # of the batch that comes next
        self._restored: dict[str, int] | None = None

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of the epoch that is set when the first one is asked for.

        Lightning makes the iterator of its first epoch before it sets the epoch, hence a generator.
        """
        order, bounds = self.sampler.indices(), self.sampler.bounds
        if self.subset is not None:
            order = self.subset[order]
        epoch = self.sampler.epoch
        for batch in range(self._first_batch(epoch), len(bounds) - 1):
            indices = order[bounds[batch] : bounds[batch + 1]]
            x, y = self.x.index_select(0, indices), self.y.index_select(0, indices)
            if self.transform is not None:
                x = self.transform(x, BatchKey(self.sampler.seed, epoch, batch, self.sampler.rank))
            self._position = {"epoch": epoch, "batch": batch + 1}
            yield x, y

    def fingerprint(self) -> str:
        """Return a hash of all samples as they are before the transform, whatever their order and their batches."""
        digest = hashlib.sha256()
        for tensor in (self.x, self.y):
            digest.update(f"{tensor.dtype} {tuple(tensor.shape[1:])}\n".encode())
            for start in range(0, self.sampler.num_samples, _PIECE):
                stop = min(start + _PIECE, self.sampler.num_samples)
                piece = tensor[start:stop] if self.subset is None else tensor[self.subset[start:stop]]
                digest.update(piece.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def state_dict(self) -> dict[str, int]:
        """Return the position of the next batch: its epoch and its number."""
        return dict(self._position)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on at the position of `state`, if the next epoch to be iterated is the one it was in."""
        self._restored = dict(state)

    def _first_batch(self, epoch: int) -> int:
        restored, self._restored = self._restored, None
        if restored is None or restored["epoch"] != epoch or restored["batch"] >= len(self):
            return 0
        return restored["batch"]
