"""A searched parameter: its key, its domain, its conditions, and the values that Optuna stores for it."""

import math
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sweeps.config.quoting import quote
from sweeps.core.errors import SpaceError

if TYPE_CHECKING:  # Optuna takes 0.2 s to import: only when a distribution is first asked for
    from optuna import Trial
    from optuna.distributions import BaseDistribution

__all__ = ["COMPARISONS", "Choices", "Condition", "Domain", "Interval", "Parameter", "Steps", "all_hold", "is_same"]

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A condition on the value of a key: when a parameter is searched, or part of a forbidden combination.

    Attributes:
        key: The dotted key, an element of a list (`model.width[0]`) or a config group.
        operator: `=` for one of the values, `!=` for none of them, or a comparison with a single number.
        values: The values as in the config.
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
    """Tell whether two values mean the same in a config: 1 and 1.0 do, but neither 1 and true nor 1 and '1'."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return bool(left == right)
    return type(left) is type(right) and bool(left == right)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """A finite set of any values, in the order typed.

    Attributes:
        values: The values in the config.
        stored: The values in Optuna's storage: the same, or their text if one is a list or a dict, or if two values
            are equal in Python (`1` and `true`).
    """

    values: tuple[Any, ...]
    stored: tuple[str | int | float | bool | None, ...]

    @classmethod
    def of(cls, values: Sequence[Any]) -> "Choices":
        """Build the set and choose the stored values.

        Raises:
            ValueError: There is no value, or a value is repeated.
        """
        if not values:
            raise ValueError("a choice needs at least one value")
        texts = [quote(value) for value in values]
        twice = [text for index, text in enumerate(texts) if text in texts[:index]]
        if twice:
            raise ValueError(f"a choice names each value once, but {twice[0]} is there twice")
        stored = [value if _is_plain(value) else text for value, text in zip(values, texts, strict=True)]
        if len(set(stored)) < len(stored):
            stored = list(texts)
        return cls(values=tuple(values), stored=tuple(stored))

    def __str__(self) -> str:
        return f"choice({','.join(quote(value) for value in self.values)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """All numbers from `low` to `high`, both included; only whole ones if `is_whole`.

    With `log`, equal ratios are equally likely.
    """

    low: float
    high: float
    log: bool = False
    is_whole: bool = False

    def __str__(self) -> str:
        text = f"interval({quote(self.low)},{quote(self.high)})"
        text = f"int({text})" if self.is_whole else text
        return f"tag(log,{text})" if self.log else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Numbers at equal distances from `start` on; `stop` is excluded, as in Python and in Hydra.

    Attributes:
        values: The numbers exactly as Hydra enumerates them: a `range`, or a tuple of floats.
    """

    start: float
    stop: float
    step: float
    values: Sequence[float]

    @property
    def low(self) -> float:
        """The smallest value, without the rounding errors of repeated addition."""
        return self.start if self.step > 0 else self._last()

    @property
    def high(self) -> float:
        """The largest value, without the rounding errors of repeated addition."""
        return self._last() if self.step > 0 else self.start

    def nearest(self, value: float) -> float:
        """Return the element that is nearest to `value`."""
        index = round((value - float(self.start)) / float(self.step))
        return self.values[min(max(index, 0), len(self.values) - 1)]

    def _last(self) -> float:
        if isinstance(self.values, range):
            return self.values[-1]
        return float(Decimal(str(self.start)) + (len(self.values) - 1) * Decimal(str(self.step)))

    def __str__(self) -> str:
        parts = [quote(self.start), quote(self.stop)] + ([] if _is_one(self.step) else [quote(self.step)])
        return f"range({','.join(parts)})"


Domain = Choices | Interval | Steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One searched parameter.

    Attributes:
        key: The dotted key or the config group.
        prefix: `+` or `++` if the key is to be added to the config, else empty.
        index: The index of the element, if the value is a list of which each element is a parameter; else None.
        option: The option of the key's group that this range belongs to; other options may have other ranges.
        expression: The expression as the user typed it.
        domain: The set of its values.
        when: The conditions under which it is searched, which must all hold; the condition on `option` is one of them.
    """

    key: str
    prefix: str = ""
    index: int | None = None
    option: str | None = None
    expression: str
    domain: Domain
    when: tuple[Condition, ...] = ()

    @property
    def key_path(self) -> str:
        """The key, with the index of an element, by which conditions name it: `optimizer.lr`, `model.width[0]`."""
        return self.key if self.index is None else f"{self.key}[{self.index}]"

    @property
    def name(self) -> str:
        """The parameter's name in Optuna: the key path, with the option if there is one, as in `optimizer.lr@sgd`."""
        return self.key_path if self.option is None else f"{self.key_path}@{self.option}"

    @property
    def text(self) -> str:
        """The domain and the conditions, as `parse_space` reads them; the condition on the option is implied."""
        when = [str(condition) for condition in self.when if condition != self.option_condition]
        return f"{self.domain} when {' and '.join(when)}" if when else str(self.domain)

    @property
    def option_condition(self) -> Condition | None:
        """The condition that the option of this range is chosen."""
        if self.option is None:
            return None
        return Condition(key=self.key.partition(".")[0], operator="=", values=(self.option,))

    @property
    def values(self) -> Sequence[Any] | None:
        """All values in the order in which Hydra enumerates them; None if they are continuous."""
        match self.domain:
            case Interval(is_whole=False):
                return None
            case Interval(low=low, high=high):
                return range(int(low), int(high) + 1)
            case domain:
                return domain.values

    @property
    def distribution(self) -> "BaseDistribution":
        """The Optuna distribution, built at each access."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        match self.domain:
            case Choices(stored=stored):
                return CategoricalDistribution(stored)
            case Interval(is_whole=True) as it:
                return IntDistribution(int(it.low), int(it.high), log=it.log)
            case Interval() as it:
                return FloatDistribution(float(it.low), float(it.high), log=it.log)
            case Steps(values=range()) as it:
                return IntDistribution(int(it.low), int(it.high), step=abs(int(it.step)))
            case it:
                low, high, step = float(it.low), float(it.high), abs(float(it.step))
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # "not divisible by step": half a step more is meant
                    found = FloatDistribution(low, high, step=step)
                    if round((found.high - low) / step) != len(it.values) - 1:  # lost to decimal rounding
                        found = FloatDistribution(low, high + step / 2, step=step)
                return found

    @property
    def ends(self) -> Sequence[Any]:
        """The choices, or the two ends of a range: what is worth trying out before a search."""
        match self.domain:
            case Interval(is_whole=True) as it:
                return (int(it.low), int(it.high))
            case Interval() as it:
                return (float(it.low), float(it.high))
            case Steps(values=values):
                return (values[0], values[-1])
            case domain:
                return domain.values

    def suggest(self, trial: "Trial") -> Any:
        """Let Optuna choose a value for `trial`."""
        found: Any
        match self.domain:
            case Choices(stored=stored):
                found = trial.suggest_categorical(self.name, stored)
            case Interval(is_whole=True) as it:
                found = trial.suggest_int(self.name, int(it.low), int(it.high), log=it.log)
            case Interval() as it:
                found = trial.suggest_float(self.name, float(it.low), float(it.high), log=it.log)
            case Steps():
                distribution: Any = self.distribution
                suggest = trial.suggest_int if isinstance(self.domain.values, range) else trial.suggest_float
                found = suggest(self.name, distribution.low, distribution.high, step=distribution.step)
        return self.decode(found)

    def decode(self, stored: Any) -> Any:
        """Return the config's value for a value that Optuna stored or suggested."""
        match self.domain:
            case Choices() as it:
                return it.values[it.stored.index(stored)]
            case Interval(is_whole=True):
                return int(stored)
            case Interval():
                return float(stored)
            case it:
                return it.nearest(stored)

    def encode(self, value: Any) -> Any:
        """Return the value that Optuna stores for a value of the config.

        Raises:
            SpaceError: The value is not in the domain.
        """
        match self.domain:
            case Choices() as it:
                texts = [quote(choice) for choice in it.values]
                text = _text(value)
                if text in texts:
                    return it.stored[texts.index(text)]
                equal = [index for index, choice in enumerate(it.values) if is_same(choice, value)]
                if len(equal) == 1:
                    return it.stored[equal[0]]
            case _ if isinstance(value, bool) or not isinstance(value, (int, float)):
                pass
            case Interval() as it:
                if it.low <= value <= it.high and (not it.is_whole or value == int(value)):
                    return int(value) if it.is_whole else float(value)
            case Steps() as it:
                nearest = it.nearest(value) if math.isfinite(value) else math.nan
                if math.isclose(nearest, value, rel_tol=1e-9, abs_tol=1e-9 * abs(it.step)):
                    return nearest
        raise SpaceError(
            f"{self.key_path}: {_text(value)} is not in {self.domain}. Give one of these values, or widen the "
            f"space: that of a study that has begun with `lightsweep resume STUDY --migrate`."
        )


def _is_plain(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, (str, int))


def _is_one(step: float) -> bool:
    return isinstance(step, int) and step == 1


def _text(value: Any) -> str:
    try:
        return quote(value)
    except TypeError:
        return repr(value)
