"""Print the findings of a check: for `lightsweep check`, and as warnings before a sweep's first trial."""

import json
from typing import Literal, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sweeps.driver.preflight_report import CheckReport

__all__ = ["print_report", "print_warnings"]


def print_report(
    report: CheckReport, form: Literal["table", "json"], *, title: str, console: Console, out: TextIO
) -> None:
    """Print a report for people, or as JSON for programs."""
    if form == "json":
        out.write(json.dumps(report.as_dict(), indent=2) + "\n")
        return
    console.print(title, style="bold", markup=False, highlight=False, soft_wrap=True)
    if console.is_terminal:
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False, pad_edge=False)
        table.add_column(style="dim", no_wrap=True)
        for name, text in report.lines():
            table.add_row(name, Text(text))
        console.print(table)
    else:
        for name, text in report.lines():
            console.print(f"{name:<12}{text}", markup=False, highlight=False, soft_wrap=True)
    print_warnings(report, console)
    if not report.warnings:
        console.print("No problems found.", style="green", highlight=False)


def print_warnings(report: CheckReport, console: Console) -> None:
    """Print a line for each warning."""
    for warning in report.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False, highlight=False, soft_wrap=True)
