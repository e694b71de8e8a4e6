"""Merge the overrides of `lightsweep resume` into those of the study: they are appended, and win on conflict."""

from collections.abc import Sequence
from pathlib import Path

from sweeps.config.composer import Composer
from sweeps.core.errors import ConfigError
from sweeps.search.space.declare import key_of, split_overrides

__all__ = ["replaced", "with_further"]

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
    """Join two lists of overrides: the later one of a key replaces the earlier, but keeps a `+` that added the key."""
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
