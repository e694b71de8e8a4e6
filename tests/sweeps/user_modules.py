"""Modules and data as users write them: hyperparameters saved, optimizers given, metrics and splits of their own."""

from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning import LightningDataModule, LightningModule
from sklearn.datasets import load_digits
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset, random_split


class Own(LightningModule):
    """A linear classifier of digits that logs `train_loss` in training and `val_score` in validation."""

    def __init__(self, optimizer: Callable[..., Any], size: int = 64) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.make_optimizer = optimizer
        self.layer = torch.nn.Linear(size, 10)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = functional.cross_entropy(self.layer(batch[0].flatten(1)), batch[1])
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        hits = self.layer(batch[0].flatten(1)).argmax(1) == batch[1]
        self.log("val_score", hits.float().mean())

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    def configure_optimizers(self) -> Any:
        return self.make_optimizer(self.parameters())


class Splits(LightningDataModule):
    """Digits of which `setup` draws which are for training, and for testing."""

    def setup(self, stage: str | None = None) -> None:
        digits = load_digits()
        images = torch.tensor(digits.images[:200], dtype=torch.float32)[:, None] / 16
        whole = TensorDataset(images, torch.tensor(digits.target[:200]))
        self.parts = random_split(whole, [100, 50, 50])

    def train_dataloader(self) -> Any:
        return DataLoader(self.parts[0], 50)

    def val_dataloader(self) -> Any:
        return DataLoader(self.parts[1], 50)

    def test_dataloader(self) -> Any:
        return DataLoader(self.parts[2], 50)


class _FailsBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("broken in backward")


class Fragile(torch.nn.Linear):
    """A linear net of digits that fails, and where."""

    def __init__(self, fails_in: str = "nothing") -> None:
        super().__init__(64, 10)
        self.fails_in = fails_in
        self.num_batches = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.num_batches += self.training
        if self.fails_in == "forward" or (self.fails_in == "second" and self.num_batches == 2):
            raise RuntimeError(f"broken in {self.fails_in}")
        scores = super().forward(x.flatten(1))
        if self.fails_in == "backward":
            return _FailsBackward.apply(scores)  # type: ignore[no-any-return, no-untyped-call]
        if self.fails_in == "place":
            hidden = torch.sigmoid(scores)
            kept = hidden * 1
            hidden.add_(1)
            return kept
        return scores


class Spare(torch.nn.Linear):
    """A linear net of digits with a layer that it does not use.

    Args:
        frozen: Whether that layer is not to be trained.
        decay: What the running mean of the weights decays by, which only validation uses.
        scale: What scores are multiplied by in validation.
    """

    def __init__(self, frozen: bool = False, decay: float = 0.9, scale: float = 1.0) -> None:
        super().__init__(64, 10)
        self.spare = torch.nn.Linear(4, 4).requires_grad_(not frozen)
        self.decay, self.scale = decay, scale
        self.register_buffer("mean", torch.zeros(10))
        self.mean: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = super().forward(x.flatten(1))
        if self.training:
            self.mean.lerp_(scores.detach().mean(0), 1 - self.decay)
            return scores
        return scores * self.scale - self.mean


class Odd(Fragile):
    """A linear net of digits that holds tensors of all layouts."""

    def __init__(self) -> None:
        super().__init__()
        eye, rows = torch.eye(4), [torch.ones(2, 3), torch.ones(3, 3)]
        layouts = {
            "coo": eye.to_sparse(),
            "csr": eye.to_sparse_csr(),
            "csc": eye.to_sparse_csc(),
            "nested": torch.nested.nested_tensor(rows),
            "jagged": torch.nested.nested_tensor(rows, layout=torch.jagged),
            "wide": torch.ones(2, dtype=torch.uint64),
        }
        for name, tensor in layouts.items():
            self.register_buffer(name, tensor, persistent=name not in ("nested", "jagged"))


class TakesTurns(torch.nn.Module):
    """Two linear nets of digits, one for even batches and one for odd ones."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = torch.nn.ModuleList([torch.nn.Linear(64, 10), torch.nn.Linear(64, 10)])
        self.num_batches = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.num_batches += 1
        scores: torch.Tensor = self.nets[self.num_batches % 2](x.flatten(1))
        return scores


class Unpools(torch.nn.Module):
    """A net of digits with an operation that has no deterministic form, on any device."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.unpool = torch.nn.MaxPool2d(2, return_indices=True), torch.nn.MaxUnpool2d(2)
        self.layer = torch.nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.layer(self.unpool(*self.pool(x)).flatten(1))
        return scores
