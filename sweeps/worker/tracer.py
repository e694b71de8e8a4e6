"""Write the trace of a training run: hashes of its weights and data, by which another run can be proved equal."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.nn.parameter import is_lazy

from sweeps.reproduce.provenance import imported_sources
from sweeps.reproduce.trace import Epoch, Segment, TraceFile
from sweeps.worker.callbacks import logged_step
from sweeps.worker.hashing import bytes_of, feed, form, leaves, parts
from sweeps.worker.process_group import Ranks

__all__ = ["BatchOrder", "Tracer", "environment_of", "weights_hash"]

_SAMPLE = 64  # numbers of each tensor of a batch
_HELD = 4096  # samples that wait on the device: two megabytes of floats
_TAKEN = frozenset(  # the types of which torch can take a sample
    (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex128, torch.complex64),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    )
)
_AS_WIDE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_STRIDE = 0.6180339887498949  # places that no period of a shape hits again and again


class Tracer(Callback):
    """Hashes the weights before the first step and after each epoch, and the data of each epoch.

    Of each tensor of a batch a few numbers are kept on the device, and hashed at the end of the epoch: no step waits
    for a GPU, and what workers load in another order is also seen. Every rank hashes its own; rank 0 writes.

    Args:
        ranks: The ranks of the trial.
        folder: The trial's folder.
        config: The fingerprint of the frozen config.
        seed: Its seed.
        provenance: The hash of what the driver knows of code, packages and machine.
        python_path: Where the user's modules are.

    Attributes:
        loaders: Those of each split, as far as training and testing have come; the Trainer forgets them.
    """

    def __init__(
        self, ranks: Ranks, folder: Path, *, config: str, seed: int, provenance: str, python_path: Sequence[str] = ()
    ) -> None:
        self.file = TraceFile(folder)
        self._ranks = ranks
        self._config = config
        self._seed = seed
        self._provenance = provenance
        self._python_path = tuple(python_path)
        self._order = BatchOrder()
        self.loaders: dict[str, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record how training begins, or where it resumes."""
        gathered = self._ranks.gather((environment_of(trainer), weights_hash(pl_module)))
        if self._ranks.is_first:
            self.file.begin(
                Segment(
                    begins=trainer.current_epoch,
                    config=self._config,
                    seed=self._seed,
                    provenance=self._provenance,
                    ranks=tuple(environment for environment, _ in gathered),
                    sources=imported_sources(self._python_path),
                    weights=tuple(weights for _, weights in gathered),
                )
            )

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin an epoch."""
        self._order = BatchOrder()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep a sample of the batch."""
        self._order.add(batch)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hash the epoch."""
        self.loaders |= {"train": trainer.train_dataloader, "val": trainer.val_dataloaders}
        gathered = self._ranks.gather((self._order.digest(), weights_hash(pl_module)))
        if self._ranks.is_first:
            self.file.add(
                Epoch(
                    epoch=trainer.current_epoch,
                    step=trainer.global_step,
                    metrics_end=logged_step(trainer),
                    batches=self._order.num_batches,
                    order=tuple(order for order, _ in gathered),
                    weights=tuple(weights for _, weights in gathered),
                )
            )

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the loaders."""
        self.loaders["test"] = trainer.test_dataloaders


def weights_hash(module: torch.nn.Module, names: Mapping[str, str] | None = None) -> str:
    """Return the hash of the parameters and buffers that this rank has: names, types, shapes and bytes.

    Args:
        module: The module.
        names: What some of them were called in training, where that is another name.
    """
    digest = hashlib.blake2b(digest_size=20)
    for named in (module.named_parameters(), module.named_buffers()):
        for own, tensor in named:
            name = own if names is None else names.get(own, own)
            if is_lazy(tensor):
                digest.update(f"{name} is not there yet\n".encode())
                continue
            digest.update(f"{name} ".encode())
            feed(digest, tensor)
    return digest.hexdigest()


def environment_of(trainer: pl.Trainer) -> dict[str, Any]:
    """Return what decides the bits of a training and only its own process knows."""
    device = trainer.strategy.root_device
    found: dict[str, Any] = {
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "device": device.type,
        "world_size": trainer.world_size,
        "strategy": type(trainer.strategy).__name__,
        "precision": str(trainer.precision),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "deterministic_warns": torch.is_deterministic_algorithms_warn_only_enabled(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "mkldnn": bool(torch.backends.mkldnn.enabled),
    }
    if device.type == "cuda":
        found |= {
            "device_name": torch.cuda.get_device_name(device),
            "device_capability": list(torch.cuda.get_device_capability(device)),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "cudnn_deterministic": torch.backends.cudnn.deterministic,
            "cudnn_tf32": torch.backends.cudnn.allow_tf32,
        }
    return found


class BatchOrder:
    """What is in the batches of an epoch, in their order."""

    def __init__(self) -> None:
        self.num_batches = 0
        self._digest = hashlib.blake2b(digest_size=20)
        self._others = hashlib.blake2b(digest_size=20)  # what is not a tensor: it may be large, and is not kept
        self._has_others = False
        self._held: list[Tensor] = []
        self._described: list[object] = []
        self._places: dict[int, Tensor] = {}

    def add(self, batch: Any) -> None:
        """Keep a sample of each tensor of a batch; of the usual one, some plain tensors, without a word too much."""
        self.num_batches += 1
        for leaf in batch if type(batch) in (list, tuple) else (batch,):
            if (
                type(leaf) is Tensor
                and leaf.dtype in _TAKEN
                and leaf.layout is torch.strided
                and not leaf.requires_grad
                and not leaf.is_nested
            ):
                self._keep(leaf)
            else:
                self._add_any(leaf)
        if len(self._held) >= _HELD:
            self._hash()

    def _keep(self, tensor: Tensor) -> None:
        size = tensor.numel()
        self._described.append(tensor.shape)
        if not size:
            return
        places = self._places.get(size)
        if places is None or places.device != tensor.device:
            places = self._places[size] = _places(size).to(tensor.device)
        self._held.append(tensor.take(places))

    def _add_any(self, structure: Any) -> None:
        for leaf in leaves(structure):
            if not isinstance(leaf, Tensor):
                self._has_others = True
                self._others.update(f"{self.num_batches} {len(self._described)} ".encode())
                feed(self._others, leaf)
                continue
            inner = parts(leaf)
            if len(inner) > 1:
                self._described.append(form(leaf))
            for part in inner:
                if part.dtype in _TAKEN:
                    self._keep(part)
                else:
                    self._described.append(part.dtype)
                    self._keep(part.view(_AS_WIDE[part.element_size()]))

    def digest(self) -> str:
        """Return the hash of all that was added."""
        self._hash()
        if self._has_others:
            self._digest.update(self._others.digest())
        return self._digest.hexdigest()

    def _hash(self) -> None:
        self._digest.update(repr(self._described).encode())
        by_kind: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for sample in self._held:
            by_kind.setdefault((sample.dtype, sample.device), []).append(sample)
        for samples in by_kind.values():  # one transfer for each
            self._digest.update(bytes_of(torch.cat(samples)))
        self._held, self._described = [], []


def _places(size: int) -> Tensor:
    """Return which of so many numbers make the sample, spread over them; of few all."""
    spread = [int(size * ((index * _STRIDE) % 1.0)) for index in range(_SAMPLE)]
    return torch.tensor(list(range(size)) if size <= _SAMPLE else spread)
