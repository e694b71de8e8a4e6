"""Search spaces: Hydra's sweep expressions read by Hydra's parser, suggested and stored by Optuna."""

from sweeps.config.quoting import quote, verbatim
from sweeps.space.condition import Condition
from sweeps.space.declaring import key_of, parse_space, split_overrides, values_of
from sweeps.space.ends import is_near_end, share_near_end, widened
from sweeps.space.parameter import Choices, Parameter
from sweeps.space.reading import read_values
from sweeps.space.refit import Composed, Look, Refit, refit, refit_queued
from sweeps.space.space import Space

__all__ = [
    "Choices",
    "Composed",
    "Condition",
    "Look",
    "Parameter",
    "Refit",
    "Space",
    "is_near_end",
    "key_of",
    "parse_space",
    "quote",
    "read_values",
    "refit",
    "refit_queued",
    "share_near_end",
    "split_overrides",
    "values_of",
    "verbatim",
    "widened",
]
