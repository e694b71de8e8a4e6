"""The search of `lightsweep train`: it suggests one trial, and nothing after it."""

from typing import Any

from sweeps.core.trials import Search, Suggestion, TrialResult

__all__ = ["SingleRun"]


class SingleRun(Search):
    """Proposes the composed configuration once."""

    def __init__(self) -> None:
        self._is_suggested = self._is_finished = False

    @property
    def num_finished(self) -> int:
        """1 once it has ended."""
        return int(self._is_finished)

    @property
    def is_exhausted(self) -> bool:
        """Whether it was proposed."""
        return self._is_suggested

    def ask(self) -> Suggestion:
        """Propose it."""
        self._is_suggested = True
        return Suggestion(number=0, values={})

    def tell(self, number: int, state: Any, *args: Any, **kwargs: Any) -> TrialResult:
        """Take its end as it is."""
        self._is_finished = True
        return super().tell(number, state, *args, **kwargs)
