"""Begin a study with what others have found: their finished trials, for the sampler and the pruner alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import optuna
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweeps.core.errors import ConfigError, did_you_mean
from sweeps.space import Composed, Look, Space, parse_space
from sweeps.study.publishing import publish
from sweeps.study.states import BORROWED, ORIGIN, origin, state_of
from sweeps.study.storage import storage_errors
from sweeps.study.taking_over import taken_over

__all__ = ["Loan", "is_stored", "require_lenders", "warm_start"]


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
