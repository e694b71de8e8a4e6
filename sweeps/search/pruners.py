"""Explain in words why a trial was pruned, and prune replicated trials.

The reasons are computed from the data on which Optuna's pruner decided. A trial of several training runs is pruned if
its replicates, compared in pairs with those of the best trial, can no longer win.
"""

import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    PatientPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
    ThresholdPruner,
    WilcoxonPruner,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweeps.search.optuna_private import RUNG, bracket_of, halving_pruner_of, option_of

__all__ = ["default_test", "why_hopeless", "why_pruned"]


def why_pruned(pruner: BasePruner, study: optuna.Study, trial: FrozenTrial) -> str:
    """Explain a decision to prune by the data that it is based on."""
    step = trial.last_step
    assert step is not None
    value = trial.intermediate_values[step]
    match pruner:
        case PercentilePruner():
            return _why_percentile(pruner, study, trial, step)
        case SuccessiveHalvingPruner():
            return _why_halved(pruner, study.get_trials(deepcopy=False), study.direction, trial, step)
        case HyperbandPruner():
            bracket = bracket_of(pruner, study, trial)
            peers = [peer for peer in study.get_trials(deepcopy=False) if bracket_of(pruner, study, peer) == bracket]
            why = _why_halved(halving_pruner_of(pruner, bracket), peers, study.direction, trial, step)
            return f"{why}, bracket {bracket}"
        case ThresholdPruner():
            if math.isnan(value):
                return f"nan at step {step}"
            if value < option_of(pruner, "lower"):
                return (
                    f"{_short(value)} at step {step} is below the lower threshold {_short(option_of(pruner, 'lower'))}"
                )
            return f"{_short(value)} at step {step} is above the upper threshold {_short(option_of(pruner, 'upper'))}"
        case PatientPruner():
            why = f"no better value in the last {option_of(pruner, 'patience') + 1} steps up to step {step}"
            inner = option_of(pruner, "wrapped_pruner")
            return why if inner is None else f"{why}; {why_pruned(inner, study, trial)}"
        case _:
            return f"{type(pruner).__name__} stops it with {_short(value)} at step {step}"


def _why_percentile(pruner: PercentilePruner, study: optuna.Study, trial: FrozenTrial, step: int) -> str:
    is_maximized = study.direction == StudyDirection.MAXIMIZE
    reported = [value for value in trial.intermediate_values.values() if not math.isnan(value)]
    if not reported:
        return f"nothing but nan up to step {step}"
    best = max(reported) if is_maximized else min(reported)
    peers = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    values = [peer.intermediate_values[step] for peer in peers if step in peer.intermediate_values]
    share = 100 - option_of(pruner, "percentile") if is_maximized else option_of(pruner, "percentile")
    threshold = float(np.nanpercentile(np.array(values, dtype=float), share))
    own = "" if best == trial.intermediate_values[step] else ", its best so far,"
    what = "median" if isinstance(pruner, MedianPruner) else f"{option_of(pruner, 'percentile'):g}% best limit"
    side = "below" if is_maximized else "above"
    return f"{_short(best)}{own} at step {step} is {side} the {what} {_short(threshold)} of {len(values)} trials"


def _why_halved(
    pruner: SuccessiveHalvingPruner,
    trials: Sequence[FrozenTrial],
    direction: StudyDirection,
    trial: FrozenTrial,
    step: int,
) -> str:
    value = trial.intermediate_values[step]
    if math.isnan(value):
        return f"nan at step {step}"
    rung = 0
    while f"{RUNG}{rung + 1}" in trial.system_attrs:
        rung += 1
    key = f"{RUNG}{rung}"
    others = [peer.system_attrs[key] for peer in trials if key in peer.system_attrs and peer.number != trial.number]
    values = sorted([*others, value], reverse=direction == StudyDirection.MAXIMIZE)
    if len(values) <= option_of(pruner, "bootstrap_count"):
        return (
            f"rung {rung} has {len(values)} trials, and its first {option_of(pruner, 'bootstrap_count')} go no further"
        )
    kept = max(len(values) // option_of(pruner, "reduction_factor"), 1)
    return (
        f"{_short(value)} at step {step} is not among the best {kept} of {len(values)} trials in rung "
        f"{rung}, which begin at {_short(values[kept - 1])}"
    )


def _short(value: float) -> str:
    return f"{value:.4g}"


def default_test() -> WilcoxonPruner:
    """Return Optuna's test with its default options."""
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
    """Return why a trial is worse than the best one, by Wilcoxon's signed-rank test; empty while it may be as good.

    Args:
        pruner: The options of the test.
        direction: The direction of the values.
        values: The values of the trial, by replicate.
        best: The values of the best trial, by replicate.
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
        f"test (p < {option_of(pruner, 'p_threshold'):g})"
    )
