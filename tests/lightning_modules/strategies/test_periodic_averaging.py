"""`PeriodicAveraging` lets ranks drift apart and brings them together on time."""

from functools import partial

import pytest
import torch
from strategy_ranks import classifier, cnn, judge_alone, mlp, train, weights
from torch.optim import SGD

from lightning_modules.strategies.averaging import average
from lightning_modules.strategies.periodic_averaging import PeriodicAveraging

MOMENTUM = partial(classifier, optimizer=partial(SGD, momentum=0.9))
NORMED = partial(mlp, normalization="batch")


def averaged_uneven_tensors():
    rank = torch.distributed.get_rank()
    tensors = [torch.full((2, 3), 1.0 + rank), torch.tensor(4.0 * rank), torch.tensor([rank])]
    tensors += [torch.tensor([2.0 * rank], dtype=torch.float64), torch.tensor([3.0 + rank], dtype=torch.bfloat16)]
    average(tensors)
    return [tensor.flatten().tolist() for tensor in tensors]


@pytest.mark.ddp
@pytest.mark.slow
def test_average_replaces_floats_of_every_type_and_nothing_else(two_ranks):
    for rank, values in enumerate(two_ranks(averaged_uneven_tensors)):
        assert values == [[1.5] * 6, [2.0], [rank], [1.0], [3.5]]


@pytest.mark.ddp
@pytest.mark.slow
def test_ranks_differ_between_averagings_and_agree_after_each(two_ranks, tmp_path):
    strategy = partial(PeriodicAveraging, period=3, warmup_steps=2)
    one, other = two_ranks(train, tmp_path, strategy, max_epochs=2, batch_size=8)  # 12 steps an epoch
    is_equal = [a == b for a, b in zip(one["weights"], other["weights"], strict=True)]
    warmup, averaged, validated = {1, 2}, {5, 8, 11, 14, 17, 20, 23}, set()
    assert {step for step, equal in enumerate(is_equal, 1) if equal} == warmup | averaged | validated
    assert one["validated"] == other["validated"]
    assert one["test"] == other["test"]


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"precision": "bf16-mixed"}, {"accumulate_grad_batches": 2}], ids=str)
def test_what_is_validated_is_what_is_saved(three_ranks, tmp_path, options):
    strategy = partial(PeriodicAveraging, period=5)
    one, *others = three_ranks(train, tmp_path, strategy, net=NORMED, system=MOMENTUM, **options)
    alone = judge_alone(tmp_path / "best.ckpt", NORMED)
    tolerance = 0.02 if options.get("precision") else 1e-5  # one process tests in single precision
    assert all(other["validated"] == one["validated"] for other in others)
    assert alone["test/loss"] == pytest.approx(one["best"]["val/loss"], abs=tolerance)
    assert one["test"] == pytest.approx(alone, abs=tolerance)


@pytest.mark.ddp
@pytest.mark.slow
def test_one_period_of_one_local_step_of_sgd_is_a_step_of_the_mean_gradient(two_ranks, tmp_path):
    two_ranks(train, tmp_path / "local", partial(PeriodicAveraging, period=1), net=cnn)
    train(tmp_path / "one", net=cnn)
    one, local = (weights(tmp_path / folder / "last.ckpt") for folder in ("one", "local"))
    torch.testing.assert_close(local, one, atol=1e-5, rtol=1e-4)


@pytest.mark.ddp
@pytest.mark.slow
def test_accumulated_batches_make_one_step_of_the_period(two_ranks, tmp_path):
    strategy = partial(PeriodicAveraging, period=2, warmup_steps=1)
    options = {"accumulate_grad_batches": 3, "max_epochs": 1, "batch_size": 8}
    one, other = two_ranks(train, tmp_path, strategy, **options)  # 12 batches, 4 steps
    is_equal = [a == b for a, b in zip(one["weights"], other["weights"], strict=True)]
    assert is_equal == [True] * 5 + [False] * 3 + [True] * 3 + [False]


@pytest.mark.ddp
@pytest.mark.slow
def test_a_resumed_training_is_past_its_warmup(two_ranks, tmp_path):
    strategy = partial(PeriodicAveraging, period=100, warmup_steps=12)
    two_ranks(train, tmp_path / "begun", strategy, max_epochs=1, batch_size=8)
    resumed = {"resume": tmp_path / "begun" / "last.ckpt", "max_epochs": 2, "batch_size": 8}
    one, other = two_ranks(train, tmp_path / "resumed", strategy, **resumed)
    assert not any(a == b for a, b in zip(one["weights"], other["weights"], strict=True))


@pytest.mark.ddp
@pytest.mark.slow
def test_a_training_that_was_cut_off_ends_as_one_that_was_not(two_ranks, tmp_path):
    options = {"strategy": partial(PeriodicAveraging, period=5), "system": MOMENTUM, "batch_size": 8}
    options["check_val_every_n_epoch"] = 2  # the file is written where nothing else would average
    whole = two_ranks(train, tmp_path / "whole", max_epochs=4, **options)
    two_ranks(train, tmp_path / "begun", max_epochs=3, **options)
    begun = {"resume": tmp_path / "begun" / "last.ckpt"}
    for one, other in zip(whole, two_ranks(train, tmp_path / "on", max_epochs=4, **begun, **options), strict=True):
        assert other["weights"] == one["weights"][-12:]


@pytest.mark.parametrize(("options", "key"), [({"period": 0}, "period"), ({"period": 1, "warmup_steps": -1}, "warmup")])
def test_a_number_out_of_its_range_names_the_key(options, key):
    with pytest.raises(ValueError, match=f"trainer.strategy.{key}.* must be at least"):
        PeriodicAveraging(**options)
