"""Random spaces with conditions, repeats, options and forbidden combinations: what holds for all of them."""

import json
import operator
from contextlib import contextmanager
from functools import cache
from itertools import islice

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from studies import shipped

from sweeps.config import Composer
from sweeps.errors import SpaceError, StudyError
from sweeps.space import parse_space, quote
from sweeps.study import Study, build_pruner, build_sampler, open_storage
from sweeps.study.proposing import propose

optuna.logging.set_verbosity(optuna.logging.WARNING)

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


@st.composite
def conditions(draw, expressions):
    """One condition as it is written: key, and what its value must be."""
    key = draw(st.sampled_from(sorted(expressions)))
    if expressions[key] in NUMBERS:
        value = draw(st.sampled_from([0.75, 1, 2, 3]))
        if NUMBERS[expressions[key]] is None:  # chance hits no single number
            return key, draw(st.sampled_from([f"> {value}", f"< {value}", f">= {value}", f"<= {value}"]))
        return key, draw(st.sampled_from([value, *(f"{sign} {value}" for sign in OPERATORS)]))
    values = WORDS[expressions[key]]
    return key, draw(st.lists(st.sampled_from(values), min_size=1, max_size=2, unique=True))


@st.composite
def declared_spaces(draw):
    """A `search` node, and the conditions under which each key is searched."""
    expressions, node, when = {}, {}, {}
    for index in range(draw(st.integers(2, 6))):
        key = f"model.key{index}"
        expression = draw(st.sampled_from([*NUMBERS, *WORDS]))
        node[key], when[key] = {"values": expression}, []
        if expressions and draw(st.booleans()):
            when[key] = draw(st.lists(conditions(expressions), min_size=1, max_size=2, unique_by=lambda pair: pair[0]))
            node[key]["when"] = dict(when[key])
        countable = [other for other, text in expressions.items() if text in COUNTS]
        if countable and draw(st.integers(0, 3)) == 0:
            node[key]["repeat"] = draw(st.sampled_from(countable))
            continue  # conditions are on numbers and words
        expressions[key] = expression
    forbidden = draw(st.lists(st.lists(conditions(expressions), min_size=1, max_size=2), max_size=2))
    forbid = [dict(clause) for clause in forbidden]
    shuffled = {key: node[key] for key in draw(st.permutations(list(node)))}
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


def require_valid(values, declared):
    """Assert, from what was drawn alone, that a trial has just what it should have."""
    node, when, forbid = declared
    for key, conditions_of_key in when.items():
        is_active = all(holds(values, *condition) for condition in conditions_of_key)
        count = node[key].get("repeat")
        items = [values[key]] if key in values else []
        if count is not None:
            items = values.get(key, [])
            assert len(items) == (values.get(count, 0) if is_active else 0)
        else:
            assert (key in values) == is_active
        for item in items:
            require_inside(item, node[key]["values"])
    assert not any(all(holds(values, *condition) for condition in clause.items()) for clause in forbid)


def require_inside(value, expression):
    allowed = {**NUMBERS, **WORDS}[expression]
    if allowed is not None:
        assert quote(value) in [quote(item) for item in allowed]
    else:
        assert isinstance(value, float) and 0 <= value <= 8


def space_of(declared):
    """Build the space; one of which a part can never be is refused, and says so."""
    try:
        space = parse_space(declared[0])
        space.corners()
    except SpaceError as error:
        assert "never searched" in str(error) or "Every combination is forbidden" in str(error)
        assume(False)
    return space


@contextmanager
def chance():
    """Set aside the spaces of which so little is allowed, a single number for instance, that chance misses it."""
    try:
        yield
    except StudyError as error:
        assert "random combinations are forbidden" in str(error)
        assume(False)


def proposed(study, space, seed):
    with chance():
        return space.decode(propose(study, space, seed).params)


@cache
def composer():
    return Composer("sweep", ["search=none"])


def as_text(values):
    return {key: quote(value) for key, value in values.items()}


@given(declared_spaces(), st.integers(0, 99))
@settings(deadline=None, max_examples=150)
def test_what_is_proposed_is_valid_composes_and_survives_optuna_and_hydra(declared, seed):
    space = space_of(declared)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    for _ in range(3):
        values = proposed(study, space, seed)
        require_valid(values, declared)
        assert as_text(space.decode(space.encode(values))) == as_text(values)
        read = OverridesParser.create().parse_overrides(space.overrides(values))
        assert {o.key_or_group: quote(o.value()) for o in read} == as_text(values)
        config = composer().trial(values, seed=0)
        assert as_text({key: config["model"][key.partition(".")[2]] for key in values}) == as_text(values)


@given(declared_spaces())
@settings(deadline=None, max_examples=150)
def test_every_corner_and_every_point_of_the_grid_is_valid(declared):
    space = space_of(declared)
    for corner in space.corners():
        require_valid(corner, declared)
    if all(parameter.values is not None for parameter in space):
        points = [json.dumps(space.encode(point)) for point in islice(space.points(), 300)]
        assert len(set(points)) == len(points)
        for point in islice(space.points(), 300):
            require_valid(point, declared)


@given(declared_spaces())
@settings(deadline=None, max_examples=150)
def test_every_choice_and_end_that_can_be_is_in_a_corner(declared):
    space = space_of(declared)
    corners = [space.encode(corner) for corner in space.corners()]
    for name, parameter in ((parameter.name, parameter) for parameter in space):
        for value in parameter.ends:
            stored = quote(parameter.encode(value))
            if not any(quote(corner.get(name)) == stored for corner in corners if name in corner):
                points = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
                seen = [space.encode(proposed(points, space, 0)) for _ in range(20)]
                assert not any(quote(point[name]) == stored for point in seen if name in point)


@given(declared_spaces())
@settings(deadline=None, max_examples=200)
def test_a_stored_description_gives_the_same_space_back(declared):
    space = space_of(declared)
    stored = json.loads(json.dumps(space.describe()))
    again = parse_space(stored)
    assert again == space and again.distributions == space.distributions
    assert space.difference(stored) == again.difference(space.describe()) == []


@given(declared_spaces(), st.sampled_from(["tpe", "random"]))
@settings(deadline=None, max_examples=12)
def test_a_study_that_is_stopped_goes_on_as_if_it_had_not_been(tmp_path_factory, declared, sampler):
    space = space_of(declared)

    def study(file):
        return Study.create_or_load(
            "study",
            open_storage(f"sqlite:///{file}"),
            space=parse_space(space.describe()),
            sampler=build_sampler(
                {**shipped("sampler", sampler), **({"n_startup_trials": 3} if sampler == "tpe" else {})}
            ),
            pruner=build_pruner(shipped("pruner", "none")),
            seed=1,
        )

    def run(opened, count):
        for _ in range(count):
            with chance():
                ask = opened.ask()
            require_valid(ask.values, declared)
            opened.tell(ask.number, "complete", float(ask.number % 3))
        return [as_text(space.decode(trial.params)) for trial in opened.optuna.trials]

    folder = tmp_path_factory.mktemp("studies")
    whole = run(study(folder / "whole.db"), 6)
    run(study(folder / "parts.db"), 3)
    assert run(study(folder / "parts.db"), 3) == whole
