"""The summary of a study: from a store, and the commands that it leads to."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from report_studies import PlainStudy, trial

from sweeps.core import paths
from sweeps.core.trials import counts_text
from sweeps.results.summary import (
    BestTrial,
    NextCommand,
    StudySummary,
    next_commands,
    resume_command,
    run_commands,
    summarize,
)

SUMMARY = StudySummary(
    name="my study",
    state="complete",
    objectives={"val/acc": "maximize"},
    counts={"complete": 5, "pruned": 2, "interrupted": 1},
    num_trials=20,
    leaders=(
        BestTrial(number=5, objectives={"val/acc": 0.9}, params={}),
        BestTrial(number=6, objectives={}, params={}),
    ),
    store_dir=Path("my runs"),
    uri="postgresql://me:secret@host/db",
)


def commands_of(summary: StudySummary, **more: Any) -> dict[str, str]:
    return {command.kind: command.text for command in next_commands(summary, **more)}


def test_interrupted_trials_do_not_count_against_the_total() -> None:
    assert (SUMMARY.num_finished, SUMMARY.has_all) == (7, False)
    assert replace(SUMMARY, counts={"complete": 20, "running": 1}).has_all


def test_the_best_is_one_trial_and_of_several_objectives_the_front() -> None:
    assert [trial.number for trial in SUMMARY.best] == [5]
    both = {"val/acc": "maximize", "val/loss": "minimize"}
    assert [trial.number for trial in replace(SUMMARY, objectives=both).best] == [5, 6]


def test_counts_are_written_for_the_states_that_there_are() -> None:
    assert counts_text(SUMMARY.counts, num_infeasible=2) == "5 complete (2 infeasible), 2 pruned, 1 interrupted"
    assert counts_text({"complete": 0, "waiting": 3}) == ""


def test_commands_name_the_store_and_hide_its_password() -> None:
    where = "--store-dir 'my runs' --uri 'postgresql://me:***@host/db'"
    assert commands_of(SUMMARY) == {
        "compare": f"lightsweep compare 'my study' --top 10 {where}",
        "show": f"lightsweep show 'best:my study' {where}",
        "reproduce": f"lightsweep reproduce 'best:my study' {where}",
        "resume": "lightsweep resume 'my study' --store-dir 'my runs'",
        "ui": f"lightsweep ui 'my study' {where}",
    }


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"leaders": ()}, {"show", "reproduce"}),
        ({"is_resumable": False}, {"resume"}),
        ({"uri": "https://server"}, {"ui"}),
    ],
    ids=["no best trial", "no folder", "a server"],
)
def test_a_command_that_makes_no_sense_is_not_offered(changes: dict[str, Any], missing: set[str]) -> None:
    assert set(commands_of(SUMMARY)) - set(commands_of(replace(SUMMARY, **changes))) == missing


def test_the_best_as_a_single_run_is_offered_beside_the_other_commands_for_it() -> None:
    train = NextCommand("train", "", "lightsweep train")
    assert list(commands_of(SUMMARY, train=train))[:4] == ["compare", "show", "reproduce", "train"]
    assert "train" not in commands_of(replace(SUMMARY, leaders=()), train=train)


def test_a_run_is_compared_with_the_best_trial_unless_it_is_the_best() -> None:
    def texts(study: str | None, kind: str, uri: str | None = None, *, is_best: bool) -> list[str]:
        run: Any = SimpleNamespace(study=study, kind=kind, label="a#1")
        return [command.text for command in run_commands(run, Path("mlruns"), uri, is_best=is_best)]

    compare, ui = "lightsweep compare a --top 10", "lightsweep ui a"
    assert texts("a", "trial", is_best=False) == [compare, "lightsweep diff best:a 'a#1'", ui]
    assert texts("a", "trial", is_best=True) == texts("a", "replicate", is_best=False) == [compare, ui]
    assert texts(None, "train", is_best=True) == ["lightsweep ui"]
    assert texts(None, "train", "https://server", is_best=True) == []


def test_a_study_that_has_its_total_is_resumed_up_to_twice_of_it() -> None:
    full = replace(SUMMARY, counts={"complete": 20})
    assert resume_command(full).endswith(" study.num_trials=40")
    assert resume_command(replace(full, num_trials=0)).endswith(" study.num_trials=40")
    assert "study.num_trials" not in resume_command(SUMMARY)


def test_what_to_change_is_quoted_and_another_space_is_a_migration() -> None:
    command = resume_command(SUMMARY, ["optimizer.lr=interval(0,1)"], migrates=True)
    assert command == "lightsweep resume 'my study' --store-dir 'my runs' --migrate 'optimizer.lr=interval(0,1)'"


def test_a_best_value_of_zero_is_a_value(tmp_path: Path) -> None:
    study: Any = PlainStudy([trial(0, 0.0)])
    assert summarize(study, tmp_path).best[0].value == 0.0


def test_a_stored_study_is_summarized(tmp_path: Path) -> None:
    rows = [
        trial(0, 0.5, params={"a": 1}, metrics={"val/acc_sem": 0.01}),
        trial(1, 0.9, infeasible="too many"),
        trial(2, state="dropped"),
        trial(3, state="running"),
    ]
    study: Any = PlainStudy(rows, state="interrupted")
    study.parent.params["study.num_trials"] = "8"
    found = summarize(study, tmp_path)
    assert (found.state, found.num_trials, found.counts) == ("interrupted", 8, {"complete": 2, "running": 1})
    assert found.num_infeasible == 1
    assert found.best == (BestTrial(number=0, objectives={"val/acc": 0.5}, params={"a": 1}, error=0.01),)
    assert not found.is_resumable and summarize(study, tmp_path, state="complete").state == "complete"
    paths.write_text(paths.study_dir(tmp_path, "a") / paths.STUDY, "study: a\n")
    assert summarize(study, tmp_path).is_resumable
