import numpy as np
import pytest
import torch

from lightning_modules.data.tensor_batches import BatchOrder, TensorBatches


def batches(num, batch_size, epoch=0, **options) -> list[list[int]]:
    """Give the sample numbers of each batch."""
    loader = TensorBatches(torch.arange(num), torch.arange(num), batch_size=batch_size, **options)
    loader.sampler.set_epoch(epoch)
    result = [x.tolist() for x, _ in loader]
    assert len(result) == len(loader)
    return result


def flat(nested):
    return [one for each in nested for one in each]


def test_unshuffled_batches_follow_the_data():
    assert batches(5, 2) == [[0, 1], [2, 3], [4]]


def test_inputs_and_labels_stay_together():
    loader = TensorBatches(torch.arange(10), torch.arange(10) * 2, batch_size=3, shuffle=True)
    assert all(torch.equal(2 * x, y) for x, y in loader)


def test_an_epoch_holds_every_sample_once_in_an_order_of_its_own():
    first, second = batches(100, 7, shuffle=True), batches(100, 7, epoch=1, shuffle=True)
    assert sorted(flat(first)) == sorted(flat(second)) == list(range(100))
    assert first != second


def test_the_same_seed_and_epoch_give_the_same_order_whatever_came_before():
    torch.manual_seed(1)
    first = batches(100, 7, epoch=3, shuffle=True, seed=5)
    torch.manual_seed(2)
    np.random.seed(2)
    assert batches(100, 7, epoch=3, shuffle=True, seed=5) == first
    assert batches(100, 7, epoch=3, shuffle=True, seed=6) != first


def test_the_epoch_may_be_set_after_the_iterator_was_made():
    loader = TensorBatches(torch.arange(50), torch.arange(50), batch_size=50, shuffle=True)
    iterator = iter(loader)
    loader.sampler.set_epoch(4)
    assert next(iterator)[0].tolist() == batches(50, 50, epoch=4, shuffle=True)[0]


def test_drop_last_leaves_out_the_incomplete_batch():
    assert [len(one) for one in batches(10, 4, shuffle=True, drop_last=True)] == [4, 4]


def test_a_last_training_batch_of_one_sample_joins_the_batch_before():
    assert [len(one) for one in batches(9, 4, shuffle=True)] == [4, 5]
    assert [len(one) for one in batches(3, 1, shuffle=True)] == [1, 1, 1]


@pytest.mark.parametrize("num", range(3, 40))
@pytest.mark.parametrize("batch_size", [2, 3, 8])
def test_evaluation_shards_share_every_sample_once_in_equally_many_batches(num, batch_size):
    shards = [batches(num, batch_size, rank=rank, world_size=3) for rank in range(3)]
    assert sorted(flat(flat(shards))) == list(range(num))
    assert len({len(shard) for shard in shards}) == 1
    assert all(1 <= len(batch) <= batch_size for shard in shards for batch in shard)


@pytest.mark.parametrize("num", range(3, 40))
@pytest.mark.parametrize("drop_last", [False, True])
def test_training_shards_have_batches_of_equal_sizes(num, drop_last):
    options = {"shuffle": True, "drop_last": drop_last, "world_size": 3}
    if drop_last and num < 12:
        with pytest.raises(ValueError, match=r"need 12 samples.* data\.drop_last=false"):
            batches(num, 4, rank=0, **options)
        return
    shards = [batches(num, 4, rank=rank, **options) for rank in range(3)]
    assert len({tuple(map(len, shard)) for shard in shards}) == 1
    used = flat(flat(shards))
    assert len(used) - len(set(used)) <= (0 if drop_last else 2)  # fewer repetitions than ranks
    if not drop_last:
        assert set(used) == set(range(num))


def test_ranks_deal_the_order_of_a_single_rank():
    single = flat(batches(24, 24, shuffle=True))
    shards = [flat(batches(24, 4, shuffle=True, rank=rank, world_size=2)) for rank in range(2)]
    assert flat(zip(*shards, strict=True)) == single


def test_indices_choose_a_subset():
    used = flat(batches(100, 4, shuffle=True, indices=torch.tensor([3, 50, 99, 7, 8])))
    assert sorted(used) == [3, 7, 8, 50, 99]


def test_a_saved_position_goes_on_with_the_next_batch():
    loader = TensorBatches(torch.arange(50), torch.arange(50), batch_size=10, shuffle=True)
    iterator = iter(loader)
    next(iterator), next(iterator)
    other = TensorBatches(torch.arange(50), torch.arange(50), batch_size=10, shuffle=True)
    other.load_state_dict(loader.state_dict())
    assert [x.tolist() for x, _ in other] == [x.tolist() for x, _ in iterator]
    assert len(list(other)) == 5  # the next iteration is a whole one


def test_a_saved_position_of_another_epoch_is_not_used():
    loader = TensorBatches(torch.arange(50), torch.arange(50), batch_size=10, shuffle=True)
    loader.load_state_dict({"epoch": 0, "batch": 3})
    loader.sampler.set_epoch(1)
    assert len(list(loader)) == 5


def test_a_transform_is_told_where_its_batch_stands():
    keys = []
    loader = TensorBatches(
        torch.arange(8),
        torch.arange(8),
        batch_size=2,
        seed=9,
        rank=1,
        world_size=2,
        transform=lambda x, key: keys.append(key) or x,
    )
    loader.sampler.set_epoch(3)
    list(loader)
    assert [tuple(key) for key in keys] == [(9, 3, 0, 1), (9, 3, 1, 1)]


def test_random_numbers_differ_in_every_part_of_the_key():
    from lightning_modules.data.derived_random import BatchKey

    keys = [BatchKey(*one) for one in [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]]
    assert len({torch.rand(1, generator=key.generator()).item() for key in keys}) == 5
    assert torch.rand(1, generator=keys[0].generator()) == torch.rand(1, generator=keys[0].generator())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"rank": 2, "world_size": 2}, "rank 2 of 2"),
        ({"world_size": 6}, "need 6 samples"),
        ({"batch_size": 1, "rank": 1, "world_size": 2}, r"data\.eval_batch_size=2"),
    ],
)
def test_impossible_numbers_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        BatchOrder(**({"num_samples": 5, "batch_size": 2} | options))


def test_inputs_without_labels_are_refused():
    with pytest.raises(ValueError, match="3 samples and 2 labels"):
        TensorBatches(torch.arange(3), torch.arange(2), batch_size=1)
