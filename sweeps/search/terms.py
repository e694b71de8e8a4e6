"""The terms of a study, which make its trials comparable: stored when it is created, checked when it resumes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.pruners import BasePruner, WilcoxonPruner
from optuna.storages import RDBStorage
from optuna.study import StudyDirection

from sweeps.core.errors import ConfigError, StudyError
from sweeps.core.trials import TrialResult
from sweeps.search.objectives import Constraint, parse_objectives
from sweeps.search.optuna_private import METRIC_NAMES
from sweeps.search.replicates import Replication
from sweeps.search.space.space import Space

__all__ = ["Difference", "StudyTerms", "create_or_check", "require_judgeable"]

_ONE_TRAINING = Replication()


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A term in which the stored study differs from the current configuration.

    Attributes:
        key: The configuration key or keys that set it.
        was: The value in the storage.
        now: The value in the configuration.
    """

    key: str
    was: str
    now: str

    def __str__(self) -> str:
        return f"{self.key}: was {self.was}, now {self.now}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyTerms:
    """How the trials of a study are trained and judged: results under other terms are not comparable.

    Attributes:
        objectives: The metrics that trials are judged by, with their directions.
        reported: The metric that training runs report, with its direction.
        constraints: The conditions that the best trial must satisfy.
        replication: How often each trial is trained.
    """

    objectives: Mapping[str, StudyDirection]
    reported: tuple[str, StudyDirection]
    constraints: tuple[Constraint, ...] = ()
    replication: Replication = _ONE_TRAINING

    @classmethod
    def of(
        cls,
        metric: str | Sequence[str] = "val/acc",
        direction: str | Sequence[str] = "maximize",
        *,
        reported: tuple[str, str] | None = None,
        constraints: Sequence[Constraint] = (),
        replication: Replication = _ONE_TRAINING,
    ) -> "StudyTerms":
        """Build the terms from the values of a configuration.

        Args:
            metric: The objective, or several.
            direction: `maximize` or `minimize`, one for each metric.
            reported: The metric that training runs report, with its direction; by default the first objective.
            constraints: The conditions that the best trial must satisfy.
            replication: How often each trial is trained.

        Raises:
            ConfigError: A direction is unknown, not every metric has one, or a metric is repeated.
        """
        objectives = parse_objectives(metric, direction)
        first = next(iter(objectives))
        name, way = reported or (first, objectives[first].name.lower())
        return cls(
            objectives=objectives,
            reported=(name, parse_objectives(name, way)[name]),
            constraints=tuple(constraints),
            replication=replication,
        )

    @property
    def metrics(self) -> list[str]:
        """The objectives' names."""
        return list(self.objectives)

    @property
    def directions(self) -> dict[str, str]:
        """`maximize` or `minimize` for each objective."""
        return {metric: direction.name.lower() for metric, direction in self.objectives.items()}

    def stored(self) -> dict[str, Any]:
        """Return the attributes under which the terms are stored; Optuna itself stores the directions."""
        metric, direction = self.reported
        return {
            "metrics": self.metrics,
            "constraints": list(map(str, self.constraints)),
            "replication": str(self.replication),
            "reported": f"{direction.name.lower()} {metric}",
        }

    def differences(self, attrs: Mapping[str, Any], directions: Sequence[StudyDirection]) -> list[Difference]:
        """Compare with the attributes and directions of a stored study; what an older one lacks is ignored."""
        now = self.stored()
        was = {key: attrs.get(key, value) for key, value in now.items()}
        words = {"direction": [direction.name.lower() for direction in directions]}
        found = [
            Difference(key=f"study.{key}", was=", ".join(before), now=", ".join(after))
            for key, before, after in (
                ("metric", was["metrics"], now["metrics"]),
                ("direction", words["direction"], list(self.directions.values())),
            )
            if before != after
        ]
        if not found and was["reported"] != now["reported"]:  # it is the first of study.metric by default
            key = "objective.direction, objective.metric"
            found.append(Difference(key=key, was=was["reported"], now=now["reported"]))
        if was["constraints"] != now["constraints"]:
            before, after = ("; ".join(texts) or "none" for texts in (was["constraints"], now["constraints"]))
            found.append(Difference(key="study.constraints", was=before, now=after))
        if was["replication"] != now["replication"]:
            key = "study.replicates, study.folds"
            found.append(Difference(key=key, was=was["replication"], now=now["replication"]))
        return found

    def judge(self, value: float | Sequence[float] | None, metrics: Mapping[str, float], reason: str) -> TrialResult:
        """Return the result of a trial that trained to its end: all objectives must be there and finite.

        Args:
            value: The best value of the reported metric, or all objectives.
            metrics: The other metrics of the trial.
            reason: A note for a trial that is complete.
        """
        for constraint in self.constraints:
            if constraint.metric not in metrics:
                text = f"the trial has no {constraint.metric!r}, which study.constraints names"
                return TrialResult(state="failed", reason=text)
        reported = self.reported[0]
        given = [value if metric == reported else metrics.get(metric) for metric in self.metrics]
        many = list(value) if isinstance(value, Sequence) else given
        try:
            values = [float(number) for number in many]  # type: ignore[arg-type]
        except (TypeError, ValueError):
            text = f"the objective must be a number, but is {many[0] if len(many) == 1 else many!r}"
            return TrialResult(state="failed", reason=text)
        if len(values) != len(self.metrics):
            text = f"the study has {len(self.metrics)} objectives, but got {len(values)} values"
            return TrialResult(state="failed", reason=text)
        why = [f"the objective must be finite, but is {number}" for number in values if not math.isfinite(number)]
        constrained = sorted({constraint.metric for constraint in self.constraints})
        why += [f"{key} is nan, and study.constraints names it" for key in constrained if math.isnan(metrics[key])]
        if why:
            return TrialResult(state="pruned", reason=f"diverged: {why[0]}", cause="diverged")
        objectives = dict(zip(self.metrics, values, strict=True))
        return TrialResult(state="complete", reason=reason, objectives=objectives)


def require_judgeable(pruner: BasePruner | None, terms: StudyTerms) -> None:
    """Reject a pruner that cannot judge the trials of a study with these terms.

    Raises:
        ConfigError: The reported metric has another direction than the only objective (a study of one objective has
            one direction), or the pruner compares replicates and there is one training run per trial.
    """
    if isinstance(pruner, WilcoxonPruner) and terms.replication.count == 1:
        raise ConfigError(
            "pruner=wilcoxon compares several trainings of each trial: set study.replicates=5 or study.folds=5, or "
            "choose a pruner of epochs, such as pruner=median."
        )
    prunes = pruner is not None and not isinstance(pruner, optuna.pruners.NopPruner)
    metric, direction = terms.reported
    if prunes and len(terms.objectives) == 1 and direction not in terms.objectives.values():
        raise ConfigError(
            f"objective.direction: the pruner judges {metric!r} by the direction of the study's only metric, "
            "which is another. Choose pruner=none, or another objective.metric."
        )


def create_or_check(storage: RDBStorage, name: str, *, space: Space, terms: StudyTerms) -> int:
    """Return the id of the study of this name, and create it if there is none.

    Raises:
        StudyError: It exists with another space or other terms; the message lists each difference.
    """
    directions = list(terms.objectives.values())
    try:
        study_id = storage.create_new_study(directions, name)
        is_whole = False
    except optuna.exceptions.DuplicatedStudyError:
        study_id = storage.get_study_id_from_name(name)
        is_whole = not _was_cut_short(storage, study_id, terms)
    if not is_whole:
        storage.set_study_system_attr(study_id, METRIC_NAMES, terms.metrics)  # for Optuna's own plots
        for key, value in terms.stored().items():
            storage.set_study_user_attr(study_id, key, value)
        storage.set_study_user_attr(study_id, "space", space.describe())
    stored = storage.get_study_user_attrs(study_id)
    if "space" not in stored:
        raise StudyError(
            f"A study {name!r} is in this storage, but Lightsweep did not make it. Give another study.name."
        )
    of_space = space.difference(stored["space"])
    of_terms = terms.differences(stored, storage.get_study_directions(study_id))
    if of_space or of_terms:
        move = ", give another study.name, or move it to this space with --migrate: trials that still fit are kept."
        raise StudyError(
            f"Study {name!r} exists, but differs from what is asked for:\n  "
            + "\n  ".join([*of_space, *map(str, of_terms)])
            + "\nAsk for the same to go on with it"
            + (", or give another study.name." if of_terms else move)
        )
    return study_id


def _was_cut_short(storage: RDBStorage, study_id: int, terms: StudyTerms) -> bool:
    """Tell whether the process that created a study died before it had written all terms."""
    return (
        storage.get_study_user_attrs(study_id).keys() <= terms.stored().keys()
        and not storage.get_n_trials(study_id)
        and storage.get_study_directions(study_id) == list(terms.objectives.values())
    )
