"""The view of a study in MLflow's UI, and the pages that show it; tests/end_to_end/test_browser.py opens them."""

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from sweeps.core.errors import StudyError
from sweeps.tracking.client import MlflowStore
from sweeps.tracking.ui import saved_view, study_pages


def state_of(study: str = "digits", **changes: Any) -> dict[str, Any]:
    options: dict[str, Any] = {
        "objectives": {"val/acc": "maximize"},
        "params": {"optimizer.lr": True, "optimizer.momentum": False},
        "metrics": ["train/loss", "val/loss", "val/acc", "test/acc"],
        "num_trials": 20,
        "created_ms": 1,
    }
    _, value = saved_view(study, **(options | changes))
    assert len(value) <= 5000, "older servers take no longer tags"
    packed = json.loads(value)["state"].removeprefix("deflate;")
    state: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(packed)))
    return state


def test_trials_are_sorted_by_the_leading_objective_best_first() -> None:
    state = state_of(objectives={"val/loss": "minimize", "val/acc": "maximize"})
    assert state["orderByKey"] == "metrics.`val/loss`" and state["orderByAsc"] is True
    assert state_of()["orderByAsc"] is False


def test_columns_are_the_results_and_what_is_searched() -> None:
    assert state_of()["selectedColumns"] == [
        *("metrics.`val/acc`", "metrics.`val/loss`", "metrics.`test/acc`"),
        *("params.`optimizer.lr`", "params.`optimizer.momentum`", "tags.`lightsweep.state`"),
    ]


def test_a_parameter_that_some_trials_lack_is_no_parallel_coordinate() -> None:
    parallel, first, second, *curves = state_of()["compareRunCharts"]
    assert parallel["selectedParams"] == ["optimizer.lr"]
    assert [first["xaxis"]["key"], second["xaxis"]["key"]] == ["optimizer.lr", "optimizer.momentum"]
    assert [curve["metricKey"] for curve in curves] == ["val/acc", "val/loss", "train/loss"]


def test_of_many_trials_the_charts_show_the_best_twenty() -> None:
    assert state_of(num_trials=100)["runsHiddenMode"] == "SHOW_ALL"
    assert state_of(num_trials=101)["runsHiddenMode"] == "FIRST_20_RUNS"


def test_a_space_of_hundreds_of_parameters_fits() -> None:
    params = {f"model.blocks.{number}.attention.dropout_probability": True for number in range(500)}
    assert len(state_of(params=params)["selectedColumns"]) == 40


@pytest.mark.parametrize("study", ["it's", "a\\b", 'quo"te', "100%", "plain"])
def test_the_filter_finds_the_trials_of_this_study_alone(study: str, tmp_path: Any) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.create_experiment("e", artifact_location=tmp_path.as_uri())
    for name, kind in ((study, "trial"), (study, "study"), (f"x{study}", "trial"), (f"{study}x", "trial")):
        client.create_run(experiment, tags={"lightsweep.study": name, "lightsweep.kind": kind})
    found = client.search_runs([experiment], state_of(study)["searchFilter"])
    assert [run.data.tags["lightsweep.study"] for run in found] == [study]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[MlflowStore, str]:
    """An empty store, and its address."""
    is_file = request.param == "sqlite"
    uri = f"sqlite:///{tmp_path}/mlflow.db" if is_file else request.getfixturevalue("postgres_url")
    return MlflowStore(uri, "lightsweep", tmp_path / "artifacts"), uri


def add(store: MlflowStore, study: str, start_ms: int, end_ms: int | None) -> str:
    run_tags = {"lightsweep.kind": "study", "lightsweep.study": study}
    run_id = store.create_run(study, run_tags=run_tags, parent=None, start_time_ms=start_ms)
    if end_ms is not None:
        store.end_run(run_id, "FINISHED", end_time_ms=end_ms)
    return run_id


def test_the_study_that_ended_last_is_shown_unless_one_runs(store: Any) -> None:
    mlflow, uri = store
    add(mlflow, "first", 1, 9)
    add(mlflow, "second", 2, 5)
    assert study_pages(uri).study == "first"
    running = add(mlflow, "third", 3, None)
    assert study_pages(uri).study == "third" and running in study_pages(uri).front


def test_a_study_is_shown_in_its_saved_view_if_there_is_one(store: Any) -> None:
    from sweeps.tracking.ui import VIEW, view_key

    mlflow, uri = store
    add(mlflow, "old", 1, 2)
    add(mlflow, "new", 1, 3)
    mlflow.tag_experiment(VIEW + view_key("new"), "{}")
    old, new = study_pages(uri, "old"), study_pages(uri, "new")
    assert old.charts is None and "viewStateShareKey" not in str(old.trials)
    assert view_key("new") in str(new.trials) and "compareRunsMode=CHART" in str(new.charts)


def test_a_store_without_a_study_has_the_page_of_all_experiments(store: Any) -> None:
    assert study_pages(store[1]).front == "#/experiments" and study_pages(store[1]).study is None


def test_an_unknown_study_names_the_nearest(store: Any) -> None:
    add(store[0], "fashion", 1, 2)
    with pytest.raises(StudyError, match="Did you mean 'fashion'"):
        study_pages(store[1], "fashoin")
