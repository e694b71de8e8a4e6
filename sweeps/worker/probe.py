"""Measure the first batches of a training run: memory, a digest of the computation, and unused parameters."""

import hashlib
import json
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from sweeps.config.composer import Config
from sweeps.core.errors import ConfigError
from sweeps.core.messages import CornerResult, Memory
from sweeps.core.text import some_of
from sweeps.worker.callbacks import num_parameters, numbers_in, stop
from sweeps.worker.hashing import parts
from sweeps.worker.process_group import Ranks
from sweeps.worker.trainer import seed_process

__all__ = ["EnoughError", "Probe"]

_PIECE = 1 << 18  # numbers


class EnoughError(Exception):
    """The batches that are to be tried have been."""


class Probe(Callback):
    """Watches the first two batches: the memory they take, what they compute, and which parameters take no part.

    **Memory** is that of this rank. On a GPU it is the peak of what torch's allocator has given out. On the CPU it
    is a sum: parameters and buffers; gradients, twice where DDP also keeps them in buckets (torch's documentation of
    DistributedDataParallel, `gradient_as_bucket_view`); the optimizer's state after a real step; the tensors that
    autograd saves in the second batch for its backward pass, each storage once (torch's tutorial on hooks for saved
    tensors); and twice the largest of these, since the backward pass of an operation holds the gradients of what went
    in and what came out. Not in it are what operations need for themselves, the data, and the process itself.
    Against the rise of the peak of resident memory it was 0.8 to 0.95 for large MLPs, and 0.6 to 0.8 for CNNs, whose
    convolutions keep copies of their own.

    **Of an epoch** the first batches are trained, the last of them with the number of the epoch's last batch: to the
    module the Trainer has the length, the steps and the epochs of the real one.

    Args:
        config: What is trained.
        ranks: The ranks of the trial.
        has_hooks: Whether to watch what autograd saves, where that is needed.
        num_batches: How many batches of an epoch are trained.
        whole_s: Train to the end, for so many seconds at most; None for the first batches alone.
        num_epochs: After how many epochs training ends; 0 ends it after the batches, by raising `EnoughError`.

    Attributes:
        is_cut: Whether a run to the end was cut off.
        was_watching: Whether it watched what autograd saves when training failed.
    """

    def __init__(
        self,
        config: Config,
        ranks: Ranks,
        *,
        has_hooks: bool = True,
        num_batches: int = 2,
        num_epochs: int = 1,
        whole_s: float | None = None,
    ) -> None:
        self.was_watching = self.is_cut = False
        self._ends_at = math.inf if whole_s is None else time.monotonic() + whole_s
        self._is_whole = whole_s is not None
        self._seed = config["seed"]
        self._strategy = config["trainer"]["strategy"]
        self._ranks = ranks
        self._has_hooks = has_hooks
        self._num_batches = num_batches  # 2: an optimizer has its state from the second on
        self._num_epochs = num_epochs
        self._num_trained = 0  # batches of this epoch
        self._num_ended = 0  # epochs
        self._words: list[Any] = []  # what the digest is of
        self._used: set[str] = set()
        self._memory: Memory | None = None
        self._parameter_bytes = self._gradient_bytes = self._optimizer_bytes = 0
        self._saved: _SavedTensors | None = None
        self._batch_bytes: list[int] = []
        self._unused: tuple[str, ...] = ()

    def shorten(self, trainer: pl.Trainer) -> None:
        """Let epochs and validations end early, and each batch be a step; the Trainer's numbers stay the real ones."""
        if self._is_whole:
            return
        loop = trainer.fit_loop.epoch_loop

        def validates(fetcher: Any) -> bool:
            return self._num_epochs > 0 and self._is_last(trainer) and trainer.enable_validation

        loop._should_check_val_fx = validates  # type: ignore[method-assign, assignment]
        loop._should_accumulate = lambda: False  # type: ignore[method-assign]
        for evaluation in (loop.val_loop, trainer.test_loop):
            _limit_to_one(evaluation)

    def _end_in_time(self) -> None:
        if time.monotonic() > self._ends_at:
            self.is_cut = True
            raise EnoughError

    def on_validation_batch_start(self, *args: Any, **kwargs: Any) -> None:
        """End in time."""
        self._end_in_time()

    def on_test_batch_start(self, *args: Any, **kwargs: Any) -> None:
        """End in time."""
        self._end_in_time()

    def _is_last(self, trainer: pl.Trainer) -> bool:
        """Tell whether the batch is the last one that is trained of this epoch."""
        if self._is_whole:
            return trainer.is_last_batch or self._num_trained >= trainer.num_training_batches
        return self._num_trained >= min(self._num_batches, trainer.num_training_batches)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count from 0."""
        self._num_trained = 0

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End training after enough epochs."""
        self._num_ended += 1
        if self._num_ended >= self._num_epochs and not self._is_whole:
            stop(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Sum up where training has ended by itself, after fewer batches."""
        if self._memory is None and self._batch_bytes:
            self._sum_up(pl_module)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Let loaders draw the same order, whether the data was set up just now or before."""
        seed_process(self._seed)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the optimizers before any schedule has changed them."""
        device = pl_module.device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self._parameter_bytes = _bytes_of(pl_module)
        self._words += [_names_of(pl_module), num_parameters(pl_module), _num_train_batches(trainer)]
        self._words += [_settings(optimizer) for optimizer in trainer.optimizers]

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """See what the last of the batches saves; the first must be as it always is (see torch's version counter)."""
        self._end_in_time()
        self._num_trained += 1
        is_last = self._is_last(trainer)
        if is_last:
            trainer.fit_loop.epoch_loop.batch_progress.is_last_batch = True
        self._batch_bytes.append(max(1, sum(map(_num_bytes, _tensors(batch)))))
        if is_last and self._has_hooks and self._memory is None and pl_module.device.type == "cpu":
            self._saved = _SavedTensors(pl_module)
            self._saved.__enter__()

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Look at the gradients."""
        if self._memory is not None:
            return
        gradients = {name: p.grad for name, p in pl_module.named_parameters() if p.grad is not None}
        self._used |= set(gradients)
        self._words += [(name, _digest(gradient)) for name, gradient in gradients.items()]
        copies = 2 if _has_buckets(trainer) else 1
        self._gradient_bytes = max(self._gradient_bytes, copies * sum(map(_num_bytes, gradients.values())))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note what the step has left behind, and after the last batch sum up."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor):
            self._words.append(_digest(loss.detach()))
        if self._num_trained == self._num_batches - 1 and not self._is_whole:
            _jump_to_the_end(trainer)
        if self._memory is not None:
            return
        if self._used:
            self._unused = tuple(
                name for name, p in pl_module.named_parameters() if p.requires_grad and name not in self._used
            )
            self._require_used(trainer, pl_module)  # at the first already: DDP fails in the second
        self._optimizer_bytes = max(self._optimizer_bytes, sum(_state_bytes(each) for each in trainer.optimizers))
        if not self._is_last(trainer):
            return
        self._sum_up(pl_module)
        if self._num_epochs == 0:
            raise EnoughError

    def _sum_up(self, pl_module: pl.LightningModule) -> None:
        if self._saved is not None:
            self._saved.__exit__(None, None, None)
        self._parameter_bytes = max(self._parameter_bytes, _bytes_of(pl_module))  # of a lazy one they are there now
        self._memory = Memory(
            parameters=self._parameter_bytes,
            gradients=self._gradient_bytes,
            optimizer=self._optimizer_bytes,
            activations=None if self._saved is None else self._of_a_whole_batch(self._saved),
            peak=_peak(pl_module.device),
        )
        self._saved = None

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Watch no more."""
        if self._saved is not None:
            self.was_watching = True
            self._saved.__exit__(None, None, None)
            self._saved = None

    def note_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Add to the digest what a training has come to: the weights, and all that is logged."""
        self._words += [_digest(tensor.detach()) for tensor in _held_by(module)]
        self._words += sorted(numbers_in(trainer.callback_metrics).items())

    def result(self, module: pl.LightningModule) -> CornerResult:
        """Return what was seen."""
        digest = hashlib.sha256(json.dumps(self._words, default=repr).encode()).hexdigest()
        return CornerResult(
            was_run=self._memory is not None,
            num_parameters=num_parameters(module),
            memory=self._memory,
            digest=digest if self._memory is not None else "",
            unused=self._unused,
        )

    def _of_a_whole_batch(self, saved: "_SavedTensors") -> int:
        """Scale what the last batch took, which may have been a smaller one, to the largest."""
        num_bytes = saved.num_bytes + 2 * saved.largest_bytes
        return num_bytes * max(self._batch_bytes) // self._batch_bytes[-1]

    def _require_used(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Refuse what plain DDP refuses at the second step, in words that lead out of it."""
        if not self._unused or self._ranks.size == 1 or not module.automatic_optimization:
            return
        model = trainer.strategy.model
        if not isinstance(model, DistributedDataParallel) or model.find_unused_parameters or model.static_graph:
            return
        way_out = "trainer.strategy=ddp_find_unused_parameters_true"
        if isinstance(self._strategy, dict):
            way_out = "trainer.strategy.find_unused_parameters=true"
        raise ConfigError(
            f"With several ranks, plain DDP needs a gradient for every parameter of the model, but "
            f"{some_of(self._unused)} got none in the first batch, so that training would fail at the second. Use "
            f"them, freeze them (requires_grad=False), or set {way_out}."
        )


class _SavedTensors(saved_tensors_hooks):
    """Adds up, while it is entered, what autograd saves for backward passes; not what the module holds anyway."""

    def __init__(self, module: pl.LightningModule) -> None:
        self._sizes: dict[int, int] = {}
        self._held = {_address(part) for tensor in _held_by(module) for part in parts(tensor)}
        super().__init__(self._pack, lambda tensor: tensor)

    @property
    def num_bytes(self) -> int:
        """The bytes of all storages that were saved."""
        return sum(self._sizes.values())

    @property
    def largest_bytes(self) -> int:
        """The bytes of the largest of them."""
        return max(self._sizes.values(), default=0)

    def _pack(self, tensor: Tensor) -> Tensor:
        for part in parts(tensor):
            address = _address(part)
            if address not in self._held:
                self._sizes[address] = max(self._sizes.get(address, 0), part.untyped_storage().nbytes())
        return tensor


def _names_of(module: pl.LightningModule) -> str:
    """Return what a module consists of, in words; by its parts alone where its own words fail."""
    try:
        return repr(module)
    except Exception:
        return repr([(name, type(part).__name__) for name, part in module.named_modules()])


def _settings(optimizer: Optimizer) -> list[str]:
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    return [type(optimizer).__name__, *map(repr, groups)]


def _state_bytes(optimizer: Optimizer) -> int:
    return sum(map(_num_bytes, _tensors(list(optimizer.state.values()))))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def _held_by(module: pl.LightningModule) -> list[Tensor]:
    """Return the parameters and buffers that exist; lazy ones come with the first batch."""
    return [tensor for tensor in (*module.parameters(), *module.buffers()) if not is_lazy(tensor)]


def _bytes_of(module: pl.LightningModule) -> int:
    return sum(map(_num_bytes, _held_by(module)))


def _jump_to_the_end(trainer: pl.Trainer) -> None:
    """Let the next batch have the number of the epoch's last one, if the epoch has a known length beyond it."""
    length = trainer.num_training_batches
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    if math.isfinite(length) and progress.ready < length - 1:
        progress.ready = progress.started = progress.processed = int(length) - 1
        progress.completed = progress.ready - 1  # counted up after the hook in which this is called


def _limit_to_one(loop: Any) -> None:
    """Let a loop evaluate one batch of each loader, after it has set up the real number."""
    set_up = loop.setup_data

    def set_up_short() -> None:
        set_up()
        loop._max_batches = [min(1, number) for number in loop._max_batches]

    loop.setup_data = set_up_short


def _num_bytes(tensor: Tensor) -> int:
    """Return the bytes of the part of a tensor that this rank holds."""
    return sum(part.numel() * part.element_size() for part in parts(tensor))


def _address(part: Tensor) -> int:
    return part.untyped_storage().data_ptr()


def _digest(tensor: Tensor) -> str:
    """Return a text that differs if the tensor does: of sums in double precision, piece by piece to save memory."""
    return " ".join(_sums(part.reshape(-1)) for part in parts(tensor))


def _sums(numbers: Tensor) -> str:
    if not numbers.is_floating_point():
        return repr(numbers.sum().item())
    found = []
    for start in range(0, numbers.numel(), _PIECE):
        piece = numbers[start : start + _PIECE].double()
        found += [float(piece.sum()).hex(), float(piece.abs().sum()).hex()]
    return " ".join(found)


def _has_buckets(trainer: pl.Trainer) -> bool:
    model = trainer.strategy.model
    return isinstance(model, DistributedDataParallel) and not model.gradient_as_bucket_view


def _num_train_batches(trainer: pl.Trainer) -> list[int]:
    """Return how many batches each loader has, where it can be told: what leaves out the last one shows in that."""
    loaders = trainer.train_dataloader
    several: Iterable[Any] = loaders if isinstance(loaders, (list, tuple)) else [loaders]
    found = []
    for loader in several:
        with suppress(TypeError, NotImplementedError):
            found.append(len(loader))
    return found


def _peak(device: torch.device) -> int | None:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
