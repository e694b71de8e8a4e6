"""The files of a registered model, as data: its inputs, its outputs and its origin. Needs no torch.

data/lightsweep/            what `promote` writes and `predict` reads; it reads nothing else of the model
    model.json              this module's `ServedModel`
    config.yaml             the frozen config of the run, of which model, system, optimizer and scheduler are built
    weights.pt              the weights alone, which are loaded without running code
code/                       for MLflow's server alone, which runs it: Lightsweep's own code, and the user's modules
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from sweeps.core import paths
from sweeps.core.errors import StoreError
from sweeps.core.safe_yaml import read_text

__all__ = [
    "DATA",
    "DTYPES",
    "MODEL",
    "SETUPS",
    "WEIGHTS",
    "Output",
    "SampleSpec",
    "ServedModel",
    "read_model",
    "write_model",
]

DATA = "lightsweep"
MODEL = "model.json"
WEIGHTS = "weights.pt"
SETUPS = ("", "predict", "predict with a trainer", "fit", "fit with a trainer")
DTYPES = ("uint8", "int8", "int16", "int32", "int64", "float32", "float64")
"""what samples may consist of"""

_FORMAT = 1
_MOST_NUMBERS = 1_000_000_000  # of one sample

Output = Literal["scores", "probabilities", "values"]
"""what the module gives for a sample: unnormalised scores of classes, their probabilities, or anything else"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSpec:
    """What a sample is that the model takes.

    Attributes:
        shape: Without the batch.
        dtype: One of `DTYPES`.
        least: The least number that may be in it; None if that is not known.
        greatest: Likewise.
        transform: The module that makes of samples what the net reads, as a configuration; None where samples are
            taken as the net reads them.
    """

    shape: tuple[int, ...]
    dtype: str
    least: float | None = None
    greatest: float | None = None
    transform: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        """Say it in words."""
        shape = " x ".join(map(str, self.shape)) or "one number"
        bounds = "" if self.least is None or self.greatest is None else f", from {self.least:g} to {self.greatest:g}"
        kind = "raw, as the data has them" if self.transform is not None else "as the net reads them"
        return f"{shape} ({self.dtype}{bounds}; {kind})"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A model that can be served.

    Attributes:
        run_id: The run that trained it.
        label: What the run is called.
        checkpoint: The file that its weights come from.
        epoch: The epoch of that.
        step: The optimizer steps before that.
        weights: The hash of the weights; see `tracing.weights_hash`.
        sample: What it takes.
        output: What its module gives.
        classes: The names of the classes, if it gives scores or probabilities.
        modules: The user's own modules that its server may build from.
        setup: The stage for which the module's own `setup` is called once it is built, and whether it has a Trainer
            then; empty where it is not called.
        metrics: Those of the run.
    """

    run_id: str
    label: str
    checkpoint: str
    epoch: int
    step: int
    weights: str
    sample: SampleSpec
    output: Output
    classes: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    setup: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


def write_model(folder: Path, model: ServedModel) -> None:
    """Write `model.json`."""
    tree = asdict(model)
    tree["metrics"] = {key: value for key, value in model.metrics.items() if math.isfinite(value)}
    paths.write_text(folder / MODEL, json.dumps({"format": _FORMAT, **tree}, indent=1) + "\n")


def read_model(folder: Path) -> ServedModel:
    """Read `model.json`, which others may have written.

    Raises:
        StoreError: It is not there, or is not what `write_model` writes.
    """
    path = folder / MODEL
    try:
        tree = json.loads(read_text(path))
        if tree["format"] != _FORMAT:
            raise StoreError(f"{MODEL} has the format {tree['format']!r}, and this Lightsweep reads {_FORMAT}.")
        return _checked(tree)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise StoreError(f"{MODEL} is not what `lightsweep promote` writes: {error!r}"[:300]) from error


def _checked(tree: Mapping[str, Any]) -> ServedModel:
    sample, transform = tree["sample"], tree["sample"]["transform"]
    shape = tuple(int(size) for size in sample["shape"])
    if sample["dtype"] not in DTYPES or len(shape) > 8 or min(shape, default=1) < 1 or math.prod(shape) > _MOST_NUMBERS:
        raise ValueError(f"a sample of {shape} {sample['dtype']!r}")
    if tree["output"] not in get_args(Output) or not isinstance(transform, dict | None):
        raise ValueError(f"an output {tree['output']!r}")
    if tree.get("setup", "") not in SETUPS:
        raise ValueError(f"a setup {tree['setup']!r}")
    return ServedModel(
        run_id=str(tree["run_id"]),
        label=str(tree["label"]),
        checkpoint=str(tree["checkpoint"]),
        epoch=int(tree["epoch"]),
        step=int(tree["step"]),
        weights=str(tree["weights"]),
        sample=SampleSpec(
            shape=shape,
            dtype=sample["dtype"],
            least=_bound(sample["least"]),
            greatest=_bound(sample["greatest"]),
            transform=transform,
        ),
        output=tree["output"],
        classes=tuple(str(name) for name in tree["classes"]),
        modules=tuple(str(name) for name in tree["modules"]),
        setup=tree.get("setup", ""),
        metrics={str(key): float(value) for key, value in tree["metrics"].items()},
    )


def _bound(value: Any) -> float | None:
    return None if value is None else float(value)
