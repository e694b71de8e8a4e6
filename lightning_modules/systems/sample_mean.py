"""The mean of a loss over the samples of an epoch, cheap enough to update at every step."""

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["SampleMean"]


class SampleMean(Metric):
    """The mean over samples of values that are means over batches; over all ranks when distributed.

    Unlike torchmetrics' MeanMetric it neither drops nor warns about NaN: a mean over a NaN is NaN. It sums in
    double precision (single on Apple's MPS, which has no double) and never waits for the device.
    """

    full_state_update = False
    total: Tensor
    num_samples: Tensor

    def __init__(self) -> None:
        super().__init__()
        dtype = torch.float32 if torch.backends.mps.is_available() else torch.float64
        self.add_state("total", torch.zeros((), dtype=dtype), dist_reduce_fx="sum")
        self.add_state("num_samples", torch.zeros((), dtype=dtype), dist_reduce_fx="sum")

    def update(self, value: Tensor, num_samples: int) -> None:
        """Add `value`, a scalar mean over `num_samples` samples."""
        self.total.add_(value.detach(), alpha=num_samples)
        self.num_samples.add_(num_samples)

    def compute(self) -> Tensor:
        """Return the mean over all samples added since the last reset."""
        return self.total / self.num_samples
