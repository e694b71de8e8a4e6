"""The mean of tensors over ranks, in place."""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["average"]


@torch.no_grad()
def average(tensors: Iterable[Tensor], group: dist.ProcessGroup | None = None) -> None:
    """Replace each floating-point tensor by its mean over the ranks of `group`; leave the others as they are.

    All ranks of the group call it with tensors of equal shapes in equal order, and then have equal values. There is
    one collective per data type, in single precision or better.

    torch's own `average_parameters` gives every parameter new memory, leaves out those without a gradient, and
    starts CUDA if there is a GPU, even an unused one.
    """
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        if tensor.is_floating_point():
            by_dtype.setdefault(tensor.dtype, []).append(tensor)
    for dtype, alike in by_dtype.items():
        exact = torch.promote_types(dtype, torch.float32)
        flat = torch.cat([tensor.reshape(-1) for tensor in alike]).to(exact)
        dist.all_reduce(flat, group=group)
        flat /= dist.get_world_size(group)
        means = torch.split_with_sizes(flat, [tensor.numel() for tensor in alike])
        for tensor, mean in zip(alike, means, strict=True):
            tensor.copy_(mean.view_as(tensor))
