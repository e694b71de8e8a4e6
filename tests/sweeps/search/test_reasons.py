"""A pruned trial says why, from the numbers that it was judged by."""

import math

import pytest
from studies import MEDIAN, make, shipped


def learn(study, curve):
    """Run a trial along `curve`; return the verdict that ended it, or None."""
    ask = study.ask()
    for step, value in enumerate(curve):
        verdict = study.report(ask.number, value, step)
        if verdict.prune:
            study.tell(ask.number, "pruned", reason=verdict.reason)
            return verdict.reason
    study.tell(ask.number, "complete", curve[-1])
    return None


@pytest.mark.parametrize(
    ("pruner", "curves", "reason"),
    [
        (MEDIAN, [[0.6, 0.8], [0.7, 0.9], [0.9, 0.5]], None),
        (
            MEDIAN,
            [[0.6, 0.8], [0.7, 0.9], [0.7, 0.6]],
            "0.7, its best so far, at step 1 is below the median 0.85 of 2 trials",
        ),
        (MEDIAN, [[0.6, 0.8], [0.7, 0.9], [0.41]], "0.41 at step 0 is below the median 0.65 of 2 trials"),
        (MEDIAN, [[0.6], [0.7], [math.nan]], "nothing but nan up to step 0"),
        (
            {"_target_": "optuna.pruners.PercentilePruner", "percentile": 25.0, "n_startup_trials": 2},
            [[0.6], [0.8], [0.7]],
            "0.7 at step 0 is below the 25% best limit 0.75 of 2 trials",
        ),
        (
            {"_target_": "optuna.pruners.SuccessiveHalvingPruner", "min_resource": 1, "reduction_factor": 2},
            [[0, 0.5], [0, 0.6], [0, 0.55]],
            "0.55 at step 1 is not among the best 1 of 3 trials in rung 0, which begin at 0.6",
        ),
        (
            {"_target_": "optuna.pruners.SuccessiveHalvingPruner", "min_resource": 1, "reduction_factor": 2},
            [[0, 0.5, 0.9], [0, 0.6, 0.7]],
            "0.7 at step 2 is not among the best 1 of 2 trials in rung 1, which begin at 0.9",
        ),
        (
            {"_target_": "optuna.pruners.SuccessiveHalvingPruner", "min_resource": 1},
            [[0, math.nan]],
            "nan at step 1",
        ),
        (
            {"_target_": "optuna.pruners.SuccessiveHalvingPruner", "min_resource": 1, "bootstrap_count": 2},
            [[0, 0.5]],
            "rung 0 has 1 trials, and its first 2 go no further",
        ),
        (
            {"_target_": "optuna.pruners.ThresholdPruner", "lower": 0.2},
            [[0.1]],
            "0.1 at step 0 is below the lower threshold 0.2",
        ),
        (
            {"_target_": "optuna.pruners.PatientPruner", "wrapped_pruner": None, "patience": 0},
            [[0.5, 0.4]],
            "no better value in the last 1 steps up to step 1",
        ),
    ],
)
def test_a_pruned_trial_says_why(url, pruner, curves, reason):
    study = make(url, pruner=pruner)
    assert [learn(study, curve) for curve in curves][-1] == reason


def test_minimizing_turns_the_comparison_round(url):
    study = make(url, pruner=MEDIAN, metric="val/loss", direction="minimize")
    assert [learn(study, [value]) for value in (1.0, 2.0, 3.0)][-1] == "3 at step 0 is above the median 1.5 of 2 trials"


@pytest.mark.parametrize("pruner", ["median", "percentile", "hyperband", "successive_halving"])
@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_shipped_pruners_prune_some_trials_and_agree_with_optuna_after_a_restart(url, pruner, sampler):
    config = shipped("pruner", pruner) | ({"max_resource": 9} if pruner == "hyperband" else {})
    reasons = []
    for _ in range(4):
        study = make(url, sampler=sampler, pruner=config)
        for _ in range(10):
            reasons.append(
                learn(
                    study,
                    [(study.counts["complete"] * 7 % 5 - epoch * 0.1) * (-1) ** len(reasons) for epoch in range(9)],
                )
            )
    assert 0 < sum(reason is not None for reason in reasons) < 40
    assert study.counts["complete"] + study.counts["pruned"] == 40
    if pruner == "hyperband":
        assert all("rung" in reason and "bracket" in reason for reason in reasons if reason)
