"""Read single runs completely: by SQL from MLflow's tables, or from a server."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import sqlalchemy as sa

from sweeps.core.text import unbounded
from sweeps.results.histories import (
    HUGE,
    NUM_POINTS,
    Curve,
    History,
    histories_of,
    history_of,
    measured,
    thinned,
    without_restated,
)
from sweeps.tracking import tags
from sweeps.tracking.database import LATEST, PARAMS, POINTS, RUNS, TAGS, connected, of_runs, run_parts
from sweeps.tracking.names import looked_up_name, shown_metrics, shown_name, shown_tags
from sweeps.tracking.runs import Artifact, ServerRun, StoredRun, is_server
from sweeps.tracking.server import Point, ServerReader

__all__ = ["RunReader", "SqlReader", "open_reader"]


class RunReader(Protocol):
    """What `show` and `diff` ask of a store; deleted runs are not there.

    **Metrics.** The last value of each is in the run; a curve has at most `curves.NUM_POINTS` points, however many were
    recorded. Infinity may come as the largest float. What restates the best checkpoint after training is in no curve
    and no history: it was not measured there.
    """

    def studies(self) -> set[str]:
        """Return the names of all studies."""
        ...

    def ids_from(self, prefix: str) -> list[str]:
        """Return the ids of the runs that begin with these hexadecimal digits, sorted."""
        ...

    def runs_with(self, run_tags: Mapping[str, str], *, with_metrics: bool = False) -> list[ServerRun]:
        """Return the runs that have these tags, the oldest first; their metrics may be left out if not wanted."""
        ...

    def run(self, run_id: str) -> StoredRun:
        """Return a run with its tags, params and last metrics."""
        ...

    def curves(self, run_id: str) -> dict[str, Curve]:
        """Return the histories of the metrics of a run."""
        ...

    def histories(self, run_ids: Sequence[str], metrics: Sequence[str]) -> dict[str, dict[str, History]]:
        """Return the points of metrics, by metric and run; a run that has none of a metric is left out."""
        ...

    def artifacts(self, run: StoredRun) -> list[Artifact]:
        """List the artifacts of a run."""
        ...

    def read_artifact(self, run: StoredRun, name: str) -> bytes | None:
        """Return the content of an artifact that lies directly below the run's; None if there is none."""
        ...


@contextmanager
def open_reader(uri: str) -> Iterator[RunReader]:
    """Open a store to read single runs of it.

    Raises:
        StoreError: The store cannot be opened or read, or it is not one of MLflow's.
    """
    if is_server(uri):
        yield _FromServer(uri)
    else:
        with connected(uri) as connection:
            yield SqlReader(connection)


class _FromServer(ServerReader):
    """Reads from a server; see `RunReader`."""

    def curves(self, run_id: str) -> dict[str, Curve]:
        """Return the histories of the metrics of a run."""
        points = self.points(run_id, sorted(self.run(run_id).metrics))
        end = _last_step(points.get("epoch", []))
        return {metric: thinned(measured(found, end)) for metric, found in points.items() if found}

    def histories(self, run_ids: Sequence[str], metrics: Sequence[str]) -> dict[str, dict[str, History]]:
        """Return the points of metrics, by metric and run: a request for each of both, and one for each run."""
        found: dict[str, dict[str, History]] = {metric: {} for metric in metrics}
        for run_id in run_ids:
            points = self.points(run_id, ["epoch", *metrics])
            end = _last_step(points["epoch"])
            for metric in metrics:
                if points[metric]:
                    found[metric][run_id] = without_restated(history_of(points[metric]), end)
        return {metric: of_runs for metric, of_runs in found.items() if of_runs}


class SqlReader:
    """Reads from a database; see `RunReader`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def studies(self) -> set[str]:
        """Return the names of all studies."""
        kind = TAGS.alias("kind")
        query = (
            sa.select(TAGS.c.value)
            .join(kind, sa.and_(kind.c.run_uuid == TAGS.c.run_uuid, kind.c.key == tags.KIND))
            .join(RUNS, RUNS.c.run_uuid == TAGS.c.run_uuid)
            .where(TAGS.c.key == tags.STUDY, kind.c.value == "study", RUNS.c.lifecycle_stage == "active")
        )
        return set(self._connection.scalars(query))

    def ids_from(self, prefix: str) -> list[str]:
        """Return the ids of the runs that begin with these hexadecimal digits, sorted."""
        query = sa.select(RUNS.c.run_uuid).where(
            RUNS.c.lifecycle_stage == "active",
            RUNS.c.run_uuid >= prefix,
            RUNS.c.run_uuid < f"{prefix}g",  # the first letter that is no digit: the index serves, unlike with `like`
        )
        return sorted(self._connection.scalars(query))

    def runs_with(self, run_tags: Mapping[str, str], *, with_metrics: bool = False) -> list[ServerRun]:
        """Return the runs that have these tags, the oldest first."""
        query = sa.select(RUNS).where(RUNS.c.lifecycle_stage == "active")
        for key, value in run_tags.items():
            own = TAGS.alias()
            query = query.join(own, sa.and_(own.c.run_uuid == RUNS.c.run_uuid, own.c.key == key, own.c.value == value))
        found = self._connection.execute(query.order_by(sa.func.coalesce(RUNS.c.start_time, 0), RUNS.c.run_uuid)).all()
        run_ids = [run.run_uuid for run in found]
        tags_of, metrics_of = self._tags(run_ids), self._last(run_ids) if with_metrics else {}
        return [
            ServerRun(**_columns(run), tags=tags_of[run.run_uuid], metrics=metrics_of.get(run.run_uuid, {}))
            for run in found
        ]

    def run(self, run_id: str) -> StoredRun:
        """Return a run with its tags, params and last metrics."""
        found = self._connection.execute(sa.select(RUNS).where(RUNS.c.run_uuid == run_id)).one()
        return StoredRun(
            **_columns(found),
            tags=shown_tags(self._pairs(TAGS, run_id)),
            metrics=self._last([run_id])[run_id],
            params={shown_name(key): text for key, text in self._pairs(PARAMS, run_id).items()},
            artifact_uri=found.artifact_uri or "",
        )

    def curves(self, run_id: str) -> dict[str, Curve]:
        """Return the histories of the metrics of a run: the database joins the points to means."""
        place = sa.func.row_number().over(partition_by=POINTS.c.key, order_by=(POINTS.c.step, POINTS.c.timestamp))
        total = sa.func.count().over(partition_by=POINTS.c.key)
        number = sa.case((POINTS.c.is_nan, sa.null()), else_=POINTS.c.value)
        part = ((place - 1) * NUM_POINTS).op("/")(total).label("part")  # of whole numbers: a whole number
        placed = sa.select(POINTS.c.key, POINTS.c.step, number.label("number"), part)
        last_epoch_step = self._last_epoch_steps([run_id]).get(run_id)
        if last_epoch_step is not None:
            placed = placed.where(sa.not_(_restates(last_epoch_step)))
        points = placed.where(POINTS.c.run_uuid == run_id).subquery()
        finite = sa.case((sa.func.abs(points.c.number) < HUGE, points.c.number), else_=sa.null())
        query = (
            sa.select(
                points.c.key,
                sa.func.count().label("num"),
                sa.func.min(points.c.step).label("first"),
                sa.func.max(points.c.step).label("last"),
                sa.func.min(points.c.number).label("lowest"),
                sa.func.max(points.c.number).label("highest"),
                sa.func.avg(finite).label("mean"),
            )
            .group_by(points.c.key, points.c.part)
            .order_by(points.c.key, points.c.part)
        )
        parts: dict[str, list[Any]] = {}
        for row in self._connection.execute(query):
            parts.setdefault(row.key, []).append(row)
        ends = {key: _ends(rows) for key, rows in parts.items()}
        steps = self._first_steps(run_id, ends)
        curves = {key: _curve(rows, [steps.get((key, end)) for end in ends[key]]) for key, rows in parts.items()}
        return {shown_name(key): curve for key, curve in sorted(curves.items()) if tags.judged_by(key) is None}

    def histories(self, run_ids: Sequence[str], metrics: Sequence[str]) -> dict[str, dict[str, History]]:
        """Return the points of metrics, by metric and run."""
        number = sa.case((POINTS.c.is_nan, sa.null()), else_=POINTS.c.value)
        query = sa.select(POINTS.c.run_uuid, POINTS.c.step, POINTS.c.timestamp, number)
        ends = self._last_epoch_steps(run_ids)
        found: dict[str, dict[str, History]] = {}
        for metric in metrics:
            of_key = query.where(POINTS.c.key == looked_up_name(metric))
            of_metric: dict[str, History] = {}
            for some in run_parts(self._connection, POINTS.c.run_uuid, run_ids):
                of_metric |= histories_of(self._connection.execute(of_key.where(some)).all())
            if of_metric:
                found[metric] = {run_id: without_restated(one, ends.get(run_id)) for run_id, one in of_metric.items()}
        return found

    def artifacts(self, run: StoredRun) -> list[Artifact]:
        """List the artifacts of a run: files of this machine without MLflow, others through it."""
        from sweeps.tracking.artifacts import list_artifacts

        return list_artifacts(run, uri="")

    def read_artifact(self, run: StoredRun, name: str) -> bytes | None:
        """Return the content of an artifact that lies directly below the run's; None if there is none."""
        from sweeps.tracking.artifacts import read_artifact

        return read_artifact(run, name, uri="")

    def _first_steps(self, run_id: str, values: Mapping[str, Sequence[float]]) -> dict[tuple[str, float], int]:
        """Return the first step at which each metric has each of some values, as they are stored."""
        wanted = [sa.and_(POINTS.c.key == key, POINTS.c.value.in_(of)) for key, of in values.items() if of]
        query = (
            sa.select(POINTS.c.key, POINTS.c.value, sa.func.min(POINTS.c.step))
            .where(POINTS.c.run_uuid == run_id, sa.not_(POINTS.c.is_nan), sa.or_(sa.false(), *wanted))
            .group_by(POINTS.c.key, POINTS.c.value)
        )
        return {(key, value): step for key, value, step in self._connection.execute(query)}

    def _last_epoch_steps(self, run_ids: Sequence[str]) -> dict[str, int]:
        """Return the last step of each run at which `epoch` was logged."""
        query = sa.select(LATEST.c.run_uuid, LATEST.c.step).where(LATEST.c.key == "epoch")
        return dict(of_runs(self._connection, query, LATEST.c.run_uuid, run_ids))

    def _tags(self, run_ids: Sequence[str]) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {run_id: {} for run_id in run_ids}
        query = sa.select(TAGS.c.run_uuid, TAGS.c.key, TAGS.c.value)
        for run_id, key, value in of_runs(self._connection, query, TAGS.c.run_uuid, run_ids):
            found[run_id][key] = value or ""
        return {run_id: shown_tags(stored) for run_id, stored in found.items()}

    def _last(self, run_ids: Sequence[str]) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float | None]] = {run_id: {} for run_id in run_ids}
        number = sa.case((LATEST.c.is_nan, sa.null()), else_=LATEST.c.value)
        query = sa.select(LATEST.c.run_uuid, LATEST.c.key, number)
        for run_id, key, value in of_runs(self._connection, query, LATEST.c.run_uuid, run_ids):
            found[run_id][key] = value
        return {run_id: shown_metrics(stored) for run_id, stored in found.items()}

    def _pairs(self, table: Any, run_id: str) -> dict[str, str]:
        query = sa.select(table.c.key, table.c.value).where(table.c.run_uuid == run_id).order_by(table.c.key)
        return {key: value or "" for key, value in self._connection.execute(query)}


def _last_step(points: Sequence[Point]) -> int | None:
    return max((step for step, _, _ in points), default=None)


def _columns(run: Any) -> dict[str, Any]:
    return {
        "run_id": run.run_uuid,
        "name": run.name or "",
        "status": run.status,
        "start_ms": run.start_time,
        "end_ms": run.end_time,
    }


def _ends(parts: list[Any]) -> list[float]:
    """Return the least and the greatest value, as they are stored; nothing if all are NaN."""
    lowest = [part.lowest for part in parts if part.lowest is not None]
    highest = [part.highest for part in parts if part.highest is not None]
    return [min(lowest), max(highest)] if lowest else []


def _restates(last_epoch_step: int) -> sa.ColumnElement[bool]:
    """Tell of a point whether it restates the best checkpoint, as `histories.without_restated` does."""
    measured = POINTS.alias()
    is_repeated = sa.exists().where(
        measured.c.run_uuid == POINTS.c.run_uuid,
        measured.c.key == POINTS.c.key,
        measured.c.value == POINTS.c.value,
        measured.c.step <= last_epoch_step,
        sa.not_(measured.c.is_nan),
    )
    return sa.and_(POINTS.c.step > last_epoch_step, sa.not_(POINTS.c.is_nan), is_repeated)


def _curve(parts: list[Any], steps: Sequence[int | None]) -> Curve:
    ends: list[float | None] = [unbounded(end) for end in _ends(parts)]
    return Curve(
        num_points=sum(part.num for part in parts),
        first_step=min(part.first for part in parts),
        last_step=max(part.last for part in parts),
        lowest=ends[0] if ends else None,
        highest=ends[1] if ends else None,
        lowest_step=steps[0] if ends else None,
        highest_step=steps[1] if ends else None,
        means=tuple(math.nan if part.mean is None else part.mean for part in parts),
    )
