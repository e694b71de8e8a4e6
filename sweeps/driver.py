"""The loop that drives a study: ask, lease a slot, start, hear, tell. The only writer of every store.

The rules are small functions of the state; the loop applies them. There is no batch: as soon as any slot is free
the next trial starts.
"""

import json
import logging
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal, Protocol

from sweeps import paths
from sweeps.config import Config, fingerprint, flatten, freeze, load_frozen
from sweeps.display import Display, TrialView
from sweeps.launchers.slots import Slot
from sweeps.records import (
    Answer,
    Artifact,
    CheckPassed,
    Event,
    Exited,
    Failed,
    Finished,
    Joined,
    MetricPoint,
    Metrics,
    Order,
    Place,
    Progress,
    RankJob,
    Report,
    Saved,
    Started,
    Stop,
    Tried,
)
from sweeps.search import EndState, Search
from sweeps.tracking import tags
from sweeps.tracking.recorder import RunKey

__all__ = ["Driver", "InterruptedRun", "Launcher", "Limits", "Outcome", "RunRecorder", "Totals", "TrialSetup"]

_LOG = logging.getLogger(__name__)
_TICK_S = 0.1  # how often the loop looks at the clock, the signals and the display
_PARENT = "study"


class Launcher(Protocol):
    """Starts ranks and carries events and orders; see `LocalLauncher`."""

    def prepare(self, num_ranks: int) -> None:
        """Expect a further start soon."""

    def start(self, number: int, job: RankJob, num_ranks: int) -> None:
        """Start the ranks of a trial."""

    def poll(self, timeout_s: float) -> list[tuple[int, Event]]:
        """Wait for events."""

    def order(self, number: int, order: Order) -> None:
        """Send an order."""

    def kill(self, number: int) -> None:
        """End a trial at once."""


class RunRecorder(Protocol):
    """Records runs without letting the driver wait; see `Recorder`."""

    def start(
        self,
        run: RunKey,
        name: str,
        *,
        params: Mapping[str, object],
        run_tags: Mapping[str, str],
        parent: RunKey | None = None,
    ) -> None:
        """Create a run."""

    def go_on(self, run: RunKey, run_id: str | None = None, *, step: int = 0) -> None:
        """Go on with an interrupted run."""

    def metrics(self, run: RunKey, points: Iterable[MetricPoint]) -> None:
        """Add metric points."""

    def tags(self, run: RunKey, run_tags: Mapping[str, str]) -> None:
        """Set tags."""

    def artifact(self, run: RunKey, path: Path, artifact_path: str = "") -> None:
        """Keep a file."""

    def end(self, run: RunKey, status: str, run_tags: Mapping[str, str]) -> None:
        """End a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When to stop; see `study` and `launcher` in the configuration."""

    num_trials: int
    timeout_s: float | None = None
    max_failures: int | None = None
    grace_s: float = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class InterruptedRun:
    """A run that an interrupted trial has, and the step from which it goes on (None: from its beginning)."""

    run_id: str
    resume_step: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSetup:
    """How to make a trial of proposed values.

    Attributes:
        compose: Values and trial number to the config of the run.
        folder: Trial number to its folder.
        name: Trial number and values to the run's name.
        run_tags: The tags that every run gets.
        answers: Whether reports can lead to pruning.
        has_parent: Whether the runs belong to the run of a study.
        place: The place of the rank in a group that others start, too; else the launcher gives the places.
        environment: Variables that every rank gets, beside those of its slot.
        runs: The runs of trials that were interrupted, by number; they go on in these.
    """

    compose: Callable[[Mapping[str, Any], int], Config]
    folder: Callable[[int], Path]
    name: Callable[[int, Mapping[str, Any]], str]
    run_tags: Mapping[str, str]
    python_path: tuple[str, ...]
    allowed_modules: tuple[str, ...]
    answers: bool
    has_parent: bool = True
    place: Place | None = None
    environment: tuple[tuple[str, str], ...] = ()
    runs: Mapping[int, InterruptedRun] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What became of a trial."""

    number: int
    state: EndState
    value: float | None
    values: Mapping[str, Any]
    metrics: Mapping[str, float]
    reason: str
    duration_s: float
    start_latency_s: float | None


@dataclass(slots=True, kw_only=True)
class Totals:
    """What became of a run of the driver; `stopped` says why it ended early, if it did."""

    outcomes: list[Outcome] = field(default_factory=list)
    stopped: Literal["", "interrupt", "timeout", "failures"] = ""
    elapsed_s: float = 0.0
    work_s: float = 0.0

    def count(self, state: EndState) -> int:
        """Return how many trials ended in `state`."""
        return sum(outcome.state == state for outcome in self.outcomes)


@dataclass(slots=True, kw_only=True)
class _Running:
    number: int
    values: Mapping[str, Any]
    slot: Slot
    folder: Path
    began_s: float
    slot_free_s: float
    started_s: float | None = None
    last_word: Finished | Failed | None = None
    must_end_by: float | None = None
    why_stopped: str = ""


class Driver:
    """Drives trials through slots until a limit is reached.

    Args:
        search: Proposes trials and takes their results.
        setup: Makes a trial of what is proposed.
        slots: The leases that trials run in.
        limits: When to stop.
        launcher: Starts processes.
        recorder: Records runs.
        display: Shows what happens.
        on_ended: Called with each trial that has ended, after it was told and recorded.
        clock: The time in seconds; monotonic.
    """

    def __init__(
        self,
        *,
        search: Search,
        setup: TrialSetup,
        slots: Iterable[Slot],
        limits: Limits,
        launcher: Launcher,
        recorder: RunRecorder,
        display: Display,
        on_ended: Callable[[Outcome], None] = lambda outcome: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._search = search
        self._setup = setup
        self._limits = limits
        self._launcher = launcher
        self._recorder = recorder
        self._display = display
        self._on_ended = on_ended
        self._clock = clock
        self._began = clock()
        self._free = {slot: time.time() for slot in slots}
        self._running: dict[int, _Running] = {}
        self._recorded: set[int] = set()  # trials whose run is of this driver
        self._resume_steps = {number: run.resume_step for number, run in setup.runs.items()}
        self._num_interrupts = 0
        self._is_killing = False
        self.totals = Totals()

    def run(self) -> Totals:
        """Drive until a limit is reached or the user interrupts, and return what happened.

        The first Ctrl-C lets running trials stop after their step and record themselves; the second kills them.
        """
        with _counting_interrupts(self), self._recording_what_is_cut_off():
            while True:
                self._obey()
                while self._free and self._wants_more():
                    self._start_next()
                if not self._running:
                    break
                events = self._launcher.poll(_TICK_S)
                began = time.perf_counter()
                for number, event in events:
                    self._hear(number, event)
                self.totals.work_s += time.perf_counter() - began
                self._display.tick()
        self.totals.elapsed_s = self._clock() - self._began
        return self.totals

    @contextmanager
    def _recording_what_is_cut_off(self) -> Iterator[None]:
        """End the runs of trials that an error of the driver cuts off."""
        try:
            yield
        except BaseException:
            for trial in self._running.values():
                self._record_end(trial, "interrupted", None, "the driver failed")
            raise

    def interrupt(self) -> None:
        """Ask for the end: gracefully the first time, at once the second."""
        self._num_interrupts += 1

    # --- the rules -----------------------------------------------------------------------------------

    def _wants_more(self) -> bool:
        return (
            not self.totals.stopped
            and self._search.num_finished + len(self._running) < self._limits.num_trials
            and not self._search.is_exhausted
        )

    def _why_stop(self) -> Literal["", "interrupt", "timeout", "failures"]:
        timeout_s, max_failures = self._limits.timeout_s, self._limits.max_failures
        if self._num_interrupts:
            return "interrupt"
        if timeout_s is not None and self._clock() - self._began >= timeout_s:
            return "timeout"
        if max_failures is not None and self.totals.count("failed") > max_failures:
            return "failures"
        return ""

    def _obey(self) -> None:
        """Pass on to the trials what a limit or the user wants."""
        if not self.totals.stopped:
            self.totals.stopped = self._why_stop()
            if self.totals.stopped:
                self._display.stopping(self.totals.stopped, len(self._running))
                for trial in self._running.values():
                    self._stop(trial, self.totals.stopped)
        if self._num_interrupts > 1 and not self._is_killing:
            self._is_killing = True
            for number in self._running:
                self._launcher.kill(number)
        for trial in self._running.values():
            if trial.must_end_by is not None and self._clock() > trial.must_end_by:
                trial.must_end_by = None
                self._launcher.kill(trial.number)

    # --- the acts ------------------------------------------------------------------------------------

    def _start_next(self) -> None:
        began = time.perf_counter()
        slot = min(self._free, key=lambda slot: slot.index)
        slot_free_s = self._free.pop(slot)
        proposed = self._search.ask()
        number, values = proposed.number, proposed.values
        trial = _Running(
            number=number,
            values=values,
            slot=slot,
            folder=self._setup.folder(number),
            began_s=time.time(),
            slot_free_s=slot_free_s,
        )
        config = self._setup.compose(values, number)
        goes_on = self._goes_on(trial, config)
        resume_step = self._resume_step(trial, config) if goes_on else None
        freeze(config, trial.folder)
        self._launcher.start(
            number,
            RankJob(
                folder=str(trial.folder),
                place=self._setup.place or Place(),
                python_path=self._setup.python_path,
                allowed_modules=self._setup.allowed_modules,
                threads=slot.threads,
                environment=(*self._setup.environment, *slot.environment),
                answers=self._setup.answers,
                resume_step=resume_step,
            ),
            slot.devices,
        )
        self._running[number] = trial
        self._record_start(trial, config, goes_on=goes_on, step=resume_step or 0)
        self._display.trial_started(
            TrialView(number=number, values=values, slot=slot.index, began_s=trial.began_s, resume_step=resume_step)
        )
        self.totals.work_s += time.perf_counter() - began

    def _goes_on(self, trial: _Running, config: Config) -> bool:
        """Tell whether the trial has a run and still the same config; with another one it begins anew."""
        if trial.number not in self._recorded and trial.number not in self._setup.runs:
            return False
        has_frozen = (trial.folder / paths.CONFIG).is_file()
        return has_frozen and fingerprint(load_frozen(trial.folder)) == fingerprint(config)

    def _resume_step(self, trial: _Running, config: Config) -> int | None:
        """Return the step from which an interrupted trial goes on, if its state there is still on the disk."""
        step = self._resume_steps.get(trial.number)
        if step is None or not paths.resume_point(trial.folder, fingerprint(config), step).is_file():
            return None
        return step

    def _record_start(self, trial: _Running, config: Config, *, goes_on: bool, step: int) -> None:
        """Create the run, or go on with the one that an interrupted trial has."""
        number, values = trial.number, trial.values
        if goes_on:
            run_id = None if number in self._recorded else self._setup.runs[number].run_id
            self._recorder.go_on(number, run_id, step=step)
            self._recorder.tags(number, {tags.STATE: "running", tags.REASON: ""})
            self._recorded.add(number)
            return
        self._recorded.add(number)
        self._recorder.start(
            number,
            self._setup.name(number, values),
            params=flatten(config),
            run_tags={
                **self._setup.run_tags,
                tags.TRIAL: str(number),
                tags.STATE: "running",
                tags.PARAMS: json.dumps(dict(values)),
                tags.FOLDER: trial.folder.name,
            },
            parent=_PARENT if self._setup.has_parent else None,
        )
        self._recorder.artifact(number, trial.folder / paths.CONFIG)

    def _stop(self, trial: _Running, why: str) -> None:
        trial.why_stopped = why
        trial.must_end_by = self._clock() + self._limits.grace_s
        self._launcher.order(trial.number, Stop())

    def _hear(self, number: int, event: Event) -> None:
        trial = self._running[number]
        match event:
            case Report(value=value, step=step):
                verdict = self._search.report(number, value, step)
                if self._setup.answers:
                    self._launcher.order(number, Answer(prune=verdict.prune, reason=verdict.reason))
                self._display.trial_reported(number, value, step)
            case Metrics(points=points):
                self._recorder.metrics(number, points)
            case Progress():
                self._display.trial_progressed(number, event)
            case Started(time_s=time_s):
                trial.started_s = time_s
                if self._wants_more():  # not sooner: making a process would slow the start of this one
                    self._launcher.prepare(trial.slot.devices)
            case Saved(step=step):
                self._resume_steps[number] = step
                self._search.flush()
                self._recorder.tags(number, {tags.RESUME_STEP: str(step)})
            case Artifact(path=path, artifact_path=artifact_path):
                self._recorder.artifact(number, Path(path), artifact_path)
            case Finished() | Failed():
                trial.last_word = event
            case Exited():
                self._conclude(trial)
            case CheckPassed() | Joined() | Tried():
                raise AssertionError("a trial is no check, and its ranks join among themselves")

    def _conclude(self, trial: _Running) -> None:
        """Free the slot, and tell and record what became of the trial."""
        del self._running[trial.number]
        self._free[trial.slot] = time.time()
        state, value, reason, metrics = _judge(trial)
        told = self._search.tell(trial.number, state, value, reason)
        state, reason = told.state, told.reason or reason
        if state != "interrupted":
            for left in paths.resume_points(trial.folder):
                left.unlink()
        self._record_end(trial, state, value, reason)
        outcome = Outcome(
            number=trial.number,
            state=state,
            value=value,
            values=trial.values,
            metrics=metrics,
            reason=reason,
            duration_s=time.time() - trial.began_s,
            start_latency_s=None if trial.started_s is None else trial.started_s - trial.slot_free_s,
        )
        self.totals.outcomes.append(outcome)
        self._display.trial_ended(outcome)
        self._on_ended(outcome)

    def _record_end(self, trial: _Running, state: EndState, value: float | None, reason: str) -> None:
        if state == "failed":
            self._record_story(trial)
        status, run_tags = tags.ending(state, value, reason)
        self._recorder.end(trial.number, status, run_tags)

    def _record_story(self, trial: _Running) -> None:
        if isinstance(trial.last_word, Failed) and trial.last_word.traceback:
            story = trial.folder / "traceback.txt"
            paths.write_text(story, trial.last_word.traceback)
            self._recorder.artifact(trial.number, story)
        for log in paths.rank_logs(trial.folder):
            self._recorder.artifact(trial.number, log)


def _judge(trial: _Running) -> tuple[EndState, float | None, str, Mapping[str, float]]:
    """Say how a trial ended: by its last word, unless it was cut off."""
    word = trial.last_word
    if isinstance(word, Finished):
        reason = trial.why_stopped if word.state == "interrupted" else word.reason
        return word.state, word.value, reason, word.metrics
    if trial.why_stopped and not (word and word.cause == "elsewhere"):  # torchrun stops whom another's failure leaves
        return "interrupted", None, trial.why_stopped, {}
    assert word is not None, "a launcher says how a trial ended before it says that nothing is left"
    return "failed", None, f"out of memory: {word.message}" if word.cause == "memory" else word.message, {}


@contextmanager
def _counting_interrupts(driver: Driver) -> Any:
    """Let Ctrl-C and SIGTERM count, instead of raising wherever the driver happens to be."""

    def count(signum: int, frame: FrameType | None) -> None:
        driver.interrupt()

    before = {signum: signal.signal(signum, count) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
