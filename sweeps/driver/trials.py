"""The trials that have begun and not ended, their training runs, and the device time they use."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sweeps.config.composer import Config
from sweeps.core import paths
from sweeps.core.messages import Failed, Finished
from sweeps.core.trials import Search, Suggestion, TrialResult
from sweeps.driver.display import TrialView
from sweeps.launchers.slots import Slot
from sweeps.tracking.ui import RunKey

__all__ = ["NUM_PARAMS", "Job", "Trial", "Usage"]

NUM_PARAMS = "num_params"
"""the metric that every trial has from its start: the number of its model's parameters"""
_SAVE_EVERY_S = 30.0  # how often the use of running trials is noted, in case the driver is killed
_CAUSES = {"memory": "out of memory: ", "diverged": "diverged: "}


@dataclass(slots=True, kw_only=True)
class Trial:
    """A trial that has begun and not ended: its training runs wait, run or have ended."""

    suggestion: Suggestion
    folder: Path
    config: Config
    began_s: float
    waiting: list[int]
    num_running: int = 0
    results: dict[int, TrialResult] = field(default_factory=dict)
    why_pruned: str = ""
    is_overdue: bool = False
    used_s: float  # by training runs that have ended, those before an interruption included
    used_device_s: float

    @classmethod
    def begin(cls, suggestion: Suggestion, folder: Path, config: Config, num_replicates: int) -> "Trial":
        """Begin a trial, or continue one that was interrupted."""
        return cls(
            suggestion=suggestion,
            folder=folder,
            config=config,
            began_s=time.time(),
            waiting=list(range(num_replicates)),
            used_s=suggestion.elapsed_s,
            used_device_s=suggestion.device_s,
        )

    def job(
        self, replicate: int, num_replicates: int, config: Config, slot: Slot, slot_free_s: float, leased_s: float
    ) -> "Job":
        """Return the training run of a replicate; that of a single one is the trial itself."""
        is_whole = num_replicates == 1
        return Job(
            number=self.number * num_replicates + replicate,
            trial=self,
            replicate=replicate,
            run=self.number if is_whole else f"{self.number}/{replicate}",
            slot=slot,
            folder=self.folder if is_whole else paths.replicate_dir(self.folder, replicate),
            config=config,
            began_s=time.time(),
            slot_free_s=slot_free_s,
            leased_s=leased_s,
        )

    @property
    def number(self) -> int:
        """The trial's number."""
        return self.suggestion.number

    @property
    def values(self) -> Mapping[str, Any]:
        """The searched values."""
        return self.suggestion.values

    @property
    def is_over(self) -> bool:
        """Whether no training run is left."""
        return not self.num_running and (bool(self.why_pruned) or not self.waiting)

    def describe(self, result: TrialResult, job: "Job | None" = None, replicate: int | None = None) -> TrialResult:
        """Return a result of the trial, or of a replicate, with its number, values and times."""
        started_s = job.started_s if job else None
        return replace(
            result,
            number=self.number,
            values=self.values,
            duration_s=time.time() - (job or self).began_s,
            start_latency_s=started_s - job.slot_free_s if job and started_s else None,
            replicate=replicate,
            job=job.number if job else None,
        )


@dataclass(slots=True, kw_only=True)
class Job:
    """One training run of a trial, in a slot."""

    number: int
    trial: Trial
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
    final_message: Finished | Failed | None = None
    must_end_by: float | None = None
    why_stopped: str = ""
    why_not_admitted: str = ""

    def view(self, replicate: int | None) -> TrialView:
        """Return what a display shows of the training run; `replicate` is None if it is the whole trial."""
        return TrialView(
            number=self.trial.number,
            replicate=replicate,
            job=self.number,
            values=self.trial.values,
            slot=self.slot.index,
            began_s=self.began_s,
            resume_step=self.resume_step,
            is_enqueued=self.trial.suggestion.is_enqueued,
        )

    def result(self) -> TrialResult:
        """Return how the training run ended: by its final message, unless it was cut off."""
        final = self.final_message
        size = {} if self.num_params is None else {NUM_PARAMS: float(self.num_params)}
        if self.why_not_admitted:
            return TrialResult(state="pruned", metrics=size, reason=f"not trained: {self.why_not_admitted}")
        if isinstance(final, Finished):
            reason = self.why_stopped if final.state == "interrupted" else final.reason
            return TrialResult(state=final.state, value=final.value, metrics=size | final.metrics, reason=reason)
        if self.why_stopped and not (final and final.cause == "elsewhere"):  # stopped by torchrun after a peer failed
            return TrialResult(state="interrupted", reason=self.why_stopped)
        assert final is not None, "a launcher sends the final message of a trial before its exit"
        reason = _CAUSES.get(final.cause, "") + final.message
        return TrialResult(state="failed", metrics=size, reason=reason, cause=final.cause)


class Usage:
    """Meters the seconds and the device-seconds that trials use.

    Args:
        search: Keeps what each trial has used.
        running: The running jobs, by number; read, never changed.
        devices_per_slot: How many devices a training run uses.
        device_s_before: Device-seconds that earlier runs of the study have used.
        clock: The time in seconds; monotonic.
    """

    def __init__(
        self,
        search: Search,
        running: Mapping[int, Job],
        *,
        devices_per_slot: float,
        device_s_before: float,
        clock: Callable[[], float],
    ) -> None:
        self._search = search
        self._running = running
        self._devices_per_slot = devices_per_slot
        self._ended_device_s = device_s_before
        self._clock = clock
        self._saved_s = clock()

    @property
    def device_s(self) -> float:
        """The device-seconds of all trials, running ones included."""
        running_s = sum(self._clock() - job.leased_s for job in self._running.values())
        return self._ended_device_s + self._devices_per_slot * running_s

    def of(self, trial: Trial) -> float:
        """Return the seconds that all training runs of a trial have taken."""
        now = self._clock()
        return trial.used_s + sum(now - job.leased_s for job in self._running.values() if job.trial is trial)

    def add(self, job: Job) -> None:
        """Charge a training run that has ended to its trial and to the study."""
        elapsed_s = self._clock() - job.leased_s
        device_s = self._devices_per_slot * elapsed_s
        job.trial.used_s += elapsed_s
        job.trial.used_device_s += device_s
        self._ended_device_s += device_s
        self._note(job.trial)

    def save(self, trials: Iterable[Trial]) -> None:
        """Note from time to time what open trials have used, since a driver may be killed."""
        if self._clock() - self._saved_s >= _SAVE_EVERY_S:
            self._saved_s = self._clock()
            for trial in trials:
                self._note(trial)
            self._search.flush()

    def _note(self, trial: Trial) -> None:
        used_s = self.of(trial)
        device_s = trial.used_device_s + self._devices_per_slot * (used_s - trial.used_s)
        self._search.note(trial.number, "used", {"s": used_s, "device_s": device_s})
