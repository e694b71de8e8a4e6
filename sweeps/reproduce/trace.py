"""The trace of a training as a file: what its weights and its data were, epoch by epoch, as hashes.

`trace.jsonl` has one JSON object a line. A `Segment` opens it, and each part of a training that went on elsewhere; an
`Epoch` follows for each that was trained. What cannot be read, such as a last line that a crash has cut off, ends it.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sweeps.core import paths
from sweeps.core.errors import StoreError

__all__ = ["Epoch", "Segment", "Trace", "TraceFile", "parsed_trace", "read_trace"]

_OPERATION = re.compile(r"[\w:.() ]{1,200}")  # a record of others is shown in terminals
_MAX_BYTES = 200_000_000  # a million epochs


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """What was so when a training began, or went on.

    Attributes:
        begins: The first epoch of the segment.
        config: The fingerprint of the frozen config.
        seed: The config's seed.
        provenance: The hash of what the driver knew of code, packages and machine; see `provenance`.
        ranks: What each rank knew of itself: threads, device, flags.
        weights: The hash of the weights before the first step, of each rank.
        sources: The hash of each file of the user's that was imported.
    """

    begins: int
    config: str
    seed: int
    provenance: str
    ranks: tuple[Mapping[str, Any], ...]
    weights: tuple[str, ...]
    sources: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """An epoch that was trained; hashes are those of each rank.

    Attributes:
        epoch: Its number, from 0.
        step: The optimizer steps since the beginning of the training.
        metrics_end: The step of metrics that come next: all of the epoch have lower ones. Where a module optimizes by
            itself it is another than `step`, which older traces have in its place.
        batches: The batches of the epoch.
        order: What was in the batches, and in which order.
        weights: All parameters and buffers at its end.
    """

    epoch: int
    step: int
    metrics_end: int
    batches: int
    order: tuple[str, ...]
    weights: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The trace of a training.

    Attributes:
        segments: One, unless the training was interrupted and went on.
        epochs: In their order.
        data: What the samples of each split were; see `data_content`. Empty if that was never told.
        operations: Those that torch warned of: they have no deterministic form.
        is_damaged: Whether a line could not be read; what came after it is not here.
    """

    segments: tuple[Segment, ...] = ()
    epochs: tuple[Epoch, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    operations: tuple[str, ...] = ()
    is_damaged: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether it begins at the beginning and has an epoch, and all of it can be read."""
        return (
            not self.is_damaged
            and bool(self.segments)
            and self.segments[0].begins == 0
            and bool(self.epochs)
            and self.epochs[0].epoch == 0
        )


class TraceFile:
    """Writes the trace of a training, a line as soon as there is one.

    Args:
        folder: The trial's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / paths.TRACE

    def begin(self, segment: Segment) -> None:
        """Begin a segment: what the file has of its epochs and later ones is replaced, or all if it is the first."""
        before = read_trace(self.path) if segment.begins else Trace()
        kept = Trace(
            segments=tuple(old for old in before.segments if old.begins < segment.begins),
            epochs=tuple(epoch for epoch in before.epochs if epoch.epoch < segment.begins),
        )
        paths.write_text(self.path, _text(kept) + _line(segment))

    def add(self, epoch: Epoch) -> None:
        """Add an epoch."""
        self._append(_line(epoch))

    def tell_data(self, data: Mapping[str, Any]) -> None:
        """Add what the samples were."""
        self._append(json.dumps({"data": data}) + "\n")

    def tell_operations(self, operations: Iterable[str]) -> None:
        """Add which operations have no deterministic form."""
        self._append(json.dumps({"operations": list(operations)}) + "\n")

    def _append(self, line: str) -> None:
        with os.fdopen(
            paths.open_to_append(self.path), "ab"
        ) as file:  # one write: a process that is killed leaves it whole
            file.write(line.encode())


def read_trace(path: Path) -> Trace:
    """Read a trace as data, as far as it can be read; an absent one is empty.

    Raises:
        StoreError: The file is far too large to be a trace.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise StoreError(f"{path} is not a trace: it has {path.stat().st_size} bytes.")
        return parsed_trace(path.read_bytes())
    except FileNotFoundError:
        return Trace()


def parsed_trace(content: bytes) -> Trace:
    """Read what was in the file of a trace, as `read_trace` does.

    Raises:
        StoreError: It is far too large to be a trace.
    """
    if len(content) > _MAX_BYTES:
        raise StoreError(f"The record's {paths.TRACE} is not a trace: it has {len(content)} bytes.")
    segments: list[Segment] = []
    epochs: list[Epoch] = []
    data: Mapping[str, Any] = {}
    operations: tuple[str, ...] = ()
    is_damaged = False
    for line in content.decode("utf-8", errors="replace").splitlines():
        try:
            item = json.loads(line)
            if "begins" in item:
                segments.append(_segment(item))
            elif "epoch" in item:
                epochs.append(_epoch(item))
            elif "operations" in item:
                operations = tuple(name for name in _texts(item["operations"]) if _OPERATION.fullmatch(name))
            else:
                data = dict(item["data"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):  # cut off, or not ours
            is_damaged = True
            break
    return Trace(
        segments=tuple(segments), epochs=tuple(epochs), data=data, operations=operations, is_damaged=is_damaged
    )


def _text(trace: Trace) -> str:
    """Return a trace as its file has it: each segment before its epochs."""
    lines = []
    begins = [segment.begins for segment in trace.segments]
    for segment, end in zip(trace.segments, [*begins, None][1:], strict=True):
        own = (epoch for epoch in trace.epochs if segment.begins <= epoch.epoch and (end is None or epoch.epoch < end))
        lines += [_line(segment), *map(_line, own)]
    more = ({"operations": list(trace.operations)}, {"data": trace.data})
    return "".join(lines) + "".join(json.dumps(item) + "\n" for item in more if any(item.values()))


def _line(item: Segment | Epoch) -> str:
    return json.dumps(asdict(item)) + "\n"


def _segment(item: Mapping[str, Any]) -> Segment:
    return Segment(
        begins=int(item["begins"]),
        config=str(item["config"]),
        seed=int(item["seed"]),
        provenance=str(item["provenance"]),
        ranks=tuple(dict(rank) for rank in item["ranks"]),
        weights=_texts(item["weights"]),
        sources={str(name): str(of) for name, of in dict(item.get("sources", {})).items()},
    )


def _epoch(item: Mapping[str, Any]) -> Epoch:
    return Epoch(
        epoch=int(item["epoch"]),
        step=int(item["step"]),
        metrics_end=int(item.get("metrics_end", item["step"])),  # older traces have none
        batches=int(item["batches"]),
        order=_texts(item["order"]),
        weights=_texts(item["weights"]),
    )


def _texts(found: Iterable[Any]) -> tuple[str, ...]:
    return tuple(str(item) for item in found)
