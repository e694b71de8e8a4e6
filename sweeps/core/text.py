"""Short names and numbers for people: `#12 lr=0.0031 depth=3`.

Markdown whose texts come from users: they stay what they are, and in their place.

Numbers as stores and commands write them: infinity, what JSON cannot say, whole numbers in tags.
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

# The direction of what follows, its line, and what nobody sees
_STEERING = "\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\u2028\u2029\ufeff"
_CONTROL = re.compile(f"[\x00-\x09\x0b-\x1f\x7f-\x9f{_STEERING}\ud800-\udfff\U000e0000-\U000e007f]")


def plain(text: str) -> str:
    """Return a text of a store as one line that can do no more than be read.

    A terminal obeys control characters, and shows others in an order that is not theirs; here they are escapes like
    `\\x1b`, and line breaks and tabs are blanks.
    """
    return text if text.isprintable() else plain_lines(" ".join(text.split()))


def plain_lines(text: str) -> str:
    """Return a text as `plain` does, but with its lines."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text.replace("\r\n", "\n"))


def brief(text: str, most: int = 100) -> str:
    """Return a text of at most so many characters: of a long one its beginning, its length and a hash of it."""
    if len(text) <= most:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    end = f"… ({len(text):,} characters, #{digest})"
    return text[: most - len(end)] + end


def storable(text: str) -> str:
    """Return a text that any file and database takes: what is no Unicode, as from a name of a file, is an escape."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def shortened(text: str, most: int) -> str:
    """Return a text, or the beginning and the end of one of more than `most` characters."""
    if len(text) <= most:
        return text
    head = most * 2 // 3
    return f"{text[:head]} [...] {text[len(text) - (most - head) :]}"


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Map dotted keys to their last words, or to as many of them as tell the keys apart; see `plain`."""
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
    """Write a number with four significant digits, a count in full, anything else as it is, on one line.

    Args:
        value: What to write.
        digits: Another number of them; None for all, and a point where there is no count.
    """
    if digits is None or not isinstance(value, float):
        return plain(str(value))
    return str(int(value)) if value.is_integer() and 1e4 <= abs(value) < 1e15 else f"{value:.{digits}g}"


def distinct(values: Iterable[Any], write: Callable[[Any, int | None], str] = number) -> dict[str, str]:
    """Write values as briefly as tells them apart: 1 and 1.0 are two.

    Args:
        values: Of one parameter.
        write: Writes a value with so many digits, or with all.

    Returns:
        The text of each by its `repr`, in the order given.
    """
    known = {repr(value): value for value in values}
    texts: dict[str, str] = {}
    for digits in (*range(4, 10), None):
        texts = {key: write(value, digits) for key, value in known.items()}
        if len(set(texts.values())) == len(known):
            break
    return texts


def values_text(values: Mapping[str, Any], *, is_short: bool = True) -> str:
    """Write searched values as `lr=0.0031 depth=3`, or with the whole names; long texts are `brief`."""
    names = short_names(values) if is_short else {key: key for key in values}
    return " ".join(f"{names[key]}={brief(number(value))}" for key, value in values.items())


def run_name(trial: int, values: Mapping[str, Any]) -> str:
    """Name the run of a trial so that a person recognises it."""
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
    """Write a list of names, of a long one its beginning and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


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


LARGEST = sys.float_info.max
"""what MLflow writes for infinity"""
_MOST_DIGITS = 18


def unbounded(value: float) -> float:
    """Return infinity for what MLflow writes for it."""
    return math.copysign(math.inf, value) if abs(value) >= LARGEST else value


def finite(value: Any) -> Any:
    """Replace what JSON cannot say (NaN, infinities) by null, in lists and mappings too."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def whole(text: str | None) -> int | None:
    """Return the count that a text is; None for all others, such as a tag that somebody has edited."""
    return int(text) if text is not None and text.isdecimal() and len(text) <= _MOST_DIGITS else None


def is_number(value: float | None) -> bool:
    """Tell whether there is a value, and it is not NaN."""
    return value is not None and not math.isnan(value)
