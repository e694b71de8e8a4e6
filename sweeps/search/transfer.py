"""Take a trial over from one study into another, with its values, reports and end.

Move a study over to another space: what fits keeps its number, and the study as it was gets another name.

Begin a study with what others have found: their finished trials, for the sampler and the pruner alone.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweeps.core.errors import ConfigError, SpaceError, StudyError, did_you_mean
from sweeps.search.optuna_private import CONSTRAINTS, FIXED_PARAMS, RUNG
from sweeps.search.space.compatibility import Composed, Look, Refit, refit, refit_queued
from sweeps.search.space.declare import parse_space
from sweeps.search.space.space import Space
from sweeps.search.states import BORROWED, DROPPED, INTERRUPTED, ORIGIN, origin, state_of
from sweeps.search.storage import storage_errors
from sweeps.search.storage_writer import backup_name, publish

if TYPE_CHECKING:
    from sweeps.search.study import Study

__all__ = [
    "Loan",
    "Migration",
    "Unrecorded",
    "is_stored",
    "migrate",
    "note_recorded",
    "placeholder",
    "require_lenders",
    "taken_over",
    "unrecorded",
    "warm_start",
]

_KEPT = (CONSTRAINTS, RUNG)
"""The system attributes that do not depend on the space. Not kept are samplers' own: CMA-ES's state, the numbers of
grid points, what TPE and GP proposed, generations."""


def taken_over(
    trial: FrozenTrial, study: str, old: Space, new: Space, *, recorded: Look | None, composed: Composed
) -> FrozenTrial | str:
    """Return the trial as the new space has it, or why it does not fit.

    Args:
        trial: Any but one that a driver runs now.
        study: Where it comes from, by the name it has from now on.
        old: The space of that study.
        new: The space that it is taken over into.
        recorded: What its configuration was; None if it has not begun.
        composed: What the configuration is now.
    """
    is_queued = not trial.state.is_finished() and recorded is None
    try:
        known = old.decode({**trial.system_attrs.get(FIXED_PARAMS, {}), **trial.params} if is_queued else trial.params)
    except (SpaceError, ValueError):
        return "its values are not of its study's space"
    if is_queued:
        found = refit_queued(new, known, composed=composed)
    else:
        found = refit(new, known, recorded=recorded or _nothing, composed=composed)
    return found.misfit or _with(trial, study, new, found, is_queued=is_queued)


def placeholder(trial: FrozenTrial, study: str, reason: str) -> FrozenTrial:
    """Return what holds the number of a trial that does not fit."""
    now = datetime.now()
    return FrozenTrial(
        number=trial.number,
        trial_id=trial.number,
        state=TrialState.FAIL,
        value=None,
        datetime_start=trial.datetime_start or now,
        datetime_complete=trial.datetime_complete or now,
        params={},
        distributions={},
        user_attrs={
            DROPPED: reason,
            ORIGIN: origin(study, trial),
            **{key: trial.user_attrs[key] for key in ("used",) if key in trial.user_attrs},  # of the device-hours
        },
        system_attrs={},
        intermediate_values={},
    )


def _nothing(key: str) -> Any:
    raise KeyError(key)


def _with(trial: FrozenTrial, study: str, new: Space, found: Refit, *, is_queued: bool) -> FrozenTrial:
    result = copy.copy(trial)
    result.system_attrs = {key: value for key, value in trial.system_attrs.items() if key.startswith(_KEPT)}
    is_borrowed = BORROWED in trial.user_attrs  # then it stays another study's
    own: Mapping[str, Any] = {} if is_borrowed else {ORIGIN: origin(study, trial)}
    result.user_attrs = {**trial.user_attrs, **own}
    if trial.state == TrialState.RUNNING:
        result.state = TrialState.WAITING
        result.user_attrs[INTERRUPTED] = "the driver died"
    if is_queued:
        result.params, result.distributions = {}, {}
        if found.params or FIXED_PARAMS in trial.system_attrs:
            result.system_attrs[FIXED_PARAMS] = found.params
    else:
        result.params = found.params
        result.distributions = {name: new.distributions[name] for name in found.params}
    return result


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
    found = study.user_attr(_MIGRATION)
    if found is None or found["is_recorded"]:
        return None
    return Unrecorded(backup=found["backup"], space_before=found["space"])


def note_recorded(study: "Study") -> None:
    """Remember that the runs have been told."""
    study.set_user_attr(_MIGRATION, {**study.user_attr(_MIGRATION), "is_recorded": True})


def _require_same(word: str, name: str, was: Sequence[str], now: str | Sequence[str], *, group: str = "study") -> None:
    wanted = [now] if isinstance(now, str) else list(now)
    if list(was) != wanted:
        raise StudyError(
            f"{group}.{word}: --migrate moves study {name!r} to another space, not to another {word}, which would make "
            f"its results incomparable: was {', '.join(was) or 'null'}, now {', '.join(wanted) or 'null'}. "
            "Ask for the same, or give another study.name."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Loan:
    """What a study has taken from another.

    Attributes:
        lender: The name of the other.
        num_taken: How many trials fit.
        misfits: Why each of the others does not, by its number there.
    """

    lender: str
    num_taken: int
    misfits: dict[int, str]


def is_stored(storage: RDBStorage, name: str) -> bool:
    """Tell whether there is a study of this name."""
    with storage_errors(storage):
        try:
            storage.get_study_id_from_name(name)
        except KeyError:
            return False
    return True


def require_lenders(
    storage: RDBStorage,
    lenders: Sequence[str],
    *,
    metric: str | Sequence[str],
    direction: str | Sequence[str],
    constraints: Sequence[str] = (),
    reported: str | None = None,
) -> None:
    """Require studies in the storage that were judged as the new one is.

    Raises:
        ConfigError: There is no such study, it is another program's, or has another metric, direction or constraint.
    """
    metrics = [metric] if isinstance(metric, str) else list(metric)
    directions = [direction] if isinstance(direction, str) else list(direction)
    with storage_errors(storage):
        for lender in lenders:
            if not is_stored(storage, lender):
                hint = did_you_mean(lender, optuna.get_all_study_names(storage)) or "It holds none yet."
                raise ConfigError(f"study.warm_start: there is no study {lender!r} in study.storage. {hint}")
            study_id = storage.get_study_id_from_name(lender)
            attrs = storage.get_study_user_attrs(study_id)
            if "space" not in attrs:
                raise ConfigError(f"study.warm_start: Lightsweep did not make the study {lender!r}. Leave it out.")
            theirs = [each.name.lower() for each in storage.get_study_directions(study_id)]
            for word, was, now in (
                ("metric", attrs["metrics"], metrics),
                ("direction", theirs, directions),
                ("constraints", attrs.get("constraints", []), list(constraints)),
            ):
                if was != now:
                    raise ConfigError(
                        f"study.warm_start: study {lender!r} has study.{word}={','.join(was) or 'null'}, but this one "
                        f"{','.join(now) or 'null'}, so that its results say nothing here. Leave it out, or "
                        "ask for the same."
                    )
            if reported is not None and attrs.get("reported", reported) != reported:
                raise ConfigError(
                    f"study.warm_start: the trainings of study {lender!r} reported {attrs['reported']}, but here they "
                    f"report {reported} (objective.direction, objective.metric). Leave it out, or ask for the same."
                )


def warm_start(
    storage: RDBStorage,
    name: str,
    *,
    lenders: Sequence[str],
    space: Space,
    metric: str | Sequence[str],
    direction: str | Sequence[str],
    constraints: Sequence[str] = (),
    replication: str = "one training",
    reported: str | None = None,
    recorded: Callable[[str, int], Look | None],
    composed: Composed,
) -> list[Loan]:
    """Create a study with the complete and pruned trials of others that fit its space.

    In the new study they are `borrowed`: the first numbers are theirs, but they have no run, do not count, and are
    never the best. What a lender has borrowed itself is not passed on.

    Args:
        storage: From `open_storage`.
        name: Of the study, which is not there yet.
        lenders: The studies to take from.
        space: What the new study searches.
        metric: The objective, or several.
        direction: Likewise.
        constraints: Likewise.
        replication: How often the new study trains each trial.
        reported: The direction and the metric of what its trainings report; None is not compared.
        recorded: What is known of the configuration of a trial, by its study and number; None if nothing is.
        composed: What the configuration is now.

    Raises:
        ConfigError: As for `require_lenders`.
        StoreError: The database does not answer; there is no new study then.
    """
    require_lenders(storage, lenders, metric=metric, direction=direction, constraints=constraints, reported=reported)
    with storage_errors(storage):
        loans = []
        trials: list[FrozenTrial] = []
        directions: Sequence[StudyDirection] = ()
        for lender in dict.fromkeys(lenders):
            study_id = storage.get_study_id_from_name(lender)
            directions = storage.get_study_directions(study_id)
            old = parse_space(storage.get_study_user_attrs(study_id)["space"])
            before, misfits = len(trials), {}
            for trial in storage.get_all_trials(study_id, deepcopy=False, states=_FINISHED):
                if state_of(trial) not in ("complete", "pruned"):
                    continue
                found = taken_over(
                    trial, lender, old, space, recorded=recorded(lender, trial.number), composed=composed
                )
                if isinstance(found, str):
                    misfits[trial.number] = found
                    continue
                found.user_attrs = {BORROWED: True, ORIGIN: origin(lender, trial)}
                found.number = len(trials)
                trials.append(found)
            loans.append(Loan(lender=lender, num_taken=len(trials) - before, misfits=misfits))
        metrics = [metric] if isinstance(metric, str) else list(metric)
        attrs = {
            "metrics": metrics,
            "constraints": list(constraints),
            "replication": replication,
            **({} if reported is None else {"reported": reported}),
            "space": space.describe(),
            "warm_start": list(dict.fromkeys(lenders)),
        }
        publish(storage, name, directions=directions, metrics=metrics, attrs=attrs, trials=trials)
    return loans


_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
