"""Orders to a study, as small files which its driver reads: the driver stays the only writer of every table.

Carry out the orders to a study, in its driver.
"""

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

__all__ = ["Enqueue", "Halt", "Inbox", "Letter", "Orders", "Unreadable"]

_SUFFIX = ".yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Enqueue:
    """Try these values next."""

    values: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Halt:
    """Start no more trials; with `is_now`, stop the running ones after their step, too."""

    is_now: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A file that is no order, and why."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """An order on its way.

    Attributes:
        name: Of its file; names sort as they were written.
        order: What is to be done.
        written_ns: When it was written, in nanoseconds since the epoch.
    """

    name: str
    order: Enqueue | Halt | Unreadable
    written_ns: int


class Inbox:
    """The orders to a study which its driver has not carried out yet.

    An order is there as a whole or not at all, and stays until it is forgotten. Who carries one out must be able to
    tell, by the name of its letter, that it is done already: a crash may come before it is forgotten.
    """

    def __init__(self, study_folder: Path) -> None:
        self._folder = paths.inbox_dir(study_folder)

    def write(self, order: Enqueue | Halt) -> str:
        """Leave an order, behind all others, and return the name of its letter.

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

    def read(self) -> list[Letter]:
        """Return the orders in the sequence in which they were written."""
        read = ((name, _parse(self._file(name))) for name in self._names())
        return [Letter(name=name, order=order, written_ns=_written_ns(name)) for name, order in read if order]

    def holds(self, name: str) -> bool:
        """Tell whether an order is still to be carried out."""
        return self._file(name).exists()

    def forget(self, name: str) -> None:
        """Take an order away."""
        self._file(name).unlink(missing_ok=True)

    def refuse(self, name: str) -> Path:
        """Put an order that cannot be carried out aside, and return the file in which it stays."""
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


def _parse(file: Path) -> Enqueue | Halt | Unreadable | None:
    """Read an order; None if it was taken away meanwhile."""
    try:
        match read_yaml(file):
            case {"order": "enqueue", "values": dict() as values}:
                return Enqueue(values={str(key): value for key, value in values.items()})
            case {"order": "halt", "is_now": bool() as is_now}:
                return Halt(is_now=is_now)
    except FileNotFoundError:
        return None
    except (OSError, StoreError) as error:
        return Unreadable(why=str(error).splitlines()[0])
    return Unreadable(why="it is no order that this version knows")


_LOOK_EVERY_S = 0.25


class Orders:
    """Carries out the orders to a study; called by its driver, on every turn of its loop.

    Args:
        study: The study, which this driver alone works on.
        folder: The study's folder.
        say: Tells the user of the driver what happened.
        since_ns: When this driver took the study over, in nanoseconds since the epoch: what was to stop an earlier
            one does not concern it.
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
        """Carry out what was ordered since the last look, and return whether the driver is to stop."""
        now = time.monotonic()
        if now - self._looked_s < self._look_every_s:
            return ""
        self._looked_s = now
        word: StopWord = ""
        for letter in self._inbox.read():
            match letter.order:
                case Enqueue(values=values):
                    self._enqueue(letter.name, values)
                case Unreadable(why=why):
                    self._refuse(letter.name, why)
                case Halt(is_now=is_now):
                    if letter.written_ns >= self._since_ns and word != "now":
                        word = "now" if is_now else "drain"
                    self._inbox.forget(letter.name)
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
        self._say(f"warning: an order cannot be carried out: {why} It is kept in {kept}.")
