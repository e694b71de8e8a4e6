"""The loop that drives a study: ask, lease a slot, start, hear, tell. The only writer of every store.

The rules are small functions of the state; the loop applies them. There is no batch: as soon as any slot is free
the next trial starts.
"""

import logging
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from sweeps.config.composer import Config, fingerprint, freeze
from sweeps.core import paths
from sweeps.core.messages import (
    Artifact,
    CheckPassed,
    DataContent,
    Event,
    Exited,
    Failed,
    Finished,
    Joined,
    Metrics,
    Place,
    Progress,
    PruneDecision,
    RankJob,
    Report,
    Saved,
    Started,
    Stop,
    Tried,
)
from sweeps.core.trials import EndState, Search, Suggestion, Totals, TrialResult, Why
from sweeps.driver.display import Display, TrialView
from sweeps.driver.resume_points import GoingOn
from sweeps.driver.reuse import KnownData, Twins, identity
from sweeps.driver.trial_runs import TrialRuns, TrialSetup
from sweeps.launchers.launcher import Launcher
from sweeps.launchers.slots import Slot
from sweeps.search.replicates import combined, means
from sweeps.tracking.store import RunRecorder
from sweeps.tracking.ui import RunKey

__all__ = ["NUM_PARAMS", "Driver", "Limits", "StopWord"]

_LOG = logging.getLogger(__name__)
_TICK_S = 0.1  # how often the loop looks at the clock, the signals and the display
_METER_S = 30.0  # how often it notes what running trials have used, for the case that it is killed
NUM_PARAMS = "num_params"
"""the metric that every trial has from its start: the number of its model's parameters"""

StopWord = Literal["", "drain", "now"]
"""What an order says to a driver: nothing, to start no more trials, or to stop the running ones, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When to stop; see `study` and `launcher` in the configuration.

    `device_s_before` is what earlier runs have used of the device-hours, and `devices_per_slot` how many devices a
    training uses.
    """

    num_trials: int
    timeout_s: float | None = None
    device_hours: float | None = None
    device_s_before: float = 0.0
    devices_per_slot: float = 1.0
    trial_timeout_s: float | None = None
    max_failures: int | None = None
    grace_s: float = 20.0


@dataclass(slots=True, kw_only=True)
class _Trial:
    """A trial that has begun and has not ended: trainings that wait, that run and that have ended."""

    proposed: Suggestion
    folder: Path
    began_s: float
    waiting: list[int]
    num_running: int = 0
    results: dict[int, TrialResult] = field(default_factory=dict)
    why_pruned: str = ""
    is_overdue: bool = False
    used_s: float  # by trainings that have ended, those before an interruption included
    used_device_s: float

    @property
    def number(self) -> int:
        return self.proposed.number

    @property
    def values(self) -> Mapping[str, Any]:
        return self.proposed.values

    @property
    def is_over(self) -> bool:
        return not self.num_running and (bool(self.why_pruned) or not self.waiting)


@dataclass(slots=True, kw_only=True)
class _Job:
    """One training of a trial, in a slot."""

    number: int
    trial: _Trial
    replicate: int
    run: RunKey
    slot: Slot
    folder: Path
    config: Config
    began_s: float
    slot_free_s: float
    leased_s: float
    resume_step: int | None = None
    started_s: float | None = None
    num_params: int | None = None
    last_word: Finished | Failed | None = None
    must_end_by: float | None = None
    why_stopped: str = ""
    why_not_admitted: str = ""


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
        twins: The trials whose result one of the same configuration takes.
        orders: Looks whether somebody has ordered the study to stop, and carries out what else was ordered.
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
        twins: Twins | None = None,
        orders: Callable[[], StopWord] = lambda: "",
        on_ended: Callable[[TrialResult], None] = lambda outcome: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._search = search
        self._setup = setup
        self._limits = limits
        self._launcher = launcher
        self._recorder = recorder
        self._runs = TrialRuns(recorder, setup)
        self._display = display
        self._known_data = KnownData()
        self._twins = twins or Twins(is_on=False)
        self._orders = orders
        self._on_ended = on_ended
        self._clock = clock
        self._began = clock()
        self._free = {slot: time.time() for slot in slots}
        self._open: dict[int, _Trial] = {}
        self._running: dict[int, _Job] = {}
        self._sharing: dict[int, list[Suggestion]] = {}  # those that wait for an open trial of the same configuration
        self._next: deque[Suggestion] = deque()  # those whose twin has ended
        self._device_s = limits.device_s_before  # of trainings that have ended
        self._metered_s = self._began
        self._is_draining = self._is_told_to_stop = False
        self._going_on = GoingOn(recorder, setup.runs)
        self._num_interrupts = 0
        self._is_killing = False
        self.totals = Totals()

    def run(self) -> Totals:
        """Drive until a limit is reached or the user interrupts, and return what happened.

        The first Ctrl-C lets running trials stop after their step and record themselves; the second kills them.
        """
        with _counting_interrupts(self), self._recording_what_is_cut_off():
            while True:
                self._hear_orders()
                self._obey()
                while self._free and self._wants_more() and self._start_next():
                    pass
                if not self._running:
                    if self._wants_more():
                        continue
                    break
                events = self._launcher.poll(0.0 if self._free and self._wants_more() else _TICK_S)
                began = time.perf_counter()
                for number, event in events:
                    self._hear(number, event)
                self.totals.work_s += time.perf_counter() - began
                self._meter()
                self._display.tick()
            for trial in list(self._open.values()):  # whose trainings have ended, but not all of them have begun
                self._close(trial)
            self._put_back()
        if self._is_draining and not self.totals.stopped and self._search.num_finished < self._limits.num_trials:
            self.totals.stopped = "stop"
        self.totals.elapsed_s = self._clock() - self._began
        return self.totals

    @contextmanager
    def _recording_what_is_cut_off(self) -> Iterator[None]:
        """End the runs of trials that an error of the driver cuts off."""
        try:
            yield
        except BaseException:
            cut_off = {job.run for job in self._running.values()} | self._open.keys()
            for run in cut_off:
                self._runs.end(run, TrialResult(state="interrupted"), None, "the driver failed")
            raise

    def interrupt(self) -> None:
        """Ask for the end: gracefully the first time, at once the second."""
        self._num_interrupts += 1

    # --- the rules -----------------------------------------------------------------------------------

    def _wants_more(self) -> bool:
        return not self.totals.stopped and (self._wants_new_trial() or self._untrained() is not None)

    def _wants_new_trial(self) -> bool:
        if self._is_draining:
            return False
        if self._next:
            return True
        num_asked = len(self._open) + sum(len(asks) for asks in self._sharing.values())
        return self._search.num_finished + num_asked < self._limits.num_trials and not self._search.is_exhausted

    def _untrained(self, *, is_idle: bool = False) -> _Trial | None:
        """Return the first trial that has trainings to begin; if `is_idle`, one of which none runs.

        One by one, what the first trainings of a trial came to can spare the others.
        """
        waiting = (t for t in self._open.values() if t.waiting and not t.why_pruned)
        return next((trial for trial in waiting if not (is_idle and trial.num_running)), None)

    def _why_stop(self) -> Why:
        timeout_s, max_failures = self._limits.timeout_s, self._limits.max_failures
        if self._num_interrupts:
            return "interrupt"
        if self._is_told_to_stop:
            return "stop"
        if timeout_s is not None and self._clock() - self._began >= timeout_s:
            return "timeout"
        if self._limits.device_hours is not None and self._used_device_s() >= 3600 * self._limits.device_hours:
            return "device_hours"
        if max_failures is not None and self.totals.count("failed") > max_failures:
            return "failures"
        return ""

    def _used_device_s(self) -> float:
        running = sum(self._clock() - job.leased_s for job in self._running.values())
        return self._device_s + self._limits.devices_per_slot * running

    def _hear_orders(self) -> None:
        """Carry out what was ordered since the last look."""
        word = self._orders()
        self._is_told_to_stop |= word == "now"
        if word == "drain" and not self._is_draining:
            self._is_draining = True
            self._display.stopping("drain", len(self._running))

    def _obey(self) -> None:
        """Pass on to the trials what a limit or the user wants."""
        if not self.totals.stopped:
            self.totals.stopped = self._why_stop()
            if self.totals.stopped:
                self._display.stopping(self.totals.stopped, len(self._running))
                for job in self._running.values():
                    self._stop(job, self.totals.stopped)
        self._stop_the_overdue()
        if self._num_interrupts > 1 and not self._is_killing:
            self._is_killing = True
            for number in self._running:
                self._launcher.kill(number)
        for job in self._running.values():
            if job.must_end_by is not None and self._clock() > job.must_end_by:
                job.must_end_by = None
                self._launcher.kill(job.number)

    def _stop_the_overdue(self) -> None:
        limit_s = self._limits.trial_timeout_s
        if limit_s is None:
            return
        for job in self._running.values():
            if not job.why_stopped and self._use_of(job.trial) >= limit_s:
                job.trial.is_overdue = True
                self._stop(job, f"study.trial_timeout_s={limit_s:g} is over")

    # --- the acts ------------------------------------------------------------------------------------

    def _start_next(self) -> bool:
        """Start the next training, and return whether it has taken a slot: a trial may share another's result."""
        began = time.perf_counter()
        trial = self._untrained(is_idle=True)
        if trial is None and self._wants_new_trial():
            trial = self._begin()
        trial = trial or self._untrained()
        is_started = trial is not None and bool(trial.waiting)
        if trial is not None and trial.waiting:
            self._start(trial, trial.waiting.pop(0))
        self.totals.work_s += time.perf_counter() - began
        return is_started

    def _begin(self) -> _Trial | None:
        """Ask for a trial, and begin it or go on with it; None if it shares another one's result."""
        proposed = self._next.popleft() if self._next else self._search.ask()
        number, is_whole = proposed.number, self._setup.replicates == 1
        config = self._setup.compose(proposed.values, number, 0 if is_whole else None)
        if self._shares(proposed, config):
            return None
        trial = self._open[number] = _Trial(
            proposed=proposed,
            folder=self._setup.folder(number),
            began_s=time.time(),
            waiting=list(range(self._setup.replicates)),
            used_s=proposed.elapsed_s,
            used_device_s=proposed.device_s,
        )
        if not is_whole:
            goes_on = self._runs.goes_on(number, trial.folder, config)
            freeze(config, trial.folder)
            self._runs.start(number, proposed, trial.folder, config, goes_on=goes_on, step=0)
            trial.results = dict(self._search.begin_replicates(number, restart=not goes_on))
            trial.waiting = [index for index in trial.waiting if index not in trial.results]
            if not trial.waiting:  # the driver died between the last of them and the end of the trial
                self._close(trial)
        return trial

    def _start(self, trial: _Trial, replicate: int) -> None:
        """Train in the first free slot."""
        slot = min(self._free, key=lambda slot: slot.index)
        is_whole = self._setup.replicates == 1
        config = self._setup.compose(trial.values, trial.number, replicate)
        job = _Job(
            number=trial.number * self._setup.replicates + replicate,
            trial=trial,
            replicate=replicate,
            run=trial.number if is_whole else f"{trial.number}/{replicate}",
            slot=slot,
            folder=trial.folder if is_whole else paths.replicate_dir(trial.folder, replicate),
            config=config,
            began_s=time.time(),
            slot_free_s=self._free.pop(slot),
            leased_s=self._clock(),
        )
        goes_on = self._runs.goes_on(job.run, job.folder, config)
        if goes_on:
            job.resume_step = self._going_on.step(job.run, job.folder, config)
        freeze(config, job.folder)
        self._launcher.start(
            job.number,
            RankJob(
                folder=str(job.folder),
                place=self._setup.place or Place(),
                python_path=self._setup.python_path,
                allowed_modules=self._setup.allowed_modules,
                threads=slot.threads,
                environment=(*self._setup.environment, *slot.environment),
                answers=self._setup.answers,
                resume_step=job.resume_step,
                hidden={fingerprint(config): hidden} if (hidden := self._setup.hidden(config)) else {},
                stop_after=self._setup.stop_after,
                provenance=self._setup.provenance,
                known_data=self._known_data.find(config),
            ),
            slot.devices,
        )
        self._running[job.number] = job
        trial.num_running += 1
        self._runs.start(
            job.run,
            trial.proposed,
            job.folder,
            config,
            replicate=None if is_whole else replicate,
            slot=slot.index,
            goes_on=goes_on,
            step=job.resume_step or 0,
        )
        self._display.trial_started(
            TrialView(
                number=trial.number,
                replicate=None if is_whole else replicate,
                job=job.number,
                values=trial.values,
                slot=slot.index,
                began_s=job.began_s,
                resume_step=job.resume_step,
                is_enqueued=trial.proposed.is_enqueued,
            )
        )

    # --- the results that trials of the same configuration share

    def _shares(self, proposed: Suggestion, config: Config) -> bool:
        """Give a trial the result of another one, now or when that has ended; return whether there is such a one.

        What somebody asked for is trained all the same, and so is what has been trained in part already.
        """
        number = proposed.number
        if not self._twins.is_on:
            return False
        own = identity(config, proposed.values)
        twin = self._twins.find(own)
        has_begun = self._runs.has(number)
        if twin is None or proposed.is_enqueued or has_begun:
            self._twins.add(own, number)
            self._search.note(number, "fingerprint", own)
            return False
        if twin in self._open:
            self._sharing.setdefault(twin, []).append(proposed)
        else:
            self._take_over(proposed, config, twin)
        return True

    def _take_over(self, proposed: Suggestion, config: Config, twin: int) -> None:
        """Record a trial that has the result of its twin."""
        number, folder = proposed.number, self._setup.folder(proposed.number)
        freeze(config, folder)
        self._runs.start(number, proposed, folder, config, reused_from=twin)
        reused = self._search.reuse(number, twin)
        self._runs.values(number, reused.metrics, 0)
        self._runs.end(number, reused, reused.value, reused.reason)
        self._count(replace(reused, number=number, values=proposed.values, reused_from=twin))

    def _settle(self, number: int, state: EndState) -> None:
        """Let those that wait for a trial be next: they take its result, or are trained if it has none."""
        if state not in ("complete", "pruned"):
            self._twins.drop(number)
        self._next.extend(self._sharing.pop(number, ()))

    def _put_back(self) -> None:
        """Let what was proposed, but not begun, wait for another run of the study."""
        for proposed in self._next:
            why = self.totals.stopped or "stop"
            self._search.tell(proposed.number, "interrupted", None, why, metrics={}, cause=None)
        self._next.clear()

    # --- what trials use

    def _meter(self) -> None:
        """Note once in a while what the open trials have used, since a driver may be killed."""
        if self._clock() - self._metered_s >= _METER_S:
            self._metered_s = self._clock()
            for trial in self._open.values():
                self._note_use(trial)
            self._search.flush()

    def _use_of(self, trial: _Trial) -> float:
        """Return the seconds that all trainings of a trial have taken."""
        now = self._clock()
        return trial.used_s + sum(now - job.leased_s for job in self._running.values() if job.trial is trial)

    def _note_use(self, trial: _Trial) -> None:
        used_s = self._use_of(trial)
        device_s = trial.used_device_s + self._limits.devices_per_slot * (used_s - trial.used_s)
        self._search.note(trial.number, "used", {"s": used_s, "device_s": device_s})

    def _add_use(self, job: _Job) -> None:
        """Charge a training that has ended to its trial and to the study."""
        elapsed_s = self._clock() - job.leased_s
        device_s = self._limits.devices_per_slot * elapsed_s
        job.trial.used_s += elapsed_s
        job.trial.used_device_s += device_s
        self._device_s += device_s
        self._note_use(job.trial)

    # --- what trainings say

    def _stop(self, job: _Job, why: str) -> None:
        if job.why_stopped:
            return
        job.why_stopped = why
        job.must_end_by = self._clock() + self._limits.grace_s
        self._launcher.order(job.number, Stop())

    def _hear(self, number: int, event: Event) -> None:
        job = self._running[number]
        if job.why_not_admitted and not isinstance(event, Exited):
            return  # what it has said before it was ended is of a training that is not to be
        match event:
            case Report(value=value, step=step):
                verdict = self._judge_report(job, value, step)
                if self._setup.answers:
                    self._launcher.order(number, PruneDecision(prune=verdict.prune, reason=verdict.reason))
                self._display.trial_reported(number, value, step)
            case Metrics(points=points):
                self._recorder.metrics(job.run, points)
            case Progress():
                self._display.trial_progressed(number, event)
            case Started(time_s=time_s, num_parameters=num_params):
                job.started_s, job.num_params = time_s, num_params
                self._admit(job)
                if self._wants_more():  # not sooner: making a process would slow the start of this one
                    self._launcher.prepare(job.slot.devices)
            case Saved(step=step):
                self._search.flush()
                self._going_on.saved(job.run, job.folder, step)
            case Artifact(path=path, artifact_path=artifact_path):
                self._recorder.artifact(job.run, Path(path), artifact_path)
            case DataContent(content=content, ignores=ignores):
                self._known_data.add(job.config, content, ignores)
            case Finished() | Failed():
                job.last_word = event
            case Exited():
                self._conclude(job)
            case CheckPassed() | Joined() | Tried():
                raise AssertionError("a trial is no check, and its ranks join among themselves")

    def _judge_report(self, job: _Job, value: float, step: int) -> PruneDecision:
        """Let the search judge an epoch; of several replicates it knows the first one's."""
        if job.replicate > 0:
            return PruneDecision(prune=False)
        return self._search.report(job.trial.number, value, step)

    def _admit(self, job: _Job) -> None:
        """Record the size of the model, and end a trial that is too large before it trains."""
        assert job.num_params is not None
        size = {NUM_PARAMS: float(job.num_params)}
        if job.resume_step is None:  # else the run has it
            self._runs.values(job.run, size, 0)
        verdict = self._search.admit(size)
        if verdict.prune:
            job.why_not_admitted = verdict.reason
            self._launcher.kill(job.number)

    def _conclude(self, job: _Job) -> None:
        """Free the slot, take the result of a training, and end its trial if it was the last one."""
        del self._running[job.number]
        self._free[job.slot] = time.time()
        trial, result = job.trial, _result(job)
        if trial.is_overdue and result.state == "interrupted":
            result = replace(result, state="pruned")
        self._add_use(job)
        trial.num_running -= 1
        trial.results[job.replicate] = result
        self._record_story(job, result)
        if self._setup.replicates > 1:
            self._conclude_replicate(job, result)
        if trial.is_over or (self.totals.stopped and not trial.num_running):
            self._close(trial, job if self._setup.replicates == 1 else None)

    def _conclude_replicate(self, job: _Job, result: TrialResult) -> None:
        """Record one of several trainings, and see whether the trial needs the others."""
        trial = job.trial
        if result.state == "complete" and result.value is not None:
            verdict = self._search.add_replicate(trial.number, job.replicate, result)
            done = [result.metrics for _, result in sorted(trial.results.items()) if result.state == "complete"]
            self._runs.values(trial.number, means(done), len(done))
            if verdict.prune and trial.waiting:
                trial.why_pruned = verdict.reason
        elif result.state != "interrupted":
            trial.why_pruned = trial.why_pruned or result.reason or result.state
        result = replace(result, value=self._value(result))
        self._runs.end(job.run, TrialResult(state=result.state), result.value, result.reason)
        self._going_on.ended(job.run, job.folder, is_interrupted=result.state == "interrupted")
        self._display.trial_ended(self._outcome(job.trial, result, job=job, replicate=job.replicate))

    def _close(self, trial: _Trial, job: _Job | None = None) -> None:
        """Tell and record what became of a trial."""
        del self._open[trial.number]
        result = combined(trial.results, self._setup.replicates, trial.why_pruned, self._setup.noun)
        if self._twins.is_on and result.metrics:
            self._search.note(trial.number, "metrics", dict(result.metrics))
        told = self._search.tell(
            trial.number, result.state, result.value, result.reason, metrics=result.metrics, cause=result.cause
        )
        result = replace(result, state=told.state, reason=told.reason or result.reason)
        if self._setup.replicates == 1:
            self._going_on.ended(trial.number, trial.folder, is_interrupted=told.state == "interrupted")
        value = next(iter(told.objectives.values()), self._value(result))
        went_on = self._setup.replicates == 1 and trial.proposed.elapsed_s > 0
        trained_s = trial.used_s if went_on else None
        self._runs.end(trial.number, told, value, result.reason, trained_s=trained_s)
        self._count(self._outcome(trial, replace(result, value=value), told, job=job))
        self._settle(trial.number, told.state)

    def _value(self, result: TrialResult) -> float | None:
        """Return the first objective of what was not told as complete, if it is known."""
        return result.metrics.get(self._setup.objective) if self._setup.objective else result.value

    def _count(self, outcome: TrialResult) -> None:
        self.totals.outcomes.append(outcome)
        self._display.trial_ended(outcome)
        self._on_ended(outcome)

    def _outcome(
        self,
        trial: _Trial,
        result: TrialResult,
        told: TrialResult | None = None,
        *,
        job: _Job | None = None,
        replicate: int | None = None,
    ) -> TrialResult:
        is_timed = job is not None and job.started_s is not None
        return replace(
            result,
            number=trial.number,
            values=trial.values,
            duration_s=time.time() - (job or trial).began_s,
            start_latency_s=job.started_s - job.slot_free_s if job and job.started_s and is_timed else None,
            objectives=told.objectives if told else {},
            infeasible=told.infeasible if told else "",
            replicate=replicate,
            job=job.number if job else None,
        )

    def _record_story(self, job: _Job, result: TrialResult) -> None:
        if isinstance(job.last_word, Failed) and result.state != "interrupted" and not job.why_not_admitted:
            self._runs.story(job.run, job.folder, job.last_word)


def _result(job: _Job) -> TrialResult:
    """Say how a training ended: by its last word, unless it was cut off."""
    word = job.last_word
    size = {} if job.num_params is None else {NUM_PARAMS: float(job.num_params)}
    if job.why_not_admitted:
        return TrialResult(state="pruned", metrics=size, reason=f"not trained: {job.why_not_admitted}")
    if isinstance(word, Finished):
        reason = job.why_stopped if word.state == "interrupted" else word.reason
        return TrialResult(state=word.state, value=word.value, metrics=size | dict(word.metrics), reason=reason)
    if job.why_stopped and not (word and word.cause == "elsewhere"):  # torchrun stops whom another's failure leaves
        return TrialResult(state="interrupted", reason=job.why_stopped)
    assert word is not None, "a launcher says how a trial ended before it says that nothing is left"
    causes = {"memory": "out of memory: ", "diverged": "diverged: "}
    return TrialResult(state="failed", metrics=size, reason=causes.get(word.cause, "") + word.message, cause=word.cause)


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
