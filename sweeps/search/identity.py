"""What makes a study the same study: written when it is created, checked whenever it goes on."""

from collections.abc import Sequence

import optuna
from optuna.storages import RDBStorage
from optuna.study import StudyDirection

from sweeps.core.errors import StudyError
from sweeps.search.optuna_private import METRIC_NAMES
from sweeps.search.space.space import Space

__all__ = ["create_or_check"]


def create_or_check(
    storage: RDBStorage,
    name: str,
    *,
    directions: Sequence[StudyDirection],
    space: Space,
    metrics: list[str],
    constraints: list[str],
    replication: str,
    reported: str,
) -> int:
    """Return the id of the study of this name, made if it is not there.

    Raises:
        StudyError: It is there with another space, direction, metric, constraint, replication or report, each named.
    """
    try:
        study_id = storage.create_new_study(directions, name)
        is_whole = False
    except optuna.exceptions.DuplicatedStudyError:
        study_id = storage.get_study_id_from_name(name)
        is_whole = not _was_cut_short(storage, study_id, directions)
    if not is_whole:
        storage.set_study_system_attr(study_id, METRIC_NAMES, metrics)  # for Optuna's own plots
        storage.set_study_user_attr(study_id, "metrics", metrics)
        storage.set_study_user_attr(study_id, "constraints", constraints)
        storage.set_study_user_attr(study_id, "replication", replication)
        storage.set_study_user_attr(study_id, "reported", reported)
        storage.set_study_user_attr(study_id, "space", space.describe())
    stored = storage.get_study_user_attrs(study_id)
    if "space" not in stored:
        raise StudyError(
            f"A study {name!r} is in this storage, but Lightsweep did not make it. Give another study.name."
        )
    of_space, lines = space.difference(stored["space"]), []
    if stored["metrics"] != metrics:
        lines.append(f"study.metric: was {', '.join(stored['metrics'])}, now {', '.join(metrics)}")
    was, now = _words(storage.get_study_directions(study_id)), _words(directions)
    if was != now:
        lines.append(f"study.direction: was {was}, now {now}")
    if not lines and stored.get("reported", reported) != reported:  # it is the first of study.metric by default
        lines.append(f"objective.direction, objective.metric: was {stored['reported']}, now {reported}")
    if stored.get("constraints", []) != constraints:
        was, now = ("; ".join(texts) or "none" for texts in (stored.get("constraints", []), constraints))
        lines.append(f"study.constraints: was {was}, now {now}")
    if stored.get("replication", replication) != replication:
        lines.append(f"study.replicates, study.folds: was {stored['replication']}, now {replication}")
    if of_space or lines:
        move = ", give another study.name, or move it to this space with --migrate: trials that still fit are kept."
        raise StudyError(
            f"Study {name!r} exists, but differs from what is asked for:\n  "
            + "\n  ".join([*of_space, *lines])
            + "\nAsk for the same to go on with it"
            + (", or give another study.name." if lines else move)
        )
    return study_id


def _was_cut_short(storage: RDBStorage, study_id: int, directions: Sequence[StudyDirection]) -> bool:
    """Tell whether a study's creator died before it had written all that identifies it."""
    return (
        storage.get_study_user_attrs(study_id).keys() <= {"metrics", "constraints", "replication", "reported"}
        and not storage.get_n_trials(study_id)
        and storage.get_study_directions(study_id) == list(directions)
    )


def _words(directions: Sequence[StudyDirection]) -> str:
    return ", ".join(direction.name.lower() for direction in directions)
