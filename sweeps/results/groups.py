"""Group rows by their values: count, mean of a metric with its standard error, and best row of each group."""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.core.errors import UsageError
from sweeps.results.rows import LATE_FIELDS, TrialRow, is_descending_by, require_metric, resolve

__all__ = ["Group", "grouped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Rows that agree in some names.

    Attributes:
        keys: The names, and what the rows have there; None where they have nothing.
        metric: What they are judged by.
        count: How many have a value; dropped rows and NaN do not count.
        mean: Of these values; None where there are none, or one is infinite.
        standard_error: Of the mean, s / sqrt(n); None for fewer than two.
        best: The best of the values; of trials that violate a constraint none is.
        best_run_id: The run that has it.
    """

    keys: dict[str, Any]
    metric: str
    count: int
    mean: float | None
    standard_error: float | None
    best: float | None
    best_run_id: str | None


def grouped(
    rows: Sequence[TrialRow], names: Sequence[str], metric: str | None = None, is_descending: bool | None = None
) -> list[Group]:
    """Group rows, the best mean first, and groups without a value last.

    Args:
        rows: What to group.
        names: Of fields, parameters and metrics.
        metric: What to average rather than the metric of the studies.
        is_descending: Whether the highest is best; None asks the studies, or the metric's name.

    Raises:
        UsageError: No row has one of the names, or the studies are judged by different metrics and none is given.
    """
    fields = [resolve(name, rows, LATE_FIELDS) for name in names]
    if not rows:
        return []
    if metric is not None:
        require_metric(rows, metric)
    judged = sorted({row.metric for row in rows if row.metric})
    if metric is None and len(judged) != 1:
        known = (
            f"These trials are judged by {', '.join(judged)}" if judged else "These trials have no metric of a study"
        )
        raise UsageError(f"{known}: name the one to average with --metric.")
    chosen = judged[0] if metric is None else metric
    if is_descending is None:
        is_descending = is_descending_by(rows, chosen)
    parts: dict[str, list[TrialRow]] = {}
    for row in rows:
        parts.setdefault(json.dumps([field.of(row) for field in fields]), []).append(row)
    found = []
    for part in parts.values():
        keys = {field.name: field.of(part[0]) for field in fields}
        found.append(_group(keys, part, chosen, is_descending))
    sign = -1.0 if is_descending else 1.0
    return sorted(found, key=lambda group: math.inf if group.mean is None else sign * group.mean)


def _group(keys: dict[str, Any], rows: Sequence[TrialRow], metric: str, is_descending: bool) -> Group:
    found = [(row.value_of(metric), row) for row in rows if row.state != "dropped"]
    values = [(value, row) for value, row in found if value is not None and not math.isnan(value)]
    numbers = [value for value, _ in values]
    is_finite = all(map(math.isfinite, numbers))
    able = [(value, row.run_id) for value, row in values if not row.infeasible]
    best = (max if is_descending else min)(able, key=lambda pair: pair[0], default=(None, None))
    return Group(
        keys=keys,
        metric=metric,
        count=len(values),
        mean=statistics.fmean(numbers) if values and is_finite else None,
        standard_error=statistics.stdev(numbers) / math.sqrt(len(numbers)) if is_finite and len(numbers) > 1 else None,
        best=best[0],
        best_run_id=best[1],
    )
