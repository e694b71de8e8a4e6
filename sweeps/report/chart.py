"""A plot as plain data: what is to be seen, and nothing of how plotly or matplotlib draw it.

The colour and the shape of each role: told apart by colour-blind eyes, and by shape where there is no colour.

Where the lines of parallel coordinates pass: heights from 0 to 1, the same for every renderer.
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
"""What a mark tells of: a renderer has a colour and a shape for each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """An axis of a panel.

    Attributes:
        label: What stands along it; texts are plain, however odd their characters.
        is_log: Whether equal distances are equal ratios; all values are above 0 then.
        is_whole: Whether only whole numbers make sense.
        categories: Names of the places 0, 1, ...; the values are places then, or lie beside one.
        is_descending: Whether the greatest value stands at the bottom, or to the left.
    """

    label: str = ""
    is_log: bool = False
    is_whole: bool = False
    categories: tuple[str, ...] = ()
    is_descending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """Single points; `hover` says in a few lines what each is, `errors` is half the length of a vertical bar."""

    x: Sequence[float]
    y: Sequence[float]
    hover: Sequence[str]
    role: Role = "complete"
    errors: Sequence[float] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line, or several that NaN separates.

    Attributes:
        name: What it is, in the legend; empty for a line that explains itself.
        is_step: Whether a value holds until the next.
        is_faint: Whether it is only the background of others.
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
    """Horizontal bars from `begin` to `end` at the places `y`; `texts` stand at their ends."""

    y: Sequence[float]
    begin: Sequence[float]
    end: Sequence[float]
    hover: Sequence[str]
    role: Role = "complete"
    texts: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Heat:
    """A value over a plane: `z[i][j]` at `y[i]` and `x[j]`; NaN where nothing is known."""

    x: Sequence[float]
    y: Sequence[float]
    z: Sequence[Sequence[float]]
    label: str
    low: float
    high: float
    is_less_better: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallel:
    """One line a trial through an axis for each parameter; the last axis is what the lines are coloured by.

    Attributes:
        axes: From left to right.
        values: For each axis the value of each trial; NaN where the trial has none.
        hover: What each trial is.
    """

    axes: tuple[Axis, ...]
    values: Sequence[Sequence[float]]
    hover: Sequence[str]
    is_less_better: bool = False


Mark = Points | Line | Bars | Heat | Parallel


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """What shares a pair of axes."""

    marks: tuple[Mark, ...]
    x: Axis = Axis()
    y: Axis = Axis()
    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A plot: one panel, or several of a kind beside each other.

    Attributes:
        name: The name of its file and of its place in the page.
        sentence: What to read from it.
        panels: At least one.
    """

    name: str
    title: str
    sentence: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How what has a role is drawn.

    Attributes:
        colour: Readable on white and on black.
        shape: plotly's name of it; `marker` is matplotlib's.
        size: Diameter in pixels.
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
"""From worse to better, on white: ever darker, and from blue to orange, which colour-blind eyes tell apart."""
WARMER_ON_BLACK = ("#29323a", "#35566f", "#4a86b8", "#b58a86", "#ffa46b")
"""The same on black: ever brighter."""


MISSING = -0.12
"""The height at which trials pass that do not have a parameter."""

_MOST_TICKS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelAxis:
    """An axis: its name, the height of each trial, and what stands beside it at which height."""

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
