"""A trial as a row: what the tags of its run say."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from sweeps.core.pareto import on_front
from sweeps.core.text import LARGEST, is_number, unbounded, whole
from sweeps.reading.tagged_params import plain_mapping
from sweeps.tracking import tags
from sweeps.tracking.server import ServerRun

__all__ = ["TrialRow", "best_of", "in_force", "row_of", "rows_of", "with_fronts"]

_INFINITE = (math.inf, -math.inf)
_STATES = {"FINISHED": "complete", "KILLED": "interrupted"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRow:
    """A trial, or a single `train`, as it stands in the store.

    Attributes:
        study: The study's name; None for a `train`.
        trial: The trial's number in its study; None for a `train`.
        state: running, complete, pruned, failed, interrupted or dropped.
        metric: What the study judges by, in `direction`.
        value: The metric at the best checkpoint; None until the trial has ended.
        metrics: The last value of each metric.
        params: The searched parameters with their types.
        objectives: What the study judges by, with `maximize` or `minimize` for each.
        values: The objectives at the best checkpoint; empty until the trial is complete.
        infeasible: Which constraints the trial violates, in words.
        is_on_front: Whether the trial is on the Pareto front of a study of several objectives.
        duration_s: Seconds from start to end, without those for which it was interrupted; None while it runs.
        paused_s: Seconds for which it was interrupted, until it went on.
        reason: Why it failed or ended early.
        folder: The name of its folder below that of its study, or below `train`.
        began_ms: When it began, in milliseconds since 1970 (UTC).
        slot: The slot it ran in last; None for a trial of several trainings, whose runs have one each.
    """

    run_id: str
    name: str
    study: str | None
    trial: int | None
    state: str
    metric: str
    direction: str
    value: float | None
    metrics: dict[str, float]
    params: dict[str, Any]
    duration_s: float | None
    reason: str
    folder: str
    objectives: dict[str, str] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    infeasible: str = ""
    is_on_front: bool = False
    began_ms: int | None = None
    slot: int | None = None
    paused_s: float = 0.0

    def value_of(self, metric: str) -> float | None:
        """Return a metric at the best checkpoint if the study judges by it, else its last value; None if it has none.

        Of the metric that is judged first there is nothing before the trial has ended.
        """
        if metric == self.metric:
            return self.value
        return self.values.get(metric, self.metrics.get(metric))

    def as_dict(self) -> dict[str, Any]:
        """Return the row as plain data."""
        return asdict(self)


def rows_of(runs: Iterable[ServerRun]) -> list[TrialRow]:
    """Return the rows of runs, with the Pareto fronts that they have among themselves."""
    return with_fronts([row_of(run) for run in runs])


def row_of(run: ServerRun, params: dict[str, Any] | None = None) -> TrialRow:
    """Return what the tags of one run say; whether it is on a Pareto front needs the others.

    Args:
        run: With its tags.
        params: The parameters, if they are known already.
    """
    tag = run.tags.get
    is_trial = tag(tags.KIND) == "trial"
    state = tag(tags.STATE) or _STATES.get(run.status, run.status.lower())
    metric, direction = tag(tags.METRIC, ""), tag(tags.DIRECTION, "maximize")
    value = _number(tag(tags.VALUE))
    own = {metric: value} if state == "complete" and value is not None else {}
    whole_s = None if run.start_ms is None or run.end_ms is None else (run.end_ms - run.start_ms) / 1000
    trained_s = None if whole_s is None else min(whole_s, _finite(tag(tags.TRAINED_S), whole_s))
    return TrialRow(
        run_id=run.run_id,
        name=run.name,
        study=tag(tags.STUDY) if is_trial else None,
        trial=whole(tag(tags.TRIAL)) if is_trial else None,
        state=state,
        metric=metric,
        direction=direction,
        value=value,
        metrics={key: unbounded(number) for key, number in sorted(run.metrics.items())},
        params=plain_mapping(tag(tags.PARAMS)) if params is None else params,
        duration_s=trained_s,
        reason=tag(tags.REASON, ""),
        folder=tag(tags.FOLDER, ""),
        objectives=plain_mapping(tag(tags.OBJECTIVES)) or {metric: direction},
        values=_numbers(plain_mapping(tag(tags.VALUES))) or own,
        infeasible=tag(tags.INFEASIBLE, ""),
        began_ms=run.start_ms,
        slot=whole(tag(tags.SLOT)),
        paused_s=0.0 if whole_s is None or trained_s is None else whole_s - trained_s,
    )


def with_fronts(rows: list[TrialRow]) -> list[TrialRow]:
    """Mark the Pareto front of each study of several objectives."""
    able: dict[str | None, list[TrialRow]] = defaultdict(list)
    for row in rows:
        is_able = row.state == "complete" and not row.infeasible
        if is_able and len(row.objectives) > 1 and row.values.keys() == row.objectives.keys():
            able[row.study].append(row)
    best: set[str] = set()
    for trials in able.values():
        objectives = trials[0].objectives
        points = [[row.values[name] for name in objectives] for row in trials]
        marks = on_front(points, list(objectives.values()))
        best |= {row.run_id for row, is_best in zip(trials, marks, strict=True) if is_best}
    return [replace(row, is_on_front=True) if row.run_id in best else row for row in rows]


def in_force(rows: Iterable[TrialRow]) -> list[TrialRow]:
    """Keep of several runs of one number what was not dropped, then the newest; return them by number."""
    kept: dict[int, TrialRow] = {}
    for row in sorted(rows, key=lambda row: (row.state != "dropped", row.began_ms or 0, row.run_id)):
        if row.trial is not None:
            kept[row.trial] = row
    return [kept[number] for number in sorted(kept)]


def best_of(rows: Sequence[TrialRow], objectives: Mapping[str, str]) -> list[TrialRow]:
    """Return the best trial, the first of equals; of several objectives the Pareto front, by the leading one.

    Args:
        rows: Of one study, as `in_force` gives them.
        objectives: What the study judges by.

    Returns:
        Only trials that are complete and satisfy the constraints; nothing if there is none.
    """
    able = [row for row in rows if row.state == "complete" and not row.infeasible and is_number(row.value)]
    if len(objectives) > 1:
        able = [row for row in able if row.is_on_front]
    is_falling = next(iter(objectives.values()), "maximize") == "maximize"
    ordered = sorted(able, key=lambda row: -(row.value or 0.0) if is_falling else row.value or 0.0)
    return ordered if len(objectives) > 1 else ordered[:1]


def _numbers(found: Mapping[str, Any]) -> dict[str, float]:
    """Keep what is a number, and no NaN: somebody may have edited the tag."""
    numbers = {key: value for key, value in found.items() if type(value) in (int, float)}
    return {key: float(value) for key, value in numbers.items() if abs(value) <= LARGEST or value in _INFINITE}


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:  # somebody edited the tag
        return None


def _finite(text: str | None, default: float) -> float:
    value = _number(text)
    return default if value is None or not 0 <= value < math.inf else value
