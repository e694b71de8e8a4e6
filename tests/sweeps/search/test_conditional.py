"""Studies of spaces with conditions: every sampler, importances, and going on."""

import math

import optuna
import pytest
from studies import make, run, stored

from sweeps.core.errors import StudyError
from sweeps.search.space.declare import parse_space

SPACE = parse_space(
    {
        "optimizer": "choice(adam,sgd)",
        "lr": "tag(log,interval(1e-4,1e-1))",
        "weight_decay": "interval(0,0.1)",
        "momentum": {"values": "interval(0,0.99)", "when": {"optimizer": "sgd"}},
        "beta": {"values": "interval(0.9,0.99)", "when": {"optimizer": "adam"}},
    }
)
GRID = parse_space({"a": "x,y", "b": {"values": "1,2,3", "when": {"a": "x"}}, "c": "0,1"})


def objective(values):
    bonus = values.get("momentum", 0.2)
    return bonus - abs(math.log10(values["lr"]) + 2)


@pytest.fixture(autouse=True)
def few_trials(monkeypatch):
    monkeypatch.setattr("studies.objective", objective)


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes", "gp", "qmc"])
def test_every_sampler_proposes_what_the_conditions_allow(url, sampler):
    for values in run(make(url, SPACE, sampler), 16):
        assert ("momentum" in values) == (values["optimizer"] == "sgd") != ("beta" in values)
    assert all(list(SPACE.decode(t.params)) == [k for k in SPACE.keys if k in t.params] for t in stored(url))


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes", "qmc"])
def test_a_conditional_study_that_was_stopped_tries_what_it_would_have_tried(url, tmp_path, sampler):
    whole = run(make(f"sqlite:///{tmp_path}/whole.db", SPACE, sampler), 16)
    parts = [values for _ in range(4) for values in run(make(url, SPACE, sampler), 4)]
    assert parts == whole


@pytest.mark.filterwarnings("ignore:.*group.*experimental")
def test_tpe_may_model_groups_of_parameters(url):
    study = make(url, SPACE, "tpe")
    study.optuna.sampler = optuna.samplers.TPESampler(multivariate=True, group=True, seed=1)
    assert {"momentum" in values for values in run(study, 16)} == {True, False}


def test_a_grid_tries_each_valid_combination_once(url):
    study = make(url, GRID, "grid")
    seen = []
    while not study.is_exhausted:
        ask = study.ask()
        seen.append(ask.values)
        study.tell(ask.number, "complete", 1.0)
    assert sorted(map(str, seen)) == sorted(map(str, GRID.points()))


def test_a_grid_completes_what_was_enqueued(url):
    study = make(url, GRID, "grid")
    study.enqueue({"b": 2})
    assert study.ask().values == {"a": "x", "b": 2, "c": 0}


def test_importances_know_the_conditional_parameters(url):
    run(make(url, SPACE), 40)
    study = optuna.load_study(study_name="study", storage=url)
    importances = optuna.importance.get_param_importances(study)
    assert set(importances) == set(SPACE.keys) and importances["lr"] > importances["weight_decay"]


REPEATED = parse_space(
    {
        "lr": "interval(0.001,1)",
        "depth": "range(1,4)",
        "width": {"values": "8,16", "repeat": "depth"},
        "forbid": [{"depth": 3, "lr": "> 0.1"}, {"depth": 1}],
    }
)


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes", "gp", "qmc"])
def test_no_sampler_proposes_what_is_forbidden(url, tmp_path, sampler):
    whole = run(make(f"sqlite:///{tmp_path}/whole.db", REPEATED, sampler), 14)
    assert all(len(values["width"]) == values["depth"] and not REPEATED.forbids(values) for values in whole)
    if sampler != "gp":
        assert run(make(url, REPEATED, sampler), 7) + run(make(url, REPEATED, sampler), 7) == whole
        assert [REPEATED.decode(trial.params) for trial in stored(url)] == whole


def test_what_another_program_enqueues_although_it_is_forbidden_is_replaced(url):
    study = make(url, REPEATED)
    optuna.load_study(study_name="study", storage=url).enqueue_trial({"depth": 1, "lr": 0.5})
    assert study.ask().values["depth"] > 1


def test_a_space_of_which_chance_finds_nothing_is_an_error(url):
    space = parse_space({"x": "interval(0,1)", "forbid": {"x": "> 0"}})
    with pytest.raises(StudyError, match="all of 1000 random combinations are forbidden"):
        make(url, space).ask()
