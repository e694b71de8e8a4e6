"""The rank's side of the check before the first trial: train two batches of each corner, and inspect the data.

The corners of the space come as frozen configs; the driver judges the results together (`driver/preflight.py`).
"""

import gc
import math
import pickle
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import (
    BatchSizeFinder,
    Callback,
    Checkpoint,
    EarlyStopping,
    LearningRateFinder,
    ModelCheckpoint,
    Timer,
)

from sweeps.config.composer import Config
from sweeps.core import paths
from sweeps.core.errors import ConfigError, did_you_mean
from sweeps.core.failure_text import one_line
from sweeps.core.messages import CheckPassed, CornerResult, DataContent, RankJob
from sweeps.worker.building import build_data, build_module
from sweeps.worker.channel import Channel
from sweeps.worker.checkpoints import skip_what_is_not_logged
from sweeps.worker.fit import has_test, metric_is_missing, require_batches
from sweeps.worker.hashing import data_content
from sweeps.worker.late_metrics import may_log
from sweeps.worker.logger import ChannelLogger
from sweeps.worker.probe import EnoughError, Probe
from sweeps.worker.process_group import Ranks
from sweeps.worker.trainer import DerivedRandomness, build_callbacks, quieten, seed_process, trainer_for

__all__ = ["compare", "inspect_data", "loader_of", "measure", "try_corners"]

_MOST_GARBAGE_BYTES = 500_000_000
_LEFT_OUT = (Checkpoint, Timer, BatchSizeFinder, LearningRateFinder)
"""Callbacks that stop or train by themselves, or save where they like."""
_BY_MODULE = "(of the module's configure_callbacks)"


def try_corners(corners: Sequence[Config], channel: Channel, ranks: Ranks, job: RankJob) -> CheckPassed:
    """Run the first corner from training to test, and train each other one for two batches; tell of each.

    All ranks run all corners alike: what a rank holds depends on the strategy, and whatever synchronises over the
    process group (metrics, batch normalisation) needs all of them.

    Args:
        corners: Configs at the ends of the search space, or the one config of a single run.
        channel: The line to the driver, which hears of each corner when it is done.
        ranks: The ranks of a trial, which have joined.
        job: Says where Lightning writes, what a `_target_` may name, and after how long the corners that are left are
            built, but not run.

    Raises:
        ConfigError: As `train.fit` would; a missing objective names the metrics that are logged; plain DDP would fail
            at the second step. The corner is the one after those that were told of.
    """
    began = time.monotonic()
    quieten()
    first = corners[0]
    attempt = _Attempt(first, channel, ranks, job)
    trainer = attempt.fit()
    data = attempt.data
    require_batches(trainer)
    passed = _judge_logged(first, trainer, attempt, job.judged)
    logged = passed.metrics
    if first["test"] and has_test(data, attempt.module):
        trainer = attempt.test(trainer)
        logged = tuple(sorted({*logged, *trainer.callback_metrics}))
    tried = attempt.result()
    channel.send(tried)
    del trainer
    garbage = _Garbage()
    garbage.add(tried)

    shared = _SharedData(first, data, job.allowed_modules)
    _try_all(corners[1:], shared, channel, garbage, ranks, job)
    passed = replace(
        passed, metrics=logged, num_parameters=tried.num_parameters, warnings=(*attempt.doubts, *passed.warnings)
    )
    return _timed(passed, ranks, began)


def measure(configs: Sequence[Config], channel: Channel, ranks: Ranks, job: RankJob) -> CheckPassed:
    """Train each config for two batches, and tell of each; the arguments are those of `check`."""
    began = time.monotonic()
    quieten()
    _try_all(configs, None, channel, _Garbage(), ranks, job)
    return _timed(CheckPassed(), ranks, began)


def compare(configs: Sequence[Config], channel: Channel, ranks: Ranks, job: RankJob) -> CheckPassed:
    """Train each config for some batches of two epochs with validation, and tell whether any of it differs.

    What two configs share as a digest they share to the bit: the losses, gradients, weights and all that is logged.
    The arguments are those of `check`; each config is built again, with its data, and what there is no time for is left
    out.
    """
    began = time.monotonic()
    quieten()
    garbage = _Garbage()
    for config in configs:
        if not ranks.decide(lambda: time.monotonic() - began < job.limit_s):
            break
        attempt = _Attempt(config, channel, ranks, job, num_batches=3, num_epochs=2)
        attempt.probe.note_end(attempt.fit(), attempt.module)
        tried = attempt.result()
        channel.send(tried)
        del attempt
        garbage.add(tried)
    return _timed(CheckPassed(), ranks, began)


def _try_all(
    configs: Sequence[Config],
    shared: "_SharedData | None",
    channel: Channel,
    garbage: "_Garbage",
    ranks: Ranks,
    job: RankJob,
) -> None:
    """Build each config, train it for two batches if there is time, and tell of it."""
    began = time.monotonic()
    for config in configs:
        # no validation, and so no end of an epoch, at which a schedule may ask for a metric of it
        attempt = _Attempt(config, channel, ranks, job, shared, num_epochs=0)
        if ranks.decide(lambda: time.monotonic() - began < job.limit_s):
            attempt.fit()
        tried = attempt.result()
        channel.send(tried)
        del attempt
        garbage.add(tried)


class _Attempt:
    """A config that is built, and trained as far as its probe wants to see it.

    Args:
        config: The config.
        channel: The line to the driver, to which nothing is logged.
        ranks: The ranks of the trial.
        job: The job.
        shared: The data module that several attempts have.
        how: What the probe wants to see; see `Probe`.

    Attributes:
        doubts: What failed in the shortened run, and could not be tried in a whole one.
    """

    def __init__(
        self,
        config: Config,
        channel: Channel,
        ranks: Ranks,
        job: RankJob,
        shared: "_SharedData | None" = None,
        **how: Any,
    ) -> None:
        self._config, self._channel, self.ranks, self._job = config, channel, ranks, job
        self._shared, self._how = shared, how
        self.doubts: list[str] = []
        self._build()

    def _build(self, **more: Any) -> None:
        config, allowed = self._config, self._job.allowed_modules
        self.probe = Probe(config, self.ranks, **self._how | more)
        seed_process(config["seed"])
        self.callbacks = build_callbacks(config, folder=Path(self._job.folder), allowed=allowed)
        self.data = build_data(config, allowed=allowed) if self._shared is None else self._shared.of(config)
        seed_process(config["seed"])  # whether the data has drawn numbers or not
        self.module = build_module(config, allowed=allowed)

    def fit(self) -> pl.Trainer:
        """Train, and return the Trainer.

        What fails may do so because it is watched (not all that torch can do allows hooks on saved tensors), or because
        it is shortened (an epoch's end that wants to have seen all samples). So it is tried again without either, for a
        limited time; what that does not decide is a doubt. Several ranks cannot agree on it: one may fail alone.
        """
        try:
            return self._fit()
        except Exception as error:
            is_whole_run = self._how.get("num_epochs", 1) > 0
            if not self._may_be_ours(error) or not (is_whole_run or self.probe.was_watching):
                raise
            doubt = one_line(error)
        self._build(has_hooks=False, whole_s=self._job.limit_s if is_whole_run else None)
        trainer = self._fit()
        if self.probe.is_cut:
            self.doubts.append(f"{doubt} (in two batches that were tried; a whole run takes too long to try).")
        return trainer

    def test(self, trainer: pl.Trainer) -> pl.Trainer:
        """Test, one batch of each loader, and return the Trainer; where that fails, all is tried whole, as in `fit`."""
        try:
            trainer.test(self.module, datamodule=self.data, verbose=False)
        except Exception as error:
            if not self._may_be_ours(error):
                raise
            doubt = one_line(error)
        else:
            return trainer
        self._build(has_hooks=False, whole_s=self._job.limit_s)
        trainer = self._fit()
        if not self.probe.is_cut:
            with suppress(EnoughError):
                trainer.test(self.module, datamodule=self.data, verbose=False)
        if self.probe.is_cut:
            self.doubts.append(f"{doubt} (in a batch that was tested; a whole run takes too long to try).")
        return trainer

    def _may_be_ours(self, error: Exception) -> bool:
        refused = (MemoryError, torch.OutOfMemoryError, ConfigError, FileNotFoundError, ImportError)
        return self.ranks.size == 1 and not isinstance(error, refused)

    def _fit(self) -> pl.Trainer:
        """Train by the real Trainer, with the real logger but silent.

        Callbacks that stop, or train by themselves to find a value, do nothing; those that save do so in the folder of
        the check, which finds out what cannot be saved.
        """
        config, folder = self._config, Path(self._job.folder)
        logger = ChannelLogger(self._channel, folder)
        logger.is_silent = True
        settings = {key: value for key, value in config["trainer"].items() if key != "max_time"}  # which stops
        trainer = trainer_for(
            config | {"trainer": settings | {"num_sanity_val_steps": 0}},
            ranks=self.ranks,
            logger=logger,
            callbacks=[
                DerivedRandomness(config["seed"]),
                self.probe,
                *(callback for callback in self.callbacks if _is_harmless(callback, folder)),
            ],
            folder=folder,
            allowed=self._job.allowed_modules,
        )
        _tame_those_of_the_module(trainer, folder)
        self.probe.shorten(trainer)
        with suppress(EnoughError):
            trainer.fit(self.module, datamodule=self.data)
        return trainer

    def result(self) -> CornerResult:
        """Return what was seen."""
        return self.probe.result(self.module)


def _judge_logged(config: Config, trainer: pl.Trainer, attempt: _Attempt, judged: Sequence[str]) -> CheckPassed:
    """Return what is logged, and which metrics the objective, `judged` or a callback need that are not there yet.

    Raises:
        ConfigError: The objective, or what a callback monitors, can never be logged; or the objectives of ranks differ.
    """
    objective, ranks = config["objective"]["metric"], attempt.ranks
    logged = tuple(sorted(trainer.callback_metrics))
    warnings, late = ranks.decide(lambda: _judge_missing(config, trainer, attempt, logged, judged))
    if ranks.decide(lambda: objective in logged):
        _require_same_objective(objective, trainer.callback_metrics.get(objective), ranks)
    return CheckPassed(metrics=logged, warnings=warnings, late=late)


def _judge_missing(
    config: Config, trainer: pl.Trainer, attempt: _Attempt, logged: tuple[str, ...], judged: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return warnings, and the metrics by which trials are judged that may come later.

    Raises:
        ConfigError: The objective, or what a callback monitors, can never be logged.
    """
    objective = config["objective"]["metric"]
    sources = [*trainer.lightning_module.modules(), *attempt.callbacks]
    texts = [text for part in ("model", "system", "data") for text in _texts_in(config[part])]

    def is_misspelt(name: str) -> bool:
        return bool(get_close_matches(name, logged, n=1, cutoff=0.9))

    def may_come(name: str, **how: bool) -> bool:
        return bool(attempt.doubts) or may_log(name, sources, texts, **how)  # what was cut has not logged all

    def may_come_late(name: str) -> bool:
        return may_come(name, by_variable=not is_misspelt(name))

    warnings: list[str] = []
    for key, monitor in _monitors(config, attempt.callbacks, trainer):
        if monitor in logged or monitor == objective:
            continue
        problem = f"{key}={monitor}: it is not logged in the first epoch, at whose end the callback asks for it."
        if not may_come(monitor) or (_BY_MODULE in key and is_misspelt(monitor)):  # it stands in the source here
            raise ConfigError(f"{problem} {did_you_mean(monitor, logged)}")
        warnings.append(problem)
    if objective not in logged and (objective == "num_params" or not may_come_late(objective)):
        raise metric_is_missing(objective, logged)
    missing = (name for name in dict.fromkeys([objective, *judged]) if name not in logged)
    late = tuple(name for name in missing if may_come_late(name))
    warnings += [
        f"{name}, by which trials are judged, was not logged in the two batches that were tried, but may come later. "
        f"Logged: {', '.join(logged) or 'nothing'}."
        for name in late
    ]
    return tuple(warnings), late


def _require_same_objective(objective: str, value: Any, ranks: Ranks) -> None:
    """Require that all ranks have logged the same objective, since only rank 0's counts.

    Raises:
        ConfigError: They have not.
    """
    own = torch.tensor([math.nan if value is None else float(value)], dtype=torch.float64).nan_to_num(nan=-1.0)
    first = ranks.decide(own.item)
    if ranks.sum((own != first).double()).item() > 0:
        raise ConfigError(
            f"Each of the {ranks.size} ranks has another {objective!r}, that of its own share of the samples: log it "
            "with self.log(..., sync_dist=True), or as a torchmetrics metric, so that all samples count."
        )


def _texts_in(node: Any) -> Iterator[str]:
    """Yield the texts of a part of a config."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict | list):
        for item in node.values() if isinstance(node, dict) else node:
            yield from _texts_in(item)


def _monitors(config: Config, callbacks: Iterable[Callback], trainer: pl.Trainer) -> Iterator[tuple[str, str]]:
    """Yield the keys and names of metrics without which callbacks would end training in its first epoch."""
    named = [(f"callbacks.{name}", it) for name, it in zip(config["callbacks"] or {}, callbacks, strict=True)]
    own = [it for it in trainer.callbacks if all(it is not other for other in callbacks)]  # type: ignore[attr-defined]
    named += [(f"{type(it).__name__} {_BY_MODULE}", it) for it in own]
    for name, callback in named:
        asks = isinstance(callback, EarlyStopping) and callback.strict
        if isinstance(callback, ModelCheckpoint):
            asks = callback.save_top_k != 0 and trainer.enable_validation
        monitor = getattr(callback, "monitor", None)
        if asks and monitor is not None:
            yield f"{name}.monitor", monitor


def _tame_those_of_the_module(trainer: pl.Trainer, folder: Path) -> None:
    """Treat callbacks that the module brings along (`configure_callbacks`) as those of the config."""
    connector = trainer._callback_connector
    attach = connector._attach_model_callbacks

    def attach_harmless() -> None:
        before = [id(callback) for callback in trainer.callbacks]  # type: ignore[attr-defined]
        attach()
        trainer.callbacks = [  # type: ignore[attr-defined]
            callback
            for callback in trainer.callbacks  # type: ignore[attr-defined]
            if id(callback) in before or _is_harmless(callback, folder)
        ]

    connector._attach_model_callbacks = attach_harmless  # type: ignore[method-assign]


def _is_harmless(callback: Callback, folder: Path) -> bool:
    """Tell whether a callback runs in a check. Some do so only because the module may ask the Trainer for them."""
    if isinstance(callback, EarlyStopping):
        callback._run_early_stopping_check = lambda trainer: None  # type: ignore[method-assign]
    if isinstance(callback, ModelCheckpoint):
        callback.dirpath = str(folder / paths.CHECKPOINTS)
        skip_what_is_not_logged(callback)  # that is judged later, see `_judge_logged`
        return True
    return not isinstance(callback, _LEFT_OUT)


class _SharedData:
    """The data module of the first corner, for all corners with the same data.

    It is not set up again, which may take long, unless it has something of its own to tear down.
    """

    def __init__(self, first: Config, data: Any, allowed: Sequence[str]) -> None:
        self._node, self._data, self._allowed = first["data"], data, allowed
        if getattr(type(data), "teardown", None) is pl.LightningDataModule.teardown:
            data.setup = lambda stage: None
            data.prepare_data = lambda: None

    def of(self, config: Config) -> Any:
        """Return the data module of a config."""
        if config["data"] == self._node:
            return self._data
        return build_data(config, allowed=self._allowed)


class _Garbage:
    """Frees what was tried: a module and its trainer hold each other.

    It waits until there is much, since to look for it takes longer than to run a small corner.
    """

    def __init__(self) -> None:
        self._num_bytes = 0

    def add(self, tried: CornerResult) -> None:
        """Count something that is not needed any more."""
        self._num_bytes += tried.memory.total if tried.memory is not None else 4 * tried.num_parameters
        if self._num_bytes > _MOST_GARBAGE_BYTES:
            gc.collect()
            self._num_bytes = 0


def _timed(passed: CheckPassed, ranks: Ranks, began: float) -> CheckPassed:
    return replace(passed, device_bytes=_device_bytes(ranks), duration_s=time.monotonic() - began)


def _device_bytes(ranks: Ranks) -> int | None:
    """Return how much memory of its GPU this rank could have; None if it has used none."""
    if not torch.cuda.is_available() or not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return None
    free, _ = torch.cuda.mem_get_info(ranks.place.local_rank)
    return free + torch.cuda.memory_reserved(ranks.place.local_rank)


def inspect_data(configs: Sequence[Config], channel: Channel, ranks: Ranks, job: RankJob) -> CheckPassed:
    """Send what the samples of the first config are, before training; the arguments are those of `try_corners`.

    Raises:
        FileNotFoundError: The data is not on this machine.
        ConfigError: The data cannot be built.
    """
    config = configs[0]
    seed_process(config["seed"])
    data = build_data(config, allowed=job.allowed_modules)
    with suppress(Exception):  # training will tell
        build_module(config, allowed=job.allowed_modules)  # as it does first: a split may be drawn after the weights
    if ranks.is_first and data is None:  # the module has the loaders: what is in them is seen as it trains
        channel.send(DataContent(content={}))
    elif ranks.is_first and data is not None:
        data.prepare_data()
        data.setup("fit")
        loaders = {name: loader_of(data, name) for name in ("train", "val")}
        before = _streams()
        data.setup("test")
        test = loader_of(data, "test")
        if _streams() == before:  # else it is drawn after all of training, and not known before
            loaders["test"] = test
        channel.send(DataContent(content=data_content(loaders)))
    return CheckPassed()


def loader_of(data: Any, split: str) -> Any:
    """Return the loader of a split; None where the data has none, or makes one for a Trainer alone."""
    try:
        return getattr(data, f"{split}_dataloader")()
    except Exception:  # Lightning raises several kinds for a method that is not there; training will tell
        return None


def _streams() -> tuple[object, ...]:
    """Return where the random streams of this process are."""
    return torch.get_rng_state().tolist(), random.getstate(), pickle.dumps(np.random.get_state())
