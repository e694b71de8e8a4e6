"""Names of metrics, params and tags as MLflow takes them, and back: one to one.

MLflow takes letters, digits, `_`, `-`, `.`, `/`, `:` and blanks, 250 of them at most. It refuses what reads as a path
of another form: a slash at either end or two in a row, a part that is `.` or `..`, and two dots at the beginning.

- A character that is refused is stored as its code point, `_xHEX_`: `val/AR@100` is `val/AR_x40_100`, `val//f1` is
  `val/_x2F_f1`, and the empty name is `_x_`.
- What looks like such an escape already gets one for its underscore: `a_x40_b` is `a_x5F_x40_b`.
- What is longer than MLflow takes is cut, and ends in `_sha256_` and a hash of the whole name.
- Every other name is stored as it is.

Files of artifacts have the same escapes, for `?`, `#`, `%`, backslashes and control characters: a server ends a name
at `?`.
"""

import hashlib
import re
from functools import lru_cache
from pathlib import PurePath

__all__ = ["MAX_NAME", "looked_up_name", "shown_name", "stored_file", "stored_name"]

MAX_NAME = 250
"""characters of a name in MLflow"""

_REFUSED = re.compile(
    r"[^\w.\- :/]"  # `\w` has the letters and digits of all scripts, here and in MLflow
    r"|\A/|/\Z|(?<=/)/"
    r"|\A\.(?=\.)|(?:\A|(?<=/))\.(?=\.?(?:/|\Z))"
)
_REFUSED_IN_FILES = re.compile(r"[?#%\\\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_MAX_FILE = 250  # bytes
_ESCAPE = re.compile(r"_x([0-9A-F]{2,6})_")
_LIKE_AN_ESCAPE = re.compile(r"_(?=x([0-9A-F]{2,6})(?![0-9A-F]))")
_EMPTY = "_x_"
_CUT = re.compile(r".*_sha256_[0-9a-f]{32}", re.DOTALL)


@lru_cache(maxsize=10_000)
def stored_name(name: str) -> str:
    """Return what MLflow calls what is called `name`."""
    if not name:
        return _EMPTY
    stored = f"{_escaped('_')}x_" if name == _EMPTY else _with_escapes(name, _REFUSED)
    if len(stored) <= MAX_NAME and not _CUT.fullmatch(stored):
        return stored
    end = _hash_of(name)
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


def stored_file(name: str) -> str:
    """Return what a file is called among the artifacts, with its ending."""
    stored = _with_escapes(name, _REFUSED_IN_FILES)
    if len(stored.encode()) <= _MAX_FILE:
        return stored
    end = _hash_of(name) + PurePath(stored).suffix[-20:]
    return stored.encode()[: _MAX_FILE - len(end.encode())].decode(errors="ignore") + end


def _with_escapes(name: str, refused: re.Pattern[str]) -> str:
    places = {found.start() for found in refused.finditer(name)}
    places |= {
        found.start()
        for found in _LIKE_AN_ESCAPE.finditer(name)
        if found.end(1) in places or name[found.end(1) : found.end(1) + 1] == "_"
    }
    return "".join(_escaped(char) if at in places else char for at, char in enumerate(name))


def _hash_of(name: str) -> str:
    return f"_sha256_{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


def _escaped(char: str) -> str:
    return f"_x{ord(char):02X}_"


def _unescaped(found: re.Match[str]) -> str:
    point = int(found[1], 16)
    return chr(point) if point < 0x110000 else found[0]
