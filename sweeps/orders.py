"""Carry out the orders to a study, in its driver."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sweeps.core.errors import SpaceError
from sweeps.core.text import values_text
from sweeps.driver import StopWord
from sweeps.inbox import Enqueue, Halt, Inbox, Unreadable
from sweeps.search import Study

__all__ = ["Orders"]

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
