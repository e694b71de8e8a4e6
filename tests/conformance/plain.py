"""What Lightning alone makes of a configuration: its Trainer, the seeding callback, and nothing else of ours.

It runs in a process of its own, and sends what came of it.
"""

import hashlib
import inspect
import math
import multiprocessing
import os
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, Checkpoint, ModelCheckpoint, ProgressBar, WeightAveraging
from pytorch_lightning.loggers import CSVLogger

from sweeps.worker.tracer import weights_hash
from sweeps.worker.trainer import DerivedRandomness, quieten, seed_process


@dataclass
class Course:
    """How a training went.

    Attributes:
        error: What ended it; empty if it went well.
        value: The objective of the checkpoint that is kept; of the last weights if there is none.
        validation: What was logged by the validation that this is of.
        test: What the test of that checkpoint has logged.
        training: What training has logged of that epoch.
        metrics: What Lightsweep says was logged, of all three.
        latest: The last point that it records of each.
        epochs: The optimizer steps and the hash of the weights at the end of each epoch.
        kept: The checkpoint's epoch, step and weights; None if there is none.
        num_parameters: The size of the model once it is there.
    """

    error: str = ""
    value: float | None = None
    validation: dict[str, float] = field(default_factory=dict)
    test: dict[str, float] = field(default_factory=dict)
    training: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    latest: dict[str, float] = field(default_factory=dict)
    epochs: list[tuple[int, str]] = field(default_factory=list)
    kept: tuple[int, int, str] | None = None
    num_parameters: int = 0


def run(connection: Connection, config: dict[str, Any], folder: Path) -> None:
    """Train in this process, and send the course."""
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # as in a process that nobody has forked
    log = os.open(folder / "plain.log", os.O_WRONLY | os.O_CREAT, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(folder)
    quieten()
    try:
        course = train(config, folder)
    except BaseException as error:
        traceback.print_exc()
        course = Course(error=f"{type(error).__name__}: {error}")
    connection.send(course)


def train(config: dict[str, Any], folder: Path) -> Course:
    """Do what a user's own script would."""
    seed_process(config["seed"])
    data = None if config["data"] is None else made(config["data"])
    module = _module(config)
    own = [made(node) for node in (config["callbacks"] or {}).values()]
    epochs, views = _Epochs(), _Validations(config["objective"]["metric"])
    settings = config["trainer"]
    trainer = pl.Trainer(
        **settings,
        logger=CSVLogger(folder),
        callbacks=[epochs, DerivedRandomness(config["seed"]), *own, views],
        log_every_n_steps=max(1, config["tracking"]["log_every_n_steps"]),
        default_root_dir=str(folder),
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in own),
    )
    trainer.fit(module, datamodule=data)
    best = _best(trainer, config["objective"]["metric"])
    course = Course(epochs=epochs.seen, num_parameters=sum(p.numel() for p in module.parameters()))
    if best is not None:
        course.kept = kept_in(best)
    course.value, course.validation, course.training = views.of(course.kept)
    if best is not None and views.lacks(course.kept):  # it was saved between two validations
        trainer.validate(module, datamodule=data, ckpt_path=str(best), weights_only=False, verbose=False)
        course.validation, course.training = {k: float(v) for k, v in trainer.callback_metrics.items()}, {}
        course.value = course.validation[config["objective"]["metric"]]
    for callback in own:
        if isinstance(callback, WeightAveraging):
            callback._average_model = None  # as in a Trainer of its own, which tests the average that was saved
    if config["test"] and _overrides(module, "test_step") and _has_test_loader(data, module):
        trainer.test(module, datamodule=data, ckpt_path=best and str(best), weights_only=best is None, verbose=False)
        course.test = {key: float(value) for key, value in trainer.callback_metrics.items()}
    return course


def _module(config: Mapping[str, Any]) -> pl.LightningModule:
    parts = {name: made(config[name]) for name in ("optimizer", "scheduler") if config[name] is not None}
    target = _found(config["model"]["_target_"])
    if inspect.isclass(target) and issubclass(target, pl.LightningModule):
        taken = inspect.signature(target).parameters
        return made(config["model"], **{name: part for name, part in parts.items() if name in taken})
    net = made(config["model"])
    if isinstance(net, pl.LightningModule):
        return net
    return made(config["system"], net=net, **({"scheduler": None} | parts))


def made(node: Any, **more: Any) -> Any:
    """Build what `_target_` names."""
    if isinstance(node, list):
        return [made(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    arguments = {key: made(value) for key, value in node.items() if key not in ("_target_", "_partial_")}
    if "_target_" not in node:
        return arguments
    target = _found(node["_target_"])
    return partial(target, **arguments) if node.get("_partial_") else target(**arguments, **more)


def _found(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)


def _overrides(instance: Any, name: str) -> bool:
    bases = (pl.LightningModule, pl.LightningDataModule)
    return instance is not None and all(
        getattr(type(instance), name, None) is not getattr(base, name, None) for base in bases
    )


def _has_test_loader(data: Any, module: Any) -> bool:
    return _overrides(module if data is None else data, "test_dataloader")


def _best(trainer: pl.Trainer, metric: str) -> Path | None:
    """Return the best checkpoint by the objective, or else by what there is."""
    saved = [it for it in trainer.checkpoint_callbacks if isinstance(it, ModelCheckpoint) and it.best_model_path]
    found = [it for it in saved if it.monitor == metric] or saved
    return Path(found[0].best_model_path) if found else None


def kept_in(path: Path) -> tuple[int, int, str]:
    """Return the epoch, the step and the bits of the weights of a checkpoint."""
    checkpoint = torch.load(path, weights_only=False)
    return checkpoint["epoch"], checkpoint["global_step"], _bits(checkpoint["state_dict"])


def _bits(state: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for name, tensor in state.items():
        digest.update(f"{name} ".encode())
        if isinstance(tensor, torch.Tensor):
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
            digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            digest.update(repr(tensor).encode())
    return digest.hexdigest()


class _Epochs(Callback):
    """Notes the end of each epoch, before any callback of the user's."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, str]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seen.append((trainer.global_step, weights_hash(pl_module)))


@dataclass
class _View:
    epoch: int
    step: int
    is_validation: bool
    metrics: dict[str, float]


class _Validations(Checkpoint):
    """Notes what each validation has logged, and each training epoch.

    It is called last of all, since it is a `Checkpoint` that comes after the user's.
    """

    def __init__(self, metric: str) -> None:
        self._metric = metric
        self.views: list[_View] = []

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._note(trainer, is_validation=True)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._note(trainer, is_validation=False)

    def _note(self, trainer: pl.Trainer, is_validation: bool) -> None:
        self.views.append(_View(trainer.current_epoch, trainer.global_step, is_validation, _of_this_loop(trainer)))

    def lacks(self, kept: tuple[int, int, str] | None) -> bool:
        """Tell whether validation logs the objective, but did not where the checkpoint was saved."""
        judged = [view.step for view in self.views if view.is_validation and self._metric in view.metrics]
        return bool(judged) and kept is not None and kept[1] not in judged

    def of(self, kept: tuple[int, int, str] | None) -> tuple[float | None, dict[str, float], dict[str, float]]:
        """Return the objective, and what validation and training have logged, of the checkpoint that is kept."""
        views = [view for view in self.views if kept is None or view.step <= kept[1]]
        validations = [view for view in views if view.is_validation]
        judged = [view for view in validations if self._metric in view.metrics]  # it may be logged in training, too
        judged = judged or [view for view in views if self._metric in view.metrics]
        if not judged:
            return None, {}, {}
        of_epoch = [view for view in self.views if view.epoch == judged[-1].epoch]
        of_validation = [view for view in of_epoch if view.is_validation and view in views]
        validation = of_validation[-1].metrics if of_validation else {}
        training = next((view.metrics for view in of_epoch if not view.is_validation), {})
        training = {key: value for key, value in training.items() if key not in validation}
        return judged[-1].metrics[self._metric], validation, training


def _of_this_loop(trainer: pl.Trainer) -> dict[str, float]:
    """Return what the loop that ends has logged, of all its loaders: what Lightning shows under its names."""
    metrics = trainer.callback_metrics
    found: dict[str, float] = {}
    for item in (trainer._results or {}).values():
        if item.has_reset:  # it was logged in an earlier epoch
            continue
        for name in (item.meta.name, f"{item.meta.name}_step", f"{item.meta.name}_epoch"):
            for key in (name, f"{name}/dataloader_idx_{item.meta.dataloader_idx}"):
                if key in metrics:
                    found[key] = float(metrics[key])
    return found


def same(a: float | None, b: float | None) -> bool:
    """Compare to the last digit; NaN equals NaN."""
    if a is None or b is None:
        return a is b
    return a == b or (math.isnan(a) and math.isnan(b))
