"""Charts of the search space: the values of trials along one, two or many parameters."""

import itertools
import math
from typing import TYPE_CHECKING

from sweeps.report.chart import Chart, Heat, Panel, Parallel
from sweeps.report.study_view import Scale, StudyView, value_axis
from sweeps.results.queries import TrialRow

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = ["contours_chart", "parallel_chart", "slices_chart"]

_MOST_SLICES = 6
_MOST_PAIRED = 3  # parameters, of which each pair is drawn
_MOST_AXES = 8
_MOST_LINES = 2000
_FEWEST = 5  # trials that a surface needs
_CELLS = 36  # of a surface along an axis
_WIDTH = 0.09  # of the kernel, when an axis is 1 long
_REACH = 2.5  # widths from a trial; farther away nothing is known


def parallel_chart(view: StudyView) -> Chart | None:
    """Chart each complete trial as a line through its parameters and its value."""
    keys = view.keys[:_MOST_AXES]
    able = [row for row in view.rows if row.state == "complete" and math.isfinite(view.value(row))]
    if not keys or len(able) < 2:
        return None
    is_minimized = view.is_minimized()
    best = sorted(able, key=lambda row: view.value(row) * (1 if is_minimized else -1))[:_MOST_LINES]
    drawn = best[::-1]  # the best on top
    scales = {key: view.scale(key) for key in keys}
    values = [tuple(scales[key].place(view.params[row.run_id].get(key, math.nan)) for row in drawn) for key in keys]
    goal = value_axis(view.metric, [view.value(row) for row in drawn], is_minimized=is_minimized)
    parallel = Parallel(
        axes=(*(scales[key].axis for key in keys), goal),
        values=(*values, tuple(view.value(row) for row in drawn)),
        hover=tuple(view.hover(row) for row in drawn),
        is_less_better=is_minimized,
    )
    return Chart(
        name="parallel",
        title="Parallel coordinates",
        sentence="Each line is a complete trial, the warmer the better.",
        panels=(Panel(marks=(parallel,)),),
    )


def slices_chart(view: StudyView) -> Chart | None:
    """Chart the value against each of the most important parameters."""
    values = {row.run_id: view.value(row) for row in view.rows}
    y = value_axis(view.metric, list(values.values()), is_minimized=view.is_minimized())
    panels = []
    for key in view.keys[:_MOST_SLICES]:
        scale = view.scale(key)
        points = view.points(
            [
                (row, scale.spread(view.params[row.run_id][key], row.trial or 0), values[row.run_id])
                for row in view.rows
                if key in view.params[row.run_id]
            ],
            metric=view.metric,
        )
        if points:
            panels.append(Panel(marks=points, x=scale.axis, y=y))
    if not panels:
        return None
    order = ", the most important first" if any(view.importances.values()) else ""
    return Chart(
        name="slices",
        title="One parameter at a time",
        sentence=f"The value of each trial along each parameter{order}.",
        panels=tuple(panels),
    )


def contours_chart(view: StudyView) -> Chart | None:
    """Chart the value over each pair of the most important parameters, smoothed over nearby trials."""
    able = [row for row in view.rows if row.state == "complete" and math.isfinite(view.value(row))]
    pairs = itertools.combinations(view.keys[:_MOST_PAIRED], 2)
    panels = tuple(panel for a, b in pairs if (panel := _contour_panel(view, able, a, b)) is not None)
    if not panels:
        return None
    return Chart(
        name="contours",
        title="Two parameters at a time",
        sentence="The mean of the complete trials nearby, the warmer the better; blank where none was near.",
        panels=panels,
    )


def _contour_panel(view: StudyView, rows: list[TrialRow], first: str, second: str) -> Panel | None:
    import numpy as np

    scales = view.scale(first), view.scale(second)
    placed = []
    for row in rows:
        params = view.params[row.run_id]
        if first not in params or second not in params:
            continue
        x, y = (scale.place(params[key]) for scale, key in zip(scales, (first, second), strict=True))
        if math.isfinite(x) and math.isfinite(y):
            placed.append((row, x, y))
    if len(placed) < _FEWEST:
        return None
    at = np.array([(x, y, view.value(row)) for row, x, y in placed], dtype=np.float64)
    grids = [_grid(at[:, index], scale) for index, scale in enumerate(scales)]
    spans = [_span(at[:, index], scale) for index, scale in enumerate(scales)]
    units = [_unit(at[:, index], scale, span) for index, (scale, span) in enumerate(zip(scales, spans, strict=True))]
    lines = [_unit(grid, scale, span) for grid, scale, span in zip(grids, scales, spans, strict=True)]
    surface = smoothed(units[0], units[1], at[:, 2], lines[0], lines[1])
    low, high = np.quantile(at[:, 2], [0.1, 1.0] if not view.is_minimized() else [0.0, 0.9])
    heat = Heat(
        x=tuple(grids[0].tolist()),
        y=tuple(grids[1].tolist()),
        z=tuple(tuple(line) for line in surface.tolist()),
        label=view.metric,
        low=float(low),
        high=float(high) if high > low else float(low) + 1.0,
        is_less_better=view.is_minimized(),
    )
    points = view.points(
        [
            (
                row,
                scales[0].spread(view.params[row.run_id][first], row.trial or 0),
                scales[1].spread(view.params[row.run_id][second], (row.trial or 0) * 7 + 3),
            )
            for row, _, _ in placed
        ]
    )
    return Panel(marks=(heat, *points), x=scales[0].axis, y=scales[1].axis)


def smoothed(x: "Array", y: "Array", values: "Array", at_x: "Array", at_y: "Array") -> "Array":
    """Return the mean of `values` around each point of a grid, weighted by a Gaussian kernel (Nadaraya, Watson 1964).

    Args:
        x: The coordinates of the known points, on an axis of length 1.
        y: Likewise.
        values: The values of the known points.
        at_x: The coordinates of the columns of the grid.
        at_y: The coordinates of its rows.

    Returns:
        A row for each of `at_y`; NaN where no known point is near.
    """
    import numpy as np

    distances = (at_x[None, :, None] - x) ** 2 + (at_y[:, None, None] - y) ** 2
    weights = np.exp(-distances / (2 * _WIDTH**2))
    total = weights.sum(axis=2)
    means = (weights * values).sum(axis=2) / np.maximum(total, 1e-300)
    means[distances.min(axis=2) > (_REACH * _WIDTH) ** 2] = math.nan
    return np.asarray(means, dtype=np.float64)


def _span(values: "Array", scale: Scale) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _grid(values: "Array", scale: Scale) -> "Array":
    """Return the coordinates of the cells of a surface along an axis."""
    import numpy as np

    axis, low, high = scale.axis, float(values.min()), float(values.max())
    if axis.categories:
        return np.arange(len(axis.categories), dtype=np.float64)
    if axis.is_whole and not axis.is_log and high - low < _CELLS:
        return np.arange(low, high + 1)
    if axis.is_log:
        return np.geomspace(low, high, _CELLS)
    return np.linspace(low, high, _CELLS)


def _unit(values: "Array", scale: Scale, span: tuple[float, float]) -> "Array":
    """Return coordinates on an axis of length 1; categories are so far apart that their values do not mix."""
    import numpy as np

    if scale.axis.categories:
        return np.asarray(values, dtype=np.float64)
    low, high = span
    if scale.axis.is_log:
        values, low, high = np.log(values), math.log(low), math.log(high)
    return np.asarray((values - low) / ((high - low) or 1.0), dtype=np.float64)
