"""Metrics and parameters are read back by the names and with the values that they were given, whatever MLflow takes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow.tracking
import pytest
import sqlalchemy as sa
from mlflow.tracking import MlflowClient

from sweeps.cli.commands.diff import difference
from sweeps.core.messages import MetricPoint
from sweeps.core.urls import with_installed_driver
from sweeps.results.queries import chosen_rows, top_rows, trial_rows
from sweeps.results.rows import sorted_rows
from sweeps.results.run import read_runs
from sweeps.results.select import Selection, parse_where, selected_rows
from sweeps.results.study import load_study
from sweeps.tracking import tags
from sweeps.tracking.client import MlflowStore
from sweeps.tracking.database import connected

METRICS = {"val//f1": 0.1, "val/f1": 0.2, "val/AR@100": 0.3, "val/AR_100": 0.4, "": 0.5, "a_x40_b": 0.6}
PROMPTS = ["x" * 8970, "x" * 9660 + 'an end {with: "odd"} marks']
SPACE = {"model.prompt": json.dumps(PROMPTS), "model.lr": "0.1,0.2", "model.widths[0]": "range(1,3)"}


def fill(uri: str, folder: Path) -> None:
    store = MlflowStore(uri, "an experiment", folder / "artifacts")
    judged = {tags.STUDY: "odd", tags.METRIC: "val//f1", tags.DIRECTION: "maximize"}
    parent_tags = {**judged, tags.KIND: "study", tags.SPACE: json.dumps(SPACE)}
    parent = store.create_run("odd", run_tags=parent_tags, parent=None, start_time_ms=1000)
    for number in range(4):
        values = {"model.prompt": PROMPTS[number % 2], "model.lr": [0.1, 0.2][number // 2]}
        run_id = store.create_run(
            f"#{number}",
            run_tags={
                **judged,
                tags.KIND: "trial",
                tags.TRIAL: str(number),
                tags.STATE: "complete",
                tags.FOLDER: f"{number:04d}",
                tags.VALUE: repr(0.1 + number),
                tags.PARAMS: json.dumps(values),
                "my@tag": "own",
            },
            parent=parent,
            start_time_ms=2000 + number,
        )
        store.log_params(run_id, {**values, "model.widths[0]": number, "model.note": "n" * 7000 + str(number)})
        points = [MetricPoint(key, value + number, 5, 1000) for key, value in METRICS.items()]
        store.log_metrics(run_id, [MetricPoint("val//f1", -1.0, 1, 900), *points])
        store.end_run(run_id, "FINISHED", end_time_ms=5000)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, empty_mlflow: Path) -> str:
    folder = tmp_path_factory.mktemp("odd")
    (folder / "mlflow.db").write_bytes(empty_mlflow.read_bytes())
    fill(f"sqlite:///{folder}/mlflow.db", folder)
    return f"sqlite:///{folder}/mlflow.db"


@pytest.fixture(params=["database", "server"])
def uri(request: pytest.FixtureRequest, written: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "server":
        client = MlflowClient(written)  # speaks to the tables what it would speak to a server
        monkeypatch.setattr(mlflow.tracking, "MlflowClient", lambda address: client)
    yield written if request.param == "database" else "http://localhost:5000"


def assert_read_back(uri: str) -> None:
    rows = trial_rows(uri, ["odd"])
    assert [row.metrics for row in rows] == [
        {key: pytest.approx(value + number) for key, value in METRICS.items()} for number in range(4)
    ]
    assert [row.params["model.prompt"] for row in rows] == [PROMPTS[number % 2] for number in range(4)]
    assert [row.params["model.lr"] for row in rows] == [0.1, 0.1, 0.2, 0.2]
    for metric in METRICS:
        assert [row.trial for row in top_rows(uri, ["odd"], 2, metric, True)] == [3, 2]
        where = parse_where("`metrics.{}` > 2".format(metric or "") + " and lr >= 0.2") if metric else None
        found = selected_rows(uri, ["odd"], Selection(where=where, metric=metric, is_descending=False))
        assert [row.trial for row in found][:2] == ([2, 3] if where else [0, 1])


def test_rows_have_their_metrics_and_params_by_their_own_names(uri: str) -> None:
    assert_read_back(uri)


@pytest.mark.postgres
def test_rows_have_their_metrics_and_params_by_their_own_names_on_postgresql(postgres_url: str, tmp_path: Path) -> None:
    url = with_installed_driver(postgres_url)
    fill(url, tmp_path)
    assert_read_back(url)
    with connected(url) as connection:
        assert connection.scalar(sa.text("select max(length(value)) from tags")) == 8000


def test_a_condition_sees_long_texts_whole(uri: str) -> None:
    where = parse_where("prompt like '%marks' and lr < 0.2")
    assert [row.trial for row in selected_rows(uri, ["odd"], Selection(where=where))] == [1]


def test_rows_to_choose_from_have_the_same_params_as_rows_in_full(written: str) -> None:
    seen: list[Any] = []

    def choose(rows: list[Any]) -> list[Any]:
        seen.extend((row.trial, row.params["model.prompt"], row.metrics["val/AR@100"]) for row in rows)
        return rows

    chosen_rows(written, ["odd"], choose, names=["trial", "model.prompt", "metrics.val/AR@100"], in_full=False)
    rows = trial_rows(written, ["odd"])
    assert seen == [(row.trial, row.params["model.prompt"], row.metrics["val/AR@100"]) for row in rows]


def test_one_run_is_shown_whole(uri: str, tmp_path: Path) -> None:
    (detail, other) = read_runs(uri, ["odd#1", "odd#0"], tmp_path, lists_artifacts=False)
    assert detail.metrics["val//f1"].last == pytest.approx(1.1)
    assert detail.metrics["val//f1"].curve is not None and detail.metrics["val//f1"].curve.num_points == 2
    assert detail.searched["model.prompt"] == detail.config["model.prompt"] == PROMPTS[1]
    assert detail.config["model.widths[0]"] == "1"
    assert detail.run.tags["my@tag"] == "own" and json.loads(detail.run.tags[tags.PARAMS]) == detail.searched
    assert not {f"{tags.PARAMS}.1", f"{tags.PARAMS}.2"} & detail.run.tags.keys()
    found = difference([detail, other]).sections
    assert found["searched"]["model.prompt"] == (PROMPTS[1], PROMPTS[0])
    note = found["config"]["model.note"]
    assert note[0] != note[1] and note[0] is not None and "7,001 characters" in note[0]


def test_a_study_has_its_space_and_the_histories_of_its_metrics(uri: str) -> None:
    study = load_study("odd", uri=uri)
    assert study.objectives == {"val//f1": "maximize"}
    assert [row.trial for row in study.best] == [3]
    assert study.histories("val//f1")[2].values.tolist() == pytest.approx([-1.0, 2.1])
    assert set(study.histories_frame().metric) == set(METRICS)
    assert "metrics.val/AR@100" in study.trials_frame()
    assert json.loads(study.parent.tags[tags.SPACE]) == SPACE


def test_a_metric_of_an_odd_name_sorts_rows(uri: str) -> None:
    assert [row.trial for row in sorted_rows(trial_rows(uri, ["odd"]), "val/AR@100", False)] == [0, 1, 2, 3]
