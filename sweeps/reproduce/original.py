"""A run as its record tells it, so that it can be trained again. All of it is data that others may have written."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.config.composer import Config
from sweeps.core import paths
from sweeps.core.errors import StoreError
from sweeps.core.safe_yaml import read_config
from sweeps.core.text import storable
from sweeps.core.tree import flatten
from sweeps.reproduce.provenance import artifact_name, differences
from sweeps.reproduce.trace import Trace, parsed_trace
from sweeps.reproduce.verdict import Evidence, Points, merged, midway_changes
from sweeps.results.reader import RunReader
from sweeps.results.run import run_folder
from sweeps.results.run_names import find_run, label
from sweeps.tracking import tags
from sweeps.tracking.names import MAX_PARAM, shortened
from sweeps.tracking.runs import StoredRun

__all__ = ["IncompleteError", "Original", "config_of", "load_original", "parsed_object", "points_of"]

_DIGEST = re.compile(r"[0-9a-f]{16}")
_NEEDED = ("data", "model", "system", "optimizer", "scheduler", "trainer", "callbacks", "objective", "seed", "test")
_SECTIONS = ("data", "trainer", "tracking", "objective")


class IncompleteError(StoreError):
    """The record of a run does not have what it takes to train it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """A recorded run.

    Attributes:
        name: The shortest name by which it is found.
        notes: What there is to say of how it was found.
        run: As the store has it.
        state: How it ended.
        config: What it trained.
        edited: The keys of the config that the run's params contradict.
        evidence: Its trace and its metrics.
        provenance: Code, packages and machine; empty if that was not recorded.
        replicates: The objective of its replicates, or of those beside it.
        midway: What had changed when it was interrupted and went on: the epoch, and words by kind.
        trace_file: What is in the file of its trace, also what cannot be read; None if it left none, or is exported.
        is_stored: Whether the run is in the store; else it comes from an exported folder.
    """

    name: str
    notes: tuple[str, ...]
    run: StoredRun
    state: str
    config: Config
    edited: tuple[str, ...]
    evidence: Evidence
    provenance: Mapping[str, Any]
    replicates: tuple[float, ...]
    midway: tuple[tuple[int, Mapping[str, Sequence[str]]], ...] = ()
    trace_file: bytes | None = None
    is_stored: bool = True


def load_original(reader: RunReader, uri: str, name: str, store_dir: Path) -> Original:
    """Read the record of the run that is called `name`.

    Raises:
        UsageError: There is no such run.
        IncompleteError: The record lacks what training it again takes.
        StoreError: The store cannot be read.
    """
    found = find_run(reader, uri, name)
    run = reader.run(found.run_id)
    notes = [found.note] if found.note else []
    if run.tags.get(tags.KIND) == "study":
        raise IncompleteError(f"{name} is a study: name one of its trials, such as best:{run.tags.get(tags.STUDY)}.")
    run = _trained(reader, run, notes)
    folder = run_folder(run, store_dir)
    config = config_of(_read(reader, run, folder, paths.CONFIG))
    trace_file = _read(reader, run, folder, paths.TRACE)
    trace = parsed_trace(trace_file or b"")
    if len(trace.segments) > 1:
        where = ", ".join(str(segment.begins) for segment in trace.segments[1:])
        notes.append(f"It was interrupted, and went on at epoch {where}.")
    value = run.tags.get(tags.VALUE)
    return Original(
        name=label(reader, run),
        notes=tuple(notes),
        run=run,
        state=run.tags.get(tags.STATE, ""),
        config=config,
        edited=tuple(_edited(config, run.params)),
        evidence=Evidence(
            trace=trace,
            points=points_of(reader, run),
            value=None if value is None else _number(value),
        ),
        provenance=_provenance(reader, run, store_dir, _first_digest(trace, run)),
        replicates=tuple(_replicates(reader, run)),
        midway=tuple(_midway(reader, run, store_dir, trace)),
        trace_file=trace_file,
    )


def points_of(reader: RunReader, run: StoredRun) -> Points:
    """Return all points of all metrics of a run."""
    histories = reader.histories([run.run_id], sorted(run.metrics))
    return {
        key: list(zip(of[run.run_id].steps.tolist(), of[run.run_id].values.tolist(), strict=True))
        for key, of in histories.items()
        if run.run_id in of
    }


def _trained(reader: RunReader, run: StoredRun, notes: list[str]) -> StoredRun:
    """Return the run that was trained where this one has the result of another, or the mean of several."""
    study, trial = run.tags.get(tags.STUDY, ""), run.tags.get(tags.TRIAL, "")
    if tags.REUSED_FROM in run.tags:
        source = run.tags[tags.REUSED_FROM]
        notes.append(f"Trial {trial} has the result of trial {source}, which stands for it.")
        found = reader.runs_with({tags.KIND: "trial", tags.STUDY: study, tags.TRIAL: source})
        if not found:
            raise IncompleteError(f"Trial {trial} has the result of trial {source}, which the store does not have.")
        run, trial = reader.run(found[-1].run_id), source
    if run.tags.get(tags.KIND) == "trial":
        first = {tags.KIND: "replicate", tags.STUDY: study, tags.TRIAL: trial, tags.REPLICATE: "0"}
        found = reader.runs_with(first)
        if found:
            notes.append(f"Trial {trial} is the mean of several trainings, the first of which is taken.")
            return reader.run(found[-1].run_id)
    return run


def _read(reader: RunReader, run: StoredRun, folder: Path | None, name: str) -> bytes | None:
    """Return a file of the run: its artifact, or else what lies in its folder."""
    content = reader.read_artifact(run, name)
    if content is None and folder is not None and (folder / name).is_file():
        return (folder / name).read_bytes()
    return content


def config_of(content: bytes | None) -> Config:
    """Read a frozen config.

    Raises:
        IncompleteError: It is missing, not valid, or lacks parts.
    """
    if content is None:
        raise IncompleteError(f"The run has no {paths.CONFIG}, neither as an artifact nor in its folder.")
    try:
        config = read_config(content.decode("utf-8"))
    except (StoreError, UnicodeDecodeError) as error:
        raise IncompleteError(f"The record's {paths.CONFIG} is not taken: {error}") from error
    missing = [key for key in _NEEDED if key not in config]
    if missing:
        raise IncompleteError(f"The record's {paths.CONFIG} has no {', '.join(missing)}.")
    given = config | ({"data": {}} if config["data"] is None else {})  # null where the module has loaders of its own
    others = [key for key in _SECTIONS if not isinstance(given.get(key, {}), Mapping)]
    if others:
        raise IncompleteError(f"The record's {paths.CONFIG} must have keys and values in {', '.join(others)}.")
    return config


def _first_digest(trace: Trace, run: StoredRun) -> str:
    """Return what names the provenance under which a training began; the run's tag names the last."""
    return (trace.segments[0].provenance if trace.segments else "") or run.tags.get(tags.PROVENANCE, "")


def _provenance(reader: RunReader, run: StoredRun, store_dir: Path, digest: str) -> Mapping[str, Any]:
    if not _DIGEST.fullmatch(digest):
        return {}
    study = run.tags.get(tags.STUDY)
    owner, folder = run, run_folder(run, store_dir)
    if study is not None:
        parents = reader.runs_with({tags.KIND: "study", tags.STUDY: study})
        owner = reader.run(parents[-1].run_id) if parents else run
        folder = run_folder(owner, store_dir)
    content = _read(reader, owner, folder, artifact_name(digest))
    return parsed_object(content)


def _midway(
    reader: RunReader, run: StoredRun, store_dir: Path, trace: Trace
) -> Iterator[tuple[int, dict[str, list[str]]]]:
    """Return what had changed each time when the training was interrupted and went on."""
    for segment, (begins, changes) in zip(trace.segments[1:], midway_changes(trace), strict=True):
        if segment.provenance != trace.segments[0].provenance:
            then, later = (_provenance(reader, run, store_dir, of.provenance) for of in (trace.segments[0], segment))
            found = differences(then, later)
            changes = merged(
                changes,
                {
                    name: [word.replace("(now ", f"(from epoch {begins} on ") for word in of]
                    for name, of in found.items()
                },
            )
        if any(changes.values()):
            yield begins, changes


def parsed_object(content: bytes | None) -> dict[str, Any]:
    """Return a JSON object; empty if there is none."""
    try:
        found = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _edited(config: Config, params: Mapping[str, str]) -> list[str]:
    """Return the keys whose values the params of the run contradict; long ones are shortened there."""
    flat = {key: storable(str(value)) for key, value in flatten(config).items()}
    return [
        key
        for key, value in flat.items()
        if key in params
        and value
        and shortened(value, MAX_PARAM) != params[key]
        and not (len(params[key]) == MAX_PARAM and value.startswith(params[key]))  # as Lightsweep once cut them
    ]


def _replicates(reader: RunReader, run: StoredRun) -> list[float]:
    if run.tags.get(tags.KIND) != "replicate":
        return []
    own = {tags.KIND: "replicate", tags.STUDY: run.tags.get(tags.STUDY, ""), tags.TRIAL: run.tags.get(tags.TRIAL, "")}
    values = [_number(found.tags.get(tags.VALUE, "")) for found in reader.runs_with(own)]
    return [value for value in values if value is not None]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
