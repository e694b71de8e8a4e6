"""Import trials: into another space (`--migrate`), or from other studies into a new one (`study.warm_start`).

`space/compatibility.py` decides which trials fit.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from sweeps.core.errors import ConfigError, SpaceError, StudyError, did_you_mean
from sweeps.search.optuna_private import CONSTRAINTS, FIXED_PARAMS, RUNG
from sweeps.search.space.compatibility import Composed, Fit, ValueOf, fit, fit_queued
from sweeps.search.space.declare import parse_space
from sweeps.search.space.space import Space
from sweeps.search.states import DROPPED, IMPORTED, INTERRUPTED, ORIGIN, origin, state_of
from sweeps.search.storage import storage_errors
from sweeps.search.storage_writer import backup_name, publish
from sweeps.search.terms import StudyTerms

if TYPE_CHECKING:
    from sweeps.search.study import Study

__all__ = [
    "ImportedTrials",
    "Migration",
    "Unrecorded",
    "import_trial",
    "is_stored",
    "migrate",
    "note_recorded",
    "placeholder",
    "require_sources",
    "unrecorded",
    "warm_start",
]

_KEPT = (CONSTRAINTS, RUNG)
"""The system attributes that do not depend on the space. Not kept are samplers' own: CMA-ES's state, the numbers of
grid points, what TPE and GP proposed, generations."""


def import_trial(
    trial: FrozenTrial, study: str, old: Space, new: Space, *, recorded: ValueOf | None, composed: Composed
) -> FrozenTrial | str:
    """Return the trial encoded for the new space, or the reason why it does not fit.

    Args:
        trial: Any trial that no driver is running.
        study: The study that it comes from, by its future name.
        old: The space of that study.
        new: The space to import it into.
        recorded: The values of its recorded configuration; None if it has not begun.
        composed: Gives the current configuration.
    """
    is_queued = not trial.state.is_finished() and recorded is None
    try:
        known = old.decode({**trial.system_attrs.get(FIXED_PARAMS, {}), **trial.params} if is_queued else trial.params)
    except (SpaceError, ValueError):
        return "its values are not of its study's space"
    if is_queued:
        found = fit_queued(new, known, composed=composed)
    else:
        found = fit(new, known, recorded=recorded or _nothing, composed=composed)
    return found.incompatible or _with(trial, study, new, found, is_queued=is_queued)


def placeholder(trial: FrozenTrial, study: str, reason: str) -> FrozenTrial:
    """Return a failed trial that keeps the number of a trial that does not fit."""
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


def _with(trial: FrozenTrial, study: str, new: Space, found: Fit, *, is_queued: bool) -> FrozenTrial:
    result = copy.copy(trial)
    result.system_attrs = {key: value for key, value in trial.system_attrs.items() if key.startswith(_KEPT)}
    is_imported = IMPORTED in trial.user_attrs  # then it stays another study's
    own: Mapping[str, Any] = {} if is_imported else {ORIGIN: origin(study, trial)}
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
    """The result of migrating a study to another space.

    Attributes:
        backup: The name under which the previous study is kept.
        num_kept: The number of trials that fit.
        dropped: Why each other trial does not, by number.
    """

    backup: str
    num_kept: int
    dropped: dict[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrecorded:
    """A migration that is not noted in the runs of the study yet.

    Attributes:
        backup: The name under which the previous study is kept.
        space_before: The description of its space before the migration.
    """

    backup: str
    space_before: dict[str, str]


def migrate(
    storage: RDBStorage,
    name: str,
    *,
    space: Space,
    terms: StudyTerms,
    recorded: Callable[[int], ValueOf | None],
    composed: Composed,
) -> Migration | None:
    """Migrate a study to another space, if its space differs.

    Call it while no driver works on the study.

    Args:
        storage: From `open_storage`.
        name: The name of the study; a study that does not exist needs no migration.
        space: The new space.
        terms: The terms, which must not have changed.
        recorded: Gives the values of a trial's recorded configuration by its number; None if it has not begun.
        composed: Gives the current configuration.

    Raises:
        StudyError: The study has other terms.
        StoreError: The database does not respond; the study is unchanged.
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
        for difference in terms.differences(attrs, directions):
            raise StudyError(
                f"{difference}. --migrate moves study {name!r} to another space, and other terms would make its "
                "results incomparable. Ask for the same, or give another study.name."
            )
        backup = backup_name(storage, name)
        trials, dropped = _moved(
            storage.get_all_trials(study_id, deepcopy=False),
            lambda trial: import_trial(
                trial, backup, parse_space(attrs["space"]), space, recorded=recorded(trial.number), composed=composed
            ),
            backup,
        )
        migration = {"backup": backup, "space": attrs["space"], "is_recorded": False}
        publish(
            storage,
            name,
            directions=directions,
            metrics=attrs["metrics"],
            attrs={**attrs, "space": space.describe(), _MIGRATION: migration},
            trials=trials,
            backup=backup,
        )
    num_kept = sum(DROPPED not in trial.user_attrs for trial in trials)
    return Migration(backup=backup, num_kept=num_kept, dropped=dropped)


def _moved(
    trials: Iterable[FrozenTrial], imported: Callable[[FrozenTrial], FrozenTrial | str], backup: str
) -> tuple[list[FrozenTrial], dict[int, str]]:
    """Return the trials of a study as another space has them, and why some are only placeholders, by number."""
    moved: list[FrozenTrial] = []
    dropped: dict[int, str] = {}
    for trial in trials:
        found = trial if DROPPED in trial.user_attrs else imported(trial)
        if isinstance(found, str):
            dropped[trial.number] = found
            found = placeholder(trial, backup, found)
        moved.append(found)
    return moved, dropped


def unrecorded(study: "Study") -> Unrecorded | None:
    """Return the migration that is not noted in the runs yet, if any: a crash may have come between."""
    found = study.user_attr(_MIGRATION)
    if found is None or found["is_recorded"]:
        return None
    return Unrecorded(backup=found["backup"], space_before=found["space"])


def note_recorded(study: "Study") -> None:
    """Store that the migration is noted in the runs."""
    study.set_user_attr(_MIGRATION, {**study.user_attr(_MIGRATION), "is_recorded": True})


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedTrials:
    """The result of importing trials from one study.

    Attributes:
        source: The name of the source study.
        count: The number of trials that fit.
        incompatible: Why each other trial does not, by its number in the source study.
    """

    source: str
    count: int
    incompatible: dict[int, str]


def is_stored(storage: RDBStorage, name: str) -> bool:
    """Return whether the storage has a study of this name."""
    with storage_errors(storage):
        try:
            storage.get_study_id_from_name(name)
        except KeyError:
            return False
    return True


def require_sources(storage: RDBStorage, sources: Sequence[str], terms: StudyTerms) -> None:
    """Require that the source studies exist and have the objectives and constraints of the new one.

    The number of replicates may differ.

    Raises:
        ConfigError: A study does not exist, was made by another program, or has another metric, direction or
            constraint.
    """
    with storage_errors(storage):
        for source in sources:
            if not is_stored(storage, source):
                hint = did_you_mean(source, optuna.get_all_study_names(storage)) or "It holds none yet."
                raise ConfigError(f"study.warm_start: there is no study {source!r} in study.storage. {hint}")
            study_id = storage.get_study_id_from_name(source)
            attrs = storage.get_study_user_attrs(study_id)
            if "space" not in attrs:
                raise ConfigError(f"study.warm_start: Lightsweep did not make the study {source!r}. Leave it out.")
            as_ours = {**attrs, "replication": str(terms.replication)}
            for found in terms.differences(as_ours, storage.get_study_directions(study_id)):
                raise ConfigError(
                    f"study.warm_start: study {source!r} was judged otherwise, so that its results say nothing here: "
                    f"{found.key} is {found.was} there, and {found.now} here. Leave it out, or ask for the same."
                )


def warm_start(
    storage: RDBStorage,
    name: str,
    *,
    sources: Sequence[str],
    space: Space,
    terms: StudyTerms,
    recorded: Callable[[str, int], ValueOf | None],
    composed: Composed,
) -> list[ImportedTrials]:
    """Create a study with the complete and pruned trials of other studies that fit its space.

    Imported trials get the first numbers of the new study, but they have no run, do not count, and are never the best.
    Trials that a source study has imported itself are left out.

    Args:
        storage: From `open_storage`.
        name: The name of the new study.
        sources: The studies to import from.
        space: The space of the new study.
        terms: The terms of the new study.
        recorded: Gives the values of a trial's recorded configuration by its study and number; None if there is none.
        composed: Gives the current configuration.

    Raises:
        ConfigError: As for `require_sources`.
        StoreError: The database does not respond; no study has been created.
    """
    require_sources(storage, sources, terms)
    trials: list[FrozenTrial] = []
    found: list[ImportedTrials] = []
    names = list(dict.fromkeys(sources))
    with storage_errors(storage):
        for source in names:
            study_id = storage.get_study_id_from_name(source)
            old = parse_space(storage.get_study_user_attrs(study_id)["space"])
            before, incompatible = len(trials), {}
            for trial in storage.get_all_trials(study_id, deepcopy=False, states=_FINISHED):
                if state_of(trial) not in ("complete", "pruned"):
                    continue
                known = recorded(source, trial.number)
                imported = import_trial(trial, source, old, space, recorded=known, composed=composed)
                if isinstance(imported, str):
                    incompatible[trial.number] = imported
                    continue
                imported.user_attrs = {IMPORTED: True, ORIGIN: origin(source, trial)}
                imported.number = len(trials)
                trials.append(imported)
            found.append(ImportedTrials(source=source, count=len(trials) - before, incompatible=incompatible))
        publish(
            storage,
            name,
            directions=list(terms.objectives.values()),
            metrics=terms.metrics,
            attrs={**terms.stored(), "space": space.describe(), "warm_start": names},
            trials=trials,
        )
    return found


_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
