"""The tag that holds the parameters."""

import json
import math

import pytest

from sweeps.results.rows import plain_mapping


@pytest.mark.parametrize("text", [None, "", "{cut", '{"a.lr": 0.1, "b', "[1]", "3", '{"lr": }', '{"lr": x}'])
def test_what_is_not_a_mapping_is_empty(text: str | None) -> None:
    assert plain_mapping(text) == {}


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 2**64, 10**400, math.inf, 1e300, 0.1, 1, True, None, "x", [1]])
def test_every_value_is_read_as_it_was_written(value: object) -> None:
    found = plain_mapping(json.dumps({"a.lr": value, "b": 1}))
    assert found == {"a.lr": value, "b": 1} and type(found["a.lr"]) is type(value)


def test_only_the_keys_that_are_wanted_are_there() -> None:
    text = json.dumps({"a.lr": 2**70, "b": math.inf, "c": 1})
    assert plain_mapping(text, lambda keys: keys[:1]) == {"a.lr": 2**70}
    assert plain_mapping("[1]", lambda keys: keys) == {}
