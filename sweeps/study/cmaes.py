"""CMA-ES without code from the database.

Optuna keeps the optimizer of CMA-ES between trials as a pickle among the attributes of trials, where everybody who can
write to the study's storage can leave another one, and a pickle can run anything. Here only what the optimizer
consists of is taken out of it: its own classes, and NumPy's arrays.
"""

import io
import pickle
from typing import Any

from optuna.samplers import CmaEsSampler
from optuna.trial import FrozenTrial

from sweeps.core.errors import StoreError

__all__ = ["CmaEs", "load_optimizer"]

_PARTS = {
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


class CmaEs(CmaEsSampler):
    """Optuna's CMA-ES, which reads its optimizer back as data; its other methods are Optuna's."""

    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> Any:
        for trial in reversed(completed_trials):
            parts = {
                key: value for key, value in trial.system_attrs.items() if key.startswith(self._attr_key_optimizer)
            }
            if parts:
                return load_optimizer(self._concat_optimizer_attrs(parts))
        return None


def load_optimizer(stored: str) -> Any:
    """Read an optimizer that Optuna has stored.

    Raises:
        StoreError: It has more in it than an optimizer consists of.
    """
    try:
        return _Unpickler(io.BytesIO(bytes.fromhex(stored))).load()
    except (pickle.UnpicklingError, ValueError, EOFError, AttributeError, TypeError, IndexError, KeyError) as error:
        raise StoreError(
            f"The study's storage has an optimizer of CMA-ES that is not read: {error}. Whoever can write to the "
            "storage can have left it. Choose another sampler, such as sampler=tpe, or begin another study."
        ) from error


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name in _PARTS.get(module, ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is no part of an optimizer")
