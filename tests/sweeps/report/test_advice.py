"""What a study has taught: judged over made-up trials whose truth is known."""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
import pytest

from sweeps.report.advice import advice, best_trials, importances
from sweeps.results.histories import History, history_of
from sweeps.results.queries import TrialRow
from sweeps.search.space.declare import parse_space
from sweeps.search.space.space import Space

NOISE = [f"noise{index}=interval(0,1)" for index in range(5)]
LR = "optimizer.lr=tag(log,interval(1e-5,1e-2))"


@dataclass
class Studied:
    """What `insights` asks of a stored study."""

    trials: list[TrialRow]
    space: Space | None
    objectives: Mapping[str, str] = field(default_factory=lambda: {"val/acc": "maximize"})
    curves: Mapping[int, History] = field(default_factory=dict)

    def histories(self, metric: str) -> Mapping[int, History]:
        return self.curves


def row(number: int, params: Mapping[str, Any], value: float | None, state: str = "complete", **other: Any) -> TrialRow:
    known = {"name": "", "study": "s", "metric": "val/acc", "direction": "maximize", "metrics": {}, "reason": ""}
    values = {} if value is None else {"val/acc": value}
    known |= {"duration_s": 1.0, "folder": "", "objectives": {"val/acc": "maximize"}, "values": values} | other
    return TrialRow(run_id=f"{number:x}", trial=number, state=state, value=value, params=dict(params), **known)


def searched(
    expressions: list[str] | Mapping[str, Any],
    score: Callable[[dict[str, Any]], float],
    count: int,
    *,
    seed: int = 0,
    by_tpe: bool = False,
) -> Studied:
    """Search by Optuna's own sampler, as a sweep would."""
    samplers = optuna.samplers
    sampler = samplers.TPESampler(seed=seed) if by_tpe else samplers.RandomSampler(seed=seed)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    is_typed = isinstance(expressions, list)
    space, rows = parse_space({}, expressions) if is_typed else parse_space(expressions), []
    for number in range(count):
        trial = study.ask()
        params = space.suggest(trial)
        value = score(params)
        study.tell(trial, value)
        rows.append(row(number, params, value))
    return Studied(rows, space)


def lr_score(params: Mapping[str, Any]) -> float:
    return -((math.log10(params["optimizer.lr"]) + 1) ** 2)  # best at 0.1, beyond the end of the range


def edges(study: Studied) -> list[str]:
    return [one.key for one in advice(study) if one.kind == "edge"]


def test_the_parameter_that_decides_has_the_largest_share_and_is_clear() -> None:
    first, *others = importances(searched([LR, *NOISE], lr_score, 60))
    assert (first.key, first.is_clear) == ("optimizer.lr", True)
    assert first.share > 0.6
    assert sum([first.share, *(other.share for other in others)]) == pytest.approx(1)


def test_pure_noise_is_rarely_clear() -> None:
    draw = random.Random(0)
    studies = [searched(NOISE, lambda _: draw.random(), 40, seed=seed) for seed in range(6)]
    clear = [one for study in studies for one in importances(study) if one.is_clear]
    assert len(clear) <= 3  # of thirty; one of forty is expected


def test_a_metric_that_is_minimised_is_weighed_the_other_way() -> None:
    study = searched([LR, *NOISE[:2]], lr_score, 40)
    turned = [row(one.trial, one.params, -one.value) for one in study.trials]
    assert importances(Studied(turned, study.space, {"val/acc": "minimize"})) == importances(study)


def test_the_ranges_of_an_options_key_are_one_key() -> None:
    def score(params: Mapping[str, Any]) -> float:
        return params["optimizer.lr"] + (params["optimizer"] == "adam")

    space = {"optimizer": "choice(sgd,adam)", "optimizer.lr@sgd": "interval(0,1)", "optimizer.lr@adam": "interval(0,2)"}
    study = searched(space, score, 40)
    assert {one.key for one in importances(study)} == {"optimizer", "optimizer.lr"}


@pytest.mark.parametrize(("count", "num_complete"), [(9, 9), (20, 4), (0, 0)])
def test_few_trials_say_nothing(count: int, num_complete: int) -> None:
    study = searched([LR], lr_score, count)
    rows = [
        row(one.trial, one.params, one.value, "complete" if one.trial < num_complete else "failed")
        for one in study.trials
    ]
    judged = Studied(rows, study.space)
    assert importances(judged) == [] and advice(judged) == [] and best_trials(judged) == []


def test_pruned_trials_count_as_worse_than_all_complete_ones() -> None:
    study = searched([LR, *NOISE], lr_score, 40)
    good = {one.trial for one in best_trials(study)} | set(range(0, 40, 4))
    rows = [
        row(one.trial, one.params, one.value, "complete" if one.trial in good else "pruned") for one in study.trials
    ]
    first, *_ = importances(Studied(rows, study.space))
    assert (first.key, first.is_clear) == ("optimizer.lr", True)


def test_being_pruned_by_the_leading_objective_says_nothing_about_the_others() -> None:
    study = searched([LR, *NOISE], lr_score, 80)
    good = {one.trial for one in study.trials if one.params["optimizer.lr"] > 1e-3}
    both = {"val/acc": "maximize", "own": "minimize"}
    rows = [
        row(
            number, one.params, 0.5, "complete" if number in good else "pruned", values={"own": number}, objectives=both
        )
        for number, one in enumerate(study.trials)
    ]
    two = Studied(rows, study.space)
    two.objectives = both
    assert not any(one.is_clear for one in importances(two, "own"))


def test_infeasible_nan_and_failed_trials_are_not_among_the_best() -> None:
    study = searched([LR], lr_score, 20)
    odd = [row(90, {"optimizer.lr": 1e-3}, 9.0, infeasible="num_params"), row(91, {"optimizer.lr": 1e-3}, math.nan)]
    odd.append(row(92, {"optimizer.lr": 1e-3}, 9.0, "failed"))
    assert best_trials(Studied([*odd, *study.trials], study.space)) == best_trials(study)


def test_infinite_values_have_their_place() -> None:
    study = searched([LR], lr_score, 20)
    rows = [*study.trials, row(90, {"optimizer.lr": 1e-2}, math.inf), row(91, {"optimizer.lr": 1e-5}, -math.inf)]
    judged = Studied(rows, study.space)
    assert best_trials(judged)[0].trial == 90
    assert importances(judged)[0].key == "optimizer.lr"


def test_a_study_whose_space_is_not_known_has_no_importances() -> None:
    study = searched([LR], lr_score, 20)
    assert importances(Studied(study.trials, None)) == []


@pytest.mark.parametrize("by_tpe", [False, True])
def test_the_best_at_the_end_of_a_range_are_told_with_a_wider_one(by_tpe: bool) -> None:
    first = advice(searched([LR, *NOISE], lr_score, 60, by_tpe=by_tpe))[0]
    assert (first.kind, first.key) == ("edge", "optimizer.lr")
    assert first.overrides == ("optimizer.lr=tag(log,interval(1e-05,0.316))", "study.num_trials=120")
    assert "upper end of its range, 0.01: widen it" in first.text


def test_ends_of_parameters_without_effect_are_rarely_named_though_the_sampler_dwells_there() -> None:
    studies = [searched([LR, *NOISE], lr_score, 60, seed=seed, by_tpe=True) for seed in range(6)]
    named = [key for study in studies for key in edges(study)]
    assert named.count("optimizer.lr") == 6
    assert len(named) <= 8


def test_the_middle_of_a_range_is_no_edge() -> None:
    assert edges(searched(["optimizer.lr=interval(0,1)"], lambda p: -abs(p["optimizer.lr"] - 0.5), 60)) == []


def test_nothing_is_added_below_zero() -> None:
    study = searched(["model.dropout=interval(0.0,0.5)"], lambda p: -p["model.dropout"], 60)
    (edge,) = [one for one in advice(study) if one.kind == "edge"]
    assert edge.overrides == () and edge.text.endswith("lower end of its range, 0: there is little beyond it.")


def test_the_best_that_were_best_at_their_end_are_told_to_train_longer() -> None:
    study = searched([LR], lr_score, 20)
    rising = {row.trial: history_of([(step, step, float(step)) for step in range(4)]) for row in study.trials}
    falling = {number: history_of([(step, step, -float(step)) for step in range(4)]) for number in rising}
    study.curves = rising
    assert [one.text for one in advice(study) if one.kind == "longer"] == [
        "5 of the 5 best trials were best when they ended: train longer."
    ]
    study.curves = falling
    assert [one for one in advice(study) if one.kind == "longer"] == []


def test_a_best_trial_near_the_end_of_the_study_asks_for_more() -> None:
    study = searched([LR], lr_score, 20)
    rows = [row(one.trial, one.params, one.trial) for one in study.trials]
    (more,) = [one for one in advice(Studied(rows, study.space)) if one.kind == "more"]
    assert more.text == "The best trial, #19, is one of the last 2 of 20: more may find a better one."
    assert more.overrides == ("study.num_trials=40",)


def test_where_the_best_lie_is_said_of_what_matters() -> None:
    def score(params: Mapping[str, Any]) -> float:
        return 2 * (params["model.activation"] == "relu") + 0.1 * params["noise0"]

    study = searched(["model.activation=choice(relu,tanh,gelu)", *NOISE], score, 60)
    texts = [one.text for one in advice(study) if one.kind == "matters" and one.key == "model.activation"]
    assert len(texts) == 1 and texts[0].endswith("best trials have relu.")
