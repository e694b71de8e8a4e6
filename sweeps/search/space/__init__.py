"""Search spaces: Hydra's sweep expressions read by Hydra's parser, suggested and stored by Optuna."""

from sweeps.config.quoting import quote, verbatim
from sweeps.search.space.compatibility import Composed, Look, Refit, refit, refit_queued
from sweeps.search.space.corners import is_near_end, share_near_end, widened
from sweeps.search.space.declare import key_of, parse_space, split_overrides, values_of
from sweeps.search.space.parameter import Choices, Condition, Parameter
from sweeps.search.space.space import Space, read_values

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
