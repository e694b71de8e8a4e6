"""Build samplers and pruners from their config nodes."""

import inspect
import itertools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from sweeps.config.composer import build
from sweeps.core.errors import ConfigError, SpaceError
from sweeps.space import Space
from sweeps.study.cmaes import CmaEs
from sweeps.study.grid import BruteForce, Grid

__all__ = ["ENUMERATING", "build_pruner", "build_sampler", "seed_of"]

ENUMERATING = ("optuna.samplers.GridSampler", "optuna.samplers.BruteForceSampler")
"""Samplers that go through all values, so that they need values that can be counted."""

_MAX_GRID_POINTS = 1_000_000


def build_sampler(
    config: Mapping[str, Any],
    space: Space | None = None,
    allowed_prefixes: Sequence[str] = (),
    *,
    num_objectives: int = 1,
) -> BaseSampler:
    """Build a sampler from its config node, `{_target_: optuna.samplers.TPESampler, seed: 1}`.

    Args:
        config: The node; nested nodes with a `_target_` are built first.
        space: The search space; a grid needs it.
        allowed_prefixes: Modules of the user's own from which `_target_` may come as well.
        num_objectives: What it is to optimise.

    Raises:
        ConfigError: The target or an option does not exist or has the wrong type, or it cannot do several objectives.
        SpaceError: A grid over a continuous parameter.
    """
    if config.get("_target_") == "optuna.samplers.BruteForceSampler":
        if space is not None:
            space.grid()
            if space.forbidden:
                raise SpaceError(
                    "sampler=brute_force does not end where combinations are forbidden: take sampler=grid."
                )
        return _build_own(config, BruteForce)
    if config.get("_target_") != "optuna.samplers.GridSampler":
        sampler: BaseSampler = _build(config, "sampler", BaseSampler, ("optuna.samplers", *allowed_prefixes))
        if num_objectives > 1:
            _require_many(sampler, "sampler")
        return sampler
    for key in {"search_space", "points"} & config.keys():
        raise ConfigError(f"sampler.{key}: the grid is the study's search space; delete this key.")
    if space is None:
        raise ConfigError("sampler: a grid needs a search space. Name one with search=NAME.")
    points = list(itertools.islice(space.stored_points(), _MAX_GRID_POINTS + 1))
    if len(points) > _MAX_GRID_POINTS:
        raise SpaceError(
            f"The grid has more than {_MAX_GRID_POINTS:,} points, which is the most that is possible. Take fewer "
            f"values, or sampler=random."
        )
    return _build_own(config, Grid, points=points)


def build_pruner(config: Mapping[str, Any], allowed_prefixes: Sequence[str] = ()) -> BasePruner:
    """Build a pruner from its config node, `{_target_: optuna.pruners.MedianPruner}`.

    Raises:
        ConfigError: The target or an option does not exist or has the wrong type.
    """
    pruner: BasePruner = _build(config, "pruner", BasePruner, ("optuna.pruners", *allowed_prefixes))
    return pruner


def seed_of(sampler: Mapping[str, Any], default: int) -> int | None:
    """Return the seed that a sampler's config node names; one without that option takes the default."""
    seed: int | None = sampler.get("seed", default)
    return seed


def _build_own(config: Mapping[str, Any], kind: type[BaseSampler], **more: Any) -> BaseSampler:
    """Build a sampler of ours in place of Optuna's that the node names."""
    node = {**config, "_target_": f"{kind.__module__}.{kind.__name__}"}
    built: BaseSampler = _build(node, "sampler", kind, (kind.__module__,), **more)
    return built


def _build(config: Mapping[str, Any], key: str, base: type, allowed: Sequence[str], **more: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        found = build(dict(config), key=key, allowed=allowed, **more)
    if not isinstance(found, base):
        raise ConfigError(f"{key}._target_: {config['_target_']!r} is no {key} of Optuna's.")
    _check_types(found, config, key)
    _read_as_data(found)
    return found


def _read_as_data(sampler: object) -> None:
    """Let CMA-ES, inside another sampler as well, take no code from the study's storage."""
    if type(sampler) is optuna.samplers.CmaEsSampler:
        sampler.__class__ = CmaEs
    for inner in list(vars(sampler).values()) if isinstance(sampler, BaseSampler) else ():
        _read_as_data(inner)


def _require_many(sampler: BaseSampler, key: str) -> None:
    """Refuse what raises at the first trial of several objectives, inside another sampler as well."""
    if isinstance(sampler, optuna.samplers.CmaEsSampler):
        raise ConfigError(
            f"{key}: CMA-ES takes one objective, but study.metric names several. Choose another sampler, such as "
            "sampler=nsgaii or sampler=tpe, or one metric."
        )
    for name, inner in vars(sampler).items():
        if isinstance(inner, BaseSampler):
            _require_many(inner, f"{key}.{name.lstrip('_')}")


def _check_types(built: object, config: Mapping[str, Any], key: str) -> None:
    """Check the options by the types of their defaults: many annotations of Optuna's exist for type checkers only.

    Otherwise `n_startup_trials="8"` is found in the middle of the study.
    """
    parameters = inspect.signature(type(built)).parameters
    for option in config.keys() & parameters.keys():
        value, default = config[option], parameters[option].default
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if isinstance(default, bool):
            wanted = "" if isinstance(value, bool) else "true or false"
        elif isinstance(default, int):
            wanted = "" if is_number and float(value).is_integer() else "a whole number"
        elif isinstance(default, float):
            wanted = "" if is_number else "a number"
        else:
            wanted = ""
        if wanted:
            raise ConfigError(f"{key}.{option} must be {wanted} (by default {default}), but got {value!r}.")
