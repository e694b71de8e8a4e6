"""The trials of a report as a table: what differs between them, the best first."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sweeps.core.text import distinct, duration, number, short_names
from sweeps.core.trials import SEM
from sweeps.report.subject import Subject, plain
from sweeps.results.queries import TrialRow, sorted_rows

__all__ = ["Cell", "Column", "Row", "Table", "table"]

_MOST_ROWS = 1000

Texts = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What stands in a place of the table; `number` is what a script sorts by, where there is one."""

    text: str
    number: str | None = None
    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column: its name in short and in full, which way it is sorted, and how a trial fills it."""

    name: str
    title: str
    fill: Callable[[TrialRow], Cell]
    sorted: str = ""
    is_text: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A trial; `role` is how it looks."""

    role: str
    cells: Sequence[Cell]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The table, what is the same in all of its trials, and what to say of it."""

    columns: Sequence[Column]
    rows: Sequence[Row]
    shared: Sequence[str]
    sentence: str


def table(subject: Subject) -> Table:
    """Return the best thousand trials, dropped ones too, which come last."""
    rows = sorted_rows(subject.study.trials)
    keys = list(dict.fromkeys(key for row in rows for key in row.params))
    texts = {key: distinct((row.params[key] for row in rows if key in row.params), plain) for key in keys}
    shared = {key: text for key in keys if (text := _shared(key, rows, texts[key])) is not None}
    columns = list(_columns(subject, rows, {key: of for key, of in texts.items() if key not in shared}))
    count = "No trial yet." if not rows else f"{len(rows)} trials, best first." if len(rows) > 1 else "One trial."
    cut = f" Here are the best {_MOST_ROWS}; `lightsweep compare` has them all." if len(rows) > _MOST_ROWS else ""
    return Table(
        columns=columns,
        rows=[
            Row(
                role="dropped" if row.state == "dropped" else subject.role(row),
                cells=[column.fill(row) for column in columns],
            )
            for row in rows[:_MOST_ROWS]
        ],
        shared=[f"{key}={text}" for key, text in shared.items()],
        sentence=f"{count}{cut}" + (" A click on a name sorts by it." if len(rows) > 1 else ""),
    )


def _shared(key: str, rows: Sequence[TrialRow], texts: Texts) -> str | None:
    """Return the one value that all of several trials have; None if there is none."""
    is_shared = len(rows) > 1 and len(texts) == 1 and all(key in row.params for row in rows)
    return next(iter(texts.values())) if is_shared else None


def _columns(subject: Subject, rows: Sequence[TrialRow], texts: Mapping[str, Texts]) -> Iterator[Column]:
    yield Column(name="trial", title="trial", fill=lambda row: Cell(text=f"#{row.trial}", number=str(row.trial)))
    objectives = subject.study.objectives
    goal = "" if len(objectives) > 1 else "ascending" if subject.is_minimized() else "descending"
    for metric in objectives:
        yield Column(name=metric, title=metric, sorted=goal, fill=partial(_objective, metric))
        error = f"{metric}{SEM}"
        if any(error in row.metrics for row in rows):
            title = f"standard error of {metric}"
            yield Column(name="±", title=title, fill=partial(_metric, error))
    names = short_names(texts)
    for key, of in texts.items():
        is_text = any(not _is_number(row.params.get(key, 0)) for row in rows)
        yield Column(name=names[key], title=key, is_text=is_text, fill=partial(_param, key, of))
    yield Column(name="state", title="state", is_text=True, fill=_state)
    yield Column(name="time", title="time", fill=_time)
    if any(row.reason or row.infeasible for row in rows):
        yield Column(name="why", title="why", is_text=True, fill=_why)


def _objective(metric: str, row: TrialRow) -> Cell:
    return _value(row.values.get(metric, row.value if metric == row.metric else None))


def _metric(key: str, row: TrialRow) -> Cell:
    return _value(row.metrics.get(key))


def _value(value: float | None) -> Cell:
    return Cell(text="" if value is None else number(value), number=_js(value))


def _param(key: str, texts: Texts, row: TrialRow) -> Cell:
    if key not in row.params:
        return Cell(text="")
    value = row.params[key]
    return Cell(text=texts[repr(value)], number=_js(value) if _is_number(value) else None)


def _state(row: TrialRow) -> Cell:
    return Cell(text="infeasible" if row.state == "complete" and row.infeasible else row.state)


def _time(row: TrialRow) -> Cell:
    return Cell(text="" if row.duration_s is None else duration(row.duration_s), number=_js(row.duration_s))


def _why(row: TrialRow) -> Cell:
    why = row.reason or row.infeasible
    return Cell(text=why, title=why)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _js(value: float | None) -> str | None:
    """Say a number as JavaScript reads it."""
    if value is None or math.isnan(value):
        return None
    return repr(value) if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"
