"""What the page of a study in MLflow says."""

from dataclasses import replace
from pathlib import Path

from sweeps.driver.study_run import StudyFacts, study_text
from sweeps.search.study import Best
from sweeps.tracking.ui import Pages

PAGES = Pages("1", {"study": "abc", 5: "def"})
BEST = Best(number=5, objectives=(0.97223,), values={"optimizer.lr": 0.0031, "model.width": [64, 32]})
FACTS = StudyFacts(
    name="digits",
    state="running",
    objectives={"val/acc": "maximize"},
    keys=("optimizer.lr", "model.width"),
    searched={"optimizer.lr": "interval(0.1,1)", "model.width": "choice([64,32])"},
    method="TPESampler and MedianPruner",
    num_trials=20,
    counts={"complete": 5, "pruned": 2, "failed": 0, "interrupted": 0},
    num_finished=7,
    leaders=(BEST,),
    num_front=0,
    store_dir=Path("mlruns"),
)


def first_line(facts: StudyFacts) -> str:
    return study_text(facts, PAGES).splitlines()[0]


def test_a_running_study_says_how_far_it_is_and_links_the_best() -> None:
    link = "[trial 5](#/experiments/1/runs/def?workflowType=machine_learning)"
    assert first_line(FACTS) == f"7 of 20 trials (2 pruned), **best so far: {link}, val/acc = 0.9722**."


def test_a_study_that_has_ended_says_so() -> None:
    assert "**best: [trial 5]" in first_line(replace(FACTS, state="complete"))
    assert first_line(replace(FACTS, state="interrupted")).startswith("Interrupted: 7 of 20 trials")


def test_before_the_first_result_there_is_no_best() -> None:
    assert first_line(replace(FACTS, leaders=(), counts={}, num_finished=0)) == (
        "0 of 20 trials, none of them complete so far."
    )


def test_several_objectives_have_a_front() -> None:
    two = Best(number=5, objectives=(0.97223, 650.0), values=BEST.values)
    facts = replace(FACTS, objectives={"val/acc": "maximize", "num_params": "minimize"}, leaders=(two,), num_front=3)
    assert "**3 on the Pareto front so far**" in first_line(facts)
    assert "| 0.9722 | 650 | 0.0031 | \\[64, 32\\] |" in study_text(facts, PAGES)


def test_a_trial_that_is_not_in_the_store_yet_is_named_without_a_link() -> None:
    facts = replace(FACTS, leaders=(Best(number=6, objectives=(0.5,), values={}),))
    assert "trial 6, val/acc = 0.5" in first_line(facts) and "| \\#6 | 0.5 |" in study_text(facts, PAGES)


def test_what_users_name_is_text() -> None:
    facts = replace(FACTS, name="a*b*", objectives={"*acc*|<b>": "maximize"}, searched={"x_y_z": "choice('<i>',`a`)"})
    text = study_text(facts, PAGES)
    assert "\\*acc\\*\\|&lt;b&gt;" in text and "x\\_y\\_z = choice\\('&lt;i&gt;',\\`a\\`\\)" in text
    assert "<b>" not in text and "<i>" not in text


def test_commands_name_the_store_and_hide_its_password() -> None:
    facts = replace(FACTS, name="my study", store_dir=Path("my runs"), uri="postgresql://me:secret@host/db")
    text = study_text(facts, PAGES)
    assert "lightsweep compare 'my study' --top 10 --store-dir 'my runs' --uri 'postgresql://me:***@host/db'" in text
    assert "lightsweep resume 'my study' --store-dir 'my runs'\n" in text and "secret" not in text


def test_a_full_study_is_resumed_with_a_larger_total() -> None:
    assert "lightsweep resume digits study.num_trials=40" in study_text(replace(FACTS, num_finished=20), PAGES)


def test_the_report_is_linked_once_there_is_one() -> None:
    assert "Report" not in study_text(FACTS, PAGES)
    text = study_text(replace(FACTS, report="report.html"), PAGES)
    assert "[Report](#/experiments/1/runs/abc/artifacts/report.html?workflowType=machine_learning)" in text
