"""What a driver asks and tells: a search proposes trials and takes their results.

There are two: `study.Study`, and the single run of `run_train`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

__all__ = ["Ask", "EndState", "Reused", "Search", "Told", "Verdict"]

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
    """How the end of a trial was recorded; a value that is not finite turns `complete` into `failed`."""

    state: EndState
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reused:
    """The end of a trial that has the result of another one."""

    state: EndState
    value: float | None
    reason: str
    metrics: Mapping[str, float]


class Search(Protocol):
    """Where trials come from and what becomes of their results."""

    def ask(self) -> Ask:
        """Propose a trial."""
        ...

    def report(self, number: int, value: float, step: int) -> Verdict:
        """Take an intermediate value and say whether to go on."""
        ...

    def tell(self, number: int, state: EndState, value: float | None, reason: str) -> Told:
        """Take a result, and return what was recorded; an interrupted trial is proposed again some day."""
        ...

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
