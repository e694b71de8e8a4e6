"""The states of trials in the user's words, told from Optuna's states and a trial's attributes, and their counts."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from sweeps.core.trials import num_finished
from sweeps.search.storage import storage_errors

__all__ = ["DROPPED", "IMPORTED", "INTERRUPTED", "ORIGIN", "Tally", "TrialCounts", "count_trials", "origin", "state_of"]

INTERRUPTED = "interrupted"
"""why a waiting trial was interrupted"""
DROPPED = "dropped"
"""why a trial does not fit the space that its study was moved to; it only keeps its number"""
IMPORTED = "borrowed"
"""true for a trial of another study that only the sampler and the pruner are to know; stores have the older word"""
ORIGIN = "origin"
"""the study that a trial was imported from, and its number there"""


def state_of(trial: FrozenTrial) -> str:
    """Return complete, pruned, failed, interrupted, running, waiting, dropped or imported."""
    if DROPPED in trial.user_attrs:
        return "dropped"
    if IMPORTED in trial.user_attrs:
        return "imported"
    if trial.state == TrialState.WAITING and INTERRUPTED in trial.user_attrs:
        return "interrupted"
    return "failed" if trial.state == TrialState.FAIL else trial.state.name.lower()


def origin(study: str, trial: FrozenTrial) -> dict[str, Any]:
    """Return the value of the attribute `ORIGIN` of a trial."""
    return {"study": study, "trial": trial.number}


class Tally:
    """Counts trials by state; a trial that has ended is looked at once, since it no longer changes.

    Args:
        trial: Returns a trial by its number.
        state: Returns the state of a trial.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialCounts:
    """How many trials have finished, are running, and wait (enqueued or interrupted)."""

    num_finished: int
    num_running: int
    num_waiting: int


def count_trials(storage: RDBStorage, name: str) -> TrialCounts:
    """Count the trials of a study; all counts are 0 if it does not exist.

    Raises:
        StoreError: The database does not respond.
    """
    with storage_errors(storage):
        try:
            trials = storage.get_all_trials(storage.get_study_id_from_name(name), deepcopy=False)
        except KeyError:
            trials = []
    counts = Counter(state_of(trial) for trial in trials)
    return TrialCounts(
        num_finished=num_finished(counts),
        num_running=counts["running"],
        num_waiting=counts["waiting"] + counts["interrupted"],
    )
