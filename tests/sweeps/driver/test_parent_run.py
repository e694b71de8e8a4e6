"""The run of a study: what it is told while trials end, and when the study goes on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeStore
from studies import make

from sweeps.config.composer import Composer
from sweeps.core.trials import TrialResult
from sweeps.driver.study_run import ParentRun
from sweeps.search.study import Study
from sweeps.tracking.recorder import Recorder
from sweeps.tracking.ui import is_untouched

CONFIG = Composer("sweep", []).base()
MAXIMIZE = {"val/acc": "maximize"}


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def recorder(store: FakeStore, tmp_path: Path) -> Iterator[Recorder]:
    recorder = Recorder(lambda: store, unsent=tmp_path / "unsent.jsonl", note_interval_s=1000.0)
    yield recorder
    assert recorder.close() == 0


def parent_of(
    study: Study, recorder: Recorder, objectives: dict[str, str] = MAXIMIZE, num_trials: int = 20
) -> ParentRun:
    config = {**CONFIG, "study": {**CONFIG["study"], "num_trials": num_trials}}
    parent = ParentRun(study, recorder, config=config, objectives=objectives, metrics=["val/acc", "val/loss"])
    parent.open([])
    return parent


def end(study: Study, parent: ParentRun, recorder: Recorder, state: Any, **metrics: float) -> None:
    """Run a trial that ends so, as a driver does; its first objective is `acc`."""
    asked = study.ask()
    recorder.start(asked.number, f"#{asked.number}", params={}, run_tags={}, parent="study")
    named = {f"val/{name}": value for name, value in metrics.items()}
    told = study.tell(asked.number, state, metrics.get("acc"), metrics=named, cause=None)
    parent.tell(
        TrialResult(
            number=asked.number,
            state=told.state,
            value=metrics.get("acc"),
            values=asked.values,
            metrics=named,
            reason=told.reason,
            duration_s=1.0,
            start_latency_s=None,
            objectives=told.objectives,
            infeasible=told.infeasible,
        )
    )


def points(store: FakeStore, key: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in store.named("study")["points"] if point.key == key]


def test_the_study_has_the_metrics_of_the_best_trial_so_far(
    store: FakeStore, recorder: Recorder, empty_url: str
) -> None:
    study = make(empty_url)
    parent = parent_of(study, recorder)
    for acc, loss in ((0.5, 1.0), (0.9, 0.3), (0.7, 0.2)):
        end(study, parent, recorder, "complete", acc=acc, loss=loss)
    end(study, parent, recorder, "failed")
    parent.close("")
    recorder.close()
    assert points(store, "val/acc") == [(1, 0.5), (2, 0.9), (3, 0.9), (4, 0.9)]
    assert points(store, "val/loss") == [(1, 1.0), (2, 0.3)]
    assert points(store, "trials/finished")[-1] == (4, 4.0)


def test_the_first_of_equal_trials_is_the_best_as_optuna_has_it(
    store: FakeStore, recorder: Recorder, empty_url: str
) -> None:
    study = make(empty_url)
    parent = parent_of(study, recorder)
    for _ in range(7):
        end(study, parent, recorder, "complete", acc=0.5)
    parent.close("")
    recorder.close()
    text = store.named("study")["tags"]["mlflow.note.content"]
    assert study.best is not None and f"best: [trial {study.best.number}](" in text
    assert [f"\\#{number}]" in text for number in range(7)] == [True] * 5 + [False] * 2


@pytest.mark.parametrize(
    ("stopped", "state", "status"),
    [("", "complete", "FINISHED"), ("interrupt", "interrupted", "KILLED"), (None, "failed", "FAILED")],
)
def test_the_end_is_told_in_status_tags_and_words(
    store: FakeStore, recorder: Recorder, empty_url: str, stopped: Any, state: str, status: str
) -> None:
    study = make(empty_url)
    parent = parent_of(study, recorder)
    end(study, parent, recorder, "complete", acc=0.5)
    parent.close(stopped)
    recorder.close()
    run = store.named("study")
    assert run["status"] == status and run["tags"]["lightsweep.state"] == state
    assert run["tags"]["lightsweep.best_trial"] == "0" and run["tags"]["lightsweep.value"] == "0.5"
    assert run["tags"]["mlflow.note.content"].startswith("" if state == "complete" else state.capitalize())


def test_several_objectives_have_a_front_and_its_first_is_copied(
    store: FakeStore, recorder: Recorder, empty_url: str
) -> None:
    objectives = {"val/acc": "maximize", "val/loss": "minimize"}
    study = make(empty_url, metric=list(objectives), direction=list(objectives.values()))
    parent = parent_of(study, recorder, objectives)
    for acc, loss in ((0.5, 0.1), (0.9, 0.3), (0.4, 0.2)):
        end(study, parent, recorder, "complete", acc=acc, loss=loss)
    parent.close("")
    recorder.close()
    assert points(store, "trials/on_front") == [(1, 1.0), (2, 2.0), (3, 2.0)]
    assert points(store, "val/loss") == [(1, 0.1), (2, 0.3), (3, 0.3)]
    assert "**2 on the Pareto front**" in store.named("study")["tags"]["mlflow.note.content"]


def test_a_view_is_saved_once_for_a_new_study(store: FakeStore, recorder: Recorder, empty_url: str) -> None:
    parent_of(make(empty_url), recorder)
    (key,) = store.experiment_tags
    assert key.startswith("mlflow.sharedViewState.lightsweep-")


def test_a_view_is_saved_anew_for_more_trials_unless_somebody_has_changed_it(
    store: FakeStore, recorder: Recorder, empty_url: str
) -> None:
    study = make(empty_url)
    parent_of(study, recorder)
    (key,) = store.experiment_tags
    before = store.experiment_tags[key]
    parent_of(study, recorder, num_trials=1000)
    assert store.experiment_tags[key] != before and is_untouched(store.experiment_tags[key])
    other = json.loads(before) | {"state": "deflate;of somebody's"}
    store.experiment_tags[key] = json.dumps(other)
    parent_of(study, recorder, num_trials=20)
    assert json.loads(store.experiment_tags[key]) == other


def test_a_view_that_cannot_be_saved_ends_nothing(
    store: FakeStore, recorder: Recorder, empty_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    recorder.wait_until_open()
    store.failures = 1
    parent_of(make(empty_url), recorder)
    assert store.experiment_tags == {} and "the view of study study could not be saved" in caplog.text


def test_the_report_is_linked(store: FakeStore, recorder: Recorder, empty_url: str) -> None:
    parent = parent_of(make(empty_url), recorder)
    parent.close("", report="report.html")
    recorder.close()
    assert "/artifacts/report.html?" in store.named("study")["tags"]["mlflow.note.content"]
