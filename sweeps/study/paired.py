"""Whether a trial of several trainings still has a chance: its replicates against those of the best trial, in pairs."""

import warnings
from collections.abc import Mapping

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import WilcoxonPruner
from optuna.study import StudyDirection

__all__ = ["default_test", "why_hopeless"]


def default_test() -> WilcoxonPruner:
    """Return the test with Optuna's own options."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return WilcoxonPruner()


def why_hopeless(
    pruner: WilcoxonPruner,
    direction: StudyDirection,
    values: Mapping[int, float],
    best: Mapping[int, float],
    best_number: int,
) -> str:
    """Say why a trial is worse than the best one, by Wilcoxon's signed-rank test; empty while it may be as good.

    Args:
        pruner: Has the options of the test.
        direction: Of the values.
        values: Of the trial, by replicate.
        best: Likewise of the best trial.
        best_number: The number of the best trial.
    """
    pair = optuna.study.create_study(direction=direction)  # the test is Optuna's, which wants it to be a study
    nothing: dict[str, BaseDistribution] = {}
    for replicates in (best, values):
        mean = sum(replicates.values()) / len(replicates)
        pair.add_trial(
            optuna.trial.create_trial(
                value=mean, params={}, distributions=nothing, intermediate_values=dict(replicates)
            )
        )
    trial = pair.get_trials(deepcopy=False)[1]
    trial.value, trial.state = None, optuna.trial.TrialState.RUNNING
    if not pruner.prune(pair, trial):
        return ""
    mean, other = (sum(them.values()) / len(them) for them in (values, best))
    return (
        f"mean {mean:.4g} of {len(values)} replicates against {other:.4g} of trial {best_number}: worse by Wilcoxon's "
        f"test (p < {pruner._p_threshold:g})"
    )
