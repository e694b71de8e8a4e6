"""Print all that is known of one run, for people or as JSON."""

import argparse
import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Literal, TextIO

from rich.console import Console
from rich.text import Text

from sweeps.cli.arguments import uri_of
from sweeps.cli.console import SafeConsole
from sweeps.core.text import brief, duration, finite, memory, number, plain
from sweeps.results.histories import NUM_POINTS, sparkline
from sweeps.results.run import MetricDetail, RunDetail

__all__ = ["Format", "is_unicode", "print_run", "run", "state_style"]

Format = Literal["table", "json"]

_STATES = {"complete": "green", "failed": "red", "interrupted": "yellow", "running": "cyan"}
_MAX_ARTIFACTS = 20
_LONGEST = 500  # characters of a text in a terminal
_LEAST_CURVE = 8  # characters; with less room there is no curve
_WORDS = {"maximize": "max", "minimize": "min"}


def print_run(detail: RunDetail, form: Format, *, console: Console, out: TextIO, commands: Sequence[str] = ()) -> None:
    """Print a run.

    Args:
        detail: What is known.
        form: `table` for people, `json` for programs.
        console: Where the former goes; lines are made to fit a terminal, and a pipe gets one fact a line.
        out: Where JSON goes.
        commands: What to type next.
    """
    if form == "json":
        out.write(json.dumps(finite(detail.as_dict()), indent=2) + "\n")
        return
    page = _Page(console)
    row = detail.row
    page.line(Text.assemble((plain(detail.label), "bold"), "  ", (plain(row.state), state_style(row.state))))
    if detail.note:
        page.wrapped(detail.note, first="", rest="", style="dim")
    _print_facts(detail, page)
    if detail.searched:
        page.head("Searched")
        page.pairs({key: number(value) for key, value in detail.searched.items()})
    if detail.metrics:
        page.head("Metrics")
        _print_metrics(detail.metrics, page)
    if detail.config:
        page.head("Config" if detail.kind != "study" else "Parameters")
        _print_config(detail.config, page)
    _print_files(detail, page)
    if commands:
        page.head("Next")
        for command in commands:
            page.line(Text(f"  {plain(command)}"))


def state_style(state: str) -> str:
    """Return the colour of a state."""
    return _STATES.get(state, "dim")


def is_unicode(console: Console) -> bool:
    """Tell whether block characters can be printed."""
    return "utf" in console.encoding.lower()


class _Page:
    """Lines on a console that are never cut: in a terminal long ones go on below, indented."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.is_wide = not console.is_terminal

    def line(self, text: Text) -> None:
        self.console.print(text, soft_wrap=True, highlight=False)

    def head(self, title: str) -> None:
        self.line(Text())
        self.line(Text(title, style="bold"))

    def wrapped(self, text: str, *, first: str, rest: str, style: str = "") -> None:
        """Print a text behind `first`; its further lines behind `rest`."""
        text = plain(text)
        if self.is_wide:
            lines = [first + text]
        else:
            lines = textwrap.wrap(
                text,
                self.console.width,
                initial_indent=first,
                subsequent_indent=rest,
                break_on_hyphens=False,
            )
        for line in lines or [first.rstrip()]:
            self.line(Text(line, style=style))

    def pairs(self, pairs: Mapping[str, str], style: str = "") -> None:
        """Print names and values in two columns."""
        pairs = {plain(name): value for name, value in pairs.items()}
        width = max(map(len, pairs))
        for name, value in pairs.items():
            text = " ".join(value.split())
            text = text if self.is_wide else brief(text, _LONGEST)
            self.wrapped(text, first=f"  {name:<{width}}  ", rest=" " * min(width + 4, 20), style=style)


def _print_facts(detail: RunDetail, page: _Page) -> None:
    row = detail.row
    facts: dict[str, str] = {}
    if row.reason:
        facts["why"] = row.reason
    if row.infeasible:
        facts["infeasible"] = row.infeasible
    for name, direction in row.objectives.items():
        value = row.values.get(name, row.value if name == row.metric else None)
        if name and value is not None:
            facts[name] = f"{number(value)} ({direction})"
    if detail.began:
        took = "" if row.duration_s is None else f", took {duration(row.duration_s)}"
        facts["began"] = f"{detail.began.astimezone():%Y-%m-%d %H:%M:%S %Z}{took}"
    facts["run"] = detail.run.run_id
    if detail.study is not None:
        facts["study"] = detail.study
    elif detail.run.name:
        facts["name"] = detail.run.name
    page.pairs(facts | detail.origin)


def _print_metrics(metrics: Mapping[str, MetricDetail], page: _Page) -> None:
    rows = [(plain(key), number(metric.last), _best(metric), _step(metric)) for key, metric in metrics.items()]
    widths = [max(len(cell) for cell in cells) for cells in zip(("", "last", "best", "step"), *rows, strict=True)]
    used = 2 + sum(widths) + 2 * len(widths)
    room = min(NUM_POINTS, (80 if page.is_wide else page.console.width) - used)
    page.line(
        Text(f"  {'':<{widths[0]}}  {'last':>{widths[1]}}  {'best':>{widths[2]}}  {'step':>{widths[3]}}", style="dim")
    )
    for (key, last, best, step), metric in zip(rows, metrics.values(), strict=True):
        line = f"  {key:<{widths[0]}}  {last:>{widths[1]}}  {best:>{widths[2]}}  {step:>{widths[3]}}"
        curve = metric.curve
        drawn = ""
        if curve is not None and curve.num_points > 1 and (room >= _LEAST_CURVE or page.is_wide):
            width = max(room, _LEAST_CURVE)
            drawn = sparkline(curve.means, width=width, is_unicode=is_unicode(page.console))
        page.line(Text.assemble(line, "  ", (drawn, "cyan")) if drawn else Text(line.rstrip()))


def _best(metric: MetricDetail) -> str:
    if metric.best is None or metric.curve is None or metric.curve.num_points < 2:
        return ""
    return f"{_WORDS.get(metric.direction, '')} {number(metric.best)}".strip()


def _step(metric: MetricDetail) -> str:
    """Return the step of the best value."""
    return "" if not _best(metric) or metric.best_step is None else str(metric.best_step)


def _print_config(config: Mapping[str, str], page: _Page) -> None:
    """Print a group a paragraph in a terminal, and a key a line elsewhere."""
    if page.is_wide:
        for key, value in config.items():
            page.line(Text(f"  {plain(key)}={plain(value)}", style="dim"))
        return
    groups: dict[str, list[str]] = {}
    for key, value in config.items():
        group, dot, rest = plain(key).partition(".")
        groups.setdefault(group if dot else "", []).append(
            f"{rest if dot else key}={brief(' '.join(value.split()), _LONGEST)}"
        )
    width = max(map(len, groups))
    for group, words in groups.items():
        page.wrapped(" ".join(words), first=f"  {group:<{width}}  ", rest=" " * (width + 4), style="dim")


def _print_files(detail: RunDetail, page: _Page) -> None:
    if detail.artifacts or detail.artifacts_problem or detail.folder:
        page.head("Files")
    if detail.artifacts_problem:
        page.wrapped(detail.artifacts_problem, first="  ", rest="  ", style="yellow")
    shown = detail.artifacts[:_MAX_ARTIFACTS]
    width = max((len(memory(file.size)) for file in shown), default=0)
    for file in shown:
        page.line(Text(f"  {memory(file.size):>{width}}  {plain(file.path)}"))
    if len(detail.artifacts) > len(shown):
        page.line(Text(f"  and {len(detail.artifacts) - len(shown)} more; `--format json` has all", style="dim"))
    if detail.folder:
        page.wrapped(f"{detail.folder}", first="  log and checkpoints: ", rest="    ")


def run(args: argparse.Namespace) -> int:
    """Print one run, and what to type next."""
    from sweeps.results.run import read_runs
    from sweeps.results.run_names import best_run_id
    from sweeps.results.summary import run_commands

    (detail,) = read_runs(uri_of(args), [args.run], args.store_dir)
    best = best_run_id(uri_of(args), detail.study) if detail.kind == "trial" and detail.study else None
    commands = run_commands(detail, args.store_dir, args.uri, is_best=best in (None, detail.run.run_id))
    texts = [command.text for command in commands]
    print_run(detail, args.format, console=SafeConsole(), out=sys.stdout, commands=texts)
    return 0
