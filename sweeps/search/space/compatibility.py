"""Decide whether a trial fits another space: one rule for `--migrate` and `study.warm_start`.

A trial fits if the new space, with the current configuration, could have proposed it:

- every parameter that is active in it has a value of its domain;
- it is not a forbidden combination;
- a key that was searched and no longer is (or not under its conditions) had the value that the configuration gives it
  now.

The value of a key that was not searched before is read from the trial's record. Numbers are compared as such: 1 fits
1.0.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweeps.config.quoting import quote
from sweeps.core.errors import SpaceError
from sweeps.search.space.parameter import Parameter, all_hold, is_same
from sweeps.search.space.space import Space

__all__ = ["Composed", "Fit", "ValueOf", "fit", "fit_queued"]

ValueOf = Callable[[str], Any]
"""Gives the value of a dotted key, or the chosen option of a config group; raises KeyError where there is none."""

Composed = Callable[[Mapping[str, Any]], ValueOf]
"""Gives the configuration of a trial that the new space proposes with these values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The result of encoding a trial for another space.

    Attributes:
        params: The values that Optuna stores, by Optuna's names.
        incompatible: Why the trial does not fit; empty if it does.
    """

    params: dict[str, Any] = field(default_factory=dict)
    incompatible: str = ""


class _Incompatible(Exception):
    pass


def fit(space: Space, searched: Mapping[str, Any], *, recorded: ValueOf, composed: Composed) -> Fit:
    """Encode a trial that has run for another space.

    Args:
        space: The new space.
        searched: The values of the keys that were searched when the trial was proposed.
        recorded: Gives the other values of its configuration.
        composed: Gives the current configuration.
    """
    try:
        params = _encoded(space, searched, recorded)
        values = space.decode(params)
        _require_same({key: value for key, value in searched.items() if key not in values}, values, composed)
    except (_Incompatible, SpaceError) as error:  # of a list, an element may be active without the one before it
        return Fit(incompatible=_reason(error))
    return Fit(params=params)


def fit_queued(space: Space, given: Mapping[str, Any], *, composed: Composed) -> Fit:
    """Encode the values given for a trial that has not begun; the sampler chooses what is missing.

    Args:
        space: The new space.
        given: The enqueued values by key, each of which was searched then.
        composed: Gives the current configuration.
    """
    values = {key: value for key, value in given.items() if key in space.keys}
    try:
        _require_same({key: value for key, value in given.items() if key not in values}, {}, composed)
        return Fit(params=space.encode(values))
    except (_Incompatible, SpaceError) as error:
        return Fit(incompatible=_reason(error))


def _reason(error: Exception) -> str:
    """Return the reason without the remedy of a SpaceError, which does not apply here."""
    return str(error) if isinstance(error, _Incompatible) else str(error).partition(". ")[0]


def _encoded(space: Space, searched: Mapping[str, Any], recorded: ValueOf) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    params: dict[str, Any] = {}
    num_elements: dict[str, int] = {}
    for parameter in space.parameters:
        if not all_hold(parameter.when, chosen):
            continue
        value = _value(parameter, searched, recorded)
        try:
            params[parameter.name] = parameter.encode(value)
        except SpaceError:
            raise _Incompatible(f"{parameter.key_path}={_text(value)} is not in {parameter.domain}") from None
        chosen[parameter.key_path] = parameter.decode(params[parameter.name])
        if parameter.index is not None:
            num_elements[parameter.key] = num_elements.get(parameter.key, 0) + 1
    for key, count in num_elements.items():
        value = _of_key(key, searched, recorded)
        if len(value) != count:
            raise _Incompatible(f"{key}={_text(value)} has {len(value)} elements, but {count} are searched")
    for clause in space.forbidden:
        if all_hold(clause, chosen):
            raise _Incompatible(f"{' and '.join(map(str, clause))} is forbidden")
    return params


def _value(parameter: Parameter, searched: Mapping[str, Any], recorded: ValueOf) -> Any:
    value = _of_key(parameter.key, searched, recorded)
    if parameter.index is None:
        return value
    if isinstance(value, str) or not isinstance(value, Sequence) or parameter.index >= len(value):
        raise _Incompatible(f"{parameter.key}={_text(value)} has no element [{parameter.index}], which is searched")
    return value[parameter.index]


def _of_key(key: str, searched: Mapping[str, Any], recorded: ValueOf) -> Any:
    if key in searched:
        return searched[key]
    try:
        return recorded(key)
    except KeyError:
        raise _Incompatible(f"its {key} was not searched, and is not known") from None


def _require_same(gone: Mapping[str, Any], values: Mapping[str, Any], composed: Composed) -> None:
    """Require that keys that are no longer searched have the same values in the configuration."""
    if not gone:
        return
    now = composed(values)  # which takes milliseconds
    for key, was in gone.items():
        try:
            value = now(key)
        except KeyError:
            raise _Incompatible(f"{key}={_text(was)} was searched, but there is no such key any more") from None
        if not _is_same(was, value):
            raise _Incompatible(f"{key}={_text(was)}, but now it is not searched and {_text(value)}")


def _is_same(left: Any, right: Any) -> bool:
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(map(_is_same, left, right))
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(_is_same(left[key], right[key]) for key in left)
    return is_same(left, right)


def _text(value: Any) -> str:
    try:
        return quote(value)
    except TypeError:
        return repr(value)
