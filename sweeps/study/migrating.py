"""Move a study over to another space: what fits keeps its number, and the study as it was gets another name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from sweeps.core.errors import StudyError
from sweeps.space import Composed, Look, Space, parse_space
from sweeps.study.publishing import backup_name, publish
from sweeps.study.states import DROPPED
from sweeps.study.storage import storage_errors
from sweeps.study.taking_over import placeholder, taken_over

if TYPE_CHECKING:
    from sweeps.study.study import Study

__all__ = ["Migration", "Unrecorded", "migrate", "note_recorded", "unrecorded"]

_MIGRATION = "migration"  # user attribute of a study: what it was, and whether its runs have been told


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """A study that was moved over.

    Attributes:
        backup: The name under which the study is kept as it was.
        num_kept: Trials that fit.
        dropped: Why each of the others does not, by number.
    """

    backup: str
    num_kept: int
    dropped: dict[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrecorded:
    """A migration of which the runs of the study do not tell yet.

    Attributes:
        backup: The name under which the study is kept as it was.
        space_before: The description of the space that it had.
    """

    backup: str
    space_before: dict[str, str]


def migrate(
    storage: RDBStorage,
    name: str,
    *,
    space: Space,
    metric: str | Sequence[str],
    direction: str | Sequence[str],
    constraints: Sequence[str] = (),
    replication: str = "one training",
    reported: str | None = None,
    recorded: Callable[[int], Look | None],
    composed: Composed,
) -> Migration | None:
    """Move a study over to another space, if it has another one.

    To be called while no driver works on the study.

    Args:
        storage: From `open_storage`.
        name: Of the study; one that is not there needs no move.
        space: The new space.
        metric: The objective, or several; the same as before.
        direction: Likewise.
        constraints: Likewise.
        replication: How often each trial is trained; likewise.
        reported: The direction and the metric of what trainings report; likewise. None takes what was.
        recorded: What is known of a trial's configuration, by number; None for one that has not begun.
        composed: What the configuration is now.

    Raises:
        StudyError: The study has another metric, direction, constraint, replication or report.
        StoreError: The database does not answer; the study is what it was.
    """
    with storage_errors(storage):
        try:
            study_id = storage.get_study_id_from_name(name)
        except KeyError:
            return None
        attrs = storage.get_study_user_attrs(study_id)
        if "space" not in attrs or not space.difference(attrs["space"]):
            return None  # what is wrong otherwise is told when the study is opened
        directions = storage.get_study_directions(study_id)
        _require_same("metric", name, attrs["metrics"], metric)
        _require_same("direction", name, [each.name.lower() for each in directions], direction)
        _require_same("constraints", name, attrs.get("constraints", []), constraints)
        _require_same("replicates", name, [attrs.get("replication", replication)], replication)
        if reported is not None:
            _require_same("metric", name, [attrs.get("reported", reported)], reported, group="objective")
        backup = backup_name(storage, name)
        old = parse_space(attrs["space"])
        trials: list[FrozenTrial] = []
        dropped: dict[int, str] = {}
        for trial in storage.get_all_trials(study_id, deepcopy=False):
            if DROPPED in trial.user_attrs:
                trials.append(trial)
                continue
            found = taken_over(trial, backup, old, space, recorded=recorded(trial.number), composed=composed)
            if isinstance(found, str):
                dropped[trial.number] = found
                found = placeholder(trial, backup, found)
            trials.append(found)
        publish(
            storage,
            name,
            directions=directions,
            metrics=attrs["metrics"],
            attrs={
                **attrs,
                "space": space.describe(),
                _MIGRATION: {"backup": backup, "space": attrs["space"], "is_recorded": False},
            },
            trials=trials,
            backup=backup,
        )
        num_kept = sum(DROPPED not in trial.user_attrs for trial in trials)
    return Migration(backup=backup, num_kept=num_kept, dropped=dropped)


def unrecorded(study: "Study") -> Unrecorded | None:
    """Return the migration that is still to be told to the runs, if there is one; a crash may have come between."""
    with storage_errors(study._storage):
        found = study._storage.get_study_user_attrs(study._study_id).get(_MIGRATION)
    if found is None or found["is_recorded"]:
        return None
    return Unrecorded(backup=found["backup"], space_before=found["space"])


def note_recorded(study: "Study") -> None:
    """Remember that the runs have been told."""
    with storage_errors(study._storage):
        found = study._storage.get_study_user_attrs(study._study_id)[_MIGRATION]
        study._storage.set_study_user_attr(study._study_id, _MIGRATION, {**found, "is_recorded": True})


def _require_same(word: str, name: str, was: Sequence[str], now: str | Sequence[str], *, group: str = "study") -> None:
    wanted = [now] if isinstance(now, str) else list(now)
    if list(was) != wanted:
        raise StudyError(
            f"{group}.{word}: --migrate moves study {name!r} to another space, not to another {word}, which would make "
            f"its results incomparable: was {', '.join(was) or 'null'}, now {', '.join(wanted) or 'null'}. "
            "Ask for the same, or give another study.name."
        )
