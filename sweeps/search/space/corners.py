"""The ends of a range: whether a value is near one, how much of the range is, and the range extended there."""

import math

from sweeps.search.space.parameter import Choices, Domain, Interval, Parameter, Steps

__all__ = ["is_near_end", "share_near_end", "widened"]

_EDGE = 0.1
"""the share of a range, on its own scale, that counts as near its end"""
_FEWEST = 3
"""the number of values below which a range has no meaningful ends"""


def is_near_end(parameter: Parameter, value: float, *, is_upper: bool) -> bool:
    """Tell whether a value is in the last tenth of a range, or its end."""
    low, high = _ends(parameter.domain)
    if value == (high if is_upper else low):
        return True
    position = _position(parameter.domain, value)
    return (1 - position if is_upper else position) <= _EDGE


def share_near_end(parameter: Parameter, *, is_upper: bool) -> float | None:
    """Return the probability that a random value is near the end; None if the range has no meaningful ends."""
    if isinstance(parameter.domain, Choices):
        return None
    values = parameter.values
    if values is None:
        return _EDGE
    if len(values) < _FEWEST:
        return None
    low, high = _ends(parameter.domain)
    if _is_log(parameter.domain):
        end = high if is_upper else low
        return max(_EDGE, math.log((end + 1) / end) / math.log((high + 1) / low))
    return sum(is_near_end(parameter, value, is_upper=is_upper) for value in values) / len(values)


def widened(parameter: Parameter, *, is_upper: bool) -> Domain | None:
    """Return the range extended by half its width at one end (on a log scale, and at least by a decade, with `log`).

    A range without negative values stays so, and a share (from 0 on, below 1) stays below 1. Return None if the range
    cannot be extended.
    """
    match parameter.domain:
        case Interval(low=low, high=high, log=True) as it:
            factor = max(math.sqrt(high / low), 2.0 if it.is_whole else 10.0)
            ends = (low, high * factor) if is_upper else (low / factor, high)
            ends = (max(1, round(ends[0])), round(ends[1])) if it.is_whole else (_short(ends[0]), _short(ends[1]))
            found: Domain = Interval(low=ends[0], high=ends[1], log=True, is_whole=it.is_whole)
            return None if ends == (low, high) else found
        case Interval(low=low, high=high) as it:
            more = (high - low) / 2
            if is_upper and low >= 0 and high < 1:
                more = min(more, (1 - high) / 2)
            ends = (low, high + more) if is_upper else (_not_below_zero(low, more), high)
            ends = (math.floor(ends[0]), math.ceil(ends[1])) if it.is_whole else (_short(ends[0]), _short(ends[1]))
            return None if ends == (low, high) else Interval(low=ends[0], high=ends[1], is_whole=it.is_whole)
        case Steps(low=low, high=high, values=values) as it:
            step = abs(it.step)
            count = math.ceil(len(values) / 2)
            if not is_upper and low >= 0:
                count = min(count, math.ceil(low / step) - 1)  # 0 itself often means something else, such as "off"
            if count <= 0:
                return None
            low, high = (low, high + count * step) if is_upper else (low - count * step, high)
            stop = high + (step if isinstance(step, int) else step / 2)
            return Steps(start=_short(low), stop=_short(stop), step=step, values=())
    return None


def _ends(domain: Domain) -> tuple[float, float]:
    assert not isinstance(domain, Choices)
    return domain.low, domain.high


def _is_log(domain: Domain) -> bool:
    return isinstance(domain, Interval) and domain.log


def _position(domain: Domain, value: float) -> float:
    """Return the position of a value between the ends, from 0 to 1 on the scale of the range."""
    low, high = _ends(domain)
    if _is_log(domain):
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def _not_below_zero(low: float, more: float) -> float:
    return max(0.0, low - more) if low >= 0 else low - more


def _short(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.3g}")
