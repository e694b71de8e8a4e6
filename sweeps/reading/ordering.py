"""Rows in the order of the leaderboard: best first, and last what counts for nothing."""

import math
from collections.abc import Collection, Iterable

from sweeps.core.errors import UsageError, did_you_mean
from sweeps.reading.ranking import is_loss
from sweeps.reading.trial_row import TrialRow

__all__ = ["is_descending_by", "require_metric", "sorted_rows"]


def require_metric(rows: Collection[TrialRow], metric: str) -> None:
    """Refuse a metric that no row has.

    Raises:
        UsageError: Names the nearest.
    """
    if any(metric in row.metrics or metric in row.objectives for row in rows):
        return
    known = {key for row in rows for key in (*row.metrics, *row.objectives) if key}
    if rows:
        raise UsageError(f"No run has a metric {metric!r}. {did_you_mean(metric, known)}")


def is_descending_by(rows: Iterable[TrialRow], metric: str) -> bool:
    """Tell whether more of a metric is better: by the studies that are judged by it, or else by its name."""
    directions = [row.objectives[metric] for row in rows if metric in row.objectives]
    return directions[-1] == "maximize" if directions else not is_loss(metric)


def sorted_rows(
    rows: Iterable[TrialRow], metric: str | None = None, is_descending: bool | None = None
) -> list[TrialRow]:
    """Sort rows best first by their study's first metric, or by `metric`; those without a value, or dropped, come last.

    Trials that violate constraints come after those that do not, and of several objectives the Pareto front is first.

    Rows that are judged by different metrics stay apart.

    Args:
        rows: What to sort.
        metric: What to sort by rather than the study's metric.
        is_descending: Whether the highest is first; None asks the study, and of a metric that no study is judged by,
            its name.

    Raises:
        UsageError: No row has such a metric; names the nearest.
    """
    rows = list(rows)
    if metric is not None:
        require_metric(rows, metric)
    falling = {name: goal == "maximize" for row in rows for name, goal in row.objectives.items()}

    def key(row: TrialRow) -> tuple[int, str, bool, bool, float]:
        judged = metric or row.metric
        value = row.value_of(judged)
        if value is None or row.state == "dropped":
            return 2, "", False, False, 0.0
        if math.isnan(value):  # before those that have nothing, as in MLflow
            return 1, "", False, False, 0.0
        is_falling = falling.get(judged, not is_loss(judged)) if is_descending is None else is_descending
        is_behind = metric is None and len(row.objectives) > 1 and not row.is_on_front
        return 0, judged, bool(row.infeasible), is_behind, -value if is_falling else value

    return sorted(rows, key=key)
