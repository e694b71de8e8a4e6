"""The report as one HTML file, which opens without a network: all that comes from the store is escaped."""

import ast
import base64
import gzip
import importlib.util
import json
import secrets
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from sweeps.core.text import duration, number, values_text
from sweeps.report.chart import Chart, Panel, Parallel, Role
from sweeps.report.commands import Commands
from sweeps.report.palette import LOOKS, WARMER, WARMER_ON_BLACK
from sweeps.report.plotly_figure import parallel_figure, plotly_figure
from sweeps.report.subject import ROLES, Subject, plain
from sweeps.report.table import table

__all__ = ["load", "page"]

_FOLDER = Path(__file__).parent
_HINTS = {
    "parallel": "Drag along an axis to keep only what passes there; click it to let go.",
    "curves": "A click on a name hides its curves.",
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
    """Do what is the same for all pages: for a moment at which nobody waits."""
    _template()
    _plotly()


def page(subject: Subject, charts: Sequence[Chart], *, advice: Sequence[str], commands: Commands) -> str:
    """Return the file's text.

    Args:
        subject: The study.
        charts: What to draw.
        advice: Sentences.
        commands: What each is for, and what to type.
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
            name=subject.study.name,
            headline=_headline(subject),
            lead=_lead(subject),
            facts=[{"label": label, "value": value} for label, value in _facts(subject) if value],
            advice=advice,
            space=_space(subject),
            charts=shown,
            key=_key(subject),
            table=table(subject),
            commands=[{"what": what, "text": text} for what, text in commands],
            made=_moment(subject.now_ms),
        )
    )


def _figure(chart: Chart, panel: Panel) -> dict[str, Any]:
    mark = panel.marks[0]
    if isinstance(mark, Parallel):
        return parallel_figure(mark)
    return plotly_figure(panel, is_one_of_several=len(chart.panels) > 1)


def _set_apart(figures: Iterable[dict[str, Any]]) -> list[str]:
    """Replace the texts of points by their places in one list: each trial's is in a dozen figures."""
    places: dict[str, int] = {}
    for figure in figures:
        for holder, key in [(figure, "names"), *((trace, "hovertext") for trace in figure.get("data", ()))]:
            if key in holder:
                holder[key] = [places.setdefault(text, len(places)) for text in holder[key]]
    return list(places)


def _embedded(data: Any) -> str:
    """Return JSON that nothing in it can end early: the page's parser looks for `</script` and `<!--` alone."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


@cache
def _template() -> Any:
    """Return the page's template; it escapes whatever it is given."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_asset("page.html"))


def _asset(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    """Return plotly.js, packed; found without importing plotly, which takes a tenth of a second and more."""
    found = importlib.util.find_spec("plotly")
    assert found is not None and found.origin is not None
    script = Path(found.origin).parent / "package_data" / "plotly.min.js"
    return base64.b64encode(gzip.compress(script.read_bytes(), compresslevel=6, mtime=0)).decode()


# --- what stands above the plots


def _headline(subject: Subject) -> list[dict[str, str]]:
    """Return the few numbers that matter most."""
    study, found = subject.study, []
    if len(study.objectives) == 1 and study.best:
        best = study.best[0]
        error = subject.error(best)
        value = f"{number(subject.value(best))} ± {number(error)}" if error else number(subject.value(best))
        found.append({"value": value, "label": f"{subject.metric}, trial #{best.trial}"})
    elif study.best:
        found.append({"value": str(len(study.best)), "label": "trials on the Pareto front"})
    found.append({"value": str(len(subject.rows)), "label": "trial" if len(subject.rows) == 1 else "trials"})
    span = _span(subject)
    if span is not None:
        found.append({"value": duration((span[1] - span[0]) / 1000), "label": "from first to last"})
    return found


def _lead(subject: Subject) -> str:
    goals = " and ".join(
        f"{'Minimises' if way == 'minimize' else 'Maximises'} {metric}"
        for metric, way in subject.study.objectives.items()
    ).replace(" and M", " and m")
    state = {"running": " The study is still running.", "interrupted": " The study was interrupted; it can go on."}
    empty = "" if subject.rows else " It has no trial yet."
    if subject.rows and not subject.study.best:
        empty = " There is no best trial: none is complete and satisfies the constraints."
    return f"{goals}.{state.get(subject.state, '')}{empty}" if goals else empty.strip()


def _facts(subject: Subject) -> Iterable[tuple[str, str]]:
    study = subject.study
    params, run_tags = study.parent.params, study.parent.tags
    roles = [("infeasible" if row.state == "complete" and row.infeasible else row.state) for row in subject.rows]
    order = ("complete", "infeasible", "pruned", "failed", "interrupted", "running")
    if len(study.best) == 1:
        yield f"Best trial, #{study.best[0].trial}", values_text(study.best[0].params, is_short=True)
    yield "Trials", ", ".join(f"{roles.count(state)} {state}" for state in order if state in roles)
    span = _span(subject)
    if span is not None:
        began, ended = _moment(span[0]), _moment(span[1])
        yield "When", f"{began.removesuffix(' UTC')} to {ended.removeprefix(began[:11])}"
    busy = sum(row.duration_s or 0.0 for row in subject.rows)
    yield "Time of all trials together", duration(busy) if busy else ""
    yield "Slots", str(len({row.slot for row in subject.rows if row.slot is not None}) or "")
    yield "Sampler", _class(params.get("sampler._target_", ""))
    yield "Pruner", _class(params.get("pruner._target_", ""))
    for key, label in (
        ("study.replicates", "Replicates"),
        ("study.folds", "Folds"),
        ("study.constraints", "Constraints"),
    ):
        yield label, "" if params.get(key) in (None, "None", "1", "[]") else _in_words(params[key])
    commit = run_tags.get("mlflow.source.git.commit", "")
    dirty = ", with changes" if run_tags.get("lightsweep.git.dirty") == "true" else ""
    yield "Code", f"{commit[:10]}{dirty}" if commit else ""


def _in_words(text: str) -> str:
    """Return a list as it was written to MLflow without its brackets and quotes; other texts as they are."""
    try:
        found = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text
    return ", ".join(map(str, found)) if isinstance(found, list) else text


def _class(target: str) -> str:
    return target.rpartition(".")[2]


def _span(subject: Subject) -> tuple[int, int] | None:
    """Return when the first trial began and the last one ended, in milliseconds."""
    began = [row.began_ms for row in subject.rows if row.began_ms is not None]
    ends = [
        subject.now_ms if row.duration_s is None else row.began_ms + int(1000 * (row.duration_s + row.paused_s))
        for row in subject.rows
        if row.began_ms is not None
    ]
    return (min(began), max(ends)) if began else None


def _moment(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _space(subject: Subject) -> list[dict[str, str]]:
    space, best = subject.study.space, subject.study.best
    if space is None:
        return []
    params = subject.params[best[0].run_id] if len(best) == 1 else {}
    return [
        {
            "key": parameter.name,
            "text": parameter.text,
            "best": plain(params[parameter.place]) if parameter.place in params else "",
        }
        for parameter in space.parameters
    ]


def _key(subject: Subject) -> list[dict[str, str]]:
    """Say what the marks of the roles look like that the study has."""
    roles: set[Role] = {subject.role(row) for row in subject.rows}
    found = []
    for role in reversed(ROLES):
        if role in roles:
            look = LOOKS[role]
            is_open = look.shape.endswith("-open")
            path = _PATHS[look.shape.removesuffix("-open")]
            name = "on the front" if role == "best" and len(subject.study.objectives) > 1 else role
            found.append(
                {"name": name, "path": path, "colour": look.colour, "fill": "none" if is_open else look.colour}
            )
    return found
