"""The ends of ranges, and ranges made wider there."""

import pytest

from sweeps.search.space.corners import is_near_end, share_near_end, widened
from sweeps.search.space.declare import parse_space
from sweeps.search.space.parameter import Parameter


def parameter(expression: str) -> Parameter:
    (found,) = parse_space({}, [f"x={expression}"]).parameters
    return found


@pytest.mark.parametrize(
    ("expression", "lower", "upper"),
    [
        ("tag(log,interval(1e-4,1e-2))", "tag(log,interval(1e-05,0.01))", "tag(log,interval(0.0001,0.1))"),
        ("tag(log,interval(1e-6,1))", "tag(log,interval(1e-09,1.0))", "tag(log,interval(1e-06,1000.0))"),
        ("tag(log,int(interval(8,512)))", "tag(log,int(interval(1,512)))", "tag(log,int(interval(8,4096)))"),
        ("interval(0.0,0.5)", None, "interval(0.0,0.75)"),
        ("interval(0.0,0.99)", None, "interval(0.0,0.995)"),
        ("interval(1.0,3.0)", "interval(0.0,3.0)", "interval(1.0,4.0)"),
        ("interval(-1.0,1.0)", "interval(-2.0,1.0)", "interval(-1.0,2.0)"),
        ("int(interval(1,9))", "int(interval(0,9))", "int(interval(1,13))"),
        ("range(1,5)", None, "range(1,7)"),
        ("range(16,80,16)", None, "range(16,112,16)"),
        ("range(4,8)", "range(2,8)", "range(4,10)"),
        ("choice(1,2,3)", None, None),
    ],
)
def test_a_range_is_widened_at_one_end(expression: str, lower: str | None, upper: str | None) -> None:
    found = [widened(parameter(expression), is_upper=is_upper) for is_upper in (False, True)]
    assert [None if domain is None else str(domain) for domain in found] == [lower, upper]


@pytest.mark.parametrize(
    "expression", ["tag(log,interval(1e-4,1e-2))", "range(2,5)", "range(0.1,0.5,0.1)", "interval(0,0.5)"]
)
def test_a_wider_range_can_be_typed_and_holds_all_that_the_range_did(expression: str) -> None:
    wider = widened(parameter(expression), is_upper=True)
    space = parse_space({}, [f"x={wider}"])
    own = parameter(expression)
    for value in own.values if own.values is not None else own.ends:
        space.encode({"x": value})
    high = space.parameters[0].domain.high
    assert high > own.domain.high


def test_near_an_end_is_a_tenth_of_the_scale_or_the_last_value() -> None:
    log = parameter("tag(log,interval(1e-4,1))")
    assert is_near_end(log, 0.5, is_upper=True) and not is_near_end(log, 0.3, is_upper=True)
    few = parameter("range(1,5)")
    assert [is_near_end(few, value, is_upper=True) for value in (1, 2, 3, 4)] == [False, False, False, True]
    assert share_near_end(few, is_upper=True) == 0.25
    assert share_near_end(log, is_upper=True) == 0.1


def test_choices_and_two_values_have_no_ends() -> None:
    assert share_near_end(parameter("choice(1,2,3)"), is_upper=True) is None
    assert share_near_end(parameter("range(0,2)"), is_upper=True) is None
