"""Where the lines of parallel coordinates pass: heights from 0 to 1, the same for every renderer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sweeps.core.text import number
from sweeps.report.chart import Axis, Parallel

__all__ = ["MISSING", "Column", "columns"]

MISSING = -0.12
"""The height at which trials pass that do not have a parameter."""

_MOST_TICKS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """An axis: its name, the height of each trial, and what stands beside it at which height."""

    label: str
    heights: tuple[float, ...]
    ticks: tuple[tuple[float, str], ...]


def columns(mark: Parallel) -> list[Column]:
    """Return the axes from left to right."""
    return [_column(axis, values) for axis, values in zip(mark.axes, mark.values, strict=True)]


def _column(axis: Axis, values: Sequence[float]) -> Column:
    drawn = [math.log(value) if axis.is_log and value > 0 else value for value in values]
    finite = [value for value in drawn if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    if axis.categories:
        low, high = 0.0, float(len(axis.categories) - 1)
    span = (high - low) or 1.0
    heights = tuple((value - low) / span if math.isfinite(value) else MISSING for value in drawn)
    missing = ((MISSING, "none"),) if len(finite) < len(drawn) else ()
    ticks = tuple(((place - low) / span, text) for place, text in _ticks(axis, low, high))
    return Column(label=axis.label, heights=heights, ticks=(*missing, *ticks))


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
