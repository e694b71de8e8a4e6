"""Rows from MLflow's tables and from a server: the same, whatever else is in the store."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from sweeps.core.errors import StoreError, StudyError, UsageError
from sweeps.results.queries import sorted_rows, trial_rows
from sweeps.results.rows import TrialRow, is_descending_by, row_of, with_fronts
from sweeps.tracking import tags
from sweeps.tracking.runs import ServerRun


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store of MLflow's own making: two studies, a `train`, a stranger's run, a deleted one, odd values."""
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    client = MlflowClient(uri)
    ours, theirs = client.create_experiment("lightsweep"), client.create_experiment("theirs")

    def add(experiment: str, metrics: dict[str, float], **run_tags: str) -> str:
        run = client.create_run(experiment, tags={f"lightsweep.{key}": value for key, value in run_tags.items()})
        for key, value in metrics.items():
            client.log_metric(run.info.run_id, key, value, step=1)
        client.set_terminated(run.info.run_id)
        return str(run.info.run_id)

    judged = {"metric": "val/acc", "direction": "maximize"}
    add(ours, {}, kind="study", study="a", **judged)
    for number, value in enumerate((0.5, 0.9, math.nan)):
        add(
            *(ours, {"val/acc": value, "val/loss": 1 - value}),
            kind="trial",
            study="a",
            trial=str(number),
            state="complete",
            value=repr(value),
            **{"params": f'{{"model.depth": {number}, "optimizer.lr": 0.1}}', **judged},
        )
    add(ours, {"val/loss": math.inf}, kind="trial", study="b", trial="0", state="failed", reason="it broke")
    add(ours, {"val/acc": 0.7}, kind="train", trial="0", state="complete", value="0.7", folder="0003", **judged)
    add(ours, {}, kind="trial", study="b", trial="x", value="none", params="{cut", state="running")
    add(ours, {}, kind="study", study="empty")
    add(theirs, {"accuracy": 1.0})
    client.delete_run(add(ours, {"val/acc": 1.0}, kind="trial", study="a", trial="9"))
    return uri


def test_all_trials_and_trains_are_read_and_nothing_else(uri: str) -> None:
    rows = trial_rows(uri)

    assert [(row.study, row.trial) for row in rows] == [
        ("a", 0),
        ("a", 1),
        ("a", 2),
        ("b", 0),
        (None, None),
        ("b", None),
    ]


def test_row_has_typed_params_metrics_and_duration(uri: str) -> None:
    row = trial_rows(uri, ["a"])[1]

    assert row.params == {"model.depth": 1, "optimizer.lr": 0.1}
    assert row.metrics == {"val/acc": 0.9, "val/loss": pytest.approx(0.1)}
    assert row.value == 0.9 and row.duration_s is not None and row.duration_s >= 0


@pytest.mark.parametrize(
    ("trained_s", "took"), [("1.5", (1.5, 1.0)), ("9", (2.5, 0.0)), ("-1", (2.5, 0.0)), ("nan", (2.5, 0.0))]
)
def test_the_time_between_an_interruption_and_going_on_does_not_count(
    trained_s: str, took: tuple[float, float]
) -> None:
    run_tags = {tags.KIND: "trial", tags.TRAINED_S: trained_s}
    run = ServerRun(run_id="r", name="", status="FINISHED", start_ms=1000, end_ms=3500, tags=run_tags, metrics={})
    row = row_of(run)
    assert (row.duration_s, row.paused_s) == took


def test_nan_and_infinity_come_back(uri: str) -> None:
    rows = trial_rows(uri)

    assert math.isnan(rows[2].metrics["val/acc"])
    assert rows[3].metrics["val/loss"] == math.inf and rows[3].reason == "it broke"


def test_tags_that_somebody_broke_are_left_out(uri: str) -> None:
    row = trial_rows(uri, ["b"])[1]

    assert (row.trial, row.value, row.params) == (None, None, {})


def test_unknown_study_names_the_nearest(uri: str) -> None:
    with pytest.raises(StudyError, match=r"no study 'emty'. *Did you mean 'empty'"):
        trial_rows(uri, ["emty"])


def test_study_without_trials_has_no_rows(uri: str) -> None:
    assert trial_rows(uri, ["empty"]) == []


def test_rows_are_sorted_best_first_and_those_without_a_value_last(uri: str) -> None:
    assert [row.trial for row in sorted_rows(trial_rows(uri, ["a"]))] == [1, 0, 2]
    assert [row.trial for row in sorted_rows(trial_rows(uri, ["a"]), "val/loss")] == [1, 0, 2]


def test_rows_that_were_dropped_come_last_however_good(uri: str) -> None:
    best, second, without = sorted_rows(trial_rows(uri, ["a"]))
    dropped = replace(best, state="dropped")
    assert sorted_rows([without, dropped, second]) == [second, without, dropped]


def test_what_was_dropped_is_on_no_front(uri: str) -> None:
    both = {"objectives": {"val/acc": "maximize", "val/loss": "minimize"}, "study": "two"}
    good, dropped = (
        replace(trial_rows(uri, ["a"])[0], run_id=state, state=state, values={"val/acc": acc, "val/loss": 0.1}, **both)
        for state, acc in (("complete", 0.5), ("dropped", 0.9))
    )
    assert [row.is_on_front for row in with_fronts([good, dropped])] == [True, False]


def test_rows_of_another_metric_stay_apart(uri: str) -> None:
    def row(metric: str, value: float) -> TrialRow:
        blank = trial_rows(uri, ["a"])[0].as_dict()
        direction = "minimize" if metric == "loss" else "maximize"
        own = {"metric": metric, "direction": direction, "objectives": {metric: direction}}
        return TrialRow(**(blank | own | {"value": value}))

    rows = sorted_rows([row("loss", 0.2), row("acc", 0.1), row("loss", 0.1), row("acc", 0.3)])

    assert [(row.metric, row.value) for row in rows] == [("acc", 0.3), ("acc", 0.1), ("loss", 0.1), ("loss", 0.2)]


def of_two_objectives(number: int, acc: float, size: float, **more: str) -> TrialRow:
    known = {"study": "two", "trial": str(number), "kind": "trial", "state": "complete", "metric": "acc"}
    known |= {"objectives": '{"acc": "maximize", "size": "minimize"}', "value": repr(acc)}
    known |= {"values": json.dumps({"acc": acc, "size": size}), **more}
    run_tags = {f"lightsweep.{key}": text for key, text in known.items()}
    metrics = {"acc": acc, "size": 0.0}  # the last value, not that of the best checkpoint
    return row_of(
        ServerRun(
            run_id=f"run{number}", name="", status="FINISHED", start_ms=0, end_ms=1, metrics=metrics, tags=run_tags
        )
    )


def test_each_objective_is_sorted_in_its_own_direction() -> None:
    rows = with_fronts([of_two_objectives(0, 0.9, 30), of_two_objectives(1, 0.5, 10), of_two_objectives(2, 0.6, 20)])
    assert [row.trial for row in sorted_rows(rows, "size")] == [1, 2, 0]
    assert [row.trial for row in sorted_rows(rows, "acc")] == [0, 2, 1]
    assert not is_descending_by(rows, "size") and is_descending_by(rows, "acc")


def test_what_violates_a_constraint_comes_after_what_is_merely_dominated() -> None:
    rows = [of_two_objectives(0, 0.5, 30), of_two_objectives(1, 0.9, 10), of_two_objectives(2, 0.95, 5, infeasible="x")]
    assert [row.trial for row in sorted_rows(with_fronts(rows))] == [1, 0, 2]


@pytest.mark.parametrize("values", ['{"acc": null, "size": 3}', '{"acc": "x"}', '{"acc": NaN, "size": 1}', "[1]", "{"])
def test_a_tag_of_values_that_somebody_has_edited_is_no_reason_to_show_nothing(values: str) -> None:
    odd = of_two_objectives(0, 0.9, 30, values=values, trial="9" * 5000)
    fine = of_two_objectives(1, 0.5, 10)
    assert odd.trial is None
    assert [row.is_on_front for row in with_fronts([odd, fine])] == [False, True]


def test_unknown_metric_names_the_nearest(uri: str) -> None:
    with pytest.raises(UsageError, match=r"metric 'val/los'. *Did you mean 'val/loss'"):
        sorted_rows(trial_rows(uri), "val/los")


def test_server_gives_the_same_rows(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow.tracking

    client = mlflow.tracking.MlflowClient(uri)  # speaks to the tables what it would speak to a server
    monkeypatch.setattr(mlflow.tracking, "MlflowClient", lambda address: client)

    served = {row.run_id: row for row in trial_rows("http://localhost:5000")}

    assert served.keys() == {row.run_id for row in trial_rows(uri)}
    for row in trial_rows(uri):
        assert repr(served[row.run_id]) == repr(row)
    assert [row.trial for row in trial_rows("http://localhost:5000", ["a"])] == [0, 1, 2]


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("sqlite:///none.db", "There is no store at none.db"),
        ("sqlite:///text.db", "cannot be read: file is not a database"),
        ("sqlite:///other.db", "is not a store of MLflow's"),
        ("text.db", "--uri must be a database URL"),
        ("nonsense://host/db", "cannot be opened"),
        ("postgresql://me:secret@127.0.0.1:1/db", "Connection refused"),
        ("postgresql://127.0.0.1:1/db?user=me&password=secret", "Connection refused"),
    ],
)
def test_what_is_no_store_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.db").write_text("not a database, but longer than the header of one\n" * 9)
    with sa.create_engine("sqlite:///other.db").begin() as connection:
        connection.execute(sa.text("create table runs (name text)"))

    with pytest.raises(StoreError, match=message) as caught:
        trial_rows(uri)

    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)


@pytest.mark.postgres
@pytest.mark.slow
def test_postgresql_url_needs_no_driver_in_its_name(postgres_url: str) -> None:
    from mlflow.tracking import MlflowClient

    MlflowClient(postgres_url.replace("postgresql:", "postgresql+psycopg:")).search_experiments()

    assert trial_rows(postgres_url) == []


def test_tag_names_are_the_ones_in_this_test() -> None:
    assert {tags.KIND, tags.STUDY, tags.PARAMS, tags.VALUE} == {
        "lightsweep.kind",
        "lightsweep.study",
        "lightsweep.params",
        "lightsweep.value",
    }


def test_garbage_is_collected_again_after_reading(uri: str) -> None:
    import gc

    with pytest.raises(StudyError):
        trial_rows(uri, ["none"])
    assert gc.isenabled()
