"""Orders to a study, as small files which its driver reads: the driver stays the only writer of every table."""

import secrets
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from sweeps.core import paths
from sweeps.core.errors import StoreError
from sweeps.core.safe_yaml import read_yaml

__all__ = ["Enqueue", "Halt", "Inbox", "Letter", "Unreadable"]

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
