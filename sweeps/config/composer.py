"""Compose configurations, check them, freeze them to data and build objects from that data.

Hydra composes a command line once. The configuration of a trial is that tree with the trial's values set; only a
different option of a group is composed again (tens of milliseconds), and cached.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from omegaconf import Container, DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from sweeps.config import schema
from sweeps.config.hydra_errors import RANGES, explain, no_such_option, unreadable
from sweeps.config.hydra_setup import group_options, hydra_compose
from sweeps.config.instantiate import ALLOWED_MODULES
from sweeps.config.parts import PARTS, PartsTaken
from sweeps.config.text_keys import as_typed
from sweeps.core import paths
from sweeps.core.errors import ConfigError, StoreError
from sweeps.core.safe_yaml import read_yaml
from sweeps.core.secrets import Hidden, Secrets, withhold
from sweeps.core.tree import flatten

__all__ = [
    "ALLOWED_MODULES",
    "RANGES",
    "Composer",
    "fingerprint",
    "freeze",
    "load_frozen",
    "to_yaml",
]


Config = dict[str, Any]


class Composer:
    """Composes the configurations of one command line: the base, and each trial's.

    Args:
        primary: `train` or `sweep`, or the name of a primary config of the user's.
        overrides: Hydra overrides without sweep expressions.
        config_dir: A folder with options of the user's; modules in it may be named by `_target_`.

    Raises:
        ConfigError: A key, an option or a value is wrong; names the dotted key and the nearest valid one.
    """

    def __init__(self, primary: str, overrides: Sequence[str] = (), config_dir: Path | None = None) -> None:
        if config_dir is not None and not config_dir.is_dir():
            raise ConfigError(f"--config-dir: {str(config_dir)!r} is not a directory.")
        self.primary = primary
        self.overrides = list(map(as_typed, overrides))
        self.config_dir = config_dir.resolve() if config_dir else None
        self._trees: dict[tuple[tuple[str, ...], tuple[str, ...]], DictConfig] = {}
        self._composed: dict[tuple[str, ...], dict[str, Any]] = {}
        self._of_hydra: dict[tuple[str, ...], DictConfig] = {}
        self._options: dict[str, list[str]] = {}
        self._hidden: dict[str, Hidden] = {}
        self.parts = PartsTaken()
        """Which of system, optimizer and scheduler each model takes, once `inspecting` has asked."""
        self.secrets = Secrets()
        """What is secret in the environment, and in what has been composed so far."""
        self.tree = self.compose([])
        """The composed base, with interpolations."""
        self._require_options("search")

    def compose(self, further: Sequence[str]) -> DictConfig:
        """Compose the command line with `further` overrides through Hydra."""
        return _compose(self.primary, [*self.overrides, *map(as_typed, further)], self.config_dir)

    @property
    def choices(self) -> dict[str, str]:
        """The chosen option of each group."""
        return dict(self.tree.hydra.runtime.choices)

    @property
    def data_and_model(self) -> list[str]:
        """The chosen options of the two that name a run; of the model alone, where it has loaders of its own."""
        choices = self.choices
        return [str(choices[group]) for group in ("data", "model") if choices.get(group) is not None]

    def is_group(self, key: str) -> bool:
        """Tell whether `key` names a config group rather than a value."""
        return "." not in key and bool(self.options(key))

    def options(self, group: str) -> list[str]:
        """List the options of a group, the user's own included; empty when there is no such group."""
        if group not in self._options:
            self._options[group] = group_options(group, self.config_dir)
        return self._options[group]

    @property
    def allowed_modules(self) -> tuple[str, ...]:
        """The modules that a `_target_` of this command line may name."""
        own = [] if self.config_dir is None else list(_modules_in(self.config_dir))
        return (*ALLOWED_MODULES, *self._resolved(())["allowed_modules"], *own)

    def value(self, key: str) -> Any:
        """Return the chosen option of a group, or the value of a dotted key.

        Raises:
            KeyError: There is no such key; its further arguments are the keys and groups that there are.
        """
        choices = self.choices
        if key in choices:
            return choices[key]
        values = flatten(self.base())
        if key not in values:
            groups = (group for group in choices if not group.startswith("hydra/"))
            raise KeyError(key, *(name for name in values if not name.startswith("search.")), *groups)
        return values[key]

    def ranges(self, group: str, option: str | None = None) -> dict[str, Any]:
        """Return the sweep expressions that an option states for its own keys, by default the chosen option."""
        node = self._data_for(() if option is None else (f"{group}={option}",)).get(group)
        return dict(node.get(RANGES) or {}) if isinstance(node, Mapping) else {}

    def base(self) -> Config:
        """Return the resolved base as plain data, without Hydra's own node."""
        base = self._resolved(())
        withhold(base, self.secrets)
        return base

    def shown(self, *, resolves: bool) -> Config:
        """Return the base as it may be printed, with its interpolations or resolved; what has no value is `???`."""
        if resolves:
            shown = self._resolved((), throw_on_missing=False)
        else:
            shown = {key: value for key, value in _plain(self.tree).items() if key != "hydra"}
        return withhold(shown, self.secrets)[0]

    def trial(self, values: Mapping[str, Any], seed: int) -> Config:
        """Return the resolved configuration of one run: the base with `values` set, and what is secret hidden.

        Parts that the model does not take are null.

        Args:
            values: Dotted key to value; a config group's name to the name of an option.
            seed: The seed of the run, unless `values` sets one.
        """
        choices = tuple(f"{key}={value}" for key, value in values.items() if self.is_group(key))
        plain = {key: value for key, value in {"seed": seed, **values}.items() if not self.is_group(key)}
        tree = self._tree_for(choices, tuple(plain))
        for key, value in plain.items():
            _set(tree, key, value)
        resolved = self._resolved(choices, tuple(plain))
        config, hidden = withhold({key: resolved[key] for key in _RUN_KEYS if key in resolved}, self.secrets)
        if hidden:  # a rank gets what its parts may need; stores are the driver's to open
            self._hidden[fingerprint(config)] = tuple(one for one in hidden if one[0][0] != "tracking")
        return config

    def hidden(self, config: Config) -> Hidden:
        """Return what `trial` has hidden in a configuration."""
        return self._hidden.get(fingerprint(config), ()) if self._hidden else ()

    def check_values(self, overrides: Sequence[str]) -> None:
        """Compose values of a search once, so that a wrong key or type is refused before any trial."""
        self.compose(overrides)

    def _require_options(self, group: str) -> None:
        """Refuse an option that is typed for an optional group and does not exist: Hydra would leave it out."""
        from hydra.core.override_parser.overrides_parser import OverridesParser

        for override in OverridesParser.create().parse_overrides(self.overrides):
            if override.key_or_group != group or override.is_delete():
                continue
            typed = override.value()
            for option in typed if isinstance(typed, list) else [typed]:
                folder, _, name = str(option).rpartition("/")
                names = self.options(f"{group}/{folder}" if folder else group)
                if option is not None and name not in names:
                    raise no_such_option(group, str(option), names)

    def _tree_for(self, choices: tuple[str, ...], keys: tuple[str, ...]) -> DictConfig:
        """Return the tree of these choices, for trials that set these keys; making one takes 5 ms.

        Trials that set the same keys share a tree: each overwrites all that the one before has set.
        """
        if (choices, keys) not in self._trees:
            data = {key: _without_ranges(value) for key, value in self._data_for(choices).items()}
            tree = self._trees[choices, keys] = OmegaConf.create(data)
            if ((), ()) in self._trees:  # the time that `${now:}` gave at first is that of all trials
                OmegaConf.copy_cache(self._trees[(), ()], tree)
        return self._trees[choices, keys]

    def _resolved(self, choices: tuple[str, ...], keys: tuple[str, ...] = (), **how: bool) -> Config:
        """Resolve a tree; `${hydra:...}` finds what Hydra says of these choices."""
        from hydra.core.hydra_config import HydraConfig

        tree = self._tree_for(choices, keys)
        holder: Any = HydraConfig.instance()
        before, holder.cfg = holder.cfg, self._of_hydra[choices]
        try:
            resolved = self._without_spare_parts(tree, **how)
        finally:
            holder.cfg = before
        for key, value in flatten(resolved).items():
            if not all(item is None or isinstance(item, _KINDS) for item in _items(value)):
                raise ConfigError(
                    f"{key} must be text, a number, true, false, null, or a list or mapping of these, but is "
                    f"{value!r}: the record of a run holds nothing else."
                )
        return resolved

    def _without_spare_parts(self, tree: DictConfig, **how: bool) -> Config:
        """Resolve a tree; what its model does not take is null, and need not be possible to resolve.

        Raises:
            ConfigError: Something that is needed has no value.
        """
        unneeded: dict[str, Any] = {}
        try:
            resolved = _resolve(tree, **how)
            taken = self.parts.of(resolved.get("model"))
        except ConfigError as error:
            taken = self.parts.of(_or_none(tree, "model"))
            spare = [name for name in PARTS if name in tree and (taken is None or name not in taken)]
            unneeded = {name: None for name in spare if taken is not None or _or_none(tree, name) is None}
            if not unneeded and str(error).startswith("system"):
                raise ConfigError(f"{error}. It is needed: the model is a net, which system trains.") from error
            if not unneeded:
                raise
            resolved = {str(key): None if key in unneeded else _resolve_value(tree, str(key), **how) for key in tree}
        if taken is not None:
            unneeded |= {name: None for name in PARTS if name in resolved and name not in taken}
        return resolved | unneeded

    def _data_for(self, choices: tuple[str, ...]) -> dict[str, Any]:
        """Return the composed tree of these choices as plain data with interpolations."""
        if choices not in self._composed:
            tree = self.compose(choices) if choices else self.tree
            self._composed[choices] = {key: value for key, value in _plain(tree).items() if key != "hydra"}
            for group in ("data", "model", "system", "optimizer", "scheduler"):
                if isinstance(self._composed[choices].get(group), list):
                    raise ConfigError(f"{group}={self.choices.get(group)}: it must be a mapping, but is a list.")
            of_hydra = self._of_hydra[choices] = OmegaConf.masked_copy(tree, "hydra")
            of_hydra.hydra._set_parent(tree)  # its own interpolations may name what is outside of it
        return self._composed[choices]


def _plain(tree: DictConfig) -> Config:
    data = OmegaConf.to_container(tree)
    assert isinstance(data, dict)
    return {str(key): value for key, value in data.items()}


def _without_ranges(node: Any) -> Any:
    return {key: value for key, value in node.items() if key != RANGES} if isinstance(node, Mapping) else node


_RUN_KEYS = tuple(field.name for field in fields(schema.RunConfig))


def _compose(primary: str, overrides: list[str], config_dir: Path | None) -> DictConfig:
    from hydra.errors import HydraException

    try:
        return hydra_compose(primary, overrides, config_dir)
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, primary, overrides, config_dir) from error
    except (yaml.YAMLError, ValueError) as error:
        raise unreadable(error, config_dir) from error


def _modules_in(folder: Path) -> Iterator[str]:
    for entry in sorted(folder.iterdir()):
        if entry.suffix == ".py" and entry.stem.isidentifier():
            yield entry.stem
        elif (entry / "__init__.py").is_file():
            yield entry.name


# --- configurations as data ----------------------------------------------------------------------------


def _set(tree: DictConfig, dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    node = tree
    for parent in parents:
        node = node[parent]
    node[last] = value


def _resolve(tree: DictConfig, *, throw_on_missing: bool = True) -> Config:
    resolved = _resolved_data(lambda: tree, throw_on_missing=throw_on_missing)
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def _resolve_value(tree: DictConfig, key: str, *, throw_on_missing: bool = True) -> Any:
    """Resolve what a tree has at a key; it may refer to all of the tree."""
    return _resolved_data(lambda: tree[key], throw_on_missing=throw_on_missing)


def _or_none(tree: DictConfig, key: str) -> Any:
    try:
        return _resolve_value(tree, key)
    except ConfigError:
        return None


def _resolved_data(get: Callable[[], Any], *, throw_on_missing: bool) -> Any:
    try:
        found = get()
        if isinstance(found, Container):
            found = OmegaConf.to_container(found, resolve=True, throw_on_missing=throw_on_missing)
    except MissingMandatoryValue as error:
        raise ConfigError(f"{error.full_key} has no value: give it one, {error.full_key}=VALUE.") from error
    except OmegaConfBaseException as error:
        if isinstance(error.__cause__, ConfigError):
            raise error.__cause__ from error
        cause = (str(error.__cause__ or error) or type(error).__name__).splitlines()[0]
        cause = cause.removeprefix("ConfigError raised while resolving interpolation: ")
        raise ConfigError(f"{error.full_key or 'The configuration'} cannot be resolved: {cause}") from error
    return found


_KINDS = (str, int, float)  # and so true and false


def _items(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from _items(item)
    elif not isinstance(value, Mapping) or value:
        yield value


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Writes what stands in two places twice: a record with aliases is not read, see `safe_yaml`."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def to_yaml(tree: Any) -> str:
    """Write plain data as YAML, in the order of its keys."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def freeze(config: Config, folder: Path) -> Path:
    """Write the config that every rank of the trial reads, and return its path.

    Raises:
        StoreError: The folder is a link.
    """
    paths.require_no_link(folder)
    path = folder / paths.CONFIG
    paths.write_text(path, to_yaml(config))
    return path


def load_frozen(folder: Path) -> Config:
    """Read a frozen config as data: nothing in it is executed or interpolated.

    It is the one that the driver wrote for a trial of its own; `safe_yaml.read_config` reads one of anybody's.

    Raises:
        StoreError: It is no mapping of plain data.
    """
    tree = read_yaml(folder / paths.CONFIG)
    if not isinstance(tree, dict):
        raise StoreError(f"{folder / paths.CONFIG} must hold a mapping, but holds a {type(tree).__name__}.")
    return tree


def fingerprint(config: Config) -> str:
    """Return the SHA-256 of a config's content, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(_sortable(config), sort_keys=True).encode()).hexdigest()


def _sortable(node: Any) -> Any:
    """Return data of which JSON can sort the keys, and in which keys that differ stay different.

    A mapping of words, or of whole numbers, is as it always was: interrupted trials are known by their fingerprints.
    """
    if isinstance(node, Mapping):
        kinds = {type(key) for key in node}
        if len(kinds) > 1 or not kinds <= {str, int}:
            return {f"{type(key).__name__} {key}": _sortable(value) for key, value in node.items()}
        return {key: _sortable(value) for key, value in node.items()}
    return list(map(_sortable, node)) if isinstance(node, list | tuple) else node
