"""The trials of a study: kept in memory for samplers and pruners, and written to the database from there."""

import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

from optuna.storages import InMemoryStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweeps.core.errors import StoreError, StudyError
from sweeps.search.optuna_private import id_of, suspend_trial
from sweeps.search.states import INTERRUPTED
from sweeps.search.storage import storage_errors
from sweeps.search.storage_writer import StorageWriter

__all__ = ["TrialMemory"]

_log = logging.getLogger(__name__)


class TrialMemory:
    """All trials of a study by their numbers, read from the database at the start.

    Changes are made in memory; `save` and `flush` write them. A failed write loses nothing: the next one includes its
    changes.

    Args:
        name: The study's name.
        storage: The database.
        study_id: The study's id there.
        directions: The directions of the objectives.
        flush_interval_s: How long a report may wait to be written, in seconds.

    Attributes:
        optuna: The trials as an Optuna storage.
        running: The numbers of the trials that this driver runs; every write includes their reports.
    """

    def __init__(
        self,
        name: str,
        storage: RDBStorage,
        study_id: int,
        directions: Sequence[StudyDirection],
        flush_interval_s: float,
    ) -> None:
        self.optuna = InMemoryStorage()
        self.running: set[int] = set()
        self._name = name
        self._storage = storage
        self._record = StorageWriter(storage, study_id)
        self._study_id = self.optuna.create_new_study(directions, name)
        for key, value in self._record.attrs.items():
            self.optuna.set_study_system_attr(self._study_id, key, value)
        self._unwritten: set[int] = set()  # trials whose last change is not in the database
        self._flush_interval_s = flush_interval_s
        self._flushed_at_s = time.monotonic()
        self._add_new()

    def __len__(self) -> int:
        return self.optuna.get_n_trials(self._study_id)

    def __iter__(self) -> Iterator[FrozenTrial]:
        return iter(self.optuna.get_all_trials(self._study_id, deepcopy=False))

    def __getitem__(self, number: int) -> FrozenTrial:
        return self.optuna.get_trial(self.optuna.get_trial_id_from_study_id_trial_number(self._study_id, number))

    def __contains__(self, number: int) -> bool:
        return 0 <= number < len(self)

    @property
    def next_number(self) -> int:
        """The number of the next trial: the first that waits, or else a new one."""
        return min((trial.number for trial in self._waiting()), default=len(self))

    @property
    def has_waiting(self) -> bool:
        """Whether a trial waits: enqueued or interrupted."""
        return bool(self._waiting())

    def set_attr(self, number: int, key: str, value: Any) -> None:
        """Set an attribute of a trial, as plain data."""
        self.optuna.set_trial_user_attr(id_of(self[number]), key, value)

    def set_system_attr(self, number: int, key: str, value: Any) -> None:
        """Set an attribute of a trial that Optuna itself reads."""
        self.optuna.set_trial_system_attr(id_of(self[number]), key, value)

    def add_report(self, number: int, step: int, value: float) -> None:
        """Store an intermediate value; a step that has one already keeps it."""
        trial = self[number]
        if step not in trial.intermediate_values:
            self.optuna.set_trial_intermediate_value(id_of(trial), step, value)

    def suspend(self, number: int, reason: str) -> None:
        """Make a trial wait, with its number, values and reports, until it is asked for again."""
        self.set_attr(number, INTERRUPTED, reason)
        suspend_trial(self.optuna, self._study_id, number)
        self.running.discard(number)

    def suspend_half_asked(self, reason: str) -> None:
        """Make the trial wait that Optuna had begun when its sampler raised, so that it does not stay running."""
        running = [trial.number for trial in self if trial.state == TrialState.RUNNING]
        half = [number for number in running if self._record.state(number) != TrialState.RUNNING]
        for number in half:
            self.suspend(number, reason)
        if half:
            self.save(*half)

    # --- the database

    def load_new(self) -> None:
        """Read the trials that other programs have added to the database.

        Raises:
            StudyError: Trials were deleted there.
            StoreError: The database does not respond.
        """
        with storage_errors(self._storage):
            self._add_new()

    def save(self, *numbers: int, is_durable: bool = False, is_patient: bool = True) -> None:
        """Write the changes of these trials, of the running ones, and of the study's own attributes.

        Args:
            numbers: Trials that have changed.
            is_durable: Whether the changes must survive a power loss once this returns.
            is_patient: Whether to retry a failed write for some seconds.

        Raises:
            StudyError: Another program started a trial in the study, or ended one of these.
            StoreError: The database does not respond.
        """
        self._unwritten.update(numbers)
        with storage_errors(self._storage):
            trials = [self[number] for number in sorted(self._unwritten | self.running)]
            self._record.write(trials, is_durable=is_durable, is_patient=is_patient)
            self._record.write_attrs(self.optuna.get_study_system_attrs(self._study_id))
        self._unwritten.clear()
        self._flushed_at_s = time.monotonic()

    def flush(self, *, is_due: bool = True) -> None:
        """Write pending reports, if the database responds.

        Args:
            is_due: Whether to write at once, even if the interval has not passed.
        """
        if not is_due and time.monotonic() - self._flushed_at_s < self._flush_interval_s:
            return
        try:
            self.save(is_patient=False)
        except StoreError as exc:  # reports can wait while the trials continue
            _log.warning("%s", exc)
            self._flushed_at_s = time.monotonic()

    def _waiting(self) -> list[FrozenTrial]:
        return self.optuna.get_all_trials(self._study_id, deepcopy=False, states=(TrialState.WAITING,))

    def _add_new(self) -> None:
        for trial in self._record.new_trials(len(self)):
            self.optuna.create_new_trial(self._study_id, trial)
            number = len(self) - 1
            if number != trial.number:
                raise StudyError(
                    f"Trial {trial.number} of study {self._name!r} should be number {number}: trials were "
                    f"deleted from its storage. Start a study with another study.name."
                )
