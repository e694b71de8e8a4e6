"""The tag that holds the parameters."""

import pytest

from sweeps.results.rows import plain_mapping


@pytest.mark.parametrize("text", [None, "", "{cut", '{"a.lr": 0.1, "b', "[1]", "3", '{"lr": }', '{"lr": x}'])
def test_what_is_not_a_mapping_is_empty(text: str | None) -> None:
    assert plain_mapping(text) == {}
