"""A search space: named parameters, in the order typed."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sweeps.errors import SpaceError, did_you_mean
from sweeps.space.parameter import Parameter
from sweeps.space.quoting import quote

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution

__all__ = ["Space"]


class Space:
    """The parameters of a study.

    **Names**
    A parameter has one name everywhere: its dotted key, or the config group whose option is searched.

    **Values**
    `suggest`, `decode` and `grid` give Python values as the config gets them. What Optuna stores may differ
    (the text of a list); `encode` and `decode` translate.
    """

    def __init__(self, parameters: Iterable[Parameter] = ()) -> None:
        self.parameters = tuple(parameters)
        self._by_key = {parameter.key: parameter for parameter in self.parameters}
        if len(self._by_key) < len(self.parameters):
            keys = [parameter.key for parameter in self.parameters]
            twice = next(key for index, key in enumerate(keys) if key in keys[:index])
            raise SpaceError(f"{twice}: a key is searched once, but it is there twice. Delete one of the two.")

    @property
    def keys(self) -> tuple[str, ...]:
        """The dotted keys, in the order typed."""
        return tuple(self._by_key)

    @property
    def size(self) -> int | None:
        """The number of points of the grid; None if a parameter is continuous."""
        counts = [None if p.values is None else len(p.values) for p in self.parameters]
        known = [count for count in counts if count is not None]
        return math.prod(known) if len(known) == len(counts) else None

    @cached_property
    def distributions(self) -> "dict[str, BaseDistribution]":
        """Optuna's distributions by key, for `study.ask`."""
        return {parameter.key: parameter.distribution for parameter in self.parameters}

    def suggest(self, trial: "Trial") -> dict[str, Any]:
        """Let Optuna choose a value for each parameter of `trial`."""
        return {parameter.key: parameter.suggest(trial) for parameter in self.parameters}

    def decode(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Return the config's values for the parameters of an Optuna trial, in the order of the space."""
        self._check_keys(stored)
        return {p.key: p.decode(stored[p.key]) for p in self.parameters if p.key in stored}

    def encode(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the config's values as Optuna stores them, for `enqueue_trial`; some keys may be missing.

        Raises:
            SpaceError: A key or a value is not in the space.
        """
        self._check_keys(values)
        return {p.key: p.encode(values[p.key]) for p in self.parameters if p.key in values}

    def overrides(self, values: Mapping[str, Any]) -> list[str]:
        """Return the values as Hydra overrides, quoted so that Hydra reads the same values back."""
        self._check_keys(values)
        return [f"{p.prefix}{p.key}={quote(values[p.key])}" for p in self.parameters if p.key in values]

    def grid(self) -> dict[str, list[Any]]:
        """Return all values of each parameter, in the order in which Hydra enumerates them.

        Raises:
            SpaceError: A parameter is continuous.
        """
        found: dict[str, list[Any]] = {}
        for parameter in self.parameters:
            if parameter.values is None:
                raise SpaceError(
                    f"{parameter.key}={parameter.domain}: a grid needs values that can be counted, but an "
                    f"interval is continuous. Give {_countable(parameter)}, or take another sampler."
                )
            found[parameter.key] = list(parameter.values)
        return found

    def points(self) -> Iterator[dict[str, Any]]:
        """Go through the grid, the last parameter fastest, as Hydra's own sweeper does.

        Raises:
            SpaceError: A parameter is continuous.
        """
        grid = self.grid()
        for values in itertools.product(*grid.values()):
            yield dict(zip(grid, values, strict=True))

    def describe(self) -> dict[str, str]:
        """Return what to store to recognise the space later: key to expression, free of spelling variants.

        `parse_space(space.describe()) == space`.
        """
        return {f"{p.prefix}{p.key}": str(p.domain) for p in self.parameters}

    def difference(self, stored: Mapping[str, str]) -> list[str]:
        """Return one line for each parameter that a stored description has otherwise; empty if none."""
        own = self.describe()
        lines = []
        for key in [*stored, *(key for key in own if key not in stored)]:
            if key not in own:
                lines.append(f"{key}: was {stored[key]}, now not searched")
            elif key not in stored:
                lines.append(f"{key}: was not searched, now {own[key]}")
            elif own[key] != stored[key]:
                lines.append(f"{key}: was {stored[key]}, now {own[key]}")
        return lines

    def _check_keys(self, keys: Iterable[str]) -> None:
        for key in keys:
            if key not in self._by_key:
                raise SpaceError(f"{key} is not searched in this study. {did_you_mean(key, self._by_key)}".strip())

    def __contains__(self, key: object) -> bool:
        return key in self._by_key

    def __getitem__(self, key: str) -> Parameter:
        return self._by_key[key]

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self.parameters)

    def __len__(self) -> int:
        return len(self.parameters)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and self.describe() == other.describe()

    def __hash__(self) -> int:
        return hash(tuple(self.describe().items()))

    def __repr__(self) -> str:
        return f"Space({self.describe()})"


def _countable(parameter: Parameter) -> str:
    domain: Any = parameter.domain
    low, high = float(domain.low), float(domain.high)
    if domain.log:
        middle = float(f"{math.sqrt(low * high):.1g}")
        return f"a choice such as {parameter.key}={quote(low)},{quote(middle)},{quote(high)}"
    step = float(f"{(high - low) / 4 or 1.0:.1g}")
    return f"a range such as {parameter.key}=range({quote(low)},{quote(high)},{quote(step)}) or a choice"
