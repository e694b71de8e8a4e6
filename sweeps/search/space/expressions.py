"""Read Hydra's sweep expressions as parameters, with Hydra's own parser.

`declare.py` decides which keys are searched, and when.
"""

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser, create_functions
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    IntervalSweep,
    Override,
    OverrideType,
    QuotedString,
    RangeSweep,
    Sweep,
)
from hydra.errors import HydraException

from sweeps.config.quoting import quote
from sweeps.config.text_keys import as_typed
from sweeps.core.errors import SpaceError, did_you_mean
from sweeps.search.space.parameter import Choices, Domain, Interval, Parameter, Steps

__all__ = [
    "GroupOptions",
    "masked",
    "name_of",
    "one_line",
    "parameter_of_override",
    "parameter_of_value",
    "plain_value",
    "read_override",
]

GroupOptions = Callable[[str], list[str]]

_EXAMPLES = {
    "choice": "choice(32,64,128)",
    "range": "range(1,5)",
    "interval": "interval(0.1,0.9)",
    "tag": "tag(log,interval(1e-4,1e-1))",
    "glob": "glob(*)",
    "shuffle": "shuffle(range(1,5))",
    "sort": "sort(3,1,2)",
    "int": "int(interval(1,8))",
    "float": "float(range(1,5))",
    "str": "str(choice(1,2))",
    "bool": "bool(choice(0,1))",
}
_TAGS = {"int", "log"}
_MAX_FLOAT_STEPS = 1_000_000
_MAX_WHOLE = 2**53  # samplers calculate in floats, which cannot represent odd numbers beyond


# --- from text to a domain ---------------------------------------------------------------------------


def parameter_of_value(key: str, value: Any, group_options: GroupOptions | None) -> Parameter:
    """Read a value of the `search` node: an expression, a list of choices or a constant."""
    if isinstance(value, str):
        expression = one_line(value)
        return parameter_of_override(read_override(f"{key}={expression}"), expression, group_options)
    values = [plain_value(item) for item in value] if isinstance(value, Sequence) else [value]
    override = read_override(f"{key}=null")  # only the key matters here
    expression = ",".join(map(_show, values))
    try:
        domain = _choices(values)
    except ValueError as exc:
        raise _error(key, expression, f"{exc}") from exc
    return Parameter(key=name_of(override), prefix=_prefix(override), expression=expression, domain=domain)


def parameter_of_override(override: Override, expression: str, group_options: GroupOptions | None) -> Parameter:
    """Read a parsed override, of which `expression` is the text after the `=`."""
    key = name_of(override)
    if override.type == OverrideType.DEL:
        raise SpaceError(f"~{key}={expression}: ~ deletes a key, so there is nothing to search. Leave out the ~.")
    try:
        value: Any = override.value()
        if isinstance(value, Glob):
            value = ChoiceSweep(list=_expand(key, value, group_options))
        domain = _domain(value)
    except (ValueError, OverflowError) as exc:
        raise _error(key, expression, str(exc)) from exc
    return Parameter(key=key, prefix=_prefix(override), expression=expression.strip(), domain=domain)


def one_line(text: str) -> str:
    """Join an expression of several lines, without comments, into one line for Hydra's grammar."""
    for comment in reversed([*re.finditer(r"(?<!\S)#[^\n]*", masked(text))]):
        text = text[: comment.start()] + text[comment.end() :]
    return re.sub(r"\r?\n", " ", text).strip() or text


def _domain(value: Any) -> Domain:
    if not isinstance(value, Sweep):
        return _choices([plain_value(value)])
    unknown = sorted(value.tags - _TAGS)
    if unknown:
        raise ValueError(f"there is no tag '{unknown[0]}'. {did_you_mean(unknown[0], _TAGS)}")
    if isinstance(value, IntervalSweep):
        return _interval(value)
    if value.tags:
        kind = "choice" if isinstance(value, ChoiceSweep) else "range"
        raise ValueError(
            f"the tag '{min(value.tags)}' belongs to an interval, but got a {kind}; for whole numbers on a "
            f"log scale take tag(log,int(interval(1,1000)))"
        )
    if isinstance(value, RangeSweep):
        return _steps(value)
    assert isinstance(value, ChoiceSweep)
    return _choices([plain_value(item) for item in value.list])


def _choices(values: list[Any]) -> Choices:
    try:
        domain = Choices.of(values)
    except TypeError as exc:
        raise ValueError(str(exc)) from exc
    for value in values:
        if not _survives(value):
            raise ValueError(f"Hydra's grammar cannot write the value {value!r}; its dict keys must be plain words")
    return domain


def _interval(sweep: IntervalSweep) -> Interval:
    assert sweep.start is not None and sweep.end is not None
    low, high = sweep.start, sweep.end
    is_whole = isinstance(low, int) or "int" in sweep.tags
    log = "log" in sweep.tags
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"the ends of an interval must be finite, but got {quote(low)} and {quote(high)}")
    if low > high:
        raise ValueError(f"an interval goes from low to high, but {quote(low)} > {quote(high)}; swap the two")
    if is_whole and (low != int(low) or high != int(high)):
        raise ValueError(f"the ends of an int interval must be whole, but got {quote(low)} and {quote(high)}")
    if log and low <= 0:
        raise ValueError(
            f"a log scale needs low > 0, but low is {quote(low)}; take a small positive number such as 1e-6, "
            f"or leave out the tag log"
        )
    if not math.isfinite(float(high) - float(low)):
        raise ValueError(f"the interval is too wide for a float: {quote(low)} to {quote(high)}")
    if is_whole:
        _require_countable(low, high)
        return Interval(low=int(low), high=int(high), log=log, is_whole=True)
    return Interval(low=float(low), high=float(high), log=log)


def _steps(sweep: RangeSweep) -> Steps:
    start, stop, step = sweep.start, sweep.stop, sweep.step
    assert start is not None and stop is not None
    if not all(math.isfinite(number) for number in (start, stop, step)):
        raise ValueError("start, stop and step of a range must be finite")
    if step == 0:
        raise ValueError("the step of a range must not be 0")
    if (stop - start) * step <= 0:
        way_out = "swap start and stop, or take a step of the other sign" if stop != start else "raise stop by a step"
        raise ValueError(f"the range is empty: stop is excluded, and {quote(step)} leads away from it; {way_out}")
    if all(isinstance(number, int) for number in (start, stop, step)):
        _require_countable(start, stop, step)
        whole = range(int(start), int(stop), int(step))
        return Steps(start=start, stop=stop, step=step, values=whole)
    if (stop - start) / step > _MAX_FLOAT_STEPS:
        raise ValueError(f"a range has at most {_MAX_FLOAT_STEPS:,} steps; take an interval instead")
    return Steps(start=float(start), stop=float(stop), step=float(step), values=tuple(sweep.range()))


def _require_countable(*numbers: float) -> None:
    for number in numbers:
        if abs(number) > _MAX_WHOLE:
            raise ValueError(f"whole numbers go up to 2**53 on either side of 0, but got {quote(number)}")


def _expand(key: str, glob: Glob, group_options: GroupOptions | None) -> list[Any]:
    if group_options is None:
        raise ValueError("glob chooses among a group's options, which are not known here; name them: choice(a,b)")
    options = group_options(key)
    wrong = [pattern for pattern in (*glob.include, *glob.exclude) if not isinstance(pattern, str)]
    if wrong:
        raise ValueError(f"glob takes patterns for names of options, which are text, but got {_show(wrong[0])}")
    found = glob.filter(options)
    if not found:
        has = f"its options are {', '.join(options)}" if options else f"there is no config group '{key}'"
        raise ValueError(f"no option of the group matches glob({','.join(glob.include)}); {has}")
    return list(found)


def plain_value(value: Any) -> Any:
    """Convert a value of the parser or of OmegaConf to plain Python: no quoted strings, no ListConfig."""
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, Mapping):
        return {plain_value(key): plain_value(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain_value(item) for item in value]
    return value


def _survives(value: Any) -> bool:
    if value is None or isinstance(value, (bool, int, float)):
        return True
    text = quote(value)
    if isinstance(value, str) and text == value:
        return True
    try:
        return quote(plain_value(_parser().parse_rule(f"key={text}", "override").value())) == text
    except HydraException:
        return False


# --- Hydra's parser and its errors in plain words ------------------------------------------------------


@cache
def _parser() -> OverridesParser:
    functions = create_functions()
    functions.functions["choice"] = _choice
    functions.definitions["choice"] = inspect.signature(_choice)
    for name in ("int", "float", "bool"):
        functions.functions[name] = _exact(functions.functions[name])
    return OverridesParser(functions=functions)


def _choice(*args: Any) -> ChoiceSweep:
    """Like Hydra's `choice`, but accepts null, as in `a,null`."""
    if not args:
        raise ValueError("a choice needs at least one value")
    if len(args) == 1 and isinstance(args[0], ChoiceSweep) and args[0].simple_form:
        return ChoiceSweep(list=args[0].list)
    if any(isinstance(arg, Sweep) for arg in args):
        raise ValueError("a choice holds plain values, no other sweep")
    return ChoiceSweep(list=list(args))


def _exact(cast: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap one of Hydra's casts so that it raises instead of changing a number of a sweep, such as 0.5 to 0."""

    def checked(*args: Any, **named: Any) -> Any:
        result = cast(*args, **named)
        if isinstance(result, Sweep):
            given = [*args, *named.values()]
            before = _numbers(given[0] if len(given) == 1 else ChoiceSweep(list=given))
            for number, found in zip(before, _numbers(result), strict=True):
                is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
                if is_number and number != found and not math.isnan(number):
                    raise ValueError(f"{quote(number)} would become {quote(found)}; write the value that is meant")
        return result

    return checked


def _numbers(value: Any) -> list[Any]:
    """Return the values of a sweep that a cast applies to, in order."""
    match value:
        case IntervalSweep():
            return [value.start, value.end]
        case RangeSweep():
            return [value.start, value.stop, value.step]
        case ChoiceSweep():
            return _numbers(value.list)
        case dict():
            return _numbers(list(value.values()))
        case list():
            return [number for item in value for number in _numbers(item)]
        case _:
            return [value]


def read_override(text: str) -> Override:
    """Parse an override with Hydra's grammar.

    Raises:
        SpaceError: It cannot be parsed; the message says why in plain words.
    """
    key, equals, expression = text.partition("=")
    if not equals and not text.startswith("~"):
        raise SpaceError(f"{text}: an override is KEY=VALUE, but there is no '='. Example: optimizer.lr=0.1")
    try:
        override = _parser().parse_rule(as_typed(text), "override")
    except HydraException as exc:
        raise _error(key.strip(), expression, _explain(expression, exc)) from exc
    assert isinstance(override, Override)
    return override


def name_of(override: Override) -> str:
    """Return the key, or the config group with its package."""
    return override.key_or_group if override.package is None else f"{override.key_or_group}@{override.package}"


def _prefix(override: Override) -> str:
    return {OverrideType.ADD: "+", OverrideType.FORCE_ADD: "++"}.get(override.type, "")


def _error(key: str, expression: str, what: str) -> SpaceError:
    called = [name for name in re.findall(r"(?<![A-Za-z_])([A-Za-z_]+)\s*\(", expression) if name in _EXAMPLES]
    near = re.search(r"Did you mean '(\w+)'", what)
    word = near.group(1) if near and near.group(1) in _EXAMPLES else (called or ["choice"])[0]
    if "tag 'log'" in what or "no tag" in what:
        word = "tag"
    end = "" if what.endswith((".", "?")) else "."
    return SpaceError(f"{key}={expression}: {what}{end} Example: {key}={_EXAMPLES[word]}")


def _explain(expression: str, exc: BaseException) -> str:
    function = ""
    while True:
        outer = re.match(r"\w+ while evaluating '(\w+)\(", str(exc))
        if outer is None or exc.__cause__ is None:
            break
        function, exc = outer.group(1), exc.__cause__
    message = str(exc).split("\n", 1)[0].strip()
    for pattern, words in _WORDS:
        match = re.search(pattern, message)
        if match:
            return words(function, match)
    if function:  # the function itself raised, with a message for users
        return f"{function}: {message}" if message else f"{function} cannot take these values"
    return _explain_syntax(expression, exc)


def _unknown_function(_: str, match: "re.Match[str]") -> str:
    return f"there is no function '{match.group(1)}'. {did_you_mean(match.group(1), _EXAMPLES)}"


def _wrong_type(function: str, match: "re.Match[str]") -> str:
    name, got, wanted = match.groups()
    if function == "tag":
        return "tag takes words and then an interval"
    kinds = {
        "str": "text",
        "int": "a number",
        "float": "a number",
        "NoneType": "null",
        "bool": "true or false",
    }
    is_number = "int" in wanted and "str" not in wanted
    want = "a number" if is_number else ("text" if wanted == "str" else "a value of another kind")
    return f"'{name}' of {function} must be {want}, not {kinds.get(got, got.removesuffix('Sweep').lower())}"


def _missing(function: str, match: "re.Match[str]") -> str:
    return f"{function} needs a value for '{match.group(1)}'"


_WORDS: list[tuple[str, Callable[[str, "re.Match[str]"], str]]] = [
    (r"Unknown function '(.*?)'", _unknown_function),
    (r"mismatch type argument (\S+?): (\S+) is incompatible with (.+)", _wrong_type),
    (r"missing a required argument: '(\w+)'", _missing),
    (r"too many positional arguments", lambda function, _: f"{function} takes fewer values"),
    (r"unexpected keyword argument '(\w+)'", lambda f, m: f"{f} has no argument '{m.group(1)}'"),
    (r"multiple values for argument '(\w+)'", lambda f, m: f"{f} gets '{m.group(1)}' twice"),
    (r"'<' not supported", lambda function, _: f"{function} cannot compare values of different kinds"),
    (r"Last argument to tag", lambda *_: "tag needs an interval as its last argument"),
    (r"could not convert string to float: (.*)", lambda f, m: f"{f}: {m.group(1)} is not a number"),
    (r"invalid literal for int\(\).*: (.*)", lambda f, m: f"{f}: {m.group(1)} is not a whole number"),
    (r"all whitespaces", lambda *_: "there is no value, only blanks"),
]


def masked(text: str) -> str:
    """Replace quoted and escaped characters by underscores, keeping the length."""
    text = re.sub(r"\\.", "__", text, flags=re.DOTALL)
    return re.sub(r"'[^']*'|\"[^\"]*\"", lambda match: "_" * len(match.group()), text)


def _explain_syntax(expression: str, exc: BaseException) -> str:
    text = masked(expression)
    for mark in "'\"":
        if mark in text:
            return f"the quote {mark} at position {text.index(mark) + 1} is not closed"
    open_ = []
    for position, char in enumerate(text, start=1):
        if char in "([{":
            open_.append((char, position))
        elif char in ")]}":
            if not open_ or open_[-1][0] + char not in ("()", "[]", "{}"):
                return f"the bracket {char} at position {position} has no partner before it"
            open_.pop()
    if open_:
        return f"the bracket {open_[-1][0]} at position {open_[-1][1]} is not closed"
    if re.search(r",\s*(,|$|[)\]}])|[(\[{]\s*,|^\s*,", text):
        return "there is a comma without a value beside it"
    if expression and not _is_readable(f"key={expression}"):
        return _explain_token(exc)
    return "the key cannot be read; a key is words joined by dots"


def _is_readable(text: str) -> bool:
    try:
        _parser().parse_rule(text, "override")
    except HydraException:
        return False
    return True


def _explain_token(exc: BaseException) -> str:
    token = getattr(exc.__cause__, "offendingToken", None)
    near = getattr(token, "text", None) or ""
    if near and near != "<EOF>":
        return f"it cannot be read at {near!r}; put text with special characters in quotes"
    return "it cannot be read; put text with blanks, commas or brackets in quotes"


def _show(value: Any) -> str:
    try:
        return quote(value)
    except TypeError:
        return repr(value)
