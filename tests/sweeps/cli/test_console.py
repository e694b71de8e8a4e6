"""Texts that would steer a terminal, on the console of every command."""

import io
import re

import pytest
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sweeps.cli.console import SafeConsole
from sweeps.core.text import number, plain, plain_lines, short_names

EVIL = "\x1b[2J\x9b31m\u202eexe\x7f"


@pytest.mark.parametrize("is_terminal", [False, True])
def test_console_colours_and_its_texts_do_not(is_terminal: bool) -> None:
    out = io.StringIO()
    console = SafeConsole(
        file=out, force_terminal=is_terminal, width=80, color_system="standard" if is_terminal else None
    )
    table = Table()
    table.add_column(Text(EVIL))
    table.add_row(Text(EVIL, style="red"))

    console.print(EVIL, markup=False)
    console.print(table)
    with Live(Text(EVIL), console=console):
        console.print(Text(EVIL), soft_wrap=True)

    printed = re.sub(r"\x1b\[\??[0-9;]*[mhlAKG]", "", out.getvalue())  # rich's own: colours, the cursor and its lines
    assert not re.search("[\x1b\x9b\u202e\x7f]", printed) and "\\x1b[2J\\x9b31m\\u202eexe\\x7f" in printed
    assert ("\x1b[31m" in out.getvalue()) == is_terminal


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("val/acc ± 0.5 größer 日本 🎉", "val/acc ± 0.5 größer 日本 🎉"),
        ("a\r\nb\tc\n", "a b c"),
        ("\x1b]8;;http://evil\x07x", "\\x1b]8;;http://evil\\x07x"),
        ("a\u202eb\u2066c\u200bd\ufeff", "a\\u202eb\\u2066c\\u200bd\\ufeff"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("a\x00\x7f\x85b", "a\\x00\\x7f b"),
    ],
)
def test_plain_text_is_one_line_that_can_only_be_read(text: str, expected: str) -> None:
    assert plain(text) == expected == number(text)
    assert plain(text).encode()


def test_lines_stay_lines_where_there_may_be_several() -> None:
    assert plain_lines("a\r\nb\n\x1bc") == "a\nb\n\\x1bc"


def test_short_names_are_plain() -> None:
    assert short_names(["a.\x1b[1m"]) == {"a.\x1b[1m": "\\x1b[1m"}
