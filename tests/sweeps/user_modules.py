"""A LightningModule as users write them: hyperparameters saved, its optimizer given, metrics of its own."""

from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch.nn import functional


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
