"""A new study knows what others have found."""

import math

import optuna
import pytest
from optuna.trial import TrialState
from studies import FINITE, MEDIAN, SPACE, make, run, stored

from sweeps.core.errors import ConfigError
from sweeps.search import storage_writer as publishing
from sweeps.search.space.declare import parse_space
from sweeps.search.storage import open_storage
from sweeps.search.terms import StudyTerms
from sweeps.search.transfer import warm_start

LR = parse_space({"lr": "tag(log,interval(1e-5,1))"})


def unknown(key):
    raise KeyError(key)


def begin(url, sources=("study",), space=SPACE, name="new", recorded=lambda source, number: unknown, **more):
    return warm_start(
        open_storage(url),
        name,
        sources=sources,
        space=space,
        terms=StudyTerms.of(**more),
        recorded=recorded,
        composed=lambda values: {"act": "tanh", "depth": 2, **values}.__getitem__,
    )


def fill(url, name="study", count=8, **more):
    """Run a study with complete, pruned, failed, interrupted trials."""
    study = make(url, name=name, pruner=MEDIAN, **more)
    for number in range(count):
        ask = study.ask()
        study.report(ask.number, 0.1 * number, 0)
        state = ("complete", "complete", "pruned", "failed")[number % 4]
        study.tell(ask.number, state, 0.1 * number if state == "complete" else None)
    study.tell(study.ask().number, "interrupted")
    return study


def test_complete_and_pruned_trials_are_imported_with_what_they_have(url):
    fill(url)
    (imported,) = begin(url)
    assert (imported.source, imported.count, imported.incompatible) == ("study", 6, {})
    theirs = [t for t in stored(url) if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    for number, (was, now) in enumerate(zip(theirs, stored(url, "new"), strict=True)):
        assert now.number == number and now.user_attrs["origin"] == {"study": "study", "trial": was.number}
        for word in ("state", "values", "params", "intermediate_values", "datetime_start", "datetime_complete"):
            assert getattr(now, word) == getattr(was, word)


def test_imported_trials_count_as_nothing_and_are_never_the_best(url):
    fill(url)
    begin(url)
    study = make(url, name="new")
    assert study.num_finished == 0 and study.best is None and study.best_trials == []
    assert {state: n for state, n in study.counts.items() if n} == {"imported": 6}
    ask = study.ask()
    assert ask.number == 6
    study.tell(ask.number, "complete", -5.0)
    assert study.best.number == 6 and study.best.value == -5.0 and study.num_finished == 1


def test_imported_trials_are_not_on_the_pareto_front(url):
    objectives = {"metric": ["val/acc", "size"], "direction": ["maximize", "minimize"]}
    source = make(url, **objectives)
    source.tell(source.ask().number, "complete", [1.0, 1.0])
    begin(url, **objectives)
    study = make(url, name="new", **objectives)
    for values in ([0.5, 2.0], [0.6, 3.0], [0.4, 3.0]):
        study.tell(study.ask().number, "complete", values)
    assert sorted(best.number for best in study.best_trials) == [1, 2]


def test_what_does_not_fit_is_told(url):
    fill(url)
    narrow = parse_space({**SPACE.describe(), "depth": "range(1,3)"})
    (imported,) = begin(url, space=narrow)
    assert imported.incompatible and all("is not in range(1,3)" in reason for reason in imported.incompatible.values())
    assert imported.count == 6 - len(imported.incompatible) == len(stored(url, "new"))


def test_several_studies_are_imported_from_and_what_they_imported_is_not_passed_on(url):
    fill(url, "a")
    begin(url, ["a"], name="b")
    run(make(url, name="b"), 2)
    found = begin(url, ["a", "b", "a"])
    assert [(each.source, each.count) for each in found] == [("a", 6), ("b", 2)]
    origins = [trial.user_attrs["origin"] for trial in stored(url, "new")]
    assert origins[-2:] == [{"study": "b", "trial": 6}, {"study": "b", "trial": 7}]


@pytest.mark.parametrize(
    ("sources", "more", "words"),
    [
        (["studdy"], {}, "there is no study 'studdy' in study.storage. Did you mean 'study'?"),
        (["study"], {"metric": "val/loss"}, "study 'study' was .*study.metric is val/acc there, and val/loss here"),
        (["study"], {"direction": "minimize"}, "study.direction is maximize there, and minimize here"),
        (["foreign"], {}, "Lightsweep did not make the study 'foreign'"),
    ],
)
def test_what_cannot_be_imported_from_is_refused_and_nothing_is_created(url, sources, more, words):
    fill(url)
    optuna.create_study(storage=url, study_name="foreign", direction="maximize")
    with pytest.raises(ConfigError, match=f"^study.warm_start: .*{words}".replace("?", r"\?")):
        begin(url, sources, **more)
    assert sorted(optuna.get_all_study_names(url)) == ["foreign", "study"]


def test_a_crash_before_the_study_is_there_leaves_none(url, monkeypatch):
    fill(url)
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(publishing, "_rename", lambda *args: 1 / 0)
        begin(url)
    assert begin(url)[0].count == 6
    assert sorted(optuna.get_all_study_names(url)) == ["new", "study"]


def test_a_grid_leaves_out_what_is_known(url):
    run(make(url, FINITE, "grid"), 3)
    begin(url, space=FINITE)
    study = make(url, FINITE, "grid", name="new")
    assert run(study, 3) and study.is_exhausted


def test_the_first_proposal_of_tpe_is_no_random_one(url):
    """Without the other study's ten trials it would be one of ten that are drawn at random."""
    run(make(url, LR, "random"), 12)
    begin(url, space=LR)
    warm, cold = make(url, LR, "tpe", name="new"), make(url, LR, "tpe", name="cold")
    assert warm.ask().number == 12 and cold.ask().number == 0
    drawn = [any(key.startswith("tpe:") for key in stored(url, name)[-1].system_attrs) for name in ("new", "cold")]
    assert drawn == [True, False]


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_the_next_proposal_is_the_one_that_the_source_itself_would_get(url, sampler):
    run(make(url, LR, sampler), 12)
    begin(url, space=LR)
    assert make(url, LR, sampler, name="new").ask() == make(url, LR, sampler).ask()


def test_a_pruner_knows_the_values_of_imported_trials(url):
    fill(url)
    begin(url)
    study = make(url, name="new", pruner=MEDIAN)
    verdict = study.report(study.ask().number, -math.pi, 0)
    assert verdict.prune and "median" in verdict.reason


def test_a_source_whose_trainings_reported_something_else_is_refused(url):
    fill(url)
    with pytest.raises(ConfigError, match=r"objective.metric is maximize val/acc there, and maximize val/f1 here"):
        begin(url, reported=("val/f1", "maximize"))
    begin(url, reported=("val/acc", "maximize"))
    make(url, name="new")
