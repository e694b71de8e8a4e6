"""Deal a user's validation and test samples to ranks so that each is counted once, and equally much.

Lightning deals them by torch's DistributedSampler, which fills up the last round with samples that are then counted
twice. Leaving them out instead would give the ranks unequal numbers of batches, and a rank that is done earlier hangs
the others (DDP synchronises buffers at each forward pass). So every rank gets equally many batches, of sizes that
differ by one at most.
"""

from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.data import _reinstantiate_wrapped_cls
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.trainer.connectors.logger_connector.result import _ResultMetric
from pytorch_lightning.trainer.states import RunningStage
from pytorch_lightning.utilities.data import _get_dataloader_init_args_and_kwargs
from torch.utils.data import BatchSampler, DataLoader, Sampler, SequentialSampler

__all__ = ["EvenBatches", "deal_evenly", "weigh_exactly"]


class EvenBatches(Sampler[list[int]]):
    """The batches of one rank: every `world_size`-th sample, in equally many batches on all ranks.

    Args:
        num_samples: Samples over all ranks.
        batch_size: The largest batch.
        rank: This rank.
        world_size: The number of ranks.

    Raises:
        ValueError: The samples cannot be shared in equally many batches that hold one at least.
    """

    def __init__(self, num_samples: int, batch_size: int, *, rank: int, world_size: int) -> None:
        self._own = range(rank, num_samples, world_size)
        self._count = -(-len(range(0, num_samples, world_size)) // batch_size)
        if num_samples // world_size < max(1, self._count):
            raise ValueError(f"{num_samples} samples cannot be shared one by one among {world_size} ranks")

    def __len__(self) -> int:
        """Return the number of batches, the same on every rank."""
        return self._count

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the samples of each batch."""
        bounds = [len(self._own) * batch // self._count for batch in range(self._count + 1)]
        for first, end in pairwise(bounds):
            yield list(self._own[first:end])


def deal_evenly(trainer: pl.Trainer) -> None:
    """Let a trainer of several ranks deal validation and test samples by `EvenBatches`.

    It does so for loaders that go through a dataset in its order; what draws or deals samples by itself is left alone.
    """
    connector: Any = trainer._data_connector
    prepare = connector._prepare_dataloader

    def prepare_evenly(dataloader: object, shuffle: bool, mode: RunningStage) -> object:
        is_evaluating = mode in (RunningStage.VALIDATING, RunningStage.SANITY_CHECKING, RunningStage.TESTING)
        is_plain = isinstance(dataloader, DataLoader) and _is_plain(dataloader)
        if is_evaluating and is_plain and connector._requires_distributed_sampler(dataloader):
            # Fewer samples than ranks, batches of one, a loader that sets its batches by itself: some count twice
            with suppress(ValueError, MisconfigurationException):
                return _dealt(dataloader, trainer.distributed_sampler_kwargs or {}, mode)
        return prepare(dataloader, shuffle=shuffle, mode=mode)

    connector._prepare_dataloader = prepare_evenly


def weigh_exactly() -> None:
    """Let `self.log(..., sync_dist=True)` weigh ranks by how many samples they have, in this process.

    Lightning averages the ranks' numbers of samples as integers: 128 for ranks of 129 and 128, which makes the mean
    over 257 samples too large by 0.4 %.
    """
    _ResultMetric.compute = _compute_exactly  # type: ignore[assignment]


_compute = _ResultMetric.compute


def _compute_exactly(metric: Any) -> Any:
    if metric.is_tensor and metric.meta.is_mean_reduction:
        metric.cumulated_batch_size = metric.cumulated_batch_size.to(metric.value.dtype)
    return _compute(metric)


def _is_plain(dataloader: "DataLoader[Any]") -> bool:
    return (
        type(dataloader.batch_sampler) is BatchSampler
        and not dataloader.batch_sampler.drop_last
        and type(dataloader.sampler) is SequentialSampler
    )


def _dealt(dataloader: Any, place: dict[str, int], mode: RunningStage) -> object:
    assert dataloader.batch_size is not None
    batches = EvenBatches(
        len(dataloader.dataset),
        dataloader.batch_size,
        rank=place["rank"],
        world_size=place["num_replicas"],
    )
    arguments: tuple[Any, ...]
    arguments, options = _get_dataloader_init_args_and_kwargs(dataloader, dataloader.sampler, mode)
    names = getattr(dataloader, "__pl_saved_arg_names", ())
    if len(names) == len(arguments):  # what was given by its place is given by its name
        arguments, options = (), dict(zip(names, arguments, strict=True)) | options
    plain = {"batch_size": 1, "shuffle": False, "sampler": None, "drop_last": False}
    return _reinstantiate_wrapped_cls(dataloader, *arguments, **options | plain | {"batch_sampler": batches})
