"""Charts over time: learning curves, and the timeline of the trials in their slots."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sweeps.core.text import number
from sweeps.report.chart import Axis, Bars, Chart, Line, Panel, Points, Role
from sweeps.report.study_view import ROLES, StudyView, value_axis
from sweeps.results.queries import TrialRow

if TYPE_CHECKING:
    from sweeps.results.histories import History

__all__ = ["curves_chart", "timeline_chart"]

_MOST_IN_FULL = 20  # curves, when they are many; the others are faint
_MOST_FAINT = 150
_FEW = 60  # curves up to which all are drawn in full
_POINTS = 200  # of a curve
_FAINT_POINTS = 40
_MOST_SESSIONS = 4
_LONG_GAP_S = 60.0
_UNITS = ((90 * 60.0, 3600.0, "hours"), (90.0, 60.0, "minutes"), (0.0, 1.0, "seconds"))


def curves_chart(view: StudyView) -> Chart | None:
    """Chart the judged metric of each trial over its steps."""
    found = _reported(view)
    if found is None:
        return None
    metric, histories = found
    rows = [row for row in view.rows if row.trial in histories]
    is_minimized = view.is_minimized(metric)
    rank = {"best": 0, "complete": 1, "infeasible": 2, "running": 2}
    ordered = sorted(
        rows,
        key=lambda row: (rank.get(view.role(row), 3), _order(view.value(row), is_minimized), row.trial or 0),
    )
    full, others = (ordered, []) if len(ordered) <= _FEW else (ordered[:_MOST_IN_FULL], ordered[_MOST_IN_FULL:])
    faint = others[:: max(1, math.ceil(len(others) / _MOST_FAINT))]
    lines = [
        *_lines(view, faint, histories, metric, most=_FAINT_POINTS, is_faint=True),
        *_lines(view, full, histories, metric, most=_POINTS, is_faint=False),
    ]
    if not lines:
        return None
    values = [value for line in lines for value in line.y]
    stopped = sum(row.state == "pruned" for row in rows)
    sentence = f"{metric} while trials trained." + (f" A cross: pruned there ({stopped} trials)." if stopped else "")
    if others:
        sentence += f" The best {len(full)} in full, {len(faint)} of the {len(others)} others faint."
    panel = Panel(
        marks=(*lines, *_ends(view, full, histories)),
        x=Axis(label="step"),
        y=value_axis(metric, values, is_minimized=is_minimized),
    )
    return Chart(name="curves", title="Learning curves", sentence=sentence, panels=(panel,))


def timeline_chart(view: StudyView) -> Chart | None:
    """Chart which trial ran when, and in which slot."""
    spans = [(row.began_ms / 1000, _end_s(row, view.now_ms), row) for row in view.rows if row.began_ms is not None]
    spans.sort(key=lambda span: (span[0], span[2].trial or 0))
    if not spans:
        return None
    sessions = _sessions(spans)[-_MOST_SESSIONS:]
    panels = tuple(_timeline_panel(view, session, has_title=len(sessions) > 1) for session in sessions)
    busy = sum(end - begin for begin, end, _ in spans)
    lost = sum(end - begin for begin, end, row in spans if row.state in ("pruned", "failed"))
    share = f" {lost / busy:.0%} of the time went to trials that were pruned or failed." if busy > 0 else ""
    return Chart(
        name="timeline",
        title="Timeline",
        sentence=f"Which trial ran when{', one row for each slot' if _has_slots(spans) else ' beside which'}.{share}",
        panels=panels,
    )


def _reported(view: StudyView) -> "tuple[str, Mapping[int, History]] | None":
    """Return the first metric that has histories of several points: an objective, or another metric of validation."""
    known = {key for row in view.rows for key in row.metrics}
    validated = sorted(key for key in known if key.startswith("val/") and not key.endswith("_sem"))
    for metric in dict.fromkeys((*view.study.objectives, *validated)):
        histories = view.histories(metric) if metric else {}
        if any(len(history.steps) > 1 for history in histories.values()):
            return metric, histories
    return None


def _lines(
    view: StudyView,
    rows: Sequence[TrialRow],
    histories: "Mapping[int, History]",
    metric: str,
    *,
    most: int,
    is_faint: bool,
) -> list[Line]:
    """Return the curves of trials, those of one role as one line with gaps."""
    of_role: dict[Role, list[TrialRow]] = {}
    for row in rows:
        of_role.setdefault(view.role(row), []).append(row)
    lines = []
    for role in ROLES:
        x: list[float] = []
        y: list[float] = []
        hover: list[str] = []
        for row in of_role.get(role, []):
            for step, value in _thinned(histories[row.trial or 0], most):
                x.append(step)
                y.append(value)
                hover.append(f"#{row.trial} {metric} {number(value)}")
            x.append(math.nan)
            y.append(math.nan)
            hover.append("")
        if any(map(math.isfinite, y)):
            name = "" if is_faint else role
            lines.append(Line(x=x, y=y, hover=hover, role=role, name=name, is_faint=is_faint))
    return lines


def _ends(view: StudyView, rows: Sequence[TrialRow], histories: "Mapping[int, History]") -> tuple[Points, ...]:
    """Mark where pruned and failed trials ended."""
    placed = []
    for row in rows:
        if row.state in ("pruned", "failed"):
            finite = [(x, y) for x, y in _thinned(histories[row.trial or 0], _POINTS) if math.isfinite(y)]
            placed += [(row, *finite[-1])] if finite else []
    return view.points(placed)


def _thinned(history: "History", most: int) -> list[tuple[float, float]]:
    """Return at most so many points, evenly spaced, the last one included."""
    steps, values = history.steps.tolist(), history.values.tolist()
    points = [
        (float(step), value if math.isfinite(value) else math.nan) for step, value in zip(steps, values, strict=True)
    ]
    if len(points) <= most:
        return points
    return [points[round(place * (len(points) - 1) / (most - 1))] for place in range(most)]


def _order(value: float, is_minimized: bool) -> float:
    return math.inf if math.isnan(value) else value if is_minimized else -value


Span = tuple[float, float, TrialRow]


def _end_s(row: TrialRow, now_ms: int) -> float:
    begin = (row.began_ms or 0) / 1000
    return begin + row.duration_s + row.paused_s if row.duration_s is not None else max(begin, now_ms / 1000)


def _sessions(spans: Sequence[Span]) -> list[list[Span]]:
    """Split the trials where nothing ran for a long time: a study may be resumed after days."""
    sessions: list[list[Span]] = []
    last = -math.inf
    for span in spans:
        busy = last - sessions[-1][0][0] if sessions else 0.0
        if not sessions or span[0] - last > max(_LONG_GAP_S, 0.5 * busy):
            sessions.append([])
        sessions[-1].append(span)
        last = max(last, span[1])
    return sessions


def _timeline_panel(view: StudyView, spans: Sequence[Span], *, has_title: bool) -> Panel:
    start = spans[0][0]
    length = max(end for _, end, _ in spans) - start
    _, divisor, unit = next(entry for entry in _UNITS if length >= entry[0])
    lanes = _lanes(spans)
    places = {lane: place for place, lane in enumerate(sorted(set(lanes)))}
    bars = []
    for role in ROLES:
        chosen = [(span, lane) for span, lane in zip(spans, lanes, strict=True) if view.role(span[2]) == role]
        if chosen:
            bars.append(
                Bars(
                    y=tuple(float(places[lane]) for _, lane in chosen),
                    begin=tuple((begin - start) / divisor for (begin, _, _), _ in chosen),
                    end=tuple((end - start) / divisor for (_, end, _), _ in chosen),
                    hover=tuple(view.hover(row) for (_, _, row), _ in chosen),
                    role=role,
                )
            )
    began = datetime.fromtimestamp(start, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return Panel(
        marks=tuple(bars),
        x=Axis(label=f"{unit} since {began}"),
        y=Axis(
            label="slot" if _has_slots(spans) else "at once", categories=tuple(map(str, places)), is_descending=True
        ),
        title=began if has_title else "",
    )


def _has_slots(spans: Sequence[Span]) -> bool:
    """Tell whether the slot of each trial is known; the replicates of one trial may have run in several."""
    return all(row.slot is not None for _, _, row in spans)


def _lanes(spans: Sequence[Span]) -> list[int]:
    """Return the slot of each trial; if slots are unknown, the first row that was free."""
    if _has_slots(spans):
        return [row.slot or 0 for _, _, row in spans]
    free_from: list[float] = []
    lanes = []
    for begin, end, _ in spans:
        lane = next((place for place, free in enumerate(free_from) if free <= begin + 1e-3), len(free_from))
        free_from[lane : lane + 1] = [end]
        lanes.append(lane)
    return lanes
