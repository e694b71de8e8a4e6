"""What trials are judged by: one objective or several, and what of it pruners see."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import optuna
from optuna.pruners import BasePruner, WilcoxonPruner
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection

from sweeps.core.errors import ConfigError
from sweeps.replicates import Replication

__all__ = ["ReportedOnly", "parse_objectives", "require_judgeable"]

Direction = Literal["maximize", "minimize"]


class ReportedOnly(InMemoryStorage):
    """The same trials as in another storage, with one objective, the reported one: pruners refuse several."""

    def __init__(self, storage: InMemoryStorage, direction: StudyDirection) -> None:
        vars(self).update(vars(storage))
        self._direction = direction

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Return the one direction."""
        return [self._direction]


def parse_objectives(metric: str | Sequence[str], direction: str | Sequence[str]) -> dict[str, StudyDirection]:
    """Return the direction of each objective.

    Raises:
        ConfigError: A direction is unknown, there is not one for each metric, or a metric is there twice.
    """
    metrics: list[Any] = list(metric) if isinstance(metric, list | tuple) else [metric]
    directions: list[Any] = list(direction) if isinstance(direction, list | tuple) else [direction]
    for name in directions:
        if name not in get_args(Direction):
            raise ConfigError(f"study.direction must be 'maximize' or 'minimize', but got {name!r}.")
    if len(metrics) != len(directions):
        raise ConfigError(f"study.direction: one direction for each metric, but got {len(directions)} for {metrics}.")
    twice = [name for index, name in enumerate(metrics) if name in metrics[:index]]
    if twice or not metrics or not all(isinstance(name, str) for name in metrics):
        raise ConfigError(f"study.metric must name one metric or several different ones, but got {metrics}.")
    return {name: StudyDirection[way.upper()] for name, way in zip(metrics, directions, strict=True)}


def require_judgeable(
    pruner: BasePruner | None,
    objectives: Mapping[str, StudyDirection],
    reported: tuple[str, str],
    replication: Replication,
) -> None:
    """Refuse what a pruner cannot judge.

    Raises:
        ConfigError: There is one objective and its reports go the other way: samplers and pruners of one objective know
            one direction. Or there is one training of each trial where several are compared.
    """
    if isinstance(pruner, WilcoxonPruner) and replication.count == 1:
        raise ConfigError(
            "pruner=wilcoxon compares several trainings of each trial: set study.replicates=5 or study.folds=5, or "
            "choose a pruner of epochs, such as pruner=median."
        )
    prunes = pruner is not None and not isinstance(pruner, optuna.pruners.NopPruner)
    directions = [direction.name.lower() for direction in objectives.values()]
    if prunes and len(directions) == 1 and reported[1] not in directions:
        raise ConfigError(
            f"objective.direction: the pruner judges {reported[0]!r} by the direction of the study's only metric, "
            "which is another. Choose pruner=none, or another objective.metric."
        )
