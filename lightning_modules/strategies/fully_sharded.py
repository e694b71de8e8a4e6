"""Fully sharded data parallel: weights, gradients and optimizer states divided over ranks, for any module."""

from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from lightning_modules.strategies.model_parallel import ModelParallel

__all__ = ["FullySharded"]


class FullySharded(ModelParallel):
    """Divide a module's weights over all ranks, and gather one unit at a time while it is needed.

    It trains exactly like DDP, with less memory on each rank. On both GPUs and CPUs it uses
    torch's `fully_shard` (FSDP2; Zhao et al. 2023, arXiv 2304.11277): Lightning's `FSDPStrategy` is older, refuses
    the CPU and refuses to clip gradients by norm. Every precision but `16-mixed` works.

    **A checkpoint** is one ordinary file, which a single process can load; rank 0 gathers it.

    **Batch statistics** are separate on each rank during training, and averaged before use; see `ModelParallel`.

    Args:
        min_unit_parameters: the number of parameters from which a submodule becomes a unit, without those in
            units inside it. Small units often wait for the network, large ones need more memory.
    """

    def __init__(self, min_unit_parameters: int = 1_000_000) -> None:
        if min_unit_parameters < 1:
            raise ValueError(f"trainer.strategy.min_unit_parameters must be at least 1, but got {min_unit_parameters}")
        super().__init__(tensor_parallel_size=1)
        self.min_unit_parameters = min_unit_parameters

    def tell_module(self, mesh: DeviceMesh) -> None:
        """Keep the mesh from the module, so that it does not divide itself."""

    def divide(self) -> None:
        """Divide the module once: its units, then the rest as a last unit, the module itself."""
        assert self.model is not None
        if not isinstance(self.model, FSDPModule):
            for unit in (*units(self.model, self.min_unit_parameters), self.model):
                self._make_equal(unit)
                fully_shard(unit, mesh=self.device_mesh["data_parallel"])

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Run a training step inside the module's `forward`, where its weights are gathered."""
        with self.precision_plugin.train_step_context():
            return self._run("training_step", *args, **kwargs)

    def validation_step(self, *args: Any, **kwargs: Any) -> Any:
        """Run a validation step in the same way."""
        with self.precision_plugin.val_step_context():
            return self._run("validation_step", *args, **kwargs)

    def test_step(self, *args: Any, **kwargs: Any) -> Any:
        """Run a test step in the same way."""
        with self.precision_plugin.test_step_context():
            return self._run("test_step", *args, **kwargs)

    def _run(self, step: str, *args: Any, **kwargs: Any) -> Any:
        assert self.model is not None and self.lightning_module is not None
        return self._forward_redirection(self.model, self.lightning_module, step, *args, **kwargs)

    def _make_equal(self, unit: nn.Module) -> None:
        """Give every rank the weights of rank 0; only one unit at a time is whole on the device."""
        for tensor in chain(unit.parameters(), unit.buffers()):
            if not isinstance(tensor, DTensor):  # otherwise it is in a unit inside this one
                tensor.data = tensor.data.to(self.root_device)
                dist.broadcast(tensor.data, src=0)


def units(root: nn.Module, min_parameters: int) -> Iterator[nn.Module]:
    """Yield the submodules of `root` that have `min_parameters` parameters outside their own inner units, inner first.

    Modules that cannot be gathered alone are left out: lists of modules, whose `forward` is never called; the inside
    of `MultiheadAttention`, which reads its parts' weights; and modules that share a parameter with one outside.
    """
    uses = Counter(id(parameter) for _, parameter in root.named_parameters(remove_duplicate=False))
    taken: set[int] = set()

    def visit(module: nn.Module) -> Iterator[nn.Module]:
        if not isinstance(module, nn.MultiheadAttention):
            for child in module.children():
                yield from visit(child)
        own = [p for p in module.parameters() if id(p) not in taken]
        inside = Counter(id(parameter) for _, parameter in module.named_parameters(remove_duplicate=False))
        is_apart = all(inside[id(parameter)] == uses[id(parameter)] for parameter in own)
        is_called = not isinstance(module, nn.ModuleList | nn.ModuleDict)
        if module is not root and is_called and is_apart and sum(p.numel() for p in own) >= min_parameters:
            taken.update(id(parameter) for parameter in own)
            yield module

    return visit(root)
