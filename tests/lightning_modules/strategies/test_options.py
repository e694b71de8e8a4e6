"""Every option of the trainer that names a strategy composes, and trains on two ranks."""

import inspect
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest
from strategy_ranks import judge_alone, train

from sweeps.config.composer import ALLOWED_MODULES, Composer
from sweeps.config.instantiate import build

CONF = Path(__file__).parents[3] / "conf" / "trainer"
OPTIONS = [path.stem for path in sorted(CONF.glob("*.yaml")) if "strategy" in path.read_text()]


def compose(option):
    return Composer("train", ["store_dir=/tmp", f"trainer={option}"]).trial({}, seed=0)["trainer"]


def make(strategy):
    return strategy if isinstance(strategy, str) else build(strategy, key="trainer.strategy", allowed=ALLOWED_MODULES)


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_trains_on_two_ranks(two_ranks, tmp_path, option):
    settings = compose(option)
    assert settings["devices"] == 2
    one, other = two_ranks(train, tmp_path, partial(make, settings["strategy"]))
    assert one["validated"] == other["validated"]
    assert one["test"] == pytest.approx(judge_alone(tmp_path / "best.ckpt"), abs=1e-5)


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_names_all_arguments_of_its_strategy_and_none_else(option):
    node = compose(option)["strategy"]
    if not isinstance(node, str):
        module, _, name = node.pop("_target_").rpartition(".")
        assert list(inspect.signature(getattr(import_module(module), name)).parameters) == list(node)
