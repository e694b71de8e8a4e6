"""Read runs back: by SQL over MLflow's own tables, a hundred times sooner than by MLflow's client, or from a server."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from sweeps.errors import StoreError, StudyError, UsageError, did_you_mean
from sweeps.pareto import on_front
from sweeps.tracking import tags
from sweeps.tracking.server import ServerRun, is_server, server_runs
from sweeps.urls import hide_password, with_installed_driver

__all__ = ["TrialRow", "connected", "require_store", "row_of", "sorted_rows", "trial_rows"]

_runs = sa.table(
    "runs",
    *map(sa.column, ("run_uuid", "name", "status", "start_time", "end_time", "lifecycle_stage")),
)
_tags = sa.table("tags", *map(sa.column, ("run_uuid", "key", "value")))
_latest = sa.table("latest_metrics", *map(sa.column, ("run_uuid", "key", "value", "is_nan")))

_CHUNK = 500  # run ids in one IN clause; SQLite allows 32,766 variables
_LARGEST = 1.7976931348623157e308  # what MLflow writes for infinity
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


def sorted_rows(rows: Iterable[TrialRow], metric: str | None = None) -> list[TrialRow]:
    """Sort rows best first by their study's first metric, or by `metric`; those without a value, or dropped, come last.

    Trials that violate constraints come after those that do not, and of several objectives the Pareto front is first.

    Rows that are judged by different metrics stay apart.

    Raises:
        UsageError: No row has such a metric; names the nearest.
    """
    rows = list(rows)
    known = {key for row in rows for key in (*row.metrics, row.metric) if key}
    if metric is not None and rows and metric not in known:
        raise UsageError(f"No run has a metric {metric!r}. {did_you_mean(metric, known)}")
    maximized = {row.metric: row.direction == "maximize" for row in rows}

    def key(row: TrialRow) -> tuple[bool, str, bool, float]:
        judged = metric or row.metric
        value = row.value if row.metric == judged else row.metrics.get(judged)
        if value is None or math.isnan(value) or row.state == "dropped":
            return True, "", False, 0.0
        is_falling = maximized.get(judged, not _is_loss(judged))
        is_behind = metric is None and len(row.objectives) > 1 and not row.is_on_front
        return False, judged, bool(row.infeasible) or is_behind, -value if is_falling else value

    return sorted(rows, key=key)


def _is_loss(metric: str) -> bool:
    return "loss" in metric or "error" in metric


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


def _read(connection: sa.Connection, studies: Sequence[str]) -> list[TrialRow]:
    kind, study = _tags.alias("kind"), _tags.alias("study")
    query = (
        sa.select(_runs)
        .join(kind, sa.and_(kind.c.run_uuid == _runs.c.run_uuid, kind.c.key == tags.KIND))
        .where(_runs.c.lifecycle_stage == "active", kind.c.value.in_(("trial", "train")))
        .order_by(_runs.c.start_time, _runs.c.run_uuid)
    )
    if studies:
        known = connection.scalars(
            sa.select(_tags.c.value)
            .join(_runs, _runs.c.run_uuid == _tags.c.run_uuid)
            .where(_tags.c.key == tags.STUDY, _runs.c.lifecycle_stage == "active")
            .distinct()
        )
        _require_studies(studies, set(known))
        query = query.join(study, sa.and_(study.c.run_uuid == _runs.c.run_uuid, study.c.key == tags.STUDY))
        query = query.where(study.c.value.in_(studies))
    runs = connection.execute(query).all()
    run_ids = [run.run_uuid for run in runs]
    tags_of = _gather(connection, sa.select(_tags.c.run_uuid, _tags.c.key, _tags.c.value), _tags, run_ids)
    metrics_of = _gather(
        connection,
        sa.select(
            _latest.c.run_uuid,
            _latest.c.key,
            sa.case((_latest.c.is_nan, sa.null()), else_=_latest.c.value),
        ),
        _latest,
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
    trial = run.tags.get(tags.TRIAL, "")
    state = run.tags.get(tags.STATE) or _STATES.get(run.status, run.status.lower())
    metric, direction = run.tags.get(tags.METRIC, ""), run.tags.get(tags.DIRECTION, "maximize")
    value = _number(run.tags.get(tags.VALUE))
    is_complete = state == "complete" and value is not None
    is_timed = run.start_ms is not None and run.end_ms is not None
    return TrialRow(
        run_id=run.run_id,
        name=run.name,
        study=run.tags.get(tags.STUDY) if is_trial else None,
        trial=int(trial) if is_trial and trial.isdecimal() else None,
        state=state,
        metric=metric,
        direction=direction,
        value=value,
        metrics={key: _unbounded(run.metrics[key]) for key in sorted(run.metrics)},
        params=_mapping(run.tags.get(tags.PARAMS, "{}")),
        duration_s=((run.end_ms or 0) - (run.start_ms or 0)) / 1000 if is_timed else None,
        reason=run.tags.get(tags.REASON, ""),
        folder=run.tags.get(tags.FOLDER, ""),
        objectives=_mapping(run.tags.get(tags.OBJECTIVES, "{}")) or {metric: direction},
        values=_mapping(run.tags.get(tags.VALUES, "{}")) or ({metric: value} if is_complete else {}),
        infeasible=run.tags.get(tags.INFEASIBLE, ""),
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


def _unbounded(value: float) -> float:
    return math.copysign(math.inf, value) if abs(value) >= _LARGEST else value


def _mapping(text: str) -> dict[str, Any]:
    try:
        params: Mapping[str, Any] = json.loads(text)
    except json.JSONDecodeError:  # cut at the store's limit, or not ours
        return {}
    return dict(params) if isinstance(params, dict) else {}
