"""What became of a trial, in the words of the user: Optuna's states, told apart by what we note with the trial."""

from typing import Any

from optuna.trial import FrozenTrial, TrialState

__all__ = ["BORROWED", "DROPPED", "INTERRUPTED", "ORIGIN", "origin", "state_of"]

INTERRUPTED = "interrupted"
"""why a waiting trial was interrupted"""
DROPPED = "dropped"
"""why a trial does not fit the space that its study was moved to; it only keeps its number"""
BORROWED = "borrowed"
"""true for a trial of another study that only the sampler and the pruner are to know"""
ORIGIN = "origin"
"""the study and the number that a trial which was taken over had there"""


def state_of(trial: FrozenTrial) -> str:
    """Return complete, pruned, failed, interrupted, running or waiting; dropped or borrowed."""
    if DROPPED in trial.user_attrs:
        return "dropped"
    if BORROWED in trial.user_attrs:
        return "borrowed"
    if trial.state == TrialState.WAITING and INTERRUPTED in trial.user_attrs:
        return "interrupted"
    return "failed" if trial.state == TrialState.FAIL else trial.state.name.lower()


def origin(study: str, trial: FrozenTrial) -> dict[str, Any]:
    """Say where a trial comes from, as it is noted with the trial."""
    return {"study": study, "trial": trial.number}
