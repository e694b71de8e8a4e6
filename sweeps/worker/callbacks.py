"""The callbacks that report to the driver: the objective after each validation, and the progress of training.

`Reporter` knows which model each number belongs to, and stops a trial that is pruned. `Telemetry` records the loss of
each step, sends signs of life, and stops on the driver's order.
"""

import math
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, Checkpoint
from torch import Tensor
from torch.nn.parameter import is_lazy

from sweeps.core.messages import Progress, PruneDecision, Report, Started
from sweeps.worker.channel import Channel
from sweeps.worker.process_group import Ranks

__all__ = [
    "DivergedError",
    "Reporter",
    "Snapshot",
    "Telemetry",
    "is_of_training",
    "logged_step",
    "moment",
    "num_parameters",
    "numbers_in",
    "stop",
]

_GO = PruneDecision(prune=False)
_LONGEST_S = 1.0  # however long metrics are held back, signs of life and orders to stop are not
_WORDS_OF_A_TRAINING_LOSS = {"train", "training", "loss", "epoch"}


class DivergedError(RuntimeError):
    """The training loss or the objective is no longer a number."""


@dataclass(slots=True, kw_only=True)
class Snapshot:
    """What was logged of one state of the model.

    Attributes:
        moment: The batches that had been trained by then: what was logged and what was saved at the same moment belong
            together.
        epoch: The epoch in which that was.
        metrics: What the validation logged, whatever it is called, and what training logged of this epoch.
        value: The objective; None where it was not logged.
    """

    moment: int
    epoch: int
    metrics: dict[str, float] = field(default_factory=dict)
    value: float | None = None


class Reporter(Checkpoint):
    """Reports the objective, keeps what was logged of each model that may be kept, and stops a trial that is pruned.

    It is a `Checkpoint` to Lightning, since only such callbacks run after the module's own `on_train_epoch_end`:
    an objective logged there is reported too, and `ModelCheckpoint`, which comes before, has saved the epoch.

    Rank 0 alone judges and reports. All ranks hear its answer in one broadcast and act on it after that.

    Attributes:
        best: The snapshot with the best objective so far, on rank 0; None before the first report.
        saved: The moment of each checkpoint that exists, by its path.
        is_of_validation: Whether a validation has logged the objective: then any model can be judged by another one.
        training: What training has logged of the last epoch that has ended, on rank 0.
        pruned: The reason why the trial is pruned, or None.
    """

    def __init__(
        self, channel: Channel, ranks: Ranks, *, metric: str, direction: Literal["maximize", "minimize"]
    ) -> None:
        self._channel = channel
        self._ranks = ranks
        self._metric = metric
        self._sign = 1.0 if direction == "maximize" else -1.0
        self._num_reports = 0
        self._is_reported = False
        self._snapshots: dict[int, Snapshot] = {}
        self._seen: dict[str, Any] = {}  # the values of `callback_metrics` at the last look
        self.best: Snapshot | None = None
        self.saved: dict[str, int] = {}
        self.is_of_validation = False
        self.training: dict[str, float] = {}
        self.pruned: str | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return what a trial that is resumed must know."""
        return {
            "snapshots": [asdict(snapshot) for snapshot in self._snapshots.values()],
            "best": None if self.best is None else asdict(self.best),
            "saved": dict(self.saved),
            "is_of_validation": self.is_of_validation,
            "num_reports": self._num_reports,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what was reported before; a state of an earlier Lightsweep has only the best value and metrics."""
        self._num_reports = state_dict["num_reports"]
        if "snapshots" not in state_dict:
            if state_dict["value"] is not None:
                known = {"metrics": dict(state_dict["metrics"]), "value": state_dict["value"]}
                self.best = Snapshot(moment=-1, epoch=-1, **known)
            return
        self._snapshots = {each["moment"]: Snapshot(**each) for each in state_dict["snapshots"]}
        best = state_dict["best"]
        self.best = None if best is None else self._snapshots.get(best["moment"], Snapshot(**best))
        self.saved = dict(state_dict["saved"])
        self.is_of_validation = state_dict.get("is_of_validation", True)

    def snapshot(self, moment: int) -> Snapshot | None:
        """Return what was logged of the model of this moment, if its objective was."""
        found = self._snapshots.get(moment)
        return None if found is None or found.value is None else found

    def is_better(self, value: float, than: float) -> bool:
        """Return whether one value of the objective is better than another."""
        return self._sign * value > self._sign * than

    def note_saved(self, trainer: pl.Trainer, path: Path) -> None:
        """Remember of which moment a checkpoint is that is about to be saved."""
        self.saved = {each: when for each, when in self.saved.items() if Path(each).exists()}
        self.saved[str(path)] = moment(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Await the epoch's value."""
        self._is_reported = False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep what validation has logged, and report an objective that is among it."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        logged = self._logged(trainer)
        now = Snapshot(moment=moment(trainer), epoch=trainer.current_epoch, metrics=logged)
        self._keep(now)
        self.is_of_validation = self.is_of_validation or self._metric in logged
        self._obey(trainer, lambda: self._report(now) if self._metric in logged else _GO)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add what training has logged of this epoch, and report an objective that is only there."""
        logged = self.training = self._logged(trainer)
        for snapshot in self._snapshots.values():
            if snapshot.epoch == trainer.current_epoch:
                snapshot.metrics = logged | snapshot.metrics

        def ask() -> PruneDecision:
            _require_number(logged, filter(_is_training_loss, logged), trainer)
            if self._is_reported or self._metric not in logged:
                return _GO
            now = self._snapshots.get(moment(trainer))
            if now is None:
                now = Snapshot(moment=moment(trainer), epoch=trainer.current_epoch, metrics=logged)
                self._keep(now)
            return self._report(now)

        self._obey(trainer, ask)

    def _obey(self, trainer: pl.Trainer, ask: Callable[[], PruneDecision]) -> None:
        """Let rank 0 report if it is time to, and do what the driver answers; what it raises, all ranks raise."""
        answer = self._ranks.decide(ask)
        if answer.prune and self.pruned is None:
            self.pruned = answer.reason
            stop(trainer)

    def _logged(self, trainer: pl.Trainer) -> dict[str, float]:
        """Return what the loop that ends has logged, on rank 0; `callback_metrics` also keeps what others have.

        That is what went through `log`, and what somebody has put into `callback_metrics` since the last look.
        """
        metrics = trainer.callback_metrics  # on every rank: what was logged is summed over them when first asked for
        before, self._seen = self._seen, dict(metrics)
        if not self._ranks.is_first:
            return {}
        loop = trainer.fit_loop.epoch_loop
        own = _names(trainer._results, lambda item: not item.has_reset)
        of_others = _names(loop._results) | _names(loop.val_loop._results)
        names = own | {name for name in metrics if name not in of_others and metrics[name] is not before.get(name)}
        return numbers_in({name: value for name, value in metrics.items() if name in names})

    def _keep(self, snapshot: Snapshot) -> None:
        """Remember a snapshot, and forget those of models that cannot be kept any more."""
        needed = {*self.saved.values(), *([] if self.best is None else [self.best.moment])}
        self._snapshots = {when: one for when, one in self._snapshots.items() if when in needed}
        self._snapshots[snapshot.moment] = snapshot

    def _report(self, snapshot: Snapshot) -> PruneDecision:
        """Note the objective of a snapshot, and pass it on.

        Raises:
            DivergedError: It is not a number.
        """
        value = snapshot.value = snapshot.metrics[self._metric]
        if self.best is None or self.best.value is None or self.is_better(value, self.best.value):
            self.best = snapshot
        answer = _GO
        if self.pruned is None and not self._channel.stop_requested.is_set():
            answer = self._channel.report(Report(value=value, step=self._num_reports))
        self._num_reports += 1
        self._is_reported = True
        if math.isnan(value):
            raise DivergedError(f"the objective {self._metric} became {value} in epoch {snapshot.epoch}")
        return answer


def moment(trainer: pl.Trainer) -> int:
    """Return how many batches have been trained so far: the state of the model, as far as training changes it."""
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress.total
    return int(progress.processed)


def is_of_training(trainer: pl.Trainer, name: str) -> bool:
    """Return whether the training of this epoch logs a metric, and validation does not."""
    loop = trainer.fit_loop.epoch_loop
    return name in _names(loop._results) and name not in _names(loop.val_loop._results)


def numbers_in(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return what is a single number of what was logged, or put there by somebody."""
    return {
        name: float(value)
        for name, value in metrics.items()
        if (isinstance(value, Tensor) and value.numel() == 1) or isinstance(value, int | float)
    }


def stop(trainer: pl.Trainer) -> None:
    """Stop training after the running step, `min_epochs` and `min_steps` notwithstanding."""
    trainer.should_stop = True
    trainer.fit_loop.min_epochs = 0
    trainer.fit_loop.epoch_loop.min_steps = 0


def _names(results: Any, counts: Callable[[Any], bool] = lambda item: True) -> set[str]:
    """Return the names under which `callback_metrics` has what a loop logs; what an earlier epoch logged is reset."""
    found: set[str] = set()
    for item in () if results is None else results.values():
        if counts(item):
            found.update(results._forked_name(item, on_step=False))
    return found


def _is_training_loss(name: str) -> bool:
    """Tell whether a metric is a training loss by its name: train/loss, train_loss, loss, loss_epoch."""
    words = set(re.split(r"[^a-z]+", name.lower())) - {""}
    return "loss" in words and words <= _WORDS_OF_A_TRAINING_LOSS


def _require_number(metrics: Mapping[str, float], names: Iterable[str], trainer: pl.Trainer) -> None:
    for name in names:
        if not math.isfinite(metrics[name]):
            raise DivergedError(f"{name} became {metrics[name]} in epoch {trainer.current_epoch}")


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
        """Begin at the step at which training begins: not the first if it is resumed."""
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
        """Send a sign of life during validation."""
        self._beat(trainer)

    def on_test_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Send a sign of life during testing."""
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
