"""Modules whose layers come late, are compiled, or are wrapped: as users write them, with Lightning's other name."""

from typing import Any

import lightning
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset


class Digits(lightning.LightningDataModule):
    """Samples of 64 numbers in ten classes, which it knows without being set up."""

    num_labels = 10

    def setup(self, stage: str) -> None:
        generator = torch.Generator().manual_seed(0)
        labels = torch.randint(0, 10, (200,), generator=generator)
        noise = torch.randn(200, 64, generator=generator)
        self.parts = TensorDataset(functional.one_hot(labels, 64).float() + 0.3 * noise, labels)

    def train_dataloader(self) -> Any:
        return DataLoader(self.parts, 50)

    def val_dataloader(self) -> Any:
        return DataLoader(self.parts, 100)


class Plain(lightning.LightningModule):
    """A linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.layer: Any = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> Any:
        return self.layer(x)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/acc", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.5)


class CompiledInSetup(Plain):
    def setup(self, stage: str) -> None:
        self.layer = torch.compile(self.layer, backend="eager")


class CompiledForFit(Plain):
    def setup(self, stage: str) -> None:
        if stage == "fit":
            self.layer = torch.compile(self.layer, backend="eager")


class CompiledInPlace(Plain):
    def setup(self, stage: str) -> None:
        self.layer.compile(backend="eager")


class CompiledForwardFunction(Plain):
    def setup(self, stage: str) -> None:
        self.forward = torch.compile(self.forward, backend="eager")  # type: ignore[method-assign]


class InConfigureModel(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.layer = None

    def configure_model(self) -> None:
        self.layer = self.layer or nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))


class InSetup(InConfigureModel):
    def configure_model(self) -> None: ...

    def setup(self, stage: str) -> None:
        self.layer = self.layer or nn.Linear(64, 10)


class InSetupForFit(InSetup):
    def setup(self, stage: str) -> None:
        if stage == "fit":
            super().setup(stage)


class OfTheData(InSetup):
    def setup(self, stage: str) -> None:
        self.layer = self.layer or nn.Linear(64, self.trainer.datamodule.num_labels)  # type: ignore[attr-defined]


class OfTheBatches(InSetup):
    def setup(self, stage: str) -> None:
        size = len(self.trainer.datamodule.parts.tensors[0][0])  # type: ignore[attr-defined]
        self.layer = self.layer or nn.Linear(size, 10)


class ScaledInSetup(Plain):
    """What `setup` notes is no weight, and the forward pass needs it."""

    def setup(self, stage: str) -> None:
        self.scale = 3.0

    def forward(self, x: torch.Tensor) -> Any:
        return self.scale * self.layer(x)


class Weighed(Plain):
    """Asks the data in `setup` for what training alone needs."""

    def setup(self, stage: str) -> None:
        if self.trainer.datamodule.parts is None:  # type: ignore[attr-defined]
            raise AssertionError


class Lazy(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)),
            nn.LazyConv2d(4, 3),
            nn.LazyBatchNorm2d(),
            nn.Flatten(),
            nn.LazyLinear(10),
        )


class Parametrized(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(
            nn.utils.parametrizations.weight_norm(nn.Linear(64, 16)),
            nn.utils.parametrizations.spectral_norm(nn.Linear(16, 10)),
        )


class WeightNormInSetup(Plain):
    def setup(self, stage: str) -> None:
        if not nn.utils.parametrize.is_parametrized(self.layer):
            nn.utils.parametrizations.weight_norm(self.layer)


def compiled() -> Any:
    """Build a LightningModule that is compiled as a whole."""
    return torch.compile(Plain(), backend="eager")


class Net(nn.Module):
    """A net with a layer that is compiled at once."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.compile(nn.Linear(64, 10), backend="eager")

    def forward(self, x: torch.Tensor) -> Any:
        return self.layer(x)
