"""Report the objective after each validation, and stop when the driver says so."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor

from sweeps.channel import Channel
from sweeps.ranks import Ranks
from sweeps.records import Answer, Report

__all__ = ["Reporter"]


class Reporter(Checkpoint):
    """Reports the objective, keeps the metrics of the best epoch, and stops a trial that is pruned.

    It is a `Checkpoint` to Lightning, since only such callbacks run after the module's own `on_train_epoch_end`:
    an objective logged there is reported too, and `ModelCheckpoint`, which comes before, has saved the epoch.

    Rank 0 alone judges and reports. Where the driver answers, all ranks hear the answer in one broadcast and act on
    it after that.

    Attributes:
        value: The best objective so far, on rank 0; None before the first report.
        metrics: The validation metrics of that epoch, on rank 0.
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
        self.value: float | None = None
        self.metrics: dict[str, float] = {}
        self.pruned: str | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return what a trial that goes on must know."""
        return {"value": self.value, "metrics": dict(self.metrics), "num_reports": self._num_reports}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what was reported before."""
        self.value = state_dict["value"]
        self.metrics = dict(state_dict["metrics"])
        self._num_reports = state_dict["num_reports"]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Await the epoch's value."""
        self._is_reported = False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report an objective that validation logs."""
        if not trainer.sanity_checking:
            self._obey(trainer, lambda: self._was_logged(trainer))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report an objective that training logs."""
        self._obey(trainer, lambda: not self._is_reported and self._was_logged(trainer))

    def _obey(self, trainer: pl.Trainer, is_due: Callable[[], bool]) -> None:
        """Report if it is time to, and do what the driver answers."""
        metrics = trainer.callback_metrics  # on every rank: what was logged is summed over them when first asked for

        def ask() -> Answer:
            return self._report(metrics) if is_due() else Answer(prune=False)

        if self._channel.answers:
            answer = self._ranks.decide(ask)
        elif self._ranks.is_first:
            answer = ask()
        else:
            return
        if answer.prune and self.pruned is None:
            self.pruned = answer.reason
            stop(trainer)

    def _was_logged(self, trainer: pl.Trainer) -> bool:
        """Tell whether the loop that ends has logged the objective; `callback_metrics` keeps old values, too."""
        results = trainer._results
        names = [item.meta.name for item in results.values()] if results is not None else []
        return any(
            self._metric in (name, f"{name}_step", f"{name}_epoch")
            or self._metric.startswith(f"{name}/dataloader_idx_")
            for name in names
        )

    def _report(self, metrics: Mapping[str, Tensor]) -> Answer:
        """Keep the value if it is the best, and pass it on."""
        answer = Answer(prune=False)
        if self._metric not in metrics:
            return answer
        value = float(metrics[self._metric])
        if self.value is None or self._is_better(value, self.value):
            self.value = value
            self.metrics = {k: float(v) for k, v in metrics.items() if k.startswith("val/") or k == self._metric}
        if self.pruned is None and not self._channel.stop_requested.is_set():
            answer = self._channel.report(Report(value=value, step=self._num_reports))
        self._num_reports += 1
        self._is_reported = True
        return answer

    def _is_better(self, value: float, best: float) -> bool:
        return self._sign * value > self._sign * best or (math.isnan(best) and not math.isnan(value))


def stop(trainer: pl.Trainer) -> None:
    """Stop training after the running step, `min_epochs` and `min_steps` notwithstanding."""
    trainer.should_stop = True
    trainer.fit_loop.min_epochs = 0
    trainer.fit_loop.epoch_loop.min_steps = 0
