"""Train what a frozen config describes: build, fit, choose the best model, test it. Runs in a rank."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from sweeps.config.composer import Config, fingerprint
from sweeps.core import paths
from sweeps.core.determinism import operations_without_form
from sweeps.core.errors import ConfigError, did_you_mean
from sweeps.core.messages import Artifact, DataContent, Finished, RankJob
from sweeps.core.secrets import reveal
from sweeps.worker.building import build_data, build_module
from sweeps.worker.callbacks import Reporter, Snapshot, Telemetry, logged_step, num_parameters, numbers_in
from sweeps.worker.channel import Channel
from sweeps.worker.checkpoints import Kept, ResumePoint, at_hand, kept_model, load_averages
from sweeps.worker.hashing import data_content
from sweeps.worker.logger import ChannelLogger
from sweeps.worker.process_group import Ranks
from sweeps.worker.tracer import Tracer
from sweeps.worker.trainer import (
    DerivedRandomness,
    FinalWeights,
    StopEarly,
    build_callbacks,
    quieten,
    seed_process,
    trainer_for,
)

__all__ = ["fit", "has_test", "metric_is_missing", "require_batches"]


def fit(config: Config, channel: Channel, ranks: Ranks, job: RankJob) -> Finished:
    """Train one trial and test its best checkpoint, as one of its ranks.

    Args:
        config: The frozen config, with its secrets hidden.
        channel: The line to the driver.
        ranks: The ranks of the trial, which have joined.
        job: The job: its folder, where to resume and to stop, what the config hides, what is known of code and data.

    Raises:
        ConfigError: A part of the config cannot be built, or the objective was never logged.
        DivergedError: The training loss became infinite or NaN.
        StoreError: The state to resume from may run code, and others than this user can have written it.
    """
    quieten()
    run = _TrainingRun(config, channel, ranks, job)
    run.train()
    is_whole = run.is_whole()
    if is_whole:
        run.require_objective()
    last = numbers_in(run.trainer.callback_metrics)
    kept = run.choose_model(is_whole=is_whole)
    value = None if kept.snapshot is None else kept.snapshot.value
    metrics = {} if kept.snapshot is None else dict(kept.snapshot.metrics)
    restated = _restated(metrics, last)
    is_stopped = run.telemetry.is_stopped
    if not is_stopped and job.stop_after is None:  # else it may be resumed
        channel.log(restated, step=logged_step(run.trainer) + 1)
    if kept.path is not None and config["tracking"]["log_checkpoint"]:
        channel.send(Artifact(path=str(kept.path), artifact_path=paths.CHECKPOINTS))
    if run.reporter.pruned is not None:
        run.send_trace()
        return Finished(state="pruned", reason=run.reporter.pruned, value=value, metrics=metrics)
    if is_stopped:
        run.send_unfinished_trace()
        return Finished(state="interrupted", reason="stopped", value=value, metrics=metrics)
    if config["test"] and has_test(run.data, run.module) and is_whole:
        tested = run.test(kept)
        again = {name: value for name, value in metrics.items() if name in tested and name not in restated}
        channel.log(again, step=logged_step(run.trainer) + 1)  # the test has logged another number by that name
        metrics = tested | metrics
    run.send_trace()
    return Finished(state="complete", value=value, metrics=metrics)


class _TrainingRun:
    """The data, the model and the Trainer of one trial in one rank, and the steps of its life.

    Attributes:
        data: The data module; None where the model has its own loaders.
        module: The model.
        reporter: Knows the objective of each model that was validated.
        telemetry: Knows whether training was ordered to stop.
        trainer: The Trainer.
    """

    def __init__(self, config: Config, channel: Channel, ranks: Ranks, job: RankJob) -> None:
        folder, own = Path(job.folder), fingerprint(config)
        config = reveal(config, job.hidden.get(own, ()))
        self._config, self._channel, self._ranks, self._job = config, channel, ranks, job
        seed_process(config["seed"])
        self.data = build_data(config, allowed=job.allowed_modules)
        self.module = build_module(config, allowed=job.allowed_modules)
        objective, tracking = config["objective"], config["tracking"]
        self.reporter = Reporter(channel, ranks, metric=objective["metric"], direction=objective["direction"])
        self.telemetry = Telemetry(
            channel,
            ranks,
            log_every_n_steps=tracking["log_every_n_steps"],
            num_parameters=num_parameters(self.module),
        )
        self._logger = ChannelLogger(channel, folder, lambda: self.telemetry.is_cut)
        self._resume_point = None if job.resume_step is None else paths.resume_point(folder, own, job.resume_step)
        self._final_weights = FinalWeights()
        self._tracer = Tracer(
            ranks,
            folder,
            config=own,
            seed=config["seed"],
            provenance=job.provenance,
            python_path=job.python_path,
        )
        self.trainer = trainer_for(
            config,
            ranks=ranks,
            logger=self._logger,
            callbacks=[
                self._tracer,
                self._final_weights,
                ResumePoint(
                    lambda step: paths.resume_point(folder, own, step),
                    channel,
                    ranks,
                    overhead=tracking["resume_overhead"],
                ),
                DerivedRandomness(config["seed"]),
                self.telemetry,
                *([] if job.stop_after is None else [StopEarly(job.stop_after)]),
                *build_callbacks(config, folder=folder, allowed=job.allowed_modules),
                self.reporter,
            ],
            folder=folder,
            allowed=job.allowed_modules,
            on_save=self.reporter.note_saved,
        )

    def train(self) -> None:
        """Train, from the resume point if there is one."""
        resume_from = self._resume_point
        if resume_from is not None and not resume_from.is_file():
            resume_from = None
        with operations_without_form() as self._operations:
            self.trainer.fit(
                self.module,
                datamodule=self.data,
                ckpt_path=None if resume_from is None else str(resume_from),
                # Callbacks may keep any object in a file that this trial wrote; see `load_what_is_judged`. Without a
                # file there may still be one that Lightning takes on SLURM, `hpc_ckpt_1.ckpt` in the trial's folder
                weights_only=resume_from is None,
            )

    def is_whole(self) -> bool:
        """Return whether training has come to its own end: nobody stopped it, and it was not to stop early."""
        is_stopping = self._ranks.decide(self._channel.stop_requested.is_set)
        return not (is_stopping or self.telemetry.is_stopped or self._job.stop_after is not None)

    def require_objective(self) -> None:
        """Require that there was data, and that the objective was logged.

        Raises:
            ConfigError: There was no batch, or the objective was never logged.
        """
        require_batches(self.trainer)
        if self._ranks.decide(lambda: self.reporter.best is None):
            raise metric_is_missing(self._config["objective"]["metric"], self.trainer.callback_metrics)

    def choose_model(self, *, is_whole: bool) -> Kept:
        """Return the best model that is kept, and validate it where no validation has seen it."""
        reporter, ranks = self.reporter, self._ranks
        kept, is_judged = ranks.decide(self._best_kept)
        load_averages(self.trainer)
        if ranks.decide(lambda: is_judged and kept.path is None and reporter.is_of_validation):
            has_changed = self._final_weights.has_changed(self.module)
            is_judged = ranks.sum(torch.tensor([float(has_changed)])).item() == 0
        if is_judged or not is_whole or reporter.pruned is not None:
            return kept
        best = at_hand(kept.path, ranks, Path(self._job.folder))
        snapshot = self._validate(best)
        if best is None:  # the last model, of which training has also logged something
            snapshot.metrics = reporter.training | snapshot.metrics
        return Kept(path=kept.path, snapshot=snapshot)

    def _best_kept(self) -> tuple[Kept, bool]:
        """Return the model that is kept, and whether it was validated. Rank 0 knows."""
        kept = kept_model(self.trainer, self.reporter, self._config["objective"]["metric"])
        if kept.snapshot is not None:
            return kept, True
        return Kept(path=kept.path, snapshot=self.reporter.best), False  # what an unfinished trial is known by

    def _validate(self, best: Path | None) -> Snapshot:
        """Validate the model that is kept, since it was saved, or training ended, without a validation of it.

        Raises:
            ConfigError: Validation does not log the objective.
        """
        metric = self._config["objective"]["metric"]
        self._logger.is_silent = True  # it is not part of the curve
        self.trainer.validate(
            self.module,
            datamodule=self.data,
            ckpt_path=None if best is None else str(best),
            weights_only=best is None,  # as in testing
            verbose=False,
        )
        self._logger.is_silent = False
        metrics = numbers_in(self.trainer.callback_metrics)
        if metric not in metrics:
            raise ConfigError(
                f"No model was saved when {metric!r} was logged, so that its value is not that of a model which is "
                "kept. Let a ModelCheckpoint save then: callbacks=default, without every_n_train_steps and "
                "train_time_interval."
            )
        return Snapshot(moment=-1, epoch=-1, metrics=metrics, value=metrics[metric])

    def test(self, kept: Kept) -> dict[str, float]:
        """Test the model that is kept, and return the metrics of the test."""
        best = at_hand(kept.path, self._ranks, Path(self._job.folder))
        self.trainer.test(
            self.module,
            datamodule=self.data,
            ckpt_path=None if best is None else str(best),
            # A module's saved hyperparameters may be any object in a file that this trial wrote
            weights_only=best is None,
            verbose=False,
        )
        return numbers_in(self.trainer.callback_metrics)

    def send_trace(self) -> None:
        """Complete the trace by the operations and the samples, and send it. Rank 0 does, for all."""
        if not self._ranks.is_first:
            return
        if self._operations:
            self._tracer.file.tell_operations(sorted(self._operations))
        content = self._job.known_data
        if content is None:
            content = data_content(self._tracer.loaders)
            ignores = tuple(getattr(self.data, "content_ignores", ()))
            self._channel.send(DataContent(content=dict(content), ignores=ignores))
        self._tracer.file.tell_data(content)
        self.send_unfinished_trace()

    def send_unfinished_trace(self) -> None:
        """Send the trace as it is: the training run may be resumed."""
        self._channel.send(Artifact(path=str(self._tracer.file.path)))


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
