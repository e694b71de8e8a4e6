"""`ModelParallel` trains a divided net as one process trains a whole one."""

from functools import partial

import pytest
import torch
from pytorch_lightning import Trainer
from strategy_ranks import QUIET, Environment, Samples, classifier, cnn, judge_alone, mlp, train, weights
from torch.optim import SGD, AdamW

from lightning_modules.strategies.model_parallel import ModelParallel

BY_TWO = partial(ModelParallel, tensor_parallel_size=2)
ADAMW = partial(classifier, optimizer=AdamW, lr=0.01)
MOMENTUM = partial(classifier, optimizer=partial(SGD, momentum=0.9))
OPTIONS = {"accelerator": "cpu", "max_epochs": 1, "enable_checkpointing": False, **QUIET}
LAYER_NORMED = partial(mlp, normalization="layer", depth=3)
CASES = {
    "even": {"net": partial(mlp, depth=1)},
    "odd, adamw": {"net": partial(mlp, depth=2), "system": ADAMW},
    "normalised, clipped": {"net": LAYER_NORMED, "system": MOMENTUM, "gradient_clip_val": 0.1},
    "accumulated, l1": {"system": partial(classifier, l1=0.01), "accumulate_grad_batches": 2},
    "linear": {"net": partial(mlp, depth=0)},
}


def assert_trains_as_one_process(ranks, folder, case):
    seen = ranks(train, folder / "divided", BY_TWO, **case)
    expected = train(folder / "one", **case)
    for each in seen:
        assert each["validated"] == seen[0]["validated"] and each["test"] == seen[0]["test"]
    for here, wanted in zip(seen[0]["validated"], expected["validated"], strict=True):
        assert here == pytest.approx(wanted, abs=1e-5)
    divided, one = (weights(folder / name / "last.ckpt") for name in ("divided", "one"))
    torch.testing.assert_close(divided, one, atol=1e-5, rtol=1e-4)
    assert seen[0]["num_parameters"] == expected["num_parameters"]
    assert seen[0]["test"] == pytest.approx(judge_alone(folder / "divided" / "best.ckpt", **_net_of(case)), abs=1e-5)


def _net_of(case):
    return {key: value for key, value in case.items() if key in ("net", "system")}


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_two_ranks_that_share_a_net_train_as_one_process(two_ranks, tmp_path, case):
    assert_trains_as_one_process(two_ranks, tmp_path, case)


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_two_pairs_of_ranks_train_as_one_process(four_ranks, tmp_path, case):
    assert_trains_as_one_process(four_ranks, tmp_path, case)


@pytest.mark.ddp
@pytest.mark.slow
def test_bf16_mixed_and_batch_normalization_run_and_save_what_was_validated(four_ranks, tmp_path):
    net = partial(mlp, normalization="batch")
    one, *others = four_ranks(train, tmp_path, BY_TWO, net=net, precision="bf16-mixed")
    assert all(other["validated"] == one["validated"] for other in others)
    assert one["test"] == pytest.approx(judge_alone(tmp_path / "best.ckpt", net), abs=0.02)


@pytest.mark.ddp
@pytest.mark.slow
def test_training_resumes(two_ranks, tmp_path):
    two_ranks(train, tmp_path / "begun", BY_TWO, system=ADAMW, max_epochs=1)
    two_ranks(train, tmp_path / "resumed", BY_TWO, system=ADAMW, resume=tmp_path / "begun" / "last.ckpt")
    train(tmp_path / "whole", system=ADAMW)
    resumed, whole = (weights(tmp_path / folder / "last.ckpt") for folder in ("resumed", "whole"))
    torch.testing.assert_close(resumed, whole, atol=1e-5, rtol=1e-4)


def fitted_and_tested_twice(folder, size):
    trainer = Trainer(strategy=ModelParallel(size), devices=2, plugins=[Environment()], **OPTIONS)
    module, data = classifier(mlp()), Samples(24)
    trainer.fit(module, data)
    first = trainer.test(module, data, verbose=False)
    return first == trainer.test(module, data, verbose=False)


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2])
def test_what_was_trained_can_be_tested_as_it_is(two_ranks, tmp_path, size):
    assert two_ranks(fitted_and_tested_twice, tmp_path, size) == [True, True]


def samples_seen(folder):
    seen = []

    class Noting(Samples):
        def _batches(self, **options):
            batches = super()._batches(**options)
            seen.append(batches.sampler.indices().tolist())
            return batches

    import strategy_ranks

    original, strategy_ranks.Samples = strategy_ranks.Samples, Noting
    try:
        train(folder, BY_TWO, max_epochs=1)
    finally:
        strategy_ranks.Samples = original
    return seen


@pytest.mark.ddp
@pytest.mark.slow
def test_ranks_of_one_net_see_the_same_samples_and_two_nets_others(four_ranks, tmp_path):
    one, its_other_half, two, its_half = four_ranks(samples_seen, tmp_path)
    assert one == its_other_half and two == its_half
    assert not set(one[0]) & set(two[0])


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "net", "message"),
    [
        (
            3,
            mlp,
            "tensor_parallel_size must divide the number of ranks, but 3 does not divide 2: set trainer.devices=3",
        ),
        (2, cnn, "tensor_parallel_size=2 needs a net with a method `tensor_parallel_plan`, but model._target_=CNN"),
        (2, partial(mlp, width=7), "tensor_parallel_size=2 must divide model.width, but got 7: set model.width=8"),
    ],
)
def test_what_cannot_be_divided_says_which_key_to_set(two_ranks, tmp_path, size, net, message):
    with pytest.raises(AssertionError, match="ValueError: trainer") as caught:
        two_ranks(train, tmp_path, partial(ModelParallel, tensor_parallel_size=size), net=net)
    assert message in str(caught.value)


def test_a_size_below_one_names_the_key():
    with pytest.raises(ValueError, match=r"trainer\.strategy\.tensor_parallel_size must be at least 1, but got 0"):
        ModelParallel(tensor_parallel_size=0)
