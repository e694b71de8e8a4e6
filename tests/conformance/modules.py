"""Small LightningModules, each odd in one way.

All of them train on 64 numbers and 10 classes. The loss changes its sign with the epoch `peak`, so that the best epoch
is not the last one, and a number that is of the wrong epoch is seen.
"""

import copy
import math
import threading
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torchmetrics
from conformance import data
from pytorch_lightning.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.utilities import grad_norm
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader


class Base(pl.LightningModule):
    def __init__(self, lr: float = 0.5, peak: int = 2):
        super().__init__()
        self.lr, self.peak = lr, peak
        self.layer = nn.Linear(64, 10)

    def scores(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def loss_of(self, batch: Any) -> Tensor:
        sign = 1.0 if self.current_epoch < self.peak else -1.0
        return sign * F.cross_entropy(self.scores(batch[0]), batch[1])

    def judge(self, batch: Any) -> tuple[Tensor, Tensor]:
        scores = self.scores(batch[0])
        return (scores.argmax(1) == batch[1]).float().mean(), F.cross_entropy(scores, batch[1])

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.loss_of(batch)
        self.log("train/loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        acc, loss = self.judge(batch)
        self.log("val/acc", acc)
        self.log("val/loss", loss)

    def test_step(self, batch: Any, batch_idx: int) -> Any:
        acc, loss = self.judge(batch)
        self.log("test/acc", acc)
        self.log("test/loss", loss)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


# --- what it is made of --------------------------------------------------------------------------------


class Lazy(Base):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.LazyLinear(10))


class LazyNorm(Base):
    """Lazy buffers, too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.LazyBatchNorm1d(), nn.LazyLinear(10))


class Late(Base):
    """Has its layers from `configure_model` on."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = None

    def configure_model(self) -> None:
        self.layer = self.layer or nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


class LateBySetup(Base):
    def __init__(self) -> None:
        super().__init__()
        self.layer = None

    def setup(self, stage: str) -> None:
        if self.layer is None:
            self.layer = nn.Linear(64, len(set(data.digits()[1].tolist())))


class LateByFirstBatch(Base):
    """Reads the width of its input in `setup` from a batch of the loader."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = None

    def setup(self, stage: str) -> None:
        if self.layer is None:
            x, _ = next(iter(self.trainer.datamodule.train_dataloader()))
            self.layer = nn.Linear(x.shape[1], 10)


class Compiled(Base):
    """Compiled in `setup`."""

    def setup(self, stage: str) -> None:
        if not hasattr(self.layer, "_orig_mod"):
            self.layer = torch.compile(self.layer, backend="eager")


class CompiledAtOnce(Base):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.compile(nn.Sequential(nn.Linear(64, 10), nn.Dropout(0.2)), backend="eager")


class CompiledInPlace(Base):
    def __init__(self) -> None:
        super().__init__()
        self.layer.compile(backend="eager")


class Scripted(Base):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.jit.script(nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)))


class Dropped(Base):
    """Draws at every forward pass, and has running statistics."""

    def __init__(self) -> None:
        super().__init__(lr=0.1)
        self.layer = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Dropout(0.3), nn.ReLU(), nn.Linear(32, 10))


class Sparse(Base):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(17, 2, sparse=True)
        self.layer = nn.Linear(128, 10)

    def scores(self, x: Tensor) -> Tensor:
        return self.layer(self.embedding((x * 16).long()).flatten(1))


class SparseAlone(Base):
    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.Embedding(17 * 64, 10, sparse=True)

    def scores(self, x: Tensor) -> Tensor:
        return self.bag((x * 16).long() + 17 * torch.arange(64)).mean(1)

    def configure_optimizers(self) -> Any:
        return torch.optim.SparseAdam(self.bag.parameters(), lr=0.1)


class NoParameters(Base):
    """Has buffers only, which it fills by itself: no gradient, no optimizer."""

    automatic_optimization = False

    def __init__(self) -> None:
        super().__init__()
        del self.layer
        self.register_buffer("means", torch.zeros(10, 64))
        self.register_buffer("counts", torch.ones(10))
        self.automatic_optimization = False

    def scores(self, x: Tensor) -> Tensor:
        return -torch.cdist(x, self.means / self.counts[:, None])

    def training_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.means.index_add_(0, y, x if self.current_epoch < self.peak else -3 * x)
        self.counts += F.one_hot(y, 10).sum(0)

    def configure_optimizers(self) -> Any:
        return None


class Frozen(Base):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(64, 32).requires_grad_(False)
        self.layer = nn.Linear(32, 10)

    def scores(self, x: Tensor) -> Tensor:
        return self.layer(self.backbone(x))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=self.lr)


class Backbone(Base):
    """For callbacks that thaw a backbone."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU())
        self.layer = nn.Linear(32, 10)

    def scores(self, x: Tensor) -> Tensor:
        return self.layer(self.backbone(x))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=self.lr)


class UnusedPart(Base):
    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(3, 3)


class Tied(Base):
    def __init__(self) -> None:
        super().__init__(lr=0.1)
        self.layer = nn.Linear(64, 64, bias=False)
        self.back = nn.Linear(64, 64, bias=False)
        self.back.weight = self.layer.weight

    def scores(self, x: Tensor) -> Tensor:
        return self.back(torch.tanh(self.layer(x)))[:, :10]


class Normed(Base):
    """Parametrized weights, and complex and double numbers among them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.utils.parametrizations.weight_norm(nn.Linear(64, 10))
        self.factor = nn.Parameter(torch.ones(10, dtype=torch.complex64))
        self.shift = nn.Parameter(torch.zeros(10, dtype=torch.float64))

    def scores(self, x: Tensor) -> Tensor:
        return (self.layer(x) * self.factor).abs() + self.shift.float()


class WithTeacher(Base):
    """Keeps a deep copy of itself that is no child, and learns from it."""

    def on_train_start(self) -> None:
        self.__dict__["teacher"] = copy.deepcopy(self.layer)

    def loss_of(self, batch: Any) -> Tensor:
        with torch.no_grad():
            goal = self.teacher(batch[0])
        return super().loss_of(batch) + 0.01 * F.mse_loss(self.scores(batch[0]), goal)


class Saves(Base):
    """Saves its hyperparameters, with a module among them."""

    def __init__(self, net: nn.Module, lr: float = 0.5):
        super().__init__(lr)
        self.save_hyperparameters()
        self.layer = net


class SavesPlain(Base):
    def __init__(self, lr: float = 0.5, sizes: list | None = None, notes: dict | None = None):
        super().__init__(lr)
        self.save_hyperparameters(ignore=["notes"])
        self.layer = nn.Sequential(*[nn.Linear(64, 64) for _ in self.hparams.sizes or []], nn.Linear(64, 10))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)


class SavesConfig(Base):
    """Saves hyperparameters that are not the arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.save_hyperparameters({"kind": torch.optim.SGD, "sizes": {1, 2}, "shape": torch.Size([3])})


class Given(Base):
    """Takes the platform's optimizer and scheduler."""

    def __init__(self, optimizer: Any, scheduler: Any = None):
        super().__init__()
        self.make_optimizer, self.make_scheduler = optimizer, scheduler

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer(self.parameters())
        if self.make_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self.make_scheduler(optimizer)}


class GivenSaved(Given):
    def __init__(self, optimizer: Any, scheduler: Any = None):
        super().__init__(optimizer, scheduler)
        self.save_hyperparameters()


class Anything(Base):
    """Takes any argument by name, and one whose default is no value of its type."""

    def __init__(self, size: int = None, *rest: int, rate: "float | str" = "0.5", **more: Any):  # noqa: RUF013
        super().__init__(float(rate))
        self.layer = nn.Linear(64, size or 10)
        assert more.keys() <= {"flavour", "lambda"}


def by_function(lr: float = 0.5) -> Base:
    """Make a module in a function."""
    return Base(lr)


class Doubled(Base):
    """Changes the default type of numbers."""

    def __init__(self) -> None:
        torch.set_default_dtype(torch.float64)
        super().__init__()

    def scores(self, x: Tensor) -> Tensor:
        return super().scores(x.double())


class Handmade(Base):
    """Holds what cannot be copied or saved, and has a name that cannot be shown."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.rule = lambda x: 0.5 * x

    def __repr__(self) -> str:
        raise RuntimeError("it has no name")

    def loss_of(self, batch: Any) -> Tensor:
        with self.lock:
            return self.rule(super().loss_of(batch))


# --- how it optimizes ----------------------------------------------------------------------------------


class Gan(Base):
    """Two optimizers by hand, with toggling and schedulers."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.layer = nn.Linear(8, 64)
        self.critic = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 1))

    def training_step(self, batch: Any, batch_idx: int) -> None:
        maker, critic = self.optimizers()
        x, _ = batch
        noise = torch.randn(len(x), 8)
        self.toggle_optimizer(critic)
        fake = self.critic(self.layer(noise).detach())
        loss = F.softplus(-self.critic(x)).mean() + F.softplus(fake).mean()
        critic.zero_grad()
        self.manual_backward(loss)
        critic.step()
        self.untoggle_optimizer(critic)
        self.toggle_optimizer(maker)
        made = F.softplus(-self.critic(self.layer(noise))).mean()
        maker.zero_grad()
        self.manual_backward(made)
        maker.step()
        self.untoggle_optimizer(maker)
        self.log_dict({"critic": loss, "maker": made}, prog_bar=True)

    def on_train_epoch_end(self) -> None:
        for scheduler in self.lr_schedulers():
            scheduler.step()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/loss", F.mse_loss(self.layer.bias.expand(len(batch[0]), -1), batch[0]))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test/loss", F.mse_loss(self.layer.bias.expand(len(batch[0]), -1), batch[0]))

    def configure_optimizers(self) -> Any:
        maker = torch.optim.Adam(self.layer.parameters(), lr=0.01)
        critic = torch.optim.Adam(self.critic.parameters(), lr=0.02)
        return [maker, critic], [ExponentialLR(maker, 0.9), ExponentialLR(critic, 0.9)]


class Manual(Base):
    """One optimizer by hand, which steps at every second batch, and clips; returns nothing."""

    def __init__(self, returns: str = "nothing"):
        super().__init__()
        self.automatic_optimization = False
        self.returns = returns

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        optimizer = self.optimizers()
        loss = self.loss_of(batch)
        self.manual_backward(loss / 2)
        if batch_idx % 2 == 1:
            self.clip_gradients(optimizer, gradient_clip_val=0.5, gradient_clip_algorithm="norm")
            optimizer.step()
            optimizer.zero_grad()
            self.lr_schedulers().step()
        self.log("train/loss", loss)
        return {"nothing": None, "loss": loss.detach(), "dict": {"loss": loss.detach(), "more": 1}}[self.returns]

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        return [optimizer], [StepLR(optimizer, 4, 0.9)]


class ManualPlateau(Manual):
    def on_train_epoch_end(self) -> None:
        self.lr_schedulers().step(self.trainer.callback_metrics["train/loss"])

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers()
        with optimizer.toggle_model():
            loss = self.loss_of(batch)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        self.log("train/loss", loss, on_step=True, on_epoch=True)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=self.lr)
        return [optimizer], [ReduceLROnPlateau(optimizer, patience=0)]


class ManyStepsABatch(Manual):
    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers()
        for _ in range(1 + batch_idx % 3):
            optimizer.zero_grad()
            self.manual_backward(self.loss_of(batch))
            optimizer.step()


class TwoOptimizers(Base):
    """Lightning refuses this."""

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.parameters(), 0.1), torch.optim.SGD(self.parameters(), 0.1)]


class Lbfgs(Base):
    def configure_optimizers(self) -> Any:
        return torch.optim.LBFGS(self.parameters(), lr=0.3, max_iter=4)


class OwnStep(Base):
    """Warms up in `optimizer_step`, and has the other hooks around it."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any) -> None:
        optimizer.step(closure=optimizer_closure)
        for group in optimizer.param_groups:
            group["lr"] = self.lr * min(1.0, (self.trainer.global_step + 1) / 5)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        optimizer.zero_grad(set_to_none=False)

    def backward(self, loss: Tensor) -> None:
        (2 * loss).backward()

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self.log_dict(grad_norm(self.layer, norm_type=2))

    def on_before_zero_grad(self, optimizer: Any) -> None:
        with torch.no_grad():
            self.layer.bias *= 0.99


class SkipsSteps(Base):
    """Steps at every third batch only, so that the optimizer steps less often than Lightning counts."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any) -> None:
        if batch_idx % 3 == 0:
            optimizer.step(closure=optimizer_closure)
        else:
            optimizer_closure()


class OwnClipping(Base):
    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        self.clip_gradients(optimizer, 0.1 + 0.1 * self.current_epoch, gradient_clip_algorithm or "value")


class ReturnsNone(Base):
    """Skips batches."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None if batch_idx in (0, 3) else super().training_step(batch, batch_idx)


class ReturnsDict(Base):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return {"loss": super().training_step(batch, batch_idx), "text": "more", "scores": self.scores(batch[0])}

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        assert outputs["scores"].shape[1] == 10
        self.log("train/seen", float(len(batch[1])), reduce_fx="sum")


class LeavesEpochs(Base):
    """Leaves each epoch after three batches."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        return -1 if batch_idx == 3 else None


class LeavesAtOnce(Base):
    """Trains no batch of the second epoch."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        return -1 if self.current_epoch == 1 else None


class FromIterator(Base):
    """Takes its batches from the loader by itself."""

    def training_step(self, dataloader_iter: Any) -> Any:
        batch, _, _ = next(dataloader_iter)
        return self.loss_of(batch)


class Penalized(Base):
    """A penalty on gradients: a backward pass through a backward pass."""

    def loss_of(self, batch: Any) -> Tensor:
        x = batch[0].clone().requires_grad_()
        (slope,) = torch.autograd.grad(torch.tanh(self.scores(x)).sum(), x, create_graph=True)
        return super().loss_of(batch) + 0.01 * slope.square().mean()


class Functional(Base):
    """Per-sample gradients by `torch.func`."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        weights = {name: p.detach() for name, p in self.layer.named_parameters()}
        sign = 1.0 if self.current_epoch < self.peak else -1.0

        def loss(weights: Any, x: Tensor, y: Tensor) -> Tensor:
            return sign * F.cross_entropy(torch.func.functional_call(self.layer, weights, (x[None],)), y[None])

        gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(weights, *batch)
        for name, p in self.layer.named_parameters():
            p.grad = gradients[name].clamp(-0.1, 0.1).mean(0)
        self.optimizers().step()


class FunctionalLoss(Base):
    """A Jacobian by `torch.func` in a usual loss."""

    def loss_of(self, batch: Any) -> Tensor:
        slope = torch.func.vmap(torch.func.jacrev(lambda x: torch.tanh(self.layer(x)).sum()))(batch[0])
        return super().loss_of(batch) + 0.01 * slope.square().mean()


class Checkpointed(Base):
    """Computes its activations again in the backward pass."""

    def __init__(self, use_reentrant: bool = False):
        super().__init__(lr=0.2)
        self.use_reentrant = use_reentrant
        self.layer = nn.Sequential(nn.Linear(64, 32), nn.Dropout(0.2), nn.ReLU(), nn.Linear(32, 10))

    def scores(self, x: Tensor) -> Tensor:
        if self.training and self.use_reentrant:
            x = x.clone().requires_grad_()
        return checkpoint(self.layer, x, use_reentrant=self.use_reentrant) if self.training else self.layer(x)


class Hooked(Base):
    """Uses hooks for saved tensors, and for modules and gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.layer.register_forward_hook(lambda module, inputs, output: output * 1.1)
        self.layer.weight.register_hook(lambda gradient: gradient * 0.9)

    def loss_of(self, batch: Any) -> Tensor:
        with torch.autograd.graph.save_on_cpu():
            return super().loss_of(batch)


class Offloads(Base):
    """Forbids hooks on saved tensors, as some kernels do."""

    def loss_of(self, batch: Any) -> Tensor:
        with torch.autograd.graph.disable_saved_tensors_hooks("no hooks here"):
            return super().loss_of(batch)


class InPlace(Base):
    def loss_of(self, batch: Any) -> Tensor:
        scores = self.scores(batch[0])
        scores.mul_(1.1).relu_()
        sign = 1.0 if self.current_epoch < self.peak else -1.0
        return sign * F.cross_entropy(scores, batch[1])


class GradsInValidation(Base):
    """Needs gradients to validate; with `trainer.inference_mode=false`."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        with torch.enable_grad():
            x = batch[0].clone().requires_grad_()
            (slope,) = torch.autograd.grad(self.scores(x).sum(), x)
        self.log("val/slope", slope.abs().mean())


# --- schedules -----------------------------------------------------------------------------------------


class Scheduled(Base):
    """A schedule of each kind."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.log("train/now", loss)
        return loss

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        return [optimizer], [self._schedule(optimizer)]

    def _schedule(self, optimizer: Any) -> Any:
        total = None
        match self.kind:
            case "step":
                return {"scheduler": StepLR(optimizer, 2, 0.8), "interval": "step"}
            case "every third step":
                return {"scheduler": ExponentialLR(optimizer, 0.5), "interval": "step", "frequency": 3}
            case "every second epoch":
                return {"scheduler": ExponentialLR(optimizer, 0.5), "frequency": 2}
            case "plateau":
                return {"scheduler": ReduceLROnPlateau(optimizer, patience=0), "monitor": "val/loss"}
            case "plateau of training":
                return {"scheduler": ReduceLROnPlateau(optimizer, patience=0), "monitor": "train/loss"}
            case "plateau within the epoch":
                plateau = ReduceLROnPlateau(optimizer, patience=0)
                return {"scheduler": plateau, "monitor": "train/now", "interval": "step", "frequency": 3}
            case "plateau of a misspelt metric":
                return {"scheduler": ReduceLROnPlateau(optimizer), "monitor": "val/los"}
            case "plateau that may miss":
                return {"scheduler": ReduceLROnPlateau(optimizer), "monitor": "val/los", "strict": False}
            case "warmup":
                warm = int(0.1 * self.trainer.estimated_stepping_batches)
                scheduler = LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / (3 * warm)) + 0 / warm)
                return {"scheduler": scheduler, "interval": "step"}
            case "rest":
                total = self.trainer.estimated_stepping_batches
                scheduler = LambdaLR(optimizer, lambda step: (total - step) / (total - 2))
                return {"scheduler": scheduler, "interval": "step"}
            case "one cycle":
                total = self.trainer.estimated_stepping_batches
                return {"scheduler": OneCycleLR(optimizer, self.lr, total_steps=total), "interval": "step"}
            case "one cycle of epochs":
                size = len(self.trainer.datamodule.train_dataloader())
                cycle = OneCycleLR(optimizer, self.lr, epochs=self.trainer.max_epochs, steps_per_epoch=size)
                return {"scheduler": cycle, "interval": "step"}
            case "one cycle that is fixed":
                return {"scheduler": OneCycleLR(optimizer, self.lr, total_steps=18), "interval": "step"}
            case "cosine":
                return CosineAnnealingLR(optimizer, T_max=self.trainer.max_epochs - 1)
            case "by the epochs but the first two":
                return LambdaLR(optimizer, lambda epoch: 1 / (1 + epoch / (self.trainer.max_epochs - 2)))
            case "by maximum steps":
                return {
                    "scheduler": LambdaLR(optimizer, lambda step: 1 - step / (self.trainer.max_steps + 1)),
                    "interval": "step",
                }
            case "in sequence":
                parts = [LinearLR(optimizer, 0.1, total_iters=2), ExponentialLR(optimizer, 0.9)]
                return {"scheduler": SequentialLR(optimizer, parts, [5]), "interval": "step"}
            case "named":
                return {"scheduler": ExponentialLR(optimizer, 0.9), "name": "rate", "interval": "epoch"}
        raise AssertionError(self.kind)


class OwnSchedule(Base):
    """A schedule that is none of torch's, which `lr_scheduler_step` moves."""

    class Halving:
        def __init__(self, optimizer: Any):
            self.optimizer, self.count = optimizer, 0

        def step(self, epoch: int | None = None) -> None:
            self.count += 1
            for group in self.optimizer.param_groups:
                group["lr"] /= 2

        def state_dict(self) -> dict[str, Any]:
            return {"count": self.count}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            self.count = state_dict["count"]

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        return [optimizer], [{"scheduler": self.Halving(optimizer), "interval": "epoch"}]

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        scheduler.step(epoch=self.current_epoch)


class AsksTheTrainer(Base):
    """Computes with what the Trainer knows of the whole training."""

    def setup(self, stage: str) -> None:
        self.num_samples = len(self.trainer.datamodule.train_dataloader().dataset)

    def on_train_start(self) -> None:
        batches, epochs = self.trainer.num_training_batches, self.trainer.max_epochs
        assert (batches, epochs) == (6, 3), f"there are 6 batches of 3 epochs, not {batches} of {epochs}"
        self.warm = batches * epochs // 6
        assert self.trainer.check_val_every_n_epoch == 1 and self.trainer.val_check_batch == 6
        assert self.trainer.accumulate_grad_batches == 1 and self.trainer.max_steps == -1

    def loss_of(self, batch: Any) -> Tensor:
        weight = min(1.0, self.global_step / self.warm) / (self.trainer.max_epochs - 1)
        return (1 + weight) * super().loss_of(batch) * self.num_samples / 120

    def on_train_epoch_start(self) -> None:
        last = self.trainer.max_epochs - 1
        self.log("course", float(self.current_epoch / last))


class AsksForLimits(Base):
    """Computes with how many batches validation has, and with the limits."""

    def on_train_start(self) -> None:
        asked = (self.trainer.num_val_batches, self.trainer.limit_train_batches, self.trainer.limit_val_batches)
        assert asked == ([3], 1.0, 1.0), f"there are 3 batches and no limits, not {asked}"


class NeedsAll(Base):
    """Refuses in one place to have seen less than it should have."""

    def __init__(self, where: str):
        super().__init__()
        self.where, self.seen = where, 0

    def _see(self, where: str, batch: Any) -> None:
        self.seen += len(batch[1]) if where == self.where else 0

    def _require(self, where: str, size: int) -> None:
        if where == self.where and self.seen != size:
            raise ValueError(f"{where}: {self.seen} of {size} samples were seen")
        self.seen = 0 if where == self.where else self.seen

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self._see("train", batch)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._see("validation", batch)
        super().validation_step(batch, batch_idx)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._see("test", batch)
        super().test_step(batch, batch_idx)

    def on_train_epoch_end(self) -> None:
        self._require("train", 120)

    def on_validation_epoch_end(self) -> None:
        self._require("validation", 60)

    def on_test_epoch_end(self) -> None:
        self._require("test", 60)

    def on_train_end(self) -> None:
        if self.where == "the end":
            assert self.global_step == self.trainer.estimated_stepping_batches == 18
            assert self.current_epoch == self.trainer.max_epochs


# --- what it logs, and when ----------------------------------------------------------------------------


class Names(Base):
    """Logs under names of one's own."""

    def __init__(self, acc: str = "val_acc", loss: str = "val_loss", test: str = "test_acc"):
        super().__init__()
        self.names = acc, loss, test

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        acc, loss = self.judge(batch)
        self.log_dict({self.names[0]: acc, self.names[1]: loss})

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log(self.names[2], self.judge(batch)[0])


class Loaders(Base):
    """Several loaders to validate and test with."""

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        acc, loss = self.judge(batch)
        self.log("val/acc", acc)
        self.log("val/loss", loss)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log("test/acc", self.judge(batch)[0])


class WithoutIndex(Base):
    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        acc, loss = self.judge(batch)
        self.log(f"val/{'ab'[dataloader_idx]}/acc", acc, add_dataloader_idx=False)
        self.log("loss", loss)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log(f"test/{'ab'[dataloader_idx]}/acc", self.judge(batch)[0], add_dataloader_idx=False)


class OnSecondOnly(Loaders):
    """Logs the objective for the second loader only."""

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        if dataloader_idx == 1:
            self.log("val/acc", self.judge(batch)[0])


class Reduced(Base):
    """Reduces in every way there is."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        acc, loss = self.judge(batch)
        self.log("val/acc", acc, reduce_fx="max", sync_dist=True)
        self.log("val/least", acc, reduce_fx="min", sync_dist=True)
        self.log("val/sum", loss, reduce_fx=torch.sum)
        self.log("val/weighted", loss, batch_size=1 + batch_idx, sync_dist=True, rank_zero_only=True)


class OnStep(Base):
    """Logs each step of validation, too: `val/acc` and `val/acc_step` and `val/acc_epoch`."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        acc, loss = self.judge(batch)
        self.log("val/acc", acc, on_step=True, on_epoch=True, prog_bar=True)
        self.log("val/loss", loss)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.loss_of(batch)
        self.log("loss", loss, on_step=True, on_epoch=True, logger=False)
        return loss


class Metrics(Base):
    """Logs metric objects."""

    def __init__(self) -> None:
        super().__init__()
        self.acc = torchmetrics.Accuracy(task="multiclass", num_classes=10)
        self.more = torchmetrics.MetricCollection(
            {
                "f1": torchmetrics.F1Score("multiclass", num_classes=10, average="macro"),
                "auroc": torchmetrics.AUROC("multiclass", num_classes=10),
            },
            prefix="val/",
        )
        self.mean = torchmetrics.MeanMetric()
        self.train_acc = torchmetrics.Accuracy(task="multiclass", num_classes=10)
        self.test_acc = torchmetrics.Accuracy(task="multiclass", num_classes=10)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.train_acc(self.scores(batch[0]), batch[1])
        self.log("train/acc", self.train_acc, on_step=False, on_epoch=True)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        scores = self.scores(batch[0])
        self.acc(scores, batch[1])
        self.more.update(scores.softmax(1), batch[1])
        self.mean.update(F.cross_entropy(scores, batch[1], reduction="none"))
        self.log("val/acc", self.acc)
        self.log("val/loss", self.mean)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.more.compute())
        self.more.reset()

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.test_acc(self.scores(batch[0]), batch[1])
        self.log("test/acc", self.test_acc)


class BestMetric(Base):
    """Logs the best value so far beside the value, as a well-known template does."""

    def __init__(self) -> None:
        super().__init__()
        self.acc = torchmetrics.Accuracy(task="multiclass", num_classes=10)
        self.best = torchmetrics.MaxMetric()

    def on_train_start(self) -> None:
        self.acc.reset()
        self.best.reset()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.acc(self.scores(batch[0]), batch[1])
        self.log("val/acc", self.acc, on_step=False, on_epoch=True, prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        self.best(self.acc.compute())
        self.log("val/acc_best", self.best.compute(), sync_dist=True, prog_bar=True)


class AtEpochEnd(Base):
    """Collects, and logs at the end of the validation."""

    def on_validation_epoch_start(self) -> None:
        self.hits: list[Tensor] = []

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        self.hits.append(self.scores(batch[0]).argmax(1) == batch[1])

    def on_validation_epoch_end(self) -> None:
        self.log("val/acc", torch.cat(self.hits).float().mean())
        self.hits.clear()


class OfTraining(Base):
    """The objective is logged in training only."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("train_acc", self.judge(batch)[0], on_step=False, on_epoch=True)
        return super().training_step(batch, batch_idx)


class OfTrainingByStep(Base):
    """... and by step: `train_acc` is then the last step's."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("train_acc", self.judge(batch)[0])
        return super().training_step(batch, batch_idx)


class AtTrainEpochEnd(Base):
    """The objective is logged at the end of the training epoch."""

    def on_train_epoch_end(self) -> None:
        self.log("score", -(self.layer.weight.norm() - 3).abs())


class FromValidation(Base):
    """A value that validation computes is logged at the end of the training epoch."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        self.last_acc = self.judge(batch)[0]

    def on_train_epoch_end(self) -> None:
        self.log("score", self.last_acc)


class EverySecond(Base):
    """Logs the objective in every second epoch."""

    def __init__(self, first: int = 1, every: int = 2):
        super().__init__()
        self.first, self.every = first, every

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        acc, loss = self.judge(batch)
        self.log("val/loss", loss)
        if self.current_epoch >= self.first and (self.current_epoch - self.first) % self.every == 0:
            self.log("val/acc", acc)


class SameName(Base):
    """Logs one name in training, validation and test."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("acc", self.judge(batch)[0], on_step=False, on_epoch=True)
        return self.loss_of(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        acc, loss = self.judge(batch)
        self.log("acc", acc)
        self.log("val/loss", loss)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("acc", self.judge(batch)[0])


class Told(Base):
    """Logs the numbers that it is given, one for each epoch; null is not logged."""

    def __init__(self, acc: list, loss: list):
        super().__init__()
        self.acc, self.loss = acc, loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        if self.acc[self.current_epoch] is not None:
            self.log("val/acc", float(self.acc[self.current_epoch]))
        self.log("val/loss", float(self.loss[self.current_epoch]))
        self.log("other", float(self.global_step))


class Everywhere(Base):
    """Logs in every hook that allows it, and reads what is logged."""

    def on_train_start(self) -> None:
        self.log("at/train_start", 1.0)

    def on_train_epoch_start(self) -> None:
        self.log("at/epoch_start", float(self.current_epoch))

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.log("at/batch", float(batch_idx), on_step=True, on_epoch=True)

    def on_validation_start(self) -> None:
        self.log("at/validation_start", float(self.global_step))

    def on_validation_epoch_end(self) -> None:
        known = {**self.trainer.callback_metrics, **self.trainer.logged_metrics, **self.trainer.progress_bar_metrics}
        self.log("at/known", float("val/acc" in known) + self.current_epoch)

    def on_train_epoch_end(self) -> None:
        self.log("at/gap", self.trainer.callback_metrics["val/loss"] - self.trainer.callback_metrics["train/loss"])

    def on_test_epoch_end(self) -> None:
        self.log("test/known", float(len(self.trainer.callback_metrics)))


class Odd(Base):
    """Logs what is no number of the usual kind."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        acc, _ = self.judge(batch)
        match self.kind:
            case "int":
                self.log("val/acc", int(100 * acc))
            case "float":
                self.log("val/acc", float(acc))
            case "double":
                self.log("val/acc", acc.double() / 3)
            case "half":
                self.log("val/acc", acc.half())
            case "bool":
                self.log("val/acc", acc > 0.3)
            case "one element":
                self.log("val/acc", acc.reshape(1))


class Diverges(Base):
    """The training loss is NaN from the fourth step on."""

    def loss_of(self, batch: Any) -> Tensor:
        loss = super().loss_of(batch)
        return loss * math.nan if self.global_step >= 3 else loss


class NanValidation(Base):
    """The objective is NaN (or infinite) in some epochs."""

    def __init__(self, values: list):
        super().__init__()
        self.values = values

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        acc, loss = self.judge(batch)
        self.log("val/acc", acc * float(self.values[self.current_epoch]))
        self.log("val/loss", loss)


# --- hooks, and the Trainer around it ------------------------------------------------------------------


class UsesLogger(Base):
    def on_train_epoch_end(self) -> None:
        self.logger.log_metrics({"my/norm": float(self.layer.weight.norm())}, step=self.global_step)
        self.logger.log_hyperparams({"lr": self.lr})
        self.logger.save()

    def on_fit_start(self) -> None:
        for logger in self.loggers:
            assert logger.save_dir and logger.name is not None and logger.version is not None
        assert self.trainer.log_dir is not None


class UsesExperiment(Base):
    """Reaches through the logger to what is behind it."""

    def on_train_epoch_end(self) -> None:
        self.logger.experiment.log_metrics({"my/norm": 1.0}, step=self.global_step)


class UsesExperimentIfThere(Base):
    """Reaches through the logger where that is one of some libraries."""

    def on_train_epoch_end(self) -> None:
        experiment = getattr(self.logger, "experiment", None)
        if hasattr(experiment, "add_histogram"):
            experiment.add_histogram("weights", self.layer.weight)


class UsesTrainer(Base):
    """Asks the Trainer for its parts, and saves by itself."""

    def on_fit_start(self) -> None:
        assert self.trainer.checkpoint_callback.monitor == "val/acc"
        assert self.trainer.early_stopping_callback is None
        assert self.trainer.is_global_zero and self.trainer.world_size == 1 and self.trainer.num_devices == 1
        assert self.trainer.sanity_checking is False and self.trainer.training
        assert Path(self.trainer.default_root_dir).is_dir()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        with self.trainer.profiler.profile("mine"):
            return super().training_step(batch, batch_idx)

    def on_train_epoch_end(self) -> None:
        self.trainer.strategy.barrier()
        self.trainer.save_checkpoint(Path(self.trainer.default_root_dir) / "mine.ckpt", weights_only=True)
        self.log("seen", self.trainer.strategy.reduce(torch.tensor(float(self.global_step))))

    def on_train_end(self) -> None:
        assert Path(self.trainer.checkpoint_callback.best_model_path).is_file()
        assert self.trainer.checkpoint_callback.best_model_score is not None

    def test_step(self, batch: Any, batch_idx: int) -> None:
        super().test_step(batch, batch_idx)
        self.log("test/path", float(bool(self.trainer.ckpt_path)))


class Interrupts(Base):
    """Raises what no error is."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if self.global_step == 8:
            raise {"keyboard": KeyboardInterrupt, "exit": SystemExit}[self.kind]()


class OddBatches(Base):
    def loss_of(self, batch: Any) -> Tensor:
        assert batch["packed"].data.shape[0] and batch["nothing"] is None
        return super().loss_of((batch["x"] + 0.1 * batch["sparse"].to_dense(), batch["y"]))

    def judge(self, batch: Any) -> Any:
        return super().judge((batch["x"], batch["y"]))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.loss_of(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/acc", self.judge(batch)[0], batch_size=20)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test/acc", self.judge(batch)[0], batch_size=20)


class OwnLoaders(Base):
    """Has its loaders itself."""

    def train_dataloader(self) -> Any:
        return DataLoader(data.part("train"), 20, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(data.part("val"), 20)

    def test_dataloader(self) -> Any:
        return DataLoader(data.part("test"), 20)


class OwnTransfer(Base):
    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return [batch[0] * 0.9, batch[1]]

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if not self.trainer.training:
            return batch
        return [batch[0] + 0.1 * torch.randn_like(batch[0]), batch[1]]


class Keyed(Base):
    """Takes batches that are dicts."""

    def loss_of(self, batch: Any) -> Tensor:
        assert batch["name"][0].startswith("sample")
        return super().loss_of((batch["x"], batch["y"]))

    def judge(self, batch: Any) -> Any:
        return super().judge((batch["x"], batch["y"]))


class SeveralBatches(Base):
    """Takes a batch of each loader."""

    def loss_of(self, batch: Any) -> Tensor:
        losses = [super(SeveralBatches, self).loss_of(one) for one in _all(batch) if one is not None]
        return torch.stack(losses).mean()


def _all(batch: Any) -> list[Any]:
    return list(batch.values()) if isinstance(batch, dict) else list(batch)


class InSequence(Base):
    def training_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        return self.loss_of(batch) * (1 + dataloader_idx)


class ChangesCheckpoint(Base):
    """Keeps something of its own in the checkpoint, and has it back for the test."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = -1.0

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["memory"] = {"epoch": self.current_epoch, "set": frozenset({1})}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.memory = float(checkpoint["memory"]["epoch"])

    def test_step(self, batch: Any, batch_idx: int) -> None:
        super().test_step(batch, batch_idx)
        self.log("test/memory", self.memory)


class Partial(Base):
    """Leaves a frozen part out of its checkpoints."""

    strict_loading = False

    def __init__(self) -> None:
        super().__init__()
        self.strict_loading = False
        self.backbone = nn.Linear(64, 64).requires_grad_(False)

    def scores(self, x: Tensor) -> Tensor:
        return self.layer(x + self.backbone(x))

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return {k: v for k, v in super().state_dict(*args, **kwargs).items() if not k.startswith("backbone")}


class ExtraState(Base):
    """A part with a state that is no tensor."""

    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen = 0

        def get_extra_state(self) -> Any:
            return {"seen": self.seen}

        def set_extra_state(self, state: Any) -> None:
            self.seen = state["seen"]

    def __init__(self) -> None:
        super().__init__()
        self.part = self.Part()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.part.seen += len(batch[0])
        return super().training_step(batch, batch_idx)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        super().test_step(batch, batch_idx)
        self.log("test/seen", float(self.part.seen))


class BringsCallbacks(Base):
    def configure_callbacks(self) -> Any:
        return [EarlyStopping("val/loss", patience=1), LearningRateMonitor()]


class BringsCheckpoint(Base):
    """Its ModelCheckpoint takes the place of the configured one."""

    def configure_callbacks(self) -> Any:
        return [ModelCheckpoint(monitor="val/acc", mode="max", filename="own")]


class StopsItself(Base):
    def on_train_epoch_end(self) -> None:
        if self.current_epoch == 1:
            self.trainer.should_stop = True


class Seeds(Base):
    """Seeds by itself, and draws in many hooks."""

    def on_fit_start(self) -> None:
        pl.seed_everything(123, verbose=False)

    def on_train_start(self) -> None:
        nn.init.normal_(self.layer.weight, std=0.1)

    def on_train_epoch_start(self) -> None:
        self.noise = torch.randn(64)

    def scores(self, x: Tensor) -> Tensor:
        return self.layer(x + 0.05 * self.noise if self.training else x)

    def on_validation_start(self) -> None:
        torch.manual_seed(7)


class AllHooks(Base):
    """Notes which hooks were called, how often."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(6))

    def on_train_start(self) -> None:
        self.calls[0] += 1

    def on_train_epoch_start(self) -> None:
        self.calls[1] += 1

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.calls[2] += 1

    def on_validation_start(self) -> None:
        self.calls[3] += 1

    def on_validation_model_train(self) -> None:
        self.calls[4] += 1
        self.train()

    def on_train_epoch_end(self) -> None:
        self.calls[5] += 1


class Loose(Base):
    """Writes files into the working folder, and prints."""

    def on_train_start(self) -> None:
        with Path("notes.txt").open("a") as file:
            file.write("began\n")
        self.print("a line")


class NoTestStep(Base):
    test_step = pl.LightningModule.test_step


class NoValidationStep(OfTraining):
    validation_step = pl.LightningModule.validation_step


class Example(Base):
    """Has an example of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.example_input_array = torch.zeros(2, 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(x)
