"""The search of a single run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweeps.core.messages import Cause
from sweeps.core.trials import Ask, EndState, Result, Reused, Told, Verdict

__all__ = ["OneRun"]


@dataclass(slots=True)
class OneRun:
    """A search that proposes the one configuration that was typed."""

    num_finished: int = 0
    is_exhausted: bool = False

    def ask(self) -> Ask:
        """Propose the one there is."""
        self.is_exhausted = True
        return Ask(number=0, values={})

    def admit(self, metrics: Mapping[str, float]) -> Verdict:
        """Admit it, however large."""
        return Verdict(prune=False)

    def report(self, number: int, value: float, step: int) -> Verdict:
        """Let it go on."""
        return Verdict(prune=False)

    def begin_replicates(self, number: int, *, is_anew: bool) -> Mapping[int, Result]:
        """There are none."""
        return {}

    def add_replicate(self, number: int, replicate: int, result: Result) -> Verdict:
        """Let it go on."""
        return Verdict(prune=False)

    def note(self, number: int, key: str, value: Any) -> None:
        """Nothing is kept but what its record has."""

    def reuse(self, number: int, source: int) -> Reused:
        """Never be asked."""
        raise AssertionError("a single run has no other to take a result from")

    def flush(self) -> None:
        """Nothing is kept of the reports of a single run."""

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
        """Take its end as it is."""
        self.num_finished = 1
        return Told(state=state, reason=reason)
