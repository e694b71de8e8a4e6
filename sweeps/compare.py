"""Print trials as a table, CSV or JSON."""

import csv
import json
import math
from collections.abc import Sequence
from typing import Any, Literal, TextIO

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sweeps.naming import duration, number, short_names
from sweeps.queries import TrialRow

__all__ = ["Format", "print_rows"]

Format = Literal["table", "csv", "json"]
_STYLES = {"complete": "", "pruned": "dim", "failed": "red", "interrupted": "yellow", "running": "cyan"}


def print_rows(rows: Sequence[TrialRow], form: Format, *, console: Console, out: TextIO, metric: str | None) -> None:
    """Print rows in the order given."""
    if form == "json":
        out.write(json.dumps([_finite(row.as_dict()) for row in rows], indent=2) + "\n")
    elif form == "csv":
        _print_csv(rows, out)
    else:
        _print_table(rows, console, metric)


def _finite(value: Any) -> Any:
    """Replace what JSON cannot say (NaN, infinities) by null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print_csv(rows: Sequence[TrialRow], out: TextIO) -> None:
    params = list(dict.fromkeys(key for row in rows for key in row.params))
    metrics = sorted({key for row in rows for key in row.metrics})
    fixed = ["study", "trial", "state", "value", "duration_s", "run_id"]
    writer = csv.writer(out)
    writer.writerow([*fixed, *params, *metrics])
    for row in rows:
        cells = [row.study, row.trial, row.state, row.value, row.duration_s, row.run_id]
        cells += [row.params.get(key) for key in params] + [row.metrics.get(key) for key in metrics]
        writer.writerow(["" if cell is None else _no_formula(cell) for cell in cells])


def _no_formula(cell: Any) -> Any:
    """Keep a spreadsheet from running a text as a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@")) else cell


def _print_table(rows: Sequence[TrialRow], console: Console, metric: str | None) -> None:
    params = list(dict.fromkeys(key for row in rows for key in row.params))
    studies = {row.study for row in rows}
    judged = sorted({row.metric for row in rows if row.metric})
    names = short_names(params)
    table = Table(box=None, padding=(0, 1), header_style="bold", pad_edge=False)
    if len(studies) > 1:
        table.add_column("study", no_wrap=True)
    table.add_column("trial", justify="right")
    table.add_column(judged[0] if len(judged) == 1 else "value", justify="right", style="green")
    if metric is not None and metric not in judged:
        table.add_column(metric, justify="right")
    for key in params:
        table.add_column(names[key], justify="right")
    for column in ("state", "time", "run"):
        table.add_column(column, no_wrap=True, justify="right" if column == "time" else "left")
    for row in rows:
        cells = [escape(row.study or "train")] if len(studies) > 1 else []
        cells += [
            "" if row.trial is None else f"#{row.trial}",
            "" if row.value is None else number(row.value),
        ]
        if metric is not None and metric not in judged:
            cells.append(number(row.metrics[metric]) if metric in row.metrics else "")
        cells += [escape(number(row.params[key])) if key in row.params else "" for key in params]
        took = "" if row.duration_s is None else duration(row.duration_s)
        table.add_row(*cells, row.state, took, row.run_id[:8], style=_STYLES.get(row.state, ""))
    console.print(table)
