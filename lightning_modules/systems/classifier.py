"""Classification of single labels: any net, any optimizer, any schedule, any metrics.

It logs once per epoch and never in a step: `self.log` costs 0.4 ms, a third of a small model's step. The loss of
each step is available in the step's output.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional
from torch.optim import Optimizer
from torchmetrics import Metric, MetricCollection

from lightning_modules.schedulers import Scheduler, attach
from lightning_modules.systems.sample_mean import SampleMean

__all__ = ["Batch", "Classifier"]

Batch = tuple[Tensor, Tensor]
"""Inputs, N x ..., and class numbers, N (int64)."""


class Classifier(LightningModule):
    """Train `net` with cross-entropy and judge it by `metrics`.

    Logged once per epoch, over all samples of all ranks:

    - `train/loss`: the mean of the minimised loss, with label smoothing and L1.
    - `val/loss`, `test/loss`: the plain cross-entropy, so that trials with different smoothing or L1 are comparable.
    - `val/NAME`, `test/NAME`: each metric of `metrics`, e.g. `val/acc`.

    A NaN loss is logged as NaN. An epoch resumed midway logs the `train/loss` of the part after resuming.

    Args:
        net: maps inputs to unnormalised class scores, N x classes.
        optimizer: makes the optimizer from parameters; in YAML a `_target_` with `_partial_: true`.
        scheduler: makes the learning-rate schedule, see `lightning_modules.schedulers`; None keeps the rate.
        metrics: by name, metrics that take (scores, class numbers).
        label_smoothing: the probability mass spread evenly over all classes, in [0, 1].
        l1: the factor of the sum of absolute weights that is added to the loss; biases and the
            one-dimensional parameters of normalisations are left out.

    Raises:
        ValueError: a number is out of its range, or a metric is called `loss`.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        scheduler: Scheduler | None = None,
        metrics: Mapping[str, Metric] | None = None,
        label_smoothing: float = 0.0,
        l1: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"system.label_smoothing must be between 0 and 1, but got {label_smoothing}")
        if not l1 >= 0:
            raise ValueError(f"system.l1 must be at least 0, but got {l1}")
        if metrics and "loss" in metrics:
            raise ValueError("system.metrics must not have 'loss', which is always logged: give it another name")
        self.net = net
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.label_smoothing = label_smoothing
        self.l1 = l1
        self.train_loss = SampleMean()
        self.val_loss = SampleMean()
        self.test_loss = SampleMean()
        self.val_metrics = MetricCollection(dict(metrics or {}), prefix="val/")
        self.test_metrics = self.val_metrics.clone(prefix="test/")

    def configure_model(self) -> None:
        """Divide the net over the ranks, if the strategy has set up a device mesh; see `parallelize`.

        Ranks that share layers see the same samples, so metrics are computed over one rank of each such group.
        """
        if self.device_mesh is not None:
            from lightning_modules.strategies.model_parallel import parallelize  # slow to import

            parallelize(self.net, self.device_mesh)
            for module in self.modules():
                if isinstance(module, Metric):
                    module.process_group = self.device_mesh["data_parallel"].get_group()

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs to unnormalised class scores, N x classes."""
        scores: Tensor = self.net(x)
        return scores

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss to minimise, a scalar."""
        x, y = batch
        loss = functional.cross_entropy(self.net(x), y, label_smoothing=self.label_smoothing)
        if self.l1:
            loss = loss + self.l1 * self._weight_norm()
        self.train_loss.update(loss, len(y))
        return loss

    def on_train_epoch_end(self) -> None:
        """Log `train/loss`."""
        self.log("train/loss", self.train_loss)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to `val/...`."""
        self._evaluate(batch, self.val_loss, self.val_metrics)

    def on_validation_epoch_end(self) -> None:
        """Log `val/loss` and `val/NAME` of every metric."""
        self.log("val/loss", self.val_loss, prog_bar=True)
        self.log_dict(self.val_metrics, prog_bar=True)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to `test/...`."""
        self._evaluate(batch, self.test_loss, self.test_metrics)

    def on_test_epoch_end(self) -> None:
        """Log `test/loss` and `test/NAME` of every metric."""
        self.log("test/loss", self.test_loss)
        self.log_dict(self.test_metrics)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Make the optimizer and, if there is one, the schedule."""
        optimizer = self.make_optimizer(self.net.parameters())
        if self.make_scheduler is None:
            return optimizer
        schedule: Any = attach(
            self.make_scheduler,
            optimizer,
            total_steps=self.trainer.estimated_stepping_batches,
            max_epochs=self.trainer.max_epochs,
        )
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def _weight_norm(self) -> Tensor:
        sums = [parameter.abs().sum() for parameter in self.net.parameters() if parameter.ndim > 1]
        return torch.stack([each.full_tensor() if isinstance(each, DTensor) else each for each in sums]).sum()

    def _evaluate(self, batch: Batch, mean_loss: SampleMean, metrics: MetricCollection) -> None:
        x, y = batch
        scores = self.net(x)
        mean_loss.update(functional.cross_entropy(scores, y), len(y))
        if metrics:  # an empty collection cannot be updated
            metrics.update(scores, y)
