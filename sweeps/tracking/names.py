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

Texts that are longer than MLflow takes: what is read again is spread over several tags, the others are shortened.

`lightsweep.params` of 20,000 characters is in the tags `lightsweep.params`, `lightsweep.params.1` and
`lightsweep.params.2`: JSON that is cut could not be parsed, and a search over prompts would lose all its parameters.
"""

import hashlib
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import PurePath

from sweeps.tracking import tags

__all__ = [
    "MAX_NAME",
    "MAX_PARAM",
    "MAX_TAG",
    "SPREAD",
    "is_shortened",
    "joined",
    "looked_up_name",
    "shortened",
    "shown_metrics",
    "shown_name",
    "shown_tags",
    "spread",
    "stored_file",
    "stored_name",
]

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


def shown_metrics(stored: Mapping[str, float | None]) -> dict[str, float]:
    """Return metrics by the names that are shown, without those that only serve for sorting; None is NaN."""
    return {
        shown_name(key): math.nan if value is None else value
        for key, value in stored.items()
        if tags.judged_by(key) is None
    }


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


MAX_PARAM = 6000
"""characters of the value of a param in MLflow"""
MAX_TAG = 8000
"""characters of the value of a tag"""
SPREAD = (tags.PARAMS, tags.SPACE, tags.OBJECTIVES, tags.VALUES, tags.OVERRIDES)
"""the tags that are spread"""

_SHORTENED = re.compile(r".*… \([\d,]+ characters, sha256 [0-9a-f]{16}\)", re.DOTALL)


def spread(run_tags: Mapping[str, str]) -> dict[str, str]:
    """Return tags of which none is longer than MLflow takes."""
    found: dict[str, str] = {}
    for key, text in run_tags.items():
        if key not in SPREAD or len(text) < MAX_TAG:
            found[key] = shortened(text, MAX_TAG)
            continue
        # Only the last part is shorter than MAX_TAG: what an earlier, longer text has left behind it is not read
        text += " " * (len(text) % MAX_TAG == 0)
        for part, start in enumerate(range(0, len(text), MAX_TAG)):
            found[_part(key, part)] = text[start : start + MAX_TAG]
    return found


def joined(run_tags: Mapping[str, str]) -> dict[str, str]:
    """Return tags as they were before `spread`; what was shortened stays so."""
    found = dict(run_tags)
    if MAX_TAG not in [len(found.get(key, "")) for key in SPREAD]:
        return found
    for key in SPREAD:
        number, part = 0, found.get(key, "")
        while len(part) == MAX_TAG:
            number += 1
            part = found.pop(_part(key, number), "")
            found[key] += part
        while number and found.pop(_part(key, number := number + 1), None) is not None:
            pass  # of an earlier, longer text
    return found


def shown_tags(stored: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of a run as they were given: with the names that they had, and whole."""
    return joined({shown_name(key): text for key, text in stored.items()})


def shortened(text: str, limit: int) -> str:
    """Return a text of at most `limit` characters; one that was cut ends in its length and its hash."""
    if len(text) <= limit:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    end = f"… ({len(text):,} characters, sha256 {digest})"
    return text[: limit - len(end)] + end


def is_shortened(text: str, limit: int) -> bool:
    """Tell whether a text was cut by `shortened`."""
    return len(text) == limit and _SHORTENED.fullmatch(text) is not None


def _part(key: str, number: int) -> str:
    return f"{key}.{number}" if number else key
