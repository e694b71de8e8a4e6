"""Queued operations of a recorder: split where a store rejects a part, joined where points follow each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweeps.core.messages import MetricPoint
from sweeps.core.text import plain, some_of
from sweeps.tracking.ui import PARENT, RunKey

__all__ = ["Operation", "merged"]


@dataclass(slots=True, kw_only=True)
class Operation:
    """One write to a run."""

    kind: str  # start, resume, params, metrics, tags, note, artifact, end
    run: RunKey
    arguments: dict[str, Any] = field(default_factory=dict)
    is_sifted: bool = False  # points that the run has already are left out

    def parts(self) -> "list[Operation]":
        """Return what does the same, one after the other; nothing if it cannot be divided."""
        arguments = self.arguments
        match self.kind:
            case "metrics":
                return [self._with("metrics", points=half) for half in _point_halves(arguments["points"])]
            case "params":
                return [self._with("params", params=half) for half in _halves(arguments["params"])]
            case "tags":
                return [self._with("tags", run_tags=half) for half in _halves(arguments["run_tags"])]
            case "start" | "end" if arguments["run_tags"]:
                bare = self._with(self.kind, **{**arguments, "run_tags": {}})
                tagged = self._with("tags", run_tags=arguments["run_tags"])
                return [bare, tagged] if self.kind == "start" else [tagged, bare]
        return []

    def in_words(self) -> str:
        """Say what it is of which run."""
        arguments = self.arguments
        match self.kind:
            case "metrics":
                what = some_of(list(dict.fromkeys(point.key for point in arguments["points"])))
            case "params":
                what = f"param {some_of(list(arguments['params']))}"
            case "tags":
                what = f"tag {some_of(list(arguments['run_tags']))}"
            case "artifact":
                what = f"file {Path(arguments['path']).name}"
            case kind:
                what = {"start": "the run", "end": "the end"}.get(kind, "the resumption")
        run = str(self.run)
        return plain(f"{what} of {'the study' if run == PARENT else f'trial {run}' if run[:1].isdigit() else run}")

    def _with(self, kind: str, **arguments: Any) -> "Operation":
        return Operation(kind=kind, run=self.run, arguments=arguments, is_sifted=self.is_sifted)


def merged(operations: list[Operation]) -> list[Operation]:
    """Join the metric points of a run into one operation, at the place of the first.

    What else happens to a run comes after the points that were logged before it, and points of one run are
    independent of other runs; so only the run's own other operations separate its points.
    """
    joined: list[Operation] = []
    open_points: dict[RunKey, list[MetricPoint]] = {}
    for operation in operations:
        if operation.kind == "note":
            joined.append(operation)
        elif operation.kind != "metrics":
            open_points.pop(operation.run, None)
            joined.append(operation)
        elif operation.run in open_points:
            open_points[operation.run].extend(operation.arguments["points"])
        else:
            points = list(operation.arguments["points"])
            open_points[operation.run] = points
            joined.append(Operation(kind="metrics", run=operation.run, arguments={"points": points}))
    return joined


def _halves(items: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return both halves of a mapping; nothing of a single item."""
    pairs, half = list(items.items()), len(items) // 2
    return [dict(pairs[:half]), dict(pairs[half:])] if half else []


def _point_halves(points: Sequence[MetricPoint]) -> list[list[MetricPoint]]:
    """Return points in two parts, each of some metrics, or of one metric both halves; nothing of a single point.

    By metrics first: mostly all points of one are refused, and they are between those of the others.
    """
    keys = list(dict.fromkeys(point.key for point in points))
    first = set(keys[: len(keys) // 2])
    if first:
        return [[p for p in points if p.key in first], [p for p in points if p.key not in first]]
    half = len(points) // 2
    return [list(points[:half]), list(points[half:])] if half else []
