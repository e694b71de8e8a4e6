"""The limits of a driver: budgets of a study, Ctrl-C and stop commands, passed on to the running trials."""

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Literal

from sweeps.core.messages import Stop
from sweeps.core.trials import Totals, Why
from sweeps.driver.display import Display
from sweeps.driver.trials import Job, Usage
from sweeps.launchers.launcher import Launcher

__all__ = ["Limits", "StopWord", "Stopper"]

StopWord = Literal["", "drain", "now"]
"""What a command asks of a driver: nothing, to start no more trials, or also to stop the running ones."""


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


class Stopper:
    """Stops the running trials of a driver when a limit is reached or somebody asks for it.

    Args:
        limits: When to stop.
        running: The running jobs, by number.
        totals: What has ended so far; `stopped` is set here.
        usage: What trials use.
        launcher: Passes orders on, and kills.
        display: Shows why.
        commands: Carries out the commands to the study, and returns whether it is to stop.
        clock: The time in seconds; monotonic.

    Attributes:
        is_draining: Whether no new trial is to start while running ones finish.
    """

    def __init__(
        self,
        limits: Limits,
        running: Mapping[int, Job],
        *,
        totals: Totals,
        usage: Usage,
        launcher: Launcher,
        display: Display,
        commands: Callable[[], StopWord],
        clock: Callable[[], float],
    ) -> None:
        self.is_draining = False
        self._limits = limits
        self._running = running
        self._totals = totals
        self._usage = usage
        self._launcher = launcher
        self._display = display
        self._commands = commands
        self._clock = clock
        self._began_s = clock()
        self._num_interrupts = 0
        self._stops_now = self._is_killing = False

    @contextmanager
    def counting_interrupts(self) -> Iterator[None]:
        """Let Ctrl-C and SIGTERM count, instead of raising wherever the driver happens to be."""

        def count(signum: int, frame: FrameType | None) -> None:
            self.interrupt()

        before = {signum: signal.signal(signum, count) for signum in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def interrupt(self) -> None:
        """Stop: gracefully the first time, at once the second."""
        self._num_interrupts += 1

    def read_commands(self) -> None:
        """Carry out the commands that came since the last call."""
        word = self._commands()
        self._stops_now |= word == "now"
        if word == "drain" and not self.is_draining:
            self.is_draining = True
            self._display.stopping("drain", len(self._running))

    def apply_limits(self) -> None:
        """Stop trials whose time is over, all of them if a limit is reached, and kill those that do not stop."""
        if not self._totals.stopped:
            self._totals.stopped = self._why_stop()
            if self._totals.stopped:
                self._display.stopping(self._totals.stopped, len(self._running))
                for job in self._running.values():
                    self._stop(job, self._totals.stopped)
        self._stop_overdue()
        if self._num_interrupts > 1 and not self._is_killing:
            self._is_killing = True
            for number in self._running:
                self._launcher.kill(number)
        for job in self._running.values():
            if job.must_end_by is not None and self._clock() > job.must_end_by:
                job.must_end_by = None
                self._launcher.kill(job.number)

    def _why_stop(self) -> Why:
        limits = self._limits
        if self._num_interrupts:
            return "interrupt"
        if self._stops_now:
            return "stop"
        if limits.timeout_s is not None and self._clock() - self._began_s >= limits.timeout_s:
            return "timeout"
        if limits.device_hours is not None and self._usage.device_s >= 3600 * limits.device_hours:
            return "device_hours"
        if limits.max_failures is not None and self._totals.count("failed") > limits.max_failures:
            return "failures"
        return ""

    def _stop_overdue(self) -> None:
        limit_s = self._limits.trial_timeout_s
        if limit_s is None:
            return
        for job in self._running.values():
            if not job.why_stopped and self._usage.of(job.trial) >= limit_s:
                job.trial.is_overdue = True
                self._stop(job, f"study.trial_timeout_s={limit_s:g} is over")

    def _stop(self, job: Job, why: str) -> None:
        if job.why_stopped:
            return
        job.why_stopped = why
        job.must_end_by = self._clock() + self._limits.grace_s
        self._launcher.order(job.number, Stop())
