"""Translate errors of Hydra and OmegaConf into one clear message in the user's words."""

import re
from pathlib import Path

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sweeps.config.hydra_setup import group_options, hydra_compose
from sweeps.core import paths
from sweeps.core.errors import ConfigError, did_you_mean
from sweeps.core.tree import flatten

__all__ = ["RANGES", "explain", "no_such_option", "unreadable"]

RANGES = "_search_"
"""The key under which an option of a group states what to search of its own keys."""


def unreadable(error: Exception, config_dir: Path | None) -> ConfigError:
    """Name the file and the line that cannot be read."""
    where, what = _place_and_problem(error)
    folder = config_dir or paths.conf_dir()
    for path in () if where else sorted([*folder.glob("*.yaml"), *folder.glob("*/**/*.yaml")]):
        try:
            path.read_text(encoding="utf-8")
        except UnicodeDecodeError as wrong:
            line = wrong.object[: wrong.start].count(b"\n") + 1
            where, what = f"{path}, line {line}", f"it must be UTF-8, but byte {wrong.start} is not ({wrong.reason})"
            break
        except OSError:
            continue
    return ConfigError(f"{where or 'A configuration file'} cannot be read: {what}.")


def _place_and_problem(error: Exception) -> tuple[str, str]:
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        context = getattr(error, "context", None)
        problem = getattr(error, "problem", None)
        return f"{mark.name}, line {mark.line + 1}", f"not valid YAML: {': '.join(filter(None, (context, problem)))}"
    if isinstance(error, yaml.reader.ReaderError):
        return str(error.name), f"not valid YAML: {error.reason} at position {error.position}"
    return "", " ".join(str(error).split())


def explain(error: Exception, primary: str, overrides: list[str], config_dir: Path | None) -> ConfigError | Exception:
    """Find the override that is at fault, and say what is wrong with it in the user's words."""
    from hydra.errors import MissingConfigException, OverrideParseException

    cause: BaseException = error
    while cause.__cause__ is not None and not isinstance(cause, ConfigError):
        cause = cause.__cause__
    if isinstance(cause, ConfigError):
        return cause
    if isinstance(error, OverrideParseException):
        return ConfigError(
            f"{error.override!r} is not an override. Write key=value, +key=value to add a key, ~key to "
            "remove one; quote a value that holds commas or brackets, such as 'key=[1,2]'."
        )
    if isinstance(error, MissingConfigException) and error.missing_cfg_file is not None:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        if not group:
            return ConfigError(
                f"There is no primary config {option!r}. It is looked for in "
                f"{', '.join(str(folder) for folder in (config_dir, paths.conf_dir()) if folder)}."
            )
        names = [str(name).split("/")[-1] for name in error.options or group_options(group, config_dir)]
        return no_such_option(group, option, names)
    culprit = _named(str(error), overrides) or _culprit(primary, overrides, config_dir)
    first, *more = str(cause).splitlines() or [type(cause).__name__]
    text = f"{first} {more[0]}" if more and first.endswith("composing config:") else first
    if culprit is None:
        return ConfigError(str(error))
    key, _, value = culprit.partition("=")
    key = key.lstrip("+~").split("@")[0]
    if "Could not override" in str(error) or "not in struct" in str(error) or "not in '" in str(error):
        others = [override for override in overrides if override != culprit]
        valid = _keys(primary, others, config_dir)
        if key in valid:
            return ConfigError(f"{culprit}: {text}")
        return ConfigError(f"There is no key {key!r}. {did_you_mean(key, valid)}")
    kind = _expected_type(text)
    if kind:
        return ConfigError(f"{key} must be {kind}, but got {value!r}.")
    return ConfigError(f"{culprit}: {text}")


def no_such_option(group: str, option: str, names: list[str]) -> ConfigError:
    """Return the error for an option that does not exist, with the nearest one that does."""
    return ConfigError(f"{group}={option}: there is no such option. {did_you_mean(option, names)}")


def _named(message: str, overrides: list[str]) -> str | None:
    """Return the override that Hydra's message names, which saves composing to find it."""
    found = re.match(r"Could not override '([^']+)'|Error merging override ([^=]+)=", message)
    if found is None:
        return None
    key = (found[1] or found[2]).lstrip("+~")
    return next((o for o in reversed(overrides) if o.partition("=")[0].lstrip("+~").split("@")[0] == key), None)


def _culprit(primary: str, overrides: list[str], config_dir: Path | None) -> str | None:
    """Return the first override with which the command line stops composing."""
    from hydra.errors import HydraException

    for end in range(len(overrides) + 1):
        try:
            hydra_compose(primary, overrides[:end], config_dir)
        except (HydraException, OmegaConfBaseException):
            return overrides[end - 1] if end else None
    return None


def _keys(primary: str, overrides: list[str], config_dir: Path | None) -> list[str]:
    """Return the valid keys.

    Raises:
        ConfigError: Another override is wrong too, and is to be mended first.
    """
    from hydra.errors import HydraException

    try:
        tree = OmegaConf.to_container(hydra_compose(primary, overrides, config_dir))
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, primary, overrides, config_dir) from error
    assert isinstance(tree, dict)
    tree.pop("hydra")
    groups = [entry.name for entry in paths.conf_dir().iterdir() if entry.is_dir()]
    keys = flatten({str(key): value for key, value in tree.items()})
    return [*(key for key in keys if not key.startswith("search.") and f".{RANGES}." not in key), *groups]


def _expected_type(text: str) -> str:
    kinds = {
        "Integer": "an integer",
        "Float": "a number",
        "Boolean": "true or false",
        "bool": "true or false",
        "String": "a string",
    }
    for word, kind in kinds.items():
        if f"converted to {word}" in text or f"is not a valid {word.lower()}" in text:
            return kind
    return ""
