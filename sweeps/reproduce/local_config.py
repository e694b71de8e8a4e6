"""A recorded configuration as it is trained today: with today's store, and nothing that leads elsewhere by itself.

What a run is made of is the record's, and the verdict is about that. Where things lie, and what is asked over the
network, is today's: the record may be another's, or of another machine (docs/security.md).
"""

import re
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sweeps.config.composer import Config
from sweeps.config.text_keys import is_text
from sweeps.core import paths
from sweeps.core.errors import ConfigError, StoreError, UsageError, did_you_mean
from sweeps.core.safe_yaml import read_yaml
from sweeps.core.secrets import HIDDEN, is_secret
from sweeps.core.tree import flatten, replace_leaves, texts
from sweeps.core.urls import passwords_in

__all__ = ["derived", "deriving", "localize", "secrets_missing"]

_PLACES = frozenset({"root", "cache_dir", "mirrors", "download", "dirpath", "store_dir"})
_VARIABLE = re.compile(r"\$\{oc\.env:\w+(,[^${}]*)?\}")


def localize(
    recorded: Config, today: Config, *, typed: Sequence[str] = (), config_dir: Path | None = None
) -> tuple[Config, list[str]]:
    """Return a recorded config with today's store, today's values of what it does not have, and what is to be said.

    Checkpoints go to the folder of the run, decoded data to the store, and addresses are those of today's options.

    Args:
        recorded: The record, which others may have written.
        today: A composed configuration.
        typed: Keys whose values are given on the command line.
        config_dir: The user's own options.

    Raises:
        ConfigError: A callback would write outside the folders of today, or an address is asked that no option of
            today has.
    """
    config = dict(recorded)
    for part in ("trainer", "tracking", "objective"):
        config[part] = {**today[part], **recorded.get(part, {})}
    config |= {"store_dir": today["store_dir"], "allowed_modules": today["allowed_modules"]}
    config["tracking"] |= {"uri": today["tracking"]["uri"], "experiment": today["tracking"]["experiment"]}
    data = dict(recorded["data"] or {})
    option = _option_of(data.get("_target_"), config_dir)
    if data.get("cache_dir") is not None:
        data["cache_dir"] = f"{today['store_dir']}/data"
    if data.get("mirrors"):
        data["mirrors"] = option.get("mirrors", data["mirrors"])
    config |= {"data": data or None, "callbacks": _in_their_folder(recorded.get("callbacks"))}
    _require_near(config, option, typed)
    notes = [
        f"data.{key} is {value!r}, as recorded."
        for key, value in data.items()
        if key in ("root", "download") and value and value != option.get(key) and f"data.{key}" not in typed
    ]
    return config, notes


def derived(config: Config, overrides: Sequence[str]) -> Config:
    """Return a config with other values; `${oc.env:NAME}` is the value of a variable, since the user has typed it.

    Raises:
        UsageError: An override is not valid, or names no key of the config.
    """
    changed: Config = replace_leaves(config, {})
    keys = flatten(config)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise UsageError(f"{override!r} is not an override: write key=value.")
        if key not in keys:
            raise ConfigError(f"There is no key {key!r}. {did_you_mean(key, keys)}")
        *parents, last = key.split(".")
        node: Any = changed
        for parent in parents:
            node = node[_key_in(node, parent)]
        node[_key_in(node, last)] = _value(key, text)
    return changed


def _key_in(node: Any, word: str) -> Any:
    """Return the index, or the key of a mapping, that a word of a dotted key stands for."""
    if isinstance(node, list):
        return int(word)
    return word if word in node else next((key for key in node if next(iter(flatten({key: None}))) == word), word)


def deriving(overrides: Sequence[str], recorded: Config) -> list[str]:
    """Return the overrides that make another run of it: all but secrets, and where something lies.

    What is not in the record, or cannot be obeyed, has to be typed, and the content of the data is compared anyway.
    """
    keys = flatten(recorded)

    def is_else(override: str) -> bool:
        key = override.partition("=")[0]
        words = key.split(".")
        is_withheld = _is_hidden(keys.get(key)) and any(map(is_secret, words))
        return is_withheld or words[-1] in _PLACES or any(map(_leads_out, texts(keys.get(key))))

    return [override for override in overrides if not is_else(override)]


def secrets_missing(config: Config) -> list[str]:
    """Return the keys that have `***` in the place of what the record does not hold."""
    return [key for key, value in flatten(config).items() if _is_hidden(value) and not key.startswith("tracking.")]


def _value(key: str, text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{key}: {text!r} is not a value: {' '.join(str(error).split())[:100]}.") from error
    if isinstance(value, date) or (is_text(key) and value is not None):
        value = value if isinstance(value, str) else text  # 2024-11-30 and 1e3 are text there
    if not isinstance(value, str) or not _VARIABLE.fullmatch(value):
        return value
    try:
        return OmegaConf.to_container(OmegaConf.create({"value": value}), resolve=True)["value"]  # type: ignore
    except OmegaConfBaseException as error:
        raise ConfigError(f"{key} cannot be resolved: {str(error.__cause__ or error).splitlines()[0]}") from error


def _is_hidden(value: Any) -> bool:
    return any(text == HIDDEN or any(HIDDEN in secret for secret in passwords_in(text)) for text in texts(value))


def _option_of(target: Any, config_dir: Path | None) -> Mapping[str, Any]:
    """Return today's option for the data of a record: the shipped one, or the user's own."""
    for folder in (paths.conf_dir(), config_dir):
        for file in sorted((folder / "data").glob("*.yaml")) if folder is not None else ():
            try:
                option = read_yaml(file)
            except (OSError, StoreError):  # one that nobody has chosen here
                continue
            if isinstance(option, Mapping) and target is not None and option.get("_target_") == target:
                return option
    return {}


def _in_their_folder(callbacks: Any) -> Any:
    """Return callbacks that keep their checkpoints where the run's are by default."""
    if not isinstance(callbacks, Mapping):
        return callbacks
    return {
        name: {**node, "dirpath": None}
        if isinstance(node, Mapping) and str(node.get("_target_")).endswith(".ModelCheckpoint") and "dirpath" in node
        else node
        for name, node in callbacks.items()
    }


def _require_near(config: Config, option: Mapping[str, Any], typed: Sequence[str]) -> None:
    for key, value in flatten({part: of for part, of in config.items() if part != "tracking"}).items():
        if key in typed or (key.startswith("data.") and value == option.get(key.partition(".")[2])):
            continue
        part = key.partition(".")[0]
        for text in texts(value):
            if "://" in text:
                raise ConfigError(
                    f"{key} of the record is an address, {text!r}, which no option of today has: it is not asked. If "
                    f"you trust it, type it after --: {key}=..."
                )
            if part in ("callbacks", "trainer") and _leads_out(text):
                raise ConfigError(
                    f"{key} of the record leads elsewhere, to {text!r}: what is written is written below the store. If "
                    f"it is as it should be, type it after --: {key}=..."
                )


def _leads_out(text: str) -> bool:
    return "://" in text or text.startswith(("/", "~")) or ".." in PurePosixPath(text).parts
