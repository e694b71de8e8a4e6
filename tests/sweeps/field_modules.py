"""Modules as they are written in the field, each with one habit that a platform may trip over; all train digits."""

from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset


class Base(pl.LightningModule):
    """A linear classifier that logs train/loss, val/acc, val/loss and test/acc."""

    def __init__(self, lr: float = 0.05) -> None:
        super().__init__()
        self.lr = lr
        self.layer: Any = torch.nn.Linear(64, 10)

    def scores(self, batch: Any) -> torch.Tensor:
        scores: torch.Tensor = self.layer(batch[0].flatten(1))
        return scores

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = functional.cross_entropy(self.scores(batch), batch[1])
        self.log("train/loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        scores = self.scores(batch)
        self.log("val/acc", (scores.argmax(1) == batch[1]).float().mean())
        self.log("val/loss", functional.cross_entropy(scores, batch[1]))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test/acc", (self.scores(batch).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class Scripted(Base):
    """Logs given numbers, an epoch each, and tests how many epochs its checkpoint has seen.

    Args:
        acc: The accuracies.
        loss: The losses.
        names: What the two are called.
        every: Logs the first in each so many epochs only.
        tested: What the test calls its number.
    """

    def __init__(
        self,
        acc: list[float],
        loss: list[float],
        names: list[str],
        every: int = 1,
        tested: str = "test/epochs_seen",
    ) -> None:
        super().__init__()
        self.tested = tested
        self.numbers, self.names, self.every = (acc, loss), names, every
        self.register_buffer("seen", torch.zeros(()))
        self.seen: torch.Tensor

    def of_epoch(self, which: int) -> float:
        numbers = self.numbers[which]
        return float(numbers[min(self.current_epoch, len(numbers) - 1)])

    def on_train_epoch_end(self) -> None:
        self.seen += 1

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        if (self.current_epoch + 1) % self.every == 0:
            self.log(self.names[0], self.of_epoch(0))
        self.log(self.names[1], self.of_epoch(1))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log(self.tested, self.seen)


class InTraining(Scripted):
    """Logs its numbers as metrics of training, one in the step and one at the end."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.log(self.names[0], self.of_epoch(0), on_step=True, on_epoch=True)
        return functional.cross_entropy(self.scores(batch), batch[1])

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        self.log(self.names[1], self.of_epoch(1))

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log("val/other", self.of_epoch(1))


class ScriptedCallback(pl.Callback):
    """Logs the numbers of the module at the end of validation, or puts them among the metrics."""

    def __init__(self, name: str, puts: bool = False) -> None:
        self.name, self.puts = name, puts

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Scripted)
        value = pl_module.of_epoch(0)
        if self.puts:
            trainer.callback_metrics[self.name] = torch.tensor(value)
        else:
            pl_module.log(self.name, value)


class Lazy(Base):
    """Layers that learn their size from the first batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Sequential(torch.nn.LazyBatchNorm1d(), torch.nn.LazyLinear(10))


class Late(Base):
    """Layers that `configure_model` makes."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.layer, self.width = None, width

    def configure_model(self) -> None:
        if self.layer is None:
            self.layer = torch.nn.Sequential(
                torch.nn.Linear(64, self.width), torch.nn.ReLU(), torch.nn.Linear(self.width, 10)
            )


class Later(Late):
    """Layers that `setup` makes, and compiles."""

    def configure_model(self) -> None:
        pass

    def setup(self, stage: str) -> None:
        if self.layer is None:
            super().configure_model()
            self.layer = torch.compile(self.layer, backend="eager")


class Warm(Base):
    """A warm-up over a share of all steps, which a run of two steps has none of."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=self.lr)
        total = self.trainer.estimated_stepping_batches
        assert self.trainer.max_epochs is not None
        warm = int(0.1 * total)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1.0, (step + 1) / warm) * (total - step) / (total - warm)
        )
        self.per_epoch = total // self.trainer.max_epochs
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Talks(Base):
    """Speaks to the logger itself, and logs what only the last batch of an epoch knows."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if batch_idx == self.trainer.num_training_batches - 1:
            self.log("train/last", float(batch_idx))
        return super().training_step(batch, batch_idx)

    def on_train_epoch_end(self) -> None:
        assert self.logger is not None
        self.logger.log_metrics({"my/norm": 1.0}, step=self.global_step)


class Blows(Base):
    """Has a loss that is not finite from the third step on.

    Args:
        how: `nan`, `inf`, `once`, or `manual` for a NaN that only the logged mean shows.
    """

    def __init__(self, how: str = "nan") -> None:
        super().__init__()
        self.how = how
        self.automatic_optimization = how != "manual"

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        if self.how == "manual":
            self.log("train_loss", loss * float("nan"), on_step=False, on_epoch=True)
            return None
        if self.global_step < 3 or (self.how == "once" and self.global_step > 3):
            return loss
        return loss * (float("inf") if self.how == "inf" else float("nan"))


class Tables(pl.LightningDataModule):
    """Random numbers with labels.

    Args:
        kind: `plain`; `empty` and `unsized empty` have no batch to train on; `two` has two validation loaders.
    """

    def __init__(self, kind: str = "plain", size: int = 84) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.kind = kind
        self.data = TensorDataset(
            torch.randn(size, 64, generator=generator), torch.randint(0, 10, (size,), generator=generator)
        )

    def train_dataloader(self) -> Any:
        if self.kind == "empty":
            return DataLoader(TensorDataset(torch.zeros(0, 64), torch.zeros(0, dtype=torch.int64)), 4)
        if self.kind == "unsized empty":
            return DataLoader(_Nothing(), 4)
        return DataLoader(self.data, 4, shuffle=True)

    def val_dataloader(self) -> Any:
        loader = DataLoader(self.data, 42)
        return [loader, loader] if self.kind == "two" else loader

    def test_dataloader(self) -> Any:
        return DataLoader(self.data, 42)


class _Nothing(torch.utils.data.IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(())


class ByValidation(Base):
    """Logs a number for each validation, and tests how many batches its checkpoint has seen.

    Args:
        acc: The numbers.
    """

    def __init__(self, acc: list[float]) -> None:
        super().__init__()
        self.acc = list(acc)
        self.register_buffer("batches", torch.zeros(()))
        self.batches: torch.Tensor

    def on_train_batch_end(self, *args: Any) -> None:
        self.batches += 1

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/batches", self.batches)

    def on_validation_epoch_end(self) -> None:
        self.log("val/acc", self.acc.pop(0))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test/batches", self.batches)


class Weighs(Base):
    """Logs in validation and in test which weights it has."""

    def weight(self) -> torch.Tensor:
        return self.layer.weight.detach().abs().sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        self.log("val/weight", self.weight())

    def test_step(self, batch: Any, batch_idx: int) -> None:
        super().test_step(batch, batch_idx)
        self.log("test/weight", self.weight())


class Large(Base):
    """Has losses that only a double can have."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx).double() * 0 + 1e300


class Brings(Base):
    """Brings callbacks along.

    Args:
        monitor: What early stopping monitors.
        place: Where its checkpoints go.
    """

    def __init__(self, monitor: str, place: str) -> None:
        super().__init__()
        self.monitor, self.place = monitor, place

    def configure_callbacks(self) -> list[pl.Callback]:
        saves = pl.callbacks.ModelCheckpoint(self.place, monitor="val/acc", mode="max")
        return [saves, pl.callbacks.EarlyStopping(self.monitor)]


class StopsAtOnce(Base):
    """Stops before the first batch."""

    def on_train_start(self) -> None:
        self.trainer.should_stop = True


class LogsByHelper(Base):
    """Logs its objective from the second epoch on, by a function."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        if self.current_epoch:
            log_score(self, 0.5)


def log_score(module: pl.LightningModule, value: float) -> None:
    module.log("val/score", value)
