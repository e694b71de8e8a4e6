"""The best few rows, read by a short cut: exactly those that reading and sorting all of them gives."""

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from sweeps.core.errors import UsageError
from sweeps.results import queries
from sweeps.results.queries import chosen_rows, sorted_rows, top_rows, trial_rows
from sweeps.results.rows import LATE_FIELDS, resolve
from sweeps.results.select import Selection, parse_where, selected_rows
from sweeps.tracking import tags

ODD = (0.5, 0.9, math.nan, math.inf, -math.inf, 0.5, 0.0, -0.0, 1.7976931348623157e308, None)
STATES = ("complete", "pruned", "failed", "interrupted", "running", "dropped")
ACC = {"metric": "val/acc", "direction": "maximize"}

Fill = Callable[..., str]


@pytest.fixture(scope="module")
def fill(tmp_path_factory: pytest.TempPathFactory, empty_mlflow: Path) -> Fill:
    """Put runs into tables that MLflow made: each a dict with `value`, `metrics`, `status` and our tags."""
    folder = tmp_path_factory.mktemp("stores")
    count = itertools.count()

    def filled(*runs: dict[str, Any], has_value_metrics: Callable[[int], bool] = lambda number: True) -> str:
        file = folder / f"{next(count)}.db"
        file.write_bytes(empty_mlflow.read_bytes())
        uri = f"sqlite:///{file}"
        engine = sa.create_engine(uri)
        tables = sa.MetaData()
        tables.reflect(engine, only=["runs", "tags", "latest_metrics"])
        with engine.begin() as connection:
            for number, run in enumerate(runs):
                _insert(connection, tables.tables, number, dict(run), has_value_metrics(number))
        engine.dispose()
        return uri

    return filled


def _is_number(text: str | None) -> bool:
    try:
        return text is not None and float(text) == float(text)
    except ValueError:
        return False


def _insert(connection: sa.Connection, tables: Any, number: int, run: dict[str, Any], has_value_metrics: bool) -> None:
    run_id = f"{(number * 7919) % 10007:032x}"
    stage, metrics = run.pop("stage", "active"), run.pop("metrics", {})
    start = {"start_time": 1000 + number // 3, "end_time": 2000 + number}  # three begin at once
    fixed = {"run_uuid": run_id, "experiment_id": 0, "name": f"#{number}", "lifecycle_stage": stage}
    connection.execute(sa.insert(tables["runs"]).values(**fixed, status=run.pop("status", "FINISHED"), **start))
    if has_value_metrics and run.get("metric") and _is_number(run.get("value")):
        metrics = {**metrics, tags.value_metric(run["metric"], run.get("direction") or "maximize"): float(run["value"])}
    found = {"kind": "trial", "trial": str(number), "params": json.dumps({"model.depth": number})} | run
    for key, text in found.items():
        if text is not None:
            connection.execute(sa.insert(tables["tags"]).values(run_uuid=run_id, key=f"lightsweep.{key}", value=text))
    for key, value in metrics.items():
        is_nan = math.isnan(value)
        kept = 0.0 if is_nan else max(-1.7976931348623157e308, min(value, 1.7976931348623157e308))  # as MLflow does
        point = {"run_uuid": run_id, "key": key, "value": kept, "is_nan": is_nan, "timestamp": 1, "step": 1}
        connection.execute(sa.insert(tables["latest_metrics"]).values(**point))


def plain(count: int = 12, study: str = "a", **more: Any) -> list[dict[str, Any]]:
    """Return trials that are judged by one metric, with ties."""
    return [
        {"study": study, "state": "complete", "value": repr(v), "metrics": {"val/acc": v, "val/loss": 1 - v}}
        | ACC
        | more
        for v in ((number * 5 % count) // 2 / count for number in range(count))
    ]


def odd() -> list[dict[str, Any]]:
    """Return every value in every state, and runs that are no trials or no more."""
    found = []
    for value, state in itertools.product(ODD, STATES):
        run: dict[str, Any] = {"study": "a", "state": state} | ACC
        if value is not None:
            run |= {"value": repr(value), "metrics": {"val/acc": value, "val/loss": -value}}
        found.append(run)
    best = {"study": "a", "state": "complete", "value": "7.0", "metrics": {"val/acc": 7.0, "val/loss": 9.0}} | ACC
    return [
        *found,
        best | {"stage": "deleted"},
        best | {"kind": "replicate"},
        best | {"kind": "study"},
        best | {"kind": None},
        best | {"infeasible": "num_params=2 violates num_params <= 1"},
        best | {"kind": "train", "study": None, "value": "0.7", "folder": "0003"},
        best | {"value": None, "status": "RUNNING", "state": None},
        best | {"value": "0.25", "study": "b"},
    ]


SEVERAL = {
    "objectives": '{"val/acc": "maximize", "val/loss": "minimize"}',
    "values": '{"val/acc": 0.3, "val/loss": 0.1}',
}
STORES: dict[str, list[dict[str, Any]]] = {
    "plain": plain(),
    "odd": odd(),
    "two studies": [*plain(8), *plain(8, "b")],
    "two metrics": [*plain(8), *plain(8, "b", metric="val/loss", direction="minimize")],
    "two directions": [*plain(8), *plain(8, "b", direction="minimize")],
    "no direction": plain(8, direction=None),
    "the name says otherwise": plain(8, direction="minimize"),
    "several objectives": [*plain(6), *plain(6, "b", **SEVERAL)],
    "a value without a metric": [*plain(4), *plain(4, metric=None)],
    "a value that is no number": [*plain(4), *plain(1, value="none"), *plain(1, value=" 1_0 ")],
    "infeasible": [*plain(6, infeasible="x"), *plain(6)],
    "dropped": [*plain(6, state="dropped"), *plain(6)],
    "empty": [],
}


AGES = {"of today": lambda number: True, "of before": lambda number: False, "of both": lambda number: number % 3 != 0}
"""which runs have their value as a metric, too"""


JUDGED = (
    (None, None),
    (None, False),
    ("val/acc", None),
    ("val/acc", True),
    ("val/loss", None),
    ("val/loss", False),
)


@pytest.mark.parametrize("age", AGES)
@pytest.mark.parametrize("store", STORES)
def test_short_cut_gives_what_reading_everything_gives(fill: Fill, store: str, age: str) -> None:
    uri = fill(*STORES[store], has_value_metrics=AGES[age])
    names = {row.study for row in trial_rows(uri)} - {None}
    for studies in ([], *([name] for name in names if name)):
        rows = trial_rows(uri, studies)
        for metric, descending in JUDGED:
            expected = sorted_rows(rows, metric, descending)
            for top in {1, 3, len(rows) // 2 + 1, len(rows) + 1}:
                found = top_rows(uri, studies, top, metric, descending)
                assert repr(found) == repr(expected[:top]), (studies, metric, descending, top)


def test_rows_to_choose_from_have_all_that_is_chosen_by(fill: Fill) -> None:
    uri = fill(*odd())
    full = trial_rows(uri)

    def choose(rows: list[Any]) -> list[Any]:
        for light, row in zip(rows, full, strict=True):
            assert repr((light.study, light.trial, light.state, light.value, light.duration_s, light.params)) == repr(
                (row.study, row.trial, row.state, row.value, row.duration_s, row.params)
            )
            assert repr(light.metrics.get("val/loss")) == repr(row.metrics.get("val/loss"))
        return rows[3:5]

    names = ["study", "trial", "duration_s", "depth", "metrics.val/loss"]
    assert repr(chosen_rows(uri, [], choose, names=names)) == repr(full[3:5])
    assert chosen_rows(uri, [], choose, names=names, in_full=False)[0].run_id == full[3].run_id


@pytest.mark.parametrize("name", [*LATE_FIELDS, "depth", "params.model.depth", "metrics.val/acc", "val/loss"])
def test_whatever_can_be_named_is_there_to_choose_by(fill: Fill, name: str) -> None:
    uri = fill(*odd())
    full = trial_rows(uri)

    def choose(rows: list[Any]) -> list[Any]:
        field = resolve(name, rows, LATE_FIELDS)
        assert repr([field.of(row) for row in rows]) == repr([field.of(row) for row in full])
        return []

    chosen_rows(uri, [], choose, names=[name])


TEXTS = (
    '{"a.lr": 1, "b.lr": 1.0, "c.lr": null, "d.lr": [1, "lr"], "e.lr": Infinity, "f.lr": "1", "lr": true, "xlr": 0}',
    '{"lr":1,"a.b":{"lr":2},"l\\"r":"\\"lr\\": 3","lr.x":4}',
    '{"a.lr": 0.1, "b',
    "[1]",
    None,
)


@pytest.mark.parametrize("name", ["lr", "params.lr", "a.lr", "params.f.lr"])
def test_parameters_to_choose_by_have_their_types_and_the_others_are_left_out(fill: Fill, name: str) -> None:
    uri = fill(*({"study": "a", "state": "complete", "params": text} for text in TEXTS))
    expected = [
        {key: value for key, value in row.params.items() if key.rpartition(".")[2] == "lr"} for row in trial_rows(uri)
    ]
    seen: list[Any] = []

    def narrow(rows: list[Any]) -> list[Any]:
        seen.extend(row.params for row in rows)
        return rows[1:]

    chosen = chosen_rows(uri, [], lambda rows: [*reversed(rows)], names=[name, "metrics.val/acc"], narrow=narrow)

    assert repr(seen) == repr(expected) and expected[0]
    assert repr(chosen) == repr([*reversed(trial_rows(uri)[1:])])


CONDITIONS = (
    "params.model.depth > 5 and val/acc < 0.6",
    "depth in [1, 2, 30] or metrics.val/loss >= 0.5",
    "val/acc = null",
    "not val/loss < 0.5 and state != 'dropped'",
    "value > 0.3 and study = 'a' and depth < 40",
    "metrics.val/loss > 0.3 and metrics.val/loss <= 0.8 and params.model.depth > 1",
    "metrics.val/loss < 1e9 and not metrics.val/acc > 0.5",
    "metrics.val/loss > 0.3 or metrics.val/acc < 0.4 and params.model.depth > 1",
    "metrics.val/loss > 1e9 and params.model.depth > 1",
    "metrics.val/loss > 1e9 and params.model.dept > 1",
    "metrics.val/loss > 1e9 and params.model.depth > 'x'",
    "metrics.val/los > 0 and params.model.depth > 1",
)


ORDERS = (
    (None, None, None, False),
    (None, 3, "val/loss", False),
    (None, 3, None, True),
    ("depth", 3, None, False),
    ("depth", None, "val/loss", True),
    ("val/loss", None, None, False),
    ("val/loss", 3, "val/loss", True),
    ("state", 3, "val/loss", False),
    ("state", None, None, True),
)
"""of sort, top, metric and is_front, every pair of values"""


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("text", CONDITIONS)
def test_conditions_and_orders_give_what_they_give_on_full_rows(fill: Fill, store: str, text: str) -> None:
    uri = fill(*STORES[store])
    rows = trial_rows(uri)
    where = parse_where(text)
    for sort, top, metric, is_front in ORDERS:
        selection = Selection(where=where, sort=sort, top=top, metric=metric, is_front=is_front)
        try:
            expected = repr(selection.pick(rows))
        except UsageError as error:
            with pytest.raises(UsageError) as raised:
                selected_rows(uri, [], selection)
            assert str(raised.value) == str(error)
        else:
            assert repr(selected_rows(uri, [], selection)) == expected


def test_unknown_metric_names_the_nearest_of_all(fill: Fill) -> None:
    with pytest.raises(UsageError, match=r"metric 'val/los'. *Did you mean 'val/loss'"):
        top_rows(fill(*plain()), [], 3, "val/los")


@pytest.mark.parametrize(
    ("store", "metric", "is_sorted"),
    [
        ("plain", None, True),
        ("plain", "val/loss", True),
        ("plain", "val/acc", True),
        ("two metrics", None, False),
        ("two directions", None, False),
        ("several objectives", None, False),
    ],
)
@pytest.mark.parametrize("age", AGES)
def test_the_database_sorts_where_one_number_decides(
    fill: Fill, monkeypatch: pytest.MonkeyPatch, store: str, metric: str | None, is_sorted: bool, age: str
) -> None:
    read: list[int] = []
    in_full = queries.row_of
    monkeypatch.setattr(queries, "row_of", lambda *run, **more: read.append(1) or in_full(*run, **more))
    uri = fill(*STORES[store] * 20, has_value_metrics=AGES[age])

    top_rows(uri, [], 3, metric)

    assert (len(read) < 12 * len(STORES[store])) == (is_sorted and age == "of today")


def test_what_the_database_sorts_by_is_no_metric_of_a_row(fill: Fill) -> None:
    assert {key for row in trial_rows(fill(*plain())) for key in row.metrics} == {"val/acc", "val/loss"}


@pytest.mark.postgres
@pytest.mark.slow
def test_short_cut_over_postgresql(postgres_url: str) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(postgres_url.replace("postgresql:", "postgresql+psycopg:"))
    experiment = client.create_experiment("lightsweep")
    for number, value in enumerate((0.5, math.nan, 0.9)):
        found = {tags.KIND: "trial", tags.STUDY: "a", tags.TRIAL: str(number), tags.VALUE: repr(value)}
        run = client.create_run(experiment, tags=found | {tags.METRIC: "val/acc", tags.DIRECTION: "maximize"})
        client.log_metric(run.info.run_id, "val/loss", value)
    rows = trial_rows(postgres_url)

    assert [row.trial for row in top_rows(postgres_url, ["a"], 2, "val/acc")] == [2, 0]
    for metric in (None, "val/loss"):
        for top in (1, 2, 3):
            assert repr(top_rows(postgres_url, [], top, metric)) == repr(sorted_rows(rows, metric)[:top])


def test_store_is_not_changed_by_reading(fill: Fill) -> None:
    uri = fill(*plain())
    before = Path(uri.removeprefix("sqlite:///")).read_bytes()
    top_rows(uri, [], 3)
    assert Path(uri.removeprefix("sqlite:///")).read_bytes() == before
