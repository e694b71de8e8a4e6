"""`lightsweep reproduce --at-commit` and `--in-env`: the reproduction as a process of its own, in the recorded code and
in an environment with the recorded packages.

The record decides there what is run, so all of it is shown first, and nothing is written, installed or run before the
user has agreed. The process writes into the same store; what it prints, and its exit status, are the command's.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import quote

from sweeps.config.composer import Config
from sweeps.core import paths
from sweeps.core.errors import StoreError, UsageError
from sweeps.core.locks import sqlite_file
from sweeps.core.text import plain, plain_lines
from sweeps.core.tree import texts
from sweeps.core.urls import sqlite_url
from sweeps.driver.reproduce import ReproduceRequest, original_of
from sweeps.reproduce.checkout import (
    Checkout,
    Look,
    RecordedCode,
    checked_out,
    git_environment,
    is_below,
    look_at,
    recorded_code,
    repository_here,
)
from sweeps.reproduce.environment import Lock, interpreter, is_made, made, recorded_lock, require_fits
from sweeps.reproduce.export import is_export
from sweeps.reproduce.original import Original
from sweeps.reproduce.provenance import local_packages

__all__ = [
    "Isolation",
    "Plan",
    "absolute_uri",
    "config_dir_in",
    "link_data",
    "relative_names",
    "reproduce_isolated",
]

_OWN = "lightsweep"
_ENTRY = frozenset({"sweeps/cli/main.py", "sweeps/cli.py"})  # today, and before there were rooms
_REPRODUCE = frozenset({"sweeps/cli/commands/reproduce.py", "sweeps/run_reproduce.py"})
_CODE = paths.code_dir()  # Lightsweep's own, of this process
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """Where a run is to be reproduced.

    Attributes:
        at_commit: In a worktree of the recorded commit, with what was not committed.
        in_env: In an environment of the recorded packages.
        agrees: Whether the user has agreed to what will be shown; None to ask him.
    """

    at_commit: bool
    in_env: bool
    agrees: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What will be done, all of it checked."""

    original: Original
    repository: Path | None = None
    code: RecordedCode | None = None
    look: Look | None = None
    is_own: bool = False
    lock: Lock | None = None
    python: str = sys.executable
    version: str | None = None


def reproduce_isolated(request: ReproduceRequest, where: Isolation, *, is_json: bool, say: Say) -> int:
    """Show what would be run, ask, and let a process of its own reproduce the run.

    Args:
        request: What is to be reproduced; the same as here.
        where: Where.
        is_json: Whether the process prints JSON.
        say: Told what will be done; a line, or several of a patch.

    Returns:
        The exit status of the reproduction.

    Raises:
        UsageError: There is no such run, this is not its repository, or the user does not agree.
        IncompleteError: The record lacks what it takes.
        StoreError: There is something in the record that is not meant.
    """
    plan = make_plan(original_of(request), where)
    _show(plan, request, say)
    _require_agreement(where)
    with ExitStack() as stack:
        stack.enter_context(_interruptible())
        checkout = None
        if plan.code is not None and plan.repository is not None:
            checkout = stack.enter_context(checked_out(plan.code, plan.repository))
            say(f"The recorded code is in {checkout.folder}, and is removed at the end.")
        stack.callback(_ignore_signals)  # what comes after that is the cleaning up
        python = str(made(plan.lock, plan.python, say)) if plan.lock is not None else plan.python
        path = stack.enter_context(_python_path(plan, checkout))
        folder = Path.cwd() if checkout is None else checkout.folder
        if checkout is not None:
            link_data(relative_names(plan.original.config, request.overrides), Path.cwd(), checkout)
        return _run(_command(python, request, plan, checkout, is_json), folder, _environment(python, path, plan))


# --- the plan --------------------------------------------------------------------------------------------


def make_plan(original: Original, where: Isolation) -> Plan:
    """Check all that can be checked before the user is asked."""
    record = original.provenance
    found: dict[str, Any] = {}
    needs = metadata.requires(_OWN) or [] if _has_metadata() else []
    version = metadata.version(_OWN) if _has_metadata() else None
    what = "This Lightsweep"
    if where.at_commit:
        code = record.get("code")
        repository = repository_here(Path.cwd(), code if isinstance(code, Mapping) else {})
        recorded = recorded_code(record, repository)
        look = look_at(recorded, repository)
        project = _own_project(look)
        if project is not None:
            if _REPRODUCE.isdisjoint(look.names):
                raise UsageError(
                    f"Commit {recorded.commit[:12]} is of a Lightsweep that cannot reproduce. Without --at-commit this "
                    "one does it, and says that the code differs."
                )
            needs, version = list(project.get("dependencies", [])), str(project.get("version", ""))
            what = "The recorded commit's Lightsweep"
        found = {"repository": repository, "code": recorded, "look": look, "is_own": project is not None}
    if where.in_env:
        lock = recorded_lock(record, local_packages())
        require_fits(lock, needs, what)
        found |= {"lock": lock, "python": interpreter(lock)}
    return Plan(original=original, version=version, **found)


def _has_metadata() -> bool:
    try:
        metadata.version(_OWN)
    except metadata.PackageNotFoundError:
        return False
    return True


def _own_project(look: Look) -> Mapping[str, Any] | None:
    """Return the `project` of a repository's pyproject.toml if that is Lightsweep's own; else None."""
    try:
        project = tomllib.loads(look.project or "").get("project")
    except tomllib.TOMLDecodeError:
        return None
    is_own = isinstance(project, dict) and project.get("name") == _OWN and not _ENTRY.isdisjoint(look.names)
    return project if is_own else None


def _show(plan: Plan, request: ReproduceRequest, say: Say) -> None:
    """Show all of the record that would be run or installed."""
    say(f"{plain(plan.original.name)} is to be trained by a process of its own, which runs what its record says:")
    code, look = plan.code, plan.look
    if code is not None and look is not None:
        say(f"- the code of commit {code.commit} of {plan.repository}, in a worktree that is removed at the end")
        if plan.is_own:
            say("- Lightsweep itself as it is there, since that is its own repository")
        if code.config_dir is not None and request.config_dir is None:
            say(f"- with what was its --config-dir, {plain(code.config_dir)}")
        if look.changes:
            files = "1 file" if len(look.changes) == 1 else f"{len(look.changes)} files"
            say(f"- with changes in {files}, which are in the record alone:")
        for change in look.changes:
            counts = "binary" if change.added is None else f"+{change.added} -{change.removed}"
            say(f"    {counts:<12} {plain(change.name)}")
        if look.text:
            say(plain_lines(look.text.replace("\t", "    ")).rstrip("\n"))
        for note in code.notes:
            say(f"  {plain(note)}")
    if plan.lock is not None:
        lock = plan.lock
        has = "is there already" if is_made(lock) else "is made, which can take minutes and some GB"
        say(f"- in an environment of {lock.python} that {has}, with these packages, from your package index by name:")
        say("    " + " ".join(f"{name}=={version}" for name, version in lock.packages.items()))
        for name, path in lock.local.items():
            say(f"  {name} is not from an index: it is installed as it is today, from {plain(str(path))}")
        if lock.missing:
            say(f"  Not to be had, since they were not from an index: {', '.join(lock.missing)}")


def _require_agreement(where: Isolation) -> None:
    """Ask, unless that has been answered.

    Raises:
        UsageError: The answer is no, or there is nobody to ask.
    """
    if where.agrees is None and sys.stdin.isatty() and sys.stderr.isatty():
        print("Run this? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return
        raise UsageError("Nothing was run.")
    if not where.agrees:
        raise UsageError(
            "What a record says is run only if you agree: look at what is shown above, and add --yes. Nothing was run."
        )


# --- what the process finds ------------------------------------------------------------------------------


@contextmanager
def _python_path(plan: Plan, checkout: Checkout | None) -> Iterator[list[str]]:
    """Give the folders in which the process finds Lightsweep, before all others.

    It is not installed into the environment, which many states of its code share: a folder has its metadata.
    """
    root = checkout.root if checkout is not None and plan.is_own else _CODE
    with tempfile.TemporaryDirectory(prefix="lightsweep-") as folder:
        found = [str(root)] if (root / "pyproject.toml").is_file() else []
        if plan.lock is not None:
            found.insert(0, folder)
            if not found[1:]:  # installed, among all other packages: not the whole folder
                for name in ("sweeps", "lightning_modules"):
                    (Path(folder) / name).symlink_to(root / name)
            if plan.version:
                info = Path(folder) / f"{_OWN}-{plan.version}.dist-info"
                info.mkdir()
                (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {_OWN}\nVersion: {plan.version}\n")
        yield found


def _environment(python: str, path: Sequence[str], plan: Plan) -> dict[str, str]:
    environment = git_environment()
    own = environment.get("PYTHONPATH", "")
    folders = [*path, *(folder for folder in own.split(os.pathsep) if folder and Path(folder).resolve() != _CODE)]
    environment["PYTHONPATH"] = os.pathsep.join(folders)
    if plan.lock is not None:
        environment.pop("PYTHONHOME", None)
        environment["VIRTUAL_ENV"] = str(Path(python).parents[1])
        environment["PATH"] = os.pathsep.join([str(Path(python).parent), environment.get("PATH", os.defpath)])
    return environment


def _command(python: str, request: ReproduceRequest, plan: Plan, checkout: Checkout | None, is_json: bool) -> list[str]:
    """Return the command line, with whole paths, and without options that are as they are by default."""
    name = str(Path(request.run).resolve()) if is_export(request.run) else request.run
    words = [python, "-P", "-m", "sweeps", "reproduce", name, "--store-dir", str(request.store_dir.resolve())]
    if request.uri is not None:
        words += ["--uri", absolute_uri(request.uri)]
    config_dir = config_dir_in(request.config_dir, plan, checkout)
    if config_dir is not None:
        words += ["--config-dir", str(config_dir)]
    for module in request.allowed_modules:
        words += ["--allow", module]
    for option, value in (("--epochs", request.epochs), ("--threads", request.threads)):
        words += [] if value is None else [option, str(value)]
    if request.start_method != "forkserver":
        words += ["--start-method", request.start_method]
    words += ["--format", "json"] if is_json else []
    return [*words, *(["--", *request.overrides] if request.overrides else [])]


def absolute_uri(uri: str) -> str:
    """Return the address of a store with the whole path of a SQLite file."""
    file = sqlite_file(uri)
    if file is None or file.is_absolute():
        return uri
    return sqlite_url(file) if uri == f"sqlite:///{file}" else uri.replace(str(file), quote(str(file.resolve())), 1)


def config_dir_in(typed: Path | None, plan: Plan, checkout: Checkout | None) -> Path | None:
    """Return the user's folder of options and modules; in a worktree, that of the recorded code.

    Raises:
        UsageError: The recorded code has no such folder.
    """
    code = plan.code
    if checkout is None or code is None or plan.repository is None:
        return None if typed is None else typed.resolve()
    if typed is None:
        found = None if code.config_dir is None else checkout.at(code.config_dir)
        return found if found is not None and found.is_dir() else None
    own = typed.resolve()
    if own.is_relative_to(plan.repository.resolve()):
        place = checkout.root / own.relative_to(plan.repository.resolve())
        if not place.is_dir():
            raise UsageError(f"--config-dir {typed}: the recorded code has no such folder.")
        return place
    has_recorded = code.config_dir is not None and not is_below(code.config_dir, code.root)
    return checkout.at(code.config_dir) if has_recorded and code.config_dir else own


def relative_names(config: Config, overrides: Sequence[str]) -> Iterator[str]:
    """Yield the texts of the data's configuration that may be paths, relative to the working folder."""
    named = [*texts(config["data"]), *(override.partition("=")[2] for override in overrides)]
    yield from (text for text in named if re.fullmatch(r"[\w.-][\w./ -]{0,500}", text) and not text.startswith("."))


def link_data(names: Iterator[str], folder: Path, checkout: Checkout) -> None:
    """Let data that lies below the user's working folder, and that no commit holds, be found in the worktree.

    The commit's own files are not replaced; the links go with the worktree, and what they lead to stays.
    """
    for name in names:
        source, target = folder / name, checkout.folder / name
        parts = Path(name).parts
        if ".." in parts or not source.exists() or os.path.lexists(target):
            continue
        if any(one.is_symlink() for one in target.parents if one.is_relative_to(checkout.top)):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source.resolve())


# --- the process -----------------------------------------------------------------------------------------


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let what ends a process end this one by way of its cleaning up, which nothing interrupts."""

    def stop(signum: int, frame: FrameType | None) -> None:
        _ignore_signals()
        raise KeyboardInterrupt

    before = {signum: signal.getsignal(signum) for signum in _SIGNALS}
    for signum in _heard():
        signal.signal(signum, stop)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _heard() -> list[signal.Signals]:
    """Return the signals that are not ignored, as `nohup` and background jobs have it."""
    return [signum for signum in _SIGNALS if signal.getsignal(signum) != signal.SIG_IGN]


def _ignore_signals() -> None:
    for signum in _SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


def _run(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> int:
    """Run the process to its end and return its exit status; what would end this one is handed on to it.

    It is a group of its own, so that Ctrl-C reaches it once, by us.
    """
    if shutil.which(command[0]) is None:
        raise StoreError(f"{command[0]} cannot be run.")
    process = subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, process_group=0)

    def hand_on(signum: int, frame: FrameType | None) -> None:
        process.send_signal(signum)

    try:
        for signum in _heard():
            signal.signal(signum, hand_on)
        status = process.wait()
    except KeyboardInterrupt:  # between its start and the line after that
        process.terminate()
        process.wait()
        raise
    return status if status >= 0 else 128 - status
