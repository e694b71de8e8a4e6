"""The end of a sweep in the terminal: what it found, what it has taught, and what to type next."""

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from sweeps.cli.commands.compare import print_rows
from sweeps.cli.live import warn_unsent
from sweeps.core import paths
from sweeps.core.errors import LightsweepError
from sweeps.core.text import duration, values_text
from sweeps.core.urls import default_uri, store_options
from sweeps.driver.sweep import SweepResult
from sweeps.report.advice import Advice
from sweeps.results.queries import sorted_rows, trial_rows

__all__ = ["advice_lines", "conclude"]

_NUM_LEADERS = 5
_MOST_ADVICE = 3
_INTERRUPTED = 130  # what shells expect after Ctrl-C
_STOPPED = {
    "interrupt": "Interrupted",
    "stop": "Stopped by `lightsweep stop`",
    "timeout": "study.timeout_s was over",
    "device_hours": "study.device_hours was used up",
}


def conclude(result: SweepResult, console: Console) -> int:
    """Print what a sweep found and what to type next, and return the exit status."""

    def say(text: str, style: str = "") -> None:
        console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    store_dir = result.folder.parent
    warn_unsent(result.unsent, console)
    totals, best = result.totals, result.best
    counts = [f"{n} {s}" for s in ("complete", "pruned", "failed", "interrupted") if (n := totals.count(s))]
    if not totals.outcomes and result.num_finished >= result.num_trials:
        say(f"{result.study} has its {result.num_finished} trials already. A larger total:")
        more = f"study.num_trials={2 * result.num_finished}"
        say(f"  lightsweep resume {shlex.quote(result.study)}{store_options(store_dir)} {more}")
    else:
        say(f"{result.study}: {', '.join(counts) or 'no trial ended'} in {duration(totals.elapsed_s)}")
    if not totals.stopped and result.num_finished < result.num_trials:
        say(f"The space has no more combinations: {result.num_finished} trials of {result.num_trials} took them all.")
    if totals.num_reused:
        say(f"{totals.num_reused} of {len(totals.outcomes)} reused: their configurations had been trained before.")
    _print_leaders(result, console)
    if len(result.metrics) > 1 and best:
        say(f"Pareto front: {len(best)} of {result.num_finished} trials", "bold green")
    for trial in best:
        objectives = dict(zip(result.metrics, trial.objectives, strict=True))
        found = f"#{trial.number} {values_text(objectives, is_short=False)}  {values_text(trial.values)}"
        say(f"best: {found}" if len(result.metrics) == 1 else f"  {found}", "bold green")
    if not best and result.num_finished:
        say("There is no best trial: none is complete and satisfies the constraints of the study.")
    study, where = shlex.quote(result.study), store_options(store_dir)
    if totals.stopped in _STOPPED and result.num_finished < result.num_trials:
        say(f"{_STOPPED[totals.stopped]} after {result.num_finished} of {result.num_trials} trials. Go on with:")
        more = " study.device_hours=N" if totals.stopped == "device_hours" else ""
        say(f"  lightsweep resume {study}{where}{more}")
    if totals.stopped == "interrupt":
        return _INTERRUPTED
    if totals.stopped == "failures":
        say(f"Stopped: more trials failed than study.max_failures allows. Logs: {result.folder}/*/rank0.log")
    where = store_options(store_dir, result.tracking_uri)
    if result.report is not None:
        for line in _advice(result, result.report.advice):
            say(line)
    say("Next:")
    say(f"  lightsweep compare {study} --top 10{where}")
    if best:
        say(f"  lightsweep reproduce {shlex.quote(f'best:{result.study}')}{where}")
    if not (result.tracking_uri or "").startswith("http"):
        say(f"  lightsweep ui {study}{where}")
    if result.report is not None:
        say(f"The report: {result.folder / paths.REPORT}")
    return 0 if best and totals.stopped != "failures" else 1


def advice_lines(advice: Iterable[Advice], study: str, store_dir: Path) -> list[str]:
    """Return each piece of advice, with the command that follows it, if there is one, below it."""
    lines = []
    for one in advice:
        lines.append(one.text)
        if one.overrides:
            options = store_options(store_dir) + (" --migrate" if one.kind == "edge" else "")
            lines.append(f"  lightsweep resume {shlex.quote(study)}{options} {shlex.join(one.overrides)}")
    return lines


def _advice(result: SweepResult, advice: Iterable[Advice]) -> list[str]:
    """Return what there is to do, the most useful first; what merely is so stands in the report."""
    acts = [one for one in advice if one.kind != "matters"][:_MOST_ADVICE]
    return advice_lines(acts, result.study, result.folder.parent)


def _print_leaders(result: SweepResult, console: Console) -> None:
    """Print the best trials of the study, those of earlier runs included."""
    try:
        rows = sorted_rows(trial_rows(result.tracking_uri or default_uri(result.folder.parent), [result.study]))
    except LightsweepError:  # a store that is out of reach has been told of already
        return
    # One row for those that share a result: the first of them trained
    leaders = {(row.value, repr(row.params)): row for row in reversed(rows) if row.state == "complete"}
    shown = [row for row in rows if leaders.get((row.value, repr(row.params))) is row]
    print_rows(shown[:_NUM_LEADERS], "table", console=console, out=sys.stdout, metric=None)
