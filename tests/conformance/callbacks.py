"""Callbacks of a user's, each odd in one way."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import BaseFinetuning, Callback, EarlyStopping, ModelCheckpoint, WeightAveraging


class LogsAtValidation(Callback):
    """Logs the objective in place of the module."""

    def __init__(self, name: str = "val/by_callback"):
        self.name, self.hits, self.seen = name, 0, 0

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.hits = self.seen = 0

    def on_validation_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *rest: Any) -> None:
        with torch.no_grad():
            self.hits += (pl_module.scores(batch[0]).argmax(1) == batch[1]).sum()
        self.seen += len(batch[1])

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        pl_module.log(self.name, self.hits / self.seen)


class LogsAtEpochEnd(Callback):
    """Logs at the end of the training epoch; by the module, or (`of_callback`) by itself."""

    def __init__(self, name: str = "norm", of_callback: bool = False):
        self.name, self.of_callback = name, of_callback

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        log = self.log if self.of_callback else pl_module.log
        log(self.name, pl_module.layer.weight.norm())


class Stops(Callback):
    def __init__(self, after: int = 1):
        self.after = after

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.current_epoch >= self.after:
            trainer.should_stop = True


class StopsAtStep(Callback):
    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.global_step == 8:
            trainer.should_stop = True


class Draws(Callback):
    """Takes numbers from the streams, and changes weights by them."""

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *rest: Any) -> None:
        with torch.no_grad():
            pl_module.layer.weight += 0.001 * torch.randn(10, 64)

    def on_validation_start(self, *args: Any) -> None:
        torch.rand(3)


class Counts(Callback):
    """Has a state in the checkpoint, and asks when the test takes it."""

    def __init__(self) -> None:
        self.num_batches = 0
        self.items: dict[Any, Any] = {}

    def on_train_batch_end(self, *args: Any) -> None:
        self.num_batches += 1
        self.items[(self.num_batches, "batch")] = torch.Size([2])

    def state_dict(self) -> dict[str, Any]:
        return {"num_batches": self.num_batches, "items": self.items}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.num_batches, self.items = state_dict["num_batches"], state_dict["items"]


class Swaps(Callback):
    """Validates and tests with averaged weights, as home-made EMA does."""

    def __init__(self, decay: float = 0.8):
        self.decay, self.mean, self.own = decay, {}, {}

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *rest: Any) -> None:
        for name, tensor in pl_module.state_dict().items():
            before = self.mean.get(name, tensor)
            self.mean[name] = (self.decay * before + (1 - self.decay) * tensor).detach().clone()

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if self.mean:
            self.own = {name: tensor.clone() for name, tensor in pl_module.state_dict().items()}
            pl_module.load_state_dict(self.mean)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if self.own:
            pl_module.load_state_dict(self.own)

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean}


class Accumulates(Callback):
    """Changes the Trainer's accumulation by hand."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        trainer.accumulate_grad_batches = 1 + trainer.current_epoch


class Unfreezes(BaseFinetuning):
    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.backbone)

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.backbone, optimizer, lr=0.1)


class EveryStepAverage(WeightAveraging):
    """Averages with the least options: after each step from the sixth on."""

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return step_idx is not None and step_idx >= 6


class OwnCheckpoint(ModelCheckpoint):
    """A kind of ModelCheckpoint."""


class Raises(Callback):
    """Refuses in one hook, as callbacks do whose needs are not met."""

    def __init__(self, hook: str = "on_fit_start"):
        def refuse(*args: Any, **kwargs: Any) -> None:
            raise RuntimeError(f"not in {hook}")

        setattr(self, hook, refuse)


class LateLogger(Callback):
    """Logs straight to the logger."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        trainer.logger.log_metrics({"by/logger": float(trainer.current_epoch)}, step=trainer.global_step)


class OwnStopping(EarlyStopping):
    """A kind of EarlyStopping."""
