"""Build samplers and pruners from their config nodes.

`Grid` is Lightsweep's own grid sampler; `propose` never proposes a forbidden combination, whatever the sampler.
"""

import inspect
import itertools
import warnings
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweeps.config.instantiate import build
from sweeps.core.errors import ConfigError, SpaceError, StudyError
from sweeps.search.optuna_private import FIXED_PARAMS, BruteForce, CmaEs, restart_trial, set_system_attr
from sweeps.search.space.space import Space

__all__ = [
    "ENUMERATING",
    "AskTellStudy",
    "Grid",
    "build_pruner",
    "build_sampler",
    "propose",
    "seed_of",
]

ENUMERATING = ("optuna.samplers.GridSampler", "optuna.samplers.BruteForceSampler")
"""Samplers that enumerate all points, so that every parameter must be countable."""

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
        space: The search space, which a grid needs.
        allowed_prefixes: The user's modules that `_target_` may also name.
        num_objectives: How many objectives it is to optimise.

    Raises:
        ConfigError: The target or an option does not exist or has the wrong type, or it cannot do several objectives.
        SpaceError: A grid has a continuous parameter.
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
    """Return the seed in a sampler's config node, or the default if it has none."""
    seed: int | None = sampler.get("seed", default)
    return seed


def _build_own(config: Mapping[str, Any], kind: type[BaseSampler], **more: Any) -> BaseSampler:
    """Build Lightsweep's replacement of the Optuna sampler that the node names."""
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
    """Make CMA-ES, also inside another sampler, load no code from the study's storage."""
    if type(sampler) is optuna.samplers.CmaEsSampler:
        sampler.__class__ = CmaEs
    for inner in list(vars(sampler).values()) if isinstance(sampler, BaseSampler) else ():
        _read_as_data(inner)


def _require_many(sampler: BaseSampler, key: str) -> None:
    """Reject samplers, also inside another one, that would fail at the first trial of several objectives."""
    if isinstance(sampler, optuna.samplers.CmaEsSampler):
        raise ConfigError(
            f"{key}: CMA-ES takes one objective, but study.metric names several. Choose another sampler, such as "
            "sampler=nsgaii or sampler=tpe, or one metric."
        )
    for name, inner in vars(sampler).items():
        if isinstance(inner, BaseSampler):
            _require_many(inner, f"{key}.{name.lstrip('_')}")


def _check_types(built: object, config: Mapping[str, Any], key: str) -> None:
    """Check options by the types of their defaults, since Optuna does not check them itself.

    Otherwise `n_startup_trials="8"` would fail in the middle of the study.
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


class Grid(optuna.samplers.BaseSampler):
    """Proposes each point once, in an order shuffled by the seed.

    Optuna's own grid supports only products, repeats a running point once all have been started, and cannot complete
    a trial of which some values were enqueued.
    """

    def __init__(self, points: Sequence[Mapping[str, Any]], seed: int | None = None) -> None:
        """Shuffle the points, which have Optuna's names and stored values."""
        order = np.random.RandomState(seed or 0).permutation(len(points))
        self._points = [points[index] for index in order]
        self._found: dict[
            int, int | None
        ] = {}  # by trial: the point it happens to have tried, if none was assigned to it

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Assign the first point that no trial has, unless the trial has values already."""
        if "grid_id" in trial.system_attrs or FIXED_PARAMS in trial.system_attrs or trial.params:
            return
        free = set(range(len(self._points))) - self._started(study)
        if not free:
            raise StudyError(f"All {len(self._points)} points of the grid have been tried. Widen the search space.")
        set_system_attr(study, trial, "grid_id", min(free))

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return nothing: the values of a point are looked up one by one."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return nothing, as `infer_relative_search_space` does."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the value of the trial's point, or of the first point that has the values the trial already has."""
        if "grid_id" in trial.system_attrs:
            return self._points[trial.system_attrs["grid_id"]][param_name]
        known = {**trial.system_attrs.get(FIXED_PARAMS, {}), **trial.params}.items()
        fitting = [point for point in self._points if param_name in point]
        return next((point for point in fitting if known <= point.items()), fitting[0])[param_name]

    def is_done(self, study: optuna.Study) -> bool:
        """Return whether every point has been started."""
        return len(self._started(study)) >= len(self._points)

    def _started(self, study: optuna.Study) -> set[int]:
        """Return the points of all trials, whatever their states."""
        trials = study.get_trials(deepcopy=False)
        assigned = {trial.system_attrs["grid_id"] for trial in trials if "grid_id" in trial.system_attrs}
        self._find([trial for trial in trials if trial.params and "grid_id" not in trial.system_attrs])
        return assigned | {index for index in self._found.values() if index is not None}

    def _find(self, trials: Sequence[FrozenTrial]) -> None:
        """Find the points of trials that were enqueued, or imported from another study or space."""
        new = [t for t in trials if t.number not in self._found and t.state != TrialState.RUNNING]
        wanted = {frozenset(trial.params.items()): trial.number for trial in new}
        self._found |= dict.fromkeys((trial.number for trial in new if trial.state.is_finished()), None)
        for index, point in enumerate(self._points) if wanted else ():
            number = wanted.get(frozenset(point.items()))
            if number is not None:
                self._found[number] = index


class AskTellStudy(optuna.Study):
    """An Optuna study whose samplers may call `stop` although no `optimize` loop is running.

    With several objectives, `direction` is that of the reported metric: TPE ranks pruned trials by it.
    """

    is_stopped = False
    only_direction: StudyDirection

    @property
    def direction(self) -> StudyDirection:
        """The direction of the only objective, or of the reported metric if there are several."""
        return self.only_direction

    def stop(self) -> None:
        """Note that the sampler has nothing left to propose."""
        self.is_stopped = True


_MAX_PROPOSALS = 5  # by the study's sampler; some samplers propose the same point again
_MAX_DRAWS = 1000  # random ones after that


def propose(study: optuna.Study, space: Space, seed: int | None) -> optuna.Trial:
    """Begin a trial and let the sampler choose all values.

    Optuna does not support forbidden combinations. So the sampler is asked a few times for the same trial; then values
    are drawn at random, from the seed and the trial's number.

    Args:
        study: A study in an `InMemoryStorage`, in which a trial can be restarted.
        space: The search space.
        seed: The seed of the study.

    Raises:
        StudyError: No valid combination was found.
    """
    trial = study.ask()
    if not space.forbids(space.suggest(trial)):
        return trial
    sampler = study.sampler
    try:
        for attempt in range(_MAX_PROPOSALS + _MAX_DRAWS):
            if attempt == _MAX_PROPOSALS:
                source = None if seed is None else zlib.crc32(f"{seed}/{trial.number}/allowed".encode())
                study.sampler = optuna.samplers.RandomSampler(seed=source)
            trial = restart_trial(study, trial, keeps_fixed=attempt < _MAX_PROPOSALS)
            if not space.forbids(space.suggest(trial)):
                return trial
    finally:
        study.sampler = sampler
    raise StudyError(
        f"Study {study.study_name!r}: all of {_MAX_DRAWS} random combinations are forbidden. Forbid less, or state the "
        f"space so that what is forbidden is not in it: by fewer values, or by conditions (when)."
    )
