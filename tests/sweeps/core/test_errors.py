"""The nearest names that an error tells."""

import pytest

from sweeps.core.errors import did_you_mean

VALID = ["model.depth", "model.width", "optimizer.lr", "study"]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("model.detph", "Did you mean 'model.depth' or 'model.width'?"),
        ("lr", "Did you mean 'optimizer.lr'?"),
        ("dept", "Did you mean 'model.depth'?"),
        ("optim.lr", "Did you mean 'optimizer.lr'?"),
        ("zzz", "Valid names: model.depth, model.width, optimizer.lr, study."),
    ],
)
def test_nearest_names(typed: str, said: str) -> None:
    assert did_you_mean(typed, VALID) == said


def test_nothing_is_said_where_nothing_is_valid() -> None:
    assert did_you_mean("lr", []) == ""
