"""A search space: named parameters with conditions, and forbidden combinations."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import Glob, OverrideType, Sweep

from sweeps.config.quoting import quote
from sweeps.core.errors import SpaceError, did_you_mean
from sweeps.search.space.expressions import name_of, plain_value, read_override
from sweeps.search.space.parameter import Condition, Parameter, all_hold

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution

__all__ = ["Space", "read_values"]

_MAX_COUNTED = 50  # values of a parameter that are tried one by one to satisfy a condition
_MAX_SEARCHED = 100_000  # combinations after which a corner is given up


class Space:
    """The parameters of a study.

    **Names**
    The config, the command line and the leaderboard name a parameter by its dotted key, or by the config group
    whose option is searched. In Optuna, an element of a list and the range of an option are separate parameters:
    `model.width[0]`, `optimizer.lr@sgd`. `encode` and `decode` translate.

    **Values**
    `suggest`, `decode` and `points` return Python values for the config. The values that Optuna stores may differ
    (the text of a list).

    **Conditions**
    A parameter is active in a trial if all its conditions hold; a condition on an inactive parameter does not hold.
    An inactive parameter is neither suggested nor set.
    """

    def __init__(self, parameters: Iterable[Parameter] = (), forbidden: Iterable[tuple[Condition, ...]] = ()) -> None:
        """Order the parameters as given, but each after those that its conditions name.

        Args:
            parameters: The parameters; those of one key have different options or indices.
            forbidden: Combinations that are never proposed: those in which all conditions of one tuple hold.

        Raises:
            SpaceError: A key is repeated, or conditions are circular.
        """
        given = list(parameters)
        self._by_name = {parameter.name: parameter for parameter in given}
        _require_distinct(given)
        self.parameters = _in_order(given)
        self.forbidden = tuple(forbidden)
        self._by_key: dict[str, list[Parameter]] = {}
        for parameter in self.parameters:
            self._by_key.setdefault(parameter.key, []).append(parameter)

    @property
    def keys(self) -> tuple[str, ...]:
        """The dotted keys, in the order of the parameters."""
        return tuple(self._by_key)

    @property
    def is_conditional(self) -> bool:
        """Whether a parameter is searched only under conditions."""
        return any(parameter.when for parameter in self.parameters)

    @property
    def size(self) -> int | None:
        """The number of points of the grid; None if a parameter is continuous."""
        counts = [None if p.values is None else len(p.values) for p in self.parameters]
        known = [count for count in counts if count is not None]
        if len(known) < len(counts):
            return None
        is_product = not self.is_conditional and not self.forbidden
        return math.prod(known) if is_product else sum(1 for _ in self.stored_points())

    @cached_property
    def distributions(self) -> "dict[str, BaseDistribution]":
        """Optuna's distributions of all parameters by name, whatever their conditions."""
        return {parameter.name: parameter.distribution for parameter in self.parameters}

    # --- one trial

    def suggest(self, trial: "Trial") -> dict[str, Any]:
        """Let Optuna choose a value for each parameter that is active in `trial`."""
        chosen: dict[str, Any] = {}
        for parameter in self.parameters:
            if all_hold(parameter.when, chosen):
                chosen[parameter.key_path] = parameter.suggest(trial)
        return self._values(chosen)

    def decode(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Return the config's values for the parameters of an Optuna trial, in the order of the space."""
        for name in stored:
            if name not in self._by_name:
                raise SpaceError(f"{name} is not searched in this study. {did_you_mean(name, self._by_name)}".strip())
        return self._values({p.key_path: p.decode(stored[p.name]) for p in self.parameters if p.name in stored})

    def encode(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the config's values as Optuna stores them, for `enqueue_trial`; some keys may be missing.

        Raises:
            SpaceError: A key or a value is not in the space, or the combination is not.
        """
        self._check_keys(values)
        chosen = self._by_key_path(values)
        for clause in self.forbidden:
            if all_hold(clause, chosen):
                raise SpaceError(f"{_clause(clause)} is forbidden in this study. Choose another combination.")
        found: dict[str, Any] = {}
        for key_path in chosen:
            found |= self._encode_one(key_path, chosen)
        return found

    def forbids(self, values: Mapping[str, Any]) -> bool:
        """Tell whether the values of a trial are a forbidden combination."""
        if not self.forbidden:
            return False
        chosen = self._by_key_path(values)
        return any(all_hold(clause, chosen) for clause in self.forbidden)

    def overrides(self, values: Mapping[str, Any]) -> list[str]:
        """Return the values as Hydra overrides, quoted so that Hydra reads the same values back."""
        self._check_keys(values)
        return [f"{group[0].prefix}{key}={quote(values[key])}" for key, group in self._by_key.items() if key in values]

    def settings(self, values: Mapping[str, Any]) -> set[str]:
        """Return what composing these values validates: each key, with the option of its group."""
        return {f"{key}@{values.get(key.partition('.')[0])}" for key in values}

    # --- many trials

    def grid(self) -> dict[str, list[Any]]:
        """Return all values of each parameter by name, in the order in which Hydra enumerates them.

        Raises:
            SpaceError: A parameter is continuous.
        """
        found: dict[str, list[Any]] = {}
        for parameter in self.parameters:
            if parameter.values is None:
                raise SpaceError(
                    f"{parameter.key_path}={parameter.domain}: a grid needs values that can be counted, but an "
                    f"interval is continuous. Give {_countable(parameter)}, or take another sampler."
                )
            found[parameter.name] = list(parameter.values)
        return found

    def points(self) -> Iterator[dict[str, Any]]:
        """Iterate over the valid points of the grid, the last parameter fastest, as Hydra's own sweeper does.

        Raises:
            SpaceError: A parameter is continuous.
        """
        return map(self.decode, self.stored_points())

    def stored_points(self) -> Iterator[dict[str, Any]]:
        """Iterate over the same points with Optuna's names and stored values.

        Raises:
            SpaceError: A parameter is continuous.
        """
        grid = self.grid()
        for chosen in self._combinations(lambda parameter: grid[parameter.name]):
            yield {p.name: p.encode(chosen[p.name]) for p in self.parameters if p.name in chosen}

    def corners(self) -> list[dict[str, Any]]:
        """Return points in which every choice and both ends of every range occur, if they are valid.

        The first point has the first value of each parameter; the others differ from it as little as possible.

        Raises:
            SpaceError: A parameter is active in no valid point, or there is no valid point.
        """
        first = self._point()
        if first is None:
            raise SpaceError(f"Every combination is forbidden by {self._forbidden_text}. Leave one of them out.")
        found = [first]
        for parameter in self.parameters:
            name = parameter.name
            covered = {quote(point[name]) for point in found if name in point}
            for value in parameter.ends:
                point = None if quote(value) in covered else self._point(parameter, value)
                if point is not None:
                    found.append(point)
            if not any(name in point for point in found):
                raise SpaceError(_never_active(parameter, self._forbidden_text))
        return [self._values({self._by_name[name].key_path: v for name, v in point.items()}) for point in found]

    def by_key_path(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of a point by key path: `model.width[0]` for an element that is a parameter of its own.

        Raises:
            SpaceError: A key is not in the space.
        """
        self._check_keys(values)
        return self._by_key_path(values)

    def moved(self, values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return a point with the values at some key paths changed; None if the result is not a point of the space.

        Parameters that become inactive are left out; those that become active must be among the changes.
        """
        wanted = self.by_key_path(values) | dict(changes)
        chosen: dict[str, Any] = {}
        for parameter in self.parameters:
            if not all_hold(parameter.when, chosen):
                continue
            if parameter.key_path not in wanted or not _as_own(parameter, wanted[parameter.key_path]):
                return None
            chosen[parameter.key_path] = wanted[parameter.key_path]
        if not changes.keys() <= chosen.keys() or any(all_hold(clause, chosen) for clause in self.forbidden):
            return None
        return self._values(chosen)

    # --- the space as text

    def describe(self) -> dict[str, str]:
        """Return the normal form of the space, name to expression, which is stored with the study.

        `parse_space(space.describe()) == space`.
        """
        described = {f"{p.prefix}{p.name}": p.text for p in self.parameters}
        return described | ({"forbid": self._forbidden_text} if self.forbidden else {})

    def difference(self, stored: Mapping[str, str]) -> list[str]:
        """Return one line for each difference from a stored description; empty if there is none."""
        own = self.describe()
        lines = []
        for key in [*stored, *(key for key in own if key not in stored)]:
            absent = "nothing" if key == "forbid" else "not searched"
            was, now = stored.get(key, absent), own.get(key, absent)
            if was != now:
                lines.append(f"{key}: was {was}, now {now}")
        return lines

    @property
    def _forbidden_text(self) -> str:
        return " or ".join(_clause(clause) for clause in self.forbidden)

    # --- keys of the config, key paths of values, names in Optuna

    def _values(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """Convert values by key path to the config's values by key: elements become lists."""
        values: dict[str, Any] = {}
        for key, group in self._by_key.items():
            if key in chosen:
                values[key] = chosen[key]
            elif group[0].index is not None:
                indices = sorted({p.index or 0 for p in group if p.key_path in chosen})
                if indices != list(range(len(indices))):
                    raise SpaceError(
                        f"{key}: an element is only searched together with those before it, but [{indices[-1]}] can "
                        f"be without [{indices[-1] - 1}]. Give it the conditions of the one before, too."
                    )
                values |= {key: [chosen[f"{key}[{index}]"] for index in indices]} if indices else {}
        return values

    def _by_key_path(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Convert the config's values by key to values by key path: lists become elements."""
        chosen: dict[str, Any] = {}
        for key, value in values.items():
            if self._by_key[key][0].index is None:
                chosen[key] = value
                continue
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise SpaceError(f"{key}: each element is searched, so its value is a list, but got {value!r}.")
            chosen |= {f"{key}[{index}]": item for index, item in enumerate(value)}
        return chosen

    def _encode_one(self, key_path: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """Encode one value for each parameter that may be active: several if their conditions are open."""
        candidates = [p for p in self.parameters if p.key_path == key_path]
        if not candidates:
            raise SpaceError(f"{key_path} is not searched in this study; the list has too many elements.")
        may_be_active = [p for p in candidates if all(c.key not in chosen or c.holds(chosen[c.key]) for c in p.when)]
        if not may_be_active:
            texts = " or ".join(" and ".join(map(str, p.when)) for p in candidates)
            raise SpaceError(f"{key_path} is only searched when {texts}. Leave it out, or change what it depends on.")
        found: dict[str, Any] = {}
        refusal: SpaceError | None = None
        for parameter in may_be_active:
            try:
                found[parameter.name] = parameter.encode(chosen[key_path])
            except SpaceError as error:
                refusal = error
        if not found and refusal is not None:
            raise refusal
        return found

    # --- valid combinations

    def _combinations(self, candidates: Callable[[Parameter], Sequence[Any]]) -> Iterator[dict[str, Any]]:
        """Iterate over the valid combinations of the candidates, by name, the last parameter fastest.

        An active parameter without candidates makes a combination invalid.
        """

        def go(index: int, chosen: dict[str, Any], by_name: dict[str, Any]) -> Iterator[dict[str, Any]]:
            while index < len(self.parameters) and not all_hold(self.parameters[index].when, chosen):
                index += 1
            if index == len(self.parameters):
                if not any(all_hold(clause, chosen) for clause in self.forbidden):
                    yield by_name
                return
            parameter = self.parameters[index]
            for value in candidates(parameter):
                yield from go(index + 1, chosen | {parameter.key_path: value}, by_name | {parameter.name: value})

        return go(0, {}, {})

    def _point(self, parameter: Parameter | None = None, value: Any = None) -> dict[str, Any] | None:
        """Return the valid point, by name, that has this value and otherwise the first values if possible; or None."""
        tied = {c.key for clause in self.forbidden for c in clause} | {
            c.key for c in (parameter.when if parameter else ())
        }
        for other in reversed(self.parameters):
            if other.key_path in tied:
                tied |= {c.key for c in other.when}

        def candidates(other: Parameter) -> Sequence[Any]:
            if parameter is not None and other.name == parameter.name:
                return [value]
            return self._telling_values(other) if other.key_path in tied else other.ends[:1]

        points = itertools.islice(self._combinations(candidates), _MAX_SEARCHED)
        return next((point for point in points if parameter is None or parameter.name in point), None)

    def _telling_values(self, parameter: Parameter) -> list[Any]:
        """Return the values that conditions may distinguish: the ends first, then all others if they are few."""
        few = parameter.values if parameter.values is not None and len(parameter.values) <= _MAX_COUNTED else ()
        named: list[Any] = []
        for condition in self._conditions_on(parameter.key_path):
            named += [v for value in condition.values for v in _as_own(parameter, value)]
        return list({quote(value): value for value in (*parameter.ends, *few, *named)}.values())

    def _conditions_on(self, key_path: str) -> Iterator[Condition]:
        groups = [*(parameter.when for parameter in self.parameters), *self.forbidden]
        return (condition for group in groups for condition in group if condition.key == key_path)

    def _check_keys(self, keys: Iterable[str]) -> None:
        for key in keys:
            if key not in self._by_key:
                raise SpaceError(f"{key} is not searched in this study. {did_you_mean(key, self._by_key)}".strip())

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> Parameter:
        return self._by_name[name]

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self.parameters)

    def __len__(self) -> int:
        return len(self.parameters)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and self.describe() == other.describe()

    def __hash__(self) -> int:
        return hash(tuple(sorted(self.describe().items())))

    def __repr__(self) -> str:
        return f"Space({self.describe()})"


def _require_distinct(parameters: Sequence[Parameter]) -> None:
    """Reject two parameters of one key path, unless both belong to options, and gaps in lists."""
    options: dict[str, list[str | None]] = {}
    indices: dict[str, set[int | None]] = {}
    for parameter in parameters:
        options.setdefault(parameter.key_path, []).append(parameter.option)
        indices.setdefault(parameter.key, set()).add(parameter.index)
    for key_path, found in options.items():
        if len(set(found)) < len(found) or (len(found) > 1 and None in found):
            raise SpaceError(f"{key_path}: a key is searched once, but it is there twice. Delete one of the two.")
    for key, found_indices in indices.items():
        if found_indices != {None} and found_indices != set(range(len(found_indices))):
            raise SpaceError(f"{key}: elements are searched from [0] on without a gap, and then not the whole list.")


def _in_order(parameters: Sequence[Parameter]) -> tuple[Parameter, ...]:
    """Return the parameters as given, but each after those that its conditions name."""
    by_key_path: dict[str, list[Parameter]] = {}
    for parameter in parameters:
        by_key_path.setdefault(parameter.key_path, []).append(parameter)
    placed: dict[str, Parameter] = {}

    def insert(parameter: Parameter, waiting: tuple[Parameter, ...]) -> None:
        if parameter.name in placed:
            return
        if parameter in waiting:
            circle = [p.key_path for p in (*waiting[waiting.index(parameter) :], parameter)]
            raise SpaceError(f"{parameter.key_path}: conditions go round in a circle, {' -> '.join(circle)}. Cut one.")
        for condition in parameter.when:
            for other in by_key_path.get(condition.key, ()):
                insert(other, (*waiting, parameter))
        placed[parameter.name] = parameter

    for parameter in parameters:
        insert(parameter, ())
    return tuple(placed.values())


def _clause(conditions: Iterable[Condition]) -> str:
    return " and ".join(map(str, conditions))


def _never_active(parameter: Parameter, forbidden: str) -> str:
    besides = f", and {forbidden} is forbidden" if forbidden else ""
    return f"{parameter.key_path} is never searched: no values satisfy {_clause(parameter.when)}{besides}."


def _as_own(parameter: Parameter, value: Any) -> list[Any]:
    """Return the parameter's value that equals `value` (1.0 for 1), or nothing."""
    try:
        return [parameter.decode(parameter.encode(value))]
    except SpaceError:
        return []


def _countable(parameter: Parameter) -> str:
    domain: Any = parameter.domain
    low, high = float(domain.low), float(domain.high)
    if domain.log:
        middle = float(f"{math.sqrt(low * high):.1g}")
        return f"a choice such as {parameter.key}={quote(low)},{quote(middle)},{quote(high)}"
    step = float(f"{(high - low) / 4 or 1.0:.1g}")
    return f"a range such as {parameter.key}=range({quote(low)},{quote(high)},{quote(step)}) or a choice"


def read_values(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the values of `key=value` overrides for one trial, written as on a sweep's command line.

    Raises:
        SpaceError: One cannot be read, deletes a key, or is a sweep expression.
    """
    values: dict[str, Any] = {}
    for text in overrides:
        override = read_override(text)
        key = name_of(override)
        if override.type == OverrideType.DEL:
            raise SpaceError(f"{text}: a trial needs values, but ~ deletes a key. Write {key}=VALUE.")
        try:
            value = override.value()
        except ValueError as error:
            raise SpaceError(f"{text}: {error}") from error
        if isinstance(value, Sweep | Glob):
            raise SpaceError(f"{text}: a trial has one value for each key, but this is a sweep expression.")
        values[key] = plain_value(value)
    return values
