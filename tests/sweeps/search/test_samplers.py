"""The optimizer of CMA-ES comes from the study's storage, to which others may write: it is data."""

import pickle
from pathlib import Path
from typing import Any

import optuna
import pytest

from sweeps.core.errors import StoreError
from sweeps.search.optuna_private import CmaEs, load_optimizer
from sweeps.search.samplers import build_sampler

CMAES = {"_target_": "optuna.samplers.CmaEsSampler", "seed": 1, "n_startup_trials": 2}


class Harm:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return Path.touch, (self.canary,)


def searched(sampler: optuna.samplers.BaseSampler, num_trials: int = 12) -> list[float]:
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda trial: trial.suggest_float("x", -1, 1) ** 2 + trial.suggest_float("y", -1, 1), num_trials)
    return [trial.value or 0.0 for trial in study.trials]


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("option", [{}, {"with_margin": True}, {"use_separable_cma": True}])
def test_cma_es_proposes_what_optunas_does(option: dict[str, bool]) -> None:
    own = build_sampler({**CMAES, **option})

    assert type(own) is CmaEs
    assert searched(own) == searched(optuna.samplers.CmaEsSampler(seed=1, n_startup_trials=2, **option))


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_cma_es_inside_another_sampler_is_ours_too() -> None:
    node = {"_target_": "optuna.samplers.PartialFixedSampler", "fixed_params": {"x": 0.5}, "base_sampler": CMAES}

    (inner,) = [value for value in vars(build_sampler(node)).values() if isinstance(value, optuna.samplers.BaseSampler)]
    assert type(inner) is CmaEs


def test_pickle_that_runs_is_refused_and_did_not_run(tmp_path: Path) -> None:
    space = {name: optuna.distributions.FloatDistribution(-1, 1) for name in "xy"}
    study = optuna.create_study(sampler=build_sampler(CMAES))
    harm = {"cma:optimizer:0": pickle.dumps(Harm(tmp_path / "harm")).hex()}
    for x in (0.1, 0.2, 0.3):
        study.add_trial(
            optuna.trial.create_trial(params={"x": x, "y": x}, distributions=space, value=x, system_attrs=harm)
        )

    with pytest.raises(StoreError, match=r"pathlib.*sampler=tpe"):
        study.ask(space)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("stored", ["", "zz", "80", b"cos\nsystem\n(S'true'\ntR.".hex(), b"cnumpy\nload\n.".hex()])
def test_what_is_not_an_optimizer_is_reported_in_one_line(stored: str) -> None:
    with pytest.raises(StoreError, match="CMA-ES"):
        load_optimizer(stored)
