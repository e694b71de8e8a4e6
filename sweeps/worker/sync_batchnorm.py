"""Batch normalisation over the samples of all ranks, on GPUs by torch's own layer, on CPUs by the one here."""

from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning.plugins import LayerSync
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["SyncBatchNorm"]


class SyncBatchNorm(LayerSync):
    """Lets every batch normalisation of a module count the samples of all ranks; a plugin for Lightning's Trainer.

    Layers are changed in place and keep their parameters, buffers and hooks, so a checkpoint is the same with and
    without, and a divided module (see `lightning_modules.strategies`) can be changed too. A layer that is not
    training, or has no other ranks, is the plain one.
    """

    def apply(self, model: nn.Module) -> nn.Module:
        """Change all batch normalisations of `model`, in place; return it."""
        for module in model.modules():
            if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm | _SyncedBatchNorm):
                vars(module)["plain_class"] = type(module)
                module.__class__ = _SyncedBatchNorm
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Undo `apply`; return `model`."""
        for module in model.modules():
            if isinstance(module, _SyncedBatchNorm):
                module.__class__ = vars(module).pop("plain_class")
        return model


class _SyncedBatchNorm(_BatchNorm):
    """torch's layer on GPUs, and on CPUs, which torch refuses, the same in ordinary operations.

    It is not a subclass of torch's, because DDP refuses those on CPUs.
    """

    process_group = None  # all ranks
    _check_non_zero_input_channels = nn.SyncBatchNorm._check_non_zero_input_channels

    def forward(self, input: Tensor) -> Tensor:
        """Normalise N x C x ...; in training by the mean and variance over the samples of all ranks."""
        if input.device.type != "cpu":
            return nn.SyncBatchNorm.forward(self, input)  # type: ignore[arg-type]
        if not (self.training and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(input)
        self._check_input_dim(input)
        output, mean, variance, count = _Normalize.apply(input, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        if self.track_running_stats:
            self._track(mean, variance, count)
        return output  # type: ignore[no-any-return]

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"batch normalisation needs samples and channels, but got a shape of {list(input.shape)}")

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        # without a momentum, the plain mean over all batches so far
        weight = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        unbiased = variance * count / (count - 1).clamp(min=1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), weight)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), weight)


class _Normalize(torch.autograd.Function):
    """Normalise channels over the samples of all ranks, which all come here, each with any number of samples.

    Each rank's sums of squares are taken around its own mean and then combined (Chan, Golub and LeVeque, 1983), so
    that nothing cancels where a mean is large. One collective in each direction.
    """

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        over = [axis for axis in range(x.ndim) if axis != 1]
        count = x.new_tensor([x.numel() // x.shape[1]])
        local_mean = x.sum(over) / count.clamp(min=1)
        squares = (x - _across(local_mean, x)).square().sum(over)
        every = _gather(torch.cat([count, local_mean, squares]))
        counts, (means, all_squares) = every[:, :1], every[:, 1:].chunk(2, dim=1)
        total = counts.sum(0)
        mean = (means * counts).sum(0) / total
        variance = (all_squares + counts * (means - mean).square()).sum(0) / total
        scale = (variance + eps).rsqrt()
        normal = (x - _across(mean, x)) * _across(scale, x)
        output = normal if weight is None else normal * _across(weight, x)
        output = output if bias is None else output + _across(bias, x)
        ctx.save_for_backward(normal, scale, weight, total)
        ctx.mark_non_differentiable(mean, variance, total)
        return output.to(input.dtype), mean, variance, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        normal, scale, weight, total = ctx.saved_tensors
        grad = grad_output.to(normal.dtype)
        over = [axis for axis in range(grad.ndim) if axis != 1]
        grad_bias, grad_weight = grad.sum(over), (grad * normal).sum(over)
        factor = scale if weight is None else scale * weight
        grad_input = None
        if ctx.needs_input_grad[0]:
            sums = torch.cat([grad_bias, grad_weight])
            dist.all_reduce(sums)
            mean_grad, mean_slope = (sums / total).chunk(2)
            grad_input = grad - _across(mean_grad, grad) - normal * _across(mean_slope, grad)
            grad_input = (grad_input * _across(factor, grad)).to(grad_output.dtype)
        needs_weight, needs_bias = ctx.needs_input_grad[1:3]
        return grad_input, grad_weight if needs_weight else None, grad_bias if needs_bias else None, None


def _across(channels: Tensor, like: Tensor) -> Tensor:
    return channels.view(1, -1, *[1] * (like.ndim - 2))


def _gather(tensor: Tensor) -> Tensor:
    every = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(every, tensor)
    return torch.stack(every)
