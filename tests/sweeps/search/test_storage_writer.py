"""What is written behind the trials is what Optuna would have written, and nothing is lost when a write fails."""

import math
from contextlib import contextmanager

import optuna
import pytest
from optuna.trial import TrialState
from studies import MEDIAN, SPACE, make, shipped, stored

from sweeps.core.errors import StoreError
from sweeps.search.samplers import build_pruner, build_sampler


@pytest.mark.filterwarnings("ignore:All-NaN slice")  # Optuna's own study says so
def test_what_is_stored_is_what_optuna_would_have_stored(url, tmp_path):
    ours = make(url, sampler="tpe", pruner=MEDIAN)
    sampler, pruner = build_sampler(shipped("sampler", "tpe")), build_pruner(MEDIAN)
    plain_url = f"sqlite:///{tmp_path}/plain.db"
    theirs = optuna.create_study(
        storage=plain_url, study_name="study", sampler=sampler, pruner=pruner, direction="maximize"
    )
    for index in range(6):
        ask = ours.ask()
        theirs.enqueue_trial(SPACE.encode(ask.values))
        trial = theirs.ask(SPACE.distributions)
        for step in range(3):
            value = math.nan if index == 4 else (-math.inf if index == 5 else 0.1 * step * (-1) ** index)
            trial.report(value, step)
            assert ours.report(ask.number, value, step).prune == trial.should_prune()
        state = ("complete", "pruned", "failed")[index % 3]
        theirs.tell(
            trial,
            0.5 if state == "complete" else None,
            [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL][index % 3],
        )
        ours.tell(ask.number, state, 0.5 if state == "complete" else None)
    for mine, other in zip(stored(url), stored(plain_url), strict=True):
        for name in ("number", "state", "values", "params", "distributions", "user_attrs"):
            assert getattr(mine, name) == getattr(other, name)
        assert str(mine.intermediate_values) == str(other.intermediate_values)
        assert abs(mine.datetime_start - other.datetime_start).total_seconds() < 5
        assert mine.datetime_complete >= mine.datetime_start


def test_a_step_reported_twice_keeps_its_first_value(url):
    study = make(url)
    number = study.ask().number
    study.report(number, 0.5, 0)
    study.report(number, 0.7, 0)
    study.tell(number, "pruned")
    assert stored(url)[0].intermediate_values == {0: 0.5}


def test_reports_reach_the_storage_in_time_and_with_the_next_trial(url):
    study = make(url, flush_interval_s=3600)
    number = study.ask().number
    study.report(number, 0.5, 0)
    assert stored(url)[0].intermediate_values == {}
    study.ask()
    assert stored(url)[0].intermediate_values == {0: 0.5}
    at_once = make(url, name="other", flush_interval_s=0)
    at_once.report(at_once.ask().number, 0.5, 0)
    assert stored(url, "other")[0].intermediate_values == {0: 0.5}


@contextmanager
def without_table(study, name):
    def rename(old, new):
        with study._storage.engine.begin() as connection:
            connection.exec_driver_sql(f"alter table {old} rename to {new}")

    rename(name, "hidden")
    yield
    rename("hidden", name)


def test_an_end_that_could_not_be_written_is_written_with_the_next_trial(url):
    study = make(url)
    number = study.ask().number
    with without_table(study, "trial_values"), pytest.raises(StoreError, match="lightsweep resume"):
        study.tell(number, "complete", 0.5)
    assert stored(url)[0].state == TrialState.RUNNING
    study.ask()
    assert (stored(url)[0].state, stored(url)[0].value) == (TrialState.COMPLETE, 0.5)


def test_a_report_that_cannot_be_written_waits(url):
    study = make(url, flush_interval_s=0)
    number = study.ask().number
    with without_table(study, "trial_intermediate_values"):
        assert not study.report(number, 0.1, 0).prune
    study.report(number, 0.2, 1)
    assert stored(url)[0].intermediate_values == {0: 0.1, 1: 0.2}
