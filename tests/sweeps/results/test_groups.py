"""Means of groups, and what does not count in them."""

import csv
import io
import json
import math
import statistics
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from sweeps.cli.commands.compare import Format, print_groups
from sweeps.core.errors import UsageError
from sweeps.results.groups import grouped
from sweeps.results.queries import TrialRow


def row(trial: int, depth: Any, value: float | None, state: str = "complete", metric: str = "val/acc") -> TrialRow:
    return TrialRow(
        run_id=f"run{trial}-and-more",
        name="",
        study="a",
        trial=trial,
        state=state,
        metric=metric,
        direction="maximize",
        objectives={metric: "maximize"},
        value=value,
        metrics={} if value is None else {"val/loss": 1 - value},
        params={} if depth is None else {"model.depth": depth},
        duration_s=None,
        reason="",
        folder="",
    )


ROWS = [
    row(0, 1, 0.5),
    row(1, 1, 0.75),
    row(2, 1, 0.25, "pruned"),
    row(3, 2, 0.875),
    row(4, 2, 0.99, "dropped"),
    row(5, 2, math.nan),
    row(6, 2, None, "running"),
    row(7, None, None, "failed"),
]


def printed(form: Format) -> str:
    out = io.StringIO()
    console = Console(file=out, width=30)
    print_groups(grouped(ROWS, ["depth"]), form, console=console, out=out)
    return out.getvalue()


def test_groups_have_mean_error_and_best() -> None:
    two, one, none = grouped(ROWS, ["model.depth"])

    assert (two.keys, two.count, two.mean, two.standard_error, two.best) == ({"model.depth": 2}, 1, 0.875, None, 0.875)
    assert (one.count, one.mean, one.best, one.best_run_id) == (3, 0.5, 0.75, "run1-and-more")
    assert one.standard_error == pytest.approx(statistics.stdev([0.5, 0.75, 0.25]) / math.sqrt(3))
    assert (none.keys, none.count, none.mean, none.best) == ({"model.depth": None}, 0, None, None)


def test_less_of_a_loss_is_better() -> None:
    by_loss = grouped(ROWS, ["depth"], "val/loss")

    assert [group.keys["depth"] for group in by_loss] == [2, 1, None]
    assert by_loss[0].best == 0.125 and by_loss[1].best == 0.25
    assert [group.keys["depth"] for group in grouped(ROWS, ["depth"], "val/loss", True)] == [1, 2, None]


def test_several_names_make_finer_groups() -> None:
    assert len(grouped(ROWS, ["depth", "state"])) == 6


def test_a_trial_that_violates_a_constraint_is_not_the_best_of_its_group() -> None:
    (group,) = grouped([row(0, 1, 0.5), row(1, 1, 0.6), replace(row(2, 1, 0.99), infeasible="too large")], ["depth"])
    assert (group.count, group.best, group.best_run_id) == (3, 0.6, row(1, 1, 0.6).run_id)


def test_another_objective_than_the_leading_one_has_its_own_direction() -> None:
    both = {"objectives": {"val/acc": "maximize", "num_params": "minimize"}}
    rows = [
        replace(row(n, 1, 0.5), values={"val/acc": 0.5, "num_params": size}, **both) for n, size in ((0, 9), (1, 4))
    ]
    (group,) = grouped(rows, ["depth"], "num_params")
    assert (group.mean, group.best, group.best_run_id) == (6.5, 4, rows[1].run_id)


def test_different_metrics_need_a_choice() -> None:
    rows = [*ROWS, row(8, 3, 0.1, metric="val/f1")]

    with pytest.raises(UsageError, match="judged by val/acc, val/f1: name the one to average with --metric"):
        grouped(rows, ["depth"])
    assert grouped(rows, ["depth"], "val/f1")[0].count == 1


def test_unknown_names_give_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"Did you mean 'model.depth'"):
        grouped(ROWS, ["model.dept"])
    with pytest.raises(UsageError, match=r"Did you mean 'val/loss'"):
        grouped(ROWS, ["depth"], "val/los")


def test_nothing_has_no_groups() -> None:
    assert grouped([], ["depth"]) == []


def test_every_format_has_the_groups() -> None:
    table = printed("table").splitlines()
    markdown = printed("md").splitlines()
    found = list(csv.DictReader(io.StringIO(printed("csv"))))
    data = json.loads(printed("json"))

    assert table[0].split() == ["depth", "count", "mean", "val/acc", "error", "best", "best", "run"]
    assert table[2].split() == ["1", "3", "0.5", "0.1443", "0.75", "run1-and"]
    assert markdown[2] == "| 2 | 1 | 0.875 |  | 0.875 | run3-and |"
    assert [one["count"] for one in found] == ["1", "3", "0"] and found[1]["best_run_id"] == "run1-and-more"
    assert data[1]["keys"] == {"depth": 1} and data[2]["mean"] is None and data[1]["metric"] == "val/acc"
