"""Write trials to Optuna's tables: the changes of a running study, or a new study with all its trials at once.

`StorageWriter` writes changes in one transaction. `publish` creates a study that has trials from its first moment,
replacing an earlier one if need be: it is written under another name and then renamed, together with the earlier one,
in one transaction. A crash leaves either the old state or the new one; the next attempt removes a half-written study.
"""

import copy
import itertools
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweeps.core.errors import StudyError
from sweeps.search.optuna_private import (
    METRIC_NAMES,
    STUDIES,
    SYSTEM_ATTRS,
    TABLES_OF_TRIALS,
    TRIAL_PARAMS,
    TRIAL_REPORTS,
    TRIAL_VALUES,
    TRIALS,
    USER_ATTRS,
    id_of,
    report_columns,
    value_columns,
)

__all__ = ["StorageWriter", "backup_name", "publish"]

_log = logging.getLogger(__name__)
_RETRY_AFTER_S = (0.1, 0.3, 1.0, 3.0, 10.0)


@dataclass(frozen=True, slots=True)
class _Written:
    trial_id: int
    trial: FrozenTrial  # the object in memory, which is replaced when the trial changes
    content: FrozenTrial  # its state in the database


class StorageWriter:
    """Writes the trials of a study to Optuna's tables, in as few transactions as possible.

    Optuna's own storage takes one or more transactions for every report, parameter and attribute, and reads
    all unfinished trials before each decision. The rows written here are the same.

    Attributes:
        attrs: The study's own attributes as they are in the database.
    """

    def __init__(self, storage: RDBStorage, study_id: int) -> None:
        self.attrs: dict[str, Any] = storage.get_study_system_attrs(study_id)
        self._storage = storage
        self._study_id = study_id
        self._last_id = -1
        self._written: dict[int, _Written] = {}  # by number
        self._failed = False  # then the failed write may have been committed

    def state(self, number: int) -> TrialState | None:
        """Return the last known state of the trial in the database; None if it is not there."""
        written = self._written.get(number)
        return None if written is None else written.content.state

    def new_trials(self, num_known: int) -> list[FrozenTrial]:
        """Return the trials that other programs have added, from number `num_known` on."""
        query = sa.select(sa.func.max(TRIALS.c.trial_id)).where(TRIALS.c.study_id == self._study_id)
        with self._storage.engine.connect() as connection:
            last = connection.execute(query).scalar()
        if last is None or last <= self._last_id:
            return []
        found = [t for t in self._storage.get_all_trials(self._study_id, deepcopy=False) if t.number >= num_known]
        for trial in found:
            self._written[trial.number] = _Written(id_of(trial), trial, _snapshot(trial))
        self._last_id = int(last)
        return found

    def write(self, trials: Sequence[FrozenTrial], *, is_durable: bool, is_patient: bool) -> None:
        """Write the changes of `trials` to the database, in one transaction.

        Raises:
            StudyError: Another program started a trial in the study, or ended one of these.
            sqlalchemy.exc.SQLAlchemyError: The database does not respond, after all attempts.
        """
        dirty = [
            trial
            for trial in trials
            if trial.number not in self._written or self._written[trial.number].trial is not trial
        ]
        if not dirty:
            return
        for attempt, pause_s in enumerate((*_RETRY_AFTER_S, None)):
            try:
                ids = self._write_once(dirty, is_durable=is_durable, is_retry=attempt > 0 or self._failed)
                self._failed = False
                break
            except sa.exc.OperationalError as exc:
                self._failed = True
                if not is_patient or pause_s is None or self._storage.engine.dialect.name == "sqlite":
                    raise  # SQLite has waited already
                _log.warning("the study's storage does not answer, trying again: %s", exc.orig)
                time.sleep(pause_s)
        self._last_id = max(self._last_id, *ids)
        for trial, trial_id in zip(dirty, ids, strict=True):
            self._written[trial.number] = _Written(trial_id, trial, _snapshot(trial))

    def write_attrs(self, attrs: Mapping[str, Any]) -> None:
        """Write the study's own attributes, if they have changed."""
        for key, value in attrs.items():
            if self.attrs.get(key) != value:
                self._storage.set_study_system_attr(self._study_id, key, value)
        self.attrs = dict(attrs)

    def _write_once(self, trials: list[FrozenTrial], *, is_durable: bool, is_retry: bool) -> list[int]:
        ids = []
        rows: dict[Any, list[dict[str, Any]]] = {}
        with self._storage.engine.connect() as connection:
            if connection.dialect.name == "sqlite":  # before the transaction, since it has no effect inside
                connection.exec_driver_sql(f"pragma synchronous = {'full' if is_durable else 'normal'}")
            self._lock_study(connection)
            for trial in trials:
                written = self._written.get(trial.number)
                if written is None:
                    ids.append(self._insert_trial(connection, trial, is_retry=is_retry))
                    self._collect(connection, ids[-1], None, trial, rows)
                else:
                    ids.append(written.trial_id)
                    self._update_trial(connection, ids[-1], written.content, trial)
                    self._collect(connection, ids[-1], written.content, trial, rows)
            for table, new in rows.items():
                connection.execute(sa.insert(table), new)
            connection.commit()
        return ids

    def _lock_study(self, connection: sa.Connection) -> None:
        """Begin the transaction with a write: SQLite then waits for others up front, and servers lock the row."""
        found = connection.execute(
            sa.update(STUDIES).where(STUDIES.c.study_id == self._study_id).values(study_name=STUDIES.c.study_name)
        )
        if not found.rowcount:
            raise StudyError("The study was deleted from its storage while it ran. Give another study.name.")

    def _insert_trial(self, connection: sa.Connection, trial: FrozenTrial, *, is_retry: bool) -> int:
        # Unknown trials have higher ids; without that bound, the database would scan all trials
        new = (TRIALS.c.study_id == self._study_id, TRIALS.c.trial_id > self._last_id)
        others = connection.execute(
            sa.select(TRIALS).where(*new, TRIALS.c.number >= trial.number).order_by(TRIALS.c.number)
        ).all()
        start = _utc(trial.datetime_start)
        if is_retry and others and (others[0].number, others[0].datetime_start) == (trial.number, start):
            trial_id = int(others[0].trial_id)
            for table in TABLES_OF_TRIALS:
                connection.execute(sa.delete(table).where(table.c.trial_id == trial_id))
            return trial_id
        if others:
            raise StudyError(
                f"Another program started trial {others[0].number} of this study at the same time. Only one "
                f"driver may run a study: stop the other one, then go on with `lightsweep resume`."
            )
        result = connection.execute(
            sa.insert(TRIALS).values(
                number=trial.number,
                study_id=self._study_id,
                state=trial.state,
                datetime_start=start,
                datetime_complete=_utc(trial.datetime_complete),
            )
        )
        assert result.inserted_primary_key is not None
        return int(result.inserted_primary_key[0])

    def _update_trial(self, connection: sa.Connection, trial_id: int, old: FrozenTrial, trial: FrozenTrial) -> None:
        if trial.state == old.state:
            return
        found = connection.execute(
            sa.update(TRIALS)
            .where(TRIALS.c.trial_id == trial_id, TRIALS.c.state.in_([old.state, trial.state]))
            .values(
                state=trial.state,
                datetime_start=_utc(trial.datetime_start),
                datetime_complete=_utc(trial.datetime_complete),
            )
        )
        if not found.rowcount:
            raise StudyError(
                f"Trial {trial.number} was ended by another program. Only one driver may run a study: stop "
                f"the other one, then go on with `lightsweep resume`."
            )

    def _collect(
        self,
        connection: sa.Connection,
        trial_id: int,
        old: FrozenTrial | None,
        trial: FrozenTrial,
        rows: dict[Any, list[dict[str, Any]]],
    ) -> None:
        """Add the rows that `trial` has and `old` lacks."""

        def add(table: sa.Table, **columns: Any) -> None:
            rows.setdefault(table, []).append({"trial_id": trial_id, **columns})

        for name, value in trial.params.items():
            if old is None or name not in old.params:
                distribution = trial.distributions[name]
                stored = float(distribution.to_internal_repr(value))
                text = distribution_to_json(distribution)
                add(TRIAL_PARAMS, param_name=name, param_value=stored, distribution_json=text)
        for step, number in trial.intermediate_values.items():
            if old is None or step not in old.intermediate_values:
                add(TRIAL_REPORTS, step=step, **report_columns(float(number)))
        if trial.values is not None and (old is None or old.values is None):
            for objective, number in enumerate(trial.values):
                add(TRIAL_VALUES, objective=objective, **value_columns(float(number)))
        for table, new, known in (
            (USER_ATTRS, trial.user_attrs, old.user_attrs if old else {}),
            (SYSTEM_ATTRS, trial.system_attrs, old.system_attrs if old else {}),
        ):
            for key, value in new.items():
                if key in known and known[key] == value:
                    continue
                if key in known:
                    connection.execute(sa.delete(table).where(table.c.trial_id == trial_id, table.c.key == key))
                add(table, key=key, value_json=json.dumps(value))


def _snapshot(trial: FrozenTrial) -> FrozenTrial:
    """Copy a trial that may still change: Optuna's handle of a running trial alters it in place."""
    if trial.state.is_finished():
        return trial
    found = copy.copy(trial)
    found.params = dict(trial.params)
    found.intermediate_values = dict(trial.intermediate_values)
    found.user_attrs = dict(trial.user_attrs)
    found.system_attrs = dict(trial.system_attrs)
    return found


def _utc(moment: datetime | None) -> datetime | None:
    """Return the time as Optuna stores it: in UTC, without a time zone."""
    return None if moment is None else moment.astimezone(UTC).replace(tzinfo=None)


_FOR = "for"  # user attribute of a study: the name that it is written for


def backup_name(storage: RDBStorage, name: str) -> str:
    """Return the first of `NAME~1`, `NAME~2`, ... that is free."""
    taken = set(optuna.get_all_study_names(storage))
    return next(free for number in itertools.count(1) if (free := f"{name}~{number}") not in taken)


def publish(
    storage: RDBStorage,
    name: str,
    *,
    directions: Sequence[StudyDirection],
    attrs: Mapping[str, Any],
    metrics: Sequence[str],
    trials: Sequence[FrozenTrial],
    backup: str | None = None,
) -> None:
    """Create a study with all its trials, atomically.

    Args:
        storage: From `open_storage`.
        name: The name of the study.
        directions: One for each objective.
        attrs: Its user attributes.
        metrics: The names of the objectives, which Optuna's own plots show.
        trials: Its trials in the order of their numbers, from 0.
        backup: The new name for an existing study of this name; None if there is none.
    """
    unfinished = f"{name}~new"
    _remove(storage, unfinished, name)
    study_id = storage.create_new_study(directions, unfinished)
    storage.set_study_user_attr(study_id, _FOR, name)
    storage.set_study_system_attr(study_id, METRIC_NAMES, list(metrics))
    for key, value in attrs.items():
        storage.set_study_user_attr(study_id, key, value)
    StorageWriter(storage, study_id).write(trials, is_durable=True, is_patient=True)
    _rename(storage, study_id, name, backup)


def _remove(storage: RDBStorage, unfinished: str, name: str) -> None:
    """Delete the half-written study of a crashed attempt."""
    try:
        study_id = storage.get_study_id_from_name(unfinished)
    except KeyError:
        return
    attrs = storage.get_study_user_attrs(study_id)
    if attrs.get(_FOR) != name and (attrs or storage.get_n_trials(study_id)):
        raise StudyError(
            f"Study {name!r} cannot be written: the storage has a study {unfinished!r}, the name that it would be "
            f"written under. Give another study.name."
        )
    storage.delete_study(study_id)


def _rename(storage: RDBStorage, study_id: int, name: str, backup: str | None) -> None:
    with storage.engine.connect() as connection:
        if connection.dialect.name == "sqlite":  # before the transaction: inside it has no effect
            connection.exec_driver_sql("pragma synchronous = full")
        if backup is not None:
            connection.execute(sa.update(STUDIES).where(STUDIES.c.study_name == name).values(study_name=backup))
        connection.execute(sa.update(STUDIES).where(STUDIES.c.study_id == study_id).values(study_name=name))
        connection.commit()
