"""A frame of all 20,000 runs, and the histories of 200 runs x 1,000 points: against MLflow's client.

On SQLite and on PostgreSQL. Runs ten minutes. A first argument makes it smaller; then no result file is written:

    python benchmarks/frames.py 2000
"""

import math
import sys
from pathlib import Path

from harness import Result, median, scratch
from stores import METRIC, NUM_METRICS, NUM_PARAMS, databases, fill_histories, fill_runs, timed

from sweeps import load_study, runs_frame

_RUNS, _CURVES, _POINTS, _REPEATS = 20_000, 200, 1000, 5
_FRAME_S, _HISTORIES_S = 8.0, 2.0


def search_runs(uri: str, experiments: list[str]) -> "object":
    import mlflow

    mlflow.set_tracking_uri(uri)
    return mlflow.search_runs(experiments)


def client_histories(uri: str, run_ids: list[str]) -> list[int]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    return [len(client.get_metric_history(run_id, METRIC)) for run_id in run_ids]


def measure_frame(name: str, uri: str, num_runs: int, result: Result) -> bool:
    """Measure the frame of all runs over one database, and tell whether the target is met."""
    experiments = fill_runs(uri, num_runs)
    ours, seconds = timed(lambda: runs_frame(uri=uri), _REPEATS)
    theirs, peer = timed(lambda: search_runs(uri, experiments), 1)

    theirs = theirs[theirs["tags.lightsweep.kind"] == "trial"].set_index("run_id")
    mine = ours.set_index("run_id")
    assert len(ours) == num_runs and set(mine.index) == set(theirs.index)
    column = f"metrics.{METRIC}"
    assert math.isclose((mine[column] - theirs[column]).abs().max(), 0)
    result.add(f"{name}: a frame of all runs", f"{median(seconds):.2f} s", f"{len(ours.columns)} columns")
    result.add(f"{name}: mlflow.search_runs", f"{peer[0]:.2f} s", "the same runs as a frame, params as texts")
    result.raw[name] = {"frame": seconds, "peer_frame": peer}
    return median(seconds) <= _FRAME_S


def measure_histories(name: str, uri: str, num_runs: int, result: Result) -> bool:
    """Measure the histories of metrics over one database, and tell whether the target is met."""
    run_ids = fill_histories(uri, num_runs, _POINTS)
    _, loading = timed(lambda: load_study("curves", uri=uri), _REPEATS)
    study = load_study("curves", uri=uri)
    one, seconds = timed(lambda: study.histories_frame(METRIC), _REPEATS)
    every, of_all = timed(study.histories_frame, 3)
    theirs, peer = timed(lambda: client_histories(uri, run_ids), 1)

    assert len(one) == sum(theirs) == num_runs * _POINTS and len(every) == NUM_METRICS * len(one)
    points = f"{num_runs} runs x {_POINTS:,} points"
    result.add(f"{name}: the study", f"{median(loading):.2f} s", "load_study: its trials, space and parent")
    result.add(f"{name}: histories of a metric", f"{median(seconds):.2f} s", f"{points}, as a frame")
    result.add(f"{name}: histories of {NUM_METRICS} metrics", f"{median(of_all):.2f} s", f"{len(every):,} points")
    result.add(
        f"{name}: mlflow's get_metric_history", f"{peer[0]:.2f} s", f"{points} of one metric, a call for each run"
    )
    result.raw[name] |= {"load": loading, "histories": seconds, "histories_of_all": of_all, "peer_histories": peer}
    return median(seconds) <= _HISTORIES_S


def main() -> None:
    num_runs = int(sys.argv[1]) if len(sys.argv) > 1 else _RUNS
    num_curves = _CURVES if num_runs == _RUNS else 20
    result = Result(
        name=Path(__file__).stem,
        claim=f"a frame of all {num_runs:,} runs ({NUM_PARAMS} params, {NUM_METRICS} metrics each) takes at most "
        f"{_FRAME_S:g} s, and the histories of a metric of {num_curves} runs x {_POINTS:,} points at most "
        f"{_HISTORIES_S:g} s; on SQLite and on PostgreSQL",
    )
    held = []
    with scratch() as folder:
        with databases(folder) as uris:
            held += [measure_frame(name, uri, num_runs, result) for name, uri in uris.items()]
        (folder / "curves").mkdir()
        with databases(folder / "curves") as uris:
            held += [measure_histories(name, uri, num_curves, result) for name, uri in uris.items()]
    result.holds = all(held)
    if num_runs == _RUNS:
        result.save()


if __name__ == "__main__":
    main()
