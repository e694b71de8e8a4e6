"""Which rows `lightsweep compare` shows, and in which order."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.core.errors import UsageError
from sweeps.reading.fields import LATE_FIELDS, resolve
from sweeps.reading.ordering import require_metric, sorted_rows
from sweeps.reading.queries import chosen_rows, top_rows
from sweeps.reading.trial_row import TrialRow
from sweeps.reading.where import Where

__all__ = ["Selection", "selected_rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What is asked for.

    Attributes:
        where: Only the rows that it holds for.
        is_front: Only the Pareto fronts of studies of several objectives.
        metric: What to judge by rather than the metrics of the studies.
        sort: A name to sort by rather than by a metric.
        is_descending: Whether the highest is first; None is best first, and lowest first with `sort`.
        top: Only so many.
    """

    where: Where | None = None
    is_front: bool = False
    metric: str | None = None
    sort: str | None = None
    is_descending: bool | None = None
    top: int | None = None

    def pick(self, rows: list[TrialRow]) -> list[TrialRow]:
        """Filter and sort.

        Raises:
            UsageError: No row has a name that was given, or no study has a front.
        """
        if self.metric is not None:
            require_metric(rows, self.metric)
        by = None if self.sort is None else resolve(self.sort, rows)
        kept = rows if self.where is None else self.where.keep(rows)
        if self.is_front:
            if rows and all(len(row.objectives) < 2 for row in rows):
                raise UsageError("--pareto is for studies of several objectives, and these have one each.")
            kept = [row for row in kept if row.is_on_front]
        if by is None:
            is_known = any(self.metric in (row.metric, *row.metrics) for row in kept)
            ordered = sorted_rows(kept, self.metric if is_known else None, self.is_descending)
        else:
            ordered = _by_value([(by.of(row), row) for row in kept], bool(self.is_descending))
        return ordered[: self.top]


def _by_value(found: Sequence[tuple[Any, TrialRow]], is_descending: bool) -> list[TrialRow]:
    """Sort numbers, then texts; those that have neither come last either way."""

    def is_number(value: Any) -> bool:
        return isinstance(value, int | float) and not math.isnan(value)

    numbers = [pair for pair in found if is_number(pair[0])]
    rest = [pair for pair in found if not is_number(pair[0])]
    texts = [(str(value), row) for value, row in rest if value is not None and not isinstance(value, float)]
    none = [row for value, row in rest if value is None or isinstance(value, float)]
    parts = [sorted(part, key=lambda pair: pair[0], reverse=is_descending) for part in (numbers, texts)]
    return [row for part in parts for _, row in part] + none


def selected_rows(
    uri: str, studies: Sequence[str], selection: Selection, only: Collection[str] | None = None
) -> list[TrialRow]:
    """Read the rows that are asked for from a store.

    Args:
        uri: The store.
        studies: Names of studies; none for all, and every `train`.
        selection: What is asked for.
        only: Names beside which nothing but the values of the rows is looked at; None for rows in full.

    Raises:
        StoreError: The store cannot be opened, or it is none of MLflow's.
        StudyError: There is no such study; names the nearest.
        UsageError: No row has a name that was given; names the nearest.
    """
    if only is None and selection.where is None and selection.sort is None and not selection.is_front:
        return top_rows(uri, studies, selection.top, selection.metric, selection.is_descending)
    names = [*(selection.where.names if selection.where else ()), *([selection.sort] if selection.sort else [])]
    names += only or ()
    if selection.metric is not None:
        names.append(f"metrics.{selection.metric}")

    def choose(rows: list[TrialRow]) -> list[TrialRow]:
        chosen = selection.pick(rows)
        for name in only or ():
            resolve(name, chosen, LATE_FIELDS)
        return chosen

    return chosen_rows(uri, studies, choose, names=names, in_full=only is None)
