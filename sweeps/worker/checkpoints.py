"""The checkpoints of a training run: which model counts, who may have written a file, and where a trial can resume.

`kept_model` chooses the best of the saved models. `load_what_is_judged` and `save_unwritable` guard the files against
other users. `ResumePoint` saves the state that a trial resumes from after an interruption, at a bounded cost.
"""

import os
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, WeightAveraging
from pytorch_lightning.loops.loop import _Loop

from sweeps.core import paths
from sweeps.core.errors import StoreError
from sweeps.core.messages import Saved
from sweeps.core.safe_yaml import opened
from sweeps.worker.callbacks import Reporter, Snapshot, is_of_training, logged_step, moment
from sweeps.worker.channel import Channel
from sweeps.worker.process_group import Ranks

__all__ = [
    "Kept",
    "ResumePoint",
    "at_hand",
    "kept_model",
    "load_averages",
    "load_what_is_judged",
    "save_unwritable",
    "save_when_training_logs",
    "skip_what_is_not_logged",
]

_FIRST_COST_S = 0.05  # what a save is assumed to cost before one has been measured
_OWN_AGAIN = "If it is as it should be, make it yours alone (chown and chmod go-w); or remove it, to start again."


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The model that a training run leaves, which is the one that is tested, recorded and promoted.

    Attributes:
        path: Its checkpoint; None for the model at the end of training, where nothing was saved.
        snapshot: What was logged of it; None where it was never validated.
    """

    path: Path | None
    snapshot: Snapshot | None


def kept_model(trainer: pl.Trainer, reporter: Reporter, metric: str) -> Kept:
    """Return the best model of all that were saved, by the objective that was logged of it.

    Of checkpoints of one model, that of a `ModelCheckpoint` which monitors the objective is the one. Where none was
    saved at a validation, it is the one that such a callback has chosen; where nothing was saved, the last model. It is
    also the last where only training logs the objective, and nothing was saved when it did: no validation can tell it.

    Args:
        trainer: The trainer, after training.
        reporter: Has what was logged, and when; on rank 0.
        metric: The objective.
    """
    best = Kept(path=None, snapshot=reporter.snapshot(moment(trainer)))
    unjudged: Path | None = None
    callbacks = [each for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint)]
    for callback in sorted(callbacks, key=lambda each: each.monitor != metric):
        for path in _saved_by(callback, reporter):
            when = reporter.saved.get(str(path))
            snapshot = None if when is None else reporter.snapshot(when)
            if snapshot is None:
                unjudged = unjudged or path
            elif best.path is None or _is_better(reporter, snapshot, best.snapshot):
                best = Kept(path=path, snapshot=snapshot)
    is_judged_last = best.snapshot is not None and not reporter.is_of_validation
    if best.path is None and unjudged is not None and not is_judged_last:
        return Kept(path=unjudged, snapshot=None)
    return best


def _saved_by(callback: ModelCheckpoint, reporter: Reporter) -> list[Path]:
    """Return the checkpoints of a callback that exist, the one that it calls the best first."""
    if not callback.dirpath:
        return []
    folder = Path(callback.dirpath).resolve()
    paths_ = dict.fromkeys([callback.best_model_path, *callback.best_k_models, *reporter.saved])
    # A state to resume from may name any file of this machine, which would become an artifact for all to read
    return [
        Path(path) for path in paths_ if path and Path(path).resolve().is_relative_to(folder) and Path(path).exists()
    ]


def _is_better(reporter: Reporter, one: Snapshot, other: Snapshot | None) -> bool:
    if other is None or other.value is None:
        return True
    return one.value is not None and reporter.is_better(one.value, other.value)


def skip_what_is_not_logged(callback: ModelCheckpoint) -> None:
    """Let a callback save nothing while its metric has not been logged, where Lightning would end the training run.

    An objective may come only after a warm-up, or only with each second validation.
    """
    save = callback._save_topk_checkpoint

    def save_if_logged(trainer: pl.Trainer, monitor_candidates: dict[str, torch.Tensor]) -> None:
        if callback.monitor is None or callback.monitor in monitor_candidates:
            save(trainer, monitor_candidates)

    callback._save_topk_checkpoint = save_if_logged  # type: ignore[method-assign]


def save_when_training_logs(callback: ModelCheckpoint) -> None:
    """Let a callback that is told nothing else save at the end of the epoch if only training logs its metric.

    At a validation within the epoch it would have the value of the epoch before.
    """
    decide = callback._should_save_on_train_epoch_end

    def at_epoch_end(trainer: pl.Trainer) -> bool:
        if callback._save_on_train_epoch_end is None and callback.monitor is not None:
            return decide(trainer) or is_of_training(trainer, callback.monitor)
        return decide(trainer)

    callback._should_save_on_train_epoch_end = at_epoch_end  # type: ignore[method-assign]


def load_averages(trainer: pl.Trainer) -> None:
    """Let what is validated and tested after training be the averaged weights, which the checkpoints have.

    A callback that has averaged in this Trainer would load those in place of them that training would go on with.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, WeightAveraging):
            callback._average_model = None


def load_what_is_judged(trainer: pl.Trainer) -> None:
    """Load a checkpoint that others can have written as plain data and tensors alone, and all that follows from it.

    Each rank judges the file that it has open, and loads from that: by its path, somebody could put another there.
    """
    strategy = trainer.strategy
    load_as_told, broadcast = strategy.load_checkpoint, strategy.broadcast
    has_foreign = False

    def load(checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        nonlocal has_foreign
        path = Path(checkpoint_path)
        with opened(path) as (file, is_own):
            has_foreign = has_foreign or not is_own
            weights_only = has_foreign or bool(weights_only)
            if weights_only and strategy.restore_checkpoint_after_setup:  # Lightning forgets what it was asked for
                raise StoreError(f"{path} is not loaded: others than you can have written it. {_OWN_AGAIN}")
            strategy.broadcast = _own_object  # type: ignore[method-assign]  # else rank 0's path would be every rank's
            try:
                return load_as_told(f"/dev/fd/{file.fileno()}", weights_only=weights_only)
            except pickle.UnpicklingError as error:
                if not weights_only:
                    raise
                raise StoreError(
                    f"{path} is not loaded: others than you can have written it, and it has more in it than weights, "
                    f"which might run. {_OWN_AGAIN}"
                ) from error
            finally:
                strategy.broadcast = broadcast  # type: ignore[method-assign]

    strategy.load_checkpoint = load  # type: ignore[method-assign]


def _own_object(obj: Any, src: int = 0) -> Any:
    return obj


def save_unwritable(trainer: pl.Trainer, on_save: Callable[[pl.Trainer, Path], None] = lambda *_: None) -> None:
    """Let nobody else write to the checkpoints of this trial, whatever the user's umask is: see `opened`.

    Nor is one written through a link that others have put in its place, which Lightning does from another disk.
    `on_save` is called with each checkpoint before it is saved.
    """
    save_as_told = trainer.save_checkpoint

    def save(filepath: str | Path, *arguments: Any, **more: Any) -> None:
        before = os.umask(0o022)
        os.umask(before | 0o022)
        if Path(filepath).is_symlink():
            Path(filepath).unlink(missing_ok=True)
        on_save(trainer, Path(filepath))
        try:
            save_as_told(filepath, *arguments, **more)
        finally:
            os.umask(before)

    trainer.save_checkpoint = save  # type: ignore[method-assign]


def at_hand(best: Path | None, ranks: Ranks, folder: Path) -> Path | None:
    """Return the best checkpoint where this rank can read it: a host without rank 0's disk gets a copy."""
    if best is None or ranks.place.num_nodes == 1:
        return best
    size, time_ns = ranks.decide(lambda: (best.stat().st_size, best.stat().st_mtime_ns))
    # A host may have a file of that name from a run of its own
    is_missing = not best.exists() or (best.stat().st_size, best.stat().st_mtime_ns) != (size, time_ns)
    if ranks.sum(torch.tensor([float(is_missing)])).item() == 0:
        return best
    content = ranks.decide(best.read_bytes)
    if not is_missing:
        return best
    copy = folder / paths.CHECKPOINTS / best.name
    copy.parent.mkdir(parents=True, exist_ok=True)
    paths.write_bytes(copy, content)
    return copy


class ResumePoint(Callback):
    """Saves the whole state of training at the start of an epoch, once enough time has passed to pay for it.

    A trial that resumes from there does the same steps on the same batches as one that was never cut off, since all
    random streams are derived from where training is. It is at the start of an epoch that nothing is half done: the
    epoch before is validated and logged, and schedules have moved on.

    The driver is told, after all that was sent of the steps before; it drops the files that are no longer needed.

    Args:
        path_at: The file for a step.
        channel: The line to the driver.
        ranks: The ranks of the trial, which save together when rank 0 finds it due.
        overhead: The share of the training time that saving may cost; 0 saves nothing.
        clock: The time in seconds; monotonic.
    """

    def __init__(
        self,
        path_at: Callable[[int], Path],
        channel: Channel,
        ranks: Ranks,
        *,
        overhead: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path_at = path_at
        self._channel = channel
        self._ranks = ranks
        self._overhead = overhead
        self._clock = clock
        self._cost_s = _FIRST_COST_S
        self._saved_at_s: float | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save, if it is time to; never before the first epoch of this process."""
        if self._saved_at_s is None:
            # Lightning would take the batches of the epoch for done, and leave out a step of the schedule at its end.
            # The loop's own setter makes True of False where `max_steps` is set
            _Loop.restarting.fset(trainer.fit_loop, False)  # type: ignore[attr-defined]
            self._saved_at_s = self._clock()
        elif self._overhead > 0 and self._ranks.decide(self._is_due):
            self._save(trainer)

    def _is_due(self) -> bool:
        assert self._saved_at_s is not None
        return self._clock() - self._saved_at_s >= self._cost_s / self._overhead

    def _save(self, trainer: pl.Trainer) -> None:
        began = self._clock()
        step = logged_step(trainer)  # metrics from there on come again
        path = self._path_at(step)
        half_done = path.with_suffix(".half")
        trainer.save_checkpoint(half_done)
        if self._ranks.is_first:
            half_done.replace(path)
        self._channel.send(Saved(step=step))
        self._saved_at_s = self._clock()
        self._cost_s = self._saved_at_s - began
