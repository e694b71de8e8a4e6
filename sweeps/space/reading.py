"""Values typed as Hydra overrides, for one trial."""

from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.types import Glob, OverrideType, Sweep

from sweeps.core.errors import SpaceError
from sweeps.space.parsing import name_of, plain_value, read_override

__all__ = ["read_values"]


def read_values(overrides: Sequence[str]) -> dict[str, Any]:
    """Return what `key=value` overrides set, quoted and nested as on a sweep's command line.

    Raises:
        SpaceError: One cannot be read, deletes a key, or is a sweep expression.
    """
    values: dict[str, Any] = {}
    for text in overrides:
        override = read_override(text)
        key = name_of(override)
        if override.type == OverrideType.DEL:
            raise SpaceError(f"{text}: a trial needs values, but ~ deletes a key. Write {key}=VALUE.")
        try:
            value = override.value()
        except ValueError as error:
            raise SpaceError(f"{text}: {error}") from error
        if isinstance(value, Sweep | Glob):
            raise SpaceError(f"{text}: a trial has one value for each key, but this is a sweep expression.")
        values[key] = plain_value(value)
    return values
