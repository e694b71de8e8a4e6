"""The study's page in MLflow: how far the study is, the best trials, and what to type."""

from dataclasses import replace
from pathlib import Path

from sweeps.driver.study_run import study_text
from sweeps.results.summary import BestTrial, StudySummary
from sweeps.tracking.ui import Pages

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
