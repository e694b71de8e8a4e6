"""The end of a sweep in the terminal."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from sweeps.cli.summary import conclude
from sweeps.core.trials import Totals, Why
from sweeps.driver.sweep import SweepResult
from sweeps.results.summary import NO_BEST, BestTrial, StudySummary
from sweeps.tracking.store import Unsent

SUMMARY = StudySummary(
    name="s",
    state="complete",
    objectives={"val/acc": "maximize"},
    counts={"complete": 3},
    num_trials=8,
    leaders=(BestTrial(number=0, objectives={"val/acc": 0.9}, params={"model.depth": 1}),),
    store_dir=Path("nowhere"),
)


def concluded(folder: Path, stopped: Why = "", **changes: Any) -> tuple[int, str]:
    """Return the exit status and the last lines of a sweep of eight trials."""
    out = io.StringIO()
    result = SweepResult(
        summary=replace(SUMMARY, store_dir=folder, **changes),
        folder=folder / "s",
        totals=Totals(stopped=stopped),
        unsent=Unsent(file=folder / "unsent.jsonl", records=()),
        report=None,
    )
    return conclude(result, Console(file=out, width=200)), out.getvalue()


def test_a_sweep_that_ends_before_its_total_says_why(tmp_path: Path) -> None:
    words = "The search space is exhausted: 3 trials of 8"

    assert words in concluded(tmp_path)[1]
    assert words not in concluded(tmp_path, counts={"complete": 8})[1]
    assert words not in concluded(tmp_path, "timeout")[1]


def test_a_sweep_that_was_stopped_names_the_command_that_resumes_it(tmp_path: Path) -> None:
    status, text = concluded(tmp_path, "interrupt")

    assert status == 130 and f"  lightsweep resume s --store-dir {tmp_path}\n" in text
    assert "resume s" in concluded(tmp_path, "device_hours")[1]
    assert "study.device_hours=N" in concluded(tmp_path, "device_hours")[1]


def test_a_sweep_ends_with_its_best_and_what_to_type_next(tmp_path: Path) -> None:
    status, text = concluded(tmp_path)

    assert status == 0 and "best: #0 val/acc=0.9  depth=1\n" in text
    commands = [line.split()[1] for line in text.splitlines() if line.startswith("  lightsweep")]
    assert commands == ["compare", "reproduce", "ui"]


def test_a_sweep_of_several_objectives_ends_with_its_front(tmp_path: Path) -> None:
    objectives = {"val/acc": "maximize", "val/loss": "minimize"}
    front = tuple(BestTrial(number=n, objectives={"val/acc": 0.9, "val/loss": 0.1}, params={}) for n in (0, 2))
    text = concluded(tmp_path, objectives=objectives, leaders=front)[1]

    assert "Pareto front: 2 of 3 trials" in text and "  #2 val/acc=0.9 val/loss=0.1" in text


def test_a_sweep_without_a_best_trial_fails_and_says_so(tmp_path: Path) -> None:
    status, text = concluded(tmp_path, leaders=())

    assert status == 1 and NO_BEST in text
    assert NO_BEST not in concluded(tmp_path)[1]
