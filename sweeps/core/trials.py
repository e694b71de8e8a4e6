"""Trials between the driver and the search: suggestions, results, and the totals of a driver.

There are two searches: `search/study.py` and `driver/single_run.py`.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from sweeps.core.messages import Cause, PruneDecision

__all__ = [
    "FINISHED",
    "SEM",
    "EndState",
    "Search",
    "Suggestion",
    "Totals",
    "TrialResult",
    "Why",
    "counts_text",
    "num_finished",
]

SEM = "_sem"
"""what the name of a mean's standard error ends with"""

EndState = Literal["complete", "pruned", "failed", "interrupted"]

FINISHED: tuple[EndState, ...] = ("complete", "pruned", "failed")
"""the states of trials that count against `study.num_trials`"""


def num_finished(counts: Mapping[str, int]) -> int:
    """Return how many trials count against `study.num_trials`, from the number of trials in each state."""
    return sum(counts.get(state, 0) for state in FINISHED)


def counts_text(counts: Mapping[str, int], *, num_infeasible: int = 0) -> str:
    """Write how many trials there are in each state: `5 complete (1 infeasible), 2 pruned`."""
    shown = (*FINISHED, "interrupted", "running")
    texts = {state: f"{counts[state]} {state}" for state in shown if counts.get(state)}
    if num_infeasible and "complete" in texts:
        texts["complete"] += f" ({num_infeasible} infeasible)"
    return ", ".join(texts.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A trial to run.

    Attributes:
        number: Counts the trials of the study from 0.
        values: What each searched key gets.
        is_enqueued: Whether somebody asked for it, and not the sampler alone.
        elapsed_s: How long it had run when it was interrupted.
        device_s: How many seconds of devices it had used by then.
    """

    number: int
    values: dict[str, Any]
    is_enqueued: bool = False
    elapsed_s: float = 0.0
    device_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """How a trial, or one of its replicates, ended: from the rank's final message to the record.

    A search may record another state than it was given: `failed` if an objective is missing, `pruned` if the trial
    diverged or ran out of memory.

    Attributes:
        value: The reported metric at its best; once recorded, the first objective, if known.
        metrics: The metrics at the best checkpoint; of several replicates the means, and beside them the standard
            errors of the means, named `..._sem`.
        reason: Why it did not complete.
        cause: Why it failed.
        objectives: The values by which a complete trial is judged, by the names of their metrics.
        infeasible: Which constraints the trial violates, in words; empty if none.
        number: The trial's number.
        values: The searched values.
        duration_s: Seconds from its start to its end.
        start_latency_s: Seconds from the moment its slot was free to its first step.
        replicate: The replicate that ended; None if it is the trial.
        job: The training run that ended; None if others ended before the trial did.
        reused_from: The trial of the same configuration whose result this one has.
    """

    state: EndState
    value: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    cause: Cause | None = None
    objectives: Mapping[str, float] = field(default_factory=dict)
    infeasible: str = ""
    number: int = 0
    values: Mapping[str, Any] = field(default_factory=dict)
    duration_s: float = 0.0
    start_latency_s: float | None = None
    replicate: int | None = None
    job: int | None = None
    reused_from: int | None = None

    @property
    def errors(self) -> dict[str, float]:
        """The standard errors of the objectives that are means of several replicates."""
        return {name: self.metrics[name + SEM] for name in self.objectives if name + SEM in self.metrics}

    def recorded_as(self, recorded: "TrialResult") -> "TrialResult":
        """Return the result with the state, the reason, the objectives and the constraints that a search recorded."""
        return replace(
            self,
            state=recorded.state,
            value=next(iter(recorded.objectives.values()), self.value),
            reason=recorded.reason or self.reason,
            objectives=recorded.objectives,
            infeasible=recorded.infeasible,
        )


class Search:
    """Proposes trials and records their results; by default it keeps nothing and lets every trial train."""

    @property
    def num_finished(self) -> int:
        """Trials that count against the total."""
        return 0

    @property
    def is_exhausted(self) -> bool:
        """Whether no trial is left to propose."""
        return False

    def ask(self) -> Suggestion:
        """Propose a trial."""
        raise NotImplementedError

    def admit(self, metrics: Mapping[str, float]) -> PruneDecision:
        """Judge a trial by the metrics that it has before it trains."""
        return PruneDecision(prune=False)

    def report(self, number: int, value: float, step: int) -> PruneDecision:
        """Take an intermediate value and decide whether to prune."""
        return PruneDecision(prune=False)

    def tell(
        self,
        number: int,
        state: EndState,
        value: float | None = None,
        reason: str = "",
        *,
        metrics: Mapping[str, float] = MappingProxyType({}),
        cause: Cause | None = None,
    ) -> TrialResult:
        """Take a result, and return the state and the objectives as recorded; propose an interrupted trial again."""
        return TrialResult(state=state, reason=reason)

    def begin_replicates(self, number: int, *, restart: bool) -> Mapping[int, TrialResult]:
        """Return the results that a replicated trial has already; forget them at a restart."""
        return {}

    def add_replicate(self, number: int, replicate: int, result: TrialResult) -> PruneDecision:
        """Keep the result of a replicate, and decide whether to skip the remaining ones."""
        return PruneDecision(prune=False)

    def note(self, number: int, key: str, value: Any) -> None:
        """Keep a fact about a running trial, plain data; it is written with the next write."""

    def reuse(self, number: int, source: int) -> TrialResult:
        """End a trial with the reports and the result of another one, and return it."""
        raise NotImplementedError

    def flush(self) -> None:
        """Make sure that no report is lost."""


Why = Literal["", "interrupt", "timeout", "device_hours", "failures", "stop"]
"""Why a driver ended early."""


@dataclass(slots=True, kw_only=True)
class Totals:
    """What became of a run of the driver; `stopped` says why it ended early, if it did."""

    outcomes: list[TrialResult] = field(default_factory=list)
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
