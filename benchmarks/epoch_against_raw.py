"""An epoch of our classifier as a rank runs it, every step logged, against raw PyTorch loops on the same net."""

import gc
import threading
import time
from pathlib import Path
from typing import Any

import torch
from harness import Result, median, scratch
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from lightning_modules.data.pixels import Pixels
from lightning_modules.data.tensor_batches import TensorBatches
from lightning_modules.nets.mlp import MLP
from sweeps.config.composer import Composer
from sweeps.core.messages import Event, PruneDecision, Report
from sweeps.worker.building import build_module
from sweeps.worker.callbacks import Telemetry
from sweeps.worker.process_group import Ranks
from sweeps.worker.trainer import DerivedRandomness, quieten, trainer_for

_SAMPLES, _BATCH, _ROUNDS = 60_000, 64, 7


class NoChannel:
    """Takes what a rank would send, and sends nothing."""

    flush_interval_s = 0.5
    stop_requested = threading.Event()

    def send(self, event: Event) -> None: ...

    def flush(self) -> None: ...

    def log(self, metrics: dict[str, float], step: int) -> None: ...

    def report(self, report: Report) -> PruneDecision:
        return PruneDecision(prune=False)


def raw(batches: Any) -> float:
    net = MLP([1, 28, 28], 10)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    began = time.perf_counter()
    for x, y in batches:
        loss = functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - began


def raw_loader(x: torch.Tensor, y: torch.Tensor) -> float:
    return raw(DataLoader(TensorDataset(x, y), batch_size=_BATCH, shuffle=True))


def raw_indexing(x: torch.Tensor, y: torch.Tensor) -> float:
    return raw((x[indices], y[indices]) for indices in torch.randperm(len(x)).split(_BATCH))


def ours(pixels: torch.Tensor, y: torch.Tensor, config: dict[str, Any], allowed: Any) -> float:
    """Return the seconds of the epoch; the images are bytes, as the data modules keep them."""
    module = build_module(config, allowed=allowed)
    batches = TensorBatches(pixels, y, batch_size=_BATCH, shuffle=True, transform=Pixels(255, 0.13, 0.31))
    channel: Any = NoChannel()
    trainer = trainer_for(
        config,
        ranks=Ranks(),
        logger=False,
        callbacks=[DerivedRandomness(0), Telemetry(channel, Ranks(), log_every_n_steps=1, num_parameters=0)],
        folder=Path("run"),
    )
    clock: list[float] = []
    log_epoch = module.on_train_epoch_end
    module.on_train_epoch_start = lambda: clock.append(time.perf_counter())  # a further callback would cost time
    module.on_train_epoch_end = lambda: (log_epoch(), clock.append(time.perf_counter()))
    trainer.fit(module, batches)
    return clock[1] - clock[0]


def main() -> None:
    quieten()
    result = Result(
        name=Path(__file__).stem,
        claim="an epoch (MLP 784-128-10, batch 64, 60,000 images, Adam, CPU, 1 thread) takes at most 1.2 times that of "
        "a raw PyTorch loop with a DataLoader",
    )
    torch.set_num_threads(1)
    pixels = torch.randint(0, 256, (_SAMPLES, 1, 28, 28), dtype=torch.uint8)
    y = torch.randint(0, 10, (_SAMPLES,))
    x = pixels.float() / 255
    composer = Composer("train", ["data=mnist", "trainer=cpu", "trainer.max_epochs=1", "trainer.limit_val_batches=0"])
    config = composer.trial({}, seed=0)
    ways = {
        "raw loop, DataLoader": lambda: raw_loader(x, y),
        "raw loop, indexed tensors": lambda: raw_indexing(x, y),
        "a rank of Lightsweep": lambda: ours(pixels, y, config, composer.allowed_modules),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with scratch():
        ours(pixels[:6400], y[:6400], config, composer.allowed_modules)  # the first fit imports what is lazy
        gc.collect()
        gc.freeze()  # as a rank's server does after its imports, for all three alike
        for _ in range(_ROUNDS):
            for name, way in ways.items():
                seconds[name].append(way())
    result.raw["seconds"] = seconds
    steps = -(-_SAMPLES // _BATCH)
    for name, each in seconds.items():
        result.add(name, f"{1000 * median(each) / steps:.2f} ms a step", f"median of {_ROUNDS} alternating epochs")
    own = seconds["a rank of Lightsweep"]
    for name in ("raw loop, DataLoader", "raw loop, indexed tensors"):
        ratio = median([a / b for a, b in zip(own, seconds[name], strict=True)])
        result.add(f"Lightsweep against the {name}", f"{ratio:.2f}", "median of the ratios within a round")
        if "DataLoader" in name:
            result.holds = ratio <= 1.2
    result.save()


if __name__ == "__main__":
    main()
