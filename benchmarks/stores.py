"""Stores for the benchmarks of reading: MLflow's own tables, in SQLite and PostgreSQL, filled by SQL.

MLflow's client would take an hour to write 20,000 runs.
"""

import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from sweeps.core.urls import with_installed_driver
from sweeps.tracking import tags

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "sweeps"))
from postgres_servers import PostgresServer, is_installed

__all__ = ["METRIC", "NUM_METRICS", "NUM_PARAMS", "databases", "fill_histories", "fill_runs", "timed"]

NUM_PARAMS, NUM_METRICS, METRIC = 50, 10, "val/metric3"
_STUDIES = 4
_BEGAN_MS = 1_700_000_000_000


@contextmanager
def databases(folder: Path) -> Iterator[dict[str, str]]:
    """Yield the addresses of empty databases: a file in the folder, and one of a server if that is installed."""
    found = {"SQLite": f"sqlite:///{folder / 'mlflow.db'}"}
    if not is_installed():
        yield found
        return
    server = PostgresServer(Path(f"/tmp/lightsweep-bench-pg-{os.getpid()}"))  # where its user may write
    try:
        yield found | {"PostgreSQL": with_installed_driver(server.new_database())}
    finally:
        server.close()


def timed(work: Callable[[], Any], repeats: int) -> tuple[Any, list[float]]:
    """Return what the work gives, and how long it took each time."""
    seconds, found = [], None
    for _ in range(repeats):
        began = time.perf_counter()
        found = work()
        seconds.append(time.perf_counter() - began)
    return found, seconds


def fill_runs(uri: str, num_runs: int, *, num_params: int = NUM_PARAMS, num_metrics: int = NUM_METRICS) -> list[str]:
    """Create the tables, put finished trials of four studies into them, and return the ids of their experiments."""
    size = {"num_params": num_params, "num_metrics": num_metrics}
    with _tables(uri) as (connection, tables, experiment):
        for study in range(_STUDIES):
            _insert(connection, tables, _parent(f"study{study}", experiment))
        for start in range(0, num_runs, 1000):
            numbers = range(start, min(start + 1000, num_runs))
            study_of = {number: f"study{number % _STUDIES}" for number in numbers}
            rows = [
                row for number in numbers for row in _trial(number, study_of[number], experiment, num_points=1, **size)
            ]
            _insert(connection, tables, rows)
    _settle(uri)
    return [str(experiment)]


def fill_histories(uri: str, num_runs: int, num_points: int) -> list[str]:
    """Create the tables, put one study of trials with ten metrics of many points each into them; return the runs."""
    with _tables(uri) as (connection, tables, experiment):
        _insert(connection, tables, _parent("curves", experiment))
        rows = [row for number in range(num_runs) for row in _trial(number, "curves", experiment, num_points=0)]
        _insert(connection, tables, rows)
        for index in range(NUM_METRICS):
            connection.execute(
                sa.text(
                    "insert into metrics (key, value, timestamp, run_uuid, step, is_nan) "
                    "with recursive steps(step) as (select 0 union all select step + 1 from steps where step < :last) "
                    "select :key, ((step * 7919) % 10007) / 10007.0, :began + 10 * step, run_uuid, step, "
                    f"{'0' if connection.dialect.name == 'sqlite' else 'false'} from runs, steps"
                ),
                {"key": f"val/metric{index}", "last": num_points - 1, "began": _BEGAN_MS},
            )
    _settle(uri)
    return [row["run_uuid"] for name, row in rows if name == "runs"]


@contextmanager
def _tables(uri: str) -> Iterator[tuple[sa.Connection, Any, int]]:
    from mlflow.tracking import MlflowClient

    experiment = MlflowClient(uri).create_experiment("lightsweep")
    engine = sa.create_engine(uri)
    tables = sa.MetaData()
    tables.reflect(engine, only=["runs", "tags", "params", "latest_metrics", "metrics"])
    with engine.begin() as connection:
        yield connection, tables.tables, int(experiment)
    engine.dispose()


def _insert(connection: sa.Connection, tables: Any, rows: Any) -> None:
    for name in ("runs", "tags", "params", "latest_metrics", "metrics"):
        of_table = [row for table, row in rows if table == name]
        if of_table:
            connection.execute(sa.insert(tables[name]), of_table)


def _settle(uri: str) -> None:
    """Do what PostgreSQL's autovacuum would have done by the time that somebody looks; SQLite has no such thing."""
    engine = sa.create_engine(uri, isolation_level="AUTOCOMMIT")
    if engine.dialect.name == "postgresql":
        with engine.connect() as connection:
            connection.execute(sa.text("vacuum analyze"))
    engine.dispose()


def _parent(study: str, experiment: int) -> list[tuple[str, dict[str, Any]]]:
    found = {tags.KIND: "study", tags.STUDY: study, tags.METRIC: "val/metric0", tags.DIRECTION: "maximize"}
    return list(_run(f"{random.Random(study).getrandbits(128):032x}", study, _BEGAN_MS, experiment, found))


def _trial(
    number: int,
    study: str,
    experiment: int,
    *,
    num_points: int,
    num_params: int = NUM_PARAMS,
    num_metrics: int = NUM_METRICS,
) -> Iterator[tuple[str, dict[str, Any]]]:
    draw = random.Random(number)
    run_id = f"{draw.getrandbits(128):032x}"
    start_ms = _BEGAN_MS + 1000 * number
    params = {f"model.part{index % 5}.param{index}": draw.random() for index in range(num_params)}
    metrics = {f"val/metric{index}": draw.random() for index in range(num_metrics)}
    found = {
        tags.KIND: "trial",
        tags.STUDY: study,
        tags.TRIAL: str(number // _STUDIES if study != "curves" else number),
        tags.STATE: "complete",
        tags.METRIC: "val/metric0",
        tags.DIRECTION: "maximize",
        tags.VALUE: repr(metrics["val/metric0"]),
        tags.PARAMS: json.dumps(params),
        tags.FOLDER: f"{number:04d}",
        "mlflow.runName": f"#{number}",
        "mlflow.user": "me",
        "mlflow.source.name": "lightsweep",
    }
    yield from _run(run_id, f"#{number}", start_ms, experiment, found)
    for key, value in params.items():
        yield "params", {"run_uuid": run_id, "key": key, "value": repr(value)}
    for key, value in [*metrics.items(), (tags.value_metric("val/metric0", "maximize"), metrics["val/metric0"])]:
        point = {"run_uuid": run_id, "key": key, "value": value, "timestamp": start_ms, "step": 1, "is_nan": False}
        yield "latest_metrics", point
        if num_points:
            yield "metrics", point


def _run(
    run_id: str, name: str, start_ms: int, experiment: int, run_tags: dict[str, str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    yield (
        "runs",
        {
            "run_uuid": run_id,
            "name": name,
            "experiment_id": experiment,
            "user_id": "me",
            "status": "FINISHED",
            "source_type": "LOCAL",
            "start_time": start_ms,
            "end_time": start_ms + 900,
            "lifecycle_stage": "active",
            "artifact_uri": "",
        },
    )
    for key, text in run_tags.items():
        yield "tags", {"run_uuid": run_id, "key": key, "value": text}
