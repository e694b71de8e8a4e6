"""Declare a search space: the `search` node and the command line become parameters with conditions.

`expressions.py` reads the value expressions, such as `tag(log,interval(1e-4,1e-1))`. Nothing is composed here: a
callable gives the configuration's values.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Glob, Sweep

from sweeps.config.composer import RANGES
from sweeps.core.errors import SpaceError, did_you_mean
from sweeps.search.space.expressions import (
    GroupOptions,
    masked,
    name_of,
    one_line,
    parameter_of_override,
    parameter_of_value,
    plain_value,
    read_override,
)
from sweeps.search.space.parameter import COMPARISONS, Condition, Parameter
from sweeps.search.space.space import Space

__all__ = ["key_of", "parse_space", "split_overrides", "values_of"]

FixedValue = Callable[[str], Any]
OptionRanges = Callable[[str, str | None], Mapping[str, Any]]

_WORDS = {"values", "when", "repeat"}
_NAME = re.compile(r"(?P<key>[^\[\]@]+)(\[(?P<index>\d+)\])?(@(?P<option>.+))?")
_COMPARED = re.compile(r"\s*(!=|>=|<=|=|>|<)\s*(.*)", re.DOTALL)
_MAX_REPEATS = 100
_SAID_ELSEWHERE = (
    "Here it is study.num_trials (n_trials), launcher.slots (n_jobs), study.direction, study.name, study.storage and "
    "sampler=NAME."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Declared:
    """A parameter as declared: with all its conditions, before `repeat` is applied."""

    parameter: Parameter
    repeat: str | None = None


def split_overrides(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split the command line's overrides into plain ones and sweeps, each in the order typed.

    Raises:
        SpaceError: An override cannot be parsed.
    """
    plain: list[str] = []
    sweeps: list[str] = []
    for text in overrides:
        (sweeps if read_override(_split_off(text)[0]).is_sweep_override() else plain).append(text)
    return plain, sweeps


def key_of(override: str) -> str:
    """Return the key of an override, without `+` or `~`.

    Raises:
        SpaceError: It cannot be parsed.
    """
    return name_of(read_override(_split_off(override)[0]))


def values_of(override: str) -> list[Any]:
    """Return the possible values of an override: one, those of a choice, or none if it is another sweep.

    Raises:
        SpaceError: It cannot be parsed.
    """
    value = read_override(_split_off(override)[0]).value()
    values = value.list if isinstance(value, ChoiceSweep) else [] if isinstance(value, Sweep | Glob) else [value]
    return [plain_value(item) for item in values]


def parse_space(
    expressions: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    group_options: GroupOptions | None = None,
    *,
    fixed: FixedValue | None = None,
    option_ranges: OptionRanges | None = None,
    brings_options: bool = True,
) -> Space:
    """Build the search space.

    Args:
        expressions: The `search` node of the config: key to expression (`tag(log, interval(1e-4, 1e-1))`,
            `32,64,128`), list of choices, or constant. Mappings nest: `{optimizer: {lr: ...}}`; one with `values`
            declares a parameter and may have `when` and `repeat`. `forbid` lists combinations, and `groups` the
            config groups whose options declare their own ranges; `model._search_: true` is the same.
        overrides: The command line. A sweep wins over the expression of the same key; a plain override fixes its
            key, so that it is no longer searched.
        group_options: Returns the options of a config group, for `model=glob(*)`.
        fixed: Returns the value in the configuration of a key that is not searched, or raises KeyError; its arguments
            after the first are the existing keys.
        option_ranges: Returns the expressions that an option of a group declares for its own keys; the option is None
            if the group is not searched. Keys that the space or the command line names win over them.
        brings_options: Whether the options of a searched group declare their ranges by default.

    Raises:
        SpaceError: An expression or condition cannot be parsed or is invalid, or a key is repeated.
    """
    node = dict(expressions or {})
    pasted = _pasted(node.pop("hydra", None))
    forbidden = _clauses(node.pop("forbid", None))
    groups = _groups(node.pop("groups", None))
    found: dict[str, _Declared] = {}
    for name, value in (*_flatten(node), *_flatten(pasted)):
        if name.endswith(f".{RANGES}"):
            groups = _groups({name.removesuffix(f".{RANGES}"): value}) | groups
            continue
        declared = _declared(name, value, group_options)
        name = declared.parameter.name
        if name in found or (declared.repeat and f"{name}[0]" in found):
            raise SpaceError(f"{name}: the search names each key once, but it is there twice. Delete one.")
        found[name] = declared
    typed = _typed(overrides, group_options)
    for key, sweep in typed.items():
        if sweep is None or key not in found:
            found = {name: declared for name, declared in found.items() if declared.parameter.key != key}
        if sweep is not None:
            found[key] = sweep
    if option_ranges is not None:
        known = {*typed, *(declared.parameter.key for declared in found.values())}
        for group, options in _owners(found, groups, group_options, brings_options).items():
            for declared in _owned(group, options, option_ranges, group_options):
                if declared.parameter.key not in known:
                    found[declared.parameter.name] = declared
    parameters = [parameter for declared in found.values() for parameter in _repeated(declared, found, fixed)]
    return _resolve(parameters, forbidden, fixed)


# --- what is written -----------------------------------------------------------------------------------


def _flatten(expressions: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in expressions.items():
        if isinstance(value, Mapping) and not _WORDS & value.keys():
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _pasted(hydra: Any) -> Mapping[str, Any]:
    """Return the parameters of a block for Hydra's Optuna sweeper, `hydra.sweeper.params`."""
    given: dict[str, Any] = dict(hydra or {})
    sweeper: dict[str, Any] = dict(given.pop("sweeper", None) or {})
    params: Mapping[str, Any] = sweeper.pop("params", None) or {}
    for key in (*given, *(f"sweeper.{key}" for key in sweeper)):
        raise SpaceError(f"hydra.{key}: of Hydra's settings only hydra.sweeper.params is read. {_SAID_ELSEWHERE}")
    return params


def _declared(name: str, value: Any, group_options: GroupOptions | None) -> _Declared:
    match = _NAME.fullmatch(name)
    if match is None:
        raise SpaceError(f"{name}: the key cannot be read; a key is words joined by dots.")
    key, index, option = match["key"], match["index"], match["option"]
    if option is not None and "." not in key:
        key, option = f"{key}@{option}", None  # Hydra's own: the package of a group
    when: Any = None
    repeat: str | None = None
    if isinstance(value, Mapping):
        unknown = sorted(str(word) for word in value.keys() - _WORDS)
        if unknown:
            raise SpaceError(
                f"{name}.{unknown[0]}: a parameter has values, when and repeat. {did_you_mean(unknown[0], _WORDS)}"
            )
        if value.get("values") is None:
            raise SpaceError(f"{name}: there must be values to choose from, such as values: choice(32,64).")
        value, when, repeat = value["values"], value.get("when"), value.get("repeat")
        if repeat is not None and (not isinstance(repeat, str) or index is not None):
            raise SpaceError(f"{name}.repeat: it names the key that counts, such as model.depth, but got {repeat!r}.")
    if isinstance(value, str):
        value, text = _split_off(one_line(value))
        when = when if text is None else [when, text]
    parameter = parameter_of_value(key, value, group_options)
    parameter = replace(parameter, index=None if index is None else int(index), option=option)
    own = parameter.option_condition
    conditions = (*(() if own is None else (own,)), *_conditions(name, when))
    return _Declared(parameter=replace(parameter, when=tuple(dict.fromkeys(conditions))), repeat=repeat)


def _typed(overrides: Sequence[str], group_options: GroupOptions | None) -> dict[str, _Declared | None]:
    """Return each key of the command line with its parameter, or None if it is fixed."""
    texts: dict[str, str] = {}
    typed: dict[str, _Declared | None] = {}
    for text in overrides:
        head, when = _split_off(text)
        override = read_override(head)
        key, is_sweep = name_of(override), override.is_sweep_override()
        if key in typed and (is_sweep or typed[key] is not None):
            raise SpaceError(f"{key}: each key is searched once, but got both {texts[key]} and {text}. Delete one.")
        texts[key] = text
        typed[key] = None
        if is_sweep:
            parameter = parameter_of_override(override, head.partition("=")[2], group_options)
            typed[key] = _Declared(parameter=replace(parameter, when=_conditions(key, when)))
    return typed


def _split_off(text: str) -> tuple[str, str | None]:
    """Split `EXPRESSION when CONDITIONS` at a `when` that is not quoted."""
    position = masked(text).find(" when ")
    return (text, None) if position < 0 else (text[:position], text[position + len(" when ") :])


# --- what the options of groups state ------------------------------------------------------------------


def _groups(given: Any) -> dict[str, bool]:
    """Read `[optimizer, model]` or `{optimizer: true, model: false}`."""
    listed = [given] if isinstance(given, str) else given or []
    groups = dict(given) if isinstance(given, Mapping) else dict.fromkeys(listed, True)
    for group, is_wanted in groups.items():
        if not isinstance(is_wanted, bool):
            raise SpaceError(f"search.groups.{group} must be true or false, but got {is_wanted!r}.")
    return groups


def _owners(
    found: Mapping[str, _Declared],
    groups: Mapping[str, bool],
    group_options: GroupOptions | None,
    brings_options: bool,
) -> dict[str, Sequence[str | None]]:
    """Return the groups that declare ranges, each with its searched options, or None for the fixed one."""
    for group in groups:
        if group_options is not None and not group_options(group):
            raise SpaceError(f"search.groups: there is no config group {group!r}. Example: search.groups=[optimizer]")
    owners: dict[str, Sequence[str | None]] = {group: [None] for group, is_wanted in groups.items() if is_wanted}
    for name, declared in found.items():
        is_group = "." not in name and group_options is not None and bool(group_options(name))
        if is_group and groups.get(name, brings_options):
            owners[name] = [str(option) for option in declared.parameter.values or ()]
    return owners


def _owned(
    group: str, options: Sequence[str | None], option_ranges: OptionRanges, group_options: GroupOptions | None
) -> Iterator[_Declared]:
    for option in options:
        for key, value in _flatten(option_ranges(group, option)):
            name = f"{group}.{key}" if option is None else f"{group}.{key}@{option}"
            yield _declared(name, value, group_options)


# --- conditions ----------------------------------------------------------------------------------------


def _conditions(name: str, given: Any) -> tuple[Condition, ...]:
    """Read `optimizer=sgd and model.depth>2`, `{optimizer: sgd, model.depth: "> 2"}`, or a list of such."""
    if given is None:
        return ()
    if isinstance(given, str):
        return tuple(_condition_of_text(name, text) for text in _split_at(one_line(given), " and "))
    if isinstance(given, Mapping):
        return tuple(_condition(name, key, value) for key, value in _flatten(given))
    if isinstance(given, Iterable):
        return tuple(condition for item in given for condition in _conditions(name, item))
    raise SpaceError(f"{name}: a condition is KEY: VALUE, but got {given!r}. Example: when: {{optimizer: sgd}}")


def _split_at(text: str, word: str) -> Iterator[str]:
    start = 0
    for match in re.finditer(re.escape(word), masked(text)):
        yield text[start : match.start()].strip()
        start = match.end()
    yield text[start:].strip()


def _condition_of_text(name: str, text: str) -> Condition:
    match = re.search(r"!=|>=|<=|=|>|<", masked(text))
    if match is None or not match.start():
        raise SpaceError(f"{name}: a condition is KEY=VALUE, but got {text!r}. Example: when optimizer=sgd")
    return _condition(name, text[: match.start()].strip(), text[match.start() :])


def _condition(name: str, key: str, value: Any) -> Condition:
    """Read the condition on one key: a value, a list of allowed values, or `> 2`, `<= 0.5`, `!= none`."""
    operator = "="
    if isinstance(value, str):
        value = one_line(value)
        match = _COMPARED.fullmatch(value)
        operator, text = (match[1], match[2]) if match else ("=", value)
        read = read_override(f"{key.partition('[')[0]}={text}").value()
        if isinstance(read, Sweep) and not isinstance(read, ChoiceSweep):
            raise SpaceError(f"{name}: a condition on {key} lists values or compares with one, but got {text}.")
        values = [plain_value(item) for item in read.list] if isinstance(read, ChoiceSweep) else [plain_value(read)]
    elif isinstance(value, Sequence):
        values = [plain_value(item) for item in value]
    else:
        values = [value]
    is_number = all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in values)
    if not values or (operator in COMPARISONS and not (is_number and len(values) == 1)):
        raise SpaceError(f"{name}: a condition compares {key} with one number, but got {value!r}. Example: '> 2'")
    return Condition(key=key, operator=operator, values=tuple(values))


def _clauses(given: Any) -> list[tuple[Condition, ...]]:
    """Read `forbid`: `optimizer=sgd and model.depth=3 or seed=1`, or a list of mappings."""
    if given is None:
        return []
    if isinstance(given, str):
        return [_conditions("forbid", text) for text in _split_at(one_line(given), " or ")]
    if isinstance(given, Mapping):
        return [_conditions("forbid", given)]
    return [clause for item in given for clause in _clauses(item)]


# --- one parameter for each element --------------------------------------------------------------------


def _repeated(declared: _Declared, found: Mapping[str, _Declared], fixed: FixedValue | None) -> Iterator[Parameter]:
    """Return the parameter, or one for each element up to the largest value of the key in its `repeat`."""
    own, key = declared.parameter, declared.repeat
    if key is None:
        yield own
        return
    counts = [other.parameter for other in found.values() if other.parameter.key_path == key and other.repeat is None]
    counts = [count for count in counts if None in (own.option, count.option) or count.option == own.option]
    if counts:
        values = [value for count in counts for value in (count.values or [None])]
    else:
        values = [_fixed_value(own.name, key, set(), fixed)]
    if not all(isinstance(value, int) and 0 <= value <= _MAX_REPEATS for value in values):
        was = " or ".join(str(count.domain) for count in counts) or repr(values[0])
        raise SpaceError(f"{own.name}.repeat: {key} must be whole numbers from 0 to {_MAX_REPEATS}, but is {was}.")
    for index in range(max(values)):
        needed = (Condition(key=key, operator=">", values=(index,)),) if counts else ()
        yield replace(own, index=index, when=tuple(dict.fromkeys((*own.when, *needed))))


# --- what the configuration has fixed ------------------------------------------------------------------


def _resolve(
    parameters: Sequence[Parameter], forbidden: Sequence[tuple[Condition, ...]], fixed: FixedValue | None
) -> Space:
    """Drop conditions that a fixed value fulfils, and parameters and combinations that can never occur."""
    searched = {parameter.key_path for parameter in parameters}
    kept: dict[str, Parameter] = {}
    kept_key_paths: set[str] = set()
    for parameter in Space(parameters).parameters:
        remaining = _remaining(parameter.name, parameter.when, searched, kept_key_paths, fixed)
        if remaining is not None:
            is_option_open = parameter.option_condition in remaining
            option = parameter.option if is_option_open else None
            kept[parameter.name] = replace(parameter, when=remaining, option=option)
            kept_key_paths.add(parameter.key_path)
    clauses = []
    for clause in forbidden:
        remaining = _remaining("forbid", clause, searched, kept_key_paths, fixed)
        if remaining == ():
            texts = " and ".join(map(str, clause))
            raise SpaceError(f"forbid: {texts} holds in every trial, by what is fixed. Leave it out.")
        if remaining is not None:
            clauses.append(remaining)
    return Space((kept[name] for name in kept), clauses)


def _remaining(
    name: str,
    conditions: Sequence[Condition],
    searched: set[str],
    kept: set[str],
    fixed: FixedValue | None,
) -> tuple[Condition, ...] | None:
    """Return the conditions that depend on the trial; None if one of them never holds."""
    remaining = []
    for condition in conditions:
        if condition.key in kept:
            remaining.append(condition)
        elif condition.key in searched:
            return None  # what it names is never searched itself
        elif not condition.holds(_fixed_value(name, condition.key, searched, fixed)):
            return None
    return tuple(remaining)


def _fixed_value(name: str, key: str, searched: set[str], fixed: FixedValue | None) -> Any:
    group = key.partition(".")[0]
    if group in searched:
        raise SpaceError(
            f"{name}: its condition names {key}, which depends on the searched {group} and is not searched itself. "
            f"Search {key}, or make {group} the condition."
        )
    try:
        if fixed is None:
            raise KeyError(key)
        return fixed(key)
    except KeyError as error:
        near = did_you_mean(key, {*searched, *error.args[1:]})
        hint = near if near.startswith("Did") else did_you_mean(key, searched)  # all keys there are would be too many
        raise SpaceError(
            f"{name}: its condition names {key}, which is neither searched nor in the configuration. {hint}".strip()
        ) from None
