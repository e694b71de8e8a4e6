"""Read runs back: by SQL over MLflow's own tables, a hundred times sooner than by MLflow's client, or from a server."""

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import sqlalchemy as sa

from sweeps.core.errors import StudyError, UsageError, did_you_mean
from sweeps.core.text import unbounded
from sweeps.results.rows import FIELDS, TrialRow, is_loss, metrics_among, row_of, some_params, sorted_rows, with_fronts
from sweeps.tracking import tags
from sweeps.tracking.database import LATEST, RUNS, TAGS, connected
from sweeps.tracking.names import SPREAD, joined, looked_up_name, shown_metrics
from sweeps.tracking.runs import ServerRun, is_server
from sweeps.tracking.server import server_runs

__all__ = ["TrialRow", "chosen_rows", "sorted_rows", "top_rows", "trial_rows"]

_MAX_NAMES = 20  # that are read by a join each; SQLite joins 64 tables at most
_FEW = 50  # rows to begin with, of which some may not count
_MOST_IN_FULL = 2000  # rows to read in full for the best few of them
_CHOOSING_TAGS = (tags.STATE, tags.METRIC, tags.DIRECTION, tags.VALUE)  # what rows are sorted by
_FIELD_TAGS = {"study": tags.STUDY, "trial": tags.TRIAL, "duration_s": tags.TRAINED_S}  # what else may be named
_RUN = (RUNS.c.run_uuid, RUNS.c.name, RUNS.c.status, RUNS.c.start_time, RUNS.c.end_time)
_CHUNK = 500  # run ids in one IN clause; SQLite allows 32,766 variables


def trial_rows(uri: str, studies: Sequence[str] = ()) -> list[TrialRow]:
    """Read the trials of the named studies, or of all and every `train`, in the order in which they started.

    Raises:
        StoreError: The store cannot be opened, or it is none of MLflow's.
        StudyError: There is no such study; names the nearest.
    """
    if is_server(uri):
        return with_fronts(_from_server(uri, studies))
    with connected(uri) as connection:
        return with_fronts(_read(connection, studies))


def chosen_rows(
    uri: str,
    studies: Sequence[str],
    choose: Callable[[list[TrialRow]], list[TrialRow]],
    *,
    names: Collection[str] = (),
    in_full: bool = True,
) -> list[TrialRow]:
    """Read what `choose` takes of the rows that `trial_rows` gives, in its order; much sooner where it takes few.

    It is first shown rows that have their state, their values and what is named, and lack the rest, which is slow to
    read. What it takes is then read in full.

    Args:
        uri: The store.
        studies: Names of studies; none for all, and every `train`.
        choose: Filters and sorts; a UsageError that it raises is raised with all rows in full before it.
        names: What else `choose` looks at, as `fields.resolve` knows it; of parameters, all that end in the same word
            are there.
        in_full: Whether what it takes is read in full; if not, it may still be.

    Raises:
        StoreError: The store cannot be opened, or it is none of MLflow's.
        StudyError: There is no such study; names the nearest.
    """
    if is_server(uri) or len(names) > _MAX_NAMES or not {"name", "reason", "folder"}.isdisjoint(names):
        return choose(trial_rows(uri, studies))
    with connected(uri) as connection:
        try:
            chosen = choose(_read_light(connection, studies, names))
        except UsageError:  # a name that these rows do not have: all of them know the nearest
            return choose(with_fronts(_read(connection, studies)))
        return _completed(connection, chosen) if in_full else chosen


def top_rows(
    uri: str, studies: Sequence[str], top: int | None, metric: str | None = None, is_descending: bool | None = None
) -> list[TrialRow]:
    """Read the first `top` of the rows of `trial_rows` as `sorted_rows` sorts them, reading little else.

    Raises:
        StoreError: The store cannot be opened, or it is none of MLflow's.
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


def _query(connection: sa.Connection, studies: Sequence[str]) -> tuple[sa.Select[Any], Any]:
    """Return the query for trials and trains in any order, and the alias of the tag of their kind."""
    kind, study = TAGS.alias("kind"), TAGS.alias("study")
    query = (
        sa.select(*_RUN)
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
    return query, kind


def _read(connection: sa.Connection, studies: Sequence[str]) -> list[TrialRow]:
    query, _ = _query(connection, studies)
    return _in_order(_in_full(connection, connection.execute(query).all()))


def _in_order(rows: list[TrialRow]) -> list[TrialRow]:
    """Sort by the start: here, since SQLite would sort with all that rows have, on disk."""
    return sorted(rows, key=lambda row: (row.began_ms or 0, row.run_id))


def _read_light(connection: sa.Connection, studies: Sequence[str], names: Collection[str]) -> list[TrialRow]:
    """Read what rows are chosen by, in one query: a join for each tag that is needed, and for each metric."""
    query, kind = _query(connection, studies)
    has_fronts = _has_tag(connection, tags.OBJECTIVES)
    keys = [*_CHOOSING_TAGS, *((tags.OBJECTIVES, tags.VALUES, tags.STUDY) if has_fronts else ())]
    keys += [key for name, key in _FIELD_TAGS.items() if name in names and key not in keys]
    keys += [tags.INFEASIBLE] if _has_tag(connection, tags.INFEASIBLE) else []
    wanted = [name for name in names if name not in FIELDS and not name.startswith("metrics.")]
    metrics = sorted(metrics_among(names))
    query = query.add_columns(kind.c.value)
    for index, key in enumerate([*keys, tags.PARAMS] if wanted else keys):
        tag = TAGS.alias(f"tag{index}")
        query = query.outerjoin(tag, sa.and_(tag.c.run_uuid == RUNS.c.run_uuid, tag.c.key == key))
        query = query.add_columns(tag.c.value)
    for index, stored in enumerate(map(looked_up_name, metrics)):
        latest = LATEST.alias(f"metric{index}")
        query = query.outerjoin(latest, sa.and_(latest.c.run_uuid == RUNS.c.run_uuid, latest.c.key == stored))
        query = query.add_columns(latest.c.value, latest.c.is_nan)
    params_in = some_params(wanted)
    known = (tags.KIND, *keys)
    first, end = len(_RUN), len(_RUN) + len(known)
    begin = end + bool(wanted)

    further = _further_parts(connection, {tags.PARAMS, *keys} if wanted else set(keys))

    def make(found: Any, params_found: dict[str, Any], last: dict[str, float]) -> TrialRow:
        run_id, _, status, start_ms, end_ms = found[:first]
        run_tags = {key: text for key, text in zip(known, found[first:end], strict=True) if text is not None}
        if run_id in further:
            run_tags = joined(run_tags | further[run_id])
        run = ServerRun(
            run_id=run_id, name="", status=status, start_ms=start_ms, end_ms=end_ms, tags=run_tags, metrics=last
        )
        return row_of(run, params_found)

    rows: list[Any] = []
    for found in sorted(connection.execute(query).all(), key=lambda found: (found[3] or 0, found[0])):
        points = zip(metrics, found[begin::2], found[begin + 1 :: 2], strict=True)
        last = {key: math.nan if is_nan else unbounded(value) for key, value, is_nan in points if value is not None}
        text = found[end] if wanted else None
        if text is not None and found[0] in further:
            text = joined({tags.PARAMS: text, **further[found[0]]})[tags.PARAMS]
        rows.append(_LightRow(params_in(text) if wanted else {}, last, partial(make, found)))
    return with_fronts([light.row for light in rows]) if has_fronts else rows


class _LightRow:
    """A row of which the rest is made when it is asked for: of most, only a parameter or a metric is looked at."""

    __slots__ = ("_made", "_make", "metrics", "params")

    def __init__(self, params: dict[str, Any], metrics: dict[str, float], make: Callable[..., TrialRow]) -> None:
        self.params = params
        self.metrics = metrics
        self._make = make
        self._made: TrialRow | None = None

    @property
    def row(self) -> TrialRow:
        """The whole row."""
        if self._made is None:
            self._made = self._make(self.params, self.metrics)
        return self._made

    def __getattr__(self, name: str) -> Any:
        return getattr(self.row, name)


def _further_parts(connection: sa.Connection, keys: Collection[str]) -> dict[str, dict[str, str]]:
    """Return by run the tags on which tags go on that are longer than MLflow takes; mostly there are none."""
    spread = [key for key in SPREAD if key in keys and _has_tag(connection, f"{key}.1")]
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for key in spread:
        query = sa.select(TAGS.c.run_uuid, TAGS.c.key, TAGS.c.value).where(TAGS.c.key.like(f"{key}.%"))
        for run_id, part, text in connection.execute(query):
            found[run_id][part] = text
    return found


def _has_tag(connection: sa.Connection, key: str) -> bool:
    return connection.execute(sa.select(TAGS.c.run_uuid).where(TAGS.c.key == key).limit(1)).first() is not None


def _completed(connection: sa.Connection, light: Sequence[TrialRow]) -> list[TrialRow]:
    """Read light rows in full; those that were deleted meanwhile are left out."""
    run_ids = [row.run_id for row in light]
    runs: list[Any] = []
    for start in range(0, len(run_ids), _CHUNK):
        chunk = run_ids[start : start + _CHUNK]
        runs += connection.execute(sa.select(*_RUN).where(RUNS.c.run_uuid.in_(chunk)))
    full = {row.run_id: row for row in _in_full(connection, runs)}
    return [replace(full[row.run_id], is_on_front=row.is_on_front) for row in light if row.run_id in full]


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
    query, _ = _query(connection, studies)
    names = _value_metrics(connection)
    if _has_tag(connection, tags.OBJECTIVES) or not _all_have_metrics(connection, names):
        return None
    falls = _falls(connection, names, metric, bool(studies)) if is_descending is None else {is_descending}
    if len(falls) != 1 or (metric is None and len(names) != 1):
        return None
    keys = list(names)
    if metric is not None:
        own = {looked_up_name(tags.value_metric(metric, goal)) for goal in ("maximize", "minimize")}
        keys = [*(own & names.keys()), looked_up_name(metric)]
    (is_falling,) = falls
    count = max(_FEW, 2 * top)
    while count <= max(_MOST_IN_FULL, 4 * top):
        run_ids, bound = _leading(connection, studies, keys, is_falling, count)
        found = [
            run for chunk in _chunks(run_ids) for run in connection.execute(query.where(RUNS.c.run_uuid.in_(chunk)))
        ]
        rows = sorted_rows(_in_order(_in_full(connection, found)), metric, is_falling) if found else []
        if sum(_is_ahead(row, metric, bound, is_falling) for row in rows) >= top:
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
    """Tell whether the value of every trial and train is a metric, too."""
    has_metric = sa.exists().where(LATEST.c.run_uuid == TAGS.c.run_uuid, LATEST.c.key.in_(names))
    query = sa.select(TAGS.c.run_uuid).where(TAGS.c.key == tags.VALUE, sa.not_(has_metric)).limit(_CHUNK)
    without = list(connection.scalars(query))  # the runs of studies, whose value is that of their best
    kinds = sa.select(TAGS.c.value).where(TAGS.c.key == tags.KIND, TAGS.c.run_uuid.in_(without))
    return len(without) < _CHUNK and {"trial", "train"}.isdisjoint(connection.scalars(kinds))


def _falls(connection: sa.Connection, names: Mapping[str, str], metric: str | None, are_some: bool) -> set[bool]:
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
    falls = {goal == "maximize" for goal in goals}
    return falls | {not is_loss(metric)} if are_some or not goals else falls


def _leading(
    connection: sa.Connection, studies: Sequence[str], keys: Sequence[str], is_falling: bool, count: int
) -> tuple[list[str], float | None]:
    """Return the first `count` runs by each of some metrics, and the value behind which others may be; None if none."""
    order = LATEST.c.value.desc() if is_falling else LATEST.c.value
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
    return list(run_ids), (max(bounds) if is_falling else min(bounds)) if bounds else None


def _is_ahead(row: TrialRow, metric: str | None, bound: float | None, is_falling: bool) -> bool:
    """Tell whether a row counts, and is ahead of all that may be behind the bound."""
    value = row.value_of(metric or row.metric)
    if value is None or math.isnan(value) or row.state == "dropped" or row.infeasible:
        return False
    return bound is None or (value > bound if is_falling else value < bound)


def _chunks(run_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (run_ids[start : start + _CHUNK] for start in range(0, len(run_ids), _CHUNK))


def _in_full(connection: sa.Connection, runs: Sequence[Any]) -> list[TrialRow]:
    run_ids = [run.run_uuid for run in runs]
    tags_of = _gather(connection, sa.select(TAGS.c.run_uuid, TAGS.c.key, TAGS.c.value), TAGS, run_ids)
    metrics_of = _gather(
        connection,
        sa.select(
            LATEST.c.run_uuid,
            LATEST.c.key,
            sa.case((LATEST.c.is_nan, sa.null()), else_=LATEST.c.value),
        ),
        LATEST,
        run_ids,
    )
    found = (
        ServerRun(
            run_id=run.run_uuid,
            name=run.name or "",
            status=run.status,
            start_ms=run.start_time,
            end_ms=run.end_time,
            tags=joined(tags_of[run.run_uuid]),
            metrics=shown_metrics(metrics_of[run.run_uuid]),
        )
        for run in runs
    )
    return [row_of(run) for run in found]


def _require_studies(studies: Sequence[str], known: set[str]) -> None:
    for study in studies:
        if study not in known:
            hint = did_you_mean(study, known) or "The store holds no study yet."
            raise StudyError(f"There is no study {study!r}. {hint}")


def _gather(
    connection: sa.Connection, query: sa.Select[Any], table: Any, run_ids: Sequence[str]
) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for start in range(0, len(run_ids), _CHUNK):
        chunk = query.where(table.c.run_uuid.in_(run_ids[start : start + _CHUNK]))
        for run_id, key, value in connection.execute(chunk).all():
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
