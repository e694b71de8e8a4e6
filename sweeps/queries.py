"""Read runs back: by SQL over MLflow's own tables, a hundred times sooner than by MLflow's client, or from a server."""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from sweeps.errors import StoreError, StudyError, UsageError, did_you_mean
from sweeps.mlflow_tables import LATEST, RUNS, TAGS
from sweeps.pareto import on_front
from sweeps.ranking import Ranking, is_loss, ranking, unbounded
from sweeps.tracking import tags
from sweeps.tracking.server import ServerRun, is_server, server_runs
from sweeps.urls import hide_password, with_installed_driver

__all__ = [
    "TrialRow",
    "chosen_rows",
    "connected",
    "is_descending_by",
    "require_metric",
    "require_store",
    "row_of",
    "rows_of",
    "sorted_rows",
    "top_rows",
    "trial_rows",
]

_MAX_JOINS = 20  # metrics that are read by a join each; SQLite joins 64 tables at most
_MOST_IN_FULL = 2000  # rows to read in full for the best few of them
_CHOOSING_TAGS = (  # what rows are sorted and filtered by
    *(tags.STUDY, tags.TRIAL, tags.STATE, tags.METRIC, tags.DIRECTION, tags.VALUE),
    *(tags.OBJECTIVES, tags.VALUES, tags.INFEASIBLE),
)
_CHUNK = 500  # run ids in one IN clause; SQLite allows 32,766 variables
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
        duration_s: Seconds from start to end; None while it runs.
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

    def as_dict(self) -> dict[str, Any]:
        """Return the row as plain data."""
        return asdict(self)


def trial_rows(uri: str, studies: Sequence[str] = ()) -> list[TrialRow]:
    """Read the trials of the named studies, or of all and every `train`, in the order in which they started.

    Raises:
        StoreError: The store cannot be opened, or it is none of MLflow's.
        StudyError: There is no such study; names the nearest.
    """
    if is_server(uri):
        return _with_fronts(_from_server(uri, studies))
    engine = _engine(uri)
    try:
        with engine.connect() as connection:
            _require_tables(connection, uri)
            return _with_fronts(_read(connection, studies))
    except SQLAlchemyError as error:
        raise _unreadable(uri, error) from error
    finally:
        engine.dispose()


def chosen_rows(
    uri: str,
    studies: Sequence[str],
    choose: Callable[[list[TrialRow]], list[TrialRow]],
    *,
    metrics: Collection[str] = (),
    with_params: bool = False,
) -> list[TrialRow]:
    """Read what `choose` takes of the rows that `trial_rows` gives, in its order; much sooner where it takes few.

    It is first shown rows that lack what is slow to read: all metrics but the named ones, the parameters unless
    `with_params`, names, reasons and folders. What it takes is then read in full.

    Args:
        uri: The store.
        studies: Names of studies; none for all, and every `train`.
        choose: Filters and sorts; a UsageError that it raises is raised with all rows in full before it.
        metrics: The metrics that `choose` looks at.
        with_params: Whether it looks at parameters.

    Raises:
        StoreError: The store cannot be opened, or it is none of MLflow's.
        StudyError: There is no such study; names the nearest.
    """
    if is_server(uri) or len(metrics) > _MAX_JOINS:
        return choose(trial_rows(uri, studies))
    engine = _engine(uri)
    try:
        with engine.connect() as connection:
            _require_tables(connection, uri)
            try:
                chosen = choose(_with_fronts(_read_light(connection, studies, metrics, with_params)))
            except UsageError:  # a name that these rows do not have: all of them know the nearest
                return choose(_with_fronts(_read(connection, studies)))
            return _completed(connection, chosen)
    except SQLAlchemyError as error:
        raise _unreadable(uri, error) from error
    finally:
        engine.dispose()


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
        engine = _engine(uri)
        try:
            with engine.connect() as connection:
                _require_tables(connection, uri)
                ranked = ranking(connection, metric, is_descending)
                found = None if ranked is None else _best_of(connection, studies, ranked, top)
        except SQLAlchemyError as error:
            raise _unreadable(uri, error) from error
        finally:
            engine.dispose()
        if found is not None:
            return found
    metrics = [] if metric is None else [metric]
    return chosen_rows(uri, studies, lambda rows: sorted_rows(rows, metric, is_descending)[:top], metrics=metrics)


def require_store(uri: str) -> None:
    """Refuse a database that cannot be opened or is none of MLflow's.

    Raises:
        StoreError: Says which, in one line.
    """
    with connected(uri):
        pass


@contextmanager
def connected(uri: str) -> Iterator[sa.Connection]:
    """Connect to a database with MLflow's tables; errors of the database become a `StoreError`, whenever they come."""
    engine = _engine(uri)
    try:
        with engine.connect() as connection:
            _require_tables(connection, uri)
            yield connection
    except SQLAlchemyError as error:
        raise _unreadable(uri, error) from error
    finally:
        engine.dispose()


def row_of(run: ServerRun) -> TrialRow:
    """Return what the tags of one run say; whether it is on a Pareto front needs the others."""
    return _row(run)


def rows_of(runs: Iterable[ServerRun]) -> list[TrialRow]:
    """Return the rows of runs, with the Pareto fronts that they have among themselves."""
    return _with_fronts([_row(run) for run in runs])


def require_metric(rows: Collection[TrialRow], metric: str) -> None:
    """Refuse a metric that no row has.

    Raises:
        UsageError: Names the nearest.
    """
    known = {key for row in rows for key in (*row.metrics, row.metric) if key}
    if rows and metric not in known:
        raise UsageError(f"No run has a metric {metric!r}. {did_you_mean(metric, known)}")


def is_descending_by(rows: Iterable[TrialRow], metric: str) -> bool:
    """Tell whether more of a metric is better: by the studies that are judged by it, or else by its name."""
    directions = [row.direction for row in rows if row.metric == metric]
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
    maximized = {row.metric: row.direction == "maximize" for row in rows}

    def key(row: TrialRow) -> tuple[bool, str, bool, float]:
        judged = metric or row.metric
        value = row.value if row.metric == judged else row.metrics.get(judged)
        if value is None or math.isnan(value) or row.state == "dropped":
            return True, "", False, 0.0
        is_falling = maximized.get(judged, not is_loss(judged)) if is_descending is None else is_descending
        is_behind = metric is None and len(row.objectives) > 1 and not row.is_on_front
        return False, judged, bool(row.infeasible) or is_behind, -value if is_falling else value

    return sorted(rows, key=key)


# --- by SQL --------------------------------------------------------------------------------------------


def _engine(uri: str) -> sa.Engine:
    try:
        url = sa.make_url(with_installed_driver(uri))
    except ArgumentError as error:
        raise StoreError(
            f"--uri must be a database URL such as sqlite:///mlruns/mlflow.db or the http address of an MLflow "
            f"server, but got {uri!r}."
        ) from error
    if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).is_file():
        raise StoreError(
            f"There is no store at {url.database}. Start one with `lightsweep sweep`, or name another with "
            "--store-dir or --uri."
        )
    options = {"connect_args": {"connect_timeout": 10}} if url.get_backend_name() == "postgresql" else {}
    try:
        return sa.create_engine(url, **options)
    except (ImportError, SQLAlchemyError) as error:
        hint = " For PostgreSQL: pip install 'lightsweep[postgres]'." if url.get_backend_name() == "postgresql" else ""
        raise StoreError(f"The store {hide_password(uri)} cannot be opened: {error}.{hint}") from error


def _require_tables(connection: sa.Connection, uri: str) -> None:
    names = set(sa.inspect(connection).get_table_names())
    if not {"runs", "tags", "latest_metrics"} <= names:
        whose = "it is Optuna's, and MLflow's lies beside it" if "trials" in names else "it has none of its tables"
        raise StoreError(f"The database {hide_password(uri)} is no store of MLflow's: {whose}.")


def _unreadable(uri: str, error: SQLAlchemyError) -> StoreError:
    lines = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
    return StoreError(f"The store {hide_password(uri)} cannot be read: {lines[0]}.")


def _query(connection: sa.Connection, studies: Sequence[str]) -> tuple[sa.Select[Any], Any]:
    """Return the query for trials and trains in the order of their start, and the alias of the tag of their kind."""
    kind, study = TAGS.alias("kind"), TAGS.alias("study")
    query = (
        sa.select(RUNS)
        .join(kind, sa.and_(kind.c.run_uuid == RUNS.c.run_uuid, kind.c.key == tags.KIND))
        .where(RUNS.c.lifecycle_stage == "active", kind.c.value.in_(("trial", "train")))
        .order_by(RUNS.c.start_time, RUNS.c.run_uuid)
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
    return _in_full(connection, connection.execute(query).all())


def _read_light(
    connection: sa.Connection, studies: Sequence[str], metrics: Collection[str], with_params: bool
) -> list[TrialRow]:
    """Read what rows are chosen by, in one query: a join for each tag and metric."""
    query, kind = _query(connection, studies)
    keys = (*_CHOOSING_TAGS, tags.PARAMS) if with_params else _CHOOSING_TAGS
    query = query.add_columns(kind.c.value)
    for index, key in enumerate(keys):
        tag = TAGS.alias(f"tag{index}")
        query = query.outerjoin(tag, sa.and_(tag.c.run_uuid == RUNS.c.run_uuid, tag.c.key == key))
        query = query.add_columns(tag.c.value)
    for index, key in enumerate(metrics):
        latest = LATEST.alias(f"metric{index}")
        query = query.outerjoin(latest, sa.and_(latest.c.run_uuid == RUNS.c.run_uuid, latest.c.key == key))
        query = query.add_columns(latest.c.value, latest.c.is_nan)
    rows = []
    first = len(RUNS.c)
    names, begin = (tags.KIND, *keys), first + 1 + len(keys)
    for found in connection.execute(query).all():
        run_id, _, status, start_ms, end_ms, _ = found[:first]
        points = zip(metrics, found[begin::2], found[begin + 1 :: 2], strict=True)
        rows.append(
            _row(
                ServerRun(
                    run_id=run_id,
                    name="",
                    status=status,
                    start_ms=start_ms,
                    end_ms=end_ms,
                    tags={key: text for key, text in zip(names, found[first:begin], strict=True) if text is not None},
                    metrics={key: math.nan if is_nan else value for key, value, is_nan in points if value is not None},
                )
            )
        )
    return rows


def _completed(connection: sa.Connection, light: Sequence[TrialRow]) -> list[TrialRow]:
    """Read light rows in full; those that were deleted meanwhile are left out."""
    run_ids = [row.run_id for row in light]
    runs: list[Any] = []
    for start in range(0, len(run_ids), _CHUNK):
        chunk = run_ids[start : start + _CHUNK]
        runs += connection.execute(sa.select(RUNS).where(RUNS.c.run_uuid.in_(chunk)))
    full = {row.run_id: row for row in _in_full(connection, runs)}
    return [replace(full[row.run_id], is_on_front=row.is_on_front) for row in light if row.run_id in full]


def _best_of(connection: sa.Connection, studies: Sequence[str], ranked: Ranking, top: int) -> list[TrialRow] | None:
    """Read as many of the ranked runs as hold the best `top` trials; None where they would be too many."""
    query, _ = _query(connection, studies)
    runs: list[Any] = []
    rows: list[TrialRow] = []
    begin, end = 0, ranked.up_to(top)
    while len(rows) < top and begin < end <= max(_MOST_IN_FULL, 4 * top):
        found: list[Any] = []
        for start in range(begin, end, _CHUNK):
            chunk = ranked.run_ids[start : min(start + _CHUNK, end)]
            found += connection.execute(query.where(RUNS.c.run_uuid.in_(chunk)))
        runs += found
        able = [row for row in _in_full(connection, found) if row.state != "dropped" and not row.infeasible]
        rows += able
        begin, end = end, ranked.up_to(4 * end)
    if len(rows) < top or any(run.start_time is None for run in runs):
        return None  # those without a value, or that do not count, come into it
    started = {run.run_uuid: (run.start_time, run.run_uuid) for run in runs}
    rows.sort(key=lambda row: started[row.run_id])
    return sorted_rows(rows, ranked.metric, ranked.is_descending)[:top]


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
    return [
        _row(
            ServerRun(
                run_id=run.run_uuid,
                name=run.name or "",
                status=run.status,
                start_ms=run.start_time,
                end_ms=run.end_time,
                tags=tags_of[run.run_uuid],
                metrics={k: math.nan if v is None else v for k, v in metrics_of[run.run_uuid].items()},
            )
        )
        for run in runs
    ]


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
        for run_id, key, value in connection.execute(chunk):
            found[run_id][key] = value
    return found


# --- from a server -------------------------------------------------------------------------------------


def _from_server(uri: str, studies: Sequence[str]) -> list[TrialRow]:
    runs = server_runs(uri, f"tags.`{tags.KIND}` != 'other'")  # what has the tag at all: the parents too
    _require_studies(studies, {run.tags[tags.STUDY] for run in runs if tags.STUDY in run.tags})
    return [
        _row(run)
        for run in sorted(runs, key=lambda run: (run.start_ms or 0, run.run_id))
        if run.tags[tags.KIND] in ("trial", "train") and (not studies or run.tags.get(tags.STUDY) in studies)
    ]


# --- from a run to a row -------------------------------------------------------------------------------


def _row(run: ServerRun) -> TrialRow:
    is_trial = run.tags.get(tags.KIND) == "trial"
    state = run.tags.get(tags.STATE) or _STATES.get(run.status, run.status.lower())
    metric, direction = run.tags.get(tags.METRIC, ""), run.tags.get(tags.DIRECTION, "maximize")
    value = _number(run.tags.get(tags.VALUE))
    is_complete = state == "complete" and value is not None
    is_timed = run.start_ms is not None and run.end_ms is not None
    return TrialRow(
        run_id=run.run_id,
        name=run.name,
        study=run.tags.get(tags.STUDY) if is_trial else None,
        trial=_whole(run.tags.get(tags.TRIAL)) if is_trial else None,
        state=state,
        metric=metric,
        direction=direction,
        value=value,
        metrics={key: unbounded(run.metrics[key]) for key in sorted(run.metrics)},
        params=_mapping(run.tags.get(tags.PARAMS)),
        duration_s=((run.end_ms or 0) - (run.start_ms or 0)) / 1000 if is_timed else None,
        reason=run.tags.get(tags.REASON, ""),
        folder=run.tags.get(tags.FOLDER, ""),
        objectives=_mapping(run.tags.get(tags.OBJECTIVES)) or {metric: direction},
        values=_mapping(run.tags.get(tags.VALUES)) or ({metric: value} if is_complete else {}),
        infeasible=run.tags.get(tags.INFEASIBLE, ""),
        began_ms=run.start_ms,
        slot=_whole(run.tags.get(tags.SLOT)),
    )


def _with_fronts(rows: list[TrialRow]) -> list[TrialRow]:
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


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:  # somebody edited the tag
        return None


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _mapping(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        params: Mapping[str, Any] = json.loads(text)
    except json.JSONDecodeError:  # cut at the store's limit, or not ours
        return {}
    return dict(params) if isinstance(params, dict) else {}
