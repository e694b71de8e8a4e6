"""How many trials are in which state, kept up to date without looking at every trial again."""

from collections import Counter
from collections.abc import Callable

from optuna.trial import FrozenTrial

__all__ = ["Tally"]


class Tally:
    """Counts trials by state; what has ended is counted once, since it changes no more.

    Args:
        trial: Gives a trial by its number.
        state: Names its state.
    """

    def __init__(self, trial: Callable[[int], FrozenTrial], state: Callable[[FrozenTrial], str]) -> None:
        self._trial = trial
        self._state = state
        self._num_seen = 0
        self._open: set[int] = set()
        self._ended: Counter[str] = Counter()

    def counts(self, num_trials: int) -> Counter[str]:
        """Return how many of the first `num_trials` trials are in each state that occurs."""
        self._open.update(range(self._num_seen, num_trials))
        self._num_seen = num_trials
        found: Counter[str] = Counter()
        for number in tuple(self._open):
            trial = self._trial(number)
            if trial.state.is_finished():
                self._open.remove(number)
                self._ended[self._state(trial)] += 1
            else:
                found[self._state(trial)] += 1
        return self._ended + found
