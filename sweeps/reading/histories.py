"""The histories of metrics with all their points, as arrays; `curves.py` has them in few points, without NumPy."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweeps.core.text import LARGEST

if TYPE_CHECKING:  # a command that shows a run needs none
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["History", "histories_of", "history_of", "mean_history", "without_restated"]


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
