"""The loop that drives a study: ask, lease a slot, start, handle events, tell. The only writer of every store.

There is no batch: as soon as any slot is free the next trial starts.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from sweeps.config.composer import Config, freeze
from sweeps.core.messages import (
    Artifact,
    CheckPassed,
    CornerResult,
    DataContent,
    Event,
    Exited,
    Failed,
    Finished,
    Joined,
    Metrics,
    Progress,
    PruneDecision,
    Report,
    Saved,
    Started,
)
from sweeps.core.trials import Search, Suggestion, Totals, TrialResult
from sweeps.driver.display import Display
from sweeps.driver.limits import Limits, Stopper, StopWord
from sweeps.driver.resume_points import ResumePoints
from sweeps.driver.reuse import KnownData, ResultCache, identity
from sweeps.driver.trial_runs import TrialRuns, TrialSetup, rank_job
from sweeps.driver.trials import NUM_PARAMS, Job, Trial, Usage
from sweeps.launchers.launcher import Launcher
from sweeps.launchers.slots import Slot
from sweeps.search.replicates import combined, means
from sweeps.tracking.store import RunRecorder

__all__ = ["Driver", "Limits"]

_LOG = logging.getLogger(__name__)
_TICK_S = 0.1  # how often the loop looks at the clock, the signals and the display


class Driver:
    """Drives trials through slots until a limit is reached.

    Args:
        search: Proposes trials and takes their results.
        setup: Makes a trial of what is suggestion.
        slots: The leases that trials run in.
        limits: When to stop.
        launcher: Starts processes.
        recorder: Records runs.
        display: Shows what happens.
        cache: The trials whose result a trial of the same configuration takes.
        commands: Carries out the commands to the study, and returns whether it is to stop.
        on_ended: Called with each trial that has ended, after it was recorded.
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
        cache: ResultCache | None = None,
        commands: Callable[[], StopWord] = lambda: "",
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
        self._cache = cache or ResultCache(is_on=False)
        self._on_ended = on_ended
        self._clock = clock
        self._began = clock()
        self._free = {slot: time.time() for slot in slots}
        self._open: dict[int, Trial] = {}
        self._running: dict[int, Job] = {}
        self._usage = Usage(
            search,
            self._running,
            devices_per_slot=limits.devices_per_slot,
            device_s_before=limits.device_s_before,
            clock=clock,
        )
        self._resume_points = ResumePoints(recorder, setup.runs)
        self.totals = Totals()
        self._stopper = Stopper(
            limits,
            self._running,
            totals=self.totals,
            usage=self._usage,
            launcher=launcher,
            display=display,
            commands=commands,
            clock=clock,
        )

    def run(self) -> Totals:
        """Drive until a limit is reached or the user interrupts, and return what happened.

        The first Ctrl-C lets running trials stop after their step and record themselves; the second kills them.
        """
        with self._stopper.counting_interrupts(), self._recording_what_is_cut_off():
            while True:
                self._stopper.read_commands()
                self._stopper.apply_limits()
                while self._free and self._wants_more() and self._start_next():
                    pass
                if not self._running:
                    if self._wants_more():
                        continue
                    break
                events = self._launcher.poll(0.0 if self._free and self._wants_more() else _TICK_S)
                began = time.perf_counter()
                for number, event in events:
                    self._on_event(number, event)
                self.totals.work_s += time.perf_counter() - began
                self._usage.save(self._open.values())
                self._display.tick()
            for trial in list(self._open.values()):  # stopped before all of its replicates have begun
                self._finish_trial(trial)
            self._put_back()
        if (
            self._stopper.is_draining
            and not self.totals.stopped
            and self._search.num_finished < self._limits.num_trials
        ):
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
                self._runs.end(run, TrialResult(state="interrupted", reason="the driver failed"))
            raise

    def interrupt(self) -> None:
        """Stop: gracefully the first time, at once the second."""
        self._stopper.interrupt()

    # --- the rules -----------------------------------------------------------------------------------

    def _wants_more(self) -> bool:
        return not self.totals.stopped and (self._wants_new_trial() or self._untrained() is not None)

    def _wants_new_trial(self) -> bool:
        if self._stopper.is_draining:
            return False
        if self._cache.released:
            return True
        num_asked = len(self._open) + self._cache.num_waiting
        return self._search.num_finished + num_asked < self._limits.num_trials and not self._search.is_exhausted

    def _untrained(self, *, is_idle: bool = False) -> Trial | None:
        """Return the first trial with training runs to begin; if `is_idle`, one of which none runs.

        One by one, since the first results of a trial can spare the others.
        """
        waiting = (t for t in self._open.values() if t.waiting and not t.why_pruned)
        return next((trial for trial in waiting if not (is_idle and trial.num_running)), None)

    # --- the acts ------------------------------------------------------------------------------------

    def _start_next(self) -> bool:
        """Start the next training run, and return whether it has taken a slot: a duplicate takes none."""
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

    def _begin(self) -> Trial | None:
        """Ask for a trial, and begin or resume it; None if it shares another one's result."""
        suggestion = self._cache.released.popleft() if self._cache.released else self._search.ask()
        number, is_whole = suggestion.number, self._setup.replicates == 1
        config = self._setup.compose(suggestion.values, number, 0 if is_whole else None)
        if self._is_duplicate(suggestion, config):
            return None
        trial = Trial.begin(suggestion, self._setup.folder(number), config, self._setup.replicates)
        self._open[number] = trial
        if not is_whole:
            resumes = self._runs.resumes(number, trial.folder, config)
            freeze(config, trial.folder)
            self._runs.start(number, suggestion, trial.folder, config, resumes=resumes, step=0)
            trial.results = dict(self._search.begin_replicates(number, restart=not resumes))
            trial.waiting = [index for index in trial.waiting if index not in trial.results]
            if not trial.waiting:  # the driver died between the last of them and the end of the trial
                self._finish_trial(trial)
        return trial

    def _start(self, trial: Trial, replicate: int) -> None:
        """Train in the first free slot."""
        slot = min(self._free, key=lambda slot: slot.index)
        is_whole = self._setup.replicates == 1
        config = trial.config if is_whole else self._setup.compose(trial.values, trial.number, replicate)
        job = trial.job(replicate, self._setup.replicates, config, slot, self._free.pop(slot), self._clock())
        resumes = self._runs.resumes(job.run, job.folder, config)
        if resumes:
            job.resume_step = self._resume_points.step(job.run, job.folder, config)
        freeze(config, job.folder)
        self._launcher.start(job.number, rank_job(job, self._setup, self._known_data.find(config)), slot.devices)
        self._running[job.number] = job
        trial.num_running += 1
        self._runs.start(
            job.run,
            trial.suggestion,
            job.folder,
            config,
            replicate=None if is_whole else replicate,
            slot=slot.index,
            resumes=resumes,
            step=job.resume_step or 0,
        )
        self._display.trial_started(job.view(None if is_whole else replicate))

    # --- the results that trials of the same configuration share

    def _is_duplicate(self, suggestion: Suggestion, config: Config) -> bool:
        """Give a trial the result of another one, now or when that has ended; return whether there is such a one.

        An enqueued trial is trained all the same, and so is one that has been trained in part already.
        """
        number = suggestion.number
        if not self._cache.is_on:
            return False
        own = identity(config, suggestion.values)
        source = self._cache.find(own)
        if source is None or suggestion.is_enqueued or self._runs.has(number):
            self._cache.add(own, number)
            self._search.note(number, "fingerprint", own)
            return False
        if source in self._open:
            self._cache.wait(source, suggestion)
        else:
            self._reuse(suggestion, config, source)
        return True

    def _reuse(self, suggestion: Suggestion, config: Config, source: int) -> None:
        """Record a trial that has the result of another one."""
        number, folder = suggestion.number, self._setup.folder(suggestion.number)
        freeze(config, folder)
        self._runs.start(number, suggestion, folder, config, reused_from=source)
        result = self._search.reuse(number, source)
        self._runs.values(number, result.metrics, 0)
        self._runs.end(number, result)
        self._report_end(replace(result, number=number, values=suggestion.values, reused_from=source))

    def _put_back(self) -> None:
        """Leave duplicates that have not begun to a later run of the study."""
        for suggestion in self._cache.released:
            why = self.totals.stopped or "stop"
            self._search.tell(suggestion.number, "interrupted", None, why, metrics={}, cause=None)
        self._cache.released.clear()

    # --- what training runs report

    def _on_event(self, number: int, event: Event) -> None:
        job = self._running[number]
        if job.why_not_admitted and not isinstance(event, Exited):
            return  # what it has said before it was ended is of a training that is not to be
        match event:
            case Report(value=value, step=step):
                decision = self._judge(job, value, step)
                if self._setup.prunes:
                    self._launcher.order(number, decision)
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
                self._resume_points.saved(job.run, job.folder, step)
            case Artifact(path=path, artifact_path=artifact_path):
                self._recorder.artifact(job.run, Path(path), artifact_path)
            case DataContent(content=content, ignores=ignores):
                self._known_data.add(job.config, content, ignores)
            case Finished() | Failed():
                job.final_message = event
            case Exited():
                self._finish_run(job)
            case CheckPassed() | Joined() | CornerResult():
                raise AssertionError("a trial is no check, and its ranks join among themselves")

    def _judge(self, job: Job, value: float, step: int) -> PruneDecision:
        """Let the search judge an epoch; of several replicates it knows the first one's."""
        if job.replicate > 0:
            return PruneDecision(prune=False)
        return self._search.report(job.trial.number, value, step)

    def _admit(self, job: Job) -> None:
        """Record the size of the model, and end a trial that is too large before it trains."""
        assert job.num_params is not None
        size = {NUM_PARAMS: float(job.num_params)}
        if job.resume_step is None:  # else the run has it
            self._runs.values(job.run, size, 0)
        decision = self._search.admit(size)
        if decision.prune:
            job.why_not_admitted = decision.reason
            self._launcher.kill(job.number)

    def _finish_run(self, job: Job) -> None:
        """Free the slot, take the result of a training run, and finish its trial after the last one."""
        del self._running[job.number]
        self._free[job.slot] = time.time()
        trial, result = job.trial, job.result()
        if trial.is_overdue and result.state == "interrupted":
            result = replace(result, state="pruned")
        self._usage.add(job)
        trial.num_running -= 1
        trial.results[job.replicate] = result
        if isinstance(job.final_message, Failed) and result.state != "interrupted" and not job.why_not_admitted:
            self._runs.keep_failure(job.run, job.folder, job.final_message)
        if self._setup.replicates > 1:
            self._finish_replicate(job, result)
        if trial.is_over or (self.totals.stopped and not trial.num_running):
            self._finish_trial(trial, job if self._setup.replicates == 1 else None)

    def _finish_replicate(self, job: Job, result: TrialResult) -> None:
        """Record a replicate, and see whether the trial needs the others."""
        trial = job.trial
        if result.state == "complete" and result.value is not None:
            decision = self._search.add_replicate(trial.number, job.replicate, result)
            done = [result.metrics for _, result in sorted(trial.results.items()) if result.state == "complete"]
            self._runs.values(trial.number, means(done), len(done))
            if decision.prune and trial.waiting:
                trial.why_pruned = decision.reason
        elif result.state != "interrupted":
            trial.why_pruned = trial.why_pruned or result.reason or result.state
        result = replace(result, value=self._value(result))
        self._runs.end(job.run, result)
        self._resume_points.ended(job.run, job.folder, is_interrupted=result.state == "interrupted")
        self._display.trial_ended(trial.describe(result, job, job.replicate))

    def _finish_trial(self, trial: Trial, job: Job | None = None) -> None:
        """Give the result of a trial to the search, and record it."""
        del self._open[trial.number]
        result = combined(trial.results, self._setup.replicates, trial.why_pruned, self._setup.noun)
        if self._cache.is_on and result.metrics:
            self._search.note(trial.number, "metrics", dict(result.metrics))
        recorded = self._search.tell(
            trial.number, result.state, result.value, result.reason, metrics=result.metrics, cause=result.cause
        )
        result = replace(result, value=self._value(result)).recorded_as(recorded)
        is_whole = self._setup.replicates == 1
        if is_whole:
            self._resume_points.ended(trial.number, trial.folder, is_interrupted=result.state == "interrupted")
        trained_s = trial.used_s if is_whole and trial.suggestion.elapsed_s > 0 else None
        self._runs.end(trial.number, result, trained_s=trained_s)
        self._report_end(trial.describe(result, job))
        self._cache.release(trial.number, result.state)

    def _value(self, result: TrialResult) -> float | None:
        """Return the first objective of a trial that did not complete, if known."""
        return result.metrics.get(self._setup.objective) if self._setup.objective else result.value

    def _report_end(self, result: TrialResult) -> None:
        self.totals.outcomes.append(result)
        self._display.trial_ended(result)
        self._on_ended(result)
