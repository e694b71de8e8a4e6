"""Print trials as a table, CSV or JSON."""

import csv
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sweeps.naming import duration, number, short_names
from sweeps.queries import TrialRow
from sweeps.search import SEM

__all__ = ["Format", "print_rows"]

Format = Literal["table", "csv", "json"]
_STYLES = {
    "complete": "",
    "pruned": "dim",
    "dropped": "dim",
    "failed": "red",
    "interrupted": "yellow",
    "running": "cyan",
}
_GAP = 2  # blanks between columns
_MAX_CELL = 24  # characters of a cell in a terminal


def print_rows(rows: Sequence[TrialRow], form: Format, *, console: Console, out: TextIO, metric: str | None) -> None:
    """Print rows in the order given.

    Args:
        rows: What to print.
        form: As a table for people, or as CSV or JSON for programs.
        console: Where a table goes; in a terminal it is made to fit, elsewhere it is as wide as it needs to be.
        out: Where CSV and JSON go.
        metric: A metric that a table shows beside the one that the rows are judged by.
    """
    if form == "json":
        out.write(json.dumps([_finite(row.as_dict()) for row in rows], indent=2) + "\n")
    elif form == "csv":
        _print_csv(rows, out)
    elif rows:
        _print_table(rows, console, metric)


def _finite(value: Any) -> Any:
    """Replace what JSON cannot say (NaN, infinities) by null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print_csv(rows: Sequence[TrialRow], out: TextIO) -> None:
    params = _params(rows)
    metrics = sorted({key for row in rows for key in row.metrics})
    fixed = ["study", "trial", "state", "value", "duration_s", "run_id", "reason", "infeasible", "is_on_front"]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([_no_formula(name) for name in (*fixed, *params, *metrics)])
    for row in rows:
        cells: list[Any] = [getattr(row, name) for name in fixed]
        cells += [row.params.get(key) for key in params]
        # Of several objectives, those at the best checkpoint; `value` has only the first
        known = row.metrics | row.values if len(row.objectives) > 1 else row.metrics
        cells += [known.get(key) for key in metrics]
        writer.writerow(["" if cell is None else _no_formula(cell) for cell in cells])


def _no_formula(cell: Any) -> Any:
    """Keep a spreadsheet from running a text as a formula, and a text to its line."""
    if not isinstance(cell, str):
        return cell
    text = " ".join(cell.splitlines())
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", " ")) else text


def _params(rows: Sequence[TrialRow]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row.params))


# --- the table -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Column:
    header: str
    cells: list[str]
    is_number: bool = True
    style: str = ""
    sacrifice: int = 0  # what is left out first in a narrow terminal: the highest; 0 always stays

    @property
    def width(self) -> int:
        return max(len(self.header), *(len(cell) for cell in self.cells))


def _print_table(rows: Sequence[TrialRow], console: Console, metric: str | None) -> None:
    columns, width = _columns(rows, metric), console.width
    left_out: list[str] = []
    if console.is_terminal:
        for column in columns:
            column.cells = [_shortened(cell) for cell in column.cells]
        columns, left_out = _fitting(columns, width)
    else:
        console.width = sum(column.width + _GAP for column in columns)
    table = Table(box=None, padding=(0, _GAP, 0, 0), header_style="bold", pad_edge=False)
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.is_number else "left"
        table.add_column(Text(column.header), justify=justify, style=column.style, no_wrap=True)
    for row, cells in zip(rows, zip(*(column.cells for column in columns), strict=True), strict=True):
        table.add_row(*map(Text, cells), style=_STYLES.get(row.state, ""))
    console.print(table)
    console.width = width
    if left_out:
        console.print(
            f"Not shown for want of room: {', '.join(left_out)}. `--format csv` has all.", style="dim", highlight=False
        )


def _columns(rows: Sequence[TrialRow], metric: str | None) -> list[_Column]:
    """Lay the table out; what all rows have in common, and what says least, is the first to be left out."""
    judged = sorted({row.metric for row in rows if row.metric})
    params = _params(rows)
    names = short_names(params)

    def column(header: str, cell: Callable[[TrialRow], str], **more: Any) -> _Column:
        return _Column(header, [cell(row) for row in rows], **more)

    columns = []
    if len({row.study for row in rows}) > 1:
        columns.append(column("study", lambda row: row.study or "train", is_number=False))
    columns.append(column("trial", _trial))
    if len(judged) > 1:
        columns.append(column("metric", lambda row: row.metric, is_number=False))
    objectives = _objectives(rows)
    if objectives:
        columns.append(column("front", lambda row: "*" if row.is_on_front else "", is_number=False))
        for name in objectives:
            columns.append(_Column(name, [_objective(row, name) for row in rows], style="green"))
    else:
        columns.append(column(judged[0] if len(judged) == 1 else "value", _value, style="green"))
    if metric is not None and metric not in judged:
        columns.append(column(metric, lambda row: number(row.metrics[metric]) if metric in row.metrics else ""))
    for index, key in enumerate(params, start=2):
        cells = [number(row.params[key]) if key in row.params else "" for row in rows]
        is_same = len(set(cells)) == 1
        columns.append(_Column(names[key], cells, sacrifice=index + (len(params) if is_same else 0)))
    columns.append(column("state", _state, is_number=False))
    columns.append(column("time", lambda row: "" if row.duration_s is None else duration(row.duration_s), sacrifice=1))
    columns.append(column("run", lambda row: row.run_id[:8], is_number=False))
    return columns


def _objectives(rows: Sequence[TrialRow]) -> dict[str, str]:
    """Return the objectives that all rows share, if they are several."""
    first = rows[0].objectives
    return first if len(first) > 1 and all(row.objectives == first for row in rows) else {}


def _objective(row: TrialRow, name: str) -> str:
    known = row.metrics | row.values
    return number(known[name]) + _error(row, name) if name in known else ""


def _trial(row: TrialRow) -> str:
    """Name a trial by its number, and a single run by that of its folder."""
    if row.trial is not None:
        return f"#{row.trial}"
    return str(int(row.folder)) if row.folder.isdecimal() else row.folder


def _state(row: TrialRow) -> str:
    return "infeasible" if row.infeasible and row.state == "complete" else row.state


def _value(row: TrialRow) -> str:
    return "" if row.value is None else number(row.value) + _error(row, row.metric)


def _error(row: TrialRow, metric: str) -> str:
    """Return the standard error of a mean over replicates, if it is one."""
    error = row.metrics.get(f"{metric}{SEM}") if row.state == "complete" else None
    return "" if error is None else f" ± {number(error)}"


def _shortened(cell: str) -> str:
    return cell if len(cell) <= _MAX_CELL else f"{cell[: _MAX_CELL - 1]}…"


def _fitting(columns: list[_Column], width: int) -> tuple[list[_Column], list[str]]:
    """Leave columns out until the rest fits, and name those left out in their order."""
    kept = list(columns)
    while sum(column.width for column in kept) + _GAP * (len(kept) - 1) > width:
        expendable = max(kept, key=lambda column: column.sacrifice)
        if expendable.sacrifice == 0:
            break
        kept.remove(expendable)
    return kept, [column.header for column in columns if column not in kept]
