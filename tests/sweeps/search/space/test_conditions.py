"""Parameters that are searched under conditions."""

import optuna
import pytest

from sweeps.core.errors import SpaceError
from sweeps.search.space.declare import parse_space

SGD = {
    "optimizer": "choice(adam,sgd)",
    "optimizer.lr": "tag(log,interval(1e-4,1e-1))",
    "optimizer.momentum": {"values": "interval(0,0.99)", "when": {"optimizer": "sgd"}},
    "optimizer.nesterov": {"values": "true,false", "when": {"optimizer.momentum": "> 0.5"}},
}
CONFIG = {"model": "mlp", "model.depth": 3, "optimizer": "sgd"}


def suggested(space, count=40, seed=0):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [space.suggest(study.ask()) for _ in range(count)]


def test_a_parameter_whose_condition_does_not_hold_is_not_suggested():
    for values in suggested(parse_space(SGD)):
        assert ("optimizer.momentum" in values) == (values["optimizer"] == "sgd")
        assert ("optimizer.nesterov" in values) == (values.get("optimizer.momentum", 0) > 0.5)


@pytest.mark.parametrize(
    ("when", "text"),
    [
        ({"a": "x"}, "a=x"),
        ({"a": ["x", "y"]}, "a=x,y"),
        ({"a": "x,y"}, "a=x,y"),
        ({"a": "!= x"}, "a!=x"),
        ({"a": "!= x,y"}, "a!=x,y"),
        ({"b": "> 2"}, "b>2"),
        ({"b": ">=2"}, "b>=2"),
        ({"b": 2, "a": "x"}, "b=2 and a=x"),
        ({"c": {"d": True}}, "c.d=true"),
        ("a=x and b<=2", "a=x and b<=2"),
        (["b>1", "b<3"], "b>1 and b<3"),
        ("a='p and q'", "a='p and q'"),
        ({"a": "1"}, "a=1"),
        ({"a": ["'1'", None]}, "a='\\'1\\'',null"),
    ],
)
def test_a_condition_may_be_written_in_several_ways(when, text):
    others = {"a": "choice(x,y,'p and q',1,\"'1'\",null)", "b": "range(4)", "c.d": "true,false"}
    space = parse_space({**others, "key": {"values": "1,2", "when": when}})
    assert space.describe()["key"] == f"choice(1,2) when {text}"
    assert parse_space({**others, "key": f"1,2 when {text}"}) == space == parse_space(space.describe())
    assert parse_space(others, [f"key=1,2 when {text}"]) == space


def test_several_conditions_must_all_hold():
    when = {"a": "x", "b": "> 1"}
    for values in suggested(parse_space({"a": "x,y", "b": "range(4)", "c": {"values": "1,2", "when": when}})):
        assert ("c" in values) == (values["a"] == "x" and values["b"] > 1)


def test_a_condition_may_name_what_is_declared_after_it():
    space = parse_space({"b": {"values": "1,2", "when": {"a": "x"}}, "a": "x,y"})
    assert space.keys == ("a", "b")
    assert all(("b" in values) == (values["a"] == "x") for values in suggested(space))


def test_a_condition_on_a_fixed_value_is_settled_beforehand():
    space = {
        "model.width": {"values": "1,2", "when": {"model": "mlp"}},
        "model.channels": {"values": "1,2", "when": {"model": "cnn"}},
        "model.skip": {"values": "1,2", "when": {"model.channels": 1}},
        "model.dropout": {"values": "1,2", "when": {"model.depth": "> 2"}},
    }
    assert parse_space(space, fixed=CONFIG.__getitem__).describe() == {
        "model.width": "choice(1,2)",
        "model.dropout": "choice(1,2)",
    }


def test_a_plain_override_settles_the_conditions_on_its_key():
    space = parse_space(SGD, ["optimizer=sgd"], fixed=CONFIG.__getitem__)
    assert "optimizer" not in space
    assert space.describe()["optimizer.momentum"] == "interval(0.0,0.99)"


def test_a_sweep_on_the_command_line_loses_the_condition_of_the_file():
    space = parse_space(SGD, ["optimizer.momentum=0.5,0.9"])
    assert space.describe()["optimizer.momentum"] == "choice(0.5,0.9)"


@pytest.mark.parametrize(
    ("expressions", "words"),
    [
        ({"a": {"values": "1,2", "when": {"b": 1}}, "b": {"values": "1,2", "when": {"a": 1}}}, r"circle, a -> b -> a"),
        ({"a": {"values": "1,2", "when": {"a": 1}}}, r"^a: .*circle, a -> a"),
        ({"a": {"values": "1,2", "when": {"model.dpeth": 1}}}, r"^a: .*model.dpeth, which is neither searched nor in"),
        ({"optimizer": "sgd,adam", "a": {"values": "1,2", "when": {"optimizer.lr": 1}}}, r"searched optimizer"),
        ({"a": {"values": "1,2", "when": {"b": "> x"}}, "b": "1,2"}, r"^a: .*compares b with one number"),
        ({"a": {"values": "1,2", "when": {"b": "interval(0,1)"}}, "b": "1,2"}, r"^a: .*lists values or compares"),
        ({"a": {"values": "1,2", "when": 3}, "b": "1,2"}, r"^a: a condition is KEY: VALUE, but got 3"),
        ({"a": "1,2 when b"}, r"^a: a condition is KEY=VALUE, but got 'b'"),
        ({"a": {"values": "1,2", "whne": {"b": 1}}}, r"^a.whne: .*Did you mean 'when'"),
        ({"a": {"when": {"b": 1}}, "b": "1,2"}, r"^a: there must be values"),
    ],
)
def test_a_condition_that_makes_no_sense_is_refused_with_its_key(expressions, words):
    with pytest.raises(SpaceError, match=words):
        parse_space(expressions, fixed=CONFIG.__getitem__)


def test_a_parameter_that_is_never_active_is_refused():
    space = parse_space({"optimizer": "sgd,adam", "a": {"values": "1,2", "when": {"optimizer": "sgdd"}}})
    with pytest.raises(SpaceError, match=r"^a is never searched: no values satisfy optimizer=sgdd"):
        space.corners()


def test_the_corners_have_every_choice_and_end_within_valid_combinations():
    space = parse_space(SGD)
    corners = space.corners()
    assert corners[0] == {"optimizer": "adam", "optimizer.lr": 1e-4}
    for parameter in space:
        seen = [corner[parameter.key] for corner in corners if parameter.key in corner]
        assert set(parameter.ends) <= set(seen)
    assert all(("optimizer.momentum" in c) == (c["optimizer"] == "sgd") for c in corners)
    assert len(corners) == 5  # one corner may show several ends


def test_the_corners_satisfy_a_condition_that_holds_at_no_end():
    space = parse_space({"depth": "range(1,9)", "a": {"values": "1,2", "when": ["depth>3", "depth<5"]}})
    assert {corner["depth"] for corner in space.corners() if "a" in corner} == {4}


def test_the_grid_has_valid_combinations_only():
    space = parse_space({"a": "x,y", "b": {"values": "1,2,3", "when": {"a": "x"}}, "c": "0,1"})
    points = list(space.points())
    assert len(points) == space.size == 3 * 2 + 2
    assert {tuple(point) for point in points} == {("a", "b", "c"), ("a", "c")}


def test_values_are_enqueued_only_where_their_conditions_can_hold():
    space = parse_space(SGD)
    assert space.encode({"optimizer.momentum": 0.5}) == {"optimizer.momentum": 0.5}
    with pytest.raises(SpaceError, match=r"^optimizer.momentum is only searched when optimizer=sgd"):
        space.encode({"optimizer": "adam", "optimizer.momentum": 0.5})


def test_a_changed_condition_is_a_difference_and_readable():
    now = parse_space(SGD)
    before = parse_space({**SGD, "optimizer.momentum": "interval(0,0.99)"})
    assert now.difference(before.describe()) == [
        "optimizer.momentum: was interval(0.0,0.99), now interval(0.0,0.99) when optimizer=sgd"
    ]
