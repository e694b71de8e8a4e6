"""Every sample once, and equally many batches on every rank."""

from typing import Any

import pytest
from lightning_fabric.utilities.data import _replace_dunder_methods
from pytorch_lightning.trainer.states import RunningStage
from torch.utils.data import DataLoader

from sweeps.worker.distributed_sampling import EvenBatches, deal_evenly


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize("batch_size", [2, 7, 64])
@pytest.mark.parametrize("num_samples", [16, 17, 97, 128, 129])
def test_each_sample_comes_once_in_equally_many_batches(num_samples: int, batch_size: int, world_size: int) -> None:
    ranks = [list(EvenBatches(num_samples, batch_size, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert sorted(sample for batches in ranks for batch in batches for sample in batch) == list(range(num_samples))
    assert len({len(batches) for batches in ranks}) == 1
    assert all(1 <= len(batch) <= batch_size for batches in ranks for batch in batches)
    assert len(EvenBatches(num_samples, batch_size, rank=0, world_size=world_size)) == len(ranks[0])


@pytest.mark.parametrize(("num_samples", "batch_size"), [(0, 4), (1, 4), (5, 1)])
def test_what_cannot_be_shared_one_by_one_is_refused(num_samples: int, batch_size: int) -> None:
    with pytest.raises(ValueError, match="cannot be shared"):
        EvenBatches(num_samples, batch_size, rank=0, world_size=2)


class Doubling(DataLoader[Any]):
    """Sets the size of its batches by itself."""

    def __init__(self, dataset: Any, **more: Any) -> None:
        super().__init__(dataset, batch_size=2, **more)


class FakeTrainer:
    """What of a Trainer deals samples; what is not dealt evenly comes back as it is."""

    def __init__(self) -> None:
        self._data_connector = self
        self.distributed_sampler_kwargs = {"rank": 1, "num_replicas": 2}

    def _requires_distributed_sampler(self, dataloader: object) -> bool:
        return True

    def _prepare_dataloader(self, dataloader: object, shuffle: bool, mode: RunningStage) -> object:
        return dataloader


@pytest.mark.parametrize("place", [True, False])
def test_a_loader_is_dealt_however_its_arguments_were_given(place: bool) -> None:
    trainer = FakeTrainer()
    deal_evenly(trainer)  # type: ignore[arg-type]
    with _replace_dunder_methods(DataLoader, "dataset"):  # as Lightning does around `val_dataloader`
        loader = DataLoader(range(10), 4, False) if place else DataLoader(range(10), batch_size=4)  # type: ignore[arg-type, var-annotated]
    dealt: Any = trainer._prepare_dataloader(loader, shuffle=False, mode=RunningStage.VALIDATING)
    assert [batch.tolist() for batch in dealt] == [[1, 3], [5, 7, 9]]


def test_a_loader_that_sets_its_batches_by_itself_is_dealt_by_lightning() -> None:
    trainer = FakeTrainer()
    deal_evenly(trainer)  # type: ignore[arg-type]
    with _replace_dunder_methods(DataLoader, "dataset"):
        loader = Doubling(range(10))
    assert trainer._prepare_dataloader(loader, shuffle=False, mode=RunningStage.TESTING) is loader
