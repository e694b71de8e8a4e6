"""Names of metrics, params and tags as MLflow takes them, and back: one to one.

MLflow takes letters, digits, `_`, `-`, `.`, `/`, `:` and blanks, 250 of them at most. It refuses what reads as a path
of another form: a slash at either end or two in a row, a part that is `.` or `..`, and two dots at the beginning.

- A character that is refused is stored as its code point, `_xHEX_`: `val/AR@100` is `val/AR_x40_100`, `val//f1` is
  `val/_x2F_f1`, and the empty name is `_x_`.
- What looks like such an escape already gets one for its underscore: `a_x40_b` is `a_x5F_x40_b`.
- What is longer than MLflow takes is cut, and ends in `_sha256_` and a hash of the whole name.
- Every other name is stored as it is.
"""

import hashlib
import re
from functools import lru_cache

__all__ = ["MAX_NAME", "looked_up_name", "shown_name", "stored_name"]

MAX_NAME = 250
"""characters of a name in MLflow"""

_REFUSED = re.compile(
    r"[^\w.\- :/]"  # `\w` has the letters and digits of all scripts, here and in MLflow
    r"|\A/|/\Z|(?<=/)/"
    r"|\A\.(?=\.)|(?:\A|(?<=/))\.(?=\.?(?:/|\Z))"
)
_ESCAPE = re.compile(r"_x([0-9A-F]{2,6})_")
_LIKE_AN_ESCAPE = re.compile(r"_(?=x([0-9A-F]{2,6})(?![0-9A-F]))")
_EMPTY = "_x_"
_CUT = re.compile(r".*_sha256_[0-9a-f]{32}", re.DOTALL)


@lru_cache(maxsize=10_000)
def stored_name(name: str) -> str:
    """Return what MLflow calls what is called `name`."""
    if not name:
        return _EMPTY
    places = {found.start() for found in _REFUSED.finditer(name)}
    escapes = {
        found.start()
        for found in _LIKE_AN_ESCAPE.finditer(name)
        if found.end(1) in places or name[found.end(1) : found.end(1) + 1] == "_"
    }
    escapes |= {0} if name == _EMPTY else set()
    stored = "".join(_escaped(char) if at in places | escapes else char for at, char in enumerate(name))
    if len(stored) <= MAX_NAME and not _CUT.fullmatch(stored):
        return stored
    end = f"_sha256_{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"
    return stored[: MAX_NAME - len(end)] + end


@lru_cache(maxsize=10_000)
def shown_name(stored: str) -> str:
    """Return the name that is stored so; as it is if it was cut, or if `stored_name` does not give it."""
    if "_x" not in stored or _CUT.fullmatch(stored):
        return stored
    name = "" if stored == _EMPTY else _ESCAPE.sub(_unescaped, stored)
    return name if stored_name(name) == stored else stored


def looked_up_name(shown: str) -> str:
    """Return what MLflow calls what is shown so: a name that was cut is shown as it is stored."""
    return shown if _CUT.fullmatch(shown) and len(shown) <= MAX_NAME else stored_name(shown)


def _escaped(char: str) -> str:
    return f"_x{ord(char):02X}_"


def _unescaped(found: re.Match[str]) -> str:
    point = int(found[1], 16)
    return chr(point) if point < 0x110000 else found[0]
