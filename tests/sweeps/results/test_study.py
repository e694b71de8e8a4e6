"""Frames for notebooks: a row for each trial, or for each point of a metric, with the types that they have."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from run_stores import StoreWriter

import sweeps
from sweeps import load_study, runs_frame
from sweeps.core.errors import StudyError, UsageError

PARAMS = {
    "whole": [1, 2, 3],
    "some": [1, None, 3],
    "mixed": [1, 0.5, 2],
    "true": [True, False, True],
    "text": ["relu", "tanh", "relu"],
    "lists": [[1, 2], "auto", 3],
    "huge": [2**70, 1, 1],
}
DTYPES = {
    "whole": "int64",
    "some": "Int64",
    "mixed": "float64",
    "true": "bool",
    "text": str(pd.Series([""]).dtype),
    "lists": "object",
    "huge": "object",
}


@pytest.fixture
def typed(tmp_path: Path, empty_mlflow: Path) -> pd.DataFrame:
    (tmp_path / "mlflow.db").write_bytes(empty_mlflow.read_bytes())
    writer = StoreWriter(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
    writer.add({}, kind="study", study="typed", metric="val/acc", direction="maximize")
    for number in range(3):
        params = {key: values[number] for key, values in PARAMS.items() if values[number] is not None}
        found = {"params": json.dumps(params), "slot": str(number % 2)}
        writer.trial("typed", number, number / 2, {"val/acc": [0.1, number / 2]}, **found)
    return load_study("typed", store_dir=tmp_path).trials_frame()


@pytest.mark.parametrize("key", PARAMS)
def test_parameters_keep_their_types(typed: pd.DataFrame, key: str) -> None:
    column = typed[f"params.{key}"]

    assert column.dtype == DTYPES[key]
    assert [None if value is pd.NA else value for value in column] == PARAMS[key]


def test_trials_frame_has_what_people_look_for(typed: pd.DataFrame) -> None:
    assert list(typed.columns[:6]) == ["number", "state", "value", "began", "duration_s", "slot"]
    assert list(typed.columns[-5:]) == ["metrics.val/acc", "reason", "infeasible", "name", "run_id"]
    assert typed.dtypes[["number", "slot", "value", "duration_s"]].tolist() == ["int64", "int64", "float64", "float64"]
    assert str(typed["began"].dt.tz) == "UTC" and typed["began"].iloc[0] == pd.Timestamp("1970-01-01T00:00:01Z")
    assert typed.loc[typed["value"].idxmax(), "number"] == 2


def test_what_a_trial_lacks_is_missing(address: str) -> None:
    frame = load_study("a", uri=address).trials_frame().set_index("number")

    assert frame["slot"].isna().all() and frame["slot"].dtype == "Int64"
    assert math.isnan(frame.loc[0, "metrics.epoch"]) and frame.loc[1, "metrics.epoch"] == 2
    assert frame.loc[2, "reason"] == "nan at step 5" and frame.loc[3, "infeasible"].startswith("num_params=9")


def test_several_objectives_have_a_column_each(address: str) -> None:
    frame = load_study("front", uri=address).trials_frame()

    assert frame["values.val/loss"].tolist() == [0.1, 0.4, 0.9]
    assert frame["is_on_front"].tolist() == [True, True, False] and frame["is_on_front"].dtype == bool


def test_frame_of_all_runs_has_every_study_and_train(address: str, filled: Any) -> None:
    frame = runs_frame(uri=address)

    assert set(frame["study"].dropna()) == {"a", "front", "restated", "train", "it's 50%#1"}
    assert frame["study"].isna().sum() == 2
    assert frame["number"].dtype == "Int64" and frame["run_id"].is_unique
    assert filled.ids["deleted"] not in set(frame["run_id"]) and filled.ids["dropped"] in set(frame["run_id"])
    assert (
        set(runs_frame("front", uri=address)["study"]) == set(runs_frame(["front"], uri=address)["study"]) == {"front"}
    )


def test_histories_frame_is_long(address: str) -> None:
    frame = load_study("a", uri=address).histories_frame(["val/loss", "epoch"])

    assert list(frame.columns) == ["trial", "metric", "step", "value", "time"]
    assert frame.groupby(["trial", "metric"], observed=True).size().to_dict() == {
        (0, "val/loss"): 3,
        (1, "epoch"): 3,
        (2, "val/loss"): 5,
    }
    assert frame["value"].tolist()[:3] == [1.0, 0.75, 0.875] and frame["step"].tolist()[:3] == [0, 1, 2]
    assert frame["time"].iloc[1] == pd.Timestamp("1970-01-01T00:00:00.010Z")
    assert np.array_equal(frame["value"][6:], [1.0, math.inf, math.nan, -math.inf, 2.0], equal_nan=True)


def test_all_histories_are_those_of_each_metric(address: str) -> None:
    study = load_study("a", uri=address)

    frame = study.histories_frame()

    assert set(frame["metric"]) == {"val/acc", "val/loss", "epoch", "train/loss_step"}
    assert len(frame) == sum(len(history) for key in set(frame["metric"]) for history in study.histories(key).values())
    assert len(study.histories_frame("train/loss_step")) == 1234


def test_unknown_metric_names_the_nearest(address: str) -> None:
    with pytest.raises(UsageError, match=r"No trial of 'a' has a metric 'val/los'. Did you mean 'val/loss'"):
        load_study("a", uri=address).histories_frame("val/los")
    with pytest.raises(StudyError, match="There is no study 'b'"):
        runs_frame(["b"], uri=address)


def test_study_without_trials_has_empty_frames_with_their_columns(tmp_path: Path, empty_mlflow: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(empty_mlflow.read_bytes())
    StoreWriter(f"sqlite:///{tmp_path}/mlflow.db", tmp_path).add({}, kind="study", study="new")
    study = load_study("new", store_dir=tmp_path)

    assert len(study.trials_frame()) == 0 and {"number", "value", "began"} <= set(study.trials_frame().columns)
    assert (
        study.histories_frame().dtypes["step"] == "int64"
        and study.best == []
        and len(runs_frame(store_dir=tmp_path)) == 0
    )
    assert str(study.trials_frame()["began"].dt.tz) == "UTC"


def test_package_finds_the_frame() -> None:
    assert sweeps.runs_frame is runs_frame
