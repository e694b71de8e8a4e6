"""Rows of trials: built from the tags of their runs, looked up by name, sorted as a leaderboard.

A name is a field, `params.KEY`, `metrics.KEY` or the end of a parameter's name, as in `lightsweep compare --columns`.
The leaderboard has the best row first, and rows that have no value or were dropped last.
"""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from typing import Any, Literal

import orjson

from sweeps.core.errors import UsageError, did_you_mean
from sweeps.core.pareto import on_front
from sweeps.core.text import LARGEST, is_number, short_names, unbounded, whole
from sweeps.tracking import tags
from sweeps.tracking.runs import ServerRun

__all__ = [
    "FIELDS",
    "LATE_FIELDS",
    "Field",
    "TrialRow",
    "best_rows",
    "current_rows",
    "is_descending_by",
    "is_loss",
    "metrics_among",
    "plain_mapping",
    "require_metric",
    "resolve",
    "resolve_all",
    "row_of",
    "sorted_rows",
    "to_rows",
    "with_fronts",
]

_INFINITE = (math.inf, -math.inf)
_STATES = {"FINISHED": "complete", "KILLED": "interrupted"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRow:
    """A trial, or a single `train`, as the store has it.

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


def to_rows(runs: Iterable[ServerRun]) -> list[TrialRow]:
    """Return the rows of runs, with the Pareto fronts that they have among themselves."""
    return with_fronts([row_of(run) for run in runs])


def row_of(
    run: ServerRun, params: dict[str, Any] | None = None, metrics: Mapping[str, float] | None = None
) -> TrialRow:
    """Return the row of a run, by its tags; whether it is on a Pareto front needs the other rows.

    Args:
        run: The run.
        params: Its parameters, if not all that are in its tag.
        metrics: Its metrics, if not those of `run`.
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
        metrics={
            key: unbounded(number) for key, number in sorted((run.metrics if metrics is None else metrics).items())
        },
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


def current_rows(rows: Iterable[TrialRow]) -> list[TrialRow]:
    """Keep of several runs of one number what was not dropped, then the newest; return them by number."""
    kept: dict[int, TrialRow] = {}
    for row in sorted(rows, key=lambda row: (row.state != "dropped", row.began_ms or 0, row.run_id)):
        if row.trial is not None:
            kept[row.trial] = row
    return [kept[number] for number in sorted(kept)]


def best_rows(rows: Sequence[TrialRow], objectives: Mapping[str, str]) -> list[TrialRow]:
    """Return the best trial, the first of equals; of several objectives the Pareto front, by the leading one.

    Args:
        rows: Of one study, as `current_rows` gives them.
        objectives: What the study judges by.

    Returns:
        Only trials that are complete and satisfy the constraints; nothing if there is none.
    """
    able = [row for row in rows if row.state == "complete" and not row.infeasible and is_number(row.value)]
    if len(objectives) > 1:
        able = [row for row in able if row.is_on_front]
    is_descending = next(iter(objectives.values()), "maximize") == "maximize"
    ordered = sorted(able, key=lambda row: -(row.value or 0.0) if is_descending else row.value or 0.0)
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


_UNREADABLE = (ValueError, RecursionError)  # also numbers of thousands of digits, and thousands of brackets
_ROUNDED = float(2**63)  # orjson reads whole numbers beyond this as floats


def plain_mapping(
    text: str | None, among: Callable[[tuple[str, ...]], tuple[str, ...]] | None = None
) -> dict[str, Any]:
    """Parse a JSON object; anything else, such as what somebody has edited, is empty.

    Args:
        text: JSON as Python writes it, with NaN and Infinity.
        among: Returns which of all keys are wanted; None for all.
    """
    if text is None:
        return {}
    try:
        found = _wanted(orjson.loads(text), among)
    except ValueError:  # among others NaN and infinity, which JSON does not know
        found = None
    if found is None or _has_rounded(found):
        try:
            found = _wanted(json.loads(text), among)
        except _UNREADABLE:
            found = None
    return found or {}


def _wanted(found: Any, among: Callable[[tuple[str, ...]], tuple[str, ...]] | None) -> dict[str, Any] | None:
    if not isinstance(found, dict) or among is None:
        return found if isinstance(found, dict) else None
    return {key: found[key] for key in among(tuple(found))}


def _has_rounded(found: Mapping[str, Any]) -> bool:
    return any(value.__class__ is float and not -_ROUNDED < value < _ROUNDED for value in found.values())


FIELDS = ("study", "trial", "state", "value", "duration_s", "metric", "infeasible", "is_on_front", "run_id")
LATE_FIELDS = (*FIELDS, "name", "reason", "folder")
"""with those that rows to choose from lack"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """Something that a row may have.

    Attributes:
        name: As it was given.
        kind: Which part of a row holds it.
        key: Its name there.
    """

    name: str
    kind: Literal["field", "params", "metrics"]
    key: str

    def of(self, row: TrialRow) -> Any:
        """Return what the row has; None for nothing."""
        if self.kind == "field":
            return getattr(row, self.key)
        found: dict[str, Any] = row.params if self.kind == "params" else row.metrics
        return found.get(self.key)


def metrics_among(names: Iterable[str]) -> set[str]:
    """Return the metrics that must be read so that these names can be resolved."""
    return {name.removeprefix("metrics.") for name in names if name not in FIELDS and not name.startswith("params.")}


def resolve(name: str, rows: Collection[TrialRow], fields: Collection[str] = FIELDS) -> Field:
    """Find what is meant by `params.KEY`, `metrics.KEY`, a field, or a parameter, a metric or the end of a parameter.

    Raises:
        UsageError: No row has it; names the nearest.
    """
    return resolve_all([name], rows, fields)[name]


def resolve_all(names: Iterable[str], rows: Collection[TrialRow], fields: Collection[str] = FIELDS) -> dict[str, Field]:
    """Find what is meant by each of several names, see `resolve`."""
    params = dict.fromkeys(chain.from_iterable(row.params for row in rows))
    metrics = dict.fromkeys(chain.from_iterable(row.metrics for row in rows))
    return {name: _resolve(name, params, metrics, fields, not rows) for name in names}


def _resolve(
    name: str, params: Collection[str], metrics: Collection[str], fields: Collection[str], is_empty: bool
) -> Field:
    head, _, tail = name.partition(".")
    if name in fields:
        return Field(name=name, kind="field", key=name)
    if head == "params" and (tail in params or is_empty):
        return Field(name=name, kind="params", key=tail)
    if head == "metrics" and (tail in metrics or is_empty):
        return Field(name=name, kind="metrics", key=tail)
    if name in params or is_empty:
        return Field(name=name, kind="params", key=name)
    if name in metrics:
        return Field(name=name, kind="metrics", key=name)
    short = [key for key, text in short_names(params).items() if text == name]
    if short:
        return Field(name=name, kind="params", key=short[0])
    if head in ("params", "metrics"):
        known = [f"{head}.{key}" for key in (params if head == "params" else metrics)]
    else:
        known = [*fields, *params, *metrics]
    raise UsageError(f"None of these runs has {name!r}. {did_you_mean(name, known)}".rstrip())


def require_metric(rows: Collection[TrialRow], metric: str) -> None:
    """Refuse a metric that no row has.

    Raises:
        UsageError: Names the nearest.
    """
    if any(metric in row.metrics or metric in row.objectives for row in rows):
        return
    known = {key for row in rows for key in (*row.metrics, *row.objectives) if key}
    if rows:
        raise UsageError(f"No run has a metric {metric!r}. {did_you_mean(metric, known)}")


def is_loss(metric: str) -> bool:
    """Tell by its name whether less of a metric is better, where no study says so."""
    return "loss" in metric or "error" in metric


def is_descending_by(rows: Iterable[TrialRow], metric: str) -> bool:
    """Tell whether more of a metric is better: by the studies that are judged by it, or else by its name."""
    directions = [row.objectives[metric] for row in rows if metric in row.objectives]
    return directions[-1] == "maximize" if directions else not is_loss(metric)


def sorted_rows(
    rows: Iterable[TrialRow], metric: str | None = None, is_descending: bool | None = None
) -> list[TrialRow]:
    """Sort rows best first by their study's first metric, or by `metric`; those without a value, or dropped, come last.

    Trials that violate constraints come after those that do not, and of several objectives the Pareto front is first.

    Rows that are judged by different metrics stay apart.

    Args:
        rows: What to sort.
        metric: What to sort by rather than the study's metric.
        is_descending: Whether the highest is first; None asks the study, and of a metric that no study is judged by,
            its name.

    Raises:
        UsageError: No row has such a metric; names the nearest.
    """
    rows = list(rows)
    if metric is not None:
        require_metric(rows, metric)
    descending = {name: goal == "maximize" for row in rows for name, goal in row.objectives.items()}

    def key(row: TrialRow) -> tuple[int, str, bool, bool, float]:
        judged = metric or row.metric
        value = row.value_of(judged)
        if value is None or row.state == "dropped":
            return 2, "", False, False, 0.0
        if math.isnan(value):  # before those that have nothing, as in MLflow
            return 1, "", False, False, 0.0
        is_first_highest = descending.get(judged, not is_loss(judged)) if is_descending is None else is_descending
        is_behind = metric is None and len(row.objectives) > 1 and not row.is_on_front
        return 0, judged, bool(row.infeasible), is_behind, -value if is_first_highest else value

    return sorted(rows, key=key)
