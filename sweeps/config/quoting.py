"""Write Python values as text that Hydra's override grammar reads back as the same values."""

import re
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString

__all__ = ["quote", "verbatim"]

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_RESERVED = {"null", "true", "false", "inf", "nan"}
_INTERPOLATION = re.compile(r"(\\*)\$\{")
_ESCAPED = re.compile(r"([\\()\[\]{}:=, \t])")


def quote(value: Any) -> str:
    """Return the text that Hydra's parser reads as `value`.

    Different values have different texts (`1`, `1.0`, `true`, `'1'`), so the text also identifies the value.

    Args:
        value: None, a bool, an int, a float, a string, or lists and dicts of these.

    Raises:
        TypeError: For any other type.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return repr(float(value))
    if isinstance(value, str):
        return value if _is_word(value) else QuotedString(text=value, quote=Quote.single).with_quotes()
    if isinstance(value, (list, tuple)):
        return f"[{','.join(quote(item) for item in value)}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{_quote_key(key)}:{quote(item)}" for key, item in value.items()) + "}"
    raise TypeError(f"A value of a search space is a number, text, null, list or dict, but got {value!r}.")


def verbatim(text: str) -> str:
    """Return what an override says for just this text, even if a part of it is written like an interpolation."""
    return quote(_INTERPOLATION.sub(r"\1\1\\${", text))


def _is_word(text: str) -> bool:
    return _WORD.fullmatch(text) is not None and text.lower() not in _RESERVED


def _quote_key(key: Any) -> str:
    """Return a dict's key as text; the grammar knows no quotes there, only backslashes."""
    return _ESCAPED.sub(r"\\\1", key) if isinstance(key, str) else quote(key)
