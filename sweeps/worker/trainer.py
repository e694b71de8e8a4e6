"""Build the Trainer of a rank: its callbacks, its random streams, and the changes that the platform makes to it."""

import logging
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback, Checkpoint, ModelCheckpoint, ProgressBar
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.strategies.launchers import _MultiProcessingLauncher

from sweeps.config.composer import Config
from sweeps.config.instantiate import build, locate
from sweeps.core import paths
from sweeps.core.errors import ConfigError
from sweeps.core.messages import StopAfter
from sweeps.core.seeds import derive_seed
from sweeps.worker.building import build_callback
from sweeps.worker.callbacks import stop
from sweeps.worker.checkpoints import (
    load_what_is_judged,
    save_unwritable,
    save_when_training_logs,
    skip_what_is_not_logged,
)
from sweeps.worker.distributed_sampling import deal_evenly, weigh_exactly
from sweeps.worker.process_group import JoinedEnvironment, Ranks
from sweeps.worker.seeding import seed_streams
from sweeps.worker.tracer import weights_hash

__all__ = [
    "DerivedRandomness",
    "FinalWeights",
    "NoProfiler",
    "StopEarly",
    "build_callbacks",
    "quieten",
    "seed_process",
    "trainer_for",
]

_OF_THE_EPOCH = 2**64 - 1  # no batch has this number


def trainer_for(
    config: Config,
    *,
    ranks: Ranks,
    logger: Any,
    callbacks: list[Callback],
    folder: Path,
    allowed: Sequence[str] = (),
    on_save: Callable[[pl.Trainer, Path], None] = lambda *_: None,
) -> pl.Trainer:
    """Make the Trainer of a rank from the arguments of the config and of the platform.

    `on_save` is called with each checkpoint before it is saved.

    Raises:
        ConfigError: Lightning rejects an argument, or a combination of them.
    """
    settings = config["trainer"]
    try:
        trainer = pl.Trainer(
            **settings | _own_settings(settings, allowed),
            plugins=_plugins(settings, ranks),
            logger=logger,
            callbacks=callbacks,
            log_every_n_steps=max(1, config["tracking"]["log_every_n_steps"]),
            default_root_dir=str(folder),
            enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
            enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        )
    except (MisconfigurationException, TypeError, ValueError) as error:
        raise ConfigError(f"trainer: Lightning refuses this: {error}") from error
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        raise ConfigError(
            f"trainer.strategy={settings['strategy']} would start processes of its own, which the launcher does: "
            "use ddp."
        )
    save_unwritable(trainer, on_save)
    load_what_is_judged(trainer)
    if ranks.size > 1:
        deal_evenly(trainer)
        weigh_exactly()
    # The platform owns the signals: Lightning's handler would end the process with status 0, and asks the other ranks
    # at each step whether they got one, which costs a quarter of a small model's step.
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
    return trainer


def _own_settings(settings: Mapping[str, Any], allowed: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of the Trainer that the platform sets in place of the config's.

    Raises:
        ConfigError: `deterministic` has a value that Lightning does not know, or the strategy cannot be built.
    """
    if settings["deterministic"] not in (True, False, "warn"):
        raise ConfigError(f"trainer.deterministic must be true, false or warn, but got {settings['deterministic']!r}.")
    strategy = settings["strategy"]
    if isinstance(strategy, dict):
        strategy = build(strategy, key="trainer.strategy", allowed=allowed)
    return {
        "profiler": settings["profiler"] or NoProfiler(),
        "strategy": strategy,
        "sync_batchnorm": False,  # a plugin does it, on every device
    }


def _plugins(settings: Mapping[str, Any], ranks: Ranks) -> list[Any]:
    plugins: list[Any] = []
    if settings["strategy"] != "auto" or ranks.size > 1:
        plugins.append(JoinedEnvironment(ranks.place))
    if settings["sync_batchnorm"]:
        from sweeps.worker.sync_batchnorm import SyncBatchNorm

        plugins.append(SyncBatchNorm())
    return plugins


def build_callbacks(config: Config, *, folder: Path, allowed: Sequence[str]) -> list[Callback]:
    """Build the callbacks of a config; a `ModelCheckpoint` that names no folder saves below `folder`."""
    built: list[Callback] = []
    for name, node in (config["callbacks"] or {}).items():
        target = locate(node.get("_target_"), key=f"callbacks.{name}", allowed=allowed)
        if target is ModelCheckpoint and node.get("dirpath") is None:
            paths.require_no_link(folder / paths.CHECKPOINTS)
            node = {**node, "dirpath": str(folder / paths.CHECKPOINTS)}
        callback = build_callback(node, key=f"callbacks.{name}", allowed=allowed)
        if isinstance(callback, ModelCheckpoint) and callback.monitor == config["objective"]["metric"]:
            skip_what_is_not_logged(callback)
            save_when_training_logs(callback)
        built.append(callback)
    return built


def seed_process(seed: int) -> None:
    """Seed what is drawn before the first batch, initial weights above all, and Lightning's loader workers.

    Does what Lightning's `seed_everything(workers=True)` does.
    """
    os.environ["PL_GLOBAL_SEED"], os.environ["PL_SEED_WORKERS"] = str(seed), "1"
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)  # takes effect when CUDA starts
    seed_streams(seed)


class DerivedRandomness(Callback):
    """Seeds Python, NumPy and torch at every epoch from (seed, epoch), at every batch from (seed, epoch, batch, rank).

    The order of a loader, its workers' streams, dropout and augmentation then depend on where training is, not on what
    was drawn before: a resumed trial draws what an uninterrupted one draws. What is drawn for an epoch is drawn alike
    by all ranks, which share its samples out; at batches, ranks draw apart.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seed the streams of this epoch, before its loaders are asked for batches."""
        seed_streams(derive_seed(self._seed, trainer.current_epoch, _OF_THE_EPOCH, 0))
        loop = trainer.fit_loop
        if loop.is_resuming and not any(map(_has_state, loop._combined_loader.flattened)):  # type: ignore[union-attr]
            # Lightning asked them when it restored the training, by streams of no epoch, and would not ask again
            loop._resuming_from_checkpoint = False

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed the streams of this batch."""
        # Ranks that share a batch, each with a part of the model, must draw the same
        place = trainer.distributed_sampler_kwargs or {"rank": 0}
        seed = derive_seed(self._seed, trainer.current_epoch, batch_idx, place["rank"])
        seed_streams(seed)


def _has_state(loader: Any) -> bool:
    """Return whether a loader resumes by itself from its saved state, and so must be asked once."""
    return hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")


class StopEarly(Callback):
    """Stops after an epoch, or within it, for a reproduction of a part; schedules still plan for the whole run.

    It counts batches, as the trace does: optimizers step once, several times or not at all in each. An epoch that
    ends with the same batch is left to end, since Lightning validates and logs more when it is stopped before.
    """

    def __init__(self, after: StopAfter) -> None:
        self._after = after
        self._num_batches = 0

    def on_train_epoch_start(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Count from 0."""
        self._num_batches = 0

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        """Count."""
        self._num_batches += 1

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Stop within the epoch once enough batches are trained."""
        is_due = trainer.current_epoch >= self._after.epoch and self._num_batches >= self._after.batches
        if is_due and not trainer.is_last_batch:
            stop(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Stop after the epoch."""
        if trainer.current_epoch >= self._after.epoch:
            stop(trainer)


class FinalWeights(Callback):
    """Hashes the weights that training ends with: other callbacks may replace them afterwards, as averaging does."""

    def __init__(self) -> None:
        self._weights: str | None = None

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hash them, before the callbacks that come later in the list replace them."""
        self._weights = weights_hash(pl_module)

    def has_changed(self, module: pl.LightningModule) -> bool:
        """Return whether the module has other weights now."""
        return self._weights is not None and self._weights != weights_hash(module)


class NoProfiler(PassThroughProfiler):
    """Measures nothing, at the price of nothing: Lightning's own costs 0.1 ms a step in context managers."""

    _nothing = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        """Return a context that does nothing."""
        return self._nothing


def quieten() -> None:
    """Silence what Lightning says at every start; warnings of substance go to the trial's log."""
    for name in ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning.accelerators.cuda", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for text in (
        "does not have many workers",
        "number of training batches",
        "logging interval",
        "LeafSpec",
        "`srun` command",
    ):
        warnings.filterwarnings("ignore", message=f".*{text}.*")
