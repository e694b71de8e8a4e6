"""The leaderboard against MLflow's own `search_runs`, over stores that MLflow's client wrote: same rows, same order.

Where Lightsweep differs on purpose, a test says how.
"""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweeps.results.queries import top_rows, trial_rows

ACC = {"metric": "val/acc", "direction": "maximize"}
LOSSES = (0.5, 0.1, math.nan, math.inf, -math.inf, 0.5, None, 0.0, 1e300, -2.5, 0.5)

Write = Callable[..., str]


class Store:
    """A store that is written and searched by MLflow's client alone."""

    def __init__(self, uri: str) -> None:
        from mlflow.tracking import MlflowClient

        self.uri = uri
        self.client = MlflowClient(uri)
        self.experiments = [self.client.create_experiment(name) for name in ("lightsweep", "another")]
        self._starts = itertools.count(1000)

    def write(
        self,
        metrics: dict[str, float | None],
        *,
        parent: str | None = None,
        experiment: int = 0,
        start_ms: int | None = None,
        ends: bool = True,
        **run_tags: str,
    ) -> str:
        found = {f"lightsweep.{key}": text for key, text in run_tags.items()}
        if parent is not None:
            found["mlflow.parentRunId"] = parent
        start = next(self._starts) if start_ms is None else start_ms
        run = self.client.create_run(self.experiments[experiment], start_time=start, tags=found)
        run_id = str(run.info.run_id)
        for key, value in metrics.items():
            if value is not None:
                self.client.log_metric(run_id, key, 0.25, step=0)  # which the next one replaces as the last
                self.client.log_metric(run_id, key, value, step=1)
        if ends:
            self.client.set_terminated(run_id)
        return run_id

    def search(self, metric: str, is_descending: bool, kinds: tuple[str, ...] = ("trial", "train")) -> list[str]:
        """Return the trials and trains as MLflow orders them; of equals the oldest first, as here."""
        order = [f"metrics.`{metric}` {'DESC' if is_descending else 'ASC'}", "attributes.start_time ASC"]
        found = self.client.search_runs(self.experiments, order_by=order)
        return [run.info.run_id for run in found if run.data.tags.get("lightsweep.kind") in kinds]


def fill(store: Store) -> None:
    """Write all that a store may have: two studies, nested replicates, odd values, strangers, what is half written."""
    for study in ("a", "b"):
        parent = store.write({"val/loss": 0.0}, kind="study", study=study, **ACC)
        for number, loss in enumerate(LOSSES):
            acc = 1 / (number + 2)
            more = {"trial": str(number), "state": "complete", "value": repr(acc), **ACC}
            metrics = {"val/loss": loss, "val/acc": acc}
            trial = store.write(metrics, parent=parent, kind="trial", study=study, experiment=number % 2, **more)
            replicate = {"kind": "replicate", "study": study, "trial": str(number), "replicate": "0"}
            store.write({"val/loss": -9.0, "val/acc": 9.0}, parent=trial, **replicate)
    store.write({"val/loss": 0.3, "val/acc": 0.01}, kind="train", folder="0000", value="0.01", **ACC)
    for twin in range(3):  # that began at once
        more = {"trial": str(20 + twin), "value": "0.2", **ACC}
        store.write({"val/loss": 0.5, "val/acc": 0.2}, start_ms=5000, kind="trial", study="a", **more)
    store.write({"val/loss": -7.0, "val/acc": 7.0})  # of another tool, in the same experiment
    deleted = store.write({"val/loss": -8.0, "val/acc": 8.0}, kind="trial", study="a", trial="30", value="8.0", **ACC)
    store.client.delete_run(deleted)
    store.write({}, kind="trial")  # its other tags did not come through
    store.write({"val/loss": 0.2}, kind="trial", study="a", trial="31", state="running", ends=False, **ACC)


@pytest.fixture(scope="module")
def sqlite_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db")
    fill(store)
    return store


def assert_same(store: Store) -> None:
    everything = trial_rows(store.uri)
    assert {row.run_id for row in everything} == set(store.search("val/loss", True))
    for metric, is_descending in itertools.product(("val/acc", "val/loss"), (True, False)):
        expected = store.search(metric, is_descending)
        for top in (1, 3, 7, len(expected), None):
            found = [row.run_id for row in top_rows(store.uri, [], top, metric, is_descending)]
            assert found == expected[:top], (metric, is_descending, top)


def test_rows_and_their_order_are_those_of_mlflow(sqlite_store: Store) -> None:
    assert_same(sqlite_store)


@pytest.mark.postgres
@pytest.mark.slow
def test_rows_and_their_order_are_those_of_mlflow_on_postgresql(postgres_url: str) -> None:
    store = Store(postgres_url.replace("postgresql:", "postgresql+psycopg:"))
    fill(store)
    assert_same(store)


def test_rows_have_the_metrics_that_mlflow_has(sqlite_store: Store) -> None:
    runs = {run.info.run_id: run for run in sqlite_store.client.search_runs(sqlite_store.experiments)}

    for row in trial_rows(sqlite_store.uri):
        theirs = runs[row.run_id].data.metrics
        for key, value in {**theirs, **row.metrics}.items():
            ours = row.metrics[key]
            is_infinite = abs(theirs[key]) > 1.7e308 and ours == math.copysign(math.inf, theirs[key])
            assert is_infinite or repr(ours) == repr(theirs[key]), (row.run_id, key, value)


def test_one_study_has_the_rows_that_a_filter_of_mlflow_has(sqlite_store: Store) -> None:
    mine = "tags.`lightsweep.study` = 'b' and tags.`lightsweep.kind` = 'trial'"
    order = ["metrics.`val/acc` DESC", "attributes.start_time ASC"]
    theirs = sqlite_store.client.search_runs(sqlite_store.experiments, mine, order_by=order)

    assert [row.run_id for row in top_rows(sqlite_store.uri, ["b"], None)] == [run.info.run_id for run in theirs]


# --- where Lightsweep differs --------------------------------------------------------------------------


@pytest.fixture
def write(tmp_path: Path, empty_mlflow: Path) -> Any:
    (tmp_path / "mlflow.db").write_bytes(empty_mlflow.read_bytes())
    store = Store(f"sqlite:///{tmp_path}/mlflow.db")

    def written(number: int, metrics: dict[str, float | None], **run_tags: str) -> str:
        return store.write(metrics, **{"kind": "trial", "study": "a", "trial": str(number), **ACC, **run_tags})

    written.store = store  # type: ignore[attr-defined]
    return written


def both(store: Store, metric: str, is_descending: bool = True) -> tuple[list[str], list[str]]:
    rows = top_rows(store.uri, [], None, metric, is_descending)
    return [row.run_id for row in rows], store.search(metric, is_descending)


def test_a_trial_is_judged_at_its_best_checkpoint_rather_than_at_its_end(write: Any) -> None:
    fell = write(0, {"val/acc": 0.1}, value="0.9")
    rose = write(1, {"val/acc": 0.8}, value="0.8")

    assert both(write.store, "val/acc") == ([fell, rose], [rose, fell])


def test_a_running_trial_has_no_value_of_the_studys_metric_yet(write: Any) -> None:
    running = write(0, {"val/acc": 0.9}, state="running")
    done = write(1, {"val/acc": 0.8}, value="0.8")

    assert both(write.store, "val/acc") == ([done, running], [running, done])


@pytest.mark.parametrize("odd", [{"state": "dropped"}, {"infeasible": "num_params=9 violates num_params <= 1"}])
def test_what_was_dropped_or_violates_constraints_comes_after_what_counts(write: Any, odd: dict[str, str]) -> None:
    best = write(0, {"val/acc": 0.9}, value="0.9", **odd)
    second = write(1, {"val/acc": 0.8}, value="0.8")

    assert both(write.store, "val/acc") == ([second, best], [best, second])
