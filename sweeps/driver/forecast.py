"""Forecast when a sweep ends, which limit ends it, and how much of each budget it uses. Pure arithmetic."""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Budget", "Forecast", "Training", "forecast"]

_LEAST_SHARE = 0.05  # of a trial's steps, before its own speed says more than the other trials' durations
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a sweep may use, and where it runs.

    Attributes:
        num_trials: Trials in all.
        num_slots: How many run at once.
        devices_per_slot: How many devices each of them uses.
        timeout_s: How long the sweep may take; None for ever.
        device_s: How many seconds of devices its trials may use in all; None for any.
    """

    num_trials: int
    num_slots: int
    devices_per_slot: float = 1.0
    timeout_s: float | None = None
    device_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A running trial: for how long, and which share of its steps is done (None: unknown)."""

    elapsed_s: float
    share: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """How a sweep will end.

    Attributes:
        left_s: In how many seconds.
        ends_by: What ends it: that it has all its `trials`, or the budget `timeout` or `device_hours`.
        num_trials: How many trials will have ended by then, those of earlier runs included.
        device_s: How many seconds of devices all trials will have used by then.
    """

    left_s: float
    ends_by: Literal["trials", "timeout", "device_hours"]
    num_trials: int
    device_s: float


def forecast(
    budget: Budget,
    *,
    elapsed_s: float,
    num_finished: int,
    durations_s: Sequence[float],
    running: Sequence[Training],
    device_s: float,
) -> Forecast | None:
    """Expect each further trial to take as long as those that have ended took on average.

    A running trial is expected to go on at its own pace, and one of unknown length to take the average, too. A slot
    that is free takes the next trial, as the driver does.

    Args:
        budget: What the sweep may use.
        elapsed_s: How long it has run.
        num_finished: Trials that have ended, those of earlier runs included.
        durations_s: How long those of this run took, of whatever end counts against the total.
        running: The trials that run.
        device_s: Seconds of devices used so far, by running trials as well.

    Returns:
        None as long as nothing is known of how long a trial takes.
    """
    one_s = _duration(durations_s, running)
    if one_s is None:
        return None
    free_at = [_left(trial, one_s) for trial in running]
    free_at += [0.0] * (budget.num_slots - len(running))
    taken = _deal(free_at, max(0, budget.num_trials - num_finished - len(running)), one_s)
    ends = [start + count * one_s for start, count in zip(free_at, taken, strict=True)]
    left_s, ends_by = _first_limit(budget, ends, elapsed_s, device_s)
    num_ended = sum(_reaches(left_s, start) for start in free_at[: len(running)])
    num_ended += sum(_num_ended(left_s - start, count, one_s) for start, count in zip(free_at, taken, strict=True))
    return Forecast(
        left_s=left_s,
        ends_by=ends_by,
        num_trials=num_finished + num_ended,
        device_s=device_s + budget.devices_per_slot * sum(min(left_s, end) for end in ends),
    )


def _duration(durations_s: Sequence[float], running: Sequence[Training]) -> float | None:
    """Return how long a trial takes, judged by those that have ended; by running ones before the first end."""
    known = list(durations_s) or [t.elapsed_s / t.share for t in running if t.share and t.share >= _LEAST_SHARE]
    return math.fsum(known) / len(known) if known else None


def _left(trial: Training, one_s: float) -> float:
    """Return how long a running trial goes on."""
    if trial.share is not None and trial.share >= _LEAST_SHARE:
        return max(0.0, trial.elapsed_s * (1 - trial.share) / trial.share)
    return max(0.0, one_s - trial.elapsed_s)


def _deal(free_at: Sequence[float], num_trials: int, one_s: float) -> list[int]:
    """Return how many trials each slot takes, if the slot that is free first takes the next one."""
    # Whole rounds, in which each slot takes one trial, need not be dealt out one by one
    spread = (max(free_at) - min(free_at)) / one_s if one_s else 0.0
    rounds = max(0, num_trials // len(free_at) - math.ceil(spread) - 1) if spread < num_trials else 0
    taken = [rounds] * len(free_at)
    queue = [(start + rounds * one_s, slot) for slot, start in enumerate(free_at)]
    heapq.heapify(queue)
    for _ in range(num_trials - rounds * len(free_at)):
        at, slot = queue[0]
        taken[slot] += 1
        heapq.heapreplace(queue, (at + one_s, slot))
    return taken


def _first_limit(
    budget: Budget, ends: Sequence[float], elapsed_s: float, device_s: float
) -> tuple[float, Literal["trials", "timeout", "device_hours"]]:
    """Return in how many seconds the sweep ends, and by what."""
    limits: list[tuple[float, Literal["trials", "timeout", "device_hours"]]] = [(max(ends), "trials")]
    if budget.timeout_s is not None:
        limits.append((max(0.0, budget.timeout_s - elapsed_s), "timeout"))
    if budget.device_s is not None:
        left = max(0.0, budget.device_s - device_s) / budget.devices_per_slot
        limits.append((_spent_at(left, ends), "device_hours"))
    first, ends_by = limits[0]
    for limit, name in limits[1:]:
        if not _reaches(limit, first):
            first, ends_by = limit, name
    return first, ends_by


def _spent_at(slot_s: float, ends: Sequence[float]) -> float:
    """Return when slots that are busy until `ends` have been so for `slot_s` seconds together."""
    before = 0.0
    for index, end in enumerate(sorted(ends)):
        num_busy = len(ends) - index
        if (end - before) * num_busy >= slot_s:
            return before + slot_s / num_busy
        slot_s -= (end - before) * num_busy
        before = end
    return math.inf


def _num_ended(time_s: float, count: int, one_s: float) -> int:
    """Return how many of `count` trials that follow each other have ended after so many seconds."""
    if one_s == 0:
        return count if _reaches(time_s, 0.0) else 0
    return min(count, max(0, math.floor(time_s / one_s + _ROUNDING * max(1, count))))


def _reaches(time_s: float, end_s: float) -> bool:
    """Tell whether `time_s` is not before `end_s`, but for rounding."""
    return time_s >= end_s - _ROUNDING * max(1.0, end_s)
