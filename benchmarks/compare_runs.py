"""The best 100 of 20,000 runs with 50 parameters and 10 metrics each: `compare` against MLflow's search_runs.

The tables are MLflow's own; the runs are put into them by SQL, since MLflow's client would take an hour. Runs two
minutes. A first argument makes it smaller; then no result file is written:

    python benchmarks/compare_runs.py 2000
"""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from harness import Result, lightsweep, median, scratch

from sweeps.paths import MLFLOW_DB
from sweeps.queries import top_rows, trial_rows
from sweeps.tracking import tags

_RUNS, _PARAMS, _METRICS, _TOP, _REPEATS = 20_000, 50, 10, 100, 5
_QUERY_S, _COMMAND_S = 0.3, 1.5
_STUDIES = 4
_METRIC = "val/metric3"


def fill(uri: str, num_runs: int) -> list[str]:
    """Create MLflow's tables, put the runs into them, and return the ids of their experiments."""
    from mlflow.tracking import MlflowClient

    experiment = MlflowClient(uri).create_experiment("lightsweep")
    engine = sa.create_engine(uri)
    tables = sa.MetaData()
    tables.reflect(engine, only=["runs", "tags", "params", "latest_metrics", "metrics"])
    with engine.begin() as connection:
        for start in range(0, num_runs, 1000):
            numbers = range(start, min(start + 1000, num_runs))
            rows: dict[str, list[dict[str, Any]]] = {name: [] for name in tables.tables if name != "experiments"}
            for number in numbers:
                for name, row in _rows_of(number, int(experiment)):
                    rows[name].append(row)
            for name in ("runs", "tags", "params", "latest_metrics", "metrics"):
                connection.execute(sa.insert(tables.tables[name]), rows[name])
    engine.dispose()
    return [experiment]


def _rows_of(number: int, experiment: int) -> Iterator[tuple[str, dict[str, Any]]]:
    draw = random.Random(number)
    run_id = f"{draw.getrandbits(128):032x}"
    start_ms = 1_700_000_000_000 + 1000 * number
    params = {f"model.part{index % 5}.param{index}": draw.random() for index in range(_PARAMS)}
    metrics = {f"val/metric{index}": draw.random() for index in range(_METRICS)}
    found = {
        tags.KIND: "trial",
        tags.STUDY: f"study{number % _STUDIES}",
        tags.TRIAL: str(number // _STUDIES),
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
    yield (
        "runs",
        {
            "run_uuid": run_id,
            "name": f"#{number}",
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
    for key, text in found.items():
        yield "tags", {"run_uuid": run_id, "key": key, "value": text}
    for key, value in params.items():
        yield "params", {"run_uuid": run_id, "key": key, "value": repr(value)}
    for key, value in metrics.items():
        point = {"run_uuid": run_id, "key": key, "value": value, "timestamp": start_ms, "step": 1, "is_nan": False}
        yield "latest_metrics", point
        yield "metrics", point


def timed(work: Callable[[], Any], repeats: int) -> tuple[Any, list[float]]:
    """Return what the work gives, and how long it took each time."""
    seconds, found = [], None
    for _ in range(repeats):
        began = time.perf_counter()
        found = work()
        seconds.append(time.perf_counter() - began)
    return found, seconds


def compare(*options: str) -> list[str]:
    """Run the whole command, and return the runs that it lists."""
    command = [*lightsweep(), "compare", "--store-dir", ".", "--format", "json", *options]
    listed = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ).stdout
    return [row["run_id"] for row in json.loads(listed)]


def main() -> None:
    num_runs = int(sys.argv[1]) if len(sys.argv) > 1 else _RUNS
    result = Result(
        name=Path(__file__).stem,
        claim=f"the best {_TOP} of {num_runs:,} runs ({_PARAMS} params, {_METRICS} metrics each) by a metric: the "
        f"query at most {_QUERY_S} s, the whole command at most {_COMMAND_S} s",
    )
    with scratch() as folder:
        uri = f"sqlite:///{folder / MLFLOW_DB}"
        experiments, seconds = timed(lambda: fill(uri, num_runs), 1)
        result.add("filling the store", f"{seconds[0]:.0f} s", f"{(folder / MLFLOW_DB).stat().st_size / 1e6:.0f} MB")

        ours, query = timed(lambda: top_rows(uri, [], _TOP, _METRIC), _REPEATS)
        _, by_value = timed(lambda: top_rows(uri, [], _TOP), _REPEATS)
        listed, command = timed(lambda: compare(f"--top={_TOP}", f"--metric={_METRIC}"), _REPEATS)
        everything, all_rows = timed(lambda: trial_rows(uri), 1)
        theirs, peer = timed(lambda: search_runs(uri, experiments), 1)

        assert [row.run_id for row in ours] == listed == theirs
        result.add("the query", f"{median(query):.2f} s", f"the best {_TOP} by a metric, medians of {_REPEATS}")
        result.add("the query, by each study's own metric", f"{median(by_value):.2f} s")
        result.add("the whole command", f"{median(command):.2f} s", "from the shell to the end of its output")
        result.add("reading all rows", f"{all_rows[0]:.2f} s", f"{len(everything):,} rows, as `--format csv` needs")
        result.add(
            "mlflow's search_runs", f"{peer[0]:.2f} s", "the same runs in the same order; its import not counted"
        )
        result.raw = {"query": query, "by_value": by_value, "command": command, "all": all_rows}
        result.raw["peer"] = peer
        result.holds = median(query) <= _QUERY_S and median(command) <= _COMMAND_S
    if num_runs == _RUNS:
        result.save()


def search_runs(uri: str, experiments: list[str]) -> list[str]:
    from mlflow.tracking import MlflowClient

    order = [f"metrics.`{_METRIC}` DESC"]
    return [run.info.run_id for run in MlflowClient(uri).search_runs(experiments, order_by=order, max_results=_TOP)]


if __name__ == "__main__":
    main()
