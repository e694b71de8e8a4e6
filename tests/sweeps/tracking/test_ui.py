"""The view of a study that MLflow's UI opens; tests/end_to_end/test_browser.py opens it."""

import base64
import json
import zlib
from typing import Any

import pytest

from sweeps.tracking.ui import saved_view


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
