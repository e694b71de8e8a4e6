"""A plot as plain data: what is to be seen, and nothing of how plotly or matplotlib draw it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Axis", "Bars", "Chart", "Heat", "Line", "Mark", "Panel", "Parallel", "Points", "Role"]

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
