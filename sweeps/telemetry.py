"""What a rank tells of its training while it goes on, and how it hears that it is to stop."""

import math
import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch.nn.parameter import is_lazy

from sweeps.channel import Channel
from sweeps.core.messages import Progress, Started
from sweeps.pruning import DivergedError, stop
from sweeps.ranks import Ranks

__all__ = ["DivergedError", "Telemetry", "logged_step", "num_parameters"]

_LONGEST_S = 1.0  # however long metrics are held back, signs of life and orders to stop are not


class Telemetry(Callback):
    """Records the training loss of every step, tells how far training is, and hears the order to stop.

    The loss is taken from the step's output and read from the device only when a message is due: logging every
    step costs microseconds, and no module need call `self.log` for it (0.4 ms a call). Every loss is judged, recorded
    or not: those that are not are added up on the device, times 0, which is 0 as long as all of them are finite.

    The number of parameters is sent when all of them exist: at the first step, or after it where modules are lazy.

    With several ranks, a message is due for all after the same batch. One sum over the ranks then carries the
    losses, which are recorded as their mean, and the orders to stop; so all ranks see a loss that is no longer
    finite at the same step, and stop at the same step. Rank 0 measures how many batches go by until the next
    message, instead of a collective at each step.

    Attributes:
        is_stopped: Whether training ended by an order.
        is_cut: Whether it did so within an epoch, whose end is then none that a training has which is left alone.
    """

    def __init__(self, channel: Channel, ranks: Ranks, *, log_every_n_steps: int, num_parameters: int = 0) -> None:
        self._channel = channel
        self._ranks = ranks
        self._every = log_every_n_steps
        self._num_parameters = num_parameters  # before the strategy has shared them out
        self._interval_s = min(channel.flush_interval_s, _LONGEST_S)
        self._losses: list[torch.Tensor] = []
        self._steps: list[int] = []
        self._unrecorded: torch.Tensor | None = None  # 0, or NaN if one of the losses was not finite
        self._last_step = -1
        self._num_batches = 0  # since the last message
        self._due_after = 1  # so many batches, where there are several ranks
        self._told_at = self._beat_at = 0.0
        self._began_s: float | None = None
        self._is_started = False
        self.is_stopped = False
        self.is_cut = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin at the step at which training begins: not the first where it goes on."""
        self._last_step = logged_step(trainer) - 1

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Tell once that the first training step begins."""
        if self._began_s is None:
            self._began_s = time.time()
            if not any(map(is_lazy, pl_module.parameters())):
                self._tell_size(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the step's loss; once in a while send what is kept."""
        if not self._is_started:
            self._tell_size(trainer, pl_module)
        # What the logger is told after this batch has this step; a batch that is accumulated belongs to the last one
        step = logged_step(trainer) - trainer.fit_loop._should_accumulate()
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, torch.Tensor) and loss.numel() == 1:  # manual optimization may return anything
            if self._every and step // self._every != self._last_step // self._every:
                self._losses.append(loss.detach().reshape(()))
                self._steps.append(step)
            elif self._unrecorded is None:
                self._unrecorded = (loss.detach().reshape(()) * 0.0).float()  # no float has what a double may
            else:
                self._unrecorded.add_(loss.detach().reshape(()).to(self._unrecorded.device), alpha=0.0)
        self._last_step = step
        self._num_batches += 1
        self._beat(trainer)
        if self._is_due() and self._tell(trainer):
            self.is_stopped = True
            self.is_cut = not (trainer.is_last_batch or trainer.global_step == trainer.max_steps)
            stop(trainer)

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Show that validation goes on."""
        self._beat(trainer)

    def on_test_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Show that testing goes on."""
        self._beat(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Send what is kept; whether to stop is a question for the next batch, if there is one."""
        if self._tell(trainer):
            self._due_after = 1  # on all ranks alike, else epochs shorter than the wait would never hear it
        self._beat(trainer, is_due=True)

    def _tell_size(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Say that training has begun, and how large the model is."""
        assert self._began_s is not None
        self._is_started = True
        size = num_parameters(module)
        if trainer.world_size > 1:  # a rank may hold a part of what was there before
            size = max(size, self._num_parameters)
        self._channel.send(Started(time_s=self._began_s, num_parameters=size))

    def _is_due(self) -> bool:
        if self._ranks.size > 1:
            return self._num_batches >= self._due_after
        is_late = time.monotonic() - self._told_at > self._channel.flush_interval_s
        return is_late or self._channel.stop_requested.is_set()

    def _tell(self, trainer: pl.Trainer) -> bool:
        """Send what is kept, and return whether any rank is told to stop."""
        now = time.monotonic()
        losses, doubt, is_stop, self._due_after = self._sum(self._next_due(now - self._told_at))
        self._told_at, self._num_batches = now, 0
        # Lightning divides the loss of an accumulated batch; its logged value is the whole one
        losses = [loss * trainer.accumulate_grad_batches for loss in losses]
        if "train/loss_step" not in trainer.logged_metrics:  # a module that logs it itself has the say
            for step, loss in zip(self._steps, losses, strict=True):
                self._channel.log({"train/loss_step": loss}, step)
        diverged = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), None)
        if diverged is not None:
            self._channel.flush()
            raise DivergedError(f"the training loss became {losses[diverged]} at step {self._steps[diverged]}")
        if not math.isfinite(doubt):
            raise DivergedError(f"the training loss was not a finite number at a step up to {self._last_step}")
        self._losses.clear()
        self._steps.clear()
        return is_stop

    def _sum(self, next_due: int) -> tuple[list[float], float, bool, int]:
        """Return what all ranks say together.

        That is their mean losses, 0 or NaN for the losses that are not recorded, whether any rank is told to stop, and
        when rank 0 wants the next message.
        """
        doubt = 0.0 if self._unrecorded is None else self._unrecorded.item()
        words = [doubt, float(self._channel.stop_requested.is_set()), float(next_due if self._ranks.is_first else 0)]
        if self._ranks.size == 1:
            losses = torch.stack(self._losses).tolist() if self._losses else []
            return losses, doubt, bool(words[1]), next_due
        own = [loss.double().reshape(1) for loss in self._losses]
        summed = self._ranks.sum(
            torch.cat([*own, torch.tensor(words, dtype=torch.float64).to(own[0].device if own else "cpu")])
        )
        *losses, doubt, is_stop, due = summed.tolist()
        return [loss / self._ranks.size for loss in losses], doubt, is_stop > 0, int(due)

    def _next_due(self, elapsed_s: float) -> int:
        """Return how many batches fit between two messages; four times more than last time at most."""
        per_batch_s = elapsed_s / max(1, self._num_batches)
        return max(1, min(4 * self._due_after, int(self._interval_s / per_batch_s)))

    def _beat(self, trainer: pl.Trainer, is_due: bool = False) -> None:
        """Tell how far training is, once in a while: the sign that this rank makes progress."""
        now = time.monotonic()
        if not is_due and now - self._beat_at <= self._interval_s:
            return
        self._beat_at = now
        self._channel.send(
            Progress(
                epoch=trainer.current_epoch,
                max_epochs=-1 if trainer.max_epochs is None else trainer.max_epochs,
                step=trainer.global_step,
                num_steps=_num_steps(trainer, trainer.num_training_batches),
            )
        )


def num_parameters(module: torch.nn.Module) -> int:
    """Count the parameters that exist, those that are not trained included; lazy ones exist after the first batch."""
    return sum(parameter.numel() for parameter in module.parameters() if not is_lazy(parameter))


def logged_step(trainer: pl.Trainer) -> int:
    """Return the step of the metrics that Lightning logs next.

    It counts batches after which an optimizer may step: where a module optimizes by itself, `global_step` has several
    steps of such a batch, or none.
    """
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def _num_steps(trainer: pl.Trainer, num_batches: float) -> int:
    if trainer.max_steps >= 0:
        return trainer.max_steps
    if trainer.max_epochs in (None, -1) or math.isinf(num_batches):
        return -1
    return trainer.max_epochs * math.ceil(num_batches / trainer.accumulate_grad_batches)
