"""Studies of several objectives, and of trials that violate constraints."""

import math

import optuna
import pytest
from optuna.trial import TrialState
from studies import MEDIAN, SPACE, make, shipped, stored

from sweeps.core.errors import ConfigError, StudyError
from sweeps.search.objectives import parse_constraints

TWO = {"metric": ["val/acc", "num_params"], "direction": ["maximize", "minimize"]}
PRUNERS = ["median", "percentile", "successive_halving", "hyperband"]


def size(values):
    return 10.0 ** values["depth"]


def accuracy(values):
    return 1 - abs(math.log10(values["lr"]) + 2) / 4 + values["depth"] / 5


def trained(study, count=12):
    """Train as a driver would, pruning included."""
    for _ in range(count):
        ask = study.ask()
        epochs = (study.report(ask.number, accuracy(ask.values) * (step + 1) / 4, step) for step in range(4))
        verdict = next((verdict for verdict in epochs if verdict.prune), None)
        metrics = {"num_params": size(ask.values), "val/acc": accuracy(ask.values)}
        state, reason = ("pruned", verdict.reason) if verdict else ("complete", "")
        study.tell(ask.number, state, accuracy(ask.values), reason, metrics=metrics)
    return study


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp", "qmc"])
def test_the_best_trials_are_the_pareto_front(url, sampler):
    study = trained(make(url, sampler=sampler, **TWO))
    front = {trial.number for trial in study.best_trials}
    theirs = optuna.load_study(study_name="study", storage=url).best_trials
    assert front == {trial.number for trial in theirs} and front
    assert all(trial.objectives == (accuracy(trial.values), size(trial.values)) for trial in study.best_trials)
    with pytest.raises(StudyError, match="best_trials"):
        _ = study.best


@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize("pruner", PRUNERS)
def test_every_pruner_prunes_by_what_is_reported(url, sampler, pruner):
    def options(name):
        return shipped("pruner", name) | (
            {"max_resource": 4} if name == "hyperband" else {"min_resource": 1} if name == "successive_halving" else {}
        )

    study = trained(make(url, sampler=sampler, pruner=options(pruner), **TWO), 40)
    assert study.counts["pruned"] > 0
    reasons = [trial.user_attrs["reason"] for trial in stored(url) if trial.state == TrialState.PRUNED]
    assert all(reasons)


def test_pruning_decisions_are_those_of_a_study_of_the_reported_objective_alone(url, tmp_path):
    alone = trained(make(f"sqlite:///{tmp_path}/alone.db", pruner=MEDIAN), 30)
    both = trained(make(url, pruner=MEDIAN, **TWO), 30)
    assert [t.state for t in stored(url)] == [t.state for t in stored(f"sqlite:///{tmp_path}/alone.db")]
    assert alone.counts["pruned"] == both.counts["pruned"] > 0


def test_another_metric_than_the_first_may_be_reported(url):
    study = make(url, pruner=MEDIAN, reported=("val/loss", "minimize"), **TWO)
    for number in range(6):
        study.ask()
        loss = 1.0 + number
        verdicts = [study.report(number, loss, step) for step in range(2)]
        metrics = {"val/acc": 0.5, "num_params": 10.0}
        study.tell(number, "pruned" if verdicts[-1].prune else "complete", loss, metrics=metrics)
    assert study.counts["pruned"] == 4
    assert study.best_trials[0].objectives == (0.5, 10.0)


def test_an_objective_that_was_never_logged_fails_the_trial(url):
    study = make(url, **TWO)
    told = study.tell(study.ask().number, "complete", 0.5, metrics={})
    assert told.state == "failed" and "number" in told.reason


def test_a_single_objective_refuses_a_pruner_that_judges_the_other_way(url):
    with pytest.raises(ConfigError, match=r"objective.direction: .*pruner=none"):
        make(url, pruner=MEDIAN, reported=("val/loss", "minimize"))
    make(url, reported=("val/loss", "minimize"))


def test_what_is_reported_does_not_turn_a_single_objective_round(url, tmp_path):
    def proposed(url, **more):
        trained(make(url, sampler="tpe", **more), 20)
        return [trial.params for trial in stored(url)]

    other = proposed(url, reported=("val/loss", "minimize"))
    assert other == proposed(f"sqlite:///{tmp_path}/plain.db")


@pytest.mark.parametrize(
    ("metric", "direction", "words"),
    [
        (["a", "b"], "maximize", "one direction for each metric"),
        (["a", "a"], ["maximize", "maximize"], "several different ones"),
        ([], [], "must name one metric"),
        (5, "maximize", "must name one metric"),
        (["a", None], ["maximize", "maximize"], "must name one metric"),
        ({"a": 1}, "maximize", "must name one metric"),
        ("a", "up", "must be 'maximize' or 'minimize', but got 'up'"),
    ],
)
def test_objectives_that_make_no_sense_are_refused(url, metric, direction, words):
    with pytest.raises(ConfigError, match=words):
        make(url, metric=metric, direction=direction)


# --- constraints


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random", "cmaes"])
def test_the_best_violates_no_constraint(url, sampler):
    study = trained(make(url, sampler=sampler, constraints=parse_constraints("num_params <= 100")), 20)
    assert study.best.values["depth"] <= 2
    assert max(trial.value for trial in stored(url)) > study.best.value
    for trial in stored(url):
        assert (trial.constraints["num_params <= 100"] <= 0) == (size(trial.params) <= 100)


def test_the_front_violates_no_constraint(url):
    study = trained(make(url, sampler="tpe", constraints=parse_constraints("num_params<=100"), **TWO), 20)
    assert all(trial.values["depth"] <= 2 for trial in study.best_trials)


def test_tpe_learns_what_is_infeasible(url, tmp_path):
    def share(url, constraints):
        trained(make(url, sampler="tpe", constraints=constraints), 40)
        return sum(size(trial.params) <= 10 for trial in stored(url)[10:])

    free = share(f"sqlite:///{tmp_path}/free.db", ())
    assert share(url, parse_constraints(["num_params <= 10"])) > 2 * free


def test_what_violates_a_constraint_before_it_trains_is_not_admitted(url):
    study = make(url, constraints=parse_constraints(["num_params <= 1e6", "val/acc > 0.5"]))
    assert not study.admit({"num_params": 1e6}).prune
    verdict = study.admit({"num_params": 1000001.0})
    assert verdict.prune and verdict.reason == "num_params=1000001 violates num_params <= 1000000"


def test_a_trial_without_the_constrained_metric_fails(url):
    study = make(url, constraints=parse_constraints("val/f1 > 0.5"))
    told = study.tell(study.ask().number, "complete", 0.5, metrics={"val/acc": 0.5})
    assert told.state == "failed" and "'val/f1'" in told.reason


@pytest.mark.parametrize("cause", ["diverged", "memory"])
def test_a_trial_that_diverges_or_runs_out_of_memory_is_pruned_with_a_constraint(url, cause):
    study = make(url, sampler="tpe")
    told = study.tell(study.ask().number, "failed", None, "train/loss became nan at step 2", cause=cause)
    assert (told.state, told.infeasible) == ("pruned", "train/loss became nan at step 2")
    trial = stored(url)[0]
    assert (trial.state, trial.constraints) == (TrialState.PRUNED, {cause: 1.0})
    assert study.counts["pruned"] == 1 and study.best is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_objective_that_is_not_finite_is_a_constraint_not_a_failure(url, value):
    study = make(url)
    told = study.tell(study.ask().number, "complete", value)
    assert told.state == "pruned" and f"must be finite, but is {value}" in told.reason
    assert stored(url)[0].constraints == {"diverged": 1.0}


def test_tpe_avoids_where_trials_diverged(url):
    study = make(url, sampler="tpe")
    for _ in range(40):
        ask = study.ask()
        if ask.values["lr"] > 0.01:
            study.tell(ask.number, "failed", None, "nan", cause="diverged")
        else:
            study.tell(ask.number, "complete", ask.values["lr"])
    late = [trial.params["lr"] for trial in stored(url)[20:]]
    assert sum(lr > 0.01 for lr in late) < len(late) / 3  # a third of the space on a logarithmic scale


def test_the_constraints_of_a_study_do_not_change(url):
    make(url, SPACE, constraints=parse_constraints("num_params <= 100"))
    make(url, SPACE, constraints=parse_constraints("num_params<=100.0"))
    with pytest.raises(StudyError, match=r"study.constraints: was num_params <= 100, now none"):
        make(url, SPACE)


@pytest.mark.parametrize("text", ["num_params", "num_params == 3", "num_params <= many", "<= 3", 3])
def test_a_constraint_of_another_form_is_refused(text):
    with pytest.raises(ConfigError, match=r"study.constraints: .*num_params <= 1e6"):
        parse_constraints([text])


@pytest.mark.parametrize(
    ("text", "value", "holds", "violation"),
    [
        ("a <= 2", 3.0, False, 0.5),
        ("a <= 2", 2.0, True, 0.0),
        ("a < 2", 2.0, False, 1e-9),
        ("a >= 2", 1.0, False, 0.5),
        ("a > 0", 0.5, True, -0.5),
        ("a >= 0", -3.0, False, 3.0),
        ("val/f1 <= -2", -1.0, False, 0.5),
    ],
)
def test_a_violation_is_a_share_of_the_bound(text, value, holds, violation):
    (constraint,) = parse_constraints(text)
    assert constraint.holds(value) == holds
    assert constraint.violation(value) == violation


@pytest.mark.parametrize("given", [5, True, {"num_params": 1e5}, "num_params <= nan"])
def test_constraints_that_are_no_text_or_no_number_are_refused_in_words(given):
    with pytest.raises(ConfigError, match=r"study.constraints: .*num_params <= 1e6"):
        parse_constraints(given)


@pytest.mark.parametrize("metric", ["val/F1 score", "val/acc@1", "p<0.05", "a=b", "it's", "a  b", 'say "x"'])
@pytest.mark.parametrize("form", ["{} > .5", "'{}' > .5", " {}>0.5 "])
def test_the_metric_of_a_constraint_has_any_name(metric, form):
    (constraint,) = parse_constraints(form.format(metric))

    assert (constraint.metric, constraint.operator, constraint.bound) == (metric, ">", 0.5)
    assert parse_constraints([str(constraint)]) == (constraint,)


def test_bounds_that_differ_in_any_digit_are_other_constraints(url):
    make(url, SPACE, constraints=parse_constraints("num_params <= 1234567"))
    with pytest.raises(StudyError, match=r"was num_params <= 1234567, now num_params <= 1234568"):
        make(url, SPACE, constraints=parse_constraints("num_params <= 1234568"))


def test_a_single_objective_is_searched_in_its_own_direction_whatever_is_reported(url):
    study = make(url, sampler="tpe", reported=("val/loss", "minimize"))
    for _ in range(40):
        ask = study.ask()
        study.tell(ask.number, "complete", 0.5, metrics={"val/acc": ask.values["lr"]})
    late = [trial.params["lr"] for trial in stored(url)[20:]]
    assert sum(lr > 0.01 for lr in late) > len(late) / 2  # by chance a third, on a logarithmic scale


def test_a_pruned_trial_has_no_report_of_another_metric_for_its_objective(url):
    study = make(url, pruner=MEDIAN, reported=("train/acc", "maximize"))
    number = study.ask().number
    study.report(number, 0.99, 0)
    study.note(number, "metrics", {"val/acc": 0.5})
    study.tell(number, "pruned", 0.99, "poor", metrics={"val/acc": 0.5})
    assert study.end_of(number) == ("pruned", 0.5, "poor")
    assert study.reuse(study.ask().number, number).value == 0.5


def test_what_a_study_reports_does_not_change(url):
    make(url, SPACE, reported=("val/f1", "maximize"))
    make(url, SPACE, reported=("val/f1", "maximize"))
    with pytest.raises(StudyError, match=r"objective.metric: was maximize val/f1, now maximize val/acc"):
        make(url, SPACE)
