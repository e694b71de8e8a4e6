"""Replicates: several training runs of one configuration with other seeds or folds, and their common result."""

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweeps.config.composer import Config
from sweeps.core.errors import ConfigError
from sweeps.core.seeds import derive_seed
from sweeps.core.trials import SEM, TrialResult

__all__ = [
    "REPLICATES",
    "Replication",
    "best_mean",
    "combined",
    "means",
    "replication",
    "stored_results",
    "stored_values",
    "with_result",
]

REPLICATES = "replicates"
"""the attribute of a trial with the results of its replicates, by their index"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replication:
    """How often each configuration is trained, and how these training runs differ.

    Attributes:
        count: How often; 1 is an ordinary study.
        is_by_fold: Whether each training run has its own fold of the data, rather than its own seed.
    """

    count: int = 1
    is_by_fold: bool = False

    @property
    def noun(self) -> str:
        """What one of the training runs is called: a fold or a replicate."""
        return "fold" if self.is_by_fold else "replicate"

    def __str__(self) -> str:
        return "one training" if self.count == 1 else f"{self.count} {self.noun}s"

    @property
    def text(self) -> str:
        """The text in a sweep's heading; empty for an ordinary study."""
        return "" if self.count == 1 else f"{self} each, "

    def changes(self, index: int, *, seed: int, trial_seed: int) -> dict[str, Any]:
        """Return the changes of replicate `index` to the configuration of its trial.

        All trials have the same seeds for their replicates, so that two trials can be compared in pairs; a fold keeps
        the seed of its trial.

        Args:
            index: The number of the replicate, from 0.
            seed: The seed of the study.
            trial_seed: The seed of the trial.
        """
        if self.is_by_fold:
            return {"seed": trial_seed, "data.num_folds": self.count, "data.fold": index}
        if self.count > 1:
            return {"seed": derive_seed(seed, index, self.count) & 0x7FFFFFFF}
        return {"seed": trial_seed}


def replication(config: Config, searched: tuple[str, ...]) -> Replication:
    """Read `study.replicates` and `study.folds`.

    Args:
        config: The composed configuration.
        searched: The keys of the space.

    Raises:
        ConfigError: A number is out of range, both are set, the data module does not support folds, or a key that
            replicates set is searched.
    """
    replicates, folds = config["study"]["replicates"], config["study"]["folds"]
    if replicates < 1:
        raise ConfigError(f"study.replicates must be at least 1, but got {replicates}.")
    if folds is None:
        _require_not_searched(("seed",) if replicates > 1 else (), searched, "study.replicates")
        return Replication(count=replicates)
    if folds < 2:
        raise ConfigError(f"study.folds must be at least 2, or null for no cross-validation, but got {folds}.")
    if replicates > 1:
        raise ConfigError("study.replicates and study.folds exclude each other: delete one of the two.")
    data = config["data"] or {}
    if not {"num_folds", "fold"} <= data.keys():
        raise ConfigError(
            f"study.folds: {data.get('_target_', 'data=null')} has no arguments num_folds and fold. Give your data "
            "module both, and its option in conf/data the keys `num_folds: null` and `fold: 0`."
        )
    _require_not_searched(("data.num_folds", "data.fold"), searched, "study.folds")
    return Replication(count=folds, is_by_fold=True)


def _require_not_searched(keys: tuple[str, ...], searched: tuple[str, ...], because: str) -> None:
    for key in keys:
        if key in searched:
            raise ConfigError(f"{key} is what {because} tells trainings of a trial apart by, so it is not searched.")


def combined(
    results: Mapping[int, TrialResult], count: int, why_pruned: str = "", noun: str = "replicate"
) -> TrialResult:
    """Return the result of a replicated trial.

    Args:
        results: The results of its replicates, by their index.
        count: How many replicates it should have.
        why_pruned: Why the remaining replicates are skipped, if they are.
        noun: What a replicate is called.
    """
    if count == 1:
        return results[0]
    complete = {index: result for index, result in sorted(results.items()) if result.state == "complete"}
    values = [result.value for result in complete.values() if result.value is not None]
    value = statistics.fmean(values) if values else None
    metrics = means([result.metrics for result in complete.values()])
    for index, result in sorted(results.items()):
        if result.state in ("pruned", "failed"):
            reason = f"{noun} {index}: {result.reason}"
            return TrialResult(
                state=result.state,
                value=result.value if value is None else value,
                metrics=dict(result.metrics) | metrics,
                reason=reason,
                cause=result.cause,
            )
    if why_pruned:
        return TrialResult(state="pruned", value=value, metrics=metrics, reason=why_pruned)
    if len(complete) < count:
        reasons = [result.reason for result in results.values() if result.state == "interrupted"]
        return TrialResult(state="interrupted", reason=reasons[0] if reasons else f"{len(complete)} of {count} {noun}s")
    return TrialResult(state="complete", value=value, metrics=metrics)


def means(metrics: list[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each metric that all have, and of two or more the standard error of that mean, s / sqrt(n)."""
    found: dict[str, float] = {}
    for key in metrics[0] if metrics else ():
        values = [of[key] for of in metrics if key in of]
        if len(values) < len(metrics):
            continue
        found[key] = statistics.fmean(values)
        if len(values) > 1 and len(set(values)) > 1 and all(map(math.isfinite, values)):
            found[f"{key}{SEM}"] = statistics.stdev(values) / math.sqrt(len(values))
    return found


def stored_results(attrs: Mapping[str, Any]) -> dict[int, TrialResult]:
    """Return the results of complete replicates from the attributes of their trial, by their index."""
    return {
        int(index): TrialResult(state="complete", value=result["value"], metrics=result["metrics"])
        for index, result in attrs.get(REPLICATES, {}).items()
    }


def stored_values(attrs: Mapping[str, Any]) -> dict[int, float]:
    """Return the reported values of complete replicates, by their index."""
    return {index: result.value for index, result in stored_results(attrs).items() if result.value is not None}


def with_result(attrs: Mapping[str, Any], replicate: int, result: TrialResult) -> dict[str, Any]:
    """Return the attribute `REPLICATES` of a trial with one more result."""
    kept = {"value": result.value, "metrics": dict(result.metrics)}
    return {**attrs.get(REPLICATES, {}), str(replicate): kept}


def best_mean(trials: Iterable[FrozenTrial], direction: StudyDirection) -> FrozenTrial | None:
    """Return the complete trial whose replicates reported the best mean, among those that violate no constraint."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE and stored_values(trial.user_attrs)]
    feasible = [trial for trial in complete if all(violation <= 0 for violation in trial.constraints.values())]
    sign = 1.0 if direction == StudyDirection.MAXIMIZE else -1.0
    return max(feasible, key=lambda t: sign * statistics.fmean(stored_values(t.user_attrs).values()), default=None)
