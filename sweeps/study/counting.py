"""How far a study is, read from its storage beside the driver that works on it."""

from collections import Counter
from dataclasses import dataclass

from optuna.storages import RDBStorage

from sweeps.study.states import state_of
from sweeps.study.storage import storage_errors

__all__ = ["TrialCounts", "count_trials"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialCounts:
    """How many trials count against the total, run, and wait (enqueued or interrupted)."""

    num_finished: int
    num_running: int
    num_waiting: int


def count_trials(storage: RDBStorage, name: str) -> TrialCounts:
    """Count the trials of a study; none if it is not in the storage.

    Raises:
        StoreError: The database does not answer.
    """
    with storage_errors(storage):
        try:
            trials = storage.get_all_trials(storage.get_study_id_from_name(name), deepcopy=False)
        except KeyError:
            trials = []
    counts = Counter(state_of(trial) for trial in trials)
    return TrialCounts(
        num_finished=counts["complete"] + counts["pruned"] + counts["failed"],
        num_running=counts["running"],
        num_waiting=counts["waiting"] + counts["interrupted"],
    )
