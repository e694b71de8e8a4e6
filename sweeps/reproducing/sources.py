"""Which source files of the user's this process has imported, and what was in them then."""

import hashlib
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path

__all__ = ["imported_sources"]

_SEEN: dict[str, str] = {}  # ranks are forked from a process that looked when it had just imported
_LOOKED: dict[
    tuple[str, ...], tuple[str, dict[str, str]]
] = {}  # by the roots: the last module that was there, and what
_FOREIGN = ("/site-packages/", "/dist-packages/")


def imported_sources(roots: Iterable[str]) -> dict[str, str]:
    """Return the hash of each imported Python file below one of `roots`, by its path relative to that.

    Installed packages are not looked at; they have versions. Nor are modules that were looked at before, since to touch
    thousands of them costs a rank, which shares them with others until then, tens of milliseconds.
    """
    roots = tuple(roots)
    last, known = _LOOKED.get(roots, ("", {}))
    new = list(takewhile(lambda item: item[0] != last, reversed(sys.modules.items())))
    found = {**known, **_sources([module for _, module in new], roots)}
    _LOOKED[roots] = (new[0][0] if new else last, found)
    return dict(sorted(found.items()))


def _sources(modules: Iterable[object], roots: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    folders = [f"{path}/" for root in roots for path in dict.fromkeys((Path(root), Path(root).resolve()))]
    library = f"{sysconfig.get_path('stdlib')}/"
    for module in modules:
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or not file.endswith(".py"):
            continue
        if _FOREIGN[0] in file or _FOREIGN[1] in file or file.startswith(library):
            continue
        folder = next((folder for folder in folders if file.startswith(folder)), None)
        if folder is None:
            continue
        if file not in _SEEN:
            try:
                _SEEN[file] = hashlib.sha256(Path(file).read_bytes()).hexdigest()
            except OSError:
                continue
        found[file.removeprefix(folder)] = _SEEN[file]
    return found
