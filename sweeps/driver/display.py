"""What a driver reports while it runs, for whoever shows it; `cli/live.py` does, in a terminal and elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from sweeps.core.messages import Progress
from sweeps.driver.forecast import Budget
from sweeps.results.summary import BestTrial

__all__ = ["Display", "Ended", "Heading", "TrialView"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """What a display shows above the trials.

    Attributes:
        title: The first line.
        name: The study's name.
        metric: The first objective.
        direction: Its direction.
        objectives: The direction of each, if there are several.
        reported: The metric that trainings report, if it is not the first objective.
        num_finished: Trials that were finished before.
        replicates: Trainings of each trial.
        noun: What one of them is called, if they are several.
        is_sweep: Whether there are many trials; a single run shows its epochs instead.
        budget: What the sweep may use; None makes no forecast.
        device_s_before: Seconds of devices that earlier runs of the study have used.
        best_before: The best trial of earlier runs of the study, or their Pareto front.
    """

    title: str
    name: str
    metric: str
    direction: str
    num_trials: int
    num_finished: int = 0
    is_sweep: bool = True
    objectives: Mapping[str, str] = field(default_factory=dict)
    reported: str | None = None
    replicates: int = 1
    noun: str = "replicate"
    budget: Budget | None = None
    device_s_before: float = 0.0
    best_before: tuple[BestTrial, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialView:
    """What a display knows of a trial when it starts."""

    number: int
    values: Mapping[str, Any]
    slot: int
    began_s: float
    replicate: int | None = None
    """which of several trainings of the trial it is"""
    job: int
    """the training, by which its progress and its end are told"""
    resume_step: int | None = None
    """the step from which an interrupted trial goes on"""
    is_enqueued: bool = False
    """whether somebody asked for it"""


class Ended(Protocol):
    """What a display reads of a trial that has ended; see `driver.Outcome`."""

    number: int
    state: Any
    value: float | None
    values: Mapping[str, Any]
    reason: str
    duration_s: float
    objectives: Mapping[str, float]
    errors: Mapping[str, float]
    infeasible: str
    replicate: int | None
    job: int | None


class Display:
    """Hears what happens and does nothing; what shows it overrides what it needs. Every call returns at once."""

    def trial_started(self, trial: TrialView) -> None:
        """A trial starts."""

    def trial_progressed(self, job: int, progress: Progress) -> None:
        """A training is so far."""

    def trial_reported(self, job: int, value: float, step: int) -> None:
        """A training has an intermediate value."""

    def trial_ended(self, outcome: Ended) -> None:
        """A trial, or one of several trainings of a trial, has ended."""

    def stopping(self, why: str, num_running: int) -> None:
        """No trial is started any more."""

    def say(self, text: str) -> None:
        """Something happened to the study."""

    def tick(self) -> None:
        """Time has passed."""

    def close(self) -> None:
        """Nothing more will come."""
