"""A study read back from its store: trials, space, best, histories; from MLflow's tables and from a server."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_stores import StoreWriter

import sweeps
from sweeps import load_study
from sweeps.core.errors import StoreError, StudyError
from sweeps.driver.session import CommandLine
from sweeps.driver.sweep_setup import read_sweep
from sweeps.results.study import StoredStudy
from sweeps.search.space.declare import parse_space

SPACE = {"optimizer": "choice(sgd,adam)", "optimizer.lr@sgd": "interval(0.1,1.0)", "model.width[0]": "range(1,3)"}


@pytest.fixture
def writer(tmp_path: Path, empty_mlflow: Path) -> StoreWriter:
    (tmp_path / "mlflow.db").write_bytes(empty_mlflow.read_bytes())
    return StoreWriter(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)


def loaded(writer: StoreWriter, tmp_path: Path, name: str = "a") -> StoredStudy:
    return load_study(name, store_dir=tmp_path)


def test_trials_come_by_number_with_their_beginning_and_slot(writer: StoreWriter, tmp_path: Path) -> None:
    writer.add({}, kind="study", study="a", metric="val/acc", direction="maximize")
    for number, slot in ((1, "0"), (0, "1")):
        writer.trial("a", number, 0.5, {}, slot=slot)

    rows = loaded(writer, tmp_path).trials

    assert [(row.trial, row.slot, row.began_ms, row.duration_s) for row in rows] == [
        (0, 1, 1000, 2.5),
        (1, 0, 1000, 2.5),
    ]


def test_of_a_trial_that_was_begun_anew_the_newest_run_counts(address: str, filled: Any) -> None:
    study = load_study("a", uri=address)  # its trial 1 was dropped by a migration once, and tried again

    assert [row.trial for row in study.trials] == [0, 1, 2, 3, 4]
    assert study.trials[1].run_id == filled.ids["a1"]


def test_dropped_trial_that_was_not_tried_again_is_there(writer: StoreWriter, tmp_path: Path) -> None:
    writer.add({}, kind="study", study="a")
    writer.trial("a", 0, 0.9, {}, state="dropped")

    study = loaded(writer, tmp_path)

    assert [row.state for row in study.trials] == ["dropped"] and study.best == []


def test_best_is_complete_and_feasible(address: str) -> None:
    study = load_study("a", uri=address)

    assert study.objectives == {"val/acc": "maximize"}
    assert [(row.trial, row.value) for row in study.best] == [(1, 0.9)]


def test_best_of_several_objectives_is_the_front(address: str) -> None:
    study = load_study("front", uri=address)

    assert study.objectives == {"val/acc": "maximize", "val/loss": "minimize"}
    assert [row.trial for row in study.best] == [1, 0]


def test_histories_have_every_point_with_infinity_and_nan(address: str) -> None:
    history = load_study("a", uri=address).histories("val/loss")[2]

    assert history.steps.tolist() == [0, 1, 2, 3, 4]
    assert np.array_equal(history.values, [1.0, math.inf, math.nan, -math.inf, 2.0], equal_nan=True)
    assert history.times_s.tolist() == [0.0, 0.01, 0.02, 0.03, 0.04]


def test_what_restates_the_best_checkpoint_is_no_part_of_a_history(address: str) -> None:
    study = load_study("restated", uri=address)

    assert study.histories("val/acc")[0].values.tolist() == [0.2, 0.9, 0.4]
    assert study.histories("own")[0].values.tolist() == [1, 1, 3, 4]  # a value of its own, logged late
    assert study.trials[0].metrics["val/acc"] == 0.9


def test_trial_without_the_metric_has_no_history(address: str) -> None:
    study = load_study("a", uri=address)

    assert sorted(study.histories("epoch")) == [1] and study.histories("none") == {}


def test_history_of_a_trial_of_several_trainings_is_their_mean(writer: StoreWriter, tmp_path: Path) -> None:
    writer.add({}, kind="study", study="a")
    writer.trial("a", 0, 0.5, {"val/acc": [9.0], "val/acc/sem": [0.1]})
    trainings = ("0", [9.0]), ("0", [0.2, 0.4, 0.6]), ("1", [0.4, 0.8])  # the first was begun anew
    for began_ms, (replicate, values) in enumerate(trainings, start=1):
        more = {"kind": "replicate", "replicate": replicate}
        writer.trial("a", 0, 0.5, {"val/acc": values}, began_ms=began_ms, **more)

    study = loaded(writer, tmp_path)
    history = study.histories("val/acc")[0]

    assert history.steps.tolist() == [0, 1, 2] and history.values.tolist() == pytest.approx([0.3, 0.6, 0.6])
    assert study.histories("val/acc/sem")[0].values.tolist() == [0.1]  # which only the trial's own run has


@pytest.mark.parametrize("way", ["tag", "params"])
def test_space_comes_back(writer: StoreWriter, tmp_path: Path, way: str) -> None:
    space = parse_space(SPACE if way == "tag" else {"optimizer.lr": "tag(log,interval(0.1,1.0))", "model.depth": "1,2"})
    described = space.describe()
    exact = {"space": json.dumps(described)} if way == "tag" else {}
    params = {f"search.{key}": text for key, text in described.items()} if way == "params" else {}
    writer.add({}, params, kind="study", study="a", **exact)

    assert loaded(writer, tmp_path).space == space


def test_space_of_a_study_that_was_moved_is_the_new_one(writer: StoreWriter, tmp_path: Path) -> None:
    parent = writer.add({}, {"search.lr": "choice(1,2)", "search.old": "choice(1,2)"}, kind="study", study="a")
    writer.client.set_tag(parent, "search.lr", "choice(1,2,3)")
    writer.client.set_tag(parent, "search.old", "not searched")

    assert loaded(writer, tmp_path).space == parse_space({"lr": "choice(1,2,3)"})


@pytest.mark.parametrize("params", [{}, {"search.lr": "choice("}, {"search.optimizer.lr_sgd": "choice(0.1,0.2)"}])
def test_space_that_cannot_be_known_is_none(writer: StoreWriter, tmp_path: Path, params: dict[str, str]) -> None:
    writer.add({}, params, kind="study", study="a")
    writer.trial("a", 0, 0.5, {})

    assert loaded(writer, tmp_path).space is None


def test_a_real_sweep_is_read_in_full(swept: Any) -> None:
    study = load_study("small", store_dir=swept.folder / "mlruns")
    _, _, space = read_sweep(CommandLine(overrides=("study.name=small",), config_name="sweep", config_dir=None))

    assert study.space == space and study.parent.name == "small"
    assert [row.trial for row in study.trials] == [0, 1, 2, 3, 4, 5]
    assert {row.slot for row in study.trials} <= {0, 1} and None not in {row.slot for row in study.trials}
    assert all(row.began_ms is not None and row.began_ms > 1.7e12 for row in study.trials)
    histories = study.histories("val/acc")
    for row in study.trials:
        assert histories[row.trial or 0].values.max() == row.metrics["val/acc"]  # of the best checkpoint


@pytest.mark.parametrize(
    ("name", "message"),
    [("frnt", "There is no study 'frnt'. Did you mean 'front'?"), ("orphan", "its own run is not there: restore it")],
)
def test_study_that_is_not_there_is_told_in_one_line(
    writer: StoreWriter, tmp_path: Path, name: str, message: str
) -> None:
    writer.add({}, kind="study", study="front")
    writer.trial("orphan", 0, 0.5, {})

    with pytest.raises(StudyError) as caught:
        loaded(writer, tmp_path, name)

    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_store_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="There is no store at"):
        load_study("a", store_dir=tmp_path)


def test_package_has_what_it_names_and_no_more() -> None:
    assert set(sweeps.__all__) <= set(dir(sweeps))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sweeps.nothing  # noqa: B018
