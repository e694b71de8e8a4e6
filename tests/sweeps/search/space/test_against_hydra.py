"""Random override expressions, right and wrong: ours has the keys, kinds and values that Hydra's own parser reads."""

import math
import re
import string

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, OverrideType, RangeSweep
from hydra.errors import HydraException
from hypothesis import assume, given
from hypothesis import strategies as st

from sweeps.config.quoting import quote
from sweeps.core.errors import SpaceError
from sweeps.search.space.declare import parse_space, split_overrides
from sweeps.search.space.parameter import Choices, Interval, Steps

HYDRA = OverridesParser.create()
OPTIONS = ["sgd", "adam", "adamw", "rmsprop"]

# --- expressions ---------------------------------------------------------------------------------------

integers = st.one_of(st.integers(-20, 20).map(str), st.sampled_from(["1_000", "+3", "-0", "007", "00"]))
floats = st.one_of(
    st.sampled_from(
        [".5", "1.", "1e-3", "1E3", "-2.5e-4", "1_0.5", "-.25", "+1e2", "0.0", "inf", "-inf", "nan", "1e400"]
    ),
    st.floats(-100, 100, allow_nan=False).map(repr),
)
numbers = integers | floats
words = st.one_of(
    st.text(string.ascii_letters + string.digits + "_-./%*@?|+$", min_size=1, max_size=6),
    st.sampled_from(
        ["sgd", "a b", "  a", "a:b", "${model.depth}", "true", "False", "NULL", "null", "none", "x\\,y", "é"]
    ),
)
quoted = st.builds(
    lambda text, mark: mark + text.replace("\\", "\\\\").replace(mark, "\\" + mark) + mark,
    st.text("ab ,=()[]{}:'\"\\1.é", max_size=6),
    st.sampled_from("'\""),
)
primitives = st.one_of(numbers, words, quoted)


def joined(elements, **sizes):
    return st.lists(elements, **sizes).map(",".join)


nested = st.recursive(
    primitives,
    lambda inner: st.one_of(
        joined(inner, max_size=3).map("[{}]".format),
        st.dictionaries(words, inner, max_size=2).map(
            lambda pairs: "{" + ",".join(f"{key}:{value}" for key, value in pairs.items()) + "}"
        ),
    ),
    max_leaves=4,
)
blanks = st.sampled_from(["", "", "", " "])
spaced = st.builds("{}{}{}".format, blanks, nested, blanks)
choices = joined(spaced, min_size=1, max_size=4).map("choice({})".format)
lists = joined(spaced, min_size=2, max_size=4)
ranges = st.one_of(
    joined(numbers, min_size=1, max_size=3).map("range({})".format),
    st.builds("range(start={},stop={},step={})".format, numbers, numbers, numbers),
    st.builds("range({},step={})".format, numbers, numbers),
)
intervals = st.one_of(
    joined(numbers, min_size=2, max_size=2).map("interval({})".format),
    st.builds("interval(start={},end={})".format, numbers, numbers),
)
globs = st.one_of(
    st.sampled_from(["glob(*)", "glob(a*)", "glob([s*,r*])", "glob(*,exclude=sgd)", "glob(include=*,exclude=[a*])"]),
    st.builds("glob({})".format, spaced),
)
simple = st.one_of(choices, ranges, intervals, nested)
functions = st.recursive(
    simple,
    lambda inner: st.one_of(
        st.builds(
            "{}({})".format, st.sampled_from(["int", "float", "str", "bool", "shuffle", "sort", "choice"]), inner
        ),
        st.builds("tag({},{})".format, st.sampled_from(["log", "int", "'log'", "log,int", "lgo"]), inner),
        st.builds("tag({})".format, inner),
        st.builds("sort({},reverse=true)".format, inner),
        st.builds("{}({})".format, st.sampled_from(["sort", "shuffle", "int", "str"]), lists),
    ),
    max_leaves=3,
)
expressions = st.one_of(functions, functions, lists, globs)


@st.composite
def broken(draw):
    """An expression with one character more, less or another."""
    text = draw(expressions)
    place = draw(st.integers(0, len(text)))
    return (
        text[:place] + draw(st.sampled_from(["", *"()[]{},:='\" \\$@~.1a"])) + text[place + draw(st.integers(0, 1)) :]
    )


keys = st.sampled_from(
    [
        "lr",
        "optimizer.lr",
        "a/b",
        "optimizer@model.inner",
        "db@:pkg",
        "+a.b",
        "++lr",
        "~lr",
        "a.0",
        "a-b",
        "_x",
        "a:b",
        "$x",
    ]
)


# --- what both say -------------------------------------------------------------------------------------


def hydras(text):
    """Return what Hydra reads; None if it refuses."""
    try:
        return HYDRA.parse_override(text)
    except HydraException as refusal:
        assume("]: NoneType is incompatible" not in str(refusal))  # choice(null), which we take as `a,null`
        return None


def ours(text):
    """Return the parameter that we read, None for a value that is no sweep, or the refusal."""
    try:
        space = parse_space(overrides=[text], group_options=lambda group: OPTIONS)
    except SpaceError as refusal:
        return refusal
    return next(iter(space), None)


def texts(values):
    return [quote(value) for value in values]


def plain(value):
    """Return a parsed value without the marks of quotes."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    return getattr(value, "text", value)


def is_refused_by_rule(override):
    """Tell whether what Hydra reads makes no sense as a set of values to search."""
    value = override.value()
    if override.type == OverrideType.DEL:
        return True
    if isinstance(value, Glob):
        are_texts = all(isinstance(pattern, str) for pattern in (*value.include, *value.exclude))
        return not are_texts or not value.filter(OPTIONS)
    if isinstance(value, ChoiceSweep):
        found = texts(map(plain, value.list))
        return bool(value.tags) or len(set(found)) < len(found) or not found
    if isinstance(value, RangeSweep):
        bounds = (value.start, value.stop, value.step)
        if value.tags or not all(map(math.isfinite, bounds)) or (value.stop - value.start) * value.step <= 0:
            return True
        is_whole = all(isinstance(bound, int) and abs(bound) <= 2**53 for bound in bounds)
        return not is_whole and (value.stop - value.start) / value.step > 1e6
    assert isinstance(value, IntervalSweep)
    low, high = value.start, value.end
    if not (math.isfinite(low) and math.isfinite(high)) or low > high or value.tags - {"log", "int"}:
        return True
    is_whole = isinstance(low, int) or "int" in value.tags
    return ("log" in value.tags and low <= 0) or (is_whole and (low != int(low) or high != int(high)))


def require_same(parameter, override):
    """Assert that a parameter is what Hydra read."""
    value, domain = override.value(), parameter.domain
    package = f"@{override.package}" if override.package else ""
    assert parameter.key == override.key_or_group + package
    if isinstance(value, Glob):
        assert domain == Choices.of(value.filter(OPTIONS))
    elif isinstance(value, ChoiceSweep):
        assert isinstance(domain, Choices)
        assert texts(domain.values) == texts(map(plain, value.list))
    elif isinstance(value, RangeSweep):
        assert isinstance(domain, Steps)
        assert texts(domain.values) == texts(value.range())
    else:
        assert isinstance(domain, Interval)
        assert (domain.low, domain.high) == (value.start, value.end)
        assert domain.log == ("log" in value.tags)
        assert domain.is_whole == (isinstance(value.start, int) or "int" in value.tags)


def check(text):
    override, found = hydras(text), ours(text)
    if override is None:
        assert isinstance(found, SpaceError), found
    elif isinstance(found, SpaceError) and "would become" in str(found):  # Hydra lets casts change numbers
        assert re.search(r"(int|bool|float)\(", text), found
    elif override.is_sweep_override():
        assert split_overrides([text]) == ([], [text])
        if is_refused_by_rule(override):
            assert isinstance(found, SpaceError), found
        else:
            assert not isinstance(found, SpaceError), found
            require_same(found, override)
    else:
        assert split_overrides([text]) == ([text], []) and found is None


@given(expressions)
def test_an_expression_means_the_same_in_a_file_and_a_constant_is_its_only_value(expression):
    text = f"lr={expression.strip()}"  # in a file, blanks and line breaks around it mean nothing
    override, typed = hydras(text), ours(text)
    try:
        (found,) = parse_space({"lr": expression}, group_options=lambda group: OPTIONS)
    except SpaceError as refusal:
        assert override is None or isinstance(typed, SpaceError), refusal
        return
    assert override is not None
    if override.is_sweep_override():
        assert type(found.domain) is type(typed.domain) and str(found.domain) == str(typed.domain)
    else:
        assert texts(found.domain.values) == [quote(plain(override.value()))]


@given(keys, expressions)
def test_an_expression_means_what_it_means_to_hydra(key, expression):
    check(f"{key}={expression}")


@given(keys, broken())
def test_what_hydra_refuses_is_refused_in_one_line(key, expression):
    check(f"{key}={expression}")
    found = ours(f"{key}={expression}")
    if isinstance(found, SpaceError):
        assert "\n" not in str(found)
