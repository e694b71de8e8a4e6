"""Runs are in MLflow as they were given, as far as MLflow takes them, and many processes may open an empty store."""

import json
import math
import sqlite3
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import Mock

import mlflow.store.tracking.sqlalchemy_store  # noqa: F401 - here, once, rather than in each of six processes
import pytest
from free_ports import free_port
from mlflow.tracking import MlflowClient
from six_at_once import six_at_once

from sweeps.core.errors import StoreError
from sweeps.core.messages import MetricPoint
from sweeps.core.urls import with_installed_driver
from sweeps.tracking import tags
from sweeps.tracking.client import MlflowStore
from sweeps.tracking.names import shown_tags
from sweeps.tracking.store import StudyRuns


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def uri(folder: Path) -> str:
    return f"sqlite:///{folder}/new/mlflow.db"


@pytest.fixture(scope="module")
def store(uri: str, folder: Path) -> MlflowStore:
    """One store for all tests, since creating MLflow's tables takes seconds."""
    return MlflowStore(uri, "an experiment", folder / "artifacts")


def new_run(store: MlflowStore, *, parent: str | None = None, params: Any = (), **run_tags: str) -> str:
    run_id = store.create_run("a run", run_tags=run_tags, parent=parent, start_time_ms=1000)
    store.log_params(run_id, dict(params))
    return run_id


def stored(uri: str, run_id: str) -> Any:
    return MlflowClient(uri).get_run(run_id)


def points(uri: str, run_id: str, key: str) -> dict[int, float]:
    return {point.step: point.value for point in MlflowClient(uri).get_metric_history(run_id, key)}


# --- one run -----------------------------------------------------------------------------------------


def test_a_run_has_its_name_parent_times_and_status(store: MlflowStore, uri: str) -> None:
    parent = new_run(store)
    child = new_run(store, parent=parent)
    store.end_run(child, "KILLED", end_time_ms=5000)
    run = stored(uri, child)
    assert (run.info.run_name, run.data.tags["mlflow.parentRunId"]) == ("a run", parent)
    assert (run.info.start_time, run.info.end_time, run.info.status) == (1000, 5000, "KILLED")


def test_many_params_and_long_ones_are_kept_up_to_what_mlflow_takes(store: MlflowStore, uri: str) -> None:
    params = {f"key{index}": index for index in range(250)} | {"long": "x" * 7000}
    kept = stored(uri, new_run(store, params=params)).data.params
    assert len(kept) == 251 and kept["key249"] == "249"
    assert len(kept["long"]) == 6000 and kept["long"].startswith("x" * 5900)
    assert "7,000 characters, sha256" in kept["long"]


def test_long_params_that_begin_alike_stay_apart(store: MlflowStore, uri: str) -> None:
    kept = stored(uri, new_run(store, params={"a": "x" * 7000 + "a", "b": "x" * 7000 + "b"})).data.params
    assert kept["a"] != kept["b"]


def test_more_points_than_a_batch_takes_are_all_kept(store: MlflowStore, uri: str) -> None:
    run_id = new_run(store)
    store.log_metrics(run_id, [MetricPoint("val/acc", step / 8, step, 1000 + step) for step in range(2500)])
    assert points(uri, run_id, "val/acc") == {step: step / 8 for step in range(2500)}


def test_values_that_are_not_finite_are_kept_as_mlflow_keeps_them(store: MlflowStore, uri: str) -> None:
    run_id = new_run(store)
    values = [0.5, math.nan, math.inf, -math.inf]
    store.log_metrics(run_id, [MetricPoint("loss", value, step, 1000) for step, value in enumerate(values)])
    kept = points(uri, run_id, "loss")
    assert kept[0] == 0.5 and math.isnan(kept[1])
    assert kept[2] > 1e308 and kept[3] < -1e308


def test_a_tag_of_the_users_is_cut_at_the_limit(store: MlflowStore, uri: str) -> None:
    run_id = new_run(store, first="x" * 9000)
    store.set_tags(run_id, {"second": "y" * 9000})
    kept = stored(uri, run_id).data.tags
    assert (len(kept["first"]), len(kept["second"])) == (8000, 8000)
    assert kept["first"].startswith("x" * 7000) and "9,000 characters, sha256" in kept["first"]


@pytest.mark.parametrize("length", [100, 7_990, 8_000, 16_000, 900_000])
def test_tags_of_json_are_whole_however_long(store: MlflowStore, uri: str, length: int) -> None:
    params = {"prompt": "x" * (length - 14), "é": 1}
    run_id = new_run(store, **{tags.PARAMS: json.dumps(params)})
    store.set_tags(run_id, {tags.SPACE: json.dumps(params)})
    kept = stored(uri, run_id).data.tags
    assert max(map(len, kept.values())) <= 8000
    found = shown_tags(kept)
    assert json.loads(found[tags.PARAMS]) == json.loads(found[tags.SPACE]) == params
    store.set_tags(run_id, {tags.SPACE: json.dumps({"lr": 0.1})})
    assert json.loads(shown_tags(stored(uri, run_id).data.tags)[tags.SPACE]) == {"lr": 0.1}


def test_names_that_mlflow_refuses_are_escaped_everywhere(store: MlflowStore, uri: str) -> None:
    run_id = new_run(store, params={"callbacks[0]+model.äö": 1, "callbacks_0_+model.äö": 2}, **{"a@b": "own"})
    store.log_metrics(run_id, [MetricPoint(name, 0.5, 0, 1000) for name in ("val/acc@5", "val/acc_5", "val//f1", "")])
    store.set_tags(run_id, {"search.optimizer.lr@sgd": "0.1,0.2", "x" * 300: "long"})
    data = stored(uri, run_id).data
    assert (data.tags["search.optimizer.lr_x40_sgd"], data.tags["a_x40_b"]) == ("0.1,0.2", "own")
    assert set(data.params.values()) == {"1", "2"}
    assert set(data.metrics) == {"val/acc_x40_5", "val/acc_5", "val/_x2F_f1", "_x_"}
    assert set(store.steps_from(run_id, 0)) == {"val/acc@5", "val/acc_5", "val//f1", ""}


def test_a_name_for_the_run_among_the_tags_is_its_name(store: MlflowStore, uri: str) -> None:
    assert stored(uri, new_run(store, **{"mlflow.runName": "mine"})).info.run_name == "mine"
    run_id = store.create_run("x" * 300, run_tags={}, parent=None, start_time_ms=1000)
    assert len(stored(uri, run_id).info.run_name) == 250


def test_more_tags_than_a_batch_takes_are_all_kept(store: MlflowStore, uri: str) -> None:
    run_id = new_run(store)
    store.set_tags(run_id, {f"key{index}": "a" for index in range(250)})
    assert "key249" in stored(uri, run_id).data.tags


def test_text_that_no_database_takes_is_kept_as_an_escape(store: MlflowStore, uri: str) -> None:
    run_id = new_run(store, params={"a": "b\0c"})
    store.set_tags(run_id, {"reason": "cannot read b\udcff.png"})
    data = stored(uri, run_id).data
    assert (data.params["a"], data.tags["reason"]) == ("b\\x00c", "cannot read b\\udcff.png")


def test_an_artifact_is_copied_beside_the_others_of_its_run(store: MlflowStore, folder: Path) -> None:
    run_id = new_run(store)
    (folder / "config.yaml").write_text("lr: 0.1")
    store.log_artifact(run_id, folder / "config.yaml", "frozen")
    assert (folder / "artifacts" / run_id / "artifacts/frozen/config.yaml").read_text() == "lr: 0.1"


def test_a_file_whose_name_a_server_would_cut_has_an_escape_for_it(store: MlflowStore, folder: Path) -> None:
    run_id = new_run(store)
    for name in ("a?b.ckpt", "a?c.ckpt"):
        (folder / name).write_text(name)
        store.log_artifact(run_id, folder / name)
    kept = folder / "artifacts" / run_id / "artifacts"
    assert {file.name: file.read_text() for file in kept.iterdir()} == {
        "a_x3F_b.ckpt": "a?b.ckpt",
        "a_x3F_c.ckpt": "a?c.ckpt",
    }


# --- a study -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits-mlp-1", """it's "mine" \\ 100 %"""])
def test_a_study_is_found_by_its_name_with_the_trials_left_running(store: MlflowStore, name: str) -> None:
    new_run(store, **{tags.STUDY: name.replace("i", "I"), tags.KIND: "study"})
    of_study = {tags.STUDY: name}
    parent = new_run(store, **of_study, **{tags.KIND: "study"})
    trials = [{tags.KIND: "trial", tags.TRIAL: str(number)} for number in range(3)]
    children = [new_run(store, parent=parent, **of_study, **trial) for trial in trials]
    store.end_run(children[1], "FINISHED", end_time_ms=5000)
    found = store.find_study(name)
    assert found.parent == parent
    assert found.running == {children[0]: 0, children[2]: 2}
    assert found.interrupted == {}
    store.set_tags(children[0], {tags.STATE: "interrupted"})
    store.end_run(children[0], "KILLED", end_time_ms=5000)
    assert store.find_study(name).interrupted == {children[0]: 0}
    assert store.find_study("another") == StudyRuns()
    assert store.trial_runs(name) == {run_id: number for number, run_id in enumerate(children)}


def test_a_run_that_goes_on_knows_its_points_and_where_it_goes_on(store: MlflowStore, uri: str) -> None:
    run_id = new_run(store)
    assert store.resume_step(run_id) is None
    store.log_metrics(run_id, [MetricPoint(key, 0.5, step, 1000 + step) for step in range(5) for key in ("a", "b")])
    store.log_metrics(run_id, [MetricPoint("a", 0.6, 4, 2000)])
    store.set_tags(run_id, {tags.RESUME_STEP: "3"})
    assert store.resume_step(run_id) == 3
    assert store.steps_from(run_id, 3) == {"a": [3, 4, 4], "b": [3, 4]}


def test_a_run_is_reopened(store: MlflowStore, uri: str) -> None:
    run_id = new_run(store)
    store.end_run(run_id, "FINISHED", end_time_ms=5000)
    store.reopen_run(run_id)
    assert stored(uri, run_id).info.status == "RUNNING"


# --- opening -----------------------------------------------------------------------------------------


def test_a_store_whose_creation_is_cut_off_is_not_there_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.replace", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            MlflowStore(uri, "an experiment", tmp_path / "artifacts")
    assert not (tmp_path / "mlflow.db").exists()

    MlflowStore(uri, "an experiment", tmp_path / "artifacts")
    assert MlflowClient(uri).get_experiment_by_name("an experiment") is not None
    assert not list(tmp_path.glob("*.part"))


def test_readers_may_read_while_the_driver_writes(store: MlflowStore, folder: Path) -> None:
    with closing(sqlite3.connect(folder / "new/mlflow.db")) as database:
        assert database.execute("pragma journal_mode").fetchone() == ("wal",)


def test_a_deleted_experiment_is_not_brought_back(store: MlflowStore, uri: str, folder: Path) -> None:
    MlflowStore(uri, "deleted", folder)
    client = MlflowClient(uri)
    client.delete_experiment(client.get_experiment_by_name("deleted").experiment_id)
    with pytest.raises(StoreError, match=r"was deleted in MLflow.*tracking.experiment=NAME"):
        MlflowStore(uri, "deleted", folder)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("mlruns", "must be an SQLAlchemy URL"),
        ("sqlite:////proc/nowhere/mlflow.db", "cannot be opened"),
        ("sqlite:///{folder}/a file", "file is not a database"),
        ("sqlite:///{folder}/a file/mlflow.db", "cannot be opened"),
        ("postgresql://me:secret@127.0.0.1:{port}/db", "cannot be opened: .*refused"),
        ("http://me:secret@127.0.0.1:{port}", "cannot be opened: the server does not answer"),
    ],
)
def test_a_store_that_cannot_be_opened_is_one_line_without_the_password(tmp_path: Path, bad: str, words: str) -> None:
    (tmp_path / "a file").write_text("text" * 500)
    with pytest.raises(StoreError, match=words) as error:
        MlflowStore(bad.format(folder=tmp_path, port=free_port()), "an experiment", tmp_path)
    assert "\n" not in str(error.value) and "secret" not in str(error.value)


def open_and_record(uri: str, artifacts: str) -> None:
    """Open a store and record a run with a point; called in a process of its own."""
    store = MlflowStore(uri, "shared", Path(artifacts))
    store.log_metrics(new_run(store), [MetricPoint("val/acc", 0.5, 0, 1000)])


def assert_six_share_an_experiment(uri: str, artifacts: Path) -> None:
    assert six_at_once("tracking.test_client", "open_and_record", uri, artifacts) == ""
    client = MlflowClient(with_installed_driver(uri))
    experiments = client.search_experiments()
    assert sorted(experiment.name for experiment in experiments) == ["Default", "shared"]
    runs = client.search_runs([experiment.experiment_id for experiment in experiments])
    assert [run.data.metrics for run in runs] == [{"val/acc": 0.5}] * 6


def test_six_processes_on_an_empty_sqlite_file_share_an_experiment_in_silence(tmp_path: Path) -> None:
    assert_six_share_an_experiment(f"sqlite:///{tmp_path}/new/mlflow.db", tmp_path)


@pytest.mark.postgres
def test_six_processes_on_an_empty_postgresql_share_an_experiment_in_silence(postgres_url: str, tmp_path: Path) -> None:
    assert_six_share_an_experiment(postgres_url, tmp_path)


class Listener(BaseHTTPRequestHandler):
    """The host of somebody who would like to have a token."""

    asked: ClassVar[list[str]] = []

    def do_PUT(self) -> None:
        self.asked.append(self.headers["Authorization"])
        self.send_response(200)
        self.end_headers()


def test_no_credentials_go_to_a_host_that_the_store_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who can write to the database says where the artifacts of an experiment are to go."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "tok")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    MlflowStore(uri, "an experiment", tmp_path / "artifacts")
    (tmp_path / "rank0.log").write_text("a line")
    with HTTPServer(("127.0.0.1", 0), Listener) as host:
        threading.Thread(target=host.serve_forever, daemon=True).start()
        with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
            location = f"http://127.0.0.1:{host.server_port}/x"
            database.execute("update experiments set artifact_location = ?", (location,))
        store = MlflowStore(uri, "an experiment", tmp_path / "artifacts")
        with pytest.raises(StoreError, match=r"127\.0\.0\.1.*, which is not asked: it is neither"):
            store.log_artifact(new_run(store), tmp_path / "rank0.log")
        host.shutdown()

    assert Listener.asked == []
