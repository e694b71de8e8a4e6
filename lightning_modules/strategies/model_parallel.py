"""Tensor parallel by data parallel: a net divided over ranks, and its checkpoint in one ordinary file."""

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric.utilities.optimizer import _optimizers_to_device
from lightning_utilities.core.apply_func import apply_to_collection
from pytorch_lightning import Trainer
from pytorch_lightning.strategies import ModelParallelStrategy
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor.parallel import parallelize_module
from torch.distributed.tensor.placement_types import _StridedShard
from torch.optim import Optimizer

from lightning_modules.strategies.averaging import average

__all__ = ["ModelParallel", "parallelize"]


class ModelParallel(ModelParallelStrategy):
    """Divide each layer over a group of `tensor_parallel_size` ranks, and the samples over these groups.

    The module divides itself in `configure_model`, over the axes `tensor_parallel` and `data_parallel` of its
    `device_mesh`; `Classifier` does so by the plan of its net. It is Lightning's strategy with these changes:

    - The number of data-parallel groups follows from the number of ranks.
    - A checkpoint is one file, the same that a single process would write, and a single process can load it.
    - Loading works without an optimizer's state, for plain SGD and for testing after training.
    - Clipping by norm takes the norm over all parameters, however each is divided.
    - Buffers, such as the running statistics of batch normalisation, are averaged over the data-parallel ranks
      before every validation, test, checkpoint and epoch and at the end. So the model that is judged is the one that
      is saved, and saving between two epochs changes nothing.
    - `trainer.sync_batchnorm` works.

    Ranks that share layers see the same samples, and must draw the same random numbers for dropout: seed them by
    `trainer.distributed_sampler_kwargs["rank"]`, which counts the groups, and not by `trainer.global_rank`.

    Args:
        tensor_parallel_size: ranks over which each layer is divided; it must divide the number of ranks.
    """

    def __init__(self, tensor_parallel_size: int) -> None:
        if tensor_parallel_size < 1:
            raise ValueError(
                f"trainer.strategy.tensor_parallel_size must be at least 1, but got {tensor_parallel_size}"
            )
        super().__init__(tensor_parallel_size=tensor_parallel_size, save_distributed_checkpoint=False)
        self.tensor_parallel_size = tensor_parallel_size
        self._is_apart = False

    def setup_environment(self) -> None:
        """Arrange the ranks in groups once, and pass the mesh to the module.

        Raises:
            ValueError: the ranks cannot be divided into groups of `tensor_parallel_size`.
        """
        self._setup_distributed()
        if self.world_size % self.tensor_parallel_size:
            raise ValueError(
                f"trainer.strategy.tensor_parallel_size must divide the number of ranks, but "
                f"{self.tensor_parallel_size} does not divide {self.world_size}: set "
                f"trainer.devices={self.tensor_parallel_size} or a multiple"
            )
        if self._device_mesh is None:
            self._device_mesh = init_device_mesh(
                self.root_device.type,
                (self.world_size // self.tensor_parallel_size, self.tensor_parallel_size),
                mesh_dim_names=("data_parallel", "tensor_parallel"),
            )
        self.tell_module(self._device_mesh)

    def tell_module(self, mesh: DeviceMesh) -> None:
        """Make `mesh` available to the module's `configure_model`."""
        assert self.lightning_module is not None
        self.lightning_module._device_mesh = mesh

    def setup(self, trainer: Trainer) -> None:
        """Prepare the divided module and, to train it, its optimizers."""
        assert self.accelerator is not None and self.model is not None
        self.accelerator.setup(trainer)
        is_fitting = trainer.state.fn == TrainerFn.FITTING
        if is_fitting and self._layer_sync:
            self.model = self._layer_sync.apply(self.model)
        self.model = self.precision_plugin.convert_module(self.model)
        self.divide()
        self.model_to_device()
        # Weights gathered in inference mode could not be trained with afterwards
        for loop in (trainer.fit_loop.epoch_loop.val_loop, trainer.validate_loop, trainer.test_loop):
            loop.inference_mode = False
        self.barrier()
        if is_fitting:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()
        if is_fitting:
            _optimizers_to_device(self.optimizers, self.root_device)

    def divide(self) -> None:
        """Check that the module has divided itself.

        Raises:
            ValueError: it has not.
        """
        assert self.model is not None
        # A divided module may currently hold whole parameters, gathered for its last forward
        if not any(
            isinstance(part, FSDPModule | DTensor) for part in (*self.model.modules(), *self.model.parameters())
        ):
            raise ValueError(
                f"trainer.strategy._target_={type(self).__name__} needs a module that divides itself in "
                f"`configure_model`, but {type(self.model).__name__} does not: set trainer=fsdp, which divides any"
            )

    def setup_precision_plugin(self) -> None:
        """Attach the precision plugin, and make it clip divided gradients."""
        super().setup_precision_plugin()
        self.precision_plugin.clip_grad_by_norm = clip_by_norm  # type: ignore[method-assign]

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Begin an epoch with the same buffers, whether or not a checkpoint was saved before it."""
        if batch_idx == 0:
            self._average_buffers()
        self._is_apart = True

    def on_validation_start(self) -> None:
        """Judge one model."""
        self._average_buffers()

    def on_test_start(self) -> None:
        """Judge one model."""
        self._average_buffers()

    def on_train_end(self) -> None:
        """End with one model."""
        self._average_buffers()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Gather the whole model on rank 0; every rank takes part, as Lightning calls it on all."""
        self._average_buffers()
        return super().lightning_module_state_dict()

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Load one file into the divided model and, to continue training, its optimizers; each rank reads its pieces.

        Lightning drops the caller's `weights_only`; as for its other local files, None means False. The caller must
        ensure that the file is this trial's own: `sweeps/worker/fit.py` passes no other file to this strategy.
        """
        assert self.model is not None and self.lightning_module is not None
        path = Path(self.broadcast(checkpoint_path))
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", mmap=True, weights_only=bool(weights_only))
        own = self.model.state_dict()
        pieces = {key: _piece(value, own.get(key)) for key, value in checkpoint["state_dict"].items()}
        self.model.load_state_dict(pieces, strict=self.lightning_module.strict_loading)
        if self.lightning_module.trainer.state.fn == TrainerFn.FITTING:
            for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
                _load_optimizer(optimizer, state)
        # The rest must not stay mapped memory, because the next checkpoint may overwrite its file
        used = {key: checkpoint[key] for key in ("state_dict", "optimizer_states") if key in checkpoint}
        kept: dict[str, Any] = apply_to_collection(
            {key: value for key, value in checkpoint.items() if key not in used}, Tensor, Tensor.clone
        )
        return kept | used

    def _average_buffers(self) -> None:
        if self._is_apart:  # a mean of equal numbers is not always equal to the last bit
            assert self.model is not None
            average(self.model.buffers(), self.device_mesh["data_parallel"].get_group())
            self._is_apart = False


def parallelize(net: nn.Module, mesh: DeviceMesh) -> None:
    """Divide `net` over a mesh with the axes `tensor_parallel` and `data_parallel`, in place; later calls do nothing.

    All ranks must hold equal weights. Layers are divided over the first axis by the net's
    `tensor_parallel_plan(size)`, which maps names of its submodules to torch's parallel styles. The remainder of
    each parameter is divided over the second axis.

    Raises:
        ValueError: there is something to divide over the first axis, but the net has no plan.
    """
    if isinstance(net, FSDPModule):
        return
    size = mesh["tensor_parallel"].size()
    if size > 1:
        plan = getattr(net, "tensor_parallel_plan", None)
        if plan is None:
            raise ValueError(
                f"trainer.strategy.tensor_parallel_size={size} needs a net with a method `tensor_parallel_plan`, but "
                f"model._target_={type(net).__name__} has none: set trainer=fsdp, which divides any net, or "
                "trainer.strategy.tensor_parallel_size=1"
            )
        parallelize_module(net, mesh["tensor_parallel"], plan(size))
    fully_shard(net, mesh=mesh["data_parallel"])


def clip_by_norm(optimizer: Optimizer, clip_val: float) -> None:
    """Scale gradients down to a common norm of `clip_val`.

    torch's own function refuses gradients that are divided over different axes. Here, for gradients that are divided
    alike, the sums of squares are added up in one collective per axis.
    """
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    by_layout: dict[tuple[DeviceMesh | None, tuple[int, ...]], list[Tensor]] = {}
    for gradient in gradients:
        by_layout.setdefault(_layout(gradient), []).append(_local(gradient))
    squares = []
    for (mesh, axes), alike in by_layout.items():
        square = torch.stack(torch._foreach_norm(alike, 2, dtype=torch.float32)).square().sum()
        for axis in axes:
            assert mesh is not None
            dist.all_reduce(square, group=mesh.get_group(axis))
        squares.append(square)
    if squares:
        norm = torch.stack(squares).sum().sqrt()
        torch._foreach_mul_([_local(gradient) for gradient in gradients], (clip_val / (norm + 1e-6)).clamp(max=1.0))


def _layout(tensor: Tensor) -> tuple[DeviceMesh | None, tuple[int, ...]]:
    """Return the mesh and those of its axes over which `tensor` is divided."""
    if not isinstance(tensor, DTensor):
        return None, ()
    axes = enumerate(tensor.placements)
    return tensor.device_mesh, tuple(axis for axis, placement in axes if not placement.is_replicate())


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _load_optimizer(optimizer: Optimizer, whole: Mapping[str, Any]) -> None:
    numbers = chain.from_iterable(group["params"] for group in whole["param_groups"])
    parameters = chain.from_iterable(group["params"] for group in optimizer.param_groups)
    state = {
        number: {name: _piece(value, parameter) for name, value in whole["state"][number].items()}
        for number, parameter in zip(numbers, parameters, strict=True)
        if number in whole["state"]
    }
    optimizer.load_state_dict({"state": state, "param_groups": whole["param_groups"]})


def _piece(value: Any, like: Any) -> Any:
    """Copy this rank's piece of `value`, divided like `like`, or all of it if its shape differs from that of `like`.

    torch's `distribute_tensor` cannot do this if a dimension is divided twice and unevenly.
    """
    if not isinstance(value, Tensor):
        return value
    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value.clone()
    mesh, local = like.device_mesh, value
    # The last axis first: layers are divided before their remainder is
    for axis, placement in reversed(list(enumerate(like.placements))):
        if isinstance(placement, Shard | _StridedShard):
            chunks = local.chunk(mesh.size(axis), dim=placement.dim)
            rank = mesh.get_local_rank(axis)
            local = chunks[rank] if rank < len(chunks) else local.narrow(placement.dim, 0, 0)
    return DTensor.from_local(
        local.to(mesh.device_type, copy=True),
        mesh,
        like.placements,
        shape=like.shape,
        stride=like.stride(),
        run_check=False,
    )
