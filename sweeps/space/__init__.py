"""Search spaces: Hydra's sweep expressions read by Hydra's parser, suggested and stored by Optuna."""

from sweeps.space.condition import Condition
from sweeps.space.declaring import parse_space, split_overrides
from sweeps.space.parameter import Parameter
from sweeps.space.quoting import quote
from sweeps.space.reading import read_values
from sweeps.space.space import Space

__all__ = ["Condition", "Parameter", "Space", "parse_space", "quote", "read_values", "split_overrides"]
