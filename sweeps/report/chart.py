"""The vocabulary of charts: plain data that both renderers, plotly in the page and matplotlib for PNGs, draw.

A `Chart` has panels, a `Panel` has marks on two axes, and a mark has a `Role`, for which `LOOKS` has a colour and a
shape. `parallel_axes` computes what is the same for both renderers of parallel coordinates.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sweeps.core.text import number

__all__ = [
    "LOOKS",
    "MISSING",
    "WARMER",
    "WARMER_ON_BLACK",
    "Axis",
    "Bars",
    "Chart",
    "Heat",
    "Line",
    "Look",
    "Mark",
    "Panel",
    "Parallel",
    "ParallelAxis",
    "Points",
    "Role",
    "parallel_axes",
]

Role = Literal["best", "complete", "infeasible", "pruned", "failed", "interrupted", "running"]
"""The kind of trial that a mark shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """An axis of a panel.

    Attributes:
        label: The name of the axis; plain text, which renderers must not interpret.
        is_log: Whether the scale is logarithmic; all values are above 0 then.
        is_whole: Whether only whole numbers make sense.
        categories: Names of the positions 0, 1, ...; the values are then at or near one of them.
        is_descending: Whether the greatest value is at the bottom or on the left.
    """

    label: str = ""
    is_log: bool = False
    is_whole: bool = False
    categories: tuple[str, ...] = ()
    is_descending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """Single points; `hover` is a text of a few lines for each, `errors` half the length of its vertical bar."""

    x: Sequence[float]
    y: Sequence[float]
    hover: Sequence[str]
    role: Role = "complete"
    errors: Sequence[float] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line, or several lines separated by NaN.

    Attributes:
        name: The name in the legend; empty for a line that needs none.
        is_step: Whether a value holds until the next one.
        is_faint: Whether the line is only a background for others.
    """

    x: Sequence[float]
    y: Sequence[float]
    hover: Sequence[str] = ()
    role: Role = "complete"
    name: str = ""
    is_step: bool = False
    is_faint: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """Horizontal bars from `begin` to `end` at the positions `y`; `texts` are written at their ends."""

    y: Sequence[float]
    begin: Sequence[float]
    end: Sequence[float]
    hover: Sequence[str]
    role: Role = "complete"
    texts: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Heat:
    """A value over a plane: `z[i][j]` at `y[i]` and `x[j]`; NaN where it is unknown."""

    x: Sequence[float]
    y: Sequence[float]
    z: Sequence[Sequence[float]]
    label: str
    low: float
    high: float
    is_less_better: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallel:
    """A line for each trial through an axis for each parameter; the last axis determines the colour of the line.

    Attributes:
        axes: From left to right.
        values: For each axis the value of each trial; NaN where the trial has none.
        hover: A text of a few lines for each trial.
    """

    axes: tuple[Axis, ...]
    values: Sequence[Sequence[float]]
    hover: Sequence[str]
    is_less_better: bool = False


Mark = Points | Line | Bars | Heat | Parallel


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """Marks that share a pair of axes."""

    marks: tuple[Mark, ...]
    x: Axis = Axis()
    y: Axis = Axis()
    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One panel, or several similar ones beside each other.

    Attributes:
        name: The name of the PNG file and of the section in the page.
        sentence: How to read the chart, or its main result.
        panels: At least one.
    """

    name: str
    title: str
    sentence: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How the marks of a role look; colour-blind readers can tell them apart, and so can readers of a grey print.

    Attributes:
        colour: A colour that is readable on white and on black.
        shape: plotly's name of the shape.
        marker: matplotlib's name of the same shape.
        size: The diameter in pixels.
    """

    colour: str
    shape: str
    marker: str
    size: float = 8.0


LOOKS: dict[Role, Look] = {
    "best": Look(colour="#e0662f", shape="star", marker="*", size=14.0),
    "complete": Look(colour="#4a86b8", shape="circle", marker="o", size=7.0),
    "infeasible": Look(colour="#b58900", shape="triangle-up", marker="^"),
    "pruned": Look(colour="#8f97a1", shape="x-thin-open", marker="x", size=6.0),
    "failed": Look(colour="#c2458b", shape="cross-thin-open", marker="+", size=9.0),
    "interrupted": Look(colour="#8f97a1", shape="square-open", marker="s"),
    "running": Look(colour="#2a9d8f", shape="circle-open", marker="o"),
}

WARMER = ("#dfe5ea", "#a9c3d9", "#4a86b8", "#8a5f7d", "#d9531e")
"""From worse to better on white: ever darker, from blue to orange, which colour-blind readers can tell apart."""
WARMER_ON_BLACK = ("#29323a", "#35566f", "#4a86b8", "#b58a86", "#ffa46b")
"""The same on black: ever brighter."""


# --- parallel coordinates

MISSING = -0.12
"""The height at which the line of a trial passes an axis whose parameter the trial does not have."""

_MOST_TICKS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelAxis:
    """An axis: its name, the height (0 to 1, or `MISSING`) of each trial, and the heights and texts of its ticks."""

    label: str
    heights: tuple[float, ...]
    ticks: tuple[tuple[float, str], ...]


def parallel_axes(mark: Parallel) -> list[ParallelAxis]:
    """Return the axes from left to right."""
    return [_parallel_axis(axis, values) for axis, values in zip(mark.axes, mark.values, strict=True)]


def _parallel_axis(axis: Axis, values: Sequence[float]) -> ParallelAxis:
    drawn = [math.log(value) if axis.is_log and value > 0 else value for value in values]
    finite = [value for value in drawn if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    if axis.categories:
        low, high = 0.0, float(len(axis.categories) - 1)
    span = (high - low) or 1.0
    heights = tuple((value - low) / span if math.isfinite(value) else MISSING for value in drawn)
    missing = ((MISSING, "none"),) if len(finite) < len(drawn) else ()
    ticks = tuple(((place - low) / span, text) for place, text in _ticks(axis, low, high))
    return ParallelAxis(label=axis.label, heights=heights, ticks=(*missing, *ticks))


def _ticks(axis: Axis, low: float, high: float) -> list[tuple[float, str]]:
    if axis.categories:
        return [(float(place), name) for place, name in enumerate(axis.categories)]
    if high <= low:
        places = [low]
    elif axis.is_whole and not axis.is_log and high - low <= 2 * _MOST_TICKS:
        places = [low + step for step in range(int(high - low) + 1)]
    else:
        places = [low + (high - low) * part / (_MOST_TICKS - 1) for part in range(_MOST_TICKS)]
    return [(place, number(float(f"{math.exp(place) if axis.is_log else place:.3g}"))) for place in places]
