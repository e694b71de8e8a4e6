"""Every error that a user can cause, in one tree.

LightsweepError                 exit status 1
├── UsageError                  exit status 2: the command line or the configuration is wrong
│   ├── ConfigError             a key, an option or a value of the configuration
│   └── SpaceError              a sweep expression or a search space
├── StoreError                  a store that cannot be opened, read or written
├── PreflightError              the configuration composes, but its parts cannot be built or run
└── StudyError                  a study that cannot start or continue

The command line prints `str(error)` and exits with `error.exit_status`; nothing else is printed
unless `--debug` is given. A message states the rule, the value received and the way out.
"""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "ConfigError",
    "LightsweepError",
    "PreflightError",
    "SpaceError",
    "StoreError",
    "StudyError",
    "UsageError",
    "did_you_mean",
]


class LightsweepError(Exception):
    """The base of all errors that are the user's or the world's, not ours."""

    exit_status = 1


class UsageError(LightsweepError):
    """What was typed cannot be meant."""

    exit_status = 2


class ConfigError(UsageError):
    """A key, a group option or a value of the configuration is wrong."""


class SpaceError(UsageError):
    """A sweep expression does not parse, or a search space makes no sense."""


class StoreError(LightsweepError):
    """A store cannot be opened, read or written."""


class PreflightError(LightsweepError):
    """The configuration composes, but its parts cannot be built or run."""


class StudyError(LightsweepError):
    """A study cannot start or go on."""


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Name the valid words nearest to `name`, or all of them if none is near."""
    valid = sorted(set(valid))
    if not valid:
        return ""
    near = get_close_matches(name, valid, n=3, cutoff=0.6)
    if not near:  # neither `lr` nor `dept` is close to `optimizer.lr` or `model.depth`, yet that is what was meant
        ends = get_close_matches(_end(name), map(_end, valid), n=3, cutoff=0.75)
        near = [word for end in dict.fromkeys(ends) for word in valid if _end(word) == end][:3]
    if near:
        return f"Did you mean {' or '.join(repr(word) for word in near)}?"
    shown = ", ".join(valid[:20]) + (", ..." if len(valid) > 20 else "")
    return f"Valid names: {shown}."


def _end(name: str) -> str:
    return name.rpartition(".")[2]
