"""A grid for asking and telling, and for spaces with conditions; and brute force in a study that was moved."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers._brute_force import _TreeNode
from optuna.trial import FrozenTrial, TrialState

from sweeps.core.errors import StudyError

__all__ = ["BruteForce", "Grid"]


class Grid(optuna.samplers.BaseSampler):
    """Each point once, in an order shuffled by the seed.

    Optuna's own grid knows products only, picks a point that runs already once all have been started, and
    cannot complete a trial of which some values were enqueued.
    """

    def __init__(self, points: Sequence[Mapping[str, Any]], seed: int | None = None) -> None:
        """Take the points by Optuna's names, with what Optuna stores."""
        order = np.random.RandomState(seed or 0).permutation(len(points))
        self._points = [points[index] for index in order]
        self._found: dict[int, int | None] = {}  # by trial: the point that it tried without being assigned one

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Assign the first point that no trial has, unless the trial brings its own."""
        if "grid_id" in trial.system_attrs or "fixed_params" in trial.system_attrs or trial.params:
            return
        free = set(range(len(self._points))) - self._started(study)
        if not free:
            raise StudyError(f"All {len(self._points)} points of the grid have been tried. Widen the search space.")
        study._storage.set_trial_system_attr(trial._trial_id, "grid_id", min(free))

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return nothing: a point's values are looked up one by one."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return nothing, as `infer_relative_search_space` does."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the value of the trial's point, or of the first point that has all values known so far."""
        if "grid_id" in trial.system_attrs:
            return self._points[trial.system_attrs["grid_id"]][param_name]
        known = {**trial.system_attrs.get("fixed_params", {}), **trial.params}.items()
        fitting = [point for point in self._points if param_name in point]
        return next((point for point in fitting if known <= point.items()), fitting[0])[param_name]

    def is_done(self, study: optuna.Study) -> bool:
        """Return whether every point has been started."""
        return len(self._started(study)) >= len(self._points)

    def _started(self, study: optuna.Study) -> set[int]:
        """Return the points that a trial has or had, whatever became of it."""
        trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
        assigned = {trial.system_attrs["grid_id"] for trial in trials if "grid_id" in trial.system_attrs}
        self._find([trial for trial in trials if trial.params and "grid_id" not in trial.system_attrs])
        return assigned | {index for index in self._found.values() if index is not None}

    def _find(self, trials: Sequence[FrozenTrial]) -> None:
        """Look the points of trials up that were enqueued, or taken over from another study or space."""
        new = [t for t in trials if t.number not in self._found and t.state != TrialState.RUNNING]
        wanted = {frozenset(trial.params.items()): trial.number for trial in new}
        self._found |= dict.fromkeys((trial.number for trial in new if trial.state.is_finished()), None)
        for index, point in enumerate(self._points) if wanted else ():
            number = wanted.get(frozenset(point.items()))
            if number is not None:
                self._found[number] = index


class BruteForce(optuna.samplers.BruteForceSampler):
    """Optuna's, which cannot read a trial that has ended without values: one that was dropped from its study.

    Nor does it know of a study that goes on whether all has been tried, before one trial more has ended.
    """

    def is_done(self, study: optuna.Study) -> bool:
        """Return whether every point has been started."""
        trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
        tree = _TreeNode()
        self._populate_tree(tree, [trial for trial in trials if trial.state != TrialState.WAITING], {})
        return not tree.is_any_expandable(True)

    @staticmethod
    def _populate_tree(tree: Any, trials: Iterable[FrozenTrial], params: dict[str, Any]) -> None:
        known = [trial for trial in trials if trial.params or not trial.state.is_finished()]
        optuna.samplers.BruteForceSampler._populate_tree(tree, known, params)
