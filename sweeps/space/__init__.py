"""Search spaces: Hydra's sweep expressions read by Hydra's parser, suggested and stored by Optuna."""

from sweeps.space.condition import Condition
from sweeps.space.declaring import key_of, parse_space, split_overrides
from sweeps.space.parameter import Parameter
from sweeps.space.quoting import quote
from sweeps.space.reading import read_values
from sweeps.space.refit import Composed, Look, Refit, refit, refit_queued
from sweeps.space.space import Space

__all__ = [
    "Composed",
    "Condition",
    "Look",
    "Parameter",
    "Refit",
    "Space",
    "key_of",
    "parse_space",
    "quote",
    "read_values",
    "refit",
    "refit_queued",
    "split_overrides",
]
