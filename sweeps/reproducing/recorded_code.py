"""The code that a run was trained with, as its record tells it: the commit, what was not committed, further files.

The record is data that others may have written. `recorded_code` takes of it only what can be meant; `worktree.py` shows
it, and writes it out when the user has agreed.
"""

import base64
import binascii
import hashlib
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.core.errors import StoreError
from sweeps.core.text import plain
from sweeps.reproducing.original import IncompleteError
from sweeps.reproducing.provenance import KINDS

__all__ = [
    "COMMIT",
    "RecordedCode",
    "RecordedFile",
    "is_below",
    "kept_content",
    "recorded_code",
    "refused",
    "require_no_git",
]

COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
"""the name of a commit, and nothing that git could take for an option"""

_MAX_FILES, _MAX_PATH = 1000, 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedFile:
    """A file that no commit held: its place, where it was, and what was in it."""

    place: str
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCode:
    """The state of the user's code; places are absolute, as they were on the machine that recorded them.

    Attributes:
        commit: The commit's name, 40 or 64 hexadecimal digits.
        root: The top folder of the repository.
        folder: The working folder, which is that or below it.
        config_dir: The user's --config-dir.
        patch: What was not committed.
        files: Python and YAML files that no commit may have.
        notes: What is to be said of all that, such as what was not kept.
    """

    commit: str
    root: str
    folder: str
    config_dir: str | None
    patch: bytes
    files: tuple[RecordedFile, ...]
    notes: tuple[str, ...] = ()


def recorded_code(provenance: Mapping[str, Any], today: Path) -> RecordedCode:
    """Take the code out of a record.

    Args:
        provenance: What `provenance.capture` has captured, or anything that others have put in its place.
        today: The top folder of the user's repository: a file whose content the record has only the hash of is taken
            from there, if it still has that hash.

    Raises:
        IncompleteError: The record has no code, or not all of what was not committed.
        StoreError: A name or a place in it leads elsewhere.
    """
    code = provenance.get("code")
    if not isinstance(code, Mapping):
        raise IncompleteError("The run has no record of its code: --at-commit needs one.")
    commit = code.get("commit")
    if commit is None:
        raise IncompleteError("The run was trained outside any git repository: there is no commit for --at-commit.")
    if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
        raise refused("a commit is named by 40 or 64 hexadecimal digits", commit)
    root = _root(code.get("root"))
    folder = posixpath.normpath(posixpath.join(root, _relative(code.get("folder", "."))))
    if not is_below(folder, root):
        raise refused("the working folder is in the repository", code.get("folder"))
    config_dir = code.get("config_dir")
    if config_dir is not None:
        config_dir = posixpath.normpath(posixpath.join(folder, _relative(config_dir)))
    notes: list[str] = []
    patch = _patch(code, notes)
    files = tuple(_files(code.get("files"), root, folder, config_dir, today, notes))
    return RecordedCode(
        commit=commit,
        root=root,
        folder=folder,
        config_dir=config_dir,
        patch=patch,
        files=files,
        notes=tuple(notes),
    )


def _root(root: Any) -> str:
    is_sound = (
        isinstance(root, str) and 1 < len(root) <= _MAX_PATH and root.startswith("/") and root.isprintable()
    ) and posixpath.normpath(root) == root
    if not is_sound or root.startswith("//"):
        raise refused("a repository is in a folder with a whole path", root)
    assert isinstance(root, str)
    return root


def _relative(name: Any) -> str:
    if not isinstance(name, str) or not name or len(name) > _MAX_PATH or not name.isprintable() or name[0] == "/":
        raise refused("files and folders are named by relative paths", name)
    return name


def is_below(place: str, folder: str) -> bool:
    """Tell whether a place is a folder or in it."""
    return place == folder or place.startswith(f"{folder.rstrip('/')}/")


def _patch(code: Mapping[str, Any], notes: list[str]) -> bytes:
    entry = code.get("diff")
    content = kept_content(entry)
    if content is None or not isinstance(entry, Mapping):
        cut = entry.get("cut", "it is missing") if isinstance(entry, Mapping) else "it is missing"
        raise IncompleteError(f"The uncommitted changes are not in the record: {plain(str(cut))}.")
    if _sha256(content) != code.get("diff_sha256"):
        if "hidden" not in entry:
            raise StoreError("The recorded difference is not the one whose hash is recorded: it is not used.")
        notes.append("In the recorded difference passwords are hidden: it is not all as it was.")
    return content


def _files(
    files: Any, root: str, folder: str, config_dir: str | None, today: Path, notes: list[str]
) -> Iterator[RecordedFile]:
    if files is not None and (not isinstance(files, Mapping) or len(files) > _MAX_FILES):
        raise StoreError(f"The record of the files that no commit held must be a mapping of at most {_MAX_FILES:,}.")
    for name, entry in sorted((files or {}).items()):
        if name == "..." or not isinstance(entry, Mapping):
            notes.append(f"Not all files are in the record: {plain(str(entry))[:100]}.")
            continue
        place = _place(name, root, folder, config_dir)
        content, recorded = kept_content(entry), entry.get("sha256")
        if content is None or _sha256(content) != recorded:
            own = _today(today, place, root)
            if own is not None and _sha256(own) == recorded:
                content = own
            elif content is not None and "hidden" not in entry:
                raise StoreError(f"The recorded {plain(name)} is not the one whose hash is recorded: it is not used.")
            else:
                is_there = "is not all as it was: passwords are hidden" if content else "is not in the record"
                notes.append(f"{name} {is_there}.")
        if content is not None:
            yield RecordedFile(place=place, content=content)


def _place(name: Any, root: str, folder: str, config_dir: str | None) -> str:
    """Return where a recorded file was.

    Raises:
        StoreError: That is neither in the repository nor in the user's --config-dir, or is none of a user's files.
    """
    place = posixpath.normpath(posixpath.join(folder, _relative(name)))
    home = root if is_below(place, root) else config_dir
    if home is None or not is_below(place, home) or place == home:
        raise refused("recorded files are in the repository or in --config-dir", name)
    require_no_git(place[len(home.rstrip("/")) + 1 :])
    if not place.endswith(KINDS):
        raise refused(f"recorded files are Python or YAML ({', '.join(KINDS)})", name)
    return place


def require_no_git(name: str) -> None:
    """Refuse the relative name of a file of git's, or of one elsewhere.

    Raises:
        StoreError: It is one.
    """
    for part in name.split("/"):
        if part in ("", ".", "..") or re.fullmatch(r"\.git[. ]*|git~\d+", part, re.IGNORECASE):
            raise refused("git's own files are none of a user's", name)


def kept_content(entry: Any) -> bytes | None:
    """Return what `provenance` has kept of a file; None if that is nothing."""
    if not isinstance(entry, Mapping):
        return None
    text, packed = entry.get("text"), entry.get("base64")
    try:
        if isinstance(text, str):
            return text.encode()
        return base64.b64decode(packed, validate=True) if isinstance(packed, str) else None
    except (UnicodeEncodeError, binascii.Error, ValueError):
        return None


def _today(today: Path, place: str, root: str) -> bytes | None:
    """Return what is now in the user's file of the same name."""
    file = today / place[len(root) + 1 :]
    try:
        return file.read_bytes() if is_below(place, root) and file.is_file() else None
    except OSError:
        return None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def refused(rule: str, got: Any) -> StoreError:
    """Return the error for what the record has against a rule."""
    return StoreError(f"The record of the code is not used: {rule}, but it has {plain(repr(got))[:200]}.")
