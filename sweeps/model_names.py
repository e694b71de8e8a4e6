"""What a person calls a registered model: `NAME@alias`, `NAME/3` for a version, or `NAME` for its newest version."""

import re
from dataclasses import dataclass

from sweeps.errors import UsageError

__all__ = ["HOW", "ModelName", "parse_model_name", "require_alias", "require_name"]

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
