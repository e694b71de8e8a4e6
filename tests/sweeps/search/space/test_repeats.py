"""One parameter for each element of a list, and combinations that are forbidden."""

import optuna
import pytest

from sweeps.core.errors import SpaceError
from sweeps.search.space.declare import parse_space

WIDTHS = {"model.depth": "range(0,4)", "model.width": {"values": "choice(32,64)", "repeat": "model.depth"}}


def suggested(space, count=40, seed=0):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [space.suggest(study.ask()) for _ in range(count)]


def test_a_repeated_parameter_gives_as_many_values_as_are_counted():
    for values in suggested(parse_space(WIDTHS)):
        assert len(values.get("model.width", [])) == values["model.depth"]


def test_each_element_is_a_parameter_of_its_own_in_optuna():
    space = parse_space(WIDTHS)
    assert list(space.distributions) == ["model.depth", "model.width[0]", "model.width[1]", "model.width[2]"]
    assert space.describe()["model.width[1]"] == "choice(32,64) when model.depth>1"
    assert parse_space(space.describe()) == space
    values = {"model.depth": 2, "model.width": [64, 32]}
    assert space.encode(values) == {"model.depth": 2, "model.width[0]": 64, "model.width[1]": 32}
    assert space.decode(space.encode(values)) == values
    assert space.overrides(values) == ["model.depth=2", "model.width=[64,32]"]


def test_elements_may_be_declared_one_by_one():
    space = parse_space({"depth": "1,2", "width[0]": "8,16", "width[1]": {"values": "1,2", "when": {"depth": 2}}})
    assert {len(values["width"]) for values in suggested(space)} == {1, 2}


def test_a_condition_may_name_an_element():
    space = parse_space({**WIDTHS, "drop": {"values": "0,1", "when": {"model.width[0]": 64}}})
    for values in suggested(space):
        assert ("drop" in values) == (values.get("model.width", [32])[0] == 64)


def test_a_fixed_number_repeats_without_conditions():
    space = parse_space(WIDTHS, ["model.depth=2"], fixed={"model.depth": 2}.__getitem__)
    assert space.describe() == {"model.width[0]": "choice(32,64)", "model.width[1]": "choice(32,64)"}


def test_a_repeat_has_conditions_of_its_own_too():
    space = parse_space({**WIDTHS, "model": "a,b", "model.width": {**WIDTHS["model.width"], "when": {"model": "a"}}})
    assert all("model.width" not in values for values in suggested(space) if values["model"] == "b")


def test_a_condition_that_the_repeat_brings_too_is_there_once():
    space = parse_space({**WIDTHS, "model.width": {**WIDTHS["model.width"], "when": {"model.depth": "> 1"}}})
    assert space.describe()["model.width[1]"] == "choice(32,64) when model.depth>1"
    assert parse_space(space.describe()) == space


def test_the_corners_have_the_shortest_and_longest_list_and_the_grid_all():
    space = parse_space(WIDTHS)
    assert {corner["model.depth"] for corner in space.corners()} == {0, 3}
    assert len(list(space.points())) == space.size == 1 + 2 + 4 + 8


@pytest.mark.parametrize(
    ("expressions", "words"),
    [
        ({**WIDTHS, "model.depth": "a,b"}, r"^model.width.repeat: model.depth must be whole numbers from 0"),
        ({**WIDTHS, "model.depth": "interval(0,1)"}, r"^model.width.repeat: model.depth must be whole numbers"),
        ({"a": {"values": "1,2", "repeat": 3}}, r"^a.repeat: it names the key that counts"),
        ({"a": {"values": "1,2", "repeat": "no.such"}}, r"^a: .*no.such, which is neither searched nor"),
        ({"a[1]": "1,2"}, r"^a: elements are searched from \[0\] on"),
        ({"a": "1,2", "a[0]": "1,2"}, r"^a: elements are searched from"),
        ({"depth": "1,2", "a[0]": {"values": "1,2", "when": {"depth": 2}}, "a[1]": "1,2"}, r"^a: an element is only"),
        ({"a": "1,2", "forbid": [{"a": 1}, {"a": 2}]}, r"Every combination is forbidden by a=1 or a=2"),
        ({"a": "1,2", "b": {"values": "1,2", "when": {"a": 1}}, "forbid": {"a": 1}}, r"^b is never searched: .*a=1"),
        ({"a": "1,2", "forbid": {"no.such": 1}}, r"^forbid: .*no.such, which is neither"),
        ({"a": "1,2", "forbid": {"fix": 1}}, r"^forbid: fix=1 holds in every trial"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_key(expressions, words):
    with pytest.raises(SpaceError, match=words):
        parse_space(expressions, fixed={"fix": 1}.__getitem__).corners()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model.depth": 1, "model.width": [32, 64]}, r"^model.width\[1\] is only searched when model.depth>1"),
        ({"model.width": [32] * 5}, r"^model.width\[3\] is not searched"),
        ({"model.width": 32}, r"^model.width: each element is searched, so its value is a list"),
        ({"model.width": [3]}, r"^model.width\[0\]: 3 is not in"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(values, words):
    with pytest.raises(SpaceError, match=words):
        parse_space(WIDTHS).encode(values)


FORBID = {
    "opt": "sgd,adam",
    "depth": "range(1,4)",
    "forbid": [{"opt": "sgd", "depth": 3}, {"opt": "adam", "depth": "< 2"}],
}


def test_what_is_forbidden_is_in_no_grid_and_no_corner():
    space = parse_space(FORBID)
    assert len(list(space.points())) == space.size == 4
    assert not any(space.forbids(point) for point in (*space.points(), *space.corners()))
    assert {(c["opt"], c["depth"]) for c in space.corners()} >= {("sgd", 1), ("adam", 3)}


def test_what_is_forbidden_is_part_of_the_description():
    space = parse_space(FORBID)
    assert space.describe()["forbid"] == "opt=sgd and depth=3 or opt=adam and depth<2"
    assert parse_space(space.describe()) == space
    before = {key: text for key, text in space.describe().items() if key != "forbid"}
    assert space.difference(before) == ["forbid: was nothing, now opt=sgd and depth=3 or opt=adam and depth<2"]


def test_what_is_forbidden_cannot_be_enqueued():
    with pytest.raises(SpaceError, match=r"^opt=sgd and depth=3 is forbidden"):
        parse_space(FORBID).encode({"opt": "sgd", "depth": 3})


def test_fixed_values_settle_what_is_forbidden():
    forbid = {"a": "1,2", "forbid": [{"a": 1, "fix": 1}, {"a": 2, "fix": 2}]}
    assert parse_space(forbid, fixed={"fix": 1}.__getitem__).describe()["forbid"] == "a=1"
