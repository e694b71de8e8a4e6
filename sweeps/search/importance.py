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

_NUM_ORDERS = 39  # so that by chance one of forty parameters seems to matter


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """How much one searched key matters for being among the best.

    Attributes:
        share: Its share of the importance of all keys, 0 to 1.
        is_clear: Whether it is larger than in each of 39 random orders of the same trials (p <= 1/40).
    """

    key: str
    share: float
    is_clear: bool


def weigh(
    space: Space, points: Sequence[Mapping[str, Any]], scores: Sequence[float], *, num_best: int
) -> list[Importance]:
    """Return the importance of the keys of a space, the most important first.

    It measures how far the distribution of the best trials' values is from that of all trials (Watanabe et al.,
    "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces", IJCAI 2023; for conditional
    parameters its extension of 2026, as implemented in Optuna). It uses only which trials are among the best, so that
    pruned trials count as well. The shares of a key's parameters (elements of a list, ranges of options) are added.

    Args:
        space: The space; points outside of it are left out.
        points: The values of each trial by key.
        scores: One finite score per trial; higher is better.
        num_best: How many trials count as the best; ties with the last of them count as well.
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
        except SpaceError:  # from an earlier space of the study
            return {}

    return encode


def _study(space: Space, points: Sequence[Mapping[str, Any]]) -> optuna.Study:
    """Return a study of these trials in memory, with meaningless values."""
    distributions = space.distributions
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.study.create_study(storage=optuna.storages.InMemoryStorage(), study_name="importance")
    study.add_trials(
        optuna.trial.create_trial(params=dict(own), distributions={name: distributions[name] for name in own}, value=0)
        for own in points
    )
    return study


def _by_key(space: Space, study: optuna.Study, scores: Sequence[float], quantile: float) -> dict[str, float]:
    """Return the unnormalised importance of each key; 0 if no trial has it."""
    evaluator = ped_anova()(target_quantile=quantile)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few trials of an option; the random orders account for that
        found = evaluator.evaluate(study, target=lambda trial: -scores[trial.number])  # lower is better there
    return {key: sum(found.get(p.name, 0.0) for p in space.parameters if p.key == key) for key in space.keys}
