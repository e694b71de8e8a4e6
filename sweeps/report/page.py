"""The report as one HTML file that opens without a network; all text from the store is escaped.

`page` fills the template `page.html`: the headline and facts from the `StudySummary`, the figures of the charts, and
the trials as a table, which shows only what differs between them.
"""

import ast
import base64
import gzip
import importlib.util
import json
import math
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

from sweeps.core.text import distinct, duration, number, short_names, values_text
from sweeps.core.trials import SEM, counts_text
from sweeps.report.chart import LOOKS, WARMER, WARMER_ON_BLACK, Chart, Panel, Parallel, Role
from sweeps.report.plotly_renderer import parallel_figure, plotly_figure
from sweeps.report.study_view import ROLES, StudyView, plain
from sweeps.results.queries import TrialRow, sorted_rows
from sweeps.results.summary import NO_BEST, NextCommand, StudySummary

__all__ = ["Cell", "Column", "Row", "Table", "load", "page", "table"]

_FOLDER = Path(__file__).parent
_HINTS = {
    "parallel": "Drag along an axis to keep only the lines that pass there; click it to reset.",
    "curves": "Click a name to hide its curves.",
}
_SCALES = {"light": WARMER, "dark": WARMER_ON_BLACK}
_PATHS: dict[str, str] = {
    "circle": "M4 0A4 4 0 1 1 -4 0A4 4 0 1 1 4 0Z",
    "star": "M0-6.5 1.6-2.1 6.2-2 2.5.8 3.8 5.3 0 2.6-3.8 5.3-2.5.8-6.2-2-1.6-2.1Z",
    "triangle-up": "M0-4.5 4.5 3.5-4.5 3.5Z",
    "x-thin": "M-3.5-3.5 3.5 3.5M3.5-3.5-3.5 3.5",
    "cross-thin": "M-4.5 0H4.5M0-4.5V4.5",
    "square": "M-3.5-3.5H3.5V3.5H-3.5Z",
}


def load() -> None:
    """Prepare what all pages share, so that the first page takes no longer than the others."""
    _template()
    _plotly()


def page(
    view: StudyView,
    summary: StudySummary,
    charts: Sequence[Chart],
    *,
    advice: Sequence[str],
    commands: Sequence[NextCommand],
) -> str:
    """Return the HTML of the report.

    Args:
        view: The study, as the charts see it.
        summary: The same study in short.
        charts: The charts to draw.
        advice: The sentences of the advice.
        commands: The commands to offer.
    """
    figures = {chart.name: [_figure(chart, panel) for panel in chart.panels] for chart in charts}
    texts = _set_apart([figure for panels in figures.values() for figure in panels])
    shown = [
        {
            "name": chart.name,
            "title": chart.title,
            "sentence": chart.sentence,
            "hint": _HINTS.get(chart.name, ""),
            "heights": [figure.get("layout", figure)["height"] for figure in figures[chart.name]],
        }
        for chart in charts
    ]
    return str(
        _template().render(
            nonce=secrets.token_urlsafe(16),
            css=_asset("page.css"),
            js=_asset("page.js"),
            plotly=_plotly() if charts else "",
            figures=_embedded({"texts": texts, "charts": figures, "scales": _SCALES}),
            name=view.study.name,
            headline=_headline(view, summary),
            lead=_lead(summary),
            facts=[{"label": label, "value": value} for label, value in _facts(view, summary) if value],
            advice=advice,
            space=_space(view),
            charts=shown,
            key=_key(view),
            table=table(view),
            commands=commands,
            made=_moment(view.now_ms),
        )
    )


def _figure(chart: Chart, panel: Panel) -> dict[str, Any]:
    mark = panel.marks[0]
    if isinstance(mark, Parallel):
        return parallel_figure(mark)
    return plotly_figure(panel, is_one_of_several=len(chart.panels) > 1)


def _set_apart(figures: Iterable[dict[str, Any]]) -> list[str]:
    """Replace the texts of points by indices into one list, since a trial's text is in a dozen figures."""
    places: dict[str, int] = {}
    for figure in figures:
        for holder, key in [(figure, "names"), *((trace, "hovertext") for trace in figure.get("data", ()))]:
            if key in holder:
                holder[key] = [places.setdefault(text, len(places)) for text in holder[key]]
    return list(places)


def _embedded(data: Any) -> str:
    """Return JSON without `<`, since `</script` and `<!--` in it would end the script that holds it."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


@cache
def _template() -> Any:
    """Return the template of the page; it escapes all values."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_asset("page.html"))


def _asset(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    """Return plotly.js, compressed; plotly itself is not imported, since that takes more than 0.1 s."""
    found = importlib.util.find_spec("plotly")
    assert found is not None and found.origin is not None
    script = Path(found.origin).parent / "package_data" / "plotly.min.js"
    return base64.b64encode(gzip.compress(script.read_bytes(), compresslevel=6, mtime=0)).decode()


# --- above the plots


def _headline(view: StudyView, summary: StudySummary) -> list[dict[str, str]]:
    """Return the few numbers that matter most."""
    found, best, count = [], summary.best, len(view.rows)
    if len(summary.objectives) == 1 and best:
        error = f" ± {number(best[0].error)}" if best[0].error else ""
        label = f"{view.metric}, trial #{best[0].number}"
        found.append({"value": f"{number(best[0].value)}{error}", "label": label})
    elif best:
        found.append({"value": str(len(best)), "label": "trials on the Pareto front"})
    found.append({"value": str(count), "label": "trial" if count == 1 else "trials"})
    span = _span(view)
    if span is not None:
        found.append({"value": duration((span[1] - span[0]) / 1000), "label": "from first to last"})
    return found


def _lead(summary: StudySummary) -> str:
    """Say what is optimised, and whether the study has ended with a result."""
    goals = " and ".join(
        f"{'minimises' if way == 'minimize' else 'maximises'} {metric}" for metric, way in summary.objectives.items()
    )
    sentences = [f"{goals[0].upper()}{goals[1:]}."] if goals else []
    if goals and summary.state == "running":
        sentences.append("The study is still running.")
    if goals and summary.state == "interrupted":
        sentences.append("The study was interrupted; it can be resumed.")
    if not summary.counts:
        sentences.append("It has no trial yet.")
    elif not summary.best:
        sentences.append(NO_BEST)
    return " ".join(sentences)


def _facts(view: StudyView, summary: StudySummary) -> Iterable[tuple[str, str]]:
    """Return the label and the text of each fact; an empty text is not shown."""
    params, run_tags = view.study.parent.params, view.study.parent.tags
    if len(summary.best) == 1:
        yield f"Best trial, #{summary.best[0].number}", values_text(summary.best[0].params, is_short=True)
    yield "Trials", counts_text(summary.counts, num_infeasible=summary.num_infeasible)
    span = _span(view)
    if span is not None:
        began, ended = _moment(span[0]), _moment(span[1])
        yield "When", f"{began.removesuffix(' UTC')} to {ended.removeprefix(began[:11])}"
    busy = sum(row.duration_s or 0.0 for row in view.rows)
    yield "Time of all trials together", duration(busy) if busy else ""
    yield "Slots", str(len({row.slot for row in view.rows if row.slot is not None}) or "")
    for group in ("sampler", "pruner"):
        yield group.capitalize(), params.get(f"{group}._target_", "").rpartition(".")[2]
    for key in ("replicates", "folds", "constraints"):
        text = params.get(f"study.{key}")
        yield key.capitalize(), "" if text in (None, "None", "1", "[]") else _in_words(text)
    commit = run_tags.get("mlflow.source.git.commit", "")
    dirty = ", with changes" if run_tags.get("lightsweep.git.dirty") == "true" else ""
    yield "Code", f"{commit[:10]}{dirty}" if commit else ""


def _in_words(text: str) -> str:
    """Return a list that was logged as text without its brackets and quotes, any other text unchanged."""
    try:
        found = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text
    return ", ".join(map(str, found)) if isinstance(found, list) else text


def _span(view: StudyView) -> tuple[int, int] | None:
    """Return when the first trial began and the last one ended, in milliseconds since 1970."""
    began = [row.began_ms for row in view.rows if row.began_ms is not None]
    ends = [
        view.now_ms if row.duration_s is None else row.began_ms + int(1000 * (row.duration_s + row.paused_s))
        for row in view.rows
        if row.began_ms is not None
    ]
    return (min(began), max(ends)) if began else None


def _moment(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _space(view: StudyView) -> list[dict[str, str]]:
    space, best = view.study.space, view.study.best
    if space is None:
        return []
    params = view.params[best[0].run_id] if len(best) == 1 else {}
    return [
        {
            "key": parameter.name,
            "text": parameter.text,
            "best": plain(params[parameter.key_path]) if parameter.key_path in params else "",
        }
        for parameter in space.parameters
    ]


def _key(view: StudyView) -> list[dict[str, str]]:
    """Return the legend: the mark of each role that the study has."""
    roles: set[Role] = {view.role(row) for row in view.rows}
    found = []
    for role in reversed(ROLES):
        if role in roles:
            look = LOOKS[role]
            is_open = look.shape.endswith("-open")
            path = _PATHS[look.shape.removesuffix("-open")]
            name = "on the front" if role == "best" and len(view.study.objectives) > 1 else role
            found.append(
                {"name": name, "path": path, "colour": look.colour, "fill": "none" if is_open else look.colour}
            )
    return found


# --- the table of the trials

_MOST_ROWS = 1000

Texts = Mapping[str, str]
"""the texts of a parameter's values by their `repr`"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A cell of the table; the page's script sorts by `number`, if there is one, else by `text`."""

    text: str
    number: str | None = None
    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column: its short and its full name, how it gets a cell from a trial, and how it is sorted at first."""

    name: str
    title: str
    fill: Callable[[TrialRow], Cell]
    sorted: str = ""
    is_text: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A trial; `role` selects how it looks."""

    role: str
    cells: Sequence[Cell]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The table, the parameters that all of its trials share, and the sentence above it."""

    columns: Sequence[Column]
    rows: Sequence[Row]
    shared: Sequence[str]
    sentence: str


def table(view: StudyView) -> Table:
    """Return the best thousand trials; dropped ones are included and come last."""
    rows = sorted_rows(view.study.trials)
    keys = list(dict.fromkeys(key for row in rows for key in row.params))
    texts = {key: distinct((row.params[key] for row in rows if key in row.params), plain) for key in keys}
    shared = {key: text for key in keys if (text := _shared(key, rows, texts[key])) is not None}
    columns = list(_columns(view, rows, {key: of for key, of in texts.items() if key not in shared}))
    count = "No trial yet." if not rows else f"{len(rows)} trials, best first." if len(rows) > 1 else "One trial."
    cut = f" Here are the best {_MOST_ROWS}; `lightsweep compare` has them all." if len(rows) > _MOST_ROWS else ""
    return Table(
        columns=columns,
        rows=[
            Row(
                role="dropped" if row.state == "dropped" else view.role(row),
                cells=[column.fill(row) for column in columns],
            )
            for row in rows[:_MOST_ROWS]
        ],
        shared=[f"{key}={text}" for key, text in shared.items()],
        sentence=f"{count}{cut}" + (" Click a name to sort by it." if len(rows) > 1 else ""),
    )


def _shared(key: str, rows: Sequence[TrialRow], texts: Texts) -> str | None:
    """Return the value that all trials share, if there are several trials; else None."""
    is_shared = len(rows) > 1 and len(texts) == 1 and all(key in row.params for row in rows)
    return next(iter(texts.values())) if is_shared else None


def _columns(view: StudyView, rows: Sequence[TrialRow], texts: Mapping[str, Texts]) -> Iterator[Column]:
    yield Column(name="trial", title="trial", fill=lambda row: Cell(text=f"#{row.trial}", number=str(row.trial)))
    objectives = view.study.objectives
    goal = "" if len(objectives) > 1 else "ascending" if view.is_minimized() else "descending"
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
    """Write a number as JavaScript reads it; None for NaN and for no value."""
    if value is None or math.isnan(value):
        return None
    return repr(value) if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"
