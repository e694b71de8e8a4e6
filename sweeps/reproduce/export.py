"""`lightsweep export`: a folder with all that training a run again elsewhere takes, which `reproduce` reads."""

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sweeps.config.composer import to_yaml
from sweeps.core import paths
from sweeps.core.errors import UsageError
from sweeps.core.text import plain
from sweeps.reproduce.checkout import kept_content
from sweeps.reproduce.environment import recorded_lock
from sweeps.reproduce.original import IncompleteError, Original, config_of, load_original, parsed_object
from sweeps.reproduce.trace import read_trace
from sweeps.reproduce.verdict import Evidence
from sweeps.results.reader import open_reader
from sweeps.tracking.runs import StoredRun

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
    record = {
        "name": original.name,
        "notes": list(original.notes),
        "state": original.state,
        "edited": list(original.edited),
        "value": original.evidence.value,
        "replicates": list(original.replicates),
        "points": {key: [list(point) for point in of] for key, of in original.evidence.points.items()},
        "midway": [[begins, changes] for begins, changes in original.midway],
        "run": asdict(original.run),
    }
    code = original.provenance.get("code")
    patch = kept_content(code.get("diff")) if isinstance(code, Mapping) else None
    files = {  # all of them before the folder: what the record has may be refused
        paths.CONFIG: to_yaml(original.config).encode(),
        paths.TRACE: original.trace_file,
        PROVENANCE: (json.dumps(original.provenance, indent=1, sort_keys=True) + "\n").encode(),
        PATCH: patch or None,
        LOCK: _lock_text(original).encode(),
        README: _readme(original, bool(patch)).encode(),
        RECORD: (json.dumps(record, indent=1) + "\n").encode(),  # the last one: it makes the folder an export
    }
    target.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        if content is not None:
            (target / file).write_bytes(content)
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
        raise IncompleteError(f"{folder} is not an export of a run: it has no {RECORD} that can be read.")
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
            midway=tuple(_midway(record.get("midway", []))),  # older exports have none
            is_stored=False,
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise IncompleteError(f"{folder / RECORD} is not what `lightsweep export` writes: {error!r}") from error


def _bytes(path: Path) -> bytes | None:
    is_sound = path.is_file() and path.stat().st_size <= _MAX_BYTES
    return path.read_bytes() if is_sound else None


def _midway(recorded: Iterable[Any]) -> Iterator[tuple[int, dict[str, list[str]]]]:
    for begins, changes in recorded:
        yield int(begins), {str(kind): [str(word) for word in words] for kind, words in changes.items()}


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
    lines = [f"# {plain(original.name)}", "", "To train this run again and compare it bit for bit:", ""]
    lines += [
        f"    # {plain(str(python)) if python else 'the Python of requirements.txt'}",
        "    pip install -r requirements.txt",
    ]
    if commit:
        lines.append(f"    git checkout {shlex.quote(plain(str(commit)))}")
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
