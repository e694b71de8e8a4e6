"""Format text for people, for Markdown and for stores: names, numbers, durations, escapes.

Text from a user or a store is never interpreted: not by a terminal (`plain`), nor as Markdown (`escaped`).
"""

import hashlib
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

__all__ = [
    "LARGEST",
    "brief",
    "code_block",
    "distinct",
    "duration",
    "escaped",
    "finite",
    "is_number",
    "link",
    "memory",
    "number",
    "plain",
    "plain_lines",
    "run_name",
    "short_names",
    "shortened",
    "some_of",
    "storable",
    "table",
    "unbounded",
    "values_text",
    "whole",
]

# Marks of direction and of lines, and invisible characters
_STEERING = "\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\u2028\u2029\ufeff"
_CONTROL = re.compile(f"[\x00-\x09\x0b-\x1f\x7f-\x9f{_STEERING}\ud800-\udfff\U000e0000-\U000e007f]")


def plain(text: str) -> str:
    """Return a text as one line without control characters.

    A terminal would obey some of them and reorder others: they become escapes such as `\\x1b`, and line breaks and
    tabs become blanks.
    """
    return text if text.isprintable() else plain_lines(" ".join(text.split()))


def plain_lines(text: str) -> str:
    """Return a text as `plain` does, but keep its lines."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text.replace("\r\n", "\n"))


def brief(text: str, most: int = 100) -> str:
    """Return a text of at most `most` characters; a longer one becomes its beginning, its length and a hash of it."""
    if len(text) <= most:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    end = f"… ({len(text):,} characters, #{digest})"
    return text[: most - len(end)] + end


def storable(text: str) -> str:
    """Return a text that any file and database can store: characters that are not Unicode become escapes."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def shortened(text: str, most: int) -> str:
    """Return a text, or the beginning and the end of one of more than `most` characters."""
    if len(text) <= most:
        return text
    head = most * 2 // 3
    return f"{text[:head]} [...] {text[len(text) - (most - head) :]}"


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Map dotted keys to their last words, as many as distinguish the keys; see `plain`."""
    keys = list(keys)
    short: dict[str, str] = {}
    for key in keys:
        words = key.split(".")
        for count in range(1, len(words) + 1):
            tail = ".".join(words[-count:])
            if sum(f".{other}".endswith(f".{tail}") for other in keys) == 1:
                break
        short[key] = plain(tail)
    return short


def number(value: Any, digits: int | None = 4) -> str:
    """Write a number with four significant digits, a count in full, any other value as its text on one line.

    Args:
        value: The value.
        digits: The number of significant digits; None for all, with a point in every float.
    """
    if digits is None or not isinstance(value, float):
        return plain(str(value))
    return str(int(value)) if value.is_integer() and 1e4 <= abs(value) < 1e15 else f"{value:.{digits}g}"


def distinct(values: Iterable[Any], write: Callable[[Any, int | None], str] = number) -> dict[str, str]:
    """Write values as briefly as possible so that they differ; 1 and 1.0 are different.

    Args:
        values: The values of one parameter.
        write: Writes a value with a number of digits; None for all.

    Returns:
        The text of each value by its `repr`, in the given order.
    """
    known = {repr(value): value for value in values}
    texts: dict[str, str] = {}
    for digits in (*range(4, 10), None):
        texts = {key: write(value, digits) for key, value in known.items()}
        if len(set(texts.values())) == len(known):
            break
    return texts


def values_text(values: Mapping[str, Any], *, is_short: bool = True) -> str:
    """Write values as `lr=0.0031 depth=3`, or with full names; long texts are cut by `brief`."""
    names = short_names(values) if is_short else {key: key for key in values}
    return " ".join(f"{names[key]}={brief(number(value))}" for key, value in values.items())


def run_name(trial: int, values: Mapping[str, Any]) -> str:
    """Return the name of the run of a trial: `#12 lr=0.0031 depth=3`."""
    return f"#{trial} {values_text(values)}"[:200].rstrip()


def duration(seconds: float) -> str:
    """Write a duration as `0.8 s`, `42 s`, `3 min 05 s` or `2 h 10 min`."""
    if round(seconds, 1) < 10:
        return f"{seconds:.1f} s"
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def memory(num_bytes: float) -> str:
    """Write an amount of memory as `512 B`, `3.4 MB` or `21 GB`; 1 MB is 1,000,000 bytes."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while num_bytes >= 999.5 and len(units) > 1:
        num_bytes /= 1000
        units.pop(0)
    digits = 0 if units[0] == "B" or num_bytes >= 9.95 else 1
    return f"{num_bytes:.{digits}f} {units[0]}"


def some_of(names: Sequence[str], most: int = 5) -> str:
    """Write a list of names; of a long one the beginning and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


# --- Markdown

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def escaped(text: str) -> str:
    """Return `text` on one line, with everything escaped that Markdown or HTML would interpret."""
    one_line = " ".join(text.split())
    return re.sub(r"[&<>]", lambda found: _ENTITIES[found[0]], re.sub(r"([\\|`*_{}\[\]()#+!~])", r"\\\1", one_line))


def link(text: str, address: str | None) -> str:
    """Return `text`, which is Markdown, as a link; unchanged if there is no address."""
    return text if address is None else f"[{text}]({address})"


def code_block(lines: Sequence[str]) -> str:
    """Return a code block, fenced by more backticks than it contains."""
    one_line = [" ".join(line.split()) for line in lines]
    longest = max((len(run) for line in one_line for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([fence, *one_line, fence])


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of cells that are Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


# --- numbers in stores

LARGEST = sys.float_info.max
"""the number that MLflow stores for infinity"""
_MOST_DIGITS = 18


def unbounded(value: float) -> float:
    """Return infinity for the number that MLflow stores for it, any other number unchanged."""
    return math.copysign(math.inf, value) if abs(value) >= LARGEST else value


def finite(value: Any) -> Any:
    """Replace the numbers that JSON lacks (NaN, infinities) by null, also in lists and mappings."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def whole(text: str | None) -> int | None:
    """Return the count in a text; None if it is not one, as in a tag that somebody has edited."""
    return int(text) if text is not None and text.isdecimal() and len(text) <= _MOST_DIGITS else None


def is_number(value: float | None) -> bool:
    """Tell whether a value is neither None nor NaN."""
    return value is not None and not math.isnan(value)
