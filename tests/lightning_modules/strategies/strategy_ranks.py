"""Real ranks for tests: groups of gloo processes that wait for functions to run, and a training to run in them."""

import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies import Strategy
from torch.optim import SGD
from torchmetrics.classification import MulticlassAccuracy

from lightning_modules.data.tensor_batches import TensorBatches
from lightning_modules.nets.cnn import CNN
from lightning_modules.nets.mlp import MLP
from lightning_modules.systems.classifier import Classifier

PRELOADED = ["strategy_ranks", "lightning_modules.strategies.fully_sharded", "sweeps.worker.sync_batchnorm"]
QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
SHAPE, NUM_CLASSES = [1, 4, 4], 5


class Ranks:
    """`world_size` processes in one process group; calling it runs a function in each and returns what each returns."""

    def __init__(self, world_size: int) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self._folder = tempfile.TemporaryDirectory()
        pipes = [context.Pipe() for _ in range(world_size)]
        place = {"world_size": world_size, "init_file": f"{self._folder.name}/init"}
        self._processes = [
            context.Process(target=_serve, args=(rank, theirs), kwargs=place, daemon=True)
            for rank, (_, theirs) in enumerate(pipes)
        ]
        self._pipes = [ours for ours, _ in pipes]
        for process in self._processes:
            process.start()

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Any]:
        for pipe in self._pipes:
            pipe.send((function, args, kwargs))
        results = []
        for pipe in self._pipes:
            assert pipe.poll(60), "a rank does not answer"
            results.append(pipe.recv())
        failed = [error for is_well, error in results if not is_well]
        assert not failed, "\n".join(failed)
        return [value for _, value in results]

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()
        self._folder.cleanup()


def _serve(rank: int, pipe: Any, world_size: int, init_file: str) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{init_file}", rank=rank, world_size=world_size)
    while True:
        try:
            function, args, kwargs = pipe.recv()
        except EOFError:  # the tests have ended
            return
        try:
            pipe.send((True, function(*args, **kwargs)))
        except BaseException:
            pipe.send((False, f"rank {rank}: {traceback.format_exc()}"))


class Environment(LightningEnvironment):
    """Says that the processes have been started, and which this one is."""

    creates_processes_externally = True

    def __init__(self) -> None:
        super().__init__()
        self._global_rank, self._world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()

    def world_size(self) -> int:
        return self._world_size

    def global_rank(self) -> int:
        return self._global_rank

    def local_rank(self) -> int:
        return self._global_rank

    def set_world_size(self, size: int) -> None:
        assert size == self._world_size

    def set_global_rank(self, rank: int) -> None:
        assert rank == self._global_rank


class Samples(LightningDataModule):
    """Random images; those of a step are the same for any number of ranks with `batch_size` divided among them."""

    def __init__(self, batch_size: int, num_samples: int = 103, shuffle: bool = True) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(num_samples, *SHAPE, generator=generator)
        self.y = torch.arange(num_samples) % NUM_CLASSES
        self.batch_size = batch_size
        self.shuffle = shuffle

    def train_dataloader(self) -> TensorBatches:
        return self._batches(shuffle=self.shuffle, drop_last=True)

    def val_dataloader(self) -> TensorBatches:
        return self._batches()

    def test_dataloader(self) -> TensorBatches:
        return self._batches()

    def _batches(self, **options: Any) -> TensorBatches:
        place = self.trainer.distributed_sampler_kwargs or {"num_replicas": 1, "rank": 0}
        return TensorBatches(
            self.x,
            self.y,
            batch_size=self.batch_size // place["num_replicas"],
            rank=place["rank"],
            world_size=place["num_replicas"],
            **options,
        )


class Watch(Callback):
    """Notes, after each step, the sum of this rank's weights and the logged step count."""

    def __init__(self) -> None:
        self.weights: list[float] = []
        self.validated: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.weights.append(sum(p.detach().double().sum().item() for p in pl_module.net.parameters()))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.validated.append({key: value.item() for key, value in trainer.callback_metrics.items()})


def mlp(**options: Any) -> MLP:
    torch.manual_seed(0)
    return MLP(SHAPE, NUM_CLASSES, **{"depth": 2, "width": 12} | options)


def cnn(**options: Any) -> CNN:
    torch.manual_seed(0)
    return CNN(SHAPE, NUM_CLASSES, **{"blocks": 2, "channels": 4, "hidden": 8} | options)


def classifier(net: torch.nn.Module, optimizer: Any = SGD, lr: float = 0.1, **options: Any) -> Classifier:
    metrics = {"acc": MulticlassAccuracy(NUM_CLASSES, average="micro")}
    return Classifier(net, partial(optimizer, lr=lr), metrics=metrics, **options)


def train(
    folder: Path,
    strategy: Callable[[], Strategy] | None = None,
    *,
    net: Callable[[], torch.nn.Module] = mlp,
    system: Callable[..., LightningModule] = classifier,
    plugins: tuple[Callable[[], Any], ...] = (),
    batch_size: int = 24,
    resume: Path | None = None,
    shuffle: bool = True,
    **options: Any,
) -> dict[str, Any]:
    """Fit, save, test the saved file on the same trainer; return what was seen on the way.

    Without a strategy it is one process; `batch_size` is that of all ranks together.
    """
    ranks = {}
    if strategy is not None:
        world_size = torch.distributed.get_world_size()
        ranks = {"strategy": strategy(), "devices": world_size, "plugins": [Environment(), *(p() for p in plugins)]}
    watch, keep = Watch(), ModelCheckpoint(folder, monitor="val/loss", filename="best", enable_version_counter=False)
    options = {"max_epochs": 2} | options
    trainer = Trainer(accelerator="cpu", callbacks=[watch, keep], **{"devices": 1} | ranks, **QUIET, **options)
    module, data = system(net()), Samples(batch_size, shuffle=shuffle)
    trainer.fit(module, data, ckpt_path=resume, weights_only=False)
    trainer.save_checkpoint(folder / "last.ckpt")
    count = sum(parameter.numel() for parameter in module.parameters())
    trainer.test(module, data, ckpt_path=folder / "best.ckpt", weights_only=False, verbose=False)
    return {
        "weights": watch.weights,
        "validated": watch.validated,
        "steps": trainer.global_step,
        "test": {key: value.item() for key, value in trainer.callback_metrics.items() if key.startswith("test/")},
        "best": min(watch.validated, key=lambda metrics: metrics["val/loss"]),
        "num_parameters": count,
    }


def judge_alone(
    checkpoint: Path,
    net: Callable[[], torch.nn.Module] = mlp,
    system: Callable[..., LightningModule] = classifier,
) -> dict[str, float]:
    """Load a checkpoint as anybody would, and test it in this process."""
    module = system(net())
    module.load_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"])
    trainer = Trainer(accelerator="cpu", devices=1, **QUIET)
    trainer.test(module, Samples(24), verbose=False)
    return {key: value.item() for key, value in trainer.callback_metrics.items()}


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]
