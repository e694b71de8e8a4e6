"""The artifacts of a run, which others may have recorded: locate, list and copy them.

What the store says of them is a claim. A folder of this machine counts as a run's only if it is laid out as MLflow does
it, `RUN_ID/artifacts`, links resolved. Another machine is contacted only if it is the store's own, or a cloud's, so
that no password goes to a host that a record names. A name that leads out of its folder is refused.
"""

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from sweeps.core.errors import StoreError
from sweeps.core.text import plain
from sweeps.core.urls import hide_password
from sweeps.tracking.runs import Artifact, is_server

__all__ = [
    "Recorded",
    "download_artifacts",
    "is_safe_path",
    "list_artifacts",
    "local_artifacts",
    "read_artifact",
    "repository",
    "require_allowed_location",
    "walk_artifacts",
]

_BUCKETS = ("s3", "gs")  # whose hosts are the cloud's own, or the user's choice in the environment
_AZURE = re.compile(
    r"[\w$-]+@[a-z0-9-]+\.([a-z0-9-]+\.)*(core\.(windows\.net|chinacloudapi\.cn|usgovcloudapi\.net)|fabric\.microsoft\.com)",
    re.ASCII,
)
_MAX_FILES = 10_000
_MAX_BYTES = 10_000_000_000
_MAX_READ = 200_000_000  # bytes; larger files are none of ours
_BLOCK = 1_000_000


class Recorded(Protocol):
    """What has artifacts: a run, or a model, whose id is `m-` and what a run's would be."""

    @property
    def run_id(self) -> str:
        """Its id."""

    @property
    def artifact_uri(self) -> str:
        """Where the store says that its artifacts are."""


def local_artifacts(run: Recorded) -> Path | None:
    """Return the folder of a run's artifacts; None if they are not files of this machine.

    Raises:
        StoreError: The record names another folder than one of the run's artifacts.
    """
    address = urlsplit(run.artifact_uri)
    if address.scheme not in ("", "file") or not address.path:
        return None
    folder = Path(unquote(address.path))
    is_own = re.fullmatch(r"(m-)?[0-9a-f]{32}", run.run_id) and folder.resolve().parts[-2:] == (run.run_id, "artifacts")
    if not is_own or address.netloc not in ("", "localhost"):
        raise StoreError(
            f"The record says that the artifacts are in {plain(str(folder))}, which is not looked into: those of a run "
            f"are in a folder {plain(run.run_id)}/artifacts."
        )
    return folder


def is_safe_path(path: str) -> bool:
    """Tell whether the path of an artifact leads into the folder that it is relative to, however it is written."""
    forms = {path, unquote(path), unquote(unquote(path))}
    return len(path) <= 1000 and all(_is_name(part) for form in forms for part in form.split("/"))


def list_artifacts(run: Recorded, uri: str) -> list[Artifact]:
    """List the artifacts of a run: files of this machine without MLflow, others through it. Links are left out.

    Raises:
        StoreError: They cannot be listed, are too many, or are where a record must not lead.
    """
    if not run.artifact_uri:
        return []
    folder = local_artifacts(run)
    if folder is not None:
        return sorted(_files(folder), key=lambda artifact: artifact.path)
    with _told(run):
        return walk_artifacts(repository(run, uri).list_artifacts)


def download_artifacts(
    run: Recorded,
    to: Path,
    *,
    uri: str,
    wanted: Callable[[str], bool] = lambda path: True,
    max_files: int = 1000,
    max_bytes: int = _MAX_BYTES,
) -> list[Path]:
    """Copy the artifacts of a run into a folder, and return the copies.

    **Promises.** Nothing outside `to` is written, and nothing outside the run's artifacts is read: names that would
    lead out are refused, links and devices are not followed. Nothing is unpacked or loaded.

    Args:
        run: The run.
        to: The folder, which must be empty or not there yet.
        uri: The store that has the run.
        wanted: Which paths to copy.
        max_files: The most files.
        max_bytes: The most bytes of all of them; what a server says of their sizes is checked again when they are here.

    Raises:
        StoreError: They are more or larger, or cannot be read.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise StoreError(f"{to} must be an empty folder, or not be there yet.")
    chosen = [artifact for artifact in list_artifacts(run, uri) if wanted(artifact.path)]
    if len(chosen) > max_files:
        raise StoreError(f"A run may have {max_files:,} artifacts to be copied, but has {len(chosen):,}.")
    _require_small(sum(artifact.size for artifact in chosen), max_bytes)
    to.mkdir(parents=True, exist_ok=True)
    folder, copies, left = local_artifacts(run), [], max_bytes
    with _told(run):
        fetch = None if folder is not None else repository(run, uri)._download_file
        for artifact in chosen:
            copy = to / artifact.path
            copy.parent.mkdir(parents=True, exist_ok=True)
            if fetch is None:
                assert folder is not None
                left -= _copy(folder, artifact.path, copy, left)
            else:
                fetch(artifact.path, str(copy))
                left -= copy.stat().st_size
                _require_small(max_bytes - left, max_bytes)
            copies.append(copy)
    return copies


def read_artifact(run: Recorded, name: str, uri: str) -> bytes | None:
    """Return the content of an artifact that lies directly below the run's; None if there is none, or it is large.

    Raises:
        StoreError: It cannot be read, or is where a record must not lead.
    """
    if not run.artifact_uri:
        return None
    folder = local_artifacts(run)
    if folder is not None:
        return _content(folder / name)
    with _told(run), TemporaryDirectory() as aside:
        door = repository(run, uri)
        sizes = {file.path: file.file_size or 0 for file in door.list_artifacts()}
        if sizes.get(name, _MAX_READ + 1) > _MAX_READ:
            return None
        door._download_file(name, str(Path(aside) / "content"))
        return _content(Path(aside) / "content")


def repository(run: Recorded, uri: str) -> Any:
    """Return MLflow's door to the artifacts of a run, if they are where a record may lead.

    Raises:
        StoreError: They are not.
    """
    require_allowed_location(run, uri)
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(run.artifact_uri, tracking_uri=uri)


def _content(path: Path) -> bytes | None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return path.read_bytes() if stat.S_ISREG(status.st_mode) and status.st_size <= _MAX_READ else None


def _is_name(part: str) -> bool:
    is_whole = part not in ("", ".", "..") and len(part) <= 255 and part.isprintable()
    return is_whole and not re.search(r"\\|^~|^[A-Za-z]:", part)


def require_allowed_location(run: Recorded, uri: str) -> None:
    """Refuse artifacts in a location that a record must not name, to read or to write: see the top of this file.

    Raises:
        StoreError: They are in one.
    """
    if local_artifacts(run) is not None:
        return
    address, store = urlsplit(run.artifact_uri), urlsplit(uri)
    is_of_server = is_server(uri) and (
        (address.scheme == "mlflow-artifacts" and address.netloc in ("", store.netloc))
        or (address.scheme in ("http", "https") and address.netloc == store.netloc)
    )
    is_of_azure = address.scheme in ("wasbs", "abfss") and _AZURE.fullmatch(address.netloc)
    if not is_of_server and not is_of_azure and address.scheme not in _BUCKETS:
        raise StoreError(
            f"The record says that the artifacts are at {plain(hide_password(run.artifact_uri))[:200]}, which is not "
            f"asked: it is neither the store's own server nor a cloud ({', '.join(_BUCKETS)}; wasbs and abfss at "
            "Azure's own domains)."
        )


class _told:
    """Translate what MLflow and clouds raise."""

    def __init__(self, run: Recorded) -> None:
        self._run = run

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:  # and what lies on this machine takes no import of MLflow
            return
        from mlflow.exceptions import MlflowException

        if isinstance(error, (MlflowException, OSError, ValueError, ImportError)):
            text = plain(" ".join(str(error).split()))[:200]
            address = plain(hide_password(self._run.artifact_uri))
            raise StoreError(f"The artifacts at {address} cannot be read: {text}") from error


def _files(folder: Path) -> Iterator[Artifact]:
    count = 0
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in names:
            path = Path(place) / name
            status = path.lstat()
            count += 1
            _require_few(count)
            if stat.S_ISREG(status.st_mode):
                yield Artifact(path=path.relative_to(folder).as_posix(), size=status.st_size)


def walk_artifacts(children: Callable[[str | None], Iterable[Any]]) -> list[Artifact]:
    """Return all files below the root of a store's artifacts, which lists one folder at a time.

    Raises:
        StoreError: They are too many, or a name would leave its folder.
    """
    found: list[Artifact] = []
    folders: list[str | None] = [None]
    seen = 0
    while folders:
        for entry in children(folders.pop()):
            seen += 1
            _require_few(seen)
            if not is_safe_path(entry.path):
                raise StoreError(
                    f"The store has an artifact {plain(entry.path)[:200]!r}, which would leave its folder."
                )
            if entry.is_dir:
                folders.append(entry.path)
            else:
                found.append(Artifact(path=entry.path, size=entry.file_size or 0))
    return sorted(found, key=lambda artifact: artifact.path)


def _require_few(count: int) -> None:
    if count > _MAX_FILES:
        raise StoreError(f"A run may have {_MAX_FILES:,} artifacts, but has more.")


def _require_small(num_bytes: int, max_bytes: int) -> None:
    if num_bytes > max_bytes:
        raise StoreError(f"The artifacts to be copied may have {max_bytes:,} bytes, but have {num_bytes:,}.")


def _copy(folder: Path, path: str, copy: Path, max_bytes: int) -> int:
    """Copy a file from a folder without following any link in its path, and return its size."""
    source = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        *parents, name = path.split("/")
        for part in [*parents, name]:
            kind = os.O_NONBLOCK if part is name else os.O_DIRECTORY
            inner = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | kind, dir_fd=source)
            os.close(source)
            source = inner
        if not stat.S_ISREG(os.fstat(source).st_mode):
            raise StoreError(f"The artifact {plain(path)} is not a file.")
        size = 0
        with os.fdopen(os.dup(source), "rb") as file, copy.open("xb") as target:
            while block := file.read(_BLOCK):
                size += len(block)
                _require_small(size, max_bytes)
                target.write(block)
        return size
    finally:
        os.close(source)
