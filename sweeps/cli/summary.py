"""Print the summary of a sweep: its results, its advice, and the next commands."""

import sys
from collections.abc import Iterable, Iterator
from typing import get_args

from rich.console import Console

from sweeps.cli.commands.compare import print_rows
from sweeps.cli.live import warn_unsent
from sweeps.core import paths
from sweeps.core.errors import LightsweepError
from sweeps.core.text import duration, values_text
from sweeps.core.trials import EndState, counts_text
from sweeps.core.urls import default_uri
from sweeps.driver.sweep import SweepResult
from sweeps.report.advice import Advice
from sweeps.results.queries import sorted_rows, trial_rows
from sweeps.results.summary import NO_BEST, StudySummary, next_commands, resume_command

__all__ = ["advice_lines", "conclude"]

_NUM_LEADERS = 5
_MOST_ADVICE = 3
_INTERRUPTED = 130  # what shells expect after Ctrl-C
_STOPPED = {
    "interrupt": "Interrupted",
    "stop": "Stopped by `lightsweep stop`",
    "timeout": "study.timeout_s is over",
    "device_hours": "study.device_hours is used up",
}


def conclude(result: SweepResult, console: Console) -> int:
    """Print what a sweep found and what to type next, and return the exit status."""

    def say(text: str, style: str = "") -> None:
        console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    summary, stopped = result.summary, result.totals.stopped
    warn_unsent(result.unsent, console)
    for line in _trials(result):
        say(line)
    _print_leaders(summary, console)
    for line in _best(summary):
        say(line, "bold green")
    if not summary.best and summary.num_finished:
        say(NO_BEST)
    if stopped in _STOPPED and not summary.has_all:
        more = " study.device_hours=N" if stopped == "device_hours" else ""
        say(f"{_STOPPED[stopped]} after {summary.num_finished} of {summary.num_trials} trials. Resume with:")
        say(f"  {resume_command(summary)}{more}")
    if stopped == "interrupt":
        return _INTERRUPTED
    if stopped == "failures":
        say(f"Stopped: more trials failed than study.max_failures allows. Logs: {result.folder}/*/rank0.log")
    if result.report is not None:
        # What merely is so can be read in the report
        acts = [one for one in result.report.advice if one.kind != "matters"][:_MOST_ADVICE]
        for line in advice_lines(acts, summary):
            say(line)
    say("Next:")
    for command in next_commands(summary):
        if command.kind in ("compare", "reproduce", "ui"):
            say(f"  {command.text}")
    if result.report is not None:
        say(f"The report: {result.folder / paths.REPORT}")
    return 0 if summary.best and stopped != "failures" else 1


def advice_lines(advice: Iterable[Advice], summary: StudySummary) -> list[str]:
    """Return each piece of advice, followed by the command that acts on it, if there is one."""
    lines = []
    for one in advice:
        lines.append(one.text)
        if one.overrides:
            lines.append(f"  {resume_command(summary, one.overrides, migrates=one.kind == 'edge')}")
    return lines


def _trials(result: SweepResult) -> Iterator[str]:
    """Say how the trials of this sweep ended, and why there are no more."""
    summary, totals = result.summary, result.totals
    if not totals.outcomes and summary.has_all:
        yield f"{summary.name} has its {summary.num_finished} trials already. For more:"
        yield f"  {resume_command(summary)}"
    else:
        counts = counts_text({state: totals.count(state) for state in get_args(EndState)})
        yield f"{summary.name}: {counts or 'no trial ended'} in {duration(totals.elapsed_s)}"
    if not totals.stopped and not summary.has_all:
        total = f"{summary.num_finished} trials of {summary.num_trials}"
        yield f"The search space is exhausted: {total} took all its combinations."
    if totals.num_reused:
        yield f"{totals.num_reused} of {len(totals.outcomes)} reused: their configurations had been trained before."


def _best(summary: StudySummary) -> Iterator[str]:
    """Return a line for each best trial."""
    is_front = len(summary.objectives) > 1
    if is_front and summary.best:
        yield f"Pareto front: {len(summary.best)} of {summary.num_finished} trials"
    for trial in summary.best:
        objectives = values_text(trial.objectives, is_short=False)
        yield f"{'  ' if is_front else 'best: '}#{trial.number} {objectives}  {values_text(trial.params)}"


def _print_leaders(summary: StudySummary, console: Console) -> None:
    """Print the best trials of the study, also those of earlier sweeps."""
    try:
        rows = sorted_rows(trial_rows(summary.uri or default_uri(summary.store_dir), [summary.name]))
    except LightsweepError:  # that the store is out of reach has been reported already
        return
    # One row for those that share a result: the first of them trained
    leaders = {(row.value, repr(row.params)): row for row in reversed(rows) if row.state == "complete"}
    shown = [row for row in rows if leaders.get((row.value, repr(row.params))) is row]
    print_rows(shown[:_NUM_LEADERS], "table", console=console, out=sys.stdout, metric=None)
