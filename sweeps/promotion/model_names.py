"""What a person calls a registered model: `NAME@alias`, `NAME/3` for a version, or `NAME` for its newest version."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sweeps.core.errors import UsageError, did_you_mean
from sweeps.core.text import some_of

__all__ = ["HOW", "ModelName", "chosen_version", "parse_model_name", "require_alias", "require_name"]

HOW = "A registered model is named as NAME@ALIAS, as NAME/VERSION, or as NAME for its newest version."

_NAME = re.compile(r"[^\W_][\w. -]{0,199}")
_ALIAS = re.compile(r"\w[\w-]{0,254}", re.ASCII)
_RESERVED = re.compile(r"latest|v\d+", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelName:
    """A registered model as it is typed: by an alias, by a version, or neither, which means the newest."""

    name: str
    alias: str | None = None
    version: int | None = None

    def __str__(self) -> str:
        """Return it as it is typed."""
        if self.alias is not None:
            return f"{self.name}@{self.alias}"
        return self.name if self.version is None else f"{self.name}/{self.version}"


def parse_model_name(text: str) -> ModelName:
    """Take a name apart; `models:/NAME@ALIAS`, as MLflow writes it, is the same.

    Raises:
        UsageError: It is none.
    """
    bare = text.removeprefix("models:/")
    name, at, alias = bare.rpartition("@")
    if at:
        if not name or not _ALIAS.fullmatch(alias):
            raise UsageError(f"{text!r} names no registered model. {HOW}")
        return ModelName(name=name, alias=alias)
    name, slash, version = bare.rpartition("/")
    if slash:
        if not name or not re.fullmatch(r"[1-9]\d{0,8}", version, re.ASCII):
            raise UsageError(f"{text!r} names no registered model: after the / there is its version. {HOW}")
        return ModelName(name=name, version=int(version))
    if not bare:
        raise UsageError(f"The name of a registered model is missing. {HOW}")
    return ModelName(name=bare)


def chosen_version(
    wanted: ModelName, names: Collection[str], aliases: Mapping[str, int], versions: Collection[int]
) -> int:
    """Return the number of the version that is meant.

    Args:
        wanted: As it was typed.
        names: All registered models of the store.
        aliases: Those of the model, if it is one of these.
        versions: Likewise its versions.

    Raises:
        UsageError: There is none; names what there is.
    """
    if wanted.name not in names:
        hint = did_you_mean(wanted.name, names) or "The store has none yet: see `lightsweep promote --help`."
        raise UsageError(f"There is no registered model {wanted.name!r}. {hint}")
    if wanted.alias is not None and wanted.alias not in aliases:
        hint = did_you_mean(wanted.alias, aliases) or f"It has none. {HOW}"
        raise UsageError(f"The registered model {wanted.name!r} has no alias {wanted.alias!r}. {hint}")
    if not versions:
        raise UsageError(f"The registered model {wanted.name!r} has no version. See `lightsweep promote --help`.")
    number = aliases[wanted.alias] if wanted.alias is not None else wanted.version or max(versions)
    if number not in versions:
        there = some_of([str(one) for one in sorted(versions)], 10)
        raise UsageError(f"The registered model {wanted.name!r} has no version {number}. It has {there}.")
    return number


def require_name(name: str) -> None:
    """Refuse a name for a new registered model that MLflow, a shell or `NAME@ALIAS` would take for something else.

    Raises:
        UsageError: It is such a name.
    """
    if not _NAME.fullmatch(name) or name != name.strip():
        raise UsageError(
            f"--name must begin with a letter or a digit, with letters, digits, '_', '.', '-' and blanks after it, "
            f"but got {name!r}."
        )


def require_alias(alias: str) -> None:
    """Refuse an alias that MLflow does not take.

    Raises:
        UsageError: It is such an alias.
    """
    if not _ALIAS.fullmatch(alias) or _RESERVED.fullmatch(alias):
        raise UsageError(
            f"--alias must be of letters, digits, '_' and '-', and neither 'latest' nor 'v1', which MLflow keeps for "
            f"itself, but got {alias!r}."
        )
