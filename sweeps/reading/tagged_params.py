"""The tag that holds the searched parameters as JSON: all of them, or some without parsing the rest.

To parse the parameters of 20,000 runs takes a second; a condition looks at two of fifty.
"""

import json
from collections.abc import Callable, Collection
from typing import Any

__all__ = ["plain_mapping", "some_params"]

_UNREADABLE = (ValueError, RecursionError)  # also numbers of thousands of digits, and thousands of brackets
_decode_at = json.JSONDecoder().raw_decode


def plain_mapping(text: str | None) -> dict[str, Any]:
    """Parse a JSON object; anything else, such as what somebody has edited, is empty."""
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except _UNREADABLE:
        return {}
    return found if isinstance(found, dict) else {}


def some_params(names: Collection[str]) -> Callable[[str | None], dict[str, Any]]:
    """Return what takes from such a text the parameters that some names may mean: those that end in the same words.

    It is `plain_mapping`, and leaves the others out where that is easy: in a text without braces or backslashes in its
    values every quote begins or ends a text, and one before a colon ends a key.

    Args:
        names: As typed: `params.optimizer.lr`, `optimizer.lr` or `lr`.
    """
    words = sorted({name.rpartition(".")[2] for name in names})
    if not all(word and json.dumps(word) == f'"{word}"' for word in words):
        return plain_mapping

    def take(text: str | None) -> dict[str, Any]:
        if text is None or not _is_easy(text):
            return plain_mapping(text)
        found: dict[str, Any] = {}
        for word in words:
            start = text.find(f'{word}":')
            while start > 0:
                end = start + len(word)
                if text[start - 1] in '".':
                    key = text[text.rfind('"', 0, start) + 1 : end]
                    try:
                        found[key], end = _decode_at(text, end + 3 if text[end + 2 : end + 3] == " " else end + 2)
                    except _UNREADABLE:
                        return plain_mapping(text)
                start = text.find(f'{word}":', end)
        return found

    return take


def _is_easy(text: str) -> bool:
    return text[:1] == "{" and text[-1:] == "}" and "\\" not in text and '" :' not in text and text.find("{", 1) < 0
