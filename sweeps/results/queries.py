"""Read rows of trials: by SQL from MLflow's tables, which is far faster than MLflow's client, or from a server.

All SQL takes one way: `_named_rows` finds the runs with the parameters and metrics that are named, `_judged` adds the
values and tags that decide their order, and `_in_full` reads the rest, each for the runs that are left.
"""

import math
import operator
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from operator import attrgetter
from typing import Any, ClassVar, NamedTuple

import sqlalchemy as sa

from sweeps.core.errors import StudyError, UsageError, did_you_mean
from sweeps.core.text import unbounded
from sweeps.results.rows import (
    LATE_FIELDS,
    TrialRow,
    is_loss,
    metrics_among,
    plain_mapping,
    row_of,
    sorted_rows,
    with_fronts,
)
from sweeps.tracking import tags
from sweeps.tracking.database import LATEST, RUNS, TAGS, connected, of_runs
from sweeps.tracking.names import MAX_TAG, SPREAD, joined, looked_up_name, shown_metrics
from sweeps.tracking.runs import ServerRun, is_server
from sweeps.tracking.server import server_runs

__all__ = ["Bound", "TrialRow", "chosen_rows", "sorted_rows", "top_rows", "trial_rows"]

_MAX_NAMES = 20  # that are read by a join each; SQLite joins 64 tables at most
_FEW = 50  # rows to begin with, of which some may not count
_MOST_IN_FULL = 2000  # rows to read in full for the best few of them
_JUDGING_TAGS = (tags.KIND, tags.STATE, tags.METRIC, tags.DIRECTION, tags.VALUE, tags.INFEASIBLE)
_FRONT_TAGS = (tags.STUDY, tags.OBJECTIVES, tags.VALUES)
_FIELD_TAGS = {
    "study": tags.STUDY,
    "trial": tags.TRIAL,
    "duration_s": tags.TRAINED_S,
    "reason": tags.REASON,
    "folder": tags.FOLDER,
}
_RUN = (RUNS.c.run_uuid, RUNS.c.name, RUNS.c.status, RUNS.c.start_time, RUNS.c.end_time)
_MOST_WITHOUT = 500  # runs with a value that is no metric, for a store that has all as metrics
_AT_ONCE = 1000  # rows to fetch from the database at once

_COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}

Rows = list[TrialRow]


class Bound(NamedTuple):
    """What the last value of a metric must be: `sign` is <, <=, > or >=."""

    metric: str
    sign: str
    value: float


def trial_rows(uri: str, studies: Sequence[str] = ()) -> Rows:
    """Read the trials of the named studies, or all trials and `train` runs, in the order in which they started.

    Raises:
        StoreError: The store cannot be opened, or it is not one of MLflow's.
        StudyError: There is no such study; names the nearest.
    """
    if is_server(uri):
        return with_fronts(_from_server(uri, studies))
    with connected(uri) as connection:
        return _all_rows(connection, studies)


def chosen_rows(
    uri: str,
    studies: Sequence[str],
    choose: Callable[[Rows], Rows],
    *,
    names: Collection[str] = (),
    narrow: Callable[[Rows], Rows] | None = None,
    bounds: Sequence[Bound] = (),
    in_full: bool = True,
) -> Rows:
    """Return `choose(narrow(trial_rows(uri, studies)))`; much sooner, and with less memory, where that takes few.

    Both functions see rows without what is slow to read: `narrow` sees the parameters and metrics that are named,
    `choose` also what rows are judged by and the named fields. The rows that are left are then read in full.

    Args:
        uri: The store.
        studies: Names of studies; none for all, and every `train`.
        choose: Filters and sorts; a UsageError that it or `narrow` raises is raised with all rows in full before it.
        names: What else they look at, as `rows.resolve` knows it; of parameters, all that end in the same word are
            there.
        narrow: Filters and sorts by `names` alone.
        bounds: Without which `narrow` takes no row.
        in_full: Whether the chosen rows are read in full; if not, they may still be.

    Raises:
        StoreError: The store cannot be opened, or it is not one of MLflow's.
        StudyError: There is no such study; names the nearest.
    """

    def of_all(rows: Rows) -> Rows:
        return choose(rows if narrow is None else narrow(rows))

    if is_server(uri) or len(names) > _MAX_NAMES:
        return of_all(trial_rows(uri, studies))
    with connected(uri) as connection:
        try:
            if narrow is None or not set(LATE_FIELDS).isdisjoint(names) or _has_fronts(connection):
                named = _named_rows(connection, studies, names)
                chosen = of_all(with_fronts(_judged(connection, named, names)))
            else:
                # What a short name means depends on the names that all rows have
                is_plain = all(name.startswith(("params.", "metrics.")) for name in names)
                named = narrow(_named_rows(connection, studies, names, bounds if is_plain else ()))
                if bounds and not named:  # whether the condition makes sense is for all rows to say
                    named = narrow(_named_rows(connection, studies, names))
                chosen = choose(_judged(connection, named, names))
        except UsageError:  # a name that these rows do not have: all of them know the nearest
            return of_all(_all_rows(connection, studies))
        return _completed(connection, chosen) if in_full else chosen


def top_rows(
    uri: str, studies: Sequence[str], top: int | None, metric: str | None = None, is_descending: bool | None = None
) -> list[TrialRow]:
    """Read the first `top` of the rows of `trial_rows` as `sorted_rows` sorts them, reading little else.

    Raises:
        StoreError: The store cannot be opened, or it is not one of MLflow's.
        StudyError: There is no such study; names the nearest.
        UsageError: No row has such a metric; names the nearest.
    """
    if top is not None and not is_server(uri):
        with connected(uri) as connection:
            found = _best(connection, studies, top, metric, is_descending)
        if found is not None:
            return found
    names = [] if metric is None else [f"metrics.{metric}"]
    return chosen_rows(uri, studies, lambda rows: sorted_rows(rows, metric, is_descending)[:top], names=names)


# --- by SQL --------------------------------------------------------------------------------------------


def _query(connection: sa.Connection, studies: Sequence[str]) -> sa.Select[Any]:
    """Return the query for the ids and the start times of trials and `train` runs, in any order."""
    kind, study = TAGS.alias("kind"), TAGS.alias("study")
    query = (
        sa.select(RUNS.c.run_uuid, RUNS.c.start_time)
        .join(kind, sa.and_(kind.c.run_uuid == RUNS.c.run_uuid, kind.c.key == tags.KIND))
        .where(RUNS.c.lifecycle_stage == "active", kind.c.value.in_(("trial", "train")))
    )
    if studies:
        known = connection.scalars(
            sa.select(TAGS.c.value)
            .join(RUNS, RUNS.c.run_uuid == TAGS.c.run_uuid)
            .where(TAGS.c.key == tags.STUDY, RUNS.c.lifecycle_stage == "active")
            .distinct()
        )
        _require_studies(studies, set(known))
        query = query.join(study, sa.and_(study.c.run_uuid == RUNS.c.run_uuid, study.c.key == tags.STUDY))
        query = query.where(study.c.value.in_(studies))
    return query


def _all_rows(connection: sa.Connection, studies: Sequence[str]) -> Rows:
    return with_fronts(_in_full(connection, [row.run_id for row in _named_rows(connection, studies, ())]))


class _NamedRow:
    """A run with its named parameters and metrics alone, in a third of the memory of a `TrialRow`."""

    __slots__ = ("_metric_keys", "_metrics", "_param_keys", "_params", "began_ms", "run_id")
    objectives: ClassVar[dict[str, str]] = {}

    def __init__(
        self,
        run_id: str,
        began_ms: int | None,
        param_keys: tuple[str, ...],
        params: tuple[Any, ...],
        metric_keys: tuple[str, ...],
        metrics: tuple[float, ...],
    ) -> None:
        self.run_id = run_id
        self.began_ms = began_ms or 0
        self._param_keys, self._params = param_keys, params
        self._metric_keys, self._metrics = metric_keys, metrics

    @property
    def params(self) -> dict[str, Any]:
        return dict(zip(self._param_keys, self._params, strict=True))

    @property
    def metrics(self) -> dict[str, float]:
        return dict(zip(self._metric_keys, self._metrics, strict=True))


def _named_rows(
    connection: sa.Connection, studies: Sequence[str], names: Collection[str], bounds: Sequence[Bound] = ()
) -> list[Any]:
    """Read all runs within bounds with what is named, in order: a join for the parameters, and one for each metric."""
    query = _query(connection, studies)
    words = {name.rpartition(".")[2] for name in names if name not in LATE_FIELDS and not name.startswith("metrics.")}
    metrics = tuple(sorted(metrics_among(names)))
    tag = TAGS.alias("params")
    if words:
        query = query.outerjoin(tag, sa.and_(tag.c.run_uuid == RUNS.c.run_uuid, tag.c.key == tags.PARAMS))
    query = query.add_columns(tag.c.value if words else sa.null())
    for index, stored in enumerate(map(looked_up_name, metrics)):
        latest = LATEST.alias(f"metric{index}")
        query = query.outerjoin(latest, sa.and_(latest.c.run_uuid == RUNS.c.run_uuid, latest.c.key == stored))
        query = query.add_columns(latest.c.value, latest.c.is_nan)
        for bound in bounds:
            if bound.metric == metrics[index]:
                query = query.where(_COMPARE[bound.sign](latest.c.value, bound.value), sa.not_(latest.c.is_nan))
    further = _further_params(connection) if words else {}

    @lru_cache(maxsize=1000)  # the trials of a study have the same keys
    def among(keys: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(key for key in keys if key.rpartition(".")[2] in words)

    rows = []
    for part in connection.execute(query, execution_options={"yield_per": _AT_ONCE}).partitions():
        for run_id, began_ms, text, *points in part:
            if run_id in further:
                text = joined({tags.PARAMS: text, **further[run_id]})[tags.PARAMS]
            params = plain_mapping(text, among)
            known, last = metrics, points[::2]
            if None in last:
                known = tuple([key for key, value in zip(metrics, last, strict=True) if value is not None])
            last = [
                math.nan if is_nan else unbounded(value)
                for value, is_nan in zip(last, points[1::2], strict=True)
                if value is not None
            ]
            rows.append(_NamedRow(run_id, began_ms, tuple(params), tuple(params.values()), known, tuple(last)))
    rows.sort(key=attrgetter("began_ms", "run_id"))  # here, since SQLite would sort with all that rows have, on disk
    return rows


def _further_params(connection: sa.Connection) -> dict[str, dict[str, str]]:
    """Return by run the tags that continue parameters longer than MLflow accepts; mostly there are none."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    if _has_tag(connection, f"{tags.PARAMS}.1"):
        query = sa.select(TAGS.c.run_uuid, TAGS.c.key, TAGS.c.value).where(TAGS.c.key.like(f"{tags.PARAMS}.%"))
        for run_id, key, text in connection.execute(query):
            found[run_id][key] = text
    return found


def _has_tag(connection: sa.Connection, key: str) -> bool:
    return connection.execute(sa.select(TAGS.c.run_uuid).where(TAGS.c.key == key).limit(1)).first() is not None


def _has_fronts(connection: sa.Connection) -> bool:
    return _has_tag(connection, tags.OBJECTIVES)


def _judged(connection: sa.Connection, named: Sequence[Any], names: Collection[str]) -> Rows:
    """Return rows with what is named and what they are judged by."""
    keys = [*_JUDGING_TAGS, *(key for name, key in _FIELD_TAGS.items() if name in names)]
    if _has_fronts(connection):
        keys += _FRONT_TAGS
    runs = _runs_with(connection, [row.run_id for row in named], keys)
    return [row_of(runs[row.run_id], row.params, row.metrics) for row in named if row.run_id in runs]


def _completed(connection: sa.Connection, rows: Rows) -> Rows:
    """Read rows in full; those that were deleted meanwhile are left out."""
    full = {row.run_id: row for row in _in_full(connection, [row.run_id for row in rows])}
    return [replace(full[row.run_id], is_on_front=row.is_on_front) for row in rows if row.run_id in full]


# --- the best few by SQL ---------------------------------------------------------------------------------
# The database sorts by the metrics that hold values (`tags.value_metric`). It narrows, and decides nothing: what it
# finds is read in full and sorted as all rows are.


def _best(
    connection: sa.Connection, studies: Sequence[str], top: int, metric: str | None, is_descending: bool | None
) -> list[TrialRow] | None:
    """Read the best `top` rows, and a few more; None where the database cannot tell which they are.

    That is where several objectives make fronts, studies are judged by different metrics, directions are in doubt, a
    store was written before values were metrics, or rows without a value come into it.
    """
    query = _query(connection, studies)
    names = _value_metrics(connection)
    if _has_tag(connection, tags.OBJECTIVES) or not _all_have_metrics(connection, names):
        return None
    orders = _orders(connection, names, metric, bool(studies)) if is_descending is None else {is_descending}
    if len(orders) != 1 or (metric is None and len(names) != 1):
        return None
    keys = list(names)
    if metric is not None:
        own = {looked_up_name(tags.value_metric(metric, goal)) for goal in ("maximize", "minimize")}
        keys = [*(own & names.keys()), looked_up_name(metric)]
    (is_descending,) = orders
    count = max(_FEW, 2 * top)
    while count <= max(_MOST_IN_FULL, 4 * top):
        run_ids, bound = _leading(connection, studies, keys, is_descending, count)
        found = list(of_runs(connection, query, RUNS.c.run_uuid, run_ids))
        found.sort(key=lambda run: (run.start_time or 0, run.run_uuid))
        full = _in_full(connection, [run.run_uuid for run in found])
        rows = sorted_rows(full, metric, is_descending) if full else []
        if sum(_is_ahead(row, metric, bound, is_descending) for row in rows) >= top:
            return rows[:top]
        if bound is None:
            return None
        count *= 4
    return None


def _value_metrics(connection: sa.Connection) -> dict[str, str]:
    """Return the names of the metrics that hold values, with their directions; of all runs."""
    found: dict[str, str] = {}
    for goal in ("maximize", "minimize"):
        head = tags.value_metric("", goal)
        if connection.dialect.name == "sqlite":  # which uses its index for this, but not for `like`
            begins = sa.and_(LATEST.c.key >= head, LATEST.c.key < f"{head[:-1]}0")  # "0" comes after "/"
        else:
            begins = LATEST.c.key.startswith(head, autoescape=True)
        found |= dict.fromkeys(connection.scalars(sa.select(LATEST.c.key).where(begins).distinct()), goal)
    return found


def _all_have_metrics(connection: sa.Connection, names: Collection[str]) -> bool:
    """Tell whether the value of every trial and train is also a metric."""
    has_metric = sa.exists().where(LATEST.c.run_uuid == TAGS.c.run_uuid, LATEST.c.key.in_(names))
    query = sa.select(TAGS.c.run_uuid).where(TAGS.c.key == tags.VALUE, sa.not_(has_metric)).limit(_MOST_WITHOUT)
    without = list(connection.scalars(query))  # the runs of studies, whose value is that of their best
    kinds = sa.select(TAGS.c.value).where(TAGS.c.key == tags.KIND, TAGS.c.run_uuid.in_(without))
    return len(without) < _MOST_WITHOUT and {"trial", "train"}.isdisjoint(connection.scalars(kinds))


def _orders(connection: sa.Connection, names: Mapping[str, str], metric: str | None, are_some: bool) -> set[bool]:
    """Return whether the highest is first, or both where that is in doubt."""
    if metric is None:
        return {goal == "maximize" for goal in names.values()}
    goals = {goal for name, goal in names.items() if name == looked_up_name(tags.value_metric(metric, goal))}
    # Studies and trains: what else is judged by a metric is a trial of a study
    judged = sa.select(TAGS.c.run_uuid).where(TAGS.c.key == tags.METRIC)
    alone = judged.except_(sa.select(TAGS.c.run_uuid).where(TAGS.c.key == tags.TRIAL)).subquery()
    own, direction = TAGS.alias("own"), TAGS.alias("direction")
    query = (
        sa.select(direction.c.value)
        .select_from(alone)
        .join(own, sa.and_(own.c.run_uuid == alone.c.run_uuid, own.c.key == tags.METRIC, own.c.value == metric))
        .outerjoin(direction, sa.and_(direction.c.run_uuid == alone.c.run_uuid, direction.c.key == tags.DIRECTION))
    )
    goals |= {goal or "maximize" for goal in connection.scalars(query)}
    orders = {goal == "maximize" for goal in goals}
    return orders | {not is_loss(metric)} if are_some or not goals else orders


def _leading(
    connection: sa.Connection, studies: Sequence[str], keys: Sequence[str], is_descending: bool, count: int
) -> tuple[list[str], float | None]:
    """Return the first `count` runs by each of some metrics, and the value behind which others may be; None if none."""
    order = LATEST.c.value.desc() if is_descending else LATEST.c.value
    run_ids: dict[str, None] = {}
    bounds = []
    for key in keys:
        query = sa.select(LATEST.c.run_uuid, LATEST.c.value).where(LATEST.c.key == key, sa.not_(LATEST.c.is_nan))
        if studies:
            of = sa.and_(TAGS.c.run_uuid == LATEST.c.run_uuid, TAGS.c.key == tags.STUDY, TAGS.c.value.in_(studies))
            query = query.join(TAGS, of)
        found = connection.execute(query.order_by(order).limit(count)).all()
        run_ids |= dict.fromkeys(run_id for run_id, _ in found)
        if len(found) == count:
            bounds.append(unbounded(found[-1].value))
    return list(run_ids), (max(bounds) if is_descending else min(bounds)) if bounds else None


def _is_ahead(row: TrialRow, metric: str | None, bound: float | None, is_descending: bool) -> bool:
    """Tell whether a row counts, and is ahead of all that may be behind the bound."""
    value = row.value_of(metric or row.metric)
    if value is None or math.isnan(value) or row.state == "dropped" or row.infeasible:
        return False
    return bound is None or (value > bound if is_descending else value < bound)


def _in_full(connection: sa.Connection, run_ids: Sequence[str]) -> Rows:
    """Return the rows of runs, without their fronts."""
    last = sa.case((LATEST.c.is_nan, sa.null()), else_=LATEST.c.value)
    metrics_of = _gather(connection, sa.select(LATEST.c.run_uuid, LATEST.c.key, last), LATEST, run_ids)
    runs = _runs(connection, run_ids)
    return [row_of(runs[run_id], metrics=shown_metrics(metrics_of[run_id])) for run_id in run_ids if run_id in runs]


def _runs(connection: sa.Connection, run_ids: Sequence[str]) -> dict[str, ServerRun]:
    """Read runs with all tags, without their metrics."""
    tags_of = _gather(connection, sa.select(TAGS.c.run_uuid, TAGS.c.key, TAGS.c.value), TAGS, run_ids)
    found = of_runs(connection, sa.select(*_RUN), RUNS.c.run_uuid, run_ids)
    return {row.run_uuid: _run(row, joined(tags_of[row.run_uuid])) for row in found}


def _runs_with(connection: sa.Connection, run_ids: Sequence[str], keys: Sequence[str]) -> dict[str, ServerRun]:
    """Read runs with the tags of some keys, without their metrics: by a join for each key."""
    query = sa.select(*_RUN)
    for index, key in enumerate(keys):
        tag = TAGS.alias(f"tag{index}")
        query = query.outerjoin(tag, sa.and_(tag.c.run_uuid == RUNS.c.run_uuid, tag.c.key == key))
        query = query.add_columns(tag.c.value)
    runs: dict[str, ServerRun] = {}
    in_parts = []
    spread = [index for index, key in enumerate(keys) if key in SPREAD]
    for row in of_runs(connection, query, RUNS.c.run_uuid, run_ids):
        texts = row[len(_RUN) :]
        runs[row[0]] = _run(row, {key: text for key, text in zip(keys, texts, strict=True) if text is not None})
        if spread and any(len(texts[index] or "") >= MAX_TAG for index in spread):
            in_parts.append(row[0])
    return runs | _runs(connection, in_parts)


def _run(row: sa.Row[Any], run_tags: Mapping[str, str]) -> ServerRun:
    run_id, name, status, start_ms, end_ms = row[: len(_RUN)]
    return ServerRun(
        run_id=run_id, name=name or "", status=status, start_ms=start_ms, end_ms=end_ms, tags=run_tags, metrics={}
    )


def _require_studies(studies: Sequence[str], known: set[str]) -> None:
    for study in studies:
        if study not in known:
            hint = did_you_mean(study, known) or "The store holds no study yet."
            raise StudyError(f"There is no study {study!r}. {hint}")


def _gather(
    connection: sa.Connection, query: sa.Select[Any], table: Any, run_ids: Sequence[str]
) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for run_id, key, value in of_runs(connection, query, table.c.run_uuid, run_ids):
        found[run_id][key] = value
    return found


# --- from a server -------------------------------------------------------------------------------------


def _from_server(uri: str, studies: Sequence[str]) -> list[TrialRow]:
    runs = server_runs(uri, f"tags.`{tags.KIND}` != 'other'")  # what has the tag at all: the parents too
    _require_studies(studies, {run.tags[tags.STUDY] for run in runs if tags.STUDY in run.tags})
    return [
        row_of(run)
        for run in sorted(runs, key=lambda run: (run.start_ms or 0, run.run_id))
        if run.tags[tags.KIND] in ("trial", "train") and (not studies or run.tags.get(tags.STUDY) in studies)
    ]
