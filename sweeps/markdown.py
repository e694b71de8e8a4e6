"""Markdown whose texts come from users: they stay what they are, and in their place."""

import re
from collections.abc import Sequence

__all__ = ["code_block", "escaped", "link", "table"]

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def escaped(text: str) -> str:
    """Return `text` on one line, with nothing in it that is taken for markup or HTML."""
    one_line = " ".join(text.split())
    return re.sub(r"[&<>]", lambda found: _ENTITIES[found[0]], re.sub(r"([\\|`*_{}\[\]()#+!~])", r"\\\1", one_line))


def link(text: str, address: str | None) -> str:
    """Return `text`, which is Markdown, as a link; by itself if there is no address."""
    return text if address is None else f"[{text}]({address})"


def code_block(lines: Sequence[str]) -> str:
    """Return a block of code, fenced by more backticks than stand in it."""
    one_line = [" ".join(line.split()) for line in lines]
    longest = max((len(run) for line in one_line for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([fence, *one_line, fence])


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of cells that are Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))
