"""Histories of metrics: all points as arrays, a few points as a `Curve`, and a curve drawn in block characters.

Only a whole history needs NumPy, which is imported when one is made.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweeps.core.text import LARGEST, unbounded

if TYPE_CHECKING:  # a command that shows a run needs none
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "HUGE",
    "NUM_POINTS",
    "Curve",
    "History",
    "histories_of",
    "history_of",
    "mean_history",
    "measured",
    "sparkline",
    "thinned",
    "without_restated",
]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class History:
    """How a metric went: arrays of one length, in the order of the steps, and of the time where a step has several.

    Attributes:
        steps: Whole numbers; one may be there several times.
        values: Infinity and NaN are what they are.
        times_s: When each was recorded, in seconds since 1970 (UTC).
    """

    steps: "NDArray[np.int64]"
    values: "NDArray[np.float64]"
    times_s: "NDArray[np.float64]"

    def __len__(self) -> int:
        return len(self.steps)


def history_of(points: Iterable[tuple[int, int, float]]) -> History:
    """Return the history of points in any order, each a step, a time in milliseconds and a value as it is stored."""
    return histories_of([("", *point) for point in points])[""]


def histories_of(points: Sequence[Any]) -> dict[str, History]:
    """Return the histories of several runs by their ids.

    Args:
        points: Each a run's id, a step, a time in milliseconds and a value, which is None for NaN.
    """
    import numpy as np

    if not points:
        return {}
    owners, all_steps, all_times_ms, all_values = ([point[column] for point in points] for column in range(4))
    places = {run_id: place for place, run_id in enumerate(dict.fromkeys(owners))}
    place_of = np.fromiter(map(places.__getitem__, owners), dtype=np.int64, count=len(owners))
    steps, times_ms = np.array(all_steps, dtype=np.int64), np.array(all_times_ms, dtype=np.int64)
    values = np.array(all_values, dtype=np.float64)
    values[values >= LARGEST], values[values <= -LARGEST] = np.inf, -np.inf
    order = np.lexsort((times_ms, steps, place_of))
    steps, times_s, values = steps[order], times_ms[order] / 1000, values[order]
    ends = np.cumsum(np.bincount(place_of)).tolist()
    return {
        run_id: History(steps=steps[begin:end], values=values[begin:end], times_s=times_s[begin:end])
        for run_id, begin, end in zip(places, [0, *ends], ends, strict=False)
    }


def without_restated(history: History, last_epoch_step: int | None) -> History:
    """Leave out what restates the best checkpoint after training: no part of how the metric went.

    Args:
        history: Of one run.
        last_epoch_step: The last step at which `epoch` was logged. A point after it that repeats an earlier value bit
            for bit was not measured there. None if the run has no `epoch`: then everything stays.
    """
    import numpy as np

    if last_epoch_step is None or not len(history) or history.steps[-1] <= last_epoch_step:
        return history
    is_late = history.steps > last_epoch_step
    is_kept = ~(is_late & np.isin(history.values, history.values[~is_late]))  # NaN equals none
    return History(steps=history.steps[is_kept], values=history.values[is_kept], times_s=history.times_s[is_kept])


def mean_history(histories: Sequence[History]) -> History:
    """Return the mean at each step over the histories that have it, and the time at which the last of them had it.

    Of several values that a history has at one step, the last counts.
    """
    import numpy as np

    if len(histories) == 1:
        return histories[0]
    found: dict[int, list[tuple[float, float]]] = {}
    for history in histories:
        last = dict(zip(history.steps.tolist(), zip(history.values, history.times_s, strict=True), strict=True))
        for step, point in last.items():
            found.setdefault(step, []).append(point)
    steps = sorted(found)
    return History(
        steps=np.array(steps, dtype=np.int64),
        values=np.array([_mean([value for value, _ in found[step]]) for step in steps], dtype=np.float64),
        times_s=np.array([max(time for _, time in found[step]) for step in steps], dtype=np.float64),
    )


def _mean(values: Sequence[float]) -> float:
    """Return the mean; of infinities of both signs NaN, without complaint."""
    try:
        return math.fsum(values) / len(values)
    except (OverflowError, ValueError):
        return sum(values) / len(values)


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
