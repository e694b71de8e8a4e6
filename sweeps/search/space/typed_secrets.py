"""Hide secrets in overrides as they were typed: in records, and in messages about a wrong override.

An override is parsed by Hydra's grammar, and its value is searched like a configuration (`core/secrets.py`). Overrides
that cannot contain a secret are not parsed, since Hydra's parser takes time to import.
"""

import re
from collections.abc import Iterator, Sequence

from sweeps.core.errors import SpaceError
from sweeps.core.secrets import HIDDEN, Secrets, is_secret, withhold
from sweeps.core.urls import hide_password, passwords_in

__all__ = ["hide_typed", "typed_secrets"]

_BETWEEN_NAMES = re.compile(r"[.@/\[\]]")
_MARKS = re.compile(r"""[{}\[\](),:='"]""")


def hide_typed(override: str) -> str:
    """Return an override for display: as it was typed, or with `***` for the secrets in its value."""
    return _divided(override)[0]


def typed_secrets(overrides: Sequence[str]) -> Iterator[str]:
    """Yield the secrets in overrides, to hide them in messages."""
    for override in overrides:
        yield from _divided(override)[1]


def _divided(override: str) -> tuple[str, list[str]]:
    """Return an override for display, and the secrets in it."""
    key, _, text = override.partition("=")
    secret_name = next(filter(is_secret, _BETWEEN_NAMES.split(key.lstrip("+~"))), "")
    if not text or not (secret_name or "{" in text.replace("${", "")):
        return hide_password(override), passwords_in(override)
    from sweeps.config.quoting import quote
    from sweeps.search.space.declare import values_of

    try:
        values = values_of(override)
    except SpaceError:
        return f"{key}={HIDDEN}", _unread(text) if secret_name else _unread_with_names(text)
    secrets = Secrets({})
    public, hidden = withhold({secret_name: values}, secrets)
    if not hidden:
        return override, []
    shown = HIDDEN if secret_name else ",".join(map(quote, public[secret_name]))
    return f"{key}={shown}", [text, *secrets.of_configuration]


def _unread_with_names(text: str) -> list[str]:
    """Return the parts of a text that cannot be parsed, if it contains the name of a secret."""
    return _unread(text) if any(is_secret(part) for part in _MARKS.split(text)) else []


def _unread(text: str) -> list[str]:
    parts = [part.strip() for part in _MARKS.split(text)]
    return [text, *parts, *(word for part in parts for word in part.split())]
