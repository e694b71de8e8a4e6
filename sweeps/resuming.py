"""Save where a trial can go on after a crash or an interruption, at a bounded price."""

import time
from collections.abc import Callable
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loops.loop import _Loop

from sweeps.channel import Channel
from sweeps.core.messages import Saved
from sweeps.ranks import Ranks
from sweeps.telemetry import logged_step

__all__ = ["ResumePoint"]

_FIRST_COST_S = 0.05  # what a save is assumed to cost before one has been measured


class ResumePoint(Callback):
    """Saves the whole state of training at the start of an epoch, once enough time has passed to pay for it.

    A trial that goes on from there does the same steps on the same batches as one that was never cut off, since all
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
