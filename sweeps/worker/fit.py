"""Train what a frozen config describes: build, fit, test the best checkpoint. Runs in a rank."""

import logging
import math
import os
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback, Checkpoint, ModelCheckpoint, ProgressBar
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.strategies.launchers import _MultiProcessingLauncher

from sweeps.config.composer import Config, fingerprint
from sweeps.config.instantiate import build, locate
from sweeps.core import paths
from sweeps.core.determinism import operations_without_form
from sweeps.core.errors import ConfigError, did_you_mean
from sweeps.core.messages import Artifact, DataContent, Finished, StopAfter
from sweeps.core.secrets import Hidden, reveal
from sweeps.core.seeds import derive_seed
from sweeps.worker.building import build_callback, build_data, build_module
from sweeps.worker.callbacks import Reporter, Snapshot, Telemetry, logged_step, num_parameters, numbers_in, stop
from sweeps.worker.channel import Channel
from sweeps.worker.checkpoints import (
    Kept,
    ResumePoint,
    at_hand,
    kept_model,
    load_averages,
    load_what_is_judged,
    save_unwritable,
    save_when_training_logs,
    skip_what_is_not_logged,
)
from sweeps.worker.distributed_sampling import deal_evenly, weigh_exactly
from sweeps.worker.hashing import data_content
from sweeps.worker.logger import ChannelLogger
from sweeps.worker.process_group import JoinedEnvironment, Ranks
from sweeps.worker.seeding import seed_streams
from sweeps.worker.tracer import Tracer, weights_hash

__all__ = [
    "DerivedRandomness",
    "build_callbacks",
    "fit",
    "has_test",
    "metric_is_missing",
    "quieten",
    "require_batches",
    "seed_process",
    "trainer_for",
]

_OF_THE_EPOCH = 2**64 - 1  # no batch has this number


def fit(
    config: Config,
    channel: Channel,
    *,
    ranks: Ranks,
    folder: Path,
    allowed: Sequence[str],
    resume_step: int | None = None,
    hidden: Hidden = (),
    stop_after: StopAfter | None = None,
    provenance: str = "",
    known_data: Mapping[str, Any] | None = None,
    python_path: Sequence[str] = (),
) -> Finished:
    """Train one trial and test its best checkpoint, as one of its ranks.

    Args:
        config: The frozen config.
        channel: The line to the driver.
        ranks: The ranks of the trial, which have joined.
        folder: The trial's folder, for checkpoints.
        allowed: The modules that a `_target_` may name.
        resume_step: The step to go on from, if the trial was interrupted and its state there is still in `folder`.
        hidden: What the frozen config hides.
        stop_after: Where to stop as at the end; None for the end.
        provenance: The hash of what the driver knows of code, packages and machine, for the trace.
        known_data: What the samples are, if the driver has heard of that from another trial.
        python_path: Where the user's modules are, for the trace.

    Raises:
        ConfigError: A part of the config cannot be built, or the objective was never logged.
        DivergedError: The training loss became infinite or NaN.
        StoreError: The state to go on from may run code, and others than this user can have written it.
    """
    quieten()
    own = fingerprint(config)
    config = reveal(config, hidden)
    seed_process(config["seed"])
    objective = config["objective"]
    data = build_data(config, allowed=allowed)
    module = build_module(config, allowed=allowed)
    reporter = Reporter(channel, ranks, metric=objective["metric"], direction=objective["direction"])
    telemetry = Telemetry(
        channel,
        ranks,
        log_every_n_steps=config["tracking"]["log_every_n_steps"],
        num_parameters=num_parameters(module),
    )
    logger = ChannelLogger(channel, folder, lambda: telemetry.is_cut)
    resume_from = None if resume_step is None else paths.resume_point(folder, own, resume_step)
    end = _End()
    tracer = Tracer(ranks, folder, config=own, seed=config["seed"], provenance=provenance, python_path=python_path)
    trainer = trainer_for(
        config,
        ranks=ranks,
        logger=logger,
        callbacks=[
            tracer,
            end,
            ResumePoint(
                lambda step: paths.resume_point(folder, own, step),
                channel,
                ranks,
                overhead=config["tracking"]["resume_overhead"],
            ),
            DerivedRandomness(config["seed"]),
            telemetry,
            *([] if stop_after is None else [_Stop(stop_after)]),
            *build_callbacks(config, folder=folder, allowed=allowed),
            reporter,
        ],
        folder=folder,
        allowed=allowed,
        on_save=reporter.note_saved,
    )
    resume_from = resume_from if resume_from is not None and resume_from.is_file() else None
    with operations_without_form() as operations:
        trainer.fit(
            module,
            datamodule=data,
            ckpt_path=None if resume_from is None else str(resume_from),
            # Callbacks may keep any object in a file that this trial wrote; see `load_what_is_judged`. Without a
            # file there may still be one that Lightning takes on SLURM, `hpc_ckpt_1.ckpt` in the trial's folder
            weights_only=resume_from is None,
        )

    is_stopping = ranks.decide(channel.stop_requested.is_set)
    is_whole = not (is_stopping or telemetry.is_stopped or stop_after is not None)
    if is_whole:
        require_batches(trainer)
    if ranks.decide(lambda: reporter.best is None) and is_whole:
        raise metric_is_missing(objective["metric"], trainer.callback_metrics)
    last = numbers_in(trainer.callback_metrics)
    kept, is_judged = ranks.decide(lambda: _kept(trainer, reporter, objective["metric"]))
    load_averages(trainer)
    if ranks.decide(lambda: is_judged and kept.path is None and reporter.is_of_validation):
        is_judged = ranks.sum(torch.tensor([float(end.has_changed(module))])).item() == 0
    if not is_judged and is_whole and reporter.pruned is None:
        best = at_hand(kept.path, ranks, folder)
        snapshot = _validated(trainer, module, data, best, logger, objective["metric"])
        if best is None:  # the last model, of which training has logged something, too
            snapshot.metrics = reporter.training | snapshot.metrics
        kept = Kept(path=kept.path, snapshot=snapshot)
    value = None if kept.snapshot is None else kept.snapshot.value
    metrics = {} if kept.snapshot is None else dict(kept.snapshot.metrics)
    if not telemetry.is_stopped and stop_after is None:  # else it may be resumed
        restated = _restated(metrics, last)
        channel.log(restated, step=logged_step(trainer) + 1)
    if kept.path is not None and config["tracking"]["log_checkpoint"]:
        channel.send(Artifact(path=str(kept.path), artifact_path=paths.CHECKPOINTS))
    tell_trace = partial(_tell_trace, tracer, operations, data, known_data, channel, ranks)
    if reporter.pruned is not None:
        tell_trace()
        return Finished(state="pruned", reason=reporter.pruned, value=value, metrics=metrics)
    if telemetry.is_stopped:
        channel.send(Artifact(path=str(tracer.file.path)))
        return Finished(state="interrupted", reason="stopped", value=value, metrics=metrics)
    if config["test"] and has_test(data, module) and is_whole:
        best = at_hand(kept.path, ranks, folder)
        trainer.test(
            module,
            datamodule=data,
            ckpt_path=None if best is None else str(best),
            # A module's saved hyperparameters may be any object in a file that this trial wrote
            weights_only=best is None,
            verbose=False,
        )
        tested = numbers_in(trainer.callback_metrics)
        again = {name: value for name, value in metrics.items() if name in tested and name not in restated}
        channel.log(again, step=logged_step(trainer) + 1)  # the test has logged another number by that name
        metrics = tested | metrics
    tell_trace()
    return Finished(state="complete", value=value, metrics=metrics)


def require_batches(trainer: pl.Trainer) -> None:
    """Refuse a training run without data, which Lightning lets pass.

    Raises:
        ConfigError: No batch has come.
    """
    if trainer.fit_loop.epoch_loop.batch_progress.total.ready or trainer.max_epochs == 0 or trainer.max_steps == 0:
        return
    if trainer.limit_train_batches == 0:
        raise ConfigError(
            "trainer.limit_train_batches is 0: there is nothing to train on. Leave it out, or set it higher."
        )
    if math.isfinite(trainer.fit_loop.max_batches) and trainer.fit_loop.max_batches > 0:
        raise ConfigError(
            "Training was stopped before its first batch: see what callbacks, and hooks of the module, set "
            "trainer.should_stop, or return -1 in on_train_batch_start."
        )
    raise ConfigError(
        f"The training data has no batch: {_source(trainer)} gives none. See its files, its splits and its batch size "
        "(a loader that drops the last batch needs at least one whole batch)."
    )


def _source(trainer: pl.Trainer) -> str:
    owner = trainer.fit_loop._data_source.instance
    return f"{type(owner).__name__}.train_dataloader()" if owner is not None else "the loader"


def _kept(trainer: pl.Trainer, reporter: Reporter, metric: str) -> tuple[Kept, bool]:
    """Return the model that is kept, and whether it was validated. Rank 0 knows."""
    kept = kept_model(trainer, reporter, metric)
    if kept.snapshot is not None:
        return kept, True
    return Kept(path=kept.path, snapshot=reporter.best), False  # what a trial that did not end is known by


def _validated(
    trainer: pl.Trainer, module: pl.LightningModule, data: Any, best: Path | None, logger: ChannelLogger, metric: str
) -> Snapshot:
    """Validate the model that is kept, since it was saved, or training ended, without a validation of it.

    Raises:
        ConfigError: Validation does not log the objective.
    """
    logger.is_silent = True  # it is no part of the curve
    trainer.validate(
        module,
        datamodule=data,
        ckpt_path=None if best is None else str(best),
        weights_only=best is None,  # as in testing
        verbose=False,
    )
    logger.is_silent = False
    metrics = numbers_in(trainer.callback_metrics)
    if metric not in metrics:
        raise ConfigError(
            f"No model was saved when {metric!r} was logged, so that its value is that of no model which is kept. Let "
            "a ModelCheckpoint save then: callbacks=default, without every_n_train_steps and train_time_interval."
        )
    return Snapshot(moment=-1, epoch=-1, metrics=metrics, value=metrics[metric])


def _tell_trace(
    tracer: Tracer,
    operations: Collection[str],
    data: Any,
    known: Mapping[str, Any] | None,
    channel: Channel,
    ranks: Ranks,
) -> None:
    """Say what the samples were, and that the trace is whole. All ranks have the same data set; rank 0 looks."""
    if not ranks.is_first:
        return
    if operations:
        tracer.file.tell_operations(sorted(operations))
    if known is None:
        known = data_content(tracer.loaders)
        channel.send(DataContent(content=dict(known), ignores=tuple(getattr(data, "content_ignores", ()))))
    tracer.file.tell_data(known)
    channel.send(Artifact(path=str(tracer.file.path)))


def seed_process(seed: int) -> None:
    """Seed what is drawn before the first batch, initial weights above all, and Lightning's loader workers.

    Does what Lightning's `seed_everything(workers=True)` does.
    """
    os.environ["PL_GLOBAL_SEED"], os.environ["PL_SEED_WORKERS"] = str(seed), "1"
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)  # takes effect when CUDA starts
    seed_streams(seed)


def metric_is_missing(metric: str, logged: Any) -> ConfigError:
    """Explain that the objective is never logged, and what is; or that there was no validation to log it."""
    if metric in logged:
        return ConfigError(
            f"{metric!r}, which study.metric (for `train`: objective.metric) names, never came to be reported: "
            "training ended before its first validation. See trainer.check_val_every_n_epoch and trainer.max_steps."
        )
    if metric == "num_params":
        return ConfigError(
            "num_params does not change while a model trains, so that no training can be judged by it. Name a metric "
            "that the model logs beside it, such as objective.metric=val/acc objective.direction=maximize."
        )
    return ConfigError(
        f"The model never logs {metric!r}, which study.metric (for `train`: objective.metric) names. It logs "
        f"{', '.join(sorted(logged)) or 'nothing'}. {did_you_mean(metric, logged)}"
    )


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
    """Tell whether a loader goes on by itself where it was saved, and so must be asked once."""
    return hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")


class _Stop(Callback):
    """Stops after an epoch, or within it; what was to come is not trained, and schedules that know the end go as ever.

    It counts batches, as the trace does: optimizers step once, several times or not at all in each. Where the epoch
    ends by itself it is let alone until then, since Lightning validates and logs more when it is stopped before.
    """

    def __init__(self, after: StopAfter) -> None:
        self._after = after
        self._num_batches = 0

    def on_train_epoch_start(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Count anew."""
        self._num_batches = 0

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        """Count."""
        self._num_batches += 1

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Stop within the epoch if it is time to."""
        is_there = trainer.current_epoch >= self._after.epoch and self._num_batches >= self._after.batches
        if is_there and not trainer.is_last_batch:
            stop(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Stop after the epoch."""
        if trainer.current_epoch >= self._after.epoch:
            stop(trainer)


class _End(Callback):
    """Notes the weights that training ends with: callbacks may put others in their place, such as averages."""

    def __init__(self) -> None:
        self._weights: str | None = None

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note them; it is the first callback."""
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
    """Make the Trainer of a rank: the config's arguments, and the platform's own.

    `on_save` is called with each checkpoint before it is saved.

    Raises:
        ConfigError: Lightning refuses an argument, or a combination of them.
    """
    settings = config["trainer"]
    if settings["deterministic"] not in (True, False, "warn"):
        raise ConfigError(f"trainer.deterministic must be true, false or warn, but got {settings['deterministic']!r}.")
    strategy = settings["strategy"]
    plugins: list[Any] = [] if strategy == "auto" and ranks.size == 1 else [JoinedEnvironment(ranks.place)]
    if settings["sync_batchnorm"]:
        from sweeps.worker.sync_batchnorm import SyncBatchNorm

        plugins.append(SyncBatchNorm())
    own = {
        "profiler": settings["profiler"] or NoProfiler(),
        "strategy": build(strategy, key="trainer.strategy", allowed=allowed)
        if isinstance(strategy, dict)
        else strategy,
        "sync_batchnorm": False,  # a plugin does it, on every device
    }
    try:
        trainer = pl.Trainer(
            **settings | own,
            plugins=plugins,
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
            f"trainer.strategy={strategy} would start processes of its own, which the launcher does: use ddp."
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


def _restated(kept: Mapping[str, float], last: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of the model that is kept, where the last ones are others.

    Logged last, they are what MLflow shows and sorts by.
    """

    def is_other(name: str, value: float) -> bool:
        return value != last[name] and not (math.isnan(value) and math.isnan(last[name]))

    own_words = ("epoch", "step")  # by which Lightning and the readers of a history know where a point is
    return {k: v for k, v in kept.items() if k in last and k not in own_words and is_other(k, v)}


def has_test(data: Any, module: pl.LightningModule) -> bool:
    """Tell whether there is something to test, and a way to."""

    def is_own(instance: Any, base: type, name: str) -> bool:
        return getattr(type(instance), name, None) is not getattr(base, name)

    owner, base = (module, pl.LightningModule) if data is None else (data, pl.LightningDataModule)
    return is_own(owner, base, "test_dataloader") and is_own(module, pl.LightningModule, "test_step")


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
