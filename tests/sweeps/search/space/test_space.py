"""The space: what it suggests, stores and writes as overrides."""

import itertools
import json
import math

import optuna
import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.config.quoting import quote
from sweeps.core.errors import SpaceError
from sweeps.search.space.declare import parse_space
from sweeps.search.space.space import Space

optuna.logging.set_verbosity(optuna.logging.WARNING)

plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.text(alphabet="\\'\"${}[](),:= \tab", max_size=8),
)
words = st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True)
anything = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3), max_leaves=6
)
numbers = st.one_of(st.integers(-1000, 1000), st.floats(-1000, 1000).map(lambda x: round(x, 3)))


@st.composite
def expressions(draw):
    kind = draw(st.sampled_from(["choice", "comma", "range", "interval", "log", "int", "whole_log"]))
    if kind in ("choice", "comma"):
        values = draw(st.lists(anything, min_size=2, max_size=4, unique_by=quote))
        text = ",".join(quote(value) for value in values)
        return f"choice({text})" if kind == "choice" else text
    if kind == "range":
        start, step = draw(numbers), draw(numbers.filter(bool))
        stop = start + step * draw(st.integers(1, 30))
        return f"range({start},{stop},{step})" if abs(step) > 1e-2 else "range(3)"
    low, high = sorted([draw(numbers), draw(numbers)])
    if kind in ("int", "whole_log"):  # a cast that would change an end is refused
        low, high = math.floor(low), math.floor(high)
    if kind == "interval":
        return f"interval({low},{high})"
    if kind == "int":
        return f"int(interval({low},{high}))"
    low, high = abs(low) + 1, abs(low) + abs(high) + 2
    return f"tag(log,interval({low},{high}))" if kind == "log" else f"tag(log,int(interval({low},{high})))"


spaces = st.lists(expressions(), min_size=1, max_size=4).map(
    lambda texts: parse_space({f"group.key{index}": text for index, text in enumerate(texts)})
)


def hydra_reads(override):
    return OverridesParser.create().parse_override(override).value()


def is_inside(parameter, value):
    if parameter.values is not None:
        return any(quote(value) == quote(choice) for choice in parameter.values)
    return isinstance(value, float) and parameter.domain.low <= value <= parameter.domain.high


@given(anything)
@settings(max_examples=400)
def test_hydra_reads_back_the_value_that_was_quoted(value):
    assert quote(hydra_reads(f"key={quote(value)}")) == quote(value)


@given(spaces, st.integers(0, 99))
def test_suggested_values_lie_inside_and_survive_hydra_and_optuna(space, seed):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    for trial in (study.ask(), study.ask(space.distributions)):
        values = space.suggest(trial)
        assert all(is_inside(parameter, values[parameter.key]) for parameter in space)
        read = {text.partition("=")[0]: hydra_reads(text) for text in space.overrides(values)}
        assert {key: quote(value) for key, value in read.items()} == {k: quote(v) for k, v in values.items()}
        again = space.decode(space.encode(values))
        assert {k: quote(v) for k, v in again.items()} == {k: quote(v) for k, v in values.items()}
        study.enqueue_trial(space.encode(values))
        assert space.decode(study.ask(space.distributions).params) == values


@given(spaces)
def test_a_stored_description_gives_the_same_space_back(space):
    again = parse_space(json.loads(json.dumps(space.describe())))
    assert again == space and again.distributions == space.distributions
    assert space.difference(again.describe()) == []


@given(expressions().filter(lambda text: "interval" not in text and "null" not in text))  # choice(null) is ours
def test_the_grid_is_hydras_own_enumeration(expression):
    theirs = OverridesParser.create().parse_override(f"key={expression}").sweep_iterator()
    grid = parse_space(overrides=[f"key={expression}"]).grid()["key"]
    assert [quote(value) for value in grid] == [quote(Override._convert_value(value)) for value in theirs]


def test_the_points_are_those_of_hydras_own_sweeper():
    overrides = [
        "a=1,2",
        "b=range(0,1,0.25)",
        "c=choice([64,64],[128])",
        "d=sort(y,x)",
        "e=float(range(5,1,-2))",
    ]
    parsed = OverridesParser.create().parse_overrides(overrides)
    [theirs] = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    space = parse_space(overrides=overrides)
    assert [space.overrides(point) for point in space.points()] == theirs


@given(st.integers(-50, 50), st.integers(1, 40), st.sampled_from([0.1, 0.3, 1 / 3, 0.007, 1e-5, 2.5, -0.1, -0.7]))
def test_optuna_reaches_every_step_of_a_float_range_and_no_other(start, count, step):
    space = parse_space({"x": f"range({start / 10},{start / 10 + step * (count - 0.5)},{step})"})
    distribution = space.distributions["x"]
    steps = round((distribution.high - distribution.low) / distribution.step)
    reached = [space["x"].decode(distribution.low + index * distribution.step) for index in range(steps + 1)]
    assert sorted(reached) == sorted(space.grid()["x"])


def test_a_grid_over_an_interval_names_the_parameter_and_a_way_out():
    with pytest.raises(SpaceError, match=r"^optimizer.lr=.*continuous.*Give a choice") as error:
        parse_space({"a": "1,2", "optimizer.lr": "tag(log,interval(1e-4,1e-1))"}).grid()
    example = str(error.value).partition("such as ")[2].partition(",or")[0].split(", or")[0]
    assert parse_space(overrides=[example]).size == 3


def test_whole_intervals_have_a_grid():
    assert parse_space({"depth": "int(interval(1,3))"}).grid() == {"depth": [1, 2, 3]}


@pytest.mark.parametrize(
    ("expressions", "size"), [({}, 1), ({"a": "1,2", "b": "range(5)"}, 10), ({"a": "interval(0,1)"}, None)]
)
def test_the_size_is_the_number_of_grid_points(expressions, size):
    assert parse_space(expressions).size == size


def test_points_vary_the_last_parameter_fastest():
    points = parse_space({"a": "1,2", "b": "x,y"}).points()
    assert list(points) == [dict(zip("ab", values, strict=True)) for values in itertools.product([1, 2], "xy")]


def test_values_that_python_takes_for_equal_stay_apart():
    space = parse_space({"key": "choice(1,true,1.0,'1')"})
    assert [type(space["key"].decode(space["key"].encode(v))) for v in (1, True, 1.0, "1")] == [
        int,
        bool,
        float,
        str,
    ]


def test_a_number_matches_its_choice_whatever_its_type():
    assert parse_space({"key": "choice(1,2)"}).encode({"key": 2.0}) == {"key": 2}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1,2", 3),
        ("interval(0,1)", 1.5),
        ("interval(0,1)", "a"),
        ("int(interval(1,8))", 2.5),
        ("range(0,1,0.1)", 0.15),
        ("interval(0,1)", math.nan),
    ],
)
def test_a_value_outside_is_refused_with_its_key(expression, value):
    with pytest.raises(SpaceError, match=r"^key: .* is not in "):
        parse_space({"key": expression}).encode({"key": value})


def test_an_unknown_key_is_named_with_the_nearest():
    with pytest.raises(SpaceError, match=r"Did you mean 'optimizer.lr'"):
        parse_space({"optimizer.lr": "1,2"}).encode({"optimizer.rl": 1})


def test_the_difference_has_a_line_for_each_parameter():
    now = parse_space({"lr": "interval(0,1)", "width": "1,2", "new": "1,2"})
    assert now.difference({"lr": "interval(0.0,2.0)", "width": "choice(1,2)", "old": "choice(a)"}) == [
        "lr: was interval(0.0,2.0), now interval(0.0,1.0)",
        "old: was choice(a), now not searched",
        "new: was not searched, now choice(1,2)",
    ]


def test_spelling_does_not_make_another_space():
    assert parse_space({"a": "1, 2", "b": "tag(int,interval(1,8))"}) == parse_space(
        {"a": [1, 2], "b": "int(interval(1,8))"}
    )


def test_a_space_refuses_the_same_key_twice():
    parameter = parse_space({"a": "1,2"})["a"]
    with pytest.raises(SpaceError, match="there twice"):
        Space([parameter, parameter])
