"""Rank the runs of a store by a metric from two columns of its tables, so that only the best need be read in full.

This narrows, and decides nothing: what `queries.sorted_rows` would judge otherwise than by one number (several
objectives, studies of different metrics, doubtful directions) has no ranking here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from sweeps.core.text import unbounded
from sweeps.tracking import tags
from sweeps.tracking.database import LATEST, TAGS
from sweeps.tracking.names import looked_up_name

__all__ = ["Ranking", "is_loss", "ranking"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """All runs with a value, best first, whatever became of them.

    Attributes:
        metric: What they are ranked by.
        is_descending: Whether the highest is first.
        run_ids: The runs.
        values: Their values.
    """

    metric: str
    is_descending: bool
    run_ids: Sequence[str]
    values: Sequence[float]

    def up_to(self, count: int) -> int:
        """Return how many are the first `count`, with those that equal the last of them."""
        end = min(count, len(self.values))
        while 0 < end < len(self.values) and self.values[end] == self.values[end - 1]:
            end += 1
        return end


def is_loss(metric: str) -> bool:
    """Tell by its name whether less of a metric is better, where no study says so."""
    return "loss" in metric or "error" in metric


def ranking(connection: sa.Connection, metric: str | None, is_descending: bool | None) -> Ranking | None:
    """Rank by a metric, or by that of all studies; None where more than one number decides."""
    several = sa.select(TAGS.c.run_uuid).where(TAGS.c.key == tags.OBJECTIVES).limit(1)
    if connection.execute(several).first() is not None:
        return None  # fronts need all trials of their study
    own, direction, value = TAGS.alias("own"), TAGS.alias("direction"), TAGS.alias("value")
    joined = sa.and_(direction.c.run_uuid == own.c.run_uuid, direction.c.key == tags.DIRECTION)
    judged = connection.execute(
        sa.select(own.c.value, direction.c.value)
        .distinct()
        .select_from(own.outerjoin(direction, joined))
        .where(own.c.key == tags.METRIC, *([] if metric is None else [own.c.value == metric]))
    ).all()
    # Of a metric that was asked for, the name decides where no chosen run is judged by it
    falls = {(text or "maximize") == "maximize" for _, text in judged}
    falls |= set() if metric is None else {not is_loss(metric)}
    if is_descending is None and len(falls) != 1:
        return None
    if metric is None:
        names = {name for name, _ in judged}
        if len(names) != 1 or "" in names:
            return None
        (metric,) = names
        is_asked = False
    else:
        is_asked = True
    values: dict[str, float] = {}
    if judged:
        joined = sa.and_(value.c.run_uuid == own.c.run_uuid, value.c.key == tags.VALUE)
        query = sa.select(own.c.run_uuid, value.c.value).select_from(own.outerjoin(value, joined))
        for run_id, text in connection.execute(query.where(own.c.key == tags.METRIC, own.c.value == metric)):
            values[run_id] = _number(text)
    if is_asked:
        stored = looked_up_name(metric)
        latest = sa.select(LATEST.c.run_uuid, LATEST.c.value).where(LATEST.c.key == stored, sa.not_(LATEST.c.is_nan))
        values = {run_id: unbounded(number) for run_id, number in connection.execute(latest)} | values
    else:
        counted = sa.select(sa.func.count()).select_from(TAGS).where(TAGS.c.key == tags.VALUE)
        if connection.scalar(counted) != sum(not math.isnan(number) for number in values.values()):
            return None  # a value without a metric, or one that is no number
    falling = falls.pop() if is_descending is None else is_descending
    ranked = sorted(((number, run_id) for run_id, number in values.items() if not math.isnan(number)), reverse=falling)
    return Ranking(
        metric=metric,
        is_descending=falling,
        run_ids=[run_id for _, run_id in ranked],
        values=[number for number, _ in ranked],
    )


def _number(text: str | None) -> float:
    try:
        return math.nan if text is None else float(text)
    except ValueError:  # somebody edited the tag
        return math.nan
