"""Conditions on rows: what they keep, and where they point when they are wrong."""

import math
from typing import Any

import pytest

from sweeps.core.errors import UsageError
from sweeps.results.queries import TrialRow
from sweeps.results.select import parse_where


def row(trial: int, state: str = "complete", **values: Any) -> TrialRow:
    return TrialRow(
        run_id=f"run{trial}",
        name="",
        study="a",
        trial=trial,
        state=state,
        metric="val/acc",
        direction="maximize",
        value=values.get("val/acc"),
        metrics={key: value for key, value in values.items() if "/" in key},
        params={key: value for key, value in values.items() if "/" not in key},
        duration_s=10.0 * trial,
        reason="",
        folder="",
    )


ROWS = [
    row(0, **{"model.depth": 1, "model.name": "it's mlp", "val/acc": 0.5, "flag": True}),
    row(1, "pruned", **{"model.depth": 3, "model.name": "cnn", "val/acc": 0.95, "flag": False}),
    row(2, **{"model.depth": 4, "model.widths": [64, 32], "val/acc": math.nan}),
    row(3, "failed"),
]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("params.model.depth >= 3", [1, 2]),
        ("params.model.depth >= 3 and metrics.val/acc > 0.9", [1]),
        ("params.model.depth = 1 or state = 'failed'", [0, 3]),
        ("state = 'failed' or params.model.depth = 1 and trial = 2", [3]),
        ("(state = 'failed' or params.model.depth = 1) and trial = 3", [3]),
        ("not params.model.depth >= 3", [0, 3]),
        ("not not trial == 1", [1]),
        ("params.model.depth != 3", [0, 2]),
        ("params.model.depth <> 3", [0, 2]),
        ("params.model.depth = null", [3]),
        ("params.model.depth != null", [0, 1, 2]),
        ("model.depth < 3.5e0", [0, 1]),
        ("depth <= 1", [0]),
        ("`val/acc` > -1", [0, 1]),
        ("metrics.val/acc < inf", [0, 1]),
        ("value > .9", [1]),
        ("duration_s in [10, 20.0]", [1, 2]),
        ("state not in ['complete', \"pruned\"]", [3]),
        ("params.model.name not in ['cnn']", [0]),
        ("params.model.name = 'it\\'s mlp'", [0]),
        ("params.model.name like '%mlp' OR name LIKE 'c_n'", [0, 1]),
        ("params.model.name contains 'n'", [1]),
        ("params.model.widths = '[64, 32]'", [2]),
        ("flag = true", [0]),
        ("study = 'a' and trial > 1", [2, 3]),
        ("  trial=0\n or trial=3 ", [0, 3]),
    ],
)
def test_condition_keeps(text: str, kept: list[int]) -> None:
    assert [row.trial for row in parse_where(text).keep(ROWS)] == kept


@pytest.mark.parametrize(
    ("text", "message", "at"),
    [
        ("", "expected a name such as params.KEY", 0),
        ("trial", "expected a comparison", 5),
        ("trial >", "expected a value, but got the end", 7),
        ("trial > 1 trial < 2", "expected `and`, `or` or the end, but got trial", 10),
        ("(trial > 1", "expected `\\)`, but got the end", 10),
        ("trial > 1)", "but got \\)", 9),
        ("trial in 3", "expected `\\[`, but got 3", 9),
        ("trial in [3", "expected `,` or `\\]`", 11),
        ("trial not 3", "expected `in`, but got 3", 10),
        ("state = complete", "a text needs quotes, 'complete'", 8),
        ("state = 'complete", "a text that does not end", 8),
        ("trial ; drop", "found ';', which means nothing here", 6),
        ("trial = 3x", "found '3', which means nothing here", 8),
        ("3 < trial", "expected a name .* but got 3", 0),
        ("and trial = 3", "expected a name .* but got and", 0),
        ("trial < null", "null is compared by = and != only", 8),
        ("trial like 3", "expected a text in quotes, but got 3", 11),
        ("params.model.depth > '3'", "params.model.depth holds numbers, never texts", 21),
        ("state in [1]", "state holds texts, never numbers", 10),
        ("not " * 60 + "trial = 1", "at most 50 levels", 200),
        ("(" * 5000, "at most 50 levels", 50),
    ],
)
def test_what_is_wrong_is_pointed_at(text: str, message: str, at: int) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse_where(text).keep(ROWS)

    problem, shown, pointer = str(caught.value).split("\n")
    assert problem.startswith("--where: ") and f"at character {at + 1}:" in problem
    assert shown == f"  {text}" and pointer.index("^") == at + 2


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("params.model.dept", "'params.model.depth'"),
        ("params.depth", "'params.model.depth'"),
        ("metrics.val/ac", "'metrics.val/acc'"),
        ("stat", "'state'"),
        ("model.dept", "'model.depth'"),
    ],
)
def test_unknown_name_gives_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(UsageError, match=f"None of these runs has '{name}'. Did you mean {nearest}"):
        parse_where(f"{name} = 1").keep(ROWS)


def test_without_rows_any_name_will_do() -> None:
    assert parse_where("params.any = 1 and metrics.any > 2 or other = 3").keep([]) == []
