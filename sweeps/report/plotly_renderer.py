"""Turn a panel into a figure of plotly.js, as plain data for JSON: plotly's Python objects take a second to import."""

import html
import math
from collections.abc import Sequence
from typing import Any

from sweeps.report.chart import (
    LOOKS,
    MISSING,
    WARMER,
    Axis,
    Bars,
    Heat,
    Line,
    Mark,
    Panel,
    Parallel,
    Points,
    parallel_axes,
)

__all__ = ["parallel_figure", "plotly_figure"]

_DIGITS = 6  # of a number in the page
_HEIGHT = 380
_HEIGHT_OF_SEVERAL = 320
_HEIGHT_OF_PARALLEL = 400
_BAR, _LANE = 30, 34
_MOST_TICKS = 8

Json = dict[str, Any]


def plotly_figure(panel: Panel, *, is_one_of_several: bool = False) -> Json:
    """Return `data` and `layout` of a panel.

    Args:
        panel: The panel.
        is_one_of_several: Whether the chart has several panels; each is smaller then, without a legend.
    """
    traces = [_trace(mark) for mark in panel.marks]
    names: set[str] = set()
    for trace in traces:  # each name once; a click on it hides all of that role. The page has a key to the others
        name = trace.get("name", "") if trace.get("mode") == "lines" else ""
        trace["showlegend"] = bool(name) and name not in names
        names.add(name)
    layout: Json = {
        "height": _height(panel, _HEIGHT_OF_SEVERAL if is_one_of_several else _HEIGHT),
        "margin": {"l": 8, "r": 16, "t": 40 if panel.title else 16, "b": 8},
        "hovermode": "closest",
        "showlegend": not is_one_of_several and len(names - {""}) > 1,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
    }
    if panel.title:
        layout["title"] = {"text": _text(panel.title), "font": {"size": 13}, "x": 0, "xanchor": "left"}
    layout["xaxis"] = _axis(panel.x, _values(panel, is_x=True))
    layout["yaxis"] = _axis(panel.y, _values(panel, is_x=False))
    bars = [mark for mark in panel.marks if isinstance(mark, Bars)]
    if bars:
        layout["barmode"] = "overlay"
        layout["bargap"] = 0.35
        layout["xaxis"]["rangemode"] = "tozero"
        if any(mark.texts for mark in bars):
            layout["xaxis"] |= {"tickformat": ".0%", "range": [0, 1.15 * max(max(mark.end) for mark in bars)]}
    return {"data": traces, "layout": layout}


def parallel_figure(mark: Parallel) -> Json:
    """Return parallel coordinates for the script of the page: plotly draws them by WebGL, which some browsers lack.

    Heights are from 0 to 1; `goal` is the quality of each line, likewise.
    """
    found = parallel_axes(mark)
    goal = [1 - height if mark.is_less_better else height for height in found[-1].heights]
    return {
        "height": _HEIGHT_OF_PARALLEL,
        "missing": MISSING,
        "axes": [{"label": column.label, "ticks": [list(tick) for tick in column.ticks]} for column in found],
        "lines": [[round(height, 4) for height in line] for line in zip(*(c.heights for c in found), strict=True)],
        "goal": [round(value, 4) for value in goal],
        "names": list(mark.hover),
    }


def _trace(mark: Mark) -> Json:
    match mark:
        case Points():
            return _points(mark)
        case Line():
            return _line(mark)
        case Bars():
            return _bars(mark)
        case Heat():
            return _heat(mark)
        case Parallel():
            raise TypeError("parallel coordinates are drawn by `parallel_figure`")


def _points(mark: Points) -> Json:
    look = LOOKS[mark.role]
    is_open = look.shape.endswith("-open")
    trace: Json = {
        "type": "scatter",
        "mode": "markers",
        "x": _numbers(mark.x),
        "y": _numbers(mark.y),
        "marker": {
            "color": look.colour,
            "symbol": look.shape,
            "size": look.size,
            "line": {"width": 1.6 if is_open else 0.8, "color": look.colour if is_open else "rgba(255,255,255,0.65)"},
        },
        **_hover(mark.hover),
        "name": mark.role,
        "legendgroup": mark.role,
    }
    if mark.errors:
        trace["error_y"] = {
            "type": "data",
            "array": _numbers(mark.errors),
            "color": look.colour,
            "thickness": 1.2,
            "width": 3,
        }
    return trace


def _line(mark: Line) -> Json:
    width = 1.0 if mark.is_faint else 2.0 if mark.role == "best" else 1.4
    return {
        "type": "scatter",
        "mode": "lines",
        "x": _numbers(mark.x),
        "y": _numbers(mark.y),
        "line": {"color": LOOKS[mark.role].colour, "width": width, "shape": "hv" if mark.is_step else "linear"},
        "opacity": 0.28 if mark.is_faint else 1.0 if mark.role == "best" else 0.75,
        "connectgaps": False,
        **(_hover(mark.hover) if mark.hover else {"hoverinfo": "skip"}),
        "name": mark.name,
        "legendgroup": mark.name or mark.role,
    }


def _bars(mark: Bars) -> Json:
    lengths = [end - begin for begin, end in zip(mark.begin, mark.end, strict=True)]
    trace: Json = {
        "type": "bar",
        "orientation": "h",
        "y": _numbers(mark.y),
        "x": _numbers(lengths),
        "base": _numbers(mark.begin),
        "marker": {"color": LOOKS[mark.role].colour, "line": {"width": 0.5, "color": "rgba(255,255,255,0.65)"}},
        **_hover(mark.hover),
        "name": "" if mark.texts else mark.role,
        "legendgroup": mark.role,
    }
    if mark.texts:
        trace |= {"text": [_text(text) for text in mark.texts], "textposition": "outside", "cliponaxis": False}
    return trace


def _heat(mark: Heat) -> Json:
    return {
        "type": "heatmap",
        "x": _numbers(mark.x),
        "y": _numbers(mark.y),
        "z": [_numbers(line) for line in mark.z],
        "zmin": mark.low,
        "zmax": mark.high,
        "colorscale": _scale(),
        "reversescale": mark.is_less_better,
        "hoverongaps": False,
        "hovertemplate": f"{_text(mark.label)} about %{{z:.4g}}<extra></extra>",
        "showscale": True,
        "colorbar": {"thickness": 8, "outlinewidth": 0, "len": 0.9, "tickfont": {"size": 10}, "nticks": 5},
    }


def _values(panel: Panel, *, is_x: bool) -> list[float]:
    marks = [mark for mark in panel.marks if isinstance(mark, Points | Line | Heat)]
    return [value for mark in marks for value in (mark.x if is_x else mark.y) if math.isfinite(value)]


def _axis(axis: Axis, values: Sequence[float]) -> Json:
    found: Json = {"automargin": True, "zeroline": False, "title": {"text": _text(axis.label), "standoff": 10}}
    if axis.categories:
        count = len(axis.categories)
        ends = [-0.5, count - 0.5]
        return found | {
            "tickvals": list(range(count)),
            "ticktext": [_text(name) for name in axis.categories],
            "range": ends[::-1] if axis.is_descending else ends,
            "showgrid": False,
        }
    if axis.is_log:
        return found | {"type": "log", "tickformat": "~g", "dtick": 1}
    if axis.is_whole:
        found["tickformat"] = "d"
        if values and max(values) - min(values) <= _MOST_TICKS:
            found["dtick"] = 1  # else halves, shown as whole numbers
    return found


def _height(panel: Panel, usual: int) -> int:
    if any(isinstance(mark, Bars) for mark in panel.marks):
        each = _BAR if any(isinstance(mark, Bars) and mark.texts for mark in panel.marks) else _LANE
        return 110 + each * max(len(panel.y.categories), 1)
    return usual


def _hover(texts: Sequence[str]) -> Json:
    """Return the text beside the pointer; plotly would write its `text` on bars."""
    return {"hovertext": [_text(text) for text in texts], "hovertemplate": "%{hovertext}<extra></extra>"}


def _scale() -> list[list[Any]]:
    return [[place / (len(WARMER) - 1), colour] for place, colour in enumerate(WARMER)]


def _numbers(values: Sequence[float]) -> list[float | None]:
    """Return numbers for JSON, rounded so far that no difference can be seen; None for NaN and infinity."""
    return [float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None for value in values]


def _text(text: str) -> str:
    """Escape a text for plotly, which interprets tags as markup."""
    return html.escape(text, quote=False).replace("\n", "<br>")
