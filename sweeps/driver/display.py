"""The base class of displays, to which the driver reports progress; `cli/live.py` has the terminal's."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sweeps.core.messages import Progress
from sweeps.core.trials import TrialResult
from sweeps.driver.forecast import Budget
from sweeps.results.summary import BestTrial

__all__ = ["Display", "Heading", "TrialView"]


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


class Display:
    """Shows nothing; a subclass shows what it overrides. Every call returns at once."""

    def trial_started(self, trial: TrialView) -> None:
        """Show that a trial, or one of its replicates, has started."""

    def trial_progressed(self, job: int, progress: Progress) -> None:
        """Show how far a training run is."""

    def trial_reported(self, job: int, value: float, step: int) -> None:
        """Show the intermediate value of a training run."""

    def trial_ended(self, outcome: TrialResult) -> None:
        """Show how a trial, or one of its replicates, has ended."""

    def stopping(self, why: str, num_running: int) -> None:
        """Show that no trial is started any more, and why."""

    def say(self, text: str) -> None:
        """Show a message."""

    def tick(self) -> None:
        """Let time pass; called several times a second."""

    def close(self) -> None:
        """Show nothing more."""
