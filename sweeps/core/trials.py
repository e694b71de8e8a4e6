"""What a driver asks and tells: a search proposes trials and takes their results.

There are two: `study.Study`, and the single run of `run_train`.

What became of a trial, and of all trials of a driver.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from sweeps.core.messages import Cause

__all__ = ["SEM", "Ask", "EndState", "Outcome", "Result", "Reused", "Search", "Told", "Totals", "Verdict", "Why"]

SEM = "_sem"
"""what the name of a mean's standard error ends with"""

EndState = Literal["complete", "pruned", "failed", "interrupted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
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
class Verdict:
    """Whether a trial is to be pruned, and why."""

    prune: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """How the end of a trial was recorded, which may differ from how it was told.

    Attributes:
        state: `failed` if an objective is missing, `pruned` if the trial diverged or ran out of memory.
        reason: Why it did not complete.
        objectives: The values that the trial is judged by, with the names of their metrics.
        infeasible: Which constraints the trial violates, in words; empty if none.
    """

    state: EndState
    reason: str = ""
    objectives: Mapping[str, float] = field(default_factory=dict)
    infeasible: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a training, or all trainings of a trial, came to.

    Attributes:
        value: The reported metric at its best.
        metrics: The metrics at the best checkpoint; of several replicates the means, and beside them the standard
            errors of the means, named `..._sem`.
        cause: Why it failed.
    """

    state: EndState
    value: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    cause: Cause | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reused:
    """The end of a trial that has the result of another one: how it was recorded, its value, its metrics."""

    told: Told
    value: float | None
    metrics: Mapping[str, float]


class Search(Protocol):
    """Where trials come from and what becomes of their results."""

    def ask(self) -> Ask:
        """Propose a trial."""
        ...

    def admit(self, metrics: Mapping[str, float]) -> Verdict:
        """Judge what is known of a trial before it trains."""
        ...

    def report(self, number: int, value: float, step: int) -> Verdict:
        """Take an intermediate value and say whether to go on."""
        ...

    def tell(
        self,
        number: int,
        state: EndState,
        value: float | None,
        reason: str,
        *,
        metrics: Mapping[str, float],
        cause: Cause | None,
    ) -> Told:
        """Take a result, and return what was recorded; an interrupted trial is proposed again some day."""
        ...

    def begin_replicates(self, number: int, *, is_anew: bool) -> Mapping[int, Result]:
        """Return the results that a trial of several trainings has already; forget them if it begins anew."""
        ...

    def add_replicate(self, number: int, replicate: int, result: Result) -> Verdict:
        """Keep the result of one of several trainings, and say whether the trial needs the others."""

    def note(self, number: int, key: str, value: Any) -> None:
        """Keep a fact about a running trial, plain data; it is written with what is written next."""
        ...

    def reuse(self, number: int, source: int) -> Reused:
        """End a trial with the reports and the result of another one, and return them."""
        ...

    def flush(self) -> None:
        """Make sure that what was reported is not lost."""
        ...

    @property
    def num_finished(self) -> int:
        """Trials that count against the total."""
        ...

    @property
    def is_exhausted(self) -> bool:
        """Whether there is nothing left to ask for."""
        ...


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
