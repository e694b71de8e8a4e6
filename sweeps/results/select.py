"""Select the rows that `lightsweep compare` shows: conditions (`--where`) and orders.

    condition   = either {"or" either}
    either      = both {"and" both}
    both        = "not" both | "(" condition ")" | comparison
    comparison  = NAME ("=" | "==" | "!=" | "<" | "<=" | ">" | ">=" | "like" | "contains") VALUE
                | NAME ["not"] "in" "[" VALUE {"," VALUE} "]"

A name is `params.KEY`, `metrics.KEY`, a field, or anything else that `rows.resolve` knows; odd names need backticks. A
value is a number, a text in quotes, true, false or null. A missing value passes no comparison except `= null`.
Conditions are evaluated here; of their parts, the database gets only the bounds of metrics, so that it returns fewer
rows.
"""

import json
import math
import operator
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from sweeps.core.errors import UsageError
from sweeps.results.queries import Bound, chosen_rows, top_rows
from sweeps.results.rows import LATE_FIELDS, Field, TrialRow, require_metric, resolve, resolve_all, sorted_rows

__all__ = ["Selection", "Where", "parse_where", "selected_rows"]

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>[+-]?(?:\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|inf\b))(?![\w.])
    | (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    | (?P<sign><=|>=|==|!=|<>|[=<>(),\[\]])
    | (?P<name>(?:`[^`]+`|[A-Za-z_])(?:[\w./@+-]|`[^`]+`)*)
    )""",
    re.VERBOSE,
)
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "!=": operator.ne,
}
_SAME = {"==": "=", "<>": "!="}
_WORDS = {"true": True, "false": False, "null": None, "none": None}
_RESERVED = {"and", "or", "not", "in", "like", "contains", *_WORDS}
_KINDS = {bool: "true or false", int: "numbers", float: "numbers"}
_MAX_DEPTH = 50
_MOST_DIGITS = 18  # of a whole number
_SIGNS = "= != < <= > >= in like contains"

_Holds = Callable[[TrialRow, Mapping[str, Field]], bool]
_LARGEST_BOUND = 1e300  # beyond it, stored numbers stand for infinity


@dataclass(frozen=True, slots=True)
class _Test:
    """Whether a condition holds for a row, and bounds of metrics without which it does not."""

    holds: _Holds
    bounds: tuple[Bound, ...] = ()


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """A parsed condition.

    Attributes:
        text: As it was given.
        names: The names in it.
        bounds: Bounds of metrics without which it does not hold.
    """

    text: str
    names: tuple[str, ...]
    bounds: tuple[Bound, ...]
    _holds: _Holds
    _literals: tuple[tuple[str, Any, int], ...]

    def keep(self, rows: Collection[TrialRow]) -> list[TrialRow]:
        """Return the rows that it holds for, in their order.

        Raises:
            UsageError: No row has one of the names, or what it names is never of the kind that it is compared with.
        """
        fields = resolve_all(self.names, rows)
        for name, literal, start in self._literals:
            kinds = set()
            for row in rows:
                value = _plain(fields[name].of(row))
                if literal is None or (value is not None and _kind(value) == _kind(literal)):
                    break
                kinds |= set() if value is None else {_kind(value)}
            else:
                if kinds:
                    _fail(self.text, start, f"{name} holds {' and '.join(sorted(kinds))}, never {_kind(literal)}")
        return [row for row in rows if self._holds(row, fields)]


def parse_where(text: str) -> Where:
    """Parse a condition.

    Raises:
        UsageError: It does not parse; points at the place.
    """
    return _Parser(text).parse()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_tokens(text))
        self._at = 0
        self._depth = 0
        self._names: list[str] = []
        self._literals: list[tuple[str, Any, int]] = []

    def parse(self) -> Where:
        test = self._condition()
        if self._token.kind != "end":
            self._wrong("`and`, `or` or the end")
        names = tuple(dict.fromkeys(self._names))
        return Where(
            text=self._text, names=names, bounds=test.bounds, _holds=test.holds, _literals=tuple(self._literals)
        )

    @property
    def _token(self) -> _Token:
        return self._tokens[self._at]

    def _takes(self, *texts: str) -> bool:
        token = self._token
        is_taken = token.kind in ("sign", "name") and token.text.lower() in texts
        self._at += is_taken
        return is_taken

    def _wrong(self, expected: str) -> NoReturn:
        token = self._token
        _fail(self._text, token.start, f"expected {expected}, but got {token.text or 'the end'}")

    def _condition(self) -> _Test:
        tests = [self._either()]
        while self._takes("or"):
            tests.append(self._either())
        if len(tests) == 1:
            return tests[0]
        return _Test(lambda row, fields: any(test.holds(row, fields) for test in tests))

    def _either(self) -> _Test:
        tests = [self._both()]
        while self._takes("and"):
            tests.append(self._both())
        if len(tests) == 1:
            return tests[0]
        first, *others = tests  # most rows fail the first
        return _Test(
            lambda row, fields: first.holds(row, fields) and all(test.holds(row, fields) for test in others),
            tuple(bound for test in tests for bound in test.bounds),
        )

    def _both(self) -> _Test:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            _fail(self._text, self._token.start, f"at most {_MAX_DEPTH} levels of `not` and parentheses")
        if self._takes("not"):
            test = _negated(self._both())
        elif self._takes("("):
            test = self._condition()
            if not self._takes(")"):
                self._wrong("`)`")
        else:
            test = self._comparison()
        self._depth -= 1
        return test

    def _comparison(self) -> _Test:
        token = self._token
        if token.kind != "name" or token.text.lower() in _RESERVED:
            self._wrong("a name such as params.KEY, metrics.KEY or state")
        self._at += 1
        name = token.text.replace("`", "")
        self._names.append(name)
        is_negated = self._takes("not")
        if self._takes("in"):
            values = self._list(name)
            if is_negated:
                return _Test(
                    lambda row, fields: (value := _value(row, fields, name)) is not None and value not in values
                )
            return _Test(lambda row, fields: _value(row, fields, name) in values)
        if is_negated:
            self._wrong("`in`")
        if self._takes("like"):
            pattern = _pattern(self._word())
            return _Test(lambda row, fields: pattern.fullmatch(_text(row, fields, name)) is not None)
        if self._takes("contains"):
            part = self._word()
            return _Test(lambda row, fields: part in _text(row, fields, name))
        sign = _SAME.get(self._token.text, self._token.text)
        if self._token.kind != "sign" or sign not in _ORDER:
            self._wrong(f"a comparison ({_SIGNS}), or backticks around a name with blanks")
        self._at += 1
        start = self._token.start
        literal = self._literal(name)
        if literal is None and sign not in ("=", "!="):
            _fail(self._text, start, "null is compared by = and != only")
        if literal is None:
            return _Test(lambda row, fields: (_value(row, fields, name) is None) == (sign == "="))
        compare, kind = _ORDER[sign], _kind(literal)

        def test(row: TrialRow, fields: Mapping[str, Field]) -> bool:
            value = _value(row, fields, name)
            if value is None:
                return False
            return compare(value, literal) if _kind(value) == kind else sign == "!="

        head, _, metric = name.partition(".")
        is_bound = head == "metrics" and sign in ("<", "<=", ">", ">=") and kind == "numbers"
        return _Test(test, (Bound(metric, sign, literal),) if is_bound and abs(literal) < _LARGEST_BOUND else ())

    def _list(self, name: str) -> Sequence[Any]:
        if not self._takes("["):
            self._wrong("`[`")
        values = [self._literal(name)]
        while self._takes(","):
            values.append(self._literal(name))
        if not self._takes("]"):
            self._wrong("`,` or `]`")
        return values

    def _word(self) -> str:
        if self._token.kind != "text":
            self._wrong("a text in quotes")
        self._at += 1
        return _unquoted(self._tokens[self._at - 1].text)

    def _literal(self, name: str) -> Any:
        token = self._token
        value: Any
        if token.kind == "number":
            is_whole = len(token.text) <= _MOST_DIGITS and not re.search(r"[.eEf]", token.text)
            value = int(token.text) if is_whole else float(token.text)
        elif token.kind == "text":
            value = _unquoted(token.text)
        elif token.kind == "name" and token.text.lower() in _WORDS:
            value = _WORDS[token.text.lower()]
        else:
            hint = f": a text needs quotes, '{token.text}'" if token.kind == "name" else ""
            _fail(self._text, token.start, f"expected a value, but got {token.text or 'the end'}{hint}")
        self._literals.append((name, value, token.start))
        self._at += 1
        return value


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while text[at:].strip():
        found = _TOKEN.match(text, at)
        if found is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            what = "a text that does not end" if text[at] in "'\"`" else f"{text[at]!r}, which means nothing here"
            _fail(text, at, f"found {what}")
        kind = str(found.lastgroup)
        yield _Token(kind, found[kind], found.start(kind))
        at = found.end()
    yield _Token("end", "", len(text))


def _fail(text: str, at: int, problem: str) -> NoReturn:
    line = " ".join(text.splitlines()) if "\n" in text else text
    raise UsageError(f"--where: {problem}, at character {at + 1}:\n  {line}\n  {' ' * at}^")


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1])


def _pattern(text: str) -> re.Pattern[str]:
    """Return what SQL's LIKE means: % for any text, _ for any character."""
    parts = {"%": ".*", "_": "."}
    return re.compile("".join(parts.get(letter) or re.escape(letter) for letter in text), re.DOTALL)


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), "texts")


def _plain(value: Any) -> Any:
    """Return lists and mappings as their text."""
    return json.dumps(value) if type(value) in (list, dict) else value


def _value(row: TrialRow, fields: Mapping[str, Field], name: str) -> Any:
    return _plain(fields[name].of(row))


def _text(row: TrialRow, fields: Mapping[str, Field], name: str) -> str:
    value = _value(row, fields, name)
    return "" if value is None else str(value)


def _negated(test: _Test) -> _Test:
    return _Test(lambda row, fields: not test.holds(row, fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What is asked for.

    Attributes:
        where: Only the rows that it holds for.
        is_front: Only the Pareto fronts of studies of several objectives.
        metric: What to judge by rather than the metrics of the studies.
        sort: A name to sort by rather than by a metric.
        is_descending: Whether the highest is first; None is best first, and lowest first with `sort`.
        top: Only so many.
    """

    where: Where | None = None
    is_front: bool = False
    metric: str | None = None
    sort: str | None = None
    is_descending: bool | None = None
    top: int | None = None

    def pick(self, rows: list[TrialRow]) -> list[TrialRow]:
        """Filter and sort.

        Raises:
            UsageError: No row has a name that was given, or no study has a front.
        """
        return self.order(self.narrow(rows))

    def narrow(self, rows: list[TrialRow]) -> list[TrialRow]:
        """Filter, and sort by a name if one is given: all of `pick` that needs no values of the rows.

        Raises:
            UsageError: No row has a name that was given, or no study has a front.
        """
        if self.metric is not None:
            require_metric(rows, self.metric)
        by = None if self.sort is None else resolve(self.sort, rows)
        kept = rows if self.where is None else self.where.keep(rows)
        if self.is_front:
            if rows and all(len(row.objectives) < 2 for row in rows):
                raise UsageError("--pareto is for studies of several objectives, and these have one each.")
            kept = [row for row in kept if row.is_on_front]
        if by is None:
            return kept
        return _by_value([(by.of(row), row) for row in kept], bool(self.is_descending))[: self.top]

    def order(self, kept: list[TrialRow]) -> list[TrialRow]:
        """Sort by value what `narrow` has kept, unless it is sorted by a name."""
        if self.sort is not None:
            return kept
        is_known = any(self.metric in (row.metric, *row.metrics) for row in kept)
        return sorted_rows(kept, self.metric if is_known else None, self.is_descending)[: self.top]


def _by_value(found: Sequence[tuple[Any, TrialRow]], is_descending: bool) -> list[TrialRow]:
    """Sort numbers, then texts; those that have neither come last either way."""

    def is_number(value: Any) -> bool:
        return isinstance(value, int | float) and not math.isnan(value)

    numbers = [pair for pair in found if is_number(pair[0])]
    rest = [pair for pair in found if not is_number(pair[0])]
    texts = [(str(value), row) for value, row in rest if value is not None and not isinstance(value, float)]
    none = [row for value, row in rest if value is None or isinstance(value, float)]
    parts = [sorted(part, key=lambda pair: pair[0], reverse=is_descending) for part in (numbers, texts)]
    return [row for part in parts for _, row in part] + none


def selected_rows(
    uri: str, studies: Sequence[str], selection: Selection, only: Collection[str] | None = None
) -> list[TrialRow]:
    """Read the rows that are asked for from a store.

    Args:
        uri: The store.
        studies: Names of studies; none for all, and every `train`.
        selection: What is asked for.
        only: Names beside which nothing but the values of the rows is looked at; None for rows in full.

    Raises:
        StoreError: The store cannot be opened, or it is not one of MLflow's.
        StudyError: There is no such study; names the nearest.
        UsageError: No row has a name that was given; names the nearest.
    """
    if only is None and selection.where is None and selection.sort is None and not selection.is_front:
        return top_rows(uri, studies, selection.top, selection.metric, selection.is_descending)
    names = [*(selection.where.names if selection.where else ()), *([selection.sort] if selection.sort else [])]
    names += only or ()
    if selection.metric is not None:
        names.append(f"metrics.{selection.metric}")
    if selection.is_front:
        names.append("is_on_front")

    def choose(rows: list[TrialRow]) -> list[TrialRow]:
        chosen = selection.order(rows)
        for name in only or ():
            resolve(name, chosen, LATE_FIELDS)
        return chosen

    bounds = selection.where.bounds if selection.where else ()
    return chosen_rows(uri, studies, choose, names=names, narrow=selection.narrow, bounds=bounds, in_full=only is None)
