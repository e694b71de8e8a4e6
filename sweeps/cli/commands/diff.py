"""`lightsweep diff`: print how runs differ in parameters, data, code, environment and metrics."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sweeps.cli.arguments import uri_of
from sweeps.cli.commands.show import Format, is_unicode, state_style
from sweeps.cli.console import SafeConsole
from sweeps.cli.tables import Column, print_table, table_width
from sweeps.core.errors import UsageError
from sweeps.core.text import brief, duration, finite, number, plain
from sweeps.results.histories import sparkline
from sweeps.results.run import MetricDetail, RunDetail
from sweeps.tracking import tags

__all__ = ["Difference", "difference", "print_difference", "run"]

_COMMIT, _DIRTY = "mlflow.source.git.commit", "lightsweep.git.dirty"
_CODE = {_COMMIT: "commit", _DIRTY: "uncommitted changes"}
_COMMAND = tags.OVERRIDES
_OF_THE_RUN = (
    "lightsweep.",
    "pruned",
    "mlflow.runName",
    "mlflow.parentRunId",
    "mlflow.note.",
    "mlflow.log-model.",
    "search.",
)
_CURVE, _LEAST_CURVE = 16, 5  # characters, with room and without
_GAP = 2
_LONGEST = 200  # characters of a cell
_NONE = "-"

Cells = tuple[str | None, ...]
"""what each run has, in their order; None where it has nothing"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What differs between runs.

    Attributes:
        runs: Two or more.
        sections: By searched, config, data, code and environment: the keys that differ, and what each run has.
        num_same: How many keys are the same in all.
    """

    runs: tuple[RunDetail, ...]
    sections: Mapping[str, Mapping[str, Cells]]
    num_same: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        metrics: dict[str, list[Any]] = {}
        for key in _metric_names(self.runs):
            found = [run.metrics.get(key) for run in self.runs]
            metrics[key] = [None if metric is None else metric.as_dict() for metric in found]
        runs = [
            {
                "run_id": run.run.run_id,
                "name": run.label,
                "state": run.row.state,
                "values": {name: value for name, value in run.row.values.items() if name},
                "duration_s": run.row.duration_s,
            }
            for run in self.runs
        ]
        sections = {name: {key: list(cells) for key, cells in rows.items()} for name, rows in self.sections.items()}
        return {"runs": runs, "differs": sections, "num_same": self.num_same, "metrics": metrics}


def difference(runs: Sequence[RunDetail]) -> Difference:
    """Compare runs key by key.

    Raises:
        UsageError: There are less than two, or one is there twice.
    """
    ids = [run.run.run_id for run in runs]
    twice = [run.label for run in runs if ids.count(run.run.run_id) > 1]
    if twice:
        raise UsageError(f"diff compares different runs, but {twice[0]} was named {len(twice)} times.")
    if len(runs) < 2:
        raise UsageError(f"diff compares two runs or more, but got {len(runs)}.")
    searched = {key for run in runs for key in run.searched}
    configs = [_config(run) for run in runs]
    run_tags = [run.run.tags for run in runs]

    def rows(sources: Sequence[Mapping[str, str]], belongs: Callable[[str], bool]) -> dict[str, Cells]:
        keys = sorted({key for source in sources for key in source if belongs(key)})
        return {key: tuple(source.get(key) for source in sources) for key in keys}

    every = {
        "searched": rows(configs, lambda key: key in searched),
        "config": rows(configs, lambda key: key not in searched and not _is_data(key)),
        "data": rows(configs, lambda key: key not in searched and _is_data(key)),
        "code": {_CODE[key]: cells for key, cells in rows(run_tags, lambda key: key in _CODE).items()},
        "environment": {
            "overrides" if key == _COMMAND else key: cells for key, cells in rows(run_tags, _is_environment).items()
        },
    }
    changed = {name: {key: cells for key, cells in of.items() if len(set(cells)) > 1} for name, of in every.items()}
    num_keys, num_changed = (sum(map(len, sections.values())) for sections in (every, changed))
    return Difference(runs=tuple(runs), sections=changed, num_same=num_keys - num_changed)


def _config(run: RunDetail) -> dict[str, str]:
    return {key: str(value) for key, value in run.searched.items()} | run.config


def _is_data(key: str) -> bool:
    return key.partition(".")[0] == "data"


def _is_environment(key: str) -> bool:
    return key == _COMMAND or (key not in _CODE and not key.startswith(_OF_THE_RUN))


def _metric_names(runs: Sequence[RunDetail]) -> list[str]:
    """Name the metrics of all runs: what they are judged by, then the others."""
    judged = [name for run in runs for name in run.row.objectives if name in run.metrics]
    return list(dict.fromkeys([*judged, *sorted({key for run in runs for key in run.metrics})]))


# --- for people ----------------------------------------------------------------------------------------


def print_difference(found: Difference, form: Format, *, console: Console, out: TextIO) -> None:
    """Print what differs.

    Args:
        found: From `difference`.
        form: `table` for people, `json` for programs.
        console: Where the former goes; what does not fit a terminal side by side stands one below the other.
        out: Where JSON goes.
    """
    if form == "json":
        out.write(json.dumps(finite(found.as_dict()), indent=2) + "\n")
        return
    names = [plain(run.label) for run in found.runs]
    for run in found.runs:
        reused = f"{run.label}: {run.origin['reused']}." if "reused" in run.origin else ""
        for note in filter(None, (run.note, reused)):
            console.print(Text(plain(note), style="dim"), soft_wrap=True)
    _print_section("", _summary(found.runs), names, console)
    for name, rows in found.sections.items():
        _print_section(name.capitalize(), _readable(rows), names, console)
    if _is_doubtful(found):
        console.print("\nThe commit is the same, but not all was committed: the code may differ.", highlight=False)
    metrics = _metric_names(found.runs)
    width = max((len(number(run.metrics[key].last)) for run in found.runs for key in run.metrics), default=0)
    room = _room(metrics, names, width, console)
    curves = {key: _curves(found.runs, key, width, room, console) for key in metrics}
    _print_section("Metrics (the last value; curves of one row have one scale)", curves, names, console)
    num = found.num_same
    if not any(found.sections.values()):
        console.print("\nNothing differs but the results.", highlight=False)
    console.print(f"\nThe same in all: {num} {'key' if num == 1 else 'keys'}.", style="dim", highlight=False)


def _summary(runs: Sequence[RunDetail]) -> dict[str, Cells]:
    rows: dict[str, Cells] = {"state": tuple(run.row.state for run in runs)}
    for name in dict.fromkeys(name for run in runs for name in run.row.objectives if name):
        values = [run.row.values.get(name, run.row.value if name == run.row.metric else None) for run in runs]
        rows[name] = tuple(None if value is None else number(value) for value in values)
    rows["took"] = tuple(None if run.row.duration_s is None else duration(run.row.duration_s) for run in runs)
    rows["run"] = tuple(run.run.run_id[:8] for run in runs)
    return rows


def _readable(rows: Mapping[str, Cells]) -> dict[str, Cells]:
    """Shorten numbers, unless they would then look the same."""
    found = {}
    for key, cells in rows.items():
        short = tuple(None if cell is None else _short(cell) for cell in cells)
        found[key] = short if len(set(short)) == len(set(cells)) else cells
    return found


def _short(text: str) -> str:
    """Shorten a text that Python writes for a number; `2024_01` and `1.10` are none."""
    try:
        value = float(text)
    except ValueError:
        value = None
    return number(value) if value is not None and repr(value) == text else brief(" ".join(text.split()), _LONGEST)


def _is_doubtful(found: Difference) -> bool:
    """Tell whether runs of one commit had changes that the commit does not have."""
    has_commit = all(_COMMIT in run.run.tags for run in found.runs)
    is_same = _CODE[_COMMIT] not in found.sections["code"]
    return has_commit and is_same and any(run.run.tags.get(_DIRTY) == "true" for run in found.runs)


def _room(metrics: Sequence[str], names: Sequence[str], width: int, console: Console) -> int:
    """Return the characters of a curve with which all runs stand side by side, or the most if none is small enough."""
    if not console.is_terminal or not metrics:
        return _CURVE
    room = (console.width - max(map(len, metrics)) - _GAP) // len(names) - _GAP - width - 1
    return min(room, _CURVE) if room >= _LEAST_CURVE else _CURVE


def _curves(runs: Sequence[RunDetail], key: str, width: int, room: int, console: Console) -> Cells:
    metrics = [run.metrics.get(key) for run in runs]
    means = [m for metric in metrics if metric and metric.curve for m in metric.curve.means if abs(m) < float("inf")]
    low, high = min(means, default=0.0), max(means, default=0.0)
    return tuple(
        None
        if metric is None
        else f"{number(metric.last):<{width}} {_drawn(metric, low, high, room, console)}".rstrip()
        for metric in metrics
    )


def _drawn(metric: MetricDetail, low: float, high: float, width: int, console: Console) -> str:
    if metric.curve is None or metric.curve.num_points < 2:
        return ""
    return sparkline(metric.curve.means, width=width, low=low, high=high, is_unicode=is_unicode(console))


def _print_section(title: str, rows: Mapping[str, Cells], names: Sequence[str], console: Console) -> None:
    if not rows:
        return
    if title:
        console.print()
        console.print(Text(title, style="bold"))
    texts = {plain(key): [_NONE if cell is None else plain(cell) for cell in cells] for key, cells in rows.items()}
    columns = [Column("", list(texts), is_number=False, longest=_LONGEST)]
    for name, cells in zip(names, zip(*texts.values(), strict=True), strict=True):
        styles = [_style(key, cell) for key, cell in zip(texts, cells, strict=True)]
        columns.append(Column(name, list(cells), is_number=False, longest=_LONGEST, styles=styles))
    if console.is_terminal and table_width(columns) > console.width:
        _print_stacked(texts, names, console)
    else:
        print_table(columns, "table", console=console, out=console.file)


def _print_stacked(rows: Mapping[str, Sequence[str]], names: Sequence[str], console: Console) -> None:
    """Print a key, and below it what each run has; long texts go on in further lines."""
    width = max(map(cell_len, names))
    for key, cells in rows.items():
        console.print(Text(key))
        for name, cell in zip(names, cells, strict=True):
            table = Table.grid(padding=(0, _GAP, 0, 0))
            table.add_column(width=width + 2, no_wrap=True)
            table.add_column(overflow="fold")
            table.add_row(Text(f"  {name}", style="bold"), Text(cell, _style(key, cell)))
            console.print(table)


def _style(key: str, cell: str) -> str:
    return state_style(cell) if key == "state" else "dim" if cell == _NONE else ""


def run(args: argparse.Namespace) -> int:
    """Print in what runs differ."""
    from sweeps.results.run import read_runs

    found = difference(read_runs(uri_of(args), args.names, args.store_dir, lists_artifacts=False))
    print_difference(found, args.format, console=SafeConsole(), out=sys.stdout)
    return 0
