"""Every sample once, and equally many batches on every rank."""

import pytest

from sweeps.even_batches import EvenBatches


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
