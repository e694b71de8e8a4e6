"""What the folder of a study tells of its trials, and what its runs are told."""

import json

import pytest
import yaml
from fakes import FakeStore
from studies import make

from sweeps.config.composer import Composer, freeze
from sweeps.core import paths
from sweeps.core.errors import ConfigError
from sweeps.driver.sweep_setup import SweepPlan
from sweeps.driver.transfer import check_warm_start, known_choices, move_over, record_move, start_warm
from sweeps.search.space.declare import parse_space
from sweeps.search.storage import open_storage
from sweeps.search.terms import StudyTerms

BEFORE = parse_space({"model.depth": "range(1,4)", "optimizer.lr": "tag(log,interval(1e-4,1e-1))"})


@pytest.fixture(scope="module")
def composer():
    return Composer("sweep", ["search=none"])


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/optuna.db"


def planned(composer=None, space=BEFORE, **more):
    """A sweep of this space, with other keys of `study`."""
    config = Composer("sweep", ["search=none", "study.name=s"]).base()
    config = {**config, "study": {**config["study"], **more}}
    return SweepPlan(composer=composer, config=config, space=space, terms=StudyTerms.of(), sampler=None, pruner=None)


def fill(url, folder, composer, choices, count=6):
    """Run a study of which each trial has its frozen config, and a run."""
    study, store = make(url, BEFORE, name="s"), FakeStore()
    store.create_run("parent", run_tags={}, parent=None, start_time_ms=0)
    for number in range(count):
        ask = study.ask()
        freeze(composer.trial(ask.values, seed=number), paths.trial_dir(folder, number))
        study.tell(number, "complete", 0.1 * number)
        run_tags = {"lightsweep.trial": str(number), "lightsweep.state": "complete"}
        store.create_run(f"#{number}", run_tags=run_tags, parent="run0", start_time_ms=0)
    paths.write_text(folder / paths.STUDY, yaml.safe_dump({"choices": choices}))
    return store


def move(url, folder, composer, space):
    lines: list[str] = []
    move_over(planned(composer, space), "s", open_storage(url), folder=folder, say=lines.append)
    return lines


def test_what_is_searched_newly_is_read_from_the_frozen_config_and_the_record(url, tmp_path, composer):
    store = fill(url, tmp_path / "s", composer, {"optimizer": "adam", "data": "digits"})
    after = parse_space(
        {
            "model.depth": "range(1,4)",
            "optimizer.lr": "interval(0,1)",
            "optimizer": "adam,sgd",
            "optimizer.betas@adam": "choice([0.9,0.999],[0.8,0.9])",
            "model.width": "choice(32,64,128)",
        }
    )
    assert move(url, tmp_path / "s", composer, after)[0].startswith("study s is moved to the new space: 6 trials are")
    study = make(url, after, name="s")
    known = {"optimizer": "adam", "optimizer.betas": [0.9, 0.999], "model.width": 128}
    assert all(study.values_of(number).items() >= known.items() for number in range(6))
    record_move(study, store, "run0")
    assert json.loads(store.runs["run1"]["tags"]["lightsweep.params"]) == study.values_of(0)
    assert store.runs["run0"]["tags"]["search.optimizer"] == "choice(adam,sgd)"
    assert store.runs["run0"]["tags"]["lightsweep.backup"] == "s~1"


def test_an_unknown_choice_does_not_fit_and_the_runs_are_told_even_after_a_crash(url, tmp_path, composer):
    store = fill(url, tmp_path / "s", composer, {})
    after = parse_space({"model.depth": "range(1,4)", "optimizer": "adam,sgd"})
    reason = "its optimizer was not searched, and is not known"
    assert move(url, tmp_path / "s", composer, after) == [
        "study s is moved to the new space: 0 trials are kept, 6 dropped (as it was, it is s~1 in the storage)",
        *(f"  #{number}: {reason}" for number in range(3)),
        "  and 3 more",
    ]
    store.failures = 1
    with pytest.raises(ConnectionError):
        record_move(make(url, after, name="s"), store, "run0")
    record_move(make(url, after, name="s"), store, "run0")
    assert store.runs["run0"]["tags"]["search.optimizer.lr"] == "not searched"
    ended = [run["tags"] for run in store.runs.values() if "lightsweep.trial" in run["tags"]]
    assert all((run["lightsweep.state"], run["lightsweep.reason"]) == ("dropped", reason) for run in ended)
    store.failures = 1
    record_move(make(url, after, name="s"), store, "run0")  # all is told: nothing is asked of the store
    assert store.failures == 1


def test_what_is_searched_no_more_is_compared_with_what_the_command_line_composes(url, tmp_path):
    composer = Composer("sweep", ["search=none", "model.depth=2"])
    fill(url, tmp_path / "s", composer, {})
    lines = move(url, tmp_path / "s", composer, parse_space({"optimizer.lr": "interval(0,1)"}))
    depths = [make(url, BEFORE, name="s~1").values_of(number)["model.depth"] for number in range(6)]
    kept = depths.count(2)
    assert 0 < kept < 6 and f"{kept} trials are kept, {6 - kept} dropped" in lines[0]
    assert lines[1].endswith("but now it is not searched and 2")


def test_only_choices_that_were_the_same_from_the_first_are_known(tmp_path):
    now = {"data": "digits", "model": "mlp", "scheduler": None, "hydra/env": "default"}
    assert known_choices(tmp_path, now) == {"data": "digits", "model": "mlp", "scheduler": None}
    paths.write_text(tmp_path / paths.STUDY, yaml.safe_dump({"choices": {"data": "mnist", "scheduler": None}}))
    assert known_choices(tmp_path, now) == {"scheduler": None}
    paths.write_text(tmp_path / paths.STUDY, yaml.safe_dump({"study": "of an earlier version"}))
    assert known_choices(tmp_path, now) == {}


def test_a_warm_start_happens_once_and_says_what_it_took(url, tmp_path, composer):
    fill(url, tmp_path / "s", composer, {})
    space = parse_space({"optimizer.lr": "interval(0,1)", "model.depth": "1,2", "model.width": "64,128"})
    lines: list[str] = []
    for _ in range(2):
        plan = planned(composer, space, warm_start="s")
        start_warm(plan, "new", open_storage(url), store_dir=tmp_path, say=lines.append)
    study = make(url, space, name="new")
    taken = study.counts["imported"]
    assert 0 < taken < 6 and study.values_of(0)["model.width"] == 128
    assert f"{taken} trials from study s ({6 - taken} incompatible)" in lines[0]
    assert "model.depth=3 is not in choice(1,2)" in lines[1] and sum("warm start" in line for line in lines) == 1


def test_a_warm_start_is_checked_only_where_the_study_is_new(url, composer):
    storage = open_storage(url)
    with pytest.raises(ConfigError, match=r"study.warm_start must be the name of a study, or a list"):
        check_warm_start(planned(warm_start={"a": 1}), storage)
    with pytest.raises(ConfigError, match=r"there is no study .other. in study.storage. It holds none yet"):
        check_warm_start(planned(warm_start=["other"]), storage)
    make(url, BEFORE, name="s")
    check_warm_start(planned(warm_start=["other"]), storage)
