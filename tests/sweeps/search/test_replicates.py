"""Several trainings of one trial: what tells them apart, and what they come to together."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.config.composer import Composer
from sweeps.core.errors import ConfigError
from sweeps.core.trials import TrialResult
from sweeps.search.replicates import Replication, combined, means, replication


def complete(value: float, **metrics: float) -> TrialResult:
    return TrialResult(state="complete", value=value, metrics={"val/acc": value, **metrics})


def test_replicates_have_seeds_of_their_own_which_all_trials_share() -> None:
    three = Replication(count=3)
    seeds = [three.changes(index, seed=7, trial_seed=trial)["seed"] for trial in (1, 2) for index in range(3)]
    assert seeds[:3] == seeds[3:] and len(set(seeds)) == 3
    assert three.changes(0, seed=8, trial_seed=1)["seed"] not in seeds


def test_folds_share_the_seed_of_their_trial() -> None:
    five = Replication(count=5, is_by_fold=True)
    assert five.changes(2, seed=0, trial_seed=9) == {"seed": 9, "data.num_folds": 5, "data.fold": 2}


def test_one_training_has_the_seed_of_its_trial() -> None:
    assert Replication().changes(0, seed=0, trial_seed=9) == {"seed": 9}


def test_a_trial_is_worth_the_mean_with_its_standard_error() -> None:
    result = combined({0: complete(0.8), 1: complete(0.9), 2: complete(1.0)}, 3)
    assert (result.state, result.value) == ("complete", pytest.approx(0.9))
    assert result.metrics["val/acc_sem"] == pytest.approx(0.1 / math.sqrt(3))


def test_what_is_missing_makes_a_trial_interrupted() -> None:
    stopped = TrialResult(state="interrupted", reason="timeout")
    assert combined({0: complete(0.8), 1: stopped}, 3).reason == "timeout"
    assert combined({0: complete(0.8)}, 3).state == "interrupted"


@pytest.mark.parametrize("state", ["failed", "pruned"])
def test_a_replicate_that_fails_or_is_pruned_decides_for_its_trial(state: Any) -> None:
    bad = TrialResult(state=state, value=0.1, reason="no", cause="memory")
    result = combined({0: complete(0.8), 1: bad}, 3, why_pruned="no")
    assert (result.state, result.reason, result.cause, result.value) == (state, "replicate 1: no", "memory", 0.8)


def test_folds_are_called_folds() -> None:
    bad = TrialResult(state="failed", reason="no")
    assert combined({0: bad}, 3, noun=Replication(count=3, is_by_fold=True).noun).reason == "fold 0: no"


def test_a_hopeless_trial_is_pruned_with_the_mean_of_what_it_has() -> None:
    result = combined({0: complete(0.2), 1: complete(0.4)}, 5, why_pruned="hopeless")
    assert (result.state, result.value, result.reason) == ("pruned", pytest.approx(0.3), "hopeless")


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9))
def test_means_lie_among_the_values_and_equal_values_have_no_error(values: list[float]) -> None:
    found = means([{"a": value} for value in values])
    assert min(values) - 1e-9 <= found["a"] <= max(values) + 1e-9
    assert ("a_sem" in found) == (len(set(values)) > 1)


def test_metrics_that_not_all_have_are_left_out() -> None:
    assert means([{"a": 1.0, "b": 2.0}, {"a": 1.0}]) == {"a": 1.0}


@pytest.mark.parametrize(
    ("overrides", "searched", "words"),
    [
        (["study.replicates=0"], (), "study.replicates must be at least 1"),
        (["study.folds=1"], (), "study.folds must be at least 2"),
        (["study.folds=3", "study.replicates=2"], (), "exclude each other"),
        (["study.folds=3"], ("data.fold",), "data.fold is what study.folds tells"),
        (["study.replicates=3"], ("seed",), "seed is what study.replicates tells"),
        (["study.folds=3", "~data.fold"], (), "study.folds: .* has no arguments num_folds and fold"),
    ],
)
def test_what_makes_no_sense_is_refused(overrides: list[str], searched: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        replication(Composer("sweep", overrides).base(), searched)


def test_folds_of_the_shipped_data_are_configured() -> None:
    composer = Composer("sweep", ["study.folds=4"])
    changes = replication(composer.base(), ()).changes(3, seed=0, trial_seed=5)
    config = composer.trial(changes, 0)
    assert (config["data"]["num_folds"], config["data"]["fold"], config["seed"]) == (4, 3, 5)
