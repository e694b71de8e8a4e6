"""A study as the charts need it: data that several charts share is computed once."""

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sweeps.core.text import brief, distinct, duration, number
from sweeps.core.trials import SEM
from sweeps.report.chart import Axis, Points, Role
from sweeps.results.queries import TrialRow

if TYPE_CHECKING:
    from sweeps.results.histories import History
    from sweeps.results.study import StoredStudy
    from sweeps.search.importance import Importance
    from sweeps.search.space.parameter import Parameter

__all__ = ["ROLES", "Scale", "StudyView", "plain", "value_axis"]

ROLES: tuple[Role, ...] = ("running", "interrupted", "failed", "pruned", "infeasible", "complete", "best")
"""The roles in the order in which they are drawn: the most important on top."""

_LONGEST_LABEL = 28
_WIDE = 1000.0  # the ratio of values above which the axis of an undeclared parameter is logarithmic
_WIDE_LOSS = 50.0  # likewise of a minimized metric
_JITTER = 0.16  # of the distance between two categories
_GOLDEN = 0.6180339887498949
_MOST_HOVERED = 12  # parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Maps the values of a parameter to positions on an axis.

    Attributes:
        axis: The axis.
        places: The position of each value of a categorical axis, by its `repr`.
    """

    axis: Axis
    places: Mapping[str, int]

    def place(self, value: Any) -> float:
        """Return the position of a value; NaN if it has none."""
        if self.axis.categories:
            return float(self.places.get(repr(value), math.nan))
        is_drawn = _is_finite(value) and (value > 0 or not self.axis.is_log)
        return float(value) if is_drawn else math.nan

    def spread(self, value: Any, trial: int) -> float:
        """Return the position of a trial's value; trials that share a category are spread around it."""
        beside = _JITTER * (2 * (trial * _GOLDEN % 1) - 1) if self.axis.categories else 0.0
        return self.place(value) + beside


class StudyView:
    """A study, as the charts see it.

    Args:
        study: The study as read from its store.
        importances: The importance of the searched keys for each objective, the most important first.
        now_ms: The time up to which running trials are drawn, in milliseconds since 1970.

    Attributes:
        rows: The trials of the study without the dropped ones.
        metric: The leading objective.
    """

    def __init__(
        self,
        study: "StoredStudy",
        importances: "Mapping[str, Sequence[Importance]]",
        *,
        now_ms: int,
    ) -> None:
        self.study = study
        self.importances = importances
        self.now_ms = now_ms
        self.rows = [row for row in study.trials if row.state != "dropped"]
        self.metric = next(iter(study.objectives), "")
        self._best = {row.run_id for row in study.best}
        self._histories: dict[str, Mapping[int, History]] = {}

    @cached_property
    def params(self) -> dict[str, dict[str, Any]]:
        """The parameters by run; a list whose elements are searched is split into its elements."""
        return {row.run_id: self._places(row.params) for row in self.rows}

    @cached_property
    def keys(self) -> list[str]:
        """The parameters that differ between trials, the most important first."""
        known = [] if self.study.space is None else [parameter.key_path for parameter in self.study.space.parameters]
        found = dict.fromkeys([*known, *(key for params in self.params.values() for key in params)])
        varying = [key for key in found if len({repr(value) for value in self.values_of(key)}) > 1]
        return sorted(varying, key=lambda key: -self.importance(key))

    def importance(self, key: str, metric: str | None = None) -> float:
        """Return the importance of a parameter for an objective, a share of 1; 0 if it is unknown."""
        shares = {one.key: one.share for one in self.importances.get(metric or self.metric, ())}
        return shares.get(key, shares.get(key.partition("[")[0], 0.0))

    def values_of(self, key: str) -> list[Any]:
        """Return the values of a parameter in all trials that have it."""
        return [params[key] for params in self.params.values() if key in params]

    def role(self, row: TrialRow) -> Role:
        """Return the role as which a trial is drawn."""
        if row.run_id in self._best:
            return "best"
        if row.state == "complete" and row.infeasible:
            return "infeasible"
        known: dict[str, Role] = {role: role for role in ROLES}
        return known.get(row.state, "interrupted")

    def value(self, row: TrialRow, metric: str | None = None) -> float:
        """Return the value of an objective, by default of the leading one; NaN if there is none."""
        metric = metric or self.metric
        value = row.values.get(metric, row.value if metric == row.metric else None)
        return float(value) if value is not None and math.isfinite(value) else math.nan

    def error(self, row: TrialRow, metric: str | None = None) -> float:
        """Return the standard error of an objective's mean over replicates; 0 without replicates."""
        error = row.metrics.get(f"{metric or self.metric}{SEM}", 0.0)
        return error if _is_finite(error) else 0.0

    def is_minimized(self, metric: str | None = None) -> bool:
        """Tell whether an objective is minimized."""
        return self.study.objectives.get(metric or self.metric) == "minimize"

    def histories(self, metric: str) -> "Mapping[int, History]":
        """Return the histories of a metric by the trials' numbers."""
        if metric not in self._histories:
            self._histories[metric] = self.study.histories(metric)
        return self._histories[metric]

    def hover(self, row: TrialRow) -> str:
        """Describe a trial in a few lines."""
        lines = [f"#{row.trial} {self.role(row)}" if self.role(row) != "complete" else f"#{row.trial}"]
        for metric in self.study.objectives:
            value, error = self.value(row, metric), self.error(row, metric)
            if not math.isnan(value):
                lines.append(f"{metric} {number(value)}" + (f" ± {number(error)}" if error else ""))
        lines += [f"{key} {plain(value)}" for key, value in list(row.params.items())[:_MOST_HOVERED]]
        lines += [duration(row.duration_s)] if row.duration_s is not None else []
        lines += [text[:160] for text in (row.reason, row.infeasible) if text]
        return "\n".join(lines)

    def points(self, placed: Iterable[tuple[TrialRow, float, float]], *, metric: str = "") -> tuple[Points, ...]:
        """Return the points of trials, one mark for each role; points that are not finite are left out.

        Args:
            placed: Each trial with its x and y.
            metric: The objective that y shows, for its error bars.
        """
        of_role: dict[Role, list[tuple[TrialRow, float, float]]] = {}
        for row, x, y in placed:
            if math.isfinite(x) and math.isfinite(y):
                of_role.setdefault(self.role(row), []).append((row, x, y))
        found = []
        for role in ROLES:
            chosen = of_role.get(role, [])
            errors = tuple(self.error(row, metric) if metric else 0.0 for row, _, _ in chosen)
            if chosen:
                found.append(
                    Points(
                        x=tuple(x for _, x, _ in chosen),
                        y=tuple(y for _, _, y in chosen),
                        hover=tuple(self.hover(row) for row, _, _ in chosen),
                        role=role,
                        errors=errors if any(errors) else (),
                    )
                )
        return tuple(found)

    def scale(self, key: str) -> Scale:
        """Return the scale of a parameter, as the search space declares it, or else derived from its values."""
        values = self.values_of(key)
        parameters = self._parameters(key)
        is_choice = any(type(parameter.domain).__name__ == "Choices" for parameter in parameters)
        if is_choice or not all(map(_is_number, values)):
            declared = [value for parameter in parameters if is_choice for value in parameter.values or ()]
            return _categories(key, [*declared, *values], num_declared=len(declared))
        finite = [value for value in values if _is_finite(value)]
        is_positive = bool(finite) and min(finite) > 0
        is_wide = is_positive and max(finite) / min(finite) >= _WIDE
        is_declared_log = all(getattr(parameter.domain, "log", False) for parameter in parameters)
        is_log = is_positive and (is_declared_log if parameters else is_wide)
        is_whole = bool(finite) and all(isinstance(value, int) for value in finite)
        return Scale(axis=Axis(label=key, is_log=is_log, is_whole=is_whole), places={})

    def _parameters(self, key: str) -> "list[Parameter]":
        """Return the parameters of the space with this key path: several if options have ranges of their own."""
        space = self.study.space
        return [] if space is None else [parameter for parameter in space.parameters if parameter.key_path == key]

    def _places(self, params: Mapping[str, Any]) -> dict[str, Any]:
        space = self.study.space
        if space is None or not any(parameter.index is not None for parameter in space.parameters):
            return dict(params)
        found: dict[str, Any] = {}
        split = {parameter.key for parameter in space.parameters if parameter.index is not None}
        for key, value in params.items():
            if key in split and isinstance(value, Sequence) and not isinstance(value, str):
                found |= {f"{key}[{index}]": item for index, item in enumerate(value)}
            else:
                found[key] = value
        return found


def _categories(key: str, values: Sequence[Any], *, num_declared: int) -> Scale:
    """Return a categorical scale: numbers by value, others as declared, then alphabetically."""
    if all(map(_is_number, values)):
        ordered = sorted(values)
    else:
        ordered = [*values[:num_declared], *sorted(values[num_declared:], key=plain)]
    texts = distinct(ordered, plain)
    places = {value: place for place, value in enumerate(texts)}
    return Scale(axis=Axis(label=key, categories=tuple(map(_short, texts.values()))), places=places)


def value_axis(label: str, values: Collection[float], *, is_minimized: bool) -> Axis:
    """Return the axis of a metric: logarithmic for a minimized one that spans several powers of ten."""
    finite = [value for value in values if math.isfinite(value)]
    is_positive = bool(finite) and min(finite) > 0
    middle = statistics.median(finite) if finite else 0.0
    is_wide = is_positive and is_minimized and max(finite) / min(finite) > _WIDE_LOSS and max(finite) > 10 * middle
    return Axis(label=label, is_log=is_wide)


def plain(value: Any, digits: int | None = 4) -> str:
    """Write the value of a parameter for people: `0.0031`, `relu`, `[64, 32]`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(plain(item, digits) for item in value)}]"
    return "null" if value is None else brief(number(value, digits))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 1]}…"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value)
