"""Predict with a registered model: the loader module that `lightsweep predict` and MLflow's server use.

Both build the same module from the same data: `_target_`s of the config that are allowed, and weights that are read as
weights only. They differ in trust: `predict` builds only targets of known libraries and of modules that its user
names; the server, in which MLflow has put the model's own `code/` first on the path, also builds from that.
"""

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities.compile import to_uncompiled
from torch import Tensor, nn

from sweeps.config.composer import ALLOWED_MODULES, Config
from sweeps.config.instantiate import build
from sweeps.core import paths
from sweeps.core.errors import StoreError, UsageError
from sweeps.core.safe_yaml import read_config
from sweeps.serving.model import MODEL, SETUPS, WEIGHTS, ServedModel, read_model
from sweeps.worker.building import build_data, build_module
from sweeps.worker.trainer import quieten

__all__ = ["Predictions", "Predictor", "load_predictor", "restored"]

_BATCH = 256
_COMPILED = "_orig_mod"  # what `torch.compile` puts between a module and its layers
_SETUPS = (*SETUPS[1:], "")
PROBABILITIES = "probabilities"
"""the parameter by which the server is asked for the probabilities of all classes"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """What a model says of some samples, in their order.

    Attributes:
        values: What its module gives, N x K: for a classifier the probabilities of its classes.
        classes: The names of the classes, in the order of the columns; empty if it is not a classifier.
    """

    values: NDArray[np.float64]
    classes: tuple[str, ...] = ()

    def records(self, *, probabilities: bool = False) -> list[dict[str, Any]]:
        """Return a mapping for each sample, with plain values.

        Args:
            probabilities: Whether to also list those of all classes, in the order of the classes.
        """
        if not self.classes:
            names = ["value"] if self.values.shape[1] == 1 else [f"value{at}" for at in range(self.values.shape[1])]
            return [dict(zip(names, row, strict=True)) for row in self.values.tolist()]
        best = self.values.argmax(axis=1).tolist()
        rows = self.values.tolist()
        found: list[dict[str, Any]] = [
            {"class": self.classes[at], "probability": row[at]} for at, row in zip(best, rows, strict=True)
        ]
        if probabilities:
            found = [{**record, PROBABILITIES: row} for record, row in zip(found, rows, strict=True)]
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A module with the weights of a checkpoint.

    Attributes:
        module: The module.
        setup: How its `setup` was called; see `ServedModel`.
        names: What some of its weights are called in the checkpoint, where that is another name.
    """

    module: pl.LightningModule
    setup: str
    names: Mapping[str, str]


class Predictor:
    """A module in evaluation, on the CPU, and what to do before and after it.

    Args:
        model: What it takes and gives.
        module: The module with its weights.
        transform: What makes of samples what the module reads.
    """

    def __init__(self, model: ServedModel, module: nn.Module, transform: nn.Module) -> None:
        self.model = model
        self.module = _uncompiled(module).eval()
        self._transform = transform.eval()

    def predict(self, samples: NDArray[Any]) -> Predictions:
        """Predict for samples, N x the shape of one.

        Raises:
            UsageError: They are not what the model takes.
            StoreError: The module gives another number of values than the model has classes.
        """
        self._check(samples)
        with torch.inference_mode():
            parts = [
                self._values(torch.from_numpy(np.ascontiguousarray(samples[start : start + _BATCH])))
                for start in range(0, len(samples), _BATCH)
            ]
        values = torch.cat(parts).numpy()
        if len(self.model.classes) not in (0, values.shape[1]):
            raise StoreError(
                f"{MODEL} has the names of {len(self.model.classes)} classes, but the module of {self.model.label} "
                f"gives {values.shape[1]} values: the model is damaged. Promote its run again."
            )
        return Predictions(values=values, classes=self.model.classes)

    def outputs(self, samples: Tensor) -> Tensor:
        """Return what the module gives for samples: N x K."""
        found = self.module(self._transform(samples))
        if not isinstance(found, Tensor):
            raise UsageError(f"A model that is served must give one tensor, but gives a {type(found).__name__}.")
        return found.unsqueeze(1) if found.ndim == 1 else found

    def _values(self, samples: Tensor) -> Tensor:
        found = self.outputs(samples).double()
        return torch.softmax(found, dim=1) if self.model.output == "scores" else found

    def _check(self, samples: NDArray[Any]) -> None:
        spec = self.model.sample
        if samples.shape[1:] != spec.shape or samples.ndim == 0:
            raise UsageError(
                f"The model takes N samples of {spec}, but got an array of {' x '.join(map(str, samples.shape))}."
            )
        if samples.dtype != np.dtype(spec.dtype):
            raise UsageError(f"The model takes samples of {spec}, but got {samples.dtype}.")
        if not len(samples):
            raise UsageError("There is no sample to predict for.")
        for bound, is_out in ((spec.least, np.less), (spec.greatest, np.greater)):
            if bound is None:
                continue
            out = is_out(samples, bound).reshape(len(samples), -1).any(axis=1)
            if out.any():
                at = int(out.argmax())
                value = samples[at].max() if is_out is np.greater else samples[at].min()
                raise UsageError(f"The model takes samples of {spec}, but sample {at} has a {value:g}.")


def load_predictor(folder: Path, *, allowed: Sequence[str]) -> Predictor:
    """Build the model of a folder, which others may have written.

    Args:
        folder: What `promote` wrote; see `served_model`.
        allowed: The modules that a `_target_` may come from.

    Raises:
        StoreError: A file is missing, or is not what it should be.
        ConfigError: A target is not allowed, or cannot be built.
    """
    quieten()
    model = read_model(folder)
    try:
        config = read_config(folder / paths.CONFIG)
        content = torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True)
        module = restored(config, content, allowed=allowed, setups=(model.setup,)).module
    except pickle.UnpicklingError as error:
        raise StoreError(f"{WEIGHTS} is not loaded: it has more in it than weights, which might run.") from error
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RuntimeError, EOFError) as error:
        text = " ".join(str(error).split())[:300]
        raise StoreError(f"The model of {model.label} cannot be built from its files: {text}") from error
    return Predictor(model, module, transform_of(model.sample.transform, allowed=allowed))


def restored(
    config: Config, checkpoint: Mapping[str, Any], *, allowed: Sequence[str], setups: Sequence[str] = _SETUPS
) -> Restored:
    """Build the module of a config and give it the weights of a checkpoint.

    Layers may be made, compiled or wrapped in a module's `setup`. It is called as training calls it, as far as there is
    what it asks for: without a Trainer, or with one that knows the data module, which is not set up.

    Args:
        config: The config.
        checkpoint: Weights, and what else the module reads from it.
        allowed: The modules that a `_target_` may come from.
        setups: How to call `setup`, the first that leads to a module that the weights fit.

    Raises:
        ConfigError: A target is not allowed, or cannot be built.
        RuntimeError: The weights are those of another module.
    """
    last: Exception | None = None
    told = ""
    for setup in setups:
        module = build_module(config, allowed=allowed)
        if setup and type(module).setup is pl.LightningModule.setup:
            continue
        try:
            if setup:
                _set_up(module, setup, config, allowed)
        except Exception as error:  # of the user's own code; another way may do
            told = told or f"{type(error).__name__}: {error}"
            last = error
            continue
        try:
            module.configure_model()
            content = dict(checkpoint)
            module.on_load_checkpoint(content)
            names = _load(module, content["state_dict"])
        except Exception as error:
            last = error
        else:
            return Restored(module=module.eval(), setup=setup, names=names)
    assert last is not None, "there is a way to go, and it has failed"
    if told:
        raise RuntimeError(
            f"its setup() fails without a training run ({' '.join(told.split())[:100]}). Make its layers in __init__ "
            f"or configure_model, or in a setup() that needs no data. Without setup(): {last}"
        ) from last
    raise last


def _set_up(module: pl.LightningModule, setup: str, config: Config, allowed: Sequence[str]) -> None:
    """Call a module's own `setup`."""
    stage, _, trainer_wanted = setup.partition(" ")
    if trainer_wanted:
        trainer: Any = pl.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=config["trainer"]["max_epochs"],
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
        )
        trainer.datamodule = build_data(config, allowed=allowed)
        trainer.datamodule.trainer = module.trainer = trainer
    module.setup(stage)
    module.trainer = None


def _load(module: pl.LightningModule, weights: Mapping[str, Any]) -> dict[str, str]:
    """Load weights, whether layers are compiled here or were in training; return what is named otherwise there."""
    own = list(module.state_dict())
    by_name = {_without_compiled(name): name for name in own}
    names = {name: name if name in own else by_name.get(_without_compiled(name), name) for name in weights}
    absent = [name for name in weights if module.strict_loading and _is_of_none(module, names[name])]
    if absent:  # which torch passes over in silence
        raise RuntimeError(f"{', '.join(absent[:3])} is of a layer that is None when the model is built.")
    module.load_state_dict({names[name]: value for name, value in weights.items()}, strict=module.strict_loading)
    return {here: there for there, here in names.items() if here != there}


def _is_of_none(module: nn.Module, name: str) -> bool:
    """Tell whether a weight is below a layer that has a name, but is None."""
    for part in name.split(".")[:-1]:
        child = module._modules.get(part, module)
        if child is None or child is module:
            return child is None
        module = child
    return False


def _without_compiled(name: str) -> str:
    return ".".join(part for part in name.split(".") if part != _COMPILED)


def _uncompiled(module: nn.Module) -> nn.Module:
    """Take out of a module what compiles its layers: a server need not have a compiler, nor wait for one."""
    if isinstance(module, pl.LightningModule) and module._compiler_ctx is not None:
        module = to_uncompiled(module)
    for part in list(module.modules()):
        part._compiled_call_impl = None
        for name, child in part.named_children():
            while _COMPILED in child._modules:
                child = child._modules[_COMPILED]  # type: ignore[assignment]
            part._modules[name] = child
    return module


def transform_of(node: Mapping[str, Any] | None, *, allowed: Sequence[str]) -> nn.Module:
    """Build what makes of samples what the net reads."""
    if node is None:
        return nn.Identity()
    built = build(dict(node), key="transform", allowed=allowed)
    if not isinstance(built, nn.Module):
        raise StoreError(f"The transform of a model must be a torch module, but is a {type(built).__name__}.")
    return built


class _Served:
    """What MLflow's server calls."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Return a table with a row for each sample."""
        import pandas as pd

        found = self._predictor.predict(np.asarray(data))
        return pd.DataFrame(found.records(probabilities=bool((params or {}).get(PROBABILITIES))))


def _load_pyfunc(path: str) -> _Served:
    """Load a model for MLflow, which has imported this module from the model's own code."""
    folder = Path(path)
    return _Served(load_predictor(folder, allowed=(*ALLOWED_MODULES, *read_model(folder).modules)))
