"""What a check has found, as data and in words; `cli/preflight_report.py` prints it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sweeps.config.quoting import quote
from sweeps.core.messages import Memory
from sweeps.core.text import duration, memory, some_of

__all__ = ["AvailableMemory", "CheckReport", "Point", "Size", "Unused", "text_of"]

Point = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large training is at one point of the space."""

    values: Point
    num_parameters: int
    memory: Memory | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AvailableMemory:
    """The memory that there is.

    Attributes:
        where: `host` or `gpu`.
        num_bytes: How much is free.
        num_ranks: How many ranks share it when all slots are in use.
    """

    where: Literal["host", "gpu"]
    num_bytes: int
    num_ranks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unused:
    """Parameters of the model that got no gradient, and a point where they got none; everywhere if it is None."""

    names: tuple[str, ...]
    values: Point | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What a check has found.

    Attributes:
        num_corners: Points that were built.
        num_run: Those of them that were trained for two batches.
        elapsed_s: How long it took, once the modules were imported.
        metrics: What is logged.
        smallest: The point with the fewest parameters.
        largest: The point with the most.
        peak_memory: The point that takes the most memory; None if that was not measured.
        available: What memory is free.
        unread: Searched places that no part of a run's configuration reads.
        idle: Searched places that are read, but change nothing of what is computed.
        unused: Parameters without a gradient.
        combination: The point that joins what is large, if it could not be run, and why.
        heard: Warnings of the process that ran the first corner.
        late: Metrics that trials are judged by, and that may be logged later.
    """

    num_corners: int
    num_run: int
    elapsed_s: float
    metrics: tuple[str, ...]
    smallest: Size
    largest: Size
    peak_memory: Size | None
    available: AvailableMemory
    unread: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()
    unused: tuple[Unused, ...] = ()
    combination: tuple[Point, str] | None = None
    heard: tuple[str, ...] = ()
    late: tuple[str, ...] = ()

    @property
    def warnings(self) -> list[str]:
        """One line for each thing that a user should know before the first trial."""
        found = list(self.heard)
        found += [
            f"{place} changes nothing: no part of a run's configuration reads it. Leave it out of the search, or refer "
            f"to it, such as model.width=${{{place}}}."
            for place in self.unread
        ]
        found += [
            f"{place} changes nothing: with all its values the first batches give the same losses, gradients, weights "
            "and metrics. Leave it out of the search, unless it acts later."
            for place in self.idle
        ]
        found += [
            f"{some_of(unused.names)} got no gradient in the first batches{_with(unused.values)}: use "
            f"{'it' if len(unused.names) == 1 else 'them'}, or freeze {'it' if len(unused.names) == 1 else 'them'} "
            "(requires_grad=False). Plain DDP with several ranks refuses this."
            for unused in self.unused
        ]
        if self.combination is not None:
            values, why = self.combination
            found.append(f"Large values together, {text_of(values)}, {why}")
        if self.peak_memory is not None and self.peak_memory.memory is not None:
            needed = self.peak_memory.memory.total * self.available.num_ranks
            if needed > self.available.num_bytes:
                found.append(
                    f"{self._ranks} may take about {memory(needed)} (estimated{_with(self.peak_memory.values)}), but "
                    f"{memory(self.available.num_bytes)} of memory are free on the {self._place}: set fewer "
                    "launcher.slots, or smaller models and batches."
                )
        if self.num_run < self.num_corners:
            found.append(
                f"{self.num_corners - self.num_run} of {self.num_corners} corners were built, but not run: there was "
                "no more time for it."
            )
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data for JSON."""

        def size(it: Size) -> dict[str, Any]:
            return {"num_parameters": it.num_parameters, "params": dict(it.values)}

        peak_memory = self.peak_memory
        found: dict[str, Any] = {
            "corners": self.num_corners,
            "run": self.num_run,
            "duration_s": round(self.elapsed_s, 3),
            "metrics": list(self.metrics),
            "smallest": size(self.smallest),
            "largest": size(self.largest),
            "memory": None,
            "available": {
                "where": self.available.where,
                "bytes": self.available.num_bytes,
                "ranks": self.available.num_ranks,
            },
            "unread": list(self.unread),
            "idle": list(self.idle),
            "unused": [
                {"parameters": list(it.names), "params": None if it.values is None else dict(it.values)}
                for it in self.unused
            ],
            "warnings": self.warnings,
        }
        if peak_memory is not None and peak_memory.memory is not None:
            parts = peak_memory.memory
            found["memory"] = {
                "bytes": parts.total,
                "parameters": parts.parameters,
                "gradients": parts.gradients,
                "optimizer": parts.optimizer,
                "activations": parts.activations,
                "peak": parts.peak,
                "params": dict(peak_memory.values),
            }
        return found

    @property
    def _ranks(self) -> str:
        return "1 rank" if self.available.num_ranks == 1 else f"{self.available.num_ranks} ranks at once"

    @property
    def _place(self) -> str:
        return "GPU" if self.available.where == "gpu" else "host"

    def lines(self) -> list[tuple[str, str]]:
        """Return what a table shows: what, and how much."""
        of = "" if self.num_run == self.num_corners else f", {self.num_run} of them run"
        count = f"{self.num_corners} built{of}, two batches each, in {duration(self.elapsed_s)}"
        smallest, largest = self.smallest, self.largest
        sizes = f"{smallest.num_parameters:,}"
        if largest.num_parameters > smallest.num_parameters:
            sizes += f"{_with(smallest.values)}, to {largest.num_parameters:,}{_with(largest.values)}"
        found = [("corners", count), ("parameters", sizes)]
        if self.peak_memory is not None and self.peak_memory.memory is not None:
            parts = self.peak_memory.memory
            found.append(("memory", f"about {memory(parts.total)} a rank{_with(self.peak_memory.values)}; an estimate"))
            found.append(("", _parts(parts)))
        free = f"{memory(self.available.num_bytes)} on the {self._place}, for {self._ranks}"
        return [*found, ("free", free), ("logged", ", ".join(self.metrics))]


def text_of(values: Point) -> str:
    """Write values as they are typed: `optimizer.lr=0.1 model.depth=4`."""
    return " ".join(f"{key}={quote(value)}" for key, value in values.items())


def _with(values: Point | None) -> str:
    return f" with {text_of(values)}" if values else ""


def _parts(parts: Memory) -> str:
    named = {"parameters": parts.parameters, "gradients": parts.gradients, "optimizer": parts.optimizer}
    if parts.activations is not None:
        named["activations of a batch"] = parts.activations
    told = ", ".join(f"{name} {memory(size)}" for name, size in named.items())
    return f"{told}; the most that was allocated {memory(parts.peak)}" if parts.peak else told
