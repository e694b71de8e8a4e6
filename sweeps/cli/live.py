"""Show a sweep while it runs: a live view in a terminal, one line per event elsewhere."""

import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweeps.core.messages import Progress
from sweeps.core.pareto import on_front
from sweeps.core.text import duration, number, some_of, values_text
from sweeps.core.trials import TrialResult, counts_text, num_finished
from sweeps.driver.display import Display, Heading, TrialView
from sweeps.driver.forecast import Forecast, Training, forecast
from sweeps.results.summary import BestTrial
from sweeps.tracking.store import Unsent

__all__ = ["LineDisplay", "LiveDisplay", "make_display", "warn_unsent"]

_REFRESH_S = 0.25
_MOST_UNSENT = 10  # that are named
_KEYS = {"timeout": "timeout_s", "device_hours": "device_hours"}
_WHY = {
    "interrupt": "Stopping: running trials finish their step and are recorded. Ctrl-C again stops at once.",
    "timeout": "study.timeout_s is over: stopping the running trials.",
    "device_hours": "study.device_hours is used up: stopping the running trials.",
    "failures": "More trials failed than study.max_failures allows: stopping.",
    "drain": "Stopping: no new trials; waiting for running trials to finish.",
    "stop": "Stopping now: running trials finish their step; they can be resumed.",
}


def make_display(heading: Heading, console: Console) -> Display:
    """Choose the live view for a terminal, and lines for anything else."""
    return LiveDisplay(heading, console) if console.is_terminal else LineDisplay(heading, console)


class _Progress:
    """Counts ended trials, keeps the best and looks ahead; what both displays know."""

    def __init__(self, heading: Heading, clock: Callable[[], float]) -> None:
        self.heading = heading
        self.counts: Counter[str] = Counter()
        before = heading.best_before
        self.best: TrialResult | BestTrial | None = before[0] if before and not heading.objectives else None
        self.front: list[TrialResult | BestTrial] = [*before] if heading.objectives else []
        self._clock = clock
        self._began_s = clock()
        self._running: dict[int, TrialView] = {}
        self._shares: dict[int, float] = {}  # which share of its steps a running trial has done
        self._num_replicates: dict[int, int] = {}  # of those that run: how many trainings have ended
        self._durations_s: list[float] = []
        self._slot_s = 0.0

    @property
    def num_ended(self) -> int:
        """Trials of this run that count against the total."""
        return num_finished(self.counts)

    def start(self, trial: TrialView) -> None:
        self._running.setdefault(trial.number, trial)

    def progress(self, job: int, progress: Progress) -> None:
        trial = job // self.heading.replicates
        first = self._running[trial].resume_step or 0 if trial in self._running else 0
        if progress.num_steps > first:
            share = (progress.step - first) / (progress.num_steps - first)
            self._shares[trial] = (self._num_replicates.get(trial, 0) + share) / self.heading.replicates

    def forecast(self) -> Forecast | None:
        """Say how the sweep will end, as far as is known."""
        budget, now = self.heading.budget, self._clock()
        if budget is None:
            return None
        running = [
            Training(elapsed_s=max(0.0, now - trial.began_s), share=self._shares.get(trial.number))
            for trial in self._running.values()
        ]
        slot_s = self._slot_s + sum(trial.elapsed_s for trial in running)
        return forecast(
            budget,
            elapsed_s=now - self._began_s,
            num_finished=self.heading.num_finished + self.num_ended,
            durations_s=self._durations_s,
            running=running,
            device_s=self.heading.device_s_before + budget.devices_per_slot * slot_s,
        )

    def add(self, outcome: TrialResult) -> None:
        if outcome.replicate is not None:
            self._num_replicates[outcome.number] = self._num_replicates.get(outcome.number, 0) + 1
            self._shares[outcome.number] = self._num_replicates[outcome.number] / self.heading.replicates
            return
        self.counts[outcome.state] += 1
        self._running.pop(outcome.number, None)
        self._shares.pop(outcome.number, None)
        self._num_replicates.pop(outcome.number, None)
        self._slot_s += outcome.duration_s
        if outcome.state != "interrupted":
            self._durations_s.append(outcome.duration_s)
        if outcome.state != "complete" or outcome.value is None or outcome.infeasible:
            return
        if self.heading.objectives:
            self._add_to_front(outcome)
        elif self._is_best(outcome.value):
            self.best = outcome

    def noun(self, trial: int, replicate: int | None) -> str:
        which = "" if replicate is None else f" {self.heading.noun} {replicate}"
        return f"trial {trial}{which}" if self.heading.is_sweep else "run"

    def _is_best(self, value: float) -> bool:
        if self.best is None or self.best.value is None:
            return True
        better = value > self.best.value
        return better if self.heading.direction == "maximize" else value < self.best.value

    def _add_to_front(self, outcome: TrialResult) -> None:
        trials = [*self.front, outcome]
        points = [[trial.objectives[name] for name in self.heading.objectives] for trial in trials]
        is_best = on_front(points, list(self.heading.objectives.values()))
        self.front = [trial for trial, is_kept in zip(trials, is_best, strict=True) if is_kept]

    def mark(self, outcome: TrialResult) -> str:
        """Say whether a trial is the best, or one of the best, up to now."""
        if any(trial is outcome for trial in self.front):
            return "on the front"
        return "best so far" if self.best is outcome and self.heading.is_sweep else ""

    def line(self, outcome: TrialResult) -> str:
        """Say in one line how a trial ended."""
        head = f"{self.noun(outcome.number, outcome.replicate)} {outcome.state}"
        if outcome.state == "complete" and outcome.value is not None:
            mark = self.mark(outcome)
            # A training of several has the first objective alone
            objectives = outcome.objectives or {self.heading.metric: outcome.value}
            texts = [
                f"{name}={number(float(value))}"
                + (f" ± {number(outcome.errors[name])}" if name in outcome.errors else "")
                for name, value in objectives.items()
            ]
            head += f"  {' '.join(texts)}{'  ' if mark else ''}{mark}"
        took = f"  {duration(outcome.duration_s)}"
        values = values_text(outcome.values)
        why = outcome.reason or outcome.infeasible
        reason = f"  ({why})" if why else ""
        return f"{head}{took}{'  ' + values if values else ''}{reason}"


class LineDisplay(Display):
    """One line an event, for logs and pipes."""

    def __init__(self, heading: Heading, console: Console, clock: Callable[[], float] = time.time) -> None:
        self._state = _Progress(heading, clock)
        self._console = console
        self._forecasts_at = _forecasts_at(heading)
        self._print(heading.title)

    def trial_started(self, trial: TrialView) -> None:
        """Print that it started, or was resumed."""
        self._state.start(trial)
        how = "started" if trial.resume_step is None else f"resumed at step {trial.resume_step}"
        text = f"{values_text(trial.values)}{' (enqueued)' if trial.is_enqueued else ''}"
        self._print(f"{self._state.noun(trial.number, trial.replicate)} {how}  {text}".rstrip())

    def trial_progressed(self, job: int, progress: Progress) -> None:
        """Print nothing: a line for each would be too many."""
        self._state.progress(job, progress)

    def trial_reported(self, job: int, value: float, step: int) -> None:
        """Print the value of a single run."""
        if not self._state.heading.is_sweep:
            self._print(f"validation {step + 1}  {self._state.heading.metric}={number(value)}")

    def trial_ended(self, outcome: TrialResult) -> None:
        """Print how, and now and then a forecast of the sweep."""
        self._state.add(outcome)
        self._print(self._state.line(outcome))
        if self._state.num_ended in self._forecasts_at:
            self._forecasts_at.discard(self._state.num_ended)
            ahead = self._state.forecast()
            if ahead is not None:
                self._print(f"forecast: {_ahead(ahead)}, {ahead.device_s / 3600:.2g} device-hours")

    def stopping(self, why: str, num_running: int) -> None:
        """Print why."""
        self._forecasts_at.clear()
        self._print(_WHY[why])

    def say(self, text: str) -> None:
        """Print it."""
        self._print(text)

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        sys.stdout.flush()


@dataclass(slots=True)
class _Row:
    view: TrialView
    progress: Progress | None = None
    value: float | None = None


class LiveDisplay(Display):
    """A line for each ended trial, and below them a bar for each running one with the state of the study."""

    def __init__(self, heading: Heading, console: Console, clock: Callable[[], float] = time.time) -> None:
        self._state = _Progress(heading, clock)
        self._console = console
        self._rows: dict[int, _Row] = {}
        self._began = time.monotonic()
        self._drawn = 0.0
        self._note = ""
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._live.start()

    def trial_started(self, trial: TrialView) -> None:
        """Add a bar."""
        self._state.start(trial)
        self._rows[trial.job] = _Row(trial)
        self._draw(is_urgent=True)

    def trial_progressed(self, job: int, progress: Progress) -> None:
        """Move its bar."""
        self._state.progress(job, progress)
        if job in self._rows:
            self._rows[job].progress = progress

    def trial_reported(self, job: int, value: float, step: int) -> None:
        """Show its value."""
        if job in self._rows:
            self._rows[job].value = value

    def trial_ended(self, outcome: TrialResult) -> None:
        """Turn its bar into a line."""
        if outcome.job is not None:
            self._rows.pop(outcome.job, None)
        self._state.add(outcome)
        if outcome.replicate is not None and outcome.state == "complete":
            self._draw(is_urgent=True)  # the trial's own line follows
            return
        style = {"complete": "", "pruned": "dim", "failed": "red", "interrupted": "yellow"}[outcome.state]
        if self._state.mark(outcome):
            style = "bold green"
        # A Text of its own style: a style given to `print` would colour the bars below as well
        self._live.console.print(Text(self._state.line(outcome), style=style))
        self._draw(is_urgent=True)

    def stopping(self, why: str, num_running: int) -> None:
        """Say why below the bars."""
        self._note = _WHY[why]
        self._draw(is_urgent=True)

    def say(self, text: str) -> None:
        """Say it above the bars."""
        self._live.console.print(Text(text))

    def tick(self) -> None:
        """Draw, a few times a second."""
        self._draw()

    def close(self) -> None:
        """Take the bars away; the lines stay."""
        self._live.stop()

    def _draw(self, *, is_urgent: bool = False) -> None:
        now = time.monotonic()
        if is_urgent or now - self._drawn >= _REFRESH_S:
            self._drawn = now
            self._live.update(Group(*self._lines(now)), refresh=True)

    def _lines(self, now: float) -> list[Any]:
        table = Table.grid(padding=(0, 1), expand=True)
        for _ in range(4):
            table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, ratio=1)  # the values take what is left of the line
        for row in self._rows.values():
            table.add_row(*self._bar(row))
        lines: list[Any] = [table, self._summary(now)]
        if self._note:
            lines.append(Text(self._note, style="yellow"))
        return lines

    def _bar(self, row: _Row) -> tuple[Any, ...]:
        progress = row.progress
        is_known = progress is not None and progress.num_steps > 0
        total = progress.num_steps if progress is not None and is_known else None
        bar = ProgressBar(total=total, completed=progress.step if progress else 0, width=24, pulse=not is_known)
        where = "starting"
        if progress is not None:
            epochs = "" if progress.max_epochs < 0 else f"/{progress.max_epochs}"
            where = f"epoch {progress.epoch + 1}{epochs} step {progress.step}"
        heading = self._state.heading
        value = "" if row.value is None else f"{heading.reported or heading.metric}={number(row.value)}"
        return (
            Text(_name(row.view) if self._state.heading.is_sweep else "", style="cyan"),
            bar,
            Text(where),
            Text(value, style="green"),
            Text(
                f"{'(enqueued) ' if row.view.is_enqueued else ''}{values_text(row.view.values)}",
                style="dim",
                overflow="ellipsis",
            ),
        )

    def _summary(self, now: float) -> Text:
        heading, counts = self._state.heading, self._state.counts
        if not heading.is_sweep:
            return Text(f"{heading.title}  {duration(now - self._began)}", style="bold")
        ended = self._state.num_ended
        finished = heading.num_finished + ended
        words = counts_text(counts)
        text = Text(f"{heading.name}  {finished}/{heading.num_trials} trials", style="bold")
        if words:
            text.append(f"  ({words})", style="not bold")
        if self._state.best is not None and self._state.best.value is not None:
            best = self._state.best
            text.append(f"  best #{best.number} {heading.metric}={number(float(best.value or 0.0))}", style="green")
        if self._state.front:
            text.append(f"  {len(self._state.front)} on the Pareto front", style="green")
        elapsed = now - self._began
        text.append(f"  {duration(elapsed)}", style="not bold")
        if ended:
            text.append(f", {60 * ended / elapsed:.1f} trials/min", style="not bold")
        is_over = finished >= heading.num_trials
        ahead = None if self._note or is_over else self._state.forecast()
        if ahead is not None:
            text.append(f", {_ahead(ahead)}", style="not bold")
        return text


def _name(view: TrialView) -> str:
    return f"#{view.number}" if view.replicate is None else f"#{view.number}/{view.replicate}"


def _forecasts_at(heading: Heading) -> set[int]:
    """Return after how many ended trials to look ahead: when each slot had one, then at each quarter."""
    if heading.budget is None:
        return set()
    num_trials, num_slots = heading.num_trials - heading.num_finished, heading.budget.num_slots
    quarters = {-(-num_trials * quarter // 4) for quarter in (1, 2, 3)}
    return {count for count in (num_slots, *quarters) if num_slots <= count < num_trials}


def _ahead(ahead: Forecast) -> str:
    """Say how a sweep will end."""
    when = f"in about {duration(ahead.left_s)}"
    if ahead.ends_by == "trials":
        return f"all {ahead.num_trials} trials {when}"
    return f"study.{_KEYS[ahead.ends_by]} ends it {when}, after {ahead.num_trials} trials"


def warn_unsent(unsent: Unsent | None, console: Console, *, is_sweep: bool = True) -> None:
    """Say which records the tracking store did not take, and where they are; a single run has no trials."""
    if unsent is not None and unsent.records:
        num = len(unsent.records)
        words = (words if is_sweep else words.removesuffix(" of trial 0") for words in unsent.records)
        named = some_of(list(dict.fromkeys(words)), _MOST_UNSENT)
        console.print(
            f"The tracking store did not take {num} {'record' if num == 1 else 'records'} ({named}); "
            f"{'it is' if num == 1 else 'they are'} kept in {unsent.file}, with the reason.",
            style="yellow",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
