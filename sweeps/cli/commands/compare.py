"""`lightsweep compare`: print trials as a table, CSV, JSON or Markdown."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal, TextIO

from rich.console import Console

from sweeps.cli.arguments import uri_of
from sweeps.cli.console import SafeConsole
from sweeps.cli.tables import Column, in_markdown, print_csv, print_table
from sweeps.core.errors import UsageError
from sweeps.core.text import brief, distinct, duration, finite, number, short_names
from sweeps.core.trials import SEM
from sweeps.results.groups import Group
from sweeps.results.rows import LATE_FIELDS, Field, TrialRow, resolve

__all__ = ["Format", "print_groups", "print_rows", "run"]

Format = Literal["table", "csv", "json", "md"]
_STYLES = {
    "complete": "",
    "pruned": "dim",
    "dropped": "dim",
    "failed": "red",
    "interrupted": "yellow",
    "running": "cyan",
}


def print_rows(
    rows: Sequence[TrialRow],
    form: Format,
    *,
    console: Console,
    out: TextIO,
    metric: str | None,
    columns: Sequence[str] = (),
) -> None:
    """Print rows in the order given.

    A table has only the parameters that differ, and says once what all rows share, and of long texts the beginning; CSV
    and JSON have everything.

    Args:
        rows: What to print.
        form: As a table for people, in a terminal or in Markdown, or as CSV or JSON for programs.
        console: Where a table goes; in a terminal it is made to fit, elsewhere it is as wide as it needs to be.
        out: Where everything else goes.
        metric: A metric that a table shows beside the one that the rows are judged by.
        columns: Names of parameters, metrics and fields that a table or CSV has instead of its own; JSON keeps all.

    Raises:
        UsageError: No row has one of the columns; names the nearest.
    """
    chosen = [resolve(name, rows, LATE_FIELDS) for name in columns]
    if form == "json":
        out.write(json.dumps([finite(row.as_dict()) for row in rows], indent=2) + "\n")
    elif form == "csv":
        _print_csv(rows, out, chosen)
    elif rows:
        shared = {} if chosen else _shared(rows)
        laid_out = _chosen_columns(rows, chosen) if chosen else _columns(rows, metric, shared)
        names = short_names(_params(rows))
        said = " ".join(f"{names[key]}={brief(number(value))}" for key, value in shared.items())
        same = f"The same in all: {said}" if shared else ""
        styles = [_STYLES.get(row.state, "") for row in rows]
        print_table(laid_out, form, console=console, out=out, row_styles=styles)
        if same and form == "md":
            out.write(f"\n{in_markdown(same)}\n")
        elif same:
            console.print(same, style="dim", highlight=False, markup=False, soft_wrap=not console.is_terminal)


def _print_csv(rows: Sequence[TrialRow], out: TextIO, chosen: Sequence[Field]) -> None:
    if chosen:
        lines = [[field.of(row) for field in chosen] for row in rows]
        print_csv([field.name for field in chosen], lines, out)
        return
    params = _params(rows)
    metrics = sorted({key for row in rows for key in row.metrics})
    fixed = ["study", "trial", "state", "value", "duration_s", "run_id", "reason", "infeasible", "is_on_front"]
    lines = []
    for row in rows:
        # Of several objectives, those at the best checkpoint; `value` has only the first
        known = row.metrics | row.values if len(row.objectives) > 1 else row.metrics
        cells: list[Any] = [getattr(row, name) for name in fixed]
        cells += [row.params.get(key) for key in params] + [known.get(key) for key in metrics]
        lines.append(cells)
    print_csv([*fixed, *params, *metrics], lines, out)


def _params(rows: Sequence[TrialRow]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row.params))


def _shared(rows: Sequence[TrialRow]) -> dict[str, Any]:
    """Return the parameters that several rows all have with one value."""
    first, *others = rows
    return {
        key: value
        for key, value in first.params.items()
        if others and all(key in row.params and repr(row.params[key]) == repr(value) for row in others)
    }


def _chosen_columns(rows: Sequence[TrialRow], chosen: Sequence[Field]) -> list[Column]:
    columns = []
    for field in chosen:
        values = [field.of(row) for row in rows]
        is_number = all(value is None or isinstance(value, int | float) for value in values)
        columns.append(Column(field.name, ["" if value is None else number(value) for value in values], is_number))
    return columns


def _columns(rows: Sequence[TrialRow], metric: str | None, shared: Mapping[str, Any]) -> list[Column]:
    """Lay the table out; what says least is the first to be left out."""
    judged = sorted({row.metric for row in rows if row.metric})
    params = _params(rows)
    names = short_names(params)
    params = [key for key in params if key not in shared]

    def column(header: str, cell: Callable[[TrialRow], str], **more: Any) -> Column:
        return Column(header, [cell(row) for row in rows], **more)

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
            columns.append(Column(name, [_objective(row, name) for row in rows], style="green"))
    else:
        columns.append(column(judged[0] if len(judged) == 1 else "value", _value, style="green"))
    if metric is not None and metric not in judged and metric not in objectives:
        columns.append(column(metric, lambda row: number(row.metrics[metric]) if metric in row.metrics else ""))
    for index, key in enumerate(params, start=2):
        texts = distinct(row.params[key] for row in rows if key in row.params)
        cells = [texts[repr(row.params[key])] if key in row.params else "" for row in rows]
        columns.append(Column(names[key], cells, sacrifice=index))
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


def print_groups(groups: Sequence[Group], form: Format, *, console: Console, out: TextIO) -> None:
    """Print groups in the order given: as a table, Markdown, CSV or JSON."""
    if form == "json":
        out.write(json.dumps([finite(asdict(group)) for group in groups], indent=2) + "\n")
        return
    if not groups:
        return
    header = [*groups[0].keys, "count", "mean", "standard_error", "best", "best_run_id"]
    lines = [[*group.keys.values(), *(getattr(group, name) for name in header[-5:])] for group in groups]
    if form == "csv":
        print_csv(header, lines, out)
        return
    shown = [*groups[0].keys, "count", f"mean {groups[0].metric}", "error", "best", "best run"]
    cells = [["" if cell is None else number(cell) for cell in [*line[:-1], (line[-1] or "")[:8]]] for line in lines]
    columns = [
        Column(name, list(column), is_number=False)
        for name, column in zip(shown, zip(*cells, strict=True), strict=True)
    ]
    print_table(columns, form, console=console, out=out)


def run(args: argparse.Namespace) -> int:
    """Print trials and runs as the arguments choose them."""
    from sweeps.results.groups import grouped
    from sweeps.results.select import Selection, parse_where, selected_rows

    selection = Selection(
        where=None if args.where is None else parse_where(args.where),
        is_front=args.pareto,
        metric=args.metric,
        sort=args.sort,
        is_descending=args.is_descending,
        top=None if args.group_by else args.top,
    )
    if args.group_by and (args.sort or args.columns):
        raise UsageError("--group-by has columns and an order of its own: leave --sort and --columns out.")
    rows = selected_rows(uri_of(args), args.studies, selection, args.group_by or None)
    if args.group_by:
        groups = grouped(rows, args.group_by, args.metric, args.is_descending)
        print_groups(groups[: args.top], args.format, console=SafeConsole(), out=sys.stdout)
    else:
        print_rows(rows, args.format, console=SafeConsole(), out=sys.stdout, metric=args.metric, columns=args.columns)
    if not rows and (args.where is not None or args.pareto):
        print("No trial is left: none passes what was asked for.", file=sys.stderr)
    elif not rows:
        where = f"study {' or '.join(map(repr, args.studies))} has no trials" if args.studies else "store has no runs"
        print(f"The {where} yet. Start some with `lightsweep sweep`.", file=sys.stderr)
    return 0
