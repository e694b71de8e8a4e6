"""A fresh virtual environment with the versions of all packages that a run was trained with.

Names and versions come from a record that others may have written: what is not a plain name with a plain version never
reaches pip. What pip then installs is whatever the user's index has under that name: it is shown and agreed to before.
Environments are kept in the user's own cache, never in a store: what lies there is run.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from filelock import FileLock, Timeout
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from sweeps.core.errors import LightsweepError, StoreError, UsageError
from sweeps.core.text import duration, memory, plain, some_of
from sweeps.reproduce.original import IncompleteError

__all__ = ["Lock", "environments_dir", "interpreter", "is_made", "made", "recorded_lock", "require_fits"]

_MAX_PACKAGES = 5000
_STAMP = ".complete"
_PYTHON = re.compile(r"(\w+) (\d{1,2})\.(\d{1,3})\.\d+[\w.+-]*", re.ASCII)
_FOREIGN = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "VIRTUAL_ENV")
_OWN = "lightsweep"  # never from an index: its code is the one that is here, or that of the recorded commit

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """The versions of all packages.

    Attributes:
        python: The recorded Python, such as `CPython 3.11.7`.
        minor: Its version up to the minor one, such as `3.11`.
        packages: What an index has: version by name.
        local: What was installed from elsewhere and is so today: the folder or file it comes from, by name.
        missing: What was installed from elsewhere, and is not to be had.
    """

    python: str
    minor: str
    packages: Mapping[str, str]
    local: Mapping[str, Path]
    missing: tuple[str, ...]

    @property
    def key(self) -> str:
        """A hash by which the environment is known."""
        local = {name: str(path) for name, path in self.local.items()}
        content = [self.python, platform.machine(), dict(self.packages), local, list(self.missing)]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def requirements(self, *, is_public: bool = False) -> list[str]:
        """Return the lines that pip reads, local versions first: whether the index has those is seen at once.

        Args:
            is_public: Whether to leave out local versions (`2.13.0+cpu`), which most indexes do not have.
        """
        versions = {name: Version(version) for name, version in self.packages.items()}
        order = sorted(versions, key=lambda name: (versions[name].local is None, name))
        return [f"{name}=={versions[name].public if is_public else versions[name]}" for name in order]

    @property
    def has_local_versions(self) -> bool:
        """Whether there are versions such as `2.13.0+cpu`."""
        return any(Version(version).local is not None for version in self.packages.values())


def recorded_lock(provenance: Mapping[str, Any], today: Mapping[str, Mapping[str, Any]]) -> Lock:
    """Take the versions out of a record.

    Args:
        provenance: What `provenance.capture` has captured, or anything that others have put in its place.
        today: What is installed from folders and files today, see `provenance.local_packages`: it has no name on an
            index, or another's.

    Raises:
        IncompleteError: The record has no packages or no Python.
        StoreError: Something in it is not a name or not a version.
    """
    machine, packages = provenance.get("machine"), provenance.get("packages")
    python = machine.get("python") if isinstance(machine, Mapping) else None
    if not isinstance(packages, Mapping) or not packages or not isinstance(python, str):
        raise IncompleteError("The run has no record of its packages and its Python: --in-env needs both.")
    if len(packages) > _MAX_PACKAGES:
        raise StoreError(f"The record may have {_MAX_PACKAGES:,} packages, but has {len(packages):,}.")
    found = _PYTHON.fullmatch(python)
    if found is None or found[1] != "CPython":
        raise StoreError(
            f"The recorded Python must be a CPython such as 'CPython 3.11.7', but is {plain(repr(python))}."
        )
    recorded = provenance.get("local_packages")
    elsewhere = {canonicalize_name(str(name)) for name in (recorded if isinstance(recorded, list) else ())}
    origins = {canonicalize_name(name): _path(origin) for name, origin in today.items()}
    versions = {canonicalize_name(name): version for name, version in (_pinned(*one) for one in packages.items())}
    versions.pop(canonicalize_name(_OWN), None)
    local = {name: path for name in versions if (path := origins.get(name)) is not None}
    missing = [name for name in versions if name in {*elsewhere, *origins} and name not in local]
    return Lock(
        python=python,
        minor=f"{found[2]}.{found[3]}",
        packages={name: of for name, of in sorted(versions.items()) if name not in {*local, *missing}},
        local=dict(sorted(local.items())),
        missing=tuple(sorted(missing)),
    )


def _pinned(name: Any, version: Any) -> tuple[str, str]:
    """Return the name and the version of a package if they are no more than that.

    Raises:
        StoreError: They are an option of pip's, an address, or anything else.
    """
    try:
        requirement = Requirement(f"{name}=={Version(str(version))}")
    except (InvalidRequirement, InvalidVersion):
        requirement = None
    if requirement is None or requirement.name != name or requirement.url or requirement.extras or requirement.marker:
        raise StoreError(
            f"The record of the packages is not used: it must have names with versions, but has "
            f"{plain(repr(name))[:100]} with {plain(repr(version))[:100]}. Nothing was installed."
        )
    return requirement.name, str(Version(str(version)))


def _path(origin: Mapping[str, Any]) -> Path | None:
    url = origin.get("url")
    parts = urlsplit(url) if isinstance(url, str) else None
    path = Path(unquote(parts.path)) if parts is not None and parts.scheme == "file" else None
    return path if path is not None and path.exists() else None


def require_fits(lock: Lock, requirements: Iterable[str], what: str) -> None:
    """Refuse versions with which Lightsweep cannot run.

    Args:
        lock: The versions.
        requirements: What it needs, as its metadata or its pyproject.toml says.
        what: Which Lightsweep that is, in words.

    Raises:
        UsageError: A package is missing or of another version.
    """
    wrong = []
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = canonicalize_name(requirement.name)
        version = lock.packages.get(name)
        if name in lock.local or (version and requirement.specifier.contains(version, prereleases=True)):
            continue
        wrong.append(f"{requirement.name}{requirement.specifier} (recorded: {version or 'none'})")
    if wrong:
        raise UsageError(
            f"{what} does not run with the recorded packages: it needs {some_of(wrong)}. The Lightsweep of that time "
            "does: say it in its checkout, with --at-commit."
        )


def interpreter(lock: Lock) -> str:
    """Return the Python of which to make the environment: of the recorded minor version.

    Raises:
        UsageError: This machine has none.
    """
    if platform.python_implementation() == "CPython" and lock.minor == f"{sys.version_info[0]}.{sys.version_info[1]}":
        return sys.executable
    found = shutil.which(f"python{lock.minor}")
    question = "import sys; print(sys.implementation.name, *sys.version_info[:2])"
    told = subprocess.run([found, "-I", "-c", question], capture_output=True, text=True, check=False) if found else None
    if found is None or told is None or told.stdout.split() != ["cpython", *lock.minor.split(".")]:
        raise UsageError(
            f"The run was trained with {lock.python}, and this is Python {platform.python_version()}: --in-env needs a "
            f"python{lock.minor} on the PATH, of any last digit."
        )
    return found


def environments_dir() -> Path:
    """Return the folder of all environments: the user's own, since what lies there is run."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if cache.startswith("/") else Path.home() / ".cache") / _OWN / "environments"


def is_made(lock: Lock) -> bool:
    """Tell whether the environment is there already."""
    return (environments_dir() / lock.key / _STAMP).is_file()


def made(lock: Lock, python: str, say: Say) -> Path:
    """Make the environment, unless it is there already, and return its Python.

    One process makes it, others wait for that. It is whole once its stamp is written; what is not whole is made again.

    Args:
        lock: The versions.
        python: Of which Python.
        say: Told what is done, and how long it took.

    Raises:
        LightsweepError: pip fails, or others can write where it is to lie.
    """
    home = environments_dir()
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = home.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise StoreError(f"{home} must be yours alone (chown, chmod go-w): what lies there is run.")
    folder = home / lock.key
    guard = FileLock(f"{folder}.lock")
    try:
        guard.acquire(timeout=0)
    except Timeout:
        say("Another process is making the same environment: waiting for it.")
        guard.acquire()
    try:
        if not (folder / _STAMP).is_file():
            _make(lock, python, folder, say)
        else:
            os.utime(folder / _STAMP)  # when it was used last, for whoever clears up
            say(f"The environment is there already: {folder}")
    finally:
        guard.release()
    return folder / "bin" / "python"


def _make(lock: Lock, python: str, folder: Path, say: Say) -> None:
    count = len(lock.packages) + len(lock.local)
    say(f"Making the environment of {lock.python} with {count} packages in {folder}; this can take minutes.")
    begin = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    try:
        _run([python, "-m", "venv", str(folder)], folder)
        pip = [str(folder / "bin" / "python"), "-m", "pip"]
        install = [*pip, "install", "--no-input", "--disable-pip-version-check", "--progress-bar", "off", "--no-deps"]
        _install(lock, install, folder, say)
        for path in lock.local.values():
            _run([*install, *(["-e"] if path.is_dir() else []), str(path)], folder)
        _remove_others(lock, pip, folder)
        took, size = time.monotonic() - begin, _size(folder)
        (folder / _STAMP).write_text(json.dumps({"python": lock.python, "seconds": round(took, 1), "bytes": size}))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    say(f"It took {duration(took)} and {memory(size)}, and is kept for the next time: rm -r {folder}")


def _install(lock: Lock, install: Sequence[str], folder: Path, say: Say) -> None:
    if not lock.packages:
        return
    listed = folder / "requirements.txt"
    listed.write_text("\n".join([*lock.requirements(), ""]))
    try:
        _run([*install, "-r", str(listed)], folder)
    except _PipError as error:
        if not lock.has_local_versions:
            raise
        say(f"{error} Trying without local versions, such as +cpu.")
        listed.write_text("\n".join([*lock.requirements(is_public=True), ""]))
        _run([*install, "-r", str(listed)], folder)


def _remove_others(lock: Lock, pip: Sequence[str], folder: Path) -> None:
    """Remove what venv brings and the record does not have; pip itself last."""
    (site,) = folder.glob("lib/python*/site-packages")
    names = {canonicalize_name(found.name) for found in metadata.distributions(path=[str(site)])}
    others = sorted(names - {*lock.packages, *lock.local}, key=lambda name: name == "pip")
    for name in others:
        _run([*pip, "uninstall", "--yes", name], folder)


class _PipError(LightsweepError):
    """pip has failed; says why."""


def _run(command: Sequence[str], folder: Path) -> None:
    """Run a step of making the environment; what it prints goes to a file beside that."""
    log = Path(f"{folder}.log")
    environment = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    with log.open("wb") as file:
        status = subprocess.run(
            command, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment, check=False
        ).returncode
    if status != 0:
        lines = log.read_text(errors="replace").splitlines()
        said = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")] or lines[-3:]
        raise _PipError(f"{plain(' '.join(said)[:600])} (the whole of it is in {log})")


def _size(folder: Path) -> int:
    return sum((Path(where) / name).lstat().st_blocks * 512 for where, _, names in os.walk(folder) for name in names)
