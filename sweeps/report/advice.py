"""Advice from a study: which parameters matter, where the best values are, and what to try next.

All of it is inferred from few and noisy trials. So each sentence names the trials that support it, and nothing is
reported that would often happen by chance.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sweeps.config.quoting import quote
from sweeps.core.errors import SpaceError
from sweeps.core.text import brief, distinct, number
from sweeps.results.queries import TrialRow
from sweeps.search.space.corners import is_near_end, share_near_end, widened
from sweeps.search.space.parameter import Choices, Parameter
from sweeps.search.space.space import Space

if TYPE_CHECKING:  # Optuna and NumPy take time to import
    from sweeps.results.histories import History
    from sweeps.results.study import StoredStudy
    from sweeps.search.importance import Importance

__all__ = ["Advice", "advice", "best_trials", "importances"]

_FEWEST = 10
"""trials below which there is no advice"""
_LEAST_BEST = 5  # Optuna recommends for PED-ANOVA at least five trials above its quantile
_SHARE_BEST = 0.1
_CHANCE = 0.02  # the probability that as many random values are at an end
_MOST = 0.8  # the share of the best trials that counts as most
_CLEAR_GAIN = 3.0  # standard errors by which trials at an end must be better


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One piece of advice.

    Attributes:
        kind: `edge` (the best values are at the end of a range), `matters` (a parameter is important), `longer` (the
            best trials were best at their last epoch) or `more` (the study was still finding better trials).
        key: The searched parameter that the advice is about; empty if it is about none.
        text: The sentence.
        overrides: The overrides of `lightsweep resume STUDY` that act on the advice, if any. Those of an edge need
            --migrate.
    """

    kind: Literal["edge", "matters", "longer", "more"]
    key: str = ""
    text: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """The trials that advice is based on, the best first and those without a value last; `scores` are their ranks."""

    trials: Sequence[TrialRow]
    scores: Sequence[float]
    num_best: int
    is_minimized: bool

    @property
    def best(self) -> Sequence[TrialRow]:
        return self.trials[: self.num_best]


def importances(study: "StoredStudy", metric: str | None = None) -> "list[Importance]":
    """Return the importance of each searched key for being among the best trials, the most important first.

    Args:
        study: The study; its complete trials count, and for the leading objective its pruned ones.
        metric: One of the objectives; the leading one if None.

    Returns:
        An empty list if there are fewer than ten trials or five complete ones, or if the search space is unknown.
    """
    judged = _judged(study.trials, study.objectives, metric)
    if judged is None or study.space is None:
        return []
    from sweeps.search.importance import weigh

    return weigh(study.space, [row.params for row in judged.trials], judged.scores, num_best=judged.num_best)


def best_trials(study: "StoredStudy", metric: str | None = None) -> list[TrialRow]:
    """Return the best trials by an objective: a tenth, but at least five; empty if there are too few trials."""
    judged = _judged(study.trials, study.objectives, metric)
    return [] if judged is None else list(judged.best)


def advice(study: "StoredStudy", weights: "Sequence[Importance] | None" = None) -> list[Advice]:
    """Return the advice from a study, the most useful first; of several objectives the leading one counts.

    Args:
        study: The study.
        weights: The result of `importances`, if it has been computed already.
    """
    judged = _judged(study.trials, study.objectives, None)
    if judged is None:
        return []
    found: list[Advice] = []
    if study.space is not None:
        found += _edges(study.space, judged)
    found += _longer(judged, study.histories(next(iter(study.objectives))))
    found += _more(judged)
    weights = importances(study) if weights is None else weights
    found += [
        one
        for weight in weights
        if weight.is_clear and weight.share * len(weights) > 1
        for one in _matters(weight, judged)
    ]
    return found


def _judged(trials: Sequence[TrialRow], objectives: Mapping[str, str], metric: str | None) -> _Judged | None:
    """Sort the trials by an objective; pruned and infeasible ones come last, failed ones are left out.

    Pruned trials count for the leading objective only, since they are pruned by that one.
    """
    leading = next(iter(objectives), "")
    metric = leading if metric is None else metric
    is_leading = metric == leading
    sign = -1.0 if objectives.get(metric) == "minimize" else 1.0
    values: dict[int, float] = {}
    others: list[TrialRow] = []
    complete: list[TrialRow] = []
    for row in trials:
        value = row.values.get(metric)
        if row.state == "complete" and not row.infeasible and value is not None and not math.isnan(value):
            complete.append(row)
            values[id(row)] = sign * value
        elif row.state == "complete" or (row.state == "pruned" and is_leading):
            others.append(row)
    ordered = sorted(complete, key=lambda row: -values[id(row)])  # of equal ones the earlier first
    ranks = {value: float(rank) for rank, value in enumerate(sorted(set(values.values())), 1)}  # infinity also has one
    num_best = max(_LEAST_BEST, math.ceil(_SHARE_BEST * (len(ordered) + len(others))))
    if len(ordered) + len(others) < _FEWEST or len(ordered) < num_best:
        return None
    scores = [ranks[values[id(row)]] for row in ordered] + [0.0] * len(others)
    return _Judged(trials=[*ordered, *others], scores=scores, num_best=num_best, is_minimized=sign < 0)


# --- ends of ranges


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """One end of the range of a parameter, and whether each trial is there; None for trials without the parameter."""

    parameter: Parameter
    is_upper: bool
    is_near: Sequence[bool | None]


def _edges(space: Space, judged: _Judged) -> list[Advice]:
    """Return advice on ends at which more of the best values are than by chance, and at which trials are better.

    The second condition is tested for all ends together: a sampler that has found a good point keeps proposing the
    other values of that point as well, also those of parameters without effect.
    """
    ends = [end for parameter in space.parameters for end in _ends(parameter, space, judged)]
    gains = _gains(ends, judged.scores)
    return [_edge(end, judged) for end, gain in zip(ends, gains, strict=True) if gain > _CLEAR_GAIN]


def _ends(parameter: Parameter, space: Space, judged: _Judged) -> Iterator[_End]:
    """Return the ends of a range at which there are more of the best trials than chance explains."""
    values = [_value(parameter, space, row) for row in judged.trials]
    for is_upper in (False, True):
        share = share_near_end(parameter, is_upper=is_upper)
        if share is None:
            return
        is_near = [None if value is None else is_near_end(parameter, value, is_upper=is_upper) for value in values]
        best = [near for near in is_near[: judged.num_best] if near is not None]
        if len(best) >= _LEAST_BEST and best[0] and _by_chance(sum(best), len(best), share) <= _CHANCE:
            yield _End(parameter=parameter, is_upper=is_upper, is_near=is_near)


def _gains(ends: Sequence[_End], scores: Sequence[float]) -> list[float]:
    """Return by how many standard errors trials at each end are better, by least squares over ranks."""
    if not ends:
        return []
    import numpy as np

    y = np.array(scores, dtype=float).argsort().argsort().astype(float)
    columns = [np.ones(len(y)), *(np.array([bool(near) for near in end.is_near], dtype=float) for end in ends)]
    columns += [
        np.array([near is not None for near in end.is_near], dtype=float) for end in ends if None in end.is_near
    ]
    x = np.column_stack(columns)
    coefficients, *_ = np.linalg.lstsq(x, y, rcond=None)
    left = len(y) - int(np.linalg.matrix_rank(x))
    if left <= 0:
        return [0.0] * len(ends)
    variance = float(((y - x @ coefficients) ** 2).sum()) / left
    errors = np.sqrt(np.maximum(np.diag(np.linalg.pinv(x.T @ x)), 1e-12) * max(variance, 1e-12))
    return [float(coefficients[index + 1] / errors[index + 1]) for index in range(len(ends))]


def _edge(end: _End, judged: _Judged) -> Advice:
    parameter, domain = end.parameter, end.parameter.domain
    assert not isinstance(domain, Choices)
    best = [near for near in end.is_near[: judged.num_best] if near is not None]
    side, last, kind = ("upper", domain.high, "larger") if end.is_upper else ("lower", domain.low, "smaller")
    of = "" if parameter.option is None else f" of {parameter.option}"
    wider = widened(parameter, is_upper=end.is_upper)
    what = f"widen it, if {kind} values make sense" if wider else "there is little beyond it"
    is_plain = parameter.option is None and parameter.index is None and not parameter.when
    return Advice(
        kind="edge",
        key=parameter.key,
        text=f"{parameter.key_path}{of}: {sum(best)} of the {len(best)} best values are at the {side} end of its "
        f"range, {number(last)}: {what}.",
        overrides=(f"{parameter.prefix}{parameter.key}={wider}", _twice(judged)) if wider and is_plain else (),
    )


def _value(parameter: Parameter, space: Space, row: TrialRow) -> Any:
    """Return the value of a parameter in a trial; None if the trial does not have it."""
    try:
        found = space.encode({key: value for key, value in row.params.items() if key in space.keys})
    except SpaceError:  # of a space that the study had before
        return None
    return found.get(parameter.name)


def _by_chance(at_least: int, count: int, share: float) -> float:
    """Return the probability that at least so many of `count` values are where a share of all is (binomial)."""
    return sum(math.comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(at_least, count + 1))


# --- what matters, and what to do next


def _matters(weight: "Importance", judged: _Judged) -> Iterator[Advice]:
    """Say where the best trials have an important parameter."""
    found = [row.params[weight.key] for row in judged.best if weight.key in row.params]
    if not found:
        return
    if len(found) < len(judged.best):
        where = f"{len(found)} of the {len(judged.best)} best trials have it"
    elif all(isinstance(value, int | float) and not isinstance(value, bool) for value in found):
        texts = list(distinct(sorted(found)).values())
        where = f"the {len(found)} best values are from {texts[0]} to {texts[-1]}"
    else:
        texts = [brief(quote(value)) for value in found]
        often = max(dict.fromkeys(texts), key=texts.count)
        where = f"{texts.count(often)} of the {len(found)} best trials have {often}"
    share = f"{100 * weight.share:.0f} % of the difference between the best trials and the rest"
    yield Advice(kind="matters", key=weight.key, text=f"{weight.key} matters ({share}): {where}.")


def _longer(judged: _Judged, histories: "Mapping[int, History]") -> Iterator[Advice]:
    """Advise longer training if most of the best trials were still improving at their end."""
    pick = min if judged.is_minimized else max
    own = [histories.get(-1 if row.trial is None else row.trial) for row in judged.best]
    curves = [[v for v in one.values.tolist() if not math.isnan(v)] for one in own if one is not None]
    known = [curve for curve in curves if len(curve) > 1]
    at_end = sum(curve.index(pick(curve)) == len(curve) - 1 for curve in known)
    if len(known) >= _LEAST_BEST and at_end >= _MOST * len(known):
        yield Advice(
            kind="longer",
            text=f"{at_end} of the {len(known)} best trials were best when they ended: train longer.",
        )


def _more(judged: _Judged) -> Iterator[Advice]:
    """Advise more trials if the best one is in the last tenth."""
    numbers = [row.trial for row in judged.trials if row.trial is not None]
    best, count = judged.trials[0], len(numbers)
    last = max(1, count // 10)
    if best.trial is not None and sum(other > best.trial for other in numbers) < last:
        yield Advice(
            kind="more",
            text=f"The best trial, #{best.trial}, is one of the last {last} of {count}: more may find a better one.",
            overrides=(_twice(judged),),
        )


def _twice(judged: _Judged) -> str:
    """Return the override for a total of twice as many trials as there are."""
    highest = max((row.trial for row in judged.trials if row.trial is not None), default=0)
    return f"study.num_trials={2 * (highest + 1)}"
