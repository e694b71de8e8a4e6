"""What became of a trial, and of all trials of a driver."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sweeps.search import EndState

__all__ = ["Outcome", "Totals", "Why"]

Why = Literal["", "interrupt", "timeout", "device_hours", "failures", "stop"]
"""Why a driver ended early."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What became of a trial.

    Attributes:
        value: The first objective; of a trial that did not complete, as far as it is known.
        objectives: All of them, of a complete trial.
        errors: The standard errors of the objectives, of a trial of several replicates.
        values: What was searched.
        infeasible: Which constraints it violates.
        replicate: The replicate that ended; None if it is the trial.
        job: The training that ended; None if others ended before the trial did.
        reused_from: The trial of the same configuration whose result this one has.
    """

    number: int
    state: EndState
    value: float | None
    values: Mapping[str, Any]
    metrics: Mapping[str, float]
    reason: str
    duration_s: float
    start_latency_s: float | None
    objectives: Mapping[str, float] = field(default_factory=dict)
    errors: Mapping[str, float] = field(default_factory=dict)
    infeasible: str = ""
    replicate: int | None = None
    job: int | None = None
    reused_from: int | None = None


@dataclass(slots=True, kw_only=True)
class Totals:
    """What became of a run of the driver; `stopped` says why it ended early, if it did."""

    outcomes: list[Outcome] = field(default_factory=list)
    stopped: Why = ""
    elapsed_s: float = 0.0
    work_s: float = 0.0
    _counts: Counter[EndState] = field(default_factory=Counter, init=False, repr=False)

    @property
    def num_reused(self) -> int:
        """How many trials have the result of another one."""
        return sum(outcome.reused_from is not None for outcome in self.outcomes)

    def count(self, state: EndState) -> int:
        """Return how many trials ended in `state`; each is looked at once, since the driver asks all the time."""
        self._counts.update(outcome.state for outcome in self.outcomes[self._counts.total() :])
        return self._counts[state]
