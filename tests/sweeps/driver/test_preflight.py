"""Keys that change nothing are found by what points do; what matters somewhere is not among them."""

from typing import Any

import pytest

from sweeps.driver.preflight import suspects, variants, without_effect
from sweeps.search.space.declare import parse_space
from sweeps.search.space.space import Space


def found(space: Space, behaviour: Any) -> tuple[list[str], list[str]]:
    """Return the suspects, and those that are dead, where `behaviour` says what a point does."""
    points = space.corners()
    places = suspects(space, points, [behaviour(point) for point in points])
    return places, without_effect(space, points, places, behaviour)


def test_a_key_that_nothing_depends_on_is_dead() -> None:
    space = parse_space({"lr": "interval(0.1,1)", "unused": "choice(a,b,c)"})
    assert found(space, lambda point: point["lr"]) == (["unused"], ["unused"])


def test_a_key_of_which_only_some_values_do_the_same_is_alive() -> None:
    space = parse_space({"lr": "interval(0.1,1)", "act": "choice(relu,clamp,tanh)"})
    assert found(space, lambda point: (point["lr"], point["act"] == "tanh")) == ([], [])


def test_a_key_that_matters_with_other_values_only_is_suspected_and_acquitted() -> None:
    space = parse_space({"depth": "range(0,3)", "dropout": "interval(0,0.5)"})
    assert found(space, lambda point: (point["depth"], point["depth"] * point["dropout"])) == (["dropout"], [])


def test_a_key_is_compared_within_its_option_only() -> None:
    space = parse_space({"opt": "choice(adam,sgd)", "momentum": {"values": "interval(0,0.9)", "when": {"opt": "sgd"}}})
    assert found(space, lambda point: (point["opt"], point.get("momentum"))) == ([], [])
    assert found(space, lambda point: point["opt"]) == (["momentum"], ["momentum"])


def test_elements_of_a_list_are_keys_of_their_own() -> None:
    space = parse_space({"depth": "range(1,4)", "width": {"values": "choice(8,16)", "repeat": "depth"}})
    assert found(space, lambda point: (point["depth"], *point["width"][1:])) == (["width[0]"], ["width[0]"])
    assert found(space, lambda point: point["width"]) == ([], [])


def test_what_could_not_be_tried_is_not_called_dead() -> None:
    space = parse_space({"lr": "interval(0.1,1)", "unused": "choice(a,b)"})
    points = space.corners()
    assert without_effect(space, points, ["unused"], lambda point: None) == []
    assert suspects(space, points, [None] * len(points)) == []


def test_a_key_that_brings_others_is_told_by_what_they_share() -> None:
    space = parse_space({"m": "choice(0,1)", "nesterov": {"values": "choice(true,false)", "when": {"m": "> 0"}}})
    assert found(space, lambda point: point["m"])[1] == ["nesterov"]
    assert found(space, lambda point: 0)[1] == ["m", "nesterov"]


@pytest.mark.parametrize(
    ("forbid", "num_pairs"), [([], 3), ([{"a": 1, "b": 2}], 2)], ids=["free", "one combination forbidden"]
)
def test_variants_are_valid_points(forbid: list[Any], num_pairs: int) -> None:
    space = parse_space({"a": "choice(0,1)", "b": "choice(1,2)", "forbid": forbid})
    pairs = variants(space, space.corners(), "b")
    assert len(pairs) == num_pairs
    assert not any(space.forbids(point) for pair in pairs for point in pair)
    assert all(one["a"] == other["a"] and one["b"] != other["b"] for one, other in pairs)
