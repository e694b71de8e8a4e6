"""Which trials fit another space: for chosen cases, and for random spaces against a model of the rule."""

import optuna
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from spaces import NUMBERS, active_names, as_text, declared_spaces, is_forbidden, is_inside, space_of

from sweeps.core.errors import StudyError
from sweeps.search.samplers import propose
from sweeps.search.space import compatibility
from sweeps.search.space.declare import parse_space

optuna.logging.set_verbosity(optuna.logging.WARNING)

WIDER = {
    "range(0,4)": "range(0,6)",
    "choice(1,2,5)": "choice(5,2,7,1)",
    "int(interval(1,3))": "int(interval(0,9))",
    "interval(0,4)": "interval(-1,5)",
    "tag(log,interval(0.5,8))": "interval(0.25,8)",
    "range(0,2,0.5)": "range(-0.5,3,0.25)",
    "choice(a,b,'c d')": "choice('c d',e,b,a)",
    "'x and y=1',' when '": "' when ',z,'x and y=1'",
    "true,null": "null,1,true",
    "choice(adam,sgd)": "choice(sgd,rmsprop,adam)",
}
NARROWER = {
    "range(0,4)": ("range(1,3)", lambda value: 1 <= value < 3),
    "choice(1,2,5)": ("choice(5,1)", lambda value: value != 2),
    "int(interval(1,3))": ("int(interval(1,2))", lambda value: value < 3),
    "interval(0,4)": ("interval(1,3)", lambda value: 1 <= value <= 3),
    "tag(log,interval(0.5,8))": ("tag(log,interval(1,8))", lambda value: value >= 1),
    "range(0,2,0.5)": ("range(0,1.5,0.5)", lambda value: value < 1.5),
    "choice(a,b,'c d')": ("choice('c d',a)", lambda value: value != "b"),
    "'x and y=1',' when '": ("choice(' when ')", lambda value: value == " when "),
    "true,null": ("choice(true)", lambda value: value is True),
    "choice(adam,sgd)": ("choice(adam,sgd)", lambda value: True),
}


def nothing(key):
    raise KeyError(key)


def look(*layers):
    """Look a key up in the first layer that has it."""
    return {key: value for layer in reversed(layers) for key, value in layer.items()}.__getitem__


def fit(space, searched, recorded=None, now=None):
    composed = look(now or {}) if now is not None else nothing
    return compatibility.fit(
        space, searched, recorded=look(recorded) if recorded is not None else nothing, composed=lambda _: composed
    )


SGD = {"optimizer": "choice(adam,sgd)", "optimizer.momentum@sgd": "interval(0,0.9)", "model.depth": "range(1,4)"}
LISTS = {"model.depth": "range(1,4)", "model.width": {"values": "8,16", "repeat": "model.depth"}}


@pytest.mark.parametrize(
    ("expressions", "searched", "recorded", "now", "params"),
    [
        ({"x": "choice(1,2)"}, {"x": 1.0}, None, None, {"x": 1}),
        ({"x": "interval(0,4)"}, {"x": 1}, None, None, {"x": 1.0}),
        ({"x": "interval(0,4)"}, {}, {"x": 1}, None, {"x": 1.0}),
        ({"x": "choice([8],[8,16])"}, {"x": [8, 16]}, None, None, {"x": "[8,16]"}),
        ({"x": "1,2"}, {"x": 2, "y": 3}, None, {"y": 3.0}, {"x": 2}),
        ({"x": "1,2"}, {"x": 2, "y": [8, 16.0]}, None, {"y": [8.0, 16]}, {"x": 2}),
        (SGD, {"model.depth": 1}, {"optimizer": "adam"}, None, {"optimizer": "adam", "model.depth": 1}),
        (
            SGD,
            {"model.depth": 1, "optimizer.momentum": 0.5},
            {"optimizer": "sgd"},
            None,
            {"optimizer": "sgd", "optimizer.momentum@sgd": 0.5, "model.depth": 1},
        ),
        (  # searched under other conditions, it has now what the configuration says
            SGD,
            {"optimizer": "adam", "model.depth": 1, "optimizer.momentum": 0.5},
            None,
            {"optimizer.momentum": 0.5},
            {"optimizer": "adam", "model.depth": 1},
        ),
        (LISTS, {"model.width": [8, 16]}, {"model.depth": 2}, None, {"model.depth": 2} | {
            "model.width[0]": 8, "model.width[1]": 16}),
        (LISTS, {"model.depth": 1}, {"model.width": [16]}, None, {"model.depth": 1, "model.width[0]": 16}),
        ({"model.width": "choice([8,16],[8])"}, {"model.width": [8, 16]}, None, None, {"model.width": "[8,16]"}),
    ],
)  # fmt: skip
def test_what_fits_is_encoded_anew(expressions, searched, recorded, now, params):
    found = fit(parse_space(expressions), searched, recorded, now)
    assert (found.incompatible, found.params) == ("", params)
    assert list(map(type, found.params.values())) == list(map(type, params.values()))


@pytest.mark.parametrize(
    ("expressions", "searched", "recorded", "now", "reason"),
    [
        ({"x": "range(1,4)"}, {"x": 4}, None, None, "x=4 is not in range(1,4)"),
        ({"x": "choice(1,2)"}, {"x": True}, None, None, "x=true is not in choice(1,2)"),
        ({"x": "choice(1,2)"}, {"x": "1"}, None, None, "x='1' is not in choice(1,2)"),
        ({"x": "1,2"}, {}, None, None, "its x was not searched, and is not known"),
        (SGD, {"model.depth": 1}, {}, None, "its optimizer was not searched, and is not known"),
        ({"x": "1,2"}, {"x": 1, "y": 3}, None, {"y": 4}, "y=3, but now it is not searched and 4"),
        ({"x": "1,2"}, {"x": 1, "y": 3}, None, {}, "y=3 was searched, but there is no such key any more"),
        (
            SGD,
            {"optimizer": "adam", "model.depth": 1, "optimizer.momentum": 0.5},
            None,
            {},
            "optimizer.momentum=0.5 was searched, but there is no such key any more",
        ),
        (LISTS, {"model.depth": 1, "model.width": [8, 16]}, None, None, "model.width=[8,16] has 2 elements, but 1 are"),
        (LISTS, {"model.depth": 3, "model.width": [8, 16]}, None, None, "model.width=[8,16] has no element [2], which"),
        (LISTS, {"model.depth": 3}, {"model.width": 8}, None, "model.width=8 has no element [0], which is searched"),
        (
            {"x": "1,2", "y": "1,2", "forbid": {"x": 1, "y": 2}},
            {"x": 1, "y": 2},
            None,
            None,
            "x=1 and y=2 is forbidden",
        ),
    ],
)
def test_what_does_not_fit_says_why(expressions, searched, recorded, now, reason):
    found = fit(parse_space(expressions), searched, recorded, now)
    assert found.incompatible.startswith(reason) and found.params == {}


def test_what_is_queued_may_leave_values_open():
    space = parse_space({**SGD, "forbid": {"optimizer": "sgd", "model.depth": 1}})

    def found(given, now=None):
        return compatibility.fit_queued(space, given, composed=lambda _: look(now or {}))

    assert found({"optimizer.momentum": 0.5}).params == {"optimizer.momentum@sgd": 0.5}
    assert found({"model.depth": 9}).incompatible == "model.depth: 9 is not in range(1,4)"
    assert found({"optimizer": "sgd", "model.depth": 1}).incompatible.endswith("is forbidden in this study")
    assert found({"seed": 1}, {"seed": 1}).params == {}
    assert found({"seed": 1}, {"seed": 2}).incompatible == "seed=1, but now it is not searched and 2"


# --- random spaces -------------------------------------------------------------------------------------


def proposals(space, seed, count=4):
    """Let chance propose trials; a space of which it finds nothing is set aside."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    try:
        return [dict(propose(study, space, seed).params) for _ in range(count)]
    except StudyError:
        assume(False)


def with_domains(declared, replace):
    """Declare the same space with other sets of values."""
    node, when, forbid = declared
    changed = {name: {**entry, "values": replace(entry["values"])} for name, entry in node.items() if name != "forbid"}
    return {**changed, "forbid": forbid}, when, forbid


@given(declared_spaces(), st.integers(0, 99))
def test_into_the_same_space_a_trial_is_what_it_was(declared, seed):
    space = space_of(declared)
    again = parse_space(space.describe())
    for params in proposals(space, seed):
        found = fit(again, space.decode(params))
        assert found.incompatible == "" and as_text(found.params) == as_text(params)


@given(declared_spaces(), st.integers(0, 99))
def test_into_a_wider_space_every_trial_fits_with_its_values(declared, seed):
    space = space_of(declared)
    wider = space_of(with_domains(declared, WIDER.__getitem__))
    for params in proposals(space, seed):
        values = space.decode(params)
        found = fit(wider, values)
        assert found.incompatible == ""
        assert wider.decode(found.params) == values
        for name, stored in found.params.items():
            distribution = wider.distributions[name]
            assert distribution._contains(distribution.to_internal_repr(stored))


@given(declared_spaces(), st.integers(0, 99))
def test_into_a_narrower_space_just_those_fit_that_lie_inside(declared, seed):
    space = space_of(declared)
    node = declared[0]
    narrower = space_of(with_domains(declared, lambda expression: NARROWER[expression][0]))
    for params in proposals(space, seed):
        values = space.decode(params)
        names = active_names(values, declared)
        items = [
            (node[name]["values"], item)
            for key, name in names.items()
            for item in (values[key] if node[name].get("repeat") else [values[key]])
        ]
        is_within = all(NARROWER[expression][1](item) for expression, item in items)
        found = fit(narrower, values)
        assert (found.incompatible == "") == is_within
        assert not is_within or narrower.decode(found.params) == values


@given(declared_spaces(), st.integers(0, 99))
def test_into_a_space_that_forbids_more_just_those_fit_that_it_allows(declared, seed):
    stricter = space_of(declared)
    space = parse_space({**declared[0], "forbid": []})
    for params in proposals(space, seed):
        values = space.decode(params)
        assert (fit(stricter, values).incompatible == "") == (not is_forbidden(values, declared))


VALUES = st.sampled_from([0, 1, 2, 3, 0.5, 1.0, "a", "c d", " when ", None, True])


@st.composite
def configurations(draw):
    """What a configuration says of all keys that a random space may search; some are missing."""
    keys = [*(f"model.key{index}" for index in range(6)), "optimizer.key0", "optimizer.key1"]
    found = draw(st.dictionaries(st.sampled_from(keys), VALUES | st.lists(VALUES, max_size=3)))
    return found | draw(st.just({}) | st.sampled_from([{"optimizer": "adam"}, {"optimizer": "sgd"}]))


@given(declared_spaces(), declared_spaces(), configurations(), configurations(), st.integers(0, 9), st.booleans())
def test_into_any_space_just_those_fit_that_it_could_have_proposed(before, after, recorded, now, seed, is_changed):
    space, other = space_of(before), space_of(after)
    for params in proposals(space, seed, count=2):
        searched = space.decode(params)
        was = {**recorded, **searched}
        now = now if is_changed else was
        found = fit(other, searched, recorded, now)
        assert (found.incompatible == "") == could_propose(after, searched, was, now)
        if not found.incompatible:
            values = other.decode(found.params)
            assert all(is_equal(value, was[key]) for key, value in values.items())


def could_propose(declared, searched, was, now):
    """Tell, from what was drawn alone, whether a trial is one of the space."""
    node, when, _ = declared
    values = {}
    for name in when:  # each after those that its conditions name
        key = name.partition("@")[0]
        if active_names(values, ({**node}, {name: when[name]}, [])) != {key: name}:
            continue
        if key not in was:
            return False
        value, count = was[key], node[name].get("repeat")
        items = [value]
        if count is not None:
            if not isinstance(value, list) or len(value) != values[count]:
                return False
            items = value
        if not all(is_element(item, node[name]["values"]) for item in items):
            return False
        values[key] = value
    gone = {key: value for key, value in searched.items() if key not in values}
    is_same = all(key in now and is_equal(value, now[key]) for key, value in gone.items())
    return is_same and not is_forbidden(values, declared)


def is_element(value, expression):
    """Tell whether a value is one of the expression's; of numbers, whatever their type."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number != (expression in NUMBERS) or isinstance(value, list):
        return False
    allowed = NUMBERS.get(expression)
    if allowed is not None:
        return value in allowed
    return is_inside(float(value) if is_number else value, expression)


def is_equal(left, right):
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(is_equal, left, right))
    return left == right and isinstance(left, bool) == isinstance(right, bool)
