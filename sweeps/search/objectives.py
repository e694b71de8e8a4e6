"""The objectives and the constraints of a study, such as `num_params <= 1e6`."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from optuna.study import StudyDirection

from sweeps.core.errors import ConfigError
from sweeps.core.text import number

__all__ = [
    "Constraint",
    "parse_constraints",
    "parse_objectives",
    "violations",
    "why_infeasible",
]

Direction = Literal["maximize", "minimize"]


def parse_objectives(metric: str | Sequence[str], direction: str | Sequence[str]) -> dict[str, StudyDirection]:
    """Return the direction of each objective.

    Raises:
        ConfigError: A direction is unknown, not every metric has one, or a metric is repeated.
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


_FORM = re.compile(
    r"\s*(?P<metric>.*\S)\s*(?P<operator><=|>=|<|>)\s*(?P<bound>[^\s<>=]+)\s*"
)  # a name may contain anything
_QUOTED = re.compile(r"""(["'])(?P<metric>.+)\1""")
_LEAST = 1e-9  # the violation of `<` by a value that equals the bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """A bound on a metric at the best checkpoint."""

    metric: str
    operator: Literal["<=", ">=", "<", ">"]
    bound: float

    def holds(self, value: float) -> bool:
        """Tell whether `value` satisfies it; NaN does not."""
        match self.operator:
            case "<=":
                return value <= self.bound
            case ">=":
                return value >= self.bound
            case "<":
                return value < self.bound
            case _:
                return value > self.bound

    def violation(self, value: float) -> float:
        """Return by how much `value` violates it, relative to the bound; at most 0 if it holds.

        It is relative so that a sampler may add up the violations of several constraints.
        """
        excess = value - self.bound if self.operator[0] == "<" else self.bound - value
        share = excess / (abs(self.bound) or 1.0)
        return min(share, 0.0) if self.holds(value) else max(share, _LEAST)

    def why_violated(self, value: float) -> str:
        """Return the violation in words."""
        return f"{self.metric}={number(float(value))} violates {self}"

    def __str__(self) -> str:
        return f"{self.metric} {self.operator} {self.bound:.15g}"  # all digits: stored as a term of the study


def parse_constraints(texts: Any) -> tuple[Constraint, ...]:
    """Read `study.constraints`: one text such as `num_params <= 1e6`, or a list of them.

    The name of the metric is everything before the last comparison; it may be quoted.

    Raises:
        ConfigError: A text does not have this form.
    """
    many: Sequence[Any] = [] if texts is None else texts if isinstance(texts, list) else [texts]
    return tuple(_parsed(text) for text in many)


def violations(constraints: Sequence[Constraint], metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the violation of each constraint whose metric is known."""
    return {str(c): c.violation(metrics[c.metric]) for c in constraints if c.metric in metrics}


def why_infeasible(constraints: Sequence[Constraint], metrics: Mapping[str, float]) -> str:
    """Return which constraints are violated, of those whose metric is known; empty if none is."""
    known = [c for c in constraints if c.metric in metrics]
    return "; ".join(c.why_violated(metrics[c.metric]) for c in known if not c.holds(metrics[c.metric]))


def _parsed(text: Any) -> Constraint:
    found = _FORM.fullmatch(text) if isinstance(text, str) else None
    try:
        bound = math.nan if found is None else float(found["bound"])
        if found is None or math.isnan(bound):
            raise ValueError
        operator: Any = found["operator"]
        quoted = _QUOTED.fullmatch(found["metric"])
        return Constraint(metric=(quoted or found)["metric"], operator=operator, bound=bound)
    except ValueError:
        raise ConfigError(
            f"study.constraints: {text!r} is not a constraint. Write a metric, <=, >=, < or >, and a number: "
            "'study.constraints=[\"num_params <= 1e6\"]'."
        ) from None
