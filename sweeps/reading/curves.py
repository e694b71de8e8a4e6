"""The history of a metric in few points, and as a small curve of block characters."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sweeps.core.text import unbounded

__all__ = ["HUGE", "NUM_POINTS", "Curve", "measured", "sparkline", "thinned"]

NUM_POINTS = 60
"""of a curve at most: what a terminal has room for"""
HUGE = 1e300
"""from here on a value is no part of a mean: sums of such overflow"""

_BLOCKS, _ASCII = "▁▂▃▄▅▆▇█", "_.-=+*#@"
_NO_NUMBER = {True: "×", False: "x"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """How a metric went.

    Attributes:
        num_points: How many were recorded.
        first_step: The least step of them.
        last_step: The greatest.
        lowest: The least value; None if all are NaN.
        highest: The greatest value.
        lowest_step: The first step that has the least.
        highest_step: The first step that has the greatest.
        means: At most `NUM_POINTS` means over equally many points each, in the order of the steps; NaN where no value
            is finite.
    """

    num_points: int
    first_step: int
    last_step: int
    lowest: float | None
    highest: float | None
    lowest_step: int | None
    highest_step: int | None
    means: tuple[float, ...]


def thinned(points: Iterable[tuple[int, int, float]]) -> Curve:
    """Return the curve of points, each a step, a time and a value; there must be one at least."""
    ordered = sorted(points, key=lambda point: point[:2])
    parts: dict[int, list[float]] = {}
    for place, (_, _, value) in enumerate(ordered):
        finite = [value] if abs(value) < HUGE else []  # also false for NaN
        parts.setdefault(place * NUM_POINTS // len(ordered), []).extend(finite)
    numbers = [(unbounded(value), step) for step, _, value in ordered if not math.isnan(value)]
    lowest = min(numbers, default=(None, None))
    highest = max(numbers, key=lambda number: number[0], default=(None, None))
    return Curve(
        num_points=len(ordered),
        first_step=ordered[0][0],
        last_step=ordered[-1][0],
        lowest=lowest[0],
        highest=highest[0],
        lowest_step=lowest[1],
        highest_step=highest[1],
        means=tuple(sum(part) / len(part) if part else math.nan for part in parts.values()),
    )


def measured(points: Sequence[tuple[int, int, float]], last_epoch_step: int | None) -> list[tuple[int, int, float]]:
    """Leave out the points that restate the best checkpoint; see `histories.without_restated`."""
    if last_epoch_step is None:
        return list(points)
    values = {value for step, _, value in points if step <= last_epoch_step}
    return [point for point in points if point[0] <= last_epoch_step or point[2] not in values]


def sparkline(
    values: Sequence[float],
    *,
    width: int = NUM_POINTS,
    low: float | None = None,
    high: float | None = None,
    is_unicode: bool = True,
) -> str:
    """Draw values as a line of characters, with a cross for what is no number.

    Args:
        values: From left to right.
        width: Characters at most; more values than that are joined to means.
        low: The value of the lowest character; the least of the values if None.
        high: The value of the highest.
        is_unicode: Whether block characters can be shown.
    """
    values = _joined(values, width)
    finite = [value for value in values if math.isfinite(value)]
    low = min(finite, default=0.0) if low is None else low
    high = max(finite, default=0.0) if high is None else high
    ramp = _BLOCKS if is_unicode else _ASCII
    return "".join(_character(value, low, high, ramp) or _NO_NUMBER[is_unicode] for value in values)


def _character(value: float, low: float, high: float, ramp: str) -> str:
    if not math.isfinite(value):
        return ""
    if high <= low:
        return ramp[0]
    place = (value / 2 - low / 2) / (high / 2 - low / 2)  # halves: the whole range may overflow
    return ramp[min(max(int(place * len(ramp)), 0), len(ramp) - 1)]


def _joined(values: Sequence[float], width: int) -> list[float]:
    if len(values) <= width:
        return list(values)
    parts: dict[int, list[float]] = {}
    for place, value in enumerate(values):
        parts.setdefault(place * width // len(values), []).extend([value] if math.isfinite(value) else [])
    return [sum(part) / len(part) if part else math.nan for part in parts.values()]
