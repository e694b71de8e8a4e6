"""Where the pages of a study are, by what the store says."""

from pathlib import Path
from typing import Any

import pytest

from sweeps.core.errors import StudyError
from sweeps.tracking.client import MlflowStore
from sweeps.tracking.ui import study_pages


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
