"""Try what a study is going to train: a rank's side of the check before the first trial.

The corners of the space come as frozen configs; what they tell together is judged by the driver (`checking`).
"""

import gc
import hashlib
import json
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from sweeps.building import build_callback, build_data, build_module
from sweeps.channel import Channel
from sweeps.config import Config
from sweeps.errors import ConfigError
from sweeps.naming import some_of
from sweeps.ranks import Ranks
from sweeps.records import CheckPassed, Memory, RankJob, Tried
from sweeps.reproducing.hashing import parts
from sweeps.train import (
    DerivedRandomness,
    has_test,
    metric_is_missing,
    num_parameters,
    quieten,
    seed_process,
    trainer_for,
)

__all__ = ["check", "compare", "measure"]

_NUM_BATCHES = 2  # the optimizer has its state from the second on, and in-place errors are seen in the first alone
_MOST_GARBAGE_BYTES = 500_000_000
_PIECE = 1 << 18  # numbers
_COMPARED = {"max_epochs": 2, "limit_train_batches": 3, "limit_val_batches": 1}


def check(corners: Sequence[Config], channel: Channel, ranks: Ranks, job: RankJob) -> CheckPassed:
    """Run the first corner from training to test, and train each other one for two batches; tell of each.

    All ranks run all corners alike: what a rank holds depends on the strategy, and whatever synchronises over the
    process group (metrics, batch normalisation) needs all of them.

    Args:
        corners: Configs at the ends of the search space, or the one config of a single run.
        channel: The line to the driver, which hears of each corner when it is done.
        ranks: The ranks of a trial, which have joined.
        job: Says where Lightning writes, what a `_target_` may name, and after how long the corners that are left are
            built, but not run.

    Raises:
        ConfigError: As `train.fit` would; a missing objective names the metrics that are logged; plain DDP would fail
            at the second step. The corner is the one after those that were told of.
    """
    began = time.monotonic()
    quieten()
    first = corners[0]
    data, module = _build_all(first, job)
    probe = _Probe(first, ranks)
    trainer = _trainer(first, probe, {}, ranks, job)
    trainer.fit(module, datamodule=data)
    logged = _require_objective(first["objective"]["metric"], trainer, ranks)
    if first["test"] and has_test(data, module):
        trainer.test(module, datamodule=data, verbose=False)
        logged = tuple(sorted({*logged, *trainer.callback_metrics}))
    tried = probe.result(module)
    channel.send(tried)
    del module, trainer, probe
    garbage = _Garbage()
    garbage.add(tried)

    shared = _SharedData(first, data, job.allowed_modules)
    _try_all(corners[1:], shared, channel, garbage, ranks, job)
    return _passed(ranks, began, metrics=logged, num_parameters=tried.num_parameters)


def measure(configs: Sequence[Config], channel: Channel, ranks: Ranks, job: RankJob) -> CheckPassed:
    """Train each config for two batches, and tell of each; the arguments are those of `check`."""
    began = time.monotonic()
    quieten()
    _try_all(configs, None, channel, _Garbage(), ranks, job)
    return _passed(ranks, began)


def compare(configs: Sequence[Config], channel: Channel, ranks: Ranks, job: RankJob) -> CheckPassed:
    """Train each config for some batches of two epochs with validation, and tell whether any of it differs.

    What two configs share as a digest they share to the bit: the losses, gradients, weights and all that is logged.
    The arguments are those of `check`; each config is built anew, its data too, and what there is no time for is left
    out.
    """
    began = time.monotonic()
    quieten()
    garbage = _Garbage()
    for config in configs:
        if not ranks.decide(lambda: time.monotonic() - began < job.limit_s):
            break
        data, module = _build_all(config, job)
        probe = _Probe(config, ranks)
        trainer = _trainer(config, probe, _COMPARED, ranks, job)
        trainer.fit(module, datamodule=data)
        probe.note_end(trainer, module)
        tried = probe.result(module)
        channel.send(tried)
        del data, module, trainer, probe
        garbage.add(tried)
    return _passed(ranks, began)


def _try_all(
    configs: Sequence[Config],
    shared: "_SharedData | None",
    channel: Channel,
    garbage: "_Garbage",
    ranks: Ranks,
    job: RankJob,
) -> None:
    """Build each config, train it for two batches if there is time, and tell of it."""
    began = time.monotonic()
    for config in configs:
        data, module = _build_all(config, job, shared)
        probe = _Probe(config, ranks, stops=True)
        if ranks.decide(lambda: time.monotonic() - began < job.limit_s):
            # no validation, and so no end of an epoch, at which a schedule may ask for a metric of it
            none = {"limit_val_batches": 0, "num_sanity_val_steps": 0}
            trainer = _trainer(config, probe, none, ranks, job)
            with suppress(_EnoughError):
                trainer.fit(module, datamodule=data)
            del trainer
        tried = probe.result(module)
        channel.send(tried)
        del data, module, probe
        garbage.add(tried)


def _trainer(config: Config, probe: "_Probe", more: Config, ranks: Ranks, job: RankJob) -> pl.Trainer:
    settings = config["trainer"]
    short = {"max_epochs": 1, "min_epochs": None, "max_steps": -1, "val_check_interval": None}
    whole = {"accumulate_grad_batches": 1, "check_val_every_n_epoch": 1}
    numbers = {"limit_train_batches": _NUM_BATCHES, "limit_val_batches": 1, "limit_test_batches": 1} | more
    limits = {key: number for key, number in numbers.items() if settings.get(key) != 0}
    return trainer_for(
        config | {"trainer": settings | short | whole | limits},
        ranks=ranks,
        logger=False,
        callbacks=[DerivedRandomness(config["seed"]), probe],
        folder=Path(job.folder),
        allowed=job.allowed_modules,
    )


def _build_all(config: Config, job: RankJob, shared: "_SharedData | None" = None) -> tuple[Any, pl.LightningModule]:
    allowed = job.allowed_modules
    seed_process(config["seed"])
    for name, node in (config["callbacks"] or {}).items():
        build_callback(node, key=f"callbacks.{name}", allowed=allowed)
    data = build_data(config, allowed=allowed) if shared is None else shared.of(config)
    seed_process(config["seed"])  # whether the data has drawn numbers or not
    return data, build_module(config, allowed=allowed)


def _require_objective(objective: str, trainer: pl.Trainer, ranks: Ranks) -> tuple[str, ...]:
    """Return what is logged, if the objective is among it and all ranks have the same value of it."""
    logged = tuple(sorted(trainer.callback_metrics))
    if ranks.decide(lambda: objective not in logged):
        raise metric_is_missing(objective, logged)
    value = trainer.callback_metrics.get(objective)
    own = torch.tensor([math.nan if value is None else float(value)], dtype=torch.float64).nan_to_num(nan=-1.0)
    first = ranks.decide(own.item)
    if ranks.sum((own != first).double()).item() > 0:  # only rank 0's would count
        raise ConfigError(
            f"Each of the {ranks.size} ranks has another {objective!r}, that of its own share of the samples: log it "
            "with self.log(..., sync_dist=True), or as a torchmetrics metric, so that all samples count."
        )
    return logged


class _SharedData:
    """The data module of the first corner, for all corners with the same data.

    It is not set up again, which may take long, unless it has something of its own to tear down.
    """

    def __init__(self, first: Config, data: Any, allowed: Sequence[str]) -> None:
        self._node, self._data, self._allowed = first["data"], data, allowed
        keeps = getattr(type(data), "teardown", None) is pl.LightningDataModule.teardown
        if keeps:
            data.setup = lambda stage: None
            data.prepare_data = lambda: None

    def of(self, config: Config) -> Any:
        """Return the data module of a config."""
        if config["data"] == self._node:
            return self._data
        return build_data(config, allowed=self._allowed)


class _Garbage:
    """Frees what was tried: a module and its trainer hold each other.

    It waits until there is much, since to look for it takes longer than to run a small corner.
    """

    def __init__(self) -> None:
        self._num_bytes = 0

    def add(self, tried: Tried) -> None:
        """Count something that is not needed any more."""
        self._num_bytes += tried.memory.total if tried.memory is not None else 4 * tried.num_parameters
        if self._num_bytes > _MOST_GARBAGE_BYTES:
            gc.collect()
            self._num_bytes = 0


# --- what is measured ----------------------------------------------------------------------------------


class _EnoughError(Exception):
    """The batches that are to be tried have been."""


class _Probe(Callback):
    """Watches the first two batches: the memory they take, what they compute, and which parameters take no part.

    **Memory** is that of this rank. On a GPU it is the peak of what torch's allocator has given out. On the CPU it
    is a sum: parameters and buffers; gradients, twice where DDP keeps them in buckets, too (torch's documentation of
    DistributedDataParallel, `gradient_as_bucket_view`); the optimizer's state after a real step; the tensors that
    autograd saves in the second batch for its backward pass, each storage once (torch's tutorial on hooks for saved
    tensors); and twice the largest of these, since the backward pass of an operation holds the gradients of what went
    in and what came out. Not in it are what operations need for themselves, the data, and the process itself.
    Against the rise of the peak of resident memory it was 0.8 to 0.95 for large MLPs, and 0.6 to 0.8 for CNNs, whose
    convolutions keep copies of their own.

    Args:
        config: What is trained.
        ranks: The ranks of the trial.
        stops: Whether to end the training after the second batch, by raising `_EnoughError`.
    """

    def __init__(self, config: Config, ranks: Ranks, *, stops: bool = False) -> None:
        self._seed = config["seed"]
        self._strategy = config["trainer"]["strategy"]
        self._ranks = ranks
        self._stops = stops
        self._words: list[Any] = []  # what the digest is of
        self._used: set[str] = set()
        self._memory: Memory | None = None
        self._parameter_bytes = self._gradient_bytes = self._optimizer_bytes = 0
        self._saved: _SavedTensors | None = None
        self._batch_bytes: list[int] = []
        self._unused: tuple[str, ...] = ()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Let loaders draw the same order, whether the data was set up just now or before."""
        seed_process(self._seed)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the optimizers before any schedule has changed them."""
        device = pl_module.device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self._parameter_bytes = sum(map(_num_bytes, (*pl_module.parameters(), *pl_module.buffers())))
        self._words += [repr(pl_module), num_parameters(pl_module), _num_train_batches(trainer)]
        self._words += [_settings(optimizer) for optimizer in trainer.optimizers]

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """See what the last of the batches saves; the first must be as it always is (see torch's version counter)."""
        is_last = batch_idx == min(_NUM_BATCHES, trainer.num_training_batches) - 1
        self._batch_bytes.append(max(1, sum(map(_num_bytes, _tensors(batch)))))
        if is_last and self._memory is None and pl_module.device.type == "cpu":
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
        if self._memory is not None:
            return
        if self._used:
            self._unused = tuple(
                name for name, p in pl_module.named_parameters() if p.requires_grad and name not in self._used
            )
            self._require_used(trainer, pl_module)  # at the first already: DDP fails in the second
        self._optimizer_bytes = max(self._optimizer_bytes, sum(_state_bytes(each) for each in trainer.optimizers))
        if batch_idx < min(_NUM_BATCHES, trainer.num_training_batches) - 1:
            return
        if self._saved is not None:
            self._saved.__exit__(None, None, None)
        self._memory = Memory(
            parameters=self._parameter_bytes,
            gradients=self._gradient_bytes,
            optimizer=self._optimizer_bytes,
            activations=None if self._saved is None else self._of_a_whole_batch(self._saved),
            peak=_peak(pl_module.device),
        )
        self._saved = None
        if self._stops:
            raise _EnoughError

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Watch no more."""
        if self._saved is not None:
            self._saved.__exit__(None, None, None)
            self._saved = None

    def note_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Add to the digest what a training has come to: the weights, and all that is logged."""
        self._words += [_digest(tensor.detach()) for tensor in (*module.parameters(), *module.buffers())]
        self._words += [(name, _digest(value)) for name, value in sorted(trainer.callback_metrics.items())]

    def result(self, module: pl.LightningModule) -> Tried:
        """Return what was seen."""
        digest = hashlib.sha256(json.dumps(self._words, default=repr).encode()).hexdigest()
        return Tried(
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
        whole = (*module.parameters(), *module.buffers())
        self._held = {_address(part) for tensor in whole for part in parts(tensor)}
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


def _passed(ranks: Ranks, began: float, **more: Any) -> CheckPassed:
    return CheckPassed(device_bytes=_device_bytes(ranks), duration_s=time.monotonic() - began, **more)


def _device_bytes(ranks: Ranks) -> int | None:
    """Return how much memory of its GPU this rank could have; None if it has used none."""
    if not torch.cuda.is_available() or not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return None
    free, _ = torch.cuda.mem_get_info(ranks.place.local_rank)
    return free + torch.cuda.memory_reserved(ranks.place.local_rank)
