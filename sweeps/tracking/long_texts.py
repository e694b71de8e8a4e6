"""Texts that are longer than MLflow takes: what is read again is spread over several tags, the others are shortened.

`lightsweep.params` of 20,000 characters is in the tags `lightsweep.params`, `lightsweep.params.1` and
`lightsweep.params.2`: JSON that is cut could not be parsed, and a search over prompts would lose all its parameters.
"""

import hashlib
import re
from collections.abc import Mapping

from sweeps.tracking import tags
from sweeps.tracking.names import shown_name

__all__ = ["MAX_PARAM", "MAX_TAG", "SPREAD", "is_shortened", "joined", "shortened", "shown_tags", "spread"]

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
