"""The command queue of a study: small files that only its driver reads, so that it stays the only writer of tables."""

import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from sweeps.core import paths
from sweeps.core.errors import SpaceError, StoreError
from sweeps.core.safe_yaml import read_yaml
from sweeps.core.text import values_text
from sweeps.driver.limits import StopWord
from sweeps.search.study import Study

__all__ = ["Command", "Enqueue", "Inbox", "Orders", "StopCommand", "Unreadable"]

_SUFFIX = ".yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Enqueue:
    """Try these values next."""

    values: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StopCommand:
    """Start no more trials; with `is_now`, also stop the running ones after their step."""

    is_now: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A file that is not a command, and why."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command that its driver has not carried out yet.

    Attributes:
        name: Of its file; names sort as they were written.
        order: What is to be done.
        written_ns: When it was written, in nanoseconds since the epoch.
    """

    name: str
    order: Enqueue | StopCommand | Unreadable
    written_ns: int


class Inbox:
    """The commands to a study that its driver has not carried out yet.

    A command is there as a whole or not at all, and stays until it is forgotten. Carrying one out again must do
    nothing, by the name of its file: a crash may come before it is forgotten.
    """

    def __init__(self, study_folder: Path) -> None:
        self._folder = paths.inbox_dir(study_folder)

    def write(self, order: Enqueue | StopCommand) -> str:
        """Leave a command, behind all others, and return the name of its file.

        Raises:
            StoreError: The folder of the study, or that of its orders, is a link.
        """
        for folder in (self._folder.parent, self._folder):
            paths.require_no_link(folder)
        written_ns = max([time.time_ns(), *(_written_ns(name) + 1 for name in self._names())])
        name = f"{written_ns:020d}-{secrets.token_hex(4)}"
        kind = "enqueue" if isinstance(order, Enqueue) else "halt"
        paths.write_text(self._file(name), yaml.safe_dump({"order": kind, **asdict(order)}, sort_keys=False))
        return name

    def read(self) -> list[Command]:
        """Return the commands in the sequence in which they were written."""
        read = ((name, _parse(self._file(name))) for name in self._names())
        return [Command(name=name, order=order, written_ns=_written_ns(name)) for name, order in read if order]

    def holds(self, name: str) -> bool:
        """Tell whether a command is still to be carried out."""
        return self._file(name).exists()

    def forget(self, name: str) -> None:
        """Delete a command."""
        self._file(name).unlink(missing_ok=True)

    def refuse(self, name: str) -> Path:
        """Put aside a command that cannot be carried out, and return the file in which it stays."""
        kept = self._file(name).with_suffix(".refused")
        with suppress(FileNotFoundError):  # somebody took it away meanwhile
            self._file(name).rename(kept)
        return kept

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}{_SUFFIX}"

    def _names(self) -> list[str]:
        try:
            files = [entry.name for entry in self._folder.iterdir()]
        except FileNotFoundError:
            return []
        return sorted(name.removesuffix(_SUFFIX) for name in files if name.endswith(_SUFFIX) and name[0] != ".")


def _written_ns(name: str) -> int:
    stamp = name.partition("-")[0]
    return int(stamp) if stamp.isdecimal() else 0


def _parse(file: Path) -> Enqueue | StopCommand | Unreadable | None:
    """Read a command; None if it was taken away meanwhile."""
    try:
        match read_yaml(file):
            case {"order": "enqueue", "values": dict() as values}:
                return Enqueue(values={str(key): value for key, value in values.items()})
            case {"order": "halt", "is_now": bool() as is_now}:
                return StopCommand(is_now=is_now)
    except FileNotFoundError:
        return None
    except (OSError, StoreError) as error:
        return Unreadable(why=str(error).splitlines()[0])
    return Unreadable(why="it is not a command that this version knows")


_LOOK_EVERY_S = 0.25


class Orders:
    """Carries out the commands to a study; called by its driver, on every turn of its loop.

    Args:
        study: The study, which this driver alone works on.
        folder: The study's folder.
        say: Shows the user of the driver a message.
        since_ns: When this driver took the study over, in nanoseconds since the epoch: earlier stop
            commands do not concern it.
        look_every_s: How long not to look again.
    """

    def __init__(
        self,
        study: Study,
        folder: Path,
        say: Callable[[str], None],
        *,
        since_ns: int,
        look_every_s: float = _LOOK_EVERY_S,
    ) -> None:
        self._study = study
        self._inbox = Inbox(folder)
        self._say = say
        self._since_ns = since_ns
        self._look_every_s = look_every_s
        self._looked_s = -look_every_s

    def __call__(self) -> StopWord:
        """Carry out the commands since the last call, and return whether the driver is to stop."""
        now = time.monotonic()
        if now - self._looked_s < self._look_every_s:
            return ""
        self._looked_s = now
        word: StopWord = ""
        for command in self._inbox.read():
            match command.order:
                case Enqueue(values=values):
                    self._enqueue(command.name, values)
                case Unreadable(why=why):
                    self._refuse(command.name, why)
                case StopCommand(is_now=is_now):
                    if command.written_ns >= self._since_ns and word != "now":
                        word = "now" if is_now else "drain"
                    self._inbox.forget(command.name)
        return word

    def _enqueue(self, name: str, values: Mapping[str, Any]) -> None:
        try:
            number = self._study.enqueue(values, request=name)
        except SpaceError as error:
            self._refuse(name, f"{values_text(values)}: {error}")
            return
        self._inbox.forget(name)
        self._say(f"trial {number} enqueued  {values_text(values)}")

    def _refuse(self, name: str, why: str) -> None:
        kept = self._inbox.refuse(name)
        self._say(f"warning: a command cannot be carried out: {why} It is kept in {kept}.")
