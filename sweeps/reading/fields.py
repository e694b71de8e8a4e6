"""What of a row can be named on the command line: fields, parameters and metrics."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from sweeps.core.errors import UsageError, did_you_mean
from sweeps.core.text import short_names
from sweeps.reading.trial_row import TrialRow

__all__ = ["FIELDS", "LATE_FIELDS", "Field", "metrics_among", "resolve"]

FIELDS = ("study", "trial", "state", "value", "duration_s", "metric", "infeasible", "is_on_front", "run_id")
LATE_FIELDS = (*FIELDS, "name", "reason", "folder")
"""with those that rows to choose from lack"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """Something that a row may have.

    Attributes:
        name: As it was typed.
        kind: Where it stands in a row.
        key: How it is called there.
    """

    name: str
    kind: Literal["field", "params", "metrics"]
    key: str

    def of(self, row: TrialRow) -> Any:
        """Return what the row has; None for nothing."""
        if self.kind == "field":
            return getattr(row, self.key)
        found: dict[str, Any] = getattr(row, self.kind)
        return found.get(self.key)


def metrics_among(names: Iterable[str]) -> set[str]:
    """Return the metrics that must be read so that these names can be resolved."""
    return {name.removeprefix("metrics.") for name in names if name not in FIELDS and not name.startswith("params.")}


def resolve(name: str, rows: Collection[TrialRow], fields: Collection[str] = FIELDS) -> Field:
    """Find what is meant by `params.KEY`, `metrics.KEY`, a field, or a parameter, a metric or the end of a parameter.

    Raises:
        UsageError: No row has it; names the nearest.
    """
    params = {key: None for row in rows for key in row.params}
    metrics = {key: None for row in rows for key in row.metrics}
    head, _, tail = name.partition(".")
    if name in fields:
        return Field(name=name, kind="field", key=name)
    if head == "params" and (tail in params or not rows):
        return Field(name=name, kind="params", key=tail)
    if head == "metrics" and (tail in metrics or not rows):
        return Field(name=name, kind="metrics", key=tail)
    if name in params or not rows:
        return Field(name=name, kind="params", key=name)
    if name in metrics:
        return Field(name=name, kind="metrics", key=name)
    short = [key for key, text in short_names(params).items() if text == name]
    if short:
        return Field(name=name, kind="params", key=short[0])
    if head in ("params", "metrics"):
        known = [f"{head}.{key}" for key in (params if head == "params" else metrics)]
    else:
        known = [*fields, *params, *metrics]
    raise UsageError(f"None of these runs has {name!r}. {did_you_mean(name, known)}".rstrip())
