"""A condition on the value of a key: when a parameter is searched, or which combinations are forbidden."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sweeps.config.quoting import quote

__all__ = ["COMPARISONS", "Condition", "all_hold", "is_same"]

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What the value of a key must be.

    Attributes:
        key: The dotted key, an element of a list (`model.width[0]`) or a config group.
        operator: `=` or `!=` any of the values, or a comparison with the one number there is.
        values: As the config has them.
    """

    key: str
    operator: str
    values: tuple[Any, ...]

    def holds(self, value: Any) -> bool:
        """Tell whether a value of the key satisfies the condition."""
        if self.operator in COMPARISONS:
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            return is_number and COMPARISONS[self.operator](value, self.values[0])
        return any(is_same(value, allowed) for allowed in self.values) == (self.operator == "=")

    def __str__(self) -> str:
        return f"{self.key}{self.operator}{','.join(quote(value) for value in self.values)}"


def all_hold(conditions: tuple[Condition, ...], values: Mapping[str, Any]) -> bool:
    """Tell whether all conditions hold; one on a key without a value does not."""
    return all(condition.key in values and condition.holds(values[condition.key]) for condition in conditions)


def is_same(left: Any, right: Any) -> bool:
    """Tell whether a config means the same by both: 1 and 1.0, but neither 1 and true nor 1 and '1'."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return bool(left == right)
    return type(left) is type(right) and bool(left == right)
