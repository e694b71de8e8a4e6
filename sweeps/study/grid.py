"""Optuna's grid for asking and telling."""

import optuna
from optuna.trial import FrozenTrial

from sweeps.errors import StudyError

__all__ = ["Grid"]


class Grid(optuna.samplers.GridSampler):
    """Each point once, in the order of the shuffled grid.

    The base class picks a point that runs already once all have been started.
    """

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Assign the first point that no trial has, unless the trial brings its own."""
        if "grid_id" in trial.system_attrs or "fixed_params" in trial.system_attrs:
            return
        free = set(range(self._n_min_trials)) - self._started(study)
        if not free:
            raise StudyError(f"All {self._n_min_trials} points of the grid have been tried. Widen the search space.")
        study._storage.set_trial_system_attr(trial._trial_id, "search_space", self._search_space)
        study._storage.set_trial_system_attr(trial._trial_id, "grid_id", min(free))

    def is_done(self, study: optuna.Study) -> bool:
        """Return whether every point has been started."""
        return len(self._started(study)) >= self._n_min_trials

    def _started(self, study: optuna.Study) -> set[int]:
        """Return the points that a trial has or had, whatever became of it."""
        trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
        return {trial.system_attrs["grid_id"] for trial in trials if "grid_id" in trial.system_attrs}
