"""The report as one HTML file, which opens without a network: all that comes from the store is escaped.

The trials of a report as a table: what differs between them, the best first.

The commands that a report offers: to look at the study, to go on with it, to train its best once more.
"""

import ast
import base64
import gzip
import importlib.util
import json
import math
import secrets
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.core import paths
from sweeps.core.errors import LightsweepError
from sweeps.core.text import distinct, duration, number, short_names, values_text
from sweeps.core.trials import SEM
from sweeps.report.chart import LOOKS, WARMER, WARMER_ON_BLACK, Chart, Panel, Parallel, Role
from sweeps.report.plotly_renderer import parallel_figure, plotly_figure
from sweeps.report.study_view import ROLES, Subject, plain
from sweeps.results.queries import TrialRow, sorted_rows
from sweeps.search.space.typed_secrets import hide_typed
from sweeps.tracking import tags

if TYPE_CHECKING:
    from sweeps.results.study import StoredStudy

__all__ = ["Cell", "Column", "Commands", "Row", "Table", "load", "next_commands", "page", "table", "train_command"]

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


Commands = list[tuple[str, str]]


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


"""What each is for, and what to type."""

_IRRELEVANT = ("study.name", "study.storage", "study.num_trials", "study.timeout_s", "study.device_hours", "store_dir")


def next_commands(study: "StoredStudy", store_dir: Path, *, where: str = "") -> Commands:
    """Return the commands, each with what it is for.

    Args:
        study: As the store tells it.
        store_dir: The folder with that of the study, if this machine has it.
        where: The options by which a command finds the store.
    """
    name = shlex.quote(study.name)
    found = [("All trials, best first", f"lightsweep compare {name} --top 10{where}")]
    if study.best:
        best = study.best[0]
        which = "The best trial" if len(study.best) == 1 else f"#{best.trial}, the first of the front"
        found.append(
            (f"{which}, with all that is known of it", f"lightsweep show {shlex.quote(f'best:{study.name}')}{where}")
        )
        found.append(
            (
                f"{which}, trained again and proved equal",
                f"lightsweep reproduce {shlex.quote(f'best:{study.name}')}{where}",
            )
        )
        again = train_command(study, best, store_dir)
        if again is not None:
            params = study.parent.params
            is_one = all(params.get(f"study.{key}") in (None, "1", "None") for key in ("replicates", "folds"))
            what = "as a training" if is_one else "the first of its trainings, as one"
            found.append((f"{which}, {what} of its own, to change this or that", again))
    if (paths.study_dir(store_dir, study.name) / paths.STUDY).is_file():
        folder = "" if store_dir == Path("mlruns") else f" --store-dir {shlex.quote(str(store_dir))}"
        more = f"study.num_trials={2 * max(len(study.trials), 1)}"
        found.append(("Go on, up to a larger total", f"lightsweep resume {name}{folder} {more}"))
    if not study.uri.startswith("http"):
        found.append(("All of it in MLflow's UI", f"lightsweep ui {name}{where}"))
    return found


def train_command(study: "StoredStudy", row: TrialRow, store_dir: Path) -> str | None:
    """Return the command that trains a trial's configuration again, from the sweep's command line and its seed.

    With as many threads as the slots of the sweep had: on another number sums come out otherwise, and after some
    epochs so do accuracies.
    Of a trial that was trained several times, the first of its trainings; None if its folder is not on this machine.
    """
    from sweeps.config.quoting import quote, verbatim
    from sweeps.config.study_file import read_record
    from sweeps.core.safe_yaml import read_config
    from sweeps.search.space.declare import key_of, split_overrides

    folder = paths.trial_dir(paths.study_dir(store_dir, study.name), row.trial or 0)
    folder = paths.replicate_dir(folder, 0) if paths.replicate_dir(folder, 0).is_dir() else folder
    try:
        record = read_record(study.name, store_dir)
        config = read_config(folder / paths.CONFIG)
        plain, _ = split_overrides(record["overrides"])
        own = {"seed": config["seed"]}
        if (config["data"] or {}).get("num_folds") is not None:
            own |= {"data.num_folds": config["data"]["num_folds"], "data.fold": config["data"]["fold"]}
        replaced = {*_IRRELEVANT, *own}
        kept = [text for text in plain if key_of(text) not in replaced and hide_typed(text) == text]
    except (LightsweepError, OSError, KeyError, TypeError):
        return None
    searched = _searched(study, row, quote)
    words = ["lightsweep", "train", "--config-name", record["config_name"]]
    words += ["--config-dir", record["config_dir"]] if record["config_dir"] else []
    words += [*kept, *searched, *(f"{key}={quote(value)}" for key, value in own.items() if key not in row.params)]
    threads = study.parent.tags.get(tags.THREADS)
    is_said = any(key_of(text) == "launcher.threads" for text in kept)
    words += [] if threads is None or is_said else [f"launcher.threads={threads}"]
    words += [] if store_dir == Path("mlruns") else [f"store_dir={verbatim(str(store_dir))}"]
    return " ".join(map(shlex.quote, words))


def _searched(study: "StoredStudy", row: TrialRow, quote: Any) -> Sequence[str]:
    space = study.space
    if space is not None and row.params.keys() <= set(space.keys):
        return space.overrides(row.params)
    return [f"{key}={quote(value)}" for key, value in row.params.items()]
