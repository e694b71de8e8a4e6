"""Numbers as stores and commands write them: infinity, what JSON cannot say, whole numbers in tags."""

import math
import sys
from typing import Any

__all__ = ["LARGEST", "finite", "is_number", "unbounded", "whole"]

LARGEST = sys.float_info.max
"""what MLflow writes for infinity"""
_MOST_DIGITS = 18


def unbounded(value: float) -> float:
    """Return infinity for what MLflow writes for it."""
    return math.copysign(math.inf, value) if abs(value) >= LARGEST else value


def finite(value: Any) -> Any:
    """Replace what JSON cannot say (NaN, infinities) by null, in lists and mappings too."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def whole(text: str | None) -> int | None:
    """Return the count that a text is; None for all others, such as a tag that somebody has edited."""
    return int(text) if text is not None and text.isdecimal() and len(text) <= _MOST_DIGITS else None


def is_number(value: float | None) -> bool:
    """Tell whether there is a value, and it is not NaN."""
    return value is not None and not math.isnan(value)
