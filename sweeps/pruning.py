"""Report the objective after each validation, know which model each number is of, and stop when the driver says so."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor

from sweeps.channel import Channel
from sweeps.core.messages import Answer, Report
from sweeps.ranks import Ranks

__all__ = ["DivergedError", "Reporter", "Snapshot", "is_of_training", "moment", "numbers_in", "stop"]

_GO = Answer(prune=False)
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

        def ask() -> Answer:
            _require_number(logged, filter(_is_training_loss, logged), trainer)
            if self._is_reported or self._metric not in logged:
                return _GO
            now = self._snapshots.get(moment(trainer))
            if now is None:
                now = Snapshot(moment=moment(trainer), epoch=trainer.current_epoch, metrics=logged)
                self._keep(now)
            return self._report(now)

        self._obey(trainer, ask)

    def _obey(self, trainer: pl.Trainer, ask: Callable[[], Answer]) -> None:
        """Let rank 0 report if it is time to, and do what the driver answers; what it raises, all ranks raise."""
        answer = self._ranks.decide(ask)
        if answer.prune and self.pruned is None:
            self.pruned = answer.reason
            stop(trainer)

    def _logged(self, trainer: pl.Trainer) -> dict[str, float]:
        """Return what the loop that ends has logged, on rank 0; `callback_metrics` keeps what others have, too.

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

    def _report(self, snapshot: Snapshot) -> Answer:
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
