"""Some of the parameters in a tag: the same values as parsing all of it gives, whatever they are."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.results.rows import plain_mapping, some_params

WORDS = st.text('lra."\\{}: ,[]é', max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(WORDS | st.just("optimizer.lr") | st.just("lr"), VALUES, max_size=5), st.booleans(), WORDS)
def test_some_are_those_of_all_that_end_in_the_word(params: dict[str, Any], is_compact: bool, name: str) -> None:
    text = json.dumps(params, separators=(",", ":") if is_compact else None)
    for wanted in ("lr", name):
        last = wanted.rpartition(".")[2]
        expected = {key: value for key, value in params.items() if key.rpartition(".")[2] == last}
        assert {key: value for key, value in some_params([wanted])(text).items() if key in expected} == expected
        assert some_params([wanted])(text).items() <= params.items()


@pytest.mark.parametrize("text", [None, "", "{cut", '{"a.lr": 0.1, "b', "[1]", "3", '{"lr": }', '{"lr": x}'])
def test_what_is_no_mapping_is_empty(text: str | None) -> None:
    assert some_params(["lr"])(text) == {} and plain_mapping(text) == {}


def test_types_are_kept_and_others_left_out() -> None:
    params = {"a.lr": 1, "b.lr": 1.0, "c.lr": None, "d.lr": [1, "lr"], "e.lr": math.inf, "f.lr": "1", "lr": True}

    found = some_params(["params.optimizer.lr"])(json.dumps({"xlr": "no", **params, "lr.x": 2}))

    assert repr(dict(sorted(found.items()))) == repr(params)


def test_what_cannot_be_searched_for_is_parsed_in_full() -> None:
    params = {"lr": 1, "other": {"lr": 2}}
    assert some_params(["lr"])(json.dumps(params)) == params
    assert some_params(['l"r'])('{"lr": 1, "a": 2}') == {"lr": 1, "a": 2}
