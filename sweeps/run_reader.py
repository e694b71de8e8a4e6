"""Read single runs, with all that the store has of them: by SQL over MLflow's own tables, or from a server."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import sqlalchemy as sa

from sweeps.curves import HUGE, NUM_POINTS, Curve, unbounded
from sweeps.histories import History, history_of
from sweeps.queries import connected
from sweeps.tracking import tags
from sweeps.tracking.server import (
    MAX_BYTES,
    Artifact,
    ServerReader,
    ServerRun,
    StoredRun,
    fetched_artifact,
    is_server,
    listed_artifacts,
)

__all__ = ["RunReader", "SqlReader", "local_artifacts", "open_reader"]

_runs = sa.table(
    "runs",
    *map(sa.column, ("run_uuid", "name", "status", "start_time", "end_time", "lifecycle_stage", "artifact_uri")),
)
_tags = sa.table("tags", *map(sa.column, ("run_uuid", "key", "value")))
_params = sa.table("params", *map(sa.column, ("run_uuid", "key", "value")))
_latest = sa.table("latest_metrics", *map(sa.column, ("run_uuid", "key", "value", "is_nan")))
_points = sa.table("metrics", *map(sa.column, ("run_uuid", "key", "value", "is_nan", "step", "timestamp")))

_CHUNK = 500  # run ids in one IN clause; SQLite allows 32,766 variables


class RunReader(Protocol):
    """What `show` and `diff` ask of a store; deleted runs are not there.

    **Metrics.** The last value of each is in the run; a curve has at most `curves.NUM_POINTS` points, however many were
    recorded. Infinity may come as the largest float.
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
        """Return all points of metrics, by metric and run; a run that has none of a metric is left out."""
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
        StoreError: The store cannot be opened or read, or it is none of MLflow's.
    """
    if is_server(uri):
        yield ServerReader(uri)
    else:
        with connected(uri) as connection:
            yield SqlReader(connection)


class SqlReader:
    """Reads from a database; see `RunReader`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def studies(self) -> set[str]:
        """Return the names of all studies."""
        kind = _tags.alias("kind")
        query = (
            sa.select(_tags.c.value)
            .join(kind, sa.and_(kind.c.run_uuid == _tags.c.run_uuid, kind.c.key == tags.KIND))
            .join(_runs, _runs.c.run_uuid == _tags.c.run_uuid)
            .where(_tags.c.key == tags.STUDY, kind.c.value == "study", _runs.c.lifecycle_stage == "active")
        )
        return set(self._connection.scalars(query))

    def ids_from(self, prefix: str) -> list[str]:
        """Return the ids of the runs that begin with these hexadecimal digits, sorted."""
        query = sa.select(_runs.c.run_uuid).where(
            _runs.c.lifecycle_stage == "active",
            _runs.c.run_uuid >= prefix,
            _runs.c.run_uuid < f"{prefix}g",  # the first letter that is no digit: the index serves, unlike with `like`
        )
        return sorted(self._connection.scalars(query))

    def runs_with(self, run_tags: Mapping[str, str], *, with_metrics: bool = False) -> list[ServerRun]:
        """Return the runs that have these tags, the oldest first."""
        query = sa.select(_runs).where(_runs.c.lifecycle_stage == "active")
        for key, value in run_tags.items():
            own = _tags.alias()
            query = query.join(own, sa.and_(own.c.run_uuid == _runs.c.run_uuid, own.c.key == key, own.c.value == value))
        found = self._connection.execute(query.order_by(_runs.c.start_time, _runs.c.run_uuid)).all()
        run_ids = [run.run_uuid for run in found]
        tags_of, metrics_of = self._tags(run_ids), self._last(run_ids) if with_metrics else {}
        return [
            ServerRun(**_columns(run), tags=tags_of[run.run_uuid], metrics=metrics_of.get(run.run_uuid, {}))
            for run in found
        ]

    def run(self, run_id: str) -> StoredRun:
        """Return a run with its tags, params and last metrics."""
        found = self._connection.execute(sa.select(_runs).where(_runs.c.run_uuid == run_id)).one()
        return StoredRun(
            **_columns(found),
            tags=self._pairs(_tags, run_id),
            metrics=self._last([run_id])[run_id],
            params=self._pairs(_params, run_id),
            artifact_uri=found.artifact_uri or "",
        )

    def curves(self, run_id: str) -> dict[str, Curve]:
        """Return the histories of the metrics of a run: the database joins the points to means."""
        place = sa.func.row_number().over(partition_by=_points.c.key, order_by=(_points.c.step, _points.c.timestamp))
        total = sa.func.count().over(partition_by=_points.c.key)
        number = sa.case((_points.c.is_nan, sa.null()), else_=_points.c.value)
        part = ((place - 1) * NUM_POINTS).op("/")(total).label("part")  # of whole numbers: a whole number
        placed = sa.select(_points.c.key, _points.c.step, number.label("number"), part)
        points = placed.where(_points.c.run_uuid == run_id).subquery()
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
        return {key: _curve(rows) for key, rows in sorted(parts.items())}

    def histories(self, run_ids: Sequence[str], metrics: Sequence[str]) -> dict[str, dict[str, History]]:
        """Return all points of metrics, by metric and run: in one query for 500 runs."""
        points: dict[tuple[str, str], list[tuple[int, int, float]]] = {}
        number = sa.case((_points.c.is_nan, sa.null()), else_=_points.c.value)
        query = sa.select(_points.c.key, _points.c.run_uuid, _points.c.step, _points.c.timestamp, number)
        query = query.where(_points.c.key.in_(metrics))
        for start in range(0, len(run_ids), _CHUNK):
            chunk = query.where(_points.c.run_uuid.in_(run_ids[start : start + _CHUNK]))
            for key, run_id, step, time_ms, value in self._connection.execute(chunk):
                point = (step, time_ms, math.nan if value is None else value)
                points.setdefault((key, run_id), []).append(point)
        found: dict[str, dict[str, History]] = {}
        for (key, run_id), of in points.items():
            found.setdefault(key, {})[run_id] = history_of(of)
        return found

    def artifacts(self, run: StoredRun) -> list[Artifact]:
        """List the artifacts of a run: files of this machine without MLflow, others through it."""
        if not run.artifact_uri:
            return []
        folder = local_artifacts(run)
        if folder is None:
            return listed_artifacts(run.artifact_uri)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return [Artifact(path=path.relative_to(folder).as_posix(), size=path.stat().st_size) for path in files]

    def read_artifact(self, run: StoredRun, name: str) -> bytes | None:
        """Return the content of an artifact that lies directly below the run's; None if there is none."""
        folder = local_artifacts(run)
        if folder is None:
            return fetched_artifact(run.artifact_uri, name) if run.artifact_uri else None
        path = folder / name
        return (
            path.read_bytes() if path.is_file() and not path.is_symlink() and path.stat().st_size <= MAX_BYTES else None
        )

    def _tags(self, run_ids: Sequence[str]) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {run_id: {} for run_id in run_ids}
        query = sa.select(_tags.c.run_uuid, _tags.c.key, _tags.c.value)
        for start in range(0, len(run_ids), _CHUNK):
            chunk = query.where(_tags.c.run_uuid.in_(run_ids[start : start + _CHUNK]))
            for run_id, key, value in self._connection.execute(chunk):
                found[run_id][key] = value or ""
        return found

    def _last(self, run_ids: Sequence[str]) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = {run_id: {} for run_id in run_ids}
        number = sa.case((_latest.c.is_nan, sa.null()), else_=_latest.c.value)
        query = sa.select(_latest.c.run_uuid, _latest.c.key, number)
        for start in range(0, len(run_ids), _CHUNK):
            chunk = query.where(_latest.c.run_uuid.in_(run_ids[start : start + _CHUNK]))
            for run_id, key, value in self._connection.execute(chunk):
                found[run_id][key] = math.nan if value is None else value
        return found

    def _pairs(self, table: Any, run_id: str) -> dict[str, str]:
        query = sa.select(table.c.key, table.c.value).where(table.c.run_uuid == run_id).order_by(table.c.key)
        return {key: value or "" for key, value in self._connection.execute(query)}


def local_artifacts(run: StoredRun) -> Path | None:
    """Return the folder of a run's artifacts; None if they are not files of this machine."""
    address = urlsplit(run.artifact_uri)
    return Path(unquote(address.path)) if address.scheme in ("", "file") and address.path else None


def _columns(run: Any) -> dict[str, Any]:
    return {
        "run_id": run.run_uuid,
        "name": run.name or "",
        "status": run.status,
        "start_ms": run.start_time,
        "end_ms": run.end_time,
    }


def _curve(parts: list[Any]) -> Curve:
    lowest = [unbounded(part.lowest) for part in parts if part.lowest is not None]
    highest = [unbounded(part.highest) for part in parts if part.highest is not None]
    return Curve(
        num_points=sum(part.num for part in parts),
        first_step=min(part.first for part in parts),
        last_step=max(part.last for part in parts),
        lowest=min(lowest, default=None),
        highest=max(highest, default=None),
        means=tuple(math.nan if part.mean is None else part.mean for part in parts),
    )
