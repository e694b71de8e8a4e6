"""The code that a run was trained with: read from its record, shown by git, written into a git worktree of its own.

The record is data that others may have written. `recorded_code` takes from it only what can be meant; `look_at` lets
git show what it changes, in an index and an object folder of its own; `checked_out`, which is called when the user has
seen that and agreed, writes it into a temporary folder. Nothing here runs or imports what is written, and nothing here
touches the user's working tree, index or branches; hooks do not run.
"""

import base64
import binascii
import hashlib
import os
import posixpath
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.core.errors import StoreError, UsageError
from sweeps.core.git import GitError, git
from sweeps.core.text import plain
from sweeps.reproduce.original import IncompleteError
from sweeps.reproduce.provenance import KINDS

__all__ = [
    "COMMIT",
    "Change",
    "Checkout",
    "Look",
    "RecordedCode",
    "RecordedFile",
    "checked_out",
    "git_environment",
    "is_below",
    "kept_content",
    "look_at",
    "recorded_code",
    "refused",
    "repository_here",
    "require_no_git",
]

COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
"""the name of a commit, and nothing that git could take for an option"""

_MAX_FILES, _MAX_PATH = 1000, 1000
_LINK, _SUBMODULE = "120000", "160000"
_SAFE = (
    *("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "submodule.recurse=false"),
    *("-c", "gc.auto=0", "-c", "advice.detachedHead=false"),
)
_APPLY = ("apply", "--whitespace=nowarn", "--no-ignore-whitespace")
_DIFF = ("diff", "--cached", "--no-renames", "--no-color", "--no-ext-diff", "--no-textconv", "--submodule=short")
_RELOCATING = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"),
    *("GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_PREFIX", "GIT_EXTERNAL_DIFF"),
)


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
                what_is_missing = "is not all as it was: passwords are hidden" if content else "is not in the record"
                notes.append(f"{name} {what_is_missing}.")
        if content is not None:
            yield RecordedFile(place=place, content=content)


def _place(name: Any, root: str, folder: str, config_dir: str | None) -> str:
    """Return where a recorded file was.

    Raises:
        StoreError: That is neither in the repository nor in the user's --config-dir, or is not a user's file.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A file that differs from the commit, and by how many lines; None if it is binary."""

    name: str
    added: int | None
    removed: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What would be written over the commit.

    Attributes:
        changes: The files.
        text: All of it, as a patch.
        project: The content of pyproject.toml; None if there is none.
        names: The files of the commit, with the changes.
    """

    changes: tuple[Change, ...]
    text: str
    project: str | None
    names: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """Recorded code, written out below a temporary folder in the places that it had below `/`."""

    top: Path
    code: RecordedCode

    def at(self, place: str) -> Path:
        """Return where something is that was at `place`."""
        return self.top / place.lstrip("/")

    @property
    def root(self) -> Path:
        """The worktree."""
        return self.at(self.code.root)

    @property
    def folder(self) -> Path:
        """The working folder in it."""
        return self.at(self.code.folder)


def git_environment() -> dict[str, str]:
    """Return the environment without what would let git look at another repository than the one of its folder."""
    return {name: value for name, value in os.environ.items() if name not in _RELOCATING}


def repository_here(folder: Path, code: Mapping[str, Any]) -> Path:
    """Return the top folder of the repository that `folder` is in, if that has the recorded commit.

    Raises:
        UsageError: There is no repository, or not this commit in it.
    """
    commit, root = code.get("commit"), plain(str(code.get("root")))
    try:
        top = Path(os.fsdecode(_git(folder, "rev-parse", "--show-toplevel")).removesuffix("\n"))
    except GitError as error:
        raise UsageError(
            f"--at-commit needs the repository of the run, which was {root}: say it in a clone of that. Git says of "
            f"{folder}: {error}"
        ) from error
    if isinstance(commit, str) and COMMIT.fullmatch(commit):
        try:
            _git(top, "cat-file", "-e", f"{commit}^{{commit}}")
        except GitError as error:
            raise UsageError(
                f"The recorded commit {commit} is not in this repository, {top}; it was in {root}. Get it with "
                "`git fetch`, or go to the repository that has it."
            ) from error
    return top


def look_at(code: RecordedCode, repository: Path) -> Look:
    """Let git say what the recorded difference and files change; nothing of the user's repository is written to.

    Raises:
        StoreError: The difference does not apply to the commit, or has links or git's own files in it.
    """
    with tempfile.TemporaryDirectory(prefix="lightsweep-") as scratch:
        own = os.fsdecode(_git(repository, "rev-parse", "--git-path", "objects")).removesuffix("\n")
        objects = str((repository / own).resolve())
        aside = {
            "GIT_INDEX_FILE": f"{scratch}/index",
            "GIT_OBJECT_DIRECTORY": f"{scratch}/objects",
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": f'"{objects}"' if ":" in objects else objects,
        }
        (Path(scratch) / "objects").mkdir()
        try:
            _git(repository, "read-tree", code.commit, more=aside)
            if code.patch:
                _git(repository, *_APPLY, "--cached", "-", stdin=code.patch, more=aside)
            inside = [file for file in code.files if is_below(file.place, code.root)]
            _add(inside, code.root, repository, Path(scratch), aside)
        except GitError as error:
            raise StoreError(
                f"The recorded difference does not apply to commit {code.commit[:12]}, so that it is not used. Git "
                f"says: {error}"
            ) from error
        raw = _git(repository, *_DIFF, "--raw", "-z", code.commit, more=aside).split(b"\0")
        for what, name in zip(raw[0::2], raw[1::2], strict=False):
            require_no_git(os.fsdecode(name))
            if any(mode in what.decode().lstrip(":").split()[:2] for mode in (_LINK, _SUBMODULE)):
                raise refused("a difference has files only, no links and no submodules", os.fsdecode(name))
        changes = _git(repository, *_DIFF, "--numstat", "-z", code.commit, more=aside).split(b"\0")
        text = _git(repository, *_DIFF, "--unified=3", code.commit, more=aside).decode(errors="replace")
        names = frozenset(map(os.fsdecode, _git(repository, "ls-files", "-z", more=aside).split(b"\0")))
        project = (
            _git(repository, "cat-file", "blob", ":pyproject.toml", more=aside) if "pyproject.toml" in names else None
        )
    outside = [file for file in code.files if not is_below(file.place, code.root)]
    return Look(
        changes=(*(_change(line) for line in changes if line), *map(_new, outside)),
        text="".join([text, *map(_shown, outside)]),
        project=None if project is None else project.decode(errors="replace"),
        names=names - {""},
    )


def _add(files: Sequence[RecordedFile], root: str, repository: Path, scratch: Path, aside: Mapping[str, str]) -> None:
    """Put files into the index."""
    if not files:
        return
    for number, file in enumerate(files):
        (scratch / str(number)).write_bytes(file.content)
    listed = "".join(f"{scratch / str(number)}\n" for number in range(len(files))).encode()
    hashes = _git(repository, "hash-object", "-w", "--no-filters", "--stdin-paths", stdin=listed, more=aside).split()
    entries = b"".join(
        b"100644 %s\t%s\0" % (found, os.fsencode(file.place[len(root) + 1 :]))
        for found, file in zip(hashes, files, strict=True)
    )
    _git(repository, "update-index", "-z", "--index-info", stdin=entries, more=aside)


def _change(line: bytes) -> Change:
    added, removed, name = line.split(b"\t", 2)
    return Change(
        name=os.fsdecode(name),
        added=None if added == b"-" else int(added),
        removed=None if removed == b"-" else int(removed),
    )


def _new(file: RecordedFile) -> Change:
    return Change(name=file.place, added=file.content.count(b"\n"), removed=0)


def _shown(file: RecordedFile) -> str:
    lines = file.content.decode(errors="replace").splitlines()
    return "\n".join([f"new file {file.place}", *(f"+{line}" for line in lines), ""])


@contextmanager
def checked_out(code: RecordedCode, repository: Path) -> Iterator[Checkout]:
    """Write recorded code into a worktree below a temporary folder, and remove it at the end, whatever happens.

    Whoever calls sees to it that no signal interrupts the removal.

    Raises:
        StoreError: Git cannot make the worktree, or a place leads out of it by a link.
    """
    checkout = Checkout(top=Path(tempfile.mkdtemp(prefix="lightsweep-")).resolve(), code=code)
    try:
        checkout.root.parent.mkdir(parents=True, exist_ok=True)
        try:
            _git(repository, "worktree", "add", "--quiet", "--detach", str(checkout.root), code.commit)
            if code.patch:
                _git(checkout.root, *_APPLY, "--index", "-", stdin=code.patch)
        except GitError as error:
            raise StoreError(f"Commit {code.commit[:12]} cannot be checked out. Git says: {error}") from error
        for file in code.files:
            _write(checkout, file)
        _made(checkout, code.folder)
        yield checkout
    finally:
        _remove(checkout, repository)


def _made(checkout: Checkout, place: str) -> Path:
    """Create the folder that was at a place, if the commit does not have it.

    Raises:
        StoreError: The commit has a link on the way to it, which may lead anywhere.
    """
    folder = checkout.at(place)
    if any(one.is_symlink() for one in (folder, *folder.parents) if one.is_relative_to(checkout.top)):
        raise refused("no folder of recorded files is a link", place)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write(checkout: Checkout, file: RecordedFile) -> None:
    path = _made(checkout, file.place.rpartition("/")[0]) / file.place.rpartition("/")[2]
    path.unlink(missing_ok=True)  # not through it, should it be a link
    with path.open("xb") as opened:
        opened.write(file.content)


def _remove(checkout: Checkout, repository: Path) -> None:
    """Remove the worktree, and only this one from git's list: others may lie on a disk that is not there just now."""
    try:
        _git(repository, "worktree", "remove", "--force", "--force", str(checkout.root))
    except GitError:
        shutil.rmtree(checkout.root, ignore_errors=True)
        with suppress(GitError):  # it may never have heard of it
            _git(repository, "worktree", "remove", "--force", "--force", str(checkout.root))
    shutil.rmtree(checkout.top, ignore_errors=True)


def _git(folder: Path, *arguments: str, stdin: bytes = b"", more: Mapping[str, str] | None = None) -> bytes:
    """Run git as this module needs it: no hooks, no prompts, and as long as a large repository takes."""
    environment = {**git_environment(), "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", **(more or {})}
    return git(*_SAFE, *arguments, folder=folder, stdin=stdin, environment=environment, timeout_s=None)
