"""The best 100 of 20,000 runs with 50 parameters and 10 metrics each: `compare` against MLflow's search_runs.

On SQLite and on PostgreSQL. Runs five minutes. Arguments are other numbers of runs, parameters and metrics; then no
result file is written:

    python benchmarks/compare_runs.py 2000
    python benchmarks/compare_runs.py 100000 10 5
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from harness import Result, lightsweep, median, scratch
from stores import METRIC, NUM_METRICS, NUM_PARAMS, databases, fill_runs, timed

from sweeps.results.queries import top_rows
from sweeps.results.select import Selection, parse_where, selected_rows

_RUNS, _TOP, _REPEATS = 20_000, 100, 7
_QUERY_S, _COMMAND_S, _WHERE_S = 0.3, 1.5, 1.0
_WHERE = f"params.model.part0.param0 > 0.5 and metrics.{METRIC} > 0.9"
_GROUP = "study"


def compare(uri: str, *options: str) -> list[str]:
    """Run the whole command, and return the runs that it lists."""
    command = [*lightsweep(), "compare", "--uri", uri, "--format", "json", *options]
    listed = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ).stdout
    return [row["run_id" if "run_id" in row else "best_run_id"] for row in json.loads(listed)]


def peak_mb(uri: str, *options: str) -> float:
    """Run the whole command, and return its peak memory (Linux)."""
    code = (
        "import sys; from sweeps.cli.main import main; main(sys.argv[1:]); "
        "print(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0], file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "compare", "--uri", uri, "--format", "json", *options]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stderr.split()[-1]) / 1000


def search_runs(uri: str, experiments: list[str], filter_string: str = "") -> list[str]:
    from mlflow.tracking import MlflowClient

    order = [f"metrics.`{METRIC}` DESC"]
    found = MlflowClient(uri).search_runs(experiments, filter_string, order_by=order, max_results=_TOP)
    return [run.info.run_id for run in found]


def measure(name: str, uri: str, num_runs: int, num_params: int, num_metrics: int, result: Result) -> bool:
    """Measure over one database, and return whether the targets are met."""
    sort = f"param{num_params - 1}"
    experiments, _ = timed(lambda: fill_runs(uri, num_runs, num_params=num_params, num_metrics=num_metrics), 1)
    ours, query = timed(lambda: top_rows(uri, [], _TOP, METRIC), _REPEATS)
    _, by_value = timed(lambda: top_rows(uri, [], _TOP), _REPEATS)
    where = Selection(where=parse_where(_WHERE), metric=METRIC, top=_TOP)
    chosen, condition = timed(lambda: selected_rows(uri, [], where), _REPEATS)
    listed, command = timed(lambda: compare(uri, f"--top={_TOP}", f"--metric={METRIC}"), _REPEATS)
    passed, with_where = timed(lambda: compare(uri, f"--top={_TOP}", f"--metric={METRIC}", "--where", _WHERE), _REPEATS)
    _, with_sort = timed(lambda: compare(uri, f"--top={_TOP}", f"--sort={sort}"), _REPEATS)
    peaks = [peak_mb(uri, f"--top={_TOP}", *options) for options in (["--where", _WHERE], [f"--sort={sort}"])]
    groups, with_group = timed(lambda: compare(uri, f"--group-by={_GROUP}", f"--metric={METRIC}"), _REPEATS)
    theirs, peer = timed(lambda: search_runs(uri, experiments), 1)
    theirs_passed, peer_where = timed(lambda: search_runs(uri, experiments, f"metrics.`{METRIC}` > 0.9"), 1)

    assert [row.run_id for row in ours] == listed == theirs
    assert [row.run_id for row in chosen] == passed and theirs[0] in groups
    assert theirs_passed[0] == theirs[0]  # params are texts to MLflow: its filter has half of the condition
    result.add(f"{name}: the query", f"{median(query):.2f} s", f"the best {_TOP} by a metric, medians of {_REPEATS}")
    result.add(f"{name}: the query, by each study's own metric", f"{median(by_value):.2f} s")
    result.add(f"{name}: the query, with --where", f"{median(condition):.2f} s", _WHERE)
    result.add(f"{name}: the whole command", f"{median(command):.2f} s", "from the shell to the end of its output")
    result.add(f"{name}: the whole command, with --where", f"{median(with_where):.2f} s")
    result.add(f"{name}: the whole command, with --sort", f"{median(with_sort):.2f} s", f"by {sort}")
    result.add(f"{name}: peak memory with --where or --sort", f"{max(peaks):.0f} MB")
    result.add(f"{name}: the whole command, with --group-by", f"{median(with_group):.2f} s", _GROUP)
    result.add(f"{name}: mlflow's search_runs", f"{peer[0]:.2f} s", "the same runs in the same order, after its import")
    result.add(f"{name}: mlflow's search_runs, filtered", f"{peer_where[0]:.2f} s", "by the metric alone")
    figures = {"query": query, "by_value": by_value, "where": condition, "command": command}
    figures |= {"command_where": with_where, "command_sort": with_sort, "command_group": with_group}
    result.raw[name] = figures | {"peer": peer, "peer_where": peer_where}
    return median(query) <= _QUERY_S and median(command) <= _COMMAND_S and median(with_where) <= _WHERE_S


def main() -> None:
    sizes = tuple(map(int, sys.argv[1:4]))
    num_runs, num_params, num_metrics = sizes + (_RUNS, NUM_PARAMS, NUM_METRICS)[len(sizes) :]
    result = Result(
        name=Path(__file__).stem,
        claim=f"the best {_TOP} of {num_runs:,} runs ({num_params} params, {num_metrics} metrics each) by a metric: "
        f"the query at most {_QUERY_S} s, the whole command at most {_COMMAND_S} s, and at most {_WHERE_S} s with a "
        "condition on a parameter; on SQLite and on PostgreSQL",
    )
    with scratch() as folder, databases(folder) as uris:
        held = [measure(name, uri, num_runs, num_params, num_metrics, result) for name, uri in uris.items()]
    result.holds = all(held)
    if not sizes:
        result.save()


if __name__ == "__main__":
    main()
