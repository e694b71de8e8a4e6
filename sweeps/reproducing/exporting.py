"""`lightsweep export`: a folder with all that training a run again elsewhere takes, which `reproduce` reads."""

import base64
import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sweeps import paths
from sweeps.config import to_yaml
from sweeps.errors import UsageError
from sweeps.reading.run_reader import open_reader
from sweeps.reproducing.original import IncompleteError, Original, config_of, load_original, parsed_object
from sweeps.reproducing.recorded_env import recorded_lock
from sweeps.reproducing.traces import read_trace, trace_text
from sweeps.reproducing.verdict import Evidence
from sweeps.tracking.server import StoredRun

__all__ = ["export", "is_export", "load_exported"]

RECORD, PROVENANCE, PATCH, LOCK, README = (
    "run.json",
    "provenance.json",
    "uncommitted.patch",
    "requirements.txt",
    "README.md",
)
_MAX_BYTES = 200_000_000


def export(name: str, target: Path, *, uri: str, store_dir: Path) -> Original:
    """Write the record of the run that is called `name` into a new folder.

    Raises:
        UsageError: There is no such run, or the folder is there and not empty.
        IncompleteError: The record lacks what training it again takes.
        StoreError: What it has of packages is not what pip may be given.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} is there already, and not empty: name a new folder.")
    with open_reader(uri) as reader:
        original = load_original(reader, uri, name, store_dir)
    lock = _lock_text(original)
    target.mkdir(parents=True, exist_ok=True)
    paths.write_text(target / paths.CONFIG, to_yaml(original.config))
    paths.write_text(target / paths.TRACE, trace_text(original.evidence.trace))
    paths.write_text(target / PROVENANCE, json.dumps(original.provenance, indent=1, sort_keys=True) + "\n")
    record = {
        "name": original.name,
        "notes": list(original.notes),
        "state": original.state,
        "edited": list(original.edited),
        "value": original.evidence.value,
        "replicates": list(original.replicates),
        "points": {key: [list(point) for point in of] for key, of in original.evidence.points.items()},
        "run": asdict(original.run),
    }
    paths.write_text(target / RECORD, json.dumps(record, indent=1) + "\n")
    code = original.provenance.get("code")
    has_patch = _write_patch(code if isinstance(code, Mapping) else {}, target)
    paths.write_text(target / LOCK, lock)
    paths.write_text(target / README, _readme(original, has_patch))
    return original


def is_export(name: str) -> bool:
    """Tell whether a name is that of an exported folder."""
    return (Path(name) / RECORD).is_file()


def load_exported(folder: Path) -> Original:
    """Read what `export` has written, as data.

    Raises:
        IncompleteError: Something is missing or is not what it should be.
    """
    record = parsed_object(_bytes(folder / RECORD))
    if not record:
        raise IncompleteError(f"{folder} is no export of a run: it has no {RECORD} that can be read.")
    try:
        points = {str(key): [(int(step), float(value)) for step, value in of] for key, of in record["points"].items()}
        run: dict[str, Any] = {**record["run"], "tags": dict(record["run"]["tags"])}
        value = record["value"]
        return Original(
            name=str(record["name"]),
            notes=tuple(str(note) for note in record["notes"]),
            run=StoredRun(**run),
            state=str(record["state"]),
            config=config_of(_bytes(folder / paths.CONFIG)),
            edited=tuple(str(key) for key in record["edited"]),
            evidence=Evidence(
                trace=read_trace(folder / paths.TRACE), points=points, value=None if value is None else float(value)
            ),
            provenance=parsed_object(_bytes(folder / PROVENANCE)),
            replicates=tuple(float(one) for one in record["replicates"]),
            is_stored=False,
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise IncompleteError(f"{folder / RECORD} is not what `lightsweep export` writes: {error!r}") from error


def _bytes(path: Path) -> bytes | None:
    is_sound = path.is_file() and path.stat().st_size <= _MAX_BYTES
    return path.read_bytes() if is_sound else None


def _write_patch(code: Mapping[str, Any], target: Path) -> bool:
    """Write the uncommitted changes as a patch, and the files that no commit holds as they were, to be looked at."""
    diff = code.get("diff")
    if not isinstance(diff, Mapping):
        return False
    raw = str(diff["text"]).encode() if "text" in diff else base64.b64decode(str(diff.get("base64", "")))
    if raw:
        (target / PATCH).write_bytes(raw)
    return bool(raw)


def _lock_text(original: Original) -> str:
    """Return what pip reads: names with versions and nothing else, of packages that are from an index."""
    try:
        lock = recorded_lock(original.provenance, {})
    except IncompleteError:
        return ""
    others = [f"# not from an index: {name}" for name in ("lightsweep", *lock.missing)]
    return "\n".join([*others, *lock.requirements(), ""])


def _readme(original: Original, has_patch: bool) -> str:
    code = original.provenance.get("code")
    commit = code.get("commit") if isinstance(code, Mapping) else None
    python = original.provenance.get("machine")
    python = python.get("python") if isinstance(python, Mapping) else None
    lines = [f"# {original.name}", "", "To train this run again and compare it bit for bit:", ""]
    lines += [f"    # {python or 'the Python of requirements.txt'}", "    pip install -r requirements.txt"]
    if commit:
        lines.append(f"    git checkout {shlex.quote(str(commit))}")
    if has_patch:
        lines.append(f"    git apply {PATCH}    # look at it before: it is code")
    lines += ["    lightsweep reproduce .    # --config-dir DIR for modules of your own", ""]
    if commit:
        lines += [
            "Or let Lightsweep do that aside, in a clone of the repository; it shows all of it and asks before:",
            "",
        ]
        lines += ["    lightsweep reproduce THIS_FOLDER --at-commit --in-env", ""]
    lines += [
        "Files of your own that no commit held are in provenance.json, under code.files.",
        "Where the data lay is in config.yaml, under data; its fingerprint is the last line of trace.jsonl.",
        "",
    ]
    return "\n".join(lines)
