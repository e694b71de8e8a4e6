"""Ask Optuna for a trial whose values are no forbidden combination."""

import copy
import logging
import zlib

import optuna
from optuna.storages import InMemoryStorage

from sweeps.core.errors import StudyError
from sweeps.space import Space

__all__ = ["propose"]

_log = logging.getLogger(__name__)
_MAX_PROPOSALS = 5  # of the study's sampler: some propose the same again
_MAX_DRAWS = 1000  # at random after that


def propose(study: optuna.Study, space: Space, seed: int | None) -> optuna.Trial:
    """Begin a trial and let the sampler choose all values.

    Optuna knows no forbidden combinations. The sampler is asked again for the same trial some times; then values are
    drawn at random, from the seed and the trial's number.

    Args:
        study: In an `InMemoryStorage`, where a trial can begin anew.
        space: What is searched.
        seed: Of the study.

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
            trial = _begin_anew(study, trial, keeps_fixed=attempt < _MAX_PROPOSALS)
            if not space.forbids(space.suggest(trial)):
                return trial
    finally:
        study.sampler = sampler
    raise StudyError(
        f"Study {study.study_name!r}: all of {_MAX_DRAWS} random combinations are forbidden. Forbid less, or state the "
        f"space so that what is forbidden is not in it: by fewer values, or by conditions (when)."
    )


def _begin_anew(study: optuna.Study, trial: optuna.Trial, *, keeps_fixed: bool) -> optuna.Trial:
    """Take the values of a trial away again, as no method of Optuna's does."""
    memory = study._storage
    assert isinstance(memory, InMemoryStorage)
    frozen = copy.copy(memory.get_trial(trial._trial_id))
    frozen.params, frozen.distributions = {}, {}
    if not keeps_fixed and "fixed_params" in frozen.system_attrs:
        _log.warning("trial %d: the values that were enqueued for it are forbidden", trial.number)
        frozen.system_attrs = {key: value for key, value in frozen.system_attrs.items() if key != "fixed_params"}
    memory._set_trial(trial._trial_id, frozen)
    return optuna.Trial(study, trial._trial_id)
