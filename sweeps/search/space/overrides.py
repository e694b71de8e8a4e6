"""Further overrides for a study that goes on: they come after those it was started with, and replace them.

What is secret in overrides as they were typed: hidden where they are recorded, and in messages about a wrong one.

An override is read by the grammar that it is obeyed by, and its value is divided as a configuration is (secrecy.py).
Those that cannot have a secret are not read, since Hydra's parser takes time to import.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from sweeps.config.composer import Composer
from sweeps.core.errors import ConfigError, SpaceError
from sweeps.core.secrets import HIDDEN, Secrets, is_secret, withhold
from sweeps.core.urls import hide_password, passwords_in
from sweeps.search.space import key_of, split_overrides

__all__ = ["hide_typed", "replaced", "typed_secrets", "with_further"]

_FIXED = ("study.name", "store_dir")


def with_further(
    recorded: Sequence[str], further: Sequence[str], config_name: str, config_dir: Path | None
) -> list[str]:
    """Return the overrides of a study that goes on.

    Args:
        recorded: Those it was started with.
        further: Those that are to hold from now on, too.
        config_name: The primary config.
        config_dir: The folder of the user's own options.

    Raises:
        ConfigError: They would name another study.
        SpaceError: One cannot be read.
    """
    for override in further:
        if key_of(override) in _FIXED:
            raise ConfigError(
                f"{override}: resume goes on with the study that it names, where it is. Leave it out, or start another "
                "with `lightsweep sweep`."
            )
    plain, sweeps = split_overrides(recorded)
    named = any(key_of(override) == "search" for override in (*recorded, *further))
    if split_overrides(further)[1] and not sweeps and not named:
        # What the study searched was its `search` option; sweeps that are typed alone would take the place of all of it
        composer = Composer(config_name, plain, config_dir)
        option = composer.choices.get("search")
        recorded = [*recorded, f"search={option if option in composer.options('search') else 'none'}"]
    return replaced(recorded, further)


def replaced(recorded: Sequence[str], further: Sequence[str]) -> list[str]:
    """Join two lists of overrides; of one key the later alone stays, with the `+` of an earlier one that added it."""
    found = list(recorded)
    for override in further:
        key = key_of(override)
        earlier = [other for other in found if key_of(other) == key]
        if override.startswith("+") and any(other.startswith("~") for other in earlier):
            found.append(override)  # deleted, then added
            continue
        found = [other for other in found if other not in earlier]
        signs = {other[: len(other) - len(other.lstrip("+"))] for other in earlier} - {""}
        if override.startswith("~") and signs:
            continue  # added, then deleted
        is_bare = not override.startswith(("+", "~"))
        found.append(f"{max(signs)}{override}" if is_bare and signs else override)
    return found


_BETWEEN_NAMES = re.compile(r"[.@/\[\]]")
_MARKS = re.compile(r"""[{}\[\](),:='"]""")


def hide_typed(override: str) -> str:
    """Return an override as it may be shown: as it was typed, or with `***` for what is secret in its value."""
    return _divided(override)[0]


def typed_secrets(overrides: Sequence[str]) -> Iterator[str]:
    """Yield what is secret in overrides, for messages about a wrong one."""
    for override in overrides:
        yield from _divided(override)[1]


def _divided(override: str) -> tuple[str, list[str]]:
    """Return an override as it may be shown, and what must not be shown of it."""
    key, _, text = override.partition("=")
    secret_name = next(filter(is_secret, _BETWEEN_NAMES.split(key.lstrip("+~"))), "")
    if not text or not (secret_name or "{" in text.replace("${", "")):
        return hide_password(override), passwords_in(override)
    from sweeps.search.space import quote, values_of

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
    """Return the parts of a text that cannot be read, if something in it is called like a secret."""
    return _unread(text) if any(is_secret(part) for part in _MARKS.split(text)) else []


def _unread(text: str) -> list[str]:
    parts = [part.strip() for part in _MARKS.split(text)]
    return [text, *parts, *(word for part in parts for word in part.split())]
