"""Random spaces as a user declares them, and what each trial of them must be, without any code of the platform."""

import operator

from hypothesis import assume
from hypothesis import strategies as st

from sweeps.config.quoting import quote
from sweeps.core.errors import SpaceError
from sweeps.search.space.declare import parse_space

OPERATORS = {">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le, "!=": operator.ne}
NUMBERS = {
    "range(0,4)": range(4),
    "choice(1,2,5)": (1, 2, 5),
    "int(interval(1,3))": (1, 2, 3),
    "interval(0,4)": None,
    "tag(log,interval(0.5,8))": None,
    "range(0,2,0.5)": (0.0, 0.5, 1.0, 1.5),
}
WORDS = {
    "choice(a,b,'c d')": ("a", "b", "c d"),
    "'x and y=1',' when '": ("x and y=1", " when "),
    "true,null": (True, None),
}
COUNTS = {"range(0,4)", "choice(1,2,5)", "int(interval(1,3))"}
OPTIMIZERS = {"choice(adam,sgd)": ("adam", "sgd")}


@st.composite
def conditions(draw, expressions):
    """One condition as it is written: key, and what its value must be."""
    key = draw(st.sampled_from(sorted(expressions)))
    if expressions[key] in NUMBERS:
        value = draw(st.sampled_from([0.75, 1, 2, 3]))
        if NUMBERS[expressions[key]] is None:  # chance hits no single number
            return key, draw(st.sampled_from([f"> {value}", f"< {value}", f">= {value}", f"<= {value}"]))
        return key, draw(st.sampled_from([value, *(f"{sign} {value}" for sign in OPERATORS)]))
    values = {**WORDS, **OPTIMIZERS}[expressions[key]]
    return key, draw(st.lists(st.sampled_from(values), min_size=1, max_size=2, unique=True))


@st.composite
def declared_spaces(draw):
    """A `search` node, the conditions under which each of its names is searched, and what is forbidden."""
    expressions, node, when = {}, {}, {}

    def declare(name, expression):
        node[name], when[name] = {"values": expression}, []
        if expressions and draw(st.booleans()):
            when[name] = draw(st.lists(conditions(expressions), min_size=1, max_size=2, unique_by=lambda pair: pair[0]))
            node[name]["when"] = dict(when[name])

    for index in range(draw(st.integers(2, 6))):
        key, expression = f"model.key{index}", draw(st.sampled_from([*NUMBERS, *WORDS]))
        declare(key, expression)
        countable = [other for other, text in expressions.items() if text in COUNTS]
        if countable and draw(st.integers(0, 3)) == 0:
            node[key]["repeat"] = draw(st.sampled_from(countable))
            continue  # conditions are on numbers and words
        expressions[key] = expression
    if draw(st.booleans()):
        declare("optimizer", "choice(adam,sgd)")
        expressions["optimizer"] = "choice(adam,sgd)"
        for index in range(draw(st.integers(1, 2))):
            kind = draw(st.sampled_from([NUMBERS, WORDS]))
            options = draw(st.lists(st.sampled_from(["adam", "sgd"]), min_size=1, unique=True))
            drawn = {option: draw(st.sampled_from(list(kind))) for option in options}
            for option, expression in drawn.items():
                declare(f"optimizer.key{index}@{option}", expression)
            expressions[f"optimizer.key{index}"] = expression
    forbidden = draw(st.lists(st.lists(conditions(expressions), min_size=1, max_size=2), max_size=2))
    forbid = [dict(clause) for clause in forbidden]
    shuffled = {name: node[name] for name in draw(st.permutations(list(node)))}
    return {**shuffled, "forbid": forbid}, when, forbid


def holds(values, key, wanted):
    if key not in values:
        return False
    value = values[key]
    if isinstance(wanted, list):
        return any(value is item or (isinstance(value, str) and value == item) for item in wanted)
    if isinstance(wanted, str):
        sign, number = wanted.split()
        return OPERATORS[sign](value, float(number))
    return value == wanted


def active_names(values, declared):
    """Name what is to be searched in a trial with these values: of each key its name, with its option if it has one."""
    node, when, _ = declared
    names = {}
    for name, conditions_of_name in when.items():
        key, _, option = name.partition("@")
        is_active = not option or values.get("optimizer") == option
        is_active = is_active and all(holds(values, *condition) for condition in conditions_of_name)
        count = node[name].get("repeat")
        if is_active and (count is None or values.get(count, 0)):
            assert key not in names
            names[key] = name
    return names


def is_forbidden(values, declared):
    return any(all(holds(values, *condition) for condition in clause.items()) for clause in declared[2])


def require_valid(values, declared):
    """Assert, from what was drawn alone, that a trial has just what it should have."""
    node = declared[0]
    names = active_names(values, declared)
    assert names.keys() == values.keys()
    for key, name in names.items():
        count = node[name].get("repeat")
        assert count is None or len(values[key]) == values[count]
        for item in [values[key]] if count is None else values[key]:
            assert is_inside(item, node[name]["values"])
    assert not is_forbidden(values, declared)


def is_inside(value, expression):
    allowed = {**NUMBERS, **WORDS, **OPTIMIZERS}[expression]
    if allowed is not None:
        return quote(value) in [quote(item) for item in allowed]
    low, high = (0, 4) if expression == "interval(0,4)" else (0.5, 8)
    return isinstance(value, float) and low <= value <= high


def space_of(declared):
    """Build the space; one of which a part can never be is refused, and says so."""
    try:
        space = parse_space(declared[0])
        space.corners()
    except SpaceError as error:
        assert "never searched" in str(error) or "Every combination is forbidden" in str(error)
        assume(False)
    return space


def as_text(values):
    return {key: quote(value) for key, value in values.items()}
