"""Every private part of Optuna that Lightsweep relies on, so that an Optuna upgrade is checked against one module.

Each function and class documents what it relies on. `tests/test_architecture.py` asserts that no other module names a
private part of Optuna. Written for Optuna 5.0.
"""

import copy
import io
import logging
import pickle
import sys
import zlib
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.pruners import BasePruner, HyperbandPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, CmaEsSampler
from optuna.samplers._brute_force import _TreeNode
from optuna.samplers._lazy_random_state import LazyRandomState
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.study._constrained_optimization import _is_constrained_optimization
from optuna.study._multi_objective import _get_pareto_front_trials_by_trials
from optuna.trial import FrozenTrial, TrialState

from sweeps.core.errors import StoreError

__all__ = [
    "CONSTRAINT",
    "CONSTRAINTS",
    "FIXED_PARAMS",
    "METRIC_NAMES",
    "RUNG",
    "STUDIES",
    "SYSTEM_ATTRS",
    "TABLES_OF_TRIALS",
    "TRIALS",
    "TRIAL_PARAMS",
    "TRIAL_REPORTS",
    "TRIAL_VALUES",
    "USER_ATTRS",
    "BruteForce",
    "CmaEs",
    "ReportedOnly",
    "bracket_of",
    "halving_pruner_of",
    "id_of",
    "load_optimizer",
    "option_of",
    "pareto_front",
    "ped_anova",
    "report_columns",
    "reseed",
    "restart_trial",
    "set_system_attr",
    "study_ids",
    "suspend_trial",
    "value_columns",
]

_log = logging.getLogger(__name__)

# --- keys of Optuna's attributes ---

METRIC_NAMES = "study:metric_names"
"""system attribute of a study: the names of its objectives, which Optuna's plots show"""
FIXED_PARAMS = "fixed_params"
"""system attribute of a trial: the values that were enqueued for it"""
CONSTRAINTS = "constraints"
"""prefix of a trial's system attributes: all that Optuna knows of its constraints, in the format of any version"""
CONSTRAINT = f"{CONSTRAINTS}:"
"""prefix of a trial's system attributes: the violation of one constraint, as `Trial.set_constraint` stores it"""
RUNG = "completed_rung_"
"""prefix of a trial's system attributes: its value at a rung of successive halving"""

# --- tables of Optuna's SQL storage: `optuna.storages._rdb.models` ---

STUDIES: sa.Table = models.StudyModel.__table__
TRIALS: sa.Table = models.TrialModel.__table__
TRIAL_PARAMS: sa.Table = models.TrialParamModel.__table__
TRIAL_REPORTS: sa.Table = models.TrialIntermediateValueModel.__table__
TRIAL_VALUES: sa.Table = models.TrialValueModel.__table__
USER_ATTRS: sa.Table = models.TrialUserAttributeModel.__table__
SYSTEM_ATTRS: sa.Table = models.TrialSystemAttributeModel.__table__

TABLES_OF_TRIALS = (TRIAL_PARAMS, USER_ATTRS, SYSTEM_ATTRS, TRIAL_REPORTS, TRIAL_VALUES)
"""The tables whose rows belong to a trial, by its `trial_id`."""


def report_columns(value: float) -> dict[str, Any]:
    """Return the columns of an intermediate value; infinities and NaN have separate kinds."""
    stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
    return {"intermediate_value": stored, "intermediate_value_type": kind}


def value_columns(value: float) -> dict[str, Any]:
    """Return the columns of an objective; infinities have separate kinds."""
    stored, kind = models.TrialValueModel.value_to_stored_repr(value)
    return {"value": stored, "value_type": kind}


# --- ids and attributes ---


def id_of(trial: FrozenTrial | optuna.Trial) -> int:
    """Return a trial's id in its storage (`_trial_id`), which differs from its number."""
    return trial._trial_id


def study_ids(storage: RDBStorage) -> dict[str, int]:
    """Return the ids of all studies by name (`FrozenStudy._study_id`)."""
    return {study.study_name: study._study_id for study in storage.get_all_studies()}


def set_system_attr(study: optuna.Study, trial: FrozenTrial, key: str, value: Any) -> None:
    """Set a system attribute of a running trial, as Optuna's own samplers do: through `Study._storage`."""
    study._storage.set_trial_system_attr(trial._trial_id, key, value)


# --- trials in memory ---


def suspend_trial(storage: InMemoryStorage, study_id: int, number: int) -> None:
    """Make a running trial wait, so that the next `ask` returns it.

    Optuna searches for waiting trials only from the number in `_prev_waiting_trial_number` on.
    """
    found = storage.get_trial_id_from_study_id_trial_number(study_id, number)
    storage.set_trial_state_values(found, TrialState.WAITING)
    first = storage._prev_waiting_trial_number
    first[study_id] = min(first[study_id], number)


def restart_trial(study: optuna.Study, trial: optuna.Trial, *, keeps_fixed: bool) -> optuna.Trial:
    """Remove the values of a trial, by `InMemoryStorage._set_trial`, since no public method does.

    Args:
        study: A study in an `InMemoryStorage`.
        trial: The trial that has just begun.
        keeps_fixed: Whether to keep the values that were enqueued for it.
    """
    memory = study._storage
    assert isinstance(memory, InMemoryStorage)
    frozen = copy.copy(memory.get_trial(trial._trial_id))
    frozen.params, frozen.distributions = {}, {}
    if not keeps_fixed and FIXED_PARAMS in frozen.system_attrs:
        _log.warning("trial %d: the values that were enqueued for it are forbidden", trial.number)
        frozen.system_attrs = {key: value for key, value in frozen.system_attrs.items() if key != FIXED_PARAMS}
    memory._set_trial(trial._trial_id, frozen)
    return optuna.Trial(study, trial._trial_id)


class ReportedOnly(InMemoryStorage):
    """The trials of another storage with the reported metric as the only objective, since pruners reject several.

    Relies on `InMemoryStorage` keeping all its state, its lock included, in attributes that two objects can share.
    """

    def __init__(self, storage: InMemoryStorage, direction: StudyDirection) -> None:
        vars(self).update(vars(storage))
        self._direction = direction

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Return the direction of the reported metric."""
        return [self._direction]


def pareto_front(trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]) -> list[FrozenTrial]:
    """Return what `Study.best_trials` would return if the study had only these trials."""
    return _get_pareto_front_trials_by_trials(trials, directions, _is_constrained_optimization(trials))


# --- samplers ---


def reseed(sampler: BaseSampler, source: str) -> None:
    """Seed every random state of a sampler, and of the samplers inside it, from `source`.

    Samplers keep their random states as `LazyRandomState`, in attributes whose names the seeds depend on.
    """
    for key, value in vars(sampler).items():
        if isinstance(value, LazyRandomState):
            value.rng.seed(zlib.crc32(f"{source}/{key}".encode()))
        elif isinstance(value, BaseSampler):
            reseed(value, f"{source}/{key}")


class BruteForce(optuna.samplers.BruteForceSampler):
    """Optuna's brute force for studies that are resumed or were migrated to another space.

    Optuna's cannot read a trial that has ended without values, such as a dropped one, and it notices only after
    one more trial that a resumed study is exhausted. Relies on `_populate_tree` and `_TreeNode`.
    """

    def is_done(self, study: optuna.Study) -> bool:
        """Return whether every point has been started."""
        tree = _TreeNode()
        trials = study.get_trials(deepcopy=False)
        self._populate_tree(tree, [trial for trial in trials if trial.state != TrialState.WAITING], {})
        return not tree.is_any_expandable(True)

    @staticmethod
    def _populate_tree(tree: Any, trials: Iterable[FrozenTrial], params: dict[str, Any]) -> None:
        known = [trial for trial in trials if trial.params or not trial.state.is_finished()]
        optuna.samplers.BruteForceSampler._populate_tree(tree, known, params)


class CmaEs(CmaEsSampler):
    """Optuna's CMA-ES, reading its optimizer back as data.

    Optuna stores the optimizer between trials as a pickle in attributes of trials. Anyone who can write to the study's
    storage can put another pickle there, which can run any code. Here only the optimizer's own classes and NumPy's
    arrays are unpickled. Relies on `_restore_optimizer`, `_attr_key_optimizer` and `_concat_optimizer_attrs`.
    """

    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> Any:
        for trial in reversed(completed_trials):
            parts = {
                key: value for key, value in trial.system_attrs.items() if key.startswith(self._attr_key_optimizer)
            }
            if parts:
                return load_optimizer(self._concat_optimizer_attrs(parts))
        return None


_OPTIMIZER_PARTS = {
    "cmaes": {"CMA", "SepCMA", "CMAwM"},
    "cmaes._cma": {"CMA"},
    "cmaes._sepcma": {"SepCMA"},
    "cmaes._cmawm": {"CMAwM"},
    "numpy": {"dtype", "ndarray"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "numpy.core.numeric": {"_frombuffer"},
    "numpy._core.numeric": {"_frombuffer"},
    "numpy.random._pickle": {"__randomstate_ctor", "__bit_generator_ctor", "__generator_ctor"},
    "numpy.random._mt19937": {"MT19937", "__pyx_unpickle_MT19937"},
    "numpy.random.bit_generator": {"__pyx_unpickle_SeedSequence"},
}


def load_optimizer(stored: str) -> Any:
    """Read an optimizer of CMA-ES as Optuna stores it: a pickle in hexadecimal digits.

    Raises:
        StoreError: It contains anything that is not part of an optimizer.
    """
    try:
        return _Unpickler(io.BytesIO(bytes.fromhex(stored))).load()
    except (pickle.UnpicklingError, ValueError, EOFError, AttributeError, TypeError, IndexError, KeyError) as error:
        raise StoreError(
            f"The CMA-ES optimizer in the study's storage was rejected: {error}. Anyone who can write to the storage "
            "can have left it. Choose another sampler, such as sampler=tpe, or start another study."
        ) from error


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name in _OPTIMIZER_PARTS.get(module, ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not part of an optimizer")


# --- pruners ---


def option_of(pruner: BasePruner, name: str) -> Any:
    """Return an option of a pruner: Optuna keeps `percentile` as `_percentile`, and so on."""
    return getattr(pruner, f"_{name}")


def bracket_of(pruner: HyperbandPruner, study: optuna.Study, trial: FrozenTrial) -> int:
    """Return the Hyperband bracket of a trial (`_get_bracket_id`)."""
    return pruner._get_bracket_id(study, trial)


def halving_pruner_of(pruner: HyperbandPruner, bracket: int) -> SuccessiveHalvingPruner:
    """Return the pruner of one of Hyperband's brackets (`_pruners`)."""
    return pruner._pruners[bracket]


# --- importance ---


@cache
def ped_anova() -> Any:
    """Import the class of PED-ANOVA without its package, which imports scikit-learn for two seconds.

    An empty package stands in while the module is loaded; the real package, imported later, finds the module there.
    """
    name = "optuna.importance"
    if name not in sys.modules:
        bare = ModuleType(name)
        bare.__path__ = [str(Path(optuna.__file__).parent / "importance")]
        sys.modules[name] = bare
        try:
            return import_module(f"{name}._ped_anova.evaluator").PedAnovaImportanceEvaluator
        except (ImportError, AttributeError):  # another version of Optuna
            pass
        finally:
            del sys.modules[name]
    return import_module(name).PedAnovaImportanceEvaluator
