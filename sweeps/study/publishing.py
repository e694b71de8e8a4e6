"""Make a study that has trials from its first moment, in place of an earlier one if need be.

It is written completely under another name and then renamed, together with the earlier one, in one transaction. A
crash leaves the state before or the state after; a half-written study is removed by the next attempt.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from sweeps.core.errors import StudyError
from sweeps.study.record import Record

__all__ = ["backup_name", "publish"]

_FOR = "for"  # user attribute of a study: the name that it is written for


def backup_name(storage: RDBStorage, name: str) -> str:
    """Return the first free one of `NAME~1`, `NAME~2`, ..."""
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
    """Make a study.

    Args:
        storage: From `open_storage`.
        name: Of the study.
        directions: One for each objective.
        attrs: Its user attributes.
        metrics: The objectives, by which Optuna's own plots call them.
        trials: In the order of their numbers, which begin with 0.
        backup: The name that the earlier study of this name gets; None if there is none.
    """
    unfinished = f"{name}~new"
    _remove(storage, unfinished, name)
    study_id = storage.create_new_study(directions, unfinished)
    storage.set_study_user_attr(study_id, _FOR, name)
    storage.set_study_system_attr(study_id, "study:metric_names", list(metrics))
    for key, value in attrs.items():
        storage.set_study_user_attr(study_id, key, value)
    Record(storage, study_id).write(trials, is_durable=True, is_patient=True)
    _rename(storage, study_id, name, backup)


def _remove(storage: RDBStorage, unfinished: str, name: str) -> None:
    """Remove what a crash has left of an attempt."""
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
    studies = models.StudyModel.__table__
    with storage.engine.connect() as connection:
        if connection.dialect.name == "sqlite":  # before the transaction: inside it has no effect
            connection.exec_driver_sql("pragma synchronous = full")
        if backup is not None:
            connection.execute(sa.update(studies).where(studies.c.study_name == name).values(study_name=backup))
        connection.execute(sa.update(studies).where(studies.c.study_id == study_id).values(study_name=name))
        connection.commit()
