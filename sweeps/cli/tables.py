"""Tables of texts: for people in a terminal or as Markdown, for spreadsheets as CSV."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import IO, Any, Literal

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sweeps.core.text import brief, plain

__all__ = ["Column", "in_markdown", "print_csv", "print_markdown", "print_table", "table_width"]

_GAP = 2  # blanks between columns
_MAX_CELL = 24  # places of a cell in a terminal, of which a wide character takes two
_END_OF_CELL = 9  # places of its end, where beginnings are alike


@dataclass(slots=True)
class Column:
    """A column of a table, of texts without control characters.

    Attributes:
        header: Its name.
        cells: A text for each row.
        is_number: Whether it is aligned at the right.
        style: Rich's name of a colour.
        longest: Characters of a text; a longer one becomes its beginning and its length.
        styles: A style for each cell, if any.
        sacrifice: In a narrow terminal the column with the highest is left out first; 0 stays.
    """

    header: str
    cells: list[str]
    is_number: bool = True
    style: str = ""
    sacrifice: int = 0
    longest: int = 100
    styles: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.header = brief(plain(self.header), self.longest)
        self.cells = [brief(plain(cell), self.longest) for cell in self.cells]

    @property
    def width(self) -> int:
        """Places in a terminal, of which a wide character takes two."""
        return max(map(cell_len, (self.header, *self.cells)))


def table_width(columns: Sequence[Column]) -> int:
    """Return the places that columns take side by side."""
    return sum(column.width for column in columns) + _GAP * (len(columns) - 1)


def print_table(
    columns: Sequence[Column],
    form: Literal["table", "md"],
    *,
    console: Console,
    out: IO[str],
    row_styles: Sequence[str] = (),
) -> None:
    """Print columns as a table for people.

    Where it does not fit into a terminal, long cells are shortened and columns are left out. Elsewhere a table is as
    wide as it needs to be.

    Args:
        columns: At least one, all of the same length.
        form: As aligned text on the console, or as Markdown on `out`.
        console: Where text goes.
        out: Where Markdown goes.
        row_styles: Rich's style of each row, if any.
    """
    if form == "md":
        print_markdown([column.header for column in columns], _lines(columns), out)
        return
    width = console.width
    left_out: list[str] = []
    if console.is_terminal and table_width(columns) > width:
        columns = [replace(column, cells=_shortened(column.cells)) for column in columns]
        columns, left_out = _fitting(columns, width)
    elif not console.is_terminal:
        console.width = table_width(columns) + _GAP
    table = Table(box=None, padding=(0, _GAP, 0, 0), header_style="bold", pad_edge=False)
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.is_number else "left"
        table.add_column(Text(column.header), justify=justify, style=column.style, no_wrap=True)
    texts = [[*map(Text, column.cells, column.styles or repeat(""))] for column in columns]
    for row, style in zip(zip(*texts, strict=True), row_styles or repeat(""), strict=False):
        table.add_row(*row, style=style)
    console.print(table)
    console.width = width
    if left_out:
        console.print(
            f"Not shown for want of room: {', '.join(left_out)}. `--format csv` has all.", style="dim", highlight=False
        )


def print_markdown(header: Sequence[str], lines: Sequence[Sequence[str]], out: IO[str]) -> None:
    """Print a table as GitHub shows it."""
    for cells in (header, ["---"] * len(header), *lines):
        out.write(f"| {' | '.join(map(in_markdown, cells))} |\n")


def in_markdown(text: str) -> str:
    """Keep a text to its cell, and from being taken for markup."""
    return re.sub(r"([\\|`*_<>\[\]~])", r"\\\1", plain(text))


def print_csv(header: Sequence[str], lines: Sequence[Sequence[Any]], out: IO[str]) -> None:
    """Print CSV that is safe to open in a spreadsheet."""
    writer = csv.writer(out, lineterminator="\n")
    for cells in (header, *lines):
        writer.writerow(["" if cell is None else _no_formula(cell) for cell in cells])


def _no_formula(cell: Any) -> Any:
    """Keep a spreadsheet from running a text as a formula, and a text to its line."""
    if not isinstance(cell, str):
        return cell
    text = plain(cell)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", " ")) else text


def _lines(columns: Sequence[Column]) -> list[tuple[str, ...]]:
    return list(zip(*(column.cells for column in columns), strict=True))


def _shortened(cells: Sequence[str]) -> list[str]:
    """Cut cells to what a terminal has room for: at their ends, unless they would then look the same."""
    found = [_cut(cell) for cell in cells]
    return found if len(set(found)) == len(set(cells)) else [_cut_within(cell) for cell in cells]


def _cut(cell: str) -> str:
    return cell if cell_len(cell) <= _MAX_CELL else f"{set_cell_size(cell, _MAX_CELL - 1)}…"


def _cut_within(cell: str) -> str:
    end = cell[-_END_OF_CELL:]
    if cell_len(cell) <= _MAX_CELL or cell_len(end) > _END_OF_CELL:
        return _cut(cell)
    return f"{set_cell_size(cell, _MAX_CELL - 1 - _END_OF_CELL)}…{end}"


def _fitting(columns: Sequence[Column], width: int) -> tuple[list[Column], list[str]]:
    """Leave columns out until the rest fits, and name those left out in their order."""
    kept = list(columns)
    while table_width(kept) > width:
        expendable = max(kept, key=lambda column: column.sacrifice)
        if expendable.sacrifice == 0:
            break
        kept.remove(expendable)
    return kept, [column.header for column in columns if column not in kept]
