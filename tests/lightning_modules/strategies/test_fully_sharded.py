"""`FullySharded` trains as one process does, and saves what one process can load."""

from functools import partial

import pytest
import torch
from strategy_ranks import classifier, cnn, judge_alone, mlp, train, weights
from torch import nn
from torch.optim import SGD, AdamW

from lightning_modules.strategies.fully_sharded import FullySharded, units
from lightning_modules.strategies.periodic_averaging import PeriodicAveraging
from lightning_modules.systems.classifier import Classifier

SHARDED = partial(FullySharded, min_unit_parameters=50)
MOMENTUM = partial(classifier, optimizer=partial(SGD, momentum=0.9, weight_decay=1e-3))
ADAMW = partial(classifier, optimizer=AdamW, lr=0.01)
CASES = {
    "mlp": {},
    "cnn": {"net": cnn},
    "momentum and clipping": {"system": MOMENTUM, "gradient_clip_val": 0.1},
    "clipping by value": {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
    "adamw and accumulation": {"system": ADAMW, "accumulate_grad_batches": 2},
    "l1": {"system": partial(classifier, l1=0.01), "net": cnn},
}

of_ranks = [pytest.mark.ddp, pytest.mark.slow]


@pytest.fixture(params=[pytest.param(name, marks=of_ranks) for name in CASES])
def case(request):
    return CASES[request.param]


def test_two_ranks_train_as_one_process(two_ranks, tmp_path, case):
    sharded, one = tmp_path / "sharded", tmp_path / "one"
    first, second = two_ranks(train, sharded, SHARDED, **case)
    expected = train(one, **case)
    assert first["validated"] == second["validated"] and first["test"] == second["test"]
    for seen, wanted in zip(first["validated"], expected["validated"], strict=True):
        assert seen == pytest.approx(wanted, abs=1e-5)
    torch.testing.assert_close(weights(sharded / "last.ckpt"), weights(one / "last.ckpt"), atol=1e-5, rtol=1e-4)
    assert first["num_parameters"] == expected["num_parameters"]


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_one_process_tests_the_checkpoint_of_three_ranks_alike(three_ranks, tmp_path, precision):
    net = partial(cnn, normalization="batch")
    first, *_ = three_ranks(train, tmp_path, SHARDED, net=net, system=ADAMW, precision=precision)
    alone = judge_alone(tmp_path / "best.ckpt", net)
    tolerance = 1e-5 if precision == "32-true" else 0.05  # one process tests in single precision
    assert first["test"] == pytest.approx(alone, abs=tolerance)
    assert first["test"]["test/loss"] == pytest.approx(first["best"]["val/loss"], abs=1e-6)


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize("system", [classifier, MOMENTUM, ADAMW], ids=["sgd", "momentum", "adamw"])
def test_training_resumes_from_one_file_sharded_or_not(two_ranks, tmp_path, system):
    two_ranks(train, tmp_path / "begun", SHARDED, system=system, max_epochs=1)
    resumed = {"resume": tmp_path / "begun" / "last.ckpt", "system": system}
    two_ranks(train, tmp_path / "sharded", SHARDED, **resumed)
    train(tmp_path / "one", **resumed)
    train(tmp_path / "whole", system=system)
    whole = weights(tmp_path / "whole" / "last.ckpt")
    for folder in ("sharded", "one"):
        torch.testing.assert_close(weights(tmp_path / folder / "last.ckpt"), whole, atol=1e-5, rtol=1e-4)


class Own(Classifier):
    """A module as anybody may write it: weights outside any layer, `self(x)` in a step, optimization by hand."""

    def __init__(self, net):
        super().__init__(net, partial(SGD, lr=0.1))
        self.automatic_optimization = False
        self.scale = nn.Parameter(torch.ones(5))

    def forward(self, x):
        return self.net(x) * self.scale

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.cross_entropy(self(x), y)
        self.train_loss.update(loss, len(y))
        self.optimizers().zero_grad()
        self.manual_backward(loss)
        self.optimizers().step()

    def configure_optimizers(self):
        return SGD(self.parameters(), lr=0.1)


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize("strategy", [SHARDED, partial(PeriodicAveraging, period=1)], ids=["sharded", "averaging"])
def test_any_module_trains_as_in_one_process(two_ranks, tmp_path, strategy):
    two_ranks(train, tmp_path / "ranks", strategy, system=Own)
    train(tmp_path / "one", system=Own)
    ranks, one = (weights(tmp_path / folder / "last.ckpt") for folder in ("ranks", "one"))
    torch.testing.assert_close(ranks, one, atol=1e-5, rtol=1e-4)


def test_units_are_the_smallest_submodules_that_are_large_enough():
    net = mlp(depth=3, width=12)  # 16 x 12, 12 x 12, 12 x 12, 12 x 5, and biases
    assert [unit.in_features for unit in units(net, 100)] == [16, 12, 12]
    assert list(units(net, 250)) == [net.layers]
    assert list(units(net, 1000)) == []


def test_no_unit_shares_a_parameter_with_its_outside():
    net = nn.ModuleDict({"one": nn.Linear(9, 9), "other": nn.Linear(9, 9), "tied": nn.Linear(9, 9)})
    net["tied"].weight = net["one"].weight
    assert list(units(net, 50)) == [net["other"]]


def test_attention_is_one_unit_and_a_list_of_modules_is_none():
    net = nn.Sequential(nn.ModuleList([nn.MultiheadAttention(8, 2), nn.Linear(2, 2)]))
    assert list(units(net, 5)) == [*net[0]]


def test_a_size_below_one_names_the_key():
    with pytest.raises(ValueError, match=r"trainer\.strategy\.min_unit_parameters must be at least 1, but got 0"):
        FullySharded(min_unit_parameters=0)
