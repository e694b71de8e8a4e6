"""Take a trial over from one study into another, with its values, reports and end."""

import copy
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from sweeps.core.errors import SpaceError
from sweeps.space import Composed, Look, Refit, Space, refit, refit_queued
from sweeps.study.states import BORROWED, DROPPED, INTERRUPTED, ORIGIN, origin

__all__ = ["placeholder", "taken_over"]

_KEPT = ("constraints", "completed_rung_")
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
        known = old.decode(
            {**trial.system_attrs.get("fixed_params", {}), **trial.params} if is_queued else trial.params
        )
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
        if found.params or "fixed_params" in trial.system_attrs:
            result.system_attrs["fixed_params"] = found.params
    else:
        result.params = found.params
        result.distributions = {name: new.distributions[name] for name in found.params}
    return result
