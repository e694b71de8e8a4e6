"""How much each searched parameter matters for being among the best: PED-ANOVA, tested against shuffled results."""

import random
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna

from sweeps.core.errors import SpaceError
from sweeps.search.optuna_private import ped_anova
from sweeps.search.space.space import Space

__all__ = ["Importance", "weigh"]

_NUM_ORDERS = 39  # so that chance alone makes one of forty parameters clear


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """What one searched key has to do with being among the best.

    Attributes:
        share: Of all keys' importance, 0 to 1.
        is_clear: Whether it is more than in any of 39 random orders of the same trials (p <= 1/40).
    """

    key: str
    share: float
    is_clear: bool


def weigh(
    space: Space, points: Sequence[Mapping[str, Any]], scores: Sequence[float], *, num_best: int
) -> list[Importance]:
    """Weigh the keys of a space, the most important first.

    The measure is how far the distribution of the best trials' values is from that of all trials (Watanabe et al.,
    "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces", IJCAI 2023; for conditional
    parameters its extension of 2026, as Optuna has them). It asks only who is among the best, so that pruned trials
    count, too. Shares of one key's parameters (elements of a list, ranges of options) are added.

    Args:
        space: The space that the points are from; points that are not are left out.
        points: The values of each trial by key.
        scores: One a trial, finite; more is better.
        num_best: How many trials are the best; ties with the last of them are, too.
    """
    encoded = [(params, score) for params, score in zip(map(_encoder(space), points), scores, strict=True) if params]
    if len(encoded) <= num_best:
        return []
    study = _study(space, [params for params, _ in encoded])
    found = [score for _, score in encoded]
    quantile = num_best / len(encoded)
    own = _by_key(space, study, found, quantile)
    total = sum(own.values())
    if not total > 0:
        return []
    draw = random.Random(0)
    beaten: Counter[str] = Counter()
    for _ in range(_NUM_ORDERS):
        draw.shuffle(found)
        by_chance = _by_key(space, study, found, quantile)
        beaten.update(key for key in own if own[key] > by_chance[key])
    return [
        Importance(key=key, share=value / total, is_clear=beaten[key] == _NUM_ORDERS)
        for key, value in sorted(own.items(), key=lambda item: -item[1])
    ]


def _encoder(space: Space) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    def encode(values: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return space.encode({key: value for key, value in values.items() if key in space.keys})
        except SpaceError:  # of a space that the study had before
            return {}

    return encode


def _study(space: Space, points: Sequence[Mapping[str, Any]]) -> optuna.Study:
    """Return a study of these trials in memory, by Optuna's names; its values mean nothing."""
    distributions = space.distributions
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.study.create_study(storage=optuna.storages.InMemoryStorage(), study_name="importance")
    study.add_trials(
        optuna.trial.create_trial(params=dict(own), distributions={name: distributions[name] for name in own}, value=0)
        for own in points
    )
    return study


def _by_key(space: Space, study: optuna.Study, scores: Sequence[float], quantile: float) -> dict[str, float]:
    """Return the importance of each key, without a scale; 0 for those that no trial has."""
    evaluator = ped_anova()(target_quantile=quantile)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few trials of an option: the random orders say what that is worth
        found = evaluator.evaluate(study, target=lambda trial: -scores[trial.number])  # it takes less for better
    return {key: sum(found.get(p.name, 0.0) for p in space.parameters if p.key == key) for key in space.keys}
