"""A console that prints text from a store literally, so that it cannot control the terminal."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich.console import Console, ConsoleOptions
from rich.segment import Segment

from sweeps.core.text import plain_lines

__all__ = ["SafeConsole", "preparing"]


class SafeConsole(Console):
    """Rich's console, which itself colours and moves; control characters in texts are shown as escapes like `\\x1b`."""

    def render(self, renderable: Any, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as segments, those of text with nothing but text in them."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable() or segment.text == "\n":
                yield segment
            else:
                yield Segment(plain_lines(segment.text), segment.style)


def preparing(console: Console) -> AbstractContextManager[object]:
    """Say in a terminal what takes some seconds before the first trial; elsewhere say nothing."""
    if not console.is_terminal:
        return nullcontext()
    return console.status("Importing torch, opening the store, trying two batches ...", spinner="dots")
