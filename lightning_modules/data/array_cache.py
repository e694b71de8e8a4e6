"""Arrays decoded once and memory mapped by all trials and processes.

An entry is a folder `NAME-KEY` of `.npy` files, where KEY hashes the state of the source: a changed source
has another key and is decoded again. An entry is written aside and renamed when complete, so a process that sees it
sees all of it; a lock makes processes that want the same new entry wait for one of them to decode.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["CachedArrays", "cached_arrays"]

_FORMAT = 1  # raise it when the meaning of the files changes: older entries are then left alone
_FINGERPRINT = "fingerprint"


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedArrays:
    """The arrays of a source, memory mapped, and the SHA-256 of their names, types, shapes and values.

    The arrays may be written to, but what is written stays private to the process (copy on write).
    """

    arrays: dict[str, np.ndarray]
    fingerprint: str


def cached_arrays(cache_dir: str | Path, name: str, source: Any, decode: Callable[[Path], None]) -> CachedArrays:
    """Return the arrays of a source; decode them first if nobody has.

    Args:
        cache_dir: where entries are kept; made if it is missing.
        name: the beginning of the entry's name, for people.
        source: anything that `json` writes and that changes when the source does.
        decode: writes the arrays into an empty folder, as `.npy` files.
    """
    key = hashlib.sha256(json.dumps([_FORMAT, source], sort_keys=True).encode()).hexdigest()[:16]
    entry = Path(cache_dir) / f"{name}-{key}"
    if not entry.is_dir():
        _make(entry, decode)
    return CachedArrays(arrays=_open(entry), fingerprint=(entry / _FINGERPRINT).read_text())


def _make(entry: Path, decode: Callable[[Path], None]) -> None:
    from filelock import FileLock  # not at the top: only the first trial of all needs it

    entry.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(entry.with_name(f"{entry.name}.lock")):
        if entry.is_dir():  # another process was first
            return
        aside = entry.with_name(f"{entry.name}.partial")
        shutil.rmtree(aside, ignore_errors=True)  # left by a process that was killed
        aside.mkdir()
        decode(aside)
        (aside / _FINGERPRINT).write_text(_content_fingerprint(_open(aside)))
        aside.rename(entry)


def _open(folder: Path) -> dict[str, np.ndarray]:
    return {path.stem: np.load(path, mmap_mode="c") for path in sorted(folder.glob("*.npy"))}


def _content_fingerprint(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()
