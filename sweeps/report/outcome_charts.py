"""Charts of results: the optimisation history, the Pareto front, the importances of parameters."""

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sweeps.core.pareto import on_front
from sweeps.report.chart import Axis, Bars, Chart, Line, Panel
from sweeps.report.study_view import StudyView, value_axis
from sweeps.results.queries import TrialRow

if TYPE_CHECKING:
    from sweeps.search.importance import Importance

__all__ = ["front_chart", "history_chart", "importances_chart"]

_MOST_BARS = 15
_MOST_OBJECTIVES = 3


def history_chart(view: StudyView) -> Chart | None:
    """Chart the value of each trial by its number, and the best so far."""
    panels = tuple(panel for metric in view.study.objectives if (panel := _history_panel(view, metric)) is not None)
    if not panels:
        return None
    return Chart(name="history", title="Optimisation history", sentence=_history_sentence(view), panels=panels)


def front_chart(view: StudyView) -> Chart | None:
    """Chart each pair of objectives against each other, with the Pareto front."""
    metrics = list(view.study.objectives)[:_MOST_OBJECTIVES]
    panels = [_front_panel(view, a, b, is_only=len(metrics) == 2) for a, b in itertools.combinations(metrics, 2)]
    drawn = tuple(panel for panel in panels if panel.marks)
    if not drawn:
        return None
    count = len(view.study.best)
    sentence = f"{count} of {len(view.rows)} trials: no other is as good in all objectives and better in one."
    return Chart(name="front", title="Pareto front", sentence=sentence, panels=drawn)


def importances_chart(view: StudyView) -> Chart | None:
    """Chart the importance of each parameter."""
    panels = tuple(
        _importances_panel(found[:_MOST_BARS], metric if len(view.importances) > 1 else "")
        for metric, found in view.importances.items()
        if found
    )
    if not panels:
        return None
    weights = [one for found in view.importances.values() for one in found]
    first = next((one for one in view.importances.get(view.metric, ()) if one.is_clear), None)
    if not any(one.is_clear for one in weights):
        sentence = "No parameter stands out: all of this may be chance."
    else:
        difference = "the difference between the best trials and the rest"
        sentence = f"{first.key} explains {first.share:.0%} of {difference}. " if first else ""
        sentence += "" if all(one.is_clear for one in weights) else "Grey: may be chance."
    return Chart(name="importances", title="What mattered", sentence=sentence.strip(), panels=panels)


def _importances_panel(found: "Sequence[Importance]", title: str) -> Panel:
    marks = []
    for role in ("complete", "pruned"):  # as grey as what is pruned
        chosen = [(place, one) for place, one in enumerate(found) if one.is_clear == (role == "complete")]
        if chosen:
            marks.append(
                Bars(
                    y=tuple(float(place) for place, _ in chosen),
                    begin=(0.0,) * len(chosen),
                    end=tuple(one.share for _, one in chosen),
                    hover=tuple(f"{one.key} {one.share:.0%}" for _, one in chosen),
                    texts=tuple(f"{one.share:.0%}" for _, one in chosen),
                    role="complete" if role == "complete" else "pruned",
                )
            )
    names = tuple(one.key for one in found)
    return Panel(marks=tuple(marks), x=Axis(label="share"), y=Axis(categories=names, is_descending=True), title=title)


def _history_panel(view: StudyView, metric: str) -> Panel | None:
    values = {row.run_id: view.value(row, metric) for row in view.rows}
    points = view.points([(row, float(row.trial or 0), values[row.run_id]) for row in view.rows], metric=metric)
    if not points:
        return None
    line = _best_so_far(view, metric) if len(view.study.objectives) == 1 else ()
    return Panel(
        marks=(*line, *points),
        x=Axis(label="trial", is_whole=True),
        y=value_axis(metric, list(values.values()), is_minimized=view.is_minimized(metric)),
    )


def _best_so_far(view: StudyView, metric: str) -> tuple[Line, ...]:
    better = min if view.is_minimized(metric) else max
    able = [(row.trial or 0, view.value(row, metric)) for row in view.rows if _is_candidate(row)]
    able = [(trial, value) for trial, value in able if math.isfinite(value)]
    if len(able) < 2:
        return ()
    best = list(itertools.accumulate((value for _, value in able), better))
    last = float(max(row.trial or 0 for row in view.rows))
    x = (*(float(trial) for trial, _ in able), last)
    return (Line(x=x, y=(*best, best[-1]), role="best", name="best so far", is_step=True),)


def _history_sentence(view: StudyView) -> str:
    if len(view.study.objectives) > 1:
        return "Each objective of every trial, in the order of the trials."
    able = [(row.trial or 0, view.value(row)) for row in view.rows if _is_candidate(row)]
    if len(able) < 2 or not view.study.best:
        return "The value of each trial, in the order of the trials."
    last = view.study.best[0].trial or 0
    after = sum(1 for row in view.rows if (row.trial or 0) > last)
    if not after:
        return f"The last trial, #{last}, is the best: the search was still improving."
    return (
        f"Trial #{last} is the best; the {after} trials after it found nothing better."
        if after > 1
        else (f"Trial #{last} is the best; the one after it was not better.")
    )


def _front_panel(view: StudyView, first: str, second: str, *, is_only: bool) -> Panel:
    placed = [(row, view.value(row, first), view.value(row, second)) for row in view.rows]
    points = view.points([entry for entry in placed if entry[0].state == "complete"])
    line: tuple[Line, ...] = ()
    front = [(x, y) for row, x, y in placed if view.role(row) == "best" and math.isfinite(x) and math.isfinite(y)]
    if is_only and len(front) > 1:
        directions = [view.study.objectives[first], view.study.objectives[second]]
        kept = sorted({point for point, is_on in zip(front, on_front(front, directions), strict=True) if is_on})
        line = (Line(x=tuple(x for x, _ in kept), y=tuple(y for _, y in kept), role="best", name="front"),)
    return Panel(
        marks=(*line, *points),
        x=_front_axis(view, first, [x for _, x, _ in placed]),
        y=_front_axis(view, second, [y for _, _, y in placed]),
    )


def _front_axis(view: StudyView, metric: str, values: list[float]) -> Axis:
    is_minimized = view.is_minimized(metric)
    axis = value_axis(f"{metric} ({'less' if is_minimized else 'more'} is better)", values, is_minimized=is_minimized)
    finite = [value for value in values if math.isfinite(value)]
    is_count = bool(finite) and min(finite) > 0 and max(finite) / min(finite) >= 100
    return Axis(label=axis.label, is_log=axis.is_log or is_count)


def _is_candidate(row: TrialRow) -> bool:
    return row.state == "complete" and not row.infeasible
