"""The run of a study: what it logs while trials end and when the study is resumed, and the text of its page."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeStore
from studies import make

from sweeps.config.composer import Composer
from sweeps.core.trials import TrialResult
from sweeps.driver.study_run import StudyRun, study_text
from sweeps.results.summary import BestTrial, StudySummary
from sweeps.search.study import Study
from sweeps.tracking.recorder import Recorder
from sweeps.tracking.ui import Pages, is_untouched

PAGES = Pages("1", {"study": "abc", 5: "def"})
BEST = BestTrial(number=5, objectives={"val/acc": 0.97223}, params={"optimizer.lr": 0.0031, "model.width": [64, 32]})
SUMMARY = StudySummary(
    name="digits",
    state="running",
    objectives={"val/acc": "maximize"},
    counts={"complete": 5, "pruned": 2, "failed": 0, "interrupted": 0},
    num_trials=20,
    leaders=(BEST,),
    store_dir=Path("mlruns"),
)
SEARCHED = {"optimizer.lr": "interval(0.1,1)", "model.width": "choice([64,32])"}


def text_of(summary: StudySummary, searched: dict[str, str] = SEARCHED, report: str | None = None) -> str:
    method = "TPESampler and MedianPruner"
    return study_text(summary, PAGES, keys=list(SEARCHED), searched=searched, method=method, report=report)


def first_line(summary: StudySummary) -> str:
    return text_of(summary).splitlines()[0]


def test_a_running_study_says_how_far_it_is_and_links_the_best() -> None:
    link = "[trial 5](#/experiments/1/runs/def?workflowType=machine_learning)"
    assert first_line(SUMMARY) == f"7 of 20 trials (2 pruned), **best so far: {link}, val/acc = 0.9722**."


def test_a_study_that_has_ended_says_so() -> None:
    assert "**best: [trial 5]" in first_line(replace(SUMMARY, state="complete"))
    assert first_line(replace(SUMMARY, state="interrupted")).startswith("Interrupted: 7 of 20 trials")


def test_before_the_first_result_there_is_no_best() -> None:
    line = first_line(replace(SUMMARY, leaders=(), counts={}))
    assert line.startswith("0 of 20 trials") and "best" not in line


def test_several_objectives_have_a_front_of_which_the_first_five_are_in_the_table() -> None:
    objectives = {"val/acc": "maximize", "num_params": "minimize"}
    front = tuple(
        replace(BEST, number=number, objectives={"val/acc": 0.97223, "num_params": 650.0}) for number in range(7)
    )
    text = text_of(replace(SUMMARY, objectives=objectives, leaders=front))
    assert "**7 on the Pareto front so far**" in text
    assert text.count("| 0.9722 | 650 | 0.0031 | \\[64, 32\\] |") == 5


def test_a_trial_that_is_not_in_the_store_yet_is_named_without_a_link() -> None:
    text = text_of(replace(SUMMARY, leaders=(BestTrial(number=6, objectives={"val/acc": 0.5}, params={}),)))
    assert "trial 6, val/acc = 0.5" in text and "| \\#6 | 0.5 |" in text


def test_names_that_users_give_are_text() -> None:
    wild = replace(BEST, objectives={"*acc*|<b>": 0.5})
    summary = replace(SUMMARY, name="a*b*", objectives={"*acc*|<b>": "maximize"}, leaders=(wild,))
    text = text_of(summary, searched={"x_y_z": "choice('<i>',`a`)"})
    assert "\\*acc\\*\\|&lt;b&gt;" in text and "x\\_y\\_z = choice\\('&lt;i&gt;',\\`a\\`\\)" in text
    assert "<b>" not in text and "<i>" not in text


def test_the_commands_are_those_that_can_be_typed_beside_the_page() -> None:
    text = text_of(SUMMARY)
    assert [f"lightsweep {command}" in text for command in ("compare", "show", "resume", "ui")] == [True] * 3 + [False]


def test_the_report_is_linked_once_there_is_one() -> None:
    assert "Report" not in text_of(SUMMARY)
    text = text_of(SUMMARY, report="report.html")
    assert "[Report](#/experiments/1/runs/abc/artifacts/report.html?workflowType=machine_learning)" in text


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
) -> StudyRun:
    config = {**CONFIG, "study": {**CONFIG["study"], "num_trials": num_trials}}
    parent = StudyRun(study, recorder, config=config, objectives=objectives, metrics=["val/acc", "val/loss"])
    parent.open([])
    return parent


def end(study: Study, parent: StudyRun, recorder: Recorder, state: Any, **metrics: float) -> None:
    """Run a trial that ends so, as a driver does; its first objective is `acc`."""
    asked = study.ask()
    recorder.start(asked.number, f"#{asked.number}", params={}, run_tags={}, parent="study")
    named = {f"val/{name}": value for name, value in metrics.items()}
    told = study.tell(asked.number, state, metrics.get("acc"), metrics=named, cause=None)
    parent.add(
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


def test_the_summary_has_the_best_of_all_trials_and_the_state(recorder: Recorder, empty_url: str) -> None:
    study = make(empty_url)
    parent = parent_of(study, recorder)
    for acc in (0.5, 0.9, 0.7):
        end(study, parent, recorder, "complete", acc=acc)
    end(study, parent, recorder, "failed")
    found = parent.summary("")
    assert (found.state, found.num_finished, found.num_trials) == ("complete", 4, 20)
    assert [(best.number, best.objectives) for best in found.best] == [(1, {"val/acc": 0.9})]
    assert [parent.summary(stopped).state for stopped in ("interrupt", "failures", None)] == [
        "interrupted",
        "failed",
        "failed",
    ]
    parent.close("")


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
