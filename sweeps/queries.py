"""Read runs back by SQL over MLflow's own tables: the same rows as `mlflow.search_runs`, a hundred times sooner."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from sweeps.errors import StoreError, StudyError, UsageError, did_you_mean
from sweeps.tracking import tags

__all__ = ["TrialRow", "sorted_rows", "trial_rows"]

_runs = sa.table(
    "runs",
    *map(sa.column, ("run_uuid", "name", "status", "start_time", "end_time", "lifecycle_stage")),
)
_tags = sa.table("tags", *map(sa.column, ("run_uuid", "key", "value")))
_latest = sa.table("latest_metrics", *map(sa.column, ("run_uuid", "key", "value", "is_nan")))

_CHUNK = 500  # run ids in one IN clause; SQLite allows 32,766 variables


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRow:
    """A trial, or a single `train`, as it stands in the store.

    Attributes:
        study: The study's name; None for a `train`.
        trial: The trial's number in its study.
        state: running, complete, pruned, failed or interrupted.
        metric: What the study judges by, in `direction`.
        value: The metric at the best checkpoint; None until the trial has ended.
        metrics: The last value of each metric.
        params: The searched parameters with their types.
        duration_s: Seconds from start to end; None while it runs.
        reason: Why it failed or ended early.
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

    def as_dict(self) -> dict[str, Any]:
        """Return the row as plain data."""
        return asdict(self)


def trial_rows(uri: str, studies: Sequence[str] = ()) -> list[TrialRow]:
    """Read the trials of the named studies, or of all and every `train`, in the order in which they started.

    Raises:
        StoreError: The store cannot be opened, or it is none of MLflow's.
        StudyError: There is no such study; names the nearest.
    """
    url = make_url(uri)
    if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).is_file():
        raise StoreError(
            f"There is no store at {url.database}. Start with `lightsweep sweep`, or name another by --uri."
        )
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            return _read(connection, studies)
    except SQLAlchemyError as error:
        shown = url.render_as_string(hide_password=True)
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise StoreError(f"The store {shown} cannot be read: {reason}") from error
    finally:
        engine.dispose()


def sorted_rows(rows: Iterable[TrialRow], metric: str | None = None) -> list[TrialRow]:
    """Sort rows best first by their study's metric, or by `metric`; those without a value come last.

    Raises:
        UsageError: No row has such a metric; names the nearest.
    """
    rows = list(rows)
    known = {key for row in rows for key in row.metrics}
    if metric is not None and metric not in known:
        raise UsageError(f"No run has a metric {metric!r}. {did_you_mean(metric, known)}")

    def key(row: TrialRow) -> tuple[bool, float]:
        value = row.value if metric in (None, row.metric) else row.metrics.get(metric or "")
        if value is None or value != value:
            return True, 0.0
        is_falling = row.direction == "maximize" if metric in (None, row.metric) else not _is_loss(metric or "")
        return False, -value if is_falling else value

    return sorted(rows, key=key)


def _is_loss(metric: str) -> bool:
    return "loss" in metric or "error" in metric


def _read(connection: sa.Connection, studies: Sequence[str]) -> list[TrialRow]:
    kind, study = _tags.alias("kind"), _tags.alias("study")
    query = (
        sa.select(_runs, study.c.value.label("study"))
        .join(kind, sa.and_(kind.c.run_uuid == _runs.c.run_uuid, kind.c.key == tags.KIND))
        .outerjoin(study, sa.and_(study.c.run_uuid == _runs.c.run_uuid, study.c.key == tags.STUDY))
        .where(_runs.c.lifecycle_stage == "active", kind.c.value.in_(("trial", "train")))
        .order_by(_runs.c.start_time, _runs.c.run_uuid)
    )
    if studies:
        _require_studies(connection, studies)
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
    return [_row(run, tags_of[run.run_uuid], metrics_of[run.run_uuid]) for run in runs]


def _require_studies(connection: sa.Connection, studies: Sequence[str]) -> None:
    known = set(connection.scalars(sa.select(_tags.c.value).where(_tags.c.key == tags.STUDY).distinct()))
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


def _row(run: Any, run_tags: dict[str, str], metrics: dict[str, float | None]) -> TrialRow:
    value, trial = run_tags.get(tags.VALUE), run_tags.get(tags.TRIAL)
    return TrialRow(
        run_id=run.run_uuid,
        name=run.name,
        study=run.study,
        trial=int(trial) if trial is not None and trial.isdigit() else None,
        state=run_tags.get(tags.STATE, str(run.status).lower()),
        metric=run_tags.get(tags.METRIC, ""),
        direction=run_tags.get(tags.DIRECTION, "maximize"),
        value=None if value is None else float(value),
        metrics={key: float("nan") if number is None else number for key, number in sorted(metrics.items())},
        params=_params(run_tags.get(tags.PARAMS, "{}")),
        duration_s=None if run.end_time is None else (run.end_time - run.start_time) / 1000,
        reason=run_tags.get(tags.REASON, ""),
    )


def _params(text: str) -> dict[str, Any]:
    try:
        params = json.loads(text)
    except json.JSONDecodeError:  # cut at the store's limit, or not ours
        return {}
    return params if isinstance(params, dict) else {}
