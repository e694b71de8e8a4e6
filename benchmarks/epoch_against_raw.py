"""Measure what an epoch costs in Lightning with `Classifier` and `TensorBatches`, against raw PyTorch.

    .venv/bin/python tests/lightning_modules/measure_epoch.py --threads 1 --repeats 5

Claim: at most 1.2 times the raw loop with a standard DataLoader. MLP 784-128-10, Adam, batch 64, 60,000
synthetic samples, CPU. The ways alternate, so that a change of the machine's speed meets all of them.
"""

import argparse
import logging
import statistics
import time
import warnings

import torch
from pytorch_lightning import Trainer
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from lightning_modules.data.pixels import Pixels
from lightning_modules.data.tensor_batches import TensorBatches
from lightning_modules.nets.mlp import MLP
from lightning_modules.systems.classifier import Classifier

NUM_SAMPLES, BATCH_SIZE = 60_000, 64


def main() -> None:
    """Print the median and all seconds of each way, and its ratio to the first."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)

    pixels = torch.randint(0, 256, (NUM_SAMPLES, 1, 28, 28), dtype=torch.uint8)
    y = torch.randint(0, 10, (NUM_SAMPLES,))
    x = pixels.float() / 255
    ways = {
        "raw loop, DataLoader": lambda: raw_loader(x, y),
        "raw loop, indexing": lambda: raw_indexing(x, y),
        "Lightning, float32": lambda: lightning(x, y, None),
        "Lightning, uint8 + Pixels": lambda: lightning(pixels, y, Pixels(255, 0.13, 0.31)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.repeats):
        for name, way in ways.items():
            seconds[name].append(way())
    first = statistics.median(seconds["raw loop, DataLoader"])
    steps = -(-NUM_SAMPLES // BATCH_SIZE)
    print(f"torch {torch.__version__}, {arguments.threads} threads, {steps} steps an epoch")
    for name, each in seconds.items():
        median = statistics.median(each)
        shown = " ".join(f"{one:.3f}" for one in each)
        print(f"{name:27} {median:.3f} s {1e3 * median / steps:.3f} ms/step x{median / first:.2f}  ({shown})")


def raw_loader(x: torch.Tensor, y: torch.Tensor) -> float:
    """Train one epoch from a DataLoader; return the seconds."""
    return raw(DataLoader(TensorDataset(x, y), batch_size=BATCH_SIZE, shuffle=True))


def raw_indexing(x: torch.Tensor, y: torch.Tensor) -> float:
    """Train one epoch from tensors indexed by batch; return the seconds."""
    return raw((x[indices], y[indices]) for indices in torch.randperm(len(x)).split(BATCH_SIZE))


def raw(batches) -> float:
    """Train one epoch; return the seconds."""
    net = MLP([1, 28, 28], 10)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    begin = time.perf_counter()
    for x, y in batches:
        loss = functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - begin


def lightning(x: torch.Tensor, y: torch.Tensor, transform: Pixels | None) -> float:
    """Train one epoch in Lightning; return the seconds of `fit`, set-up included."""
    system = Classifier(
        MLP([1, 28, 28], 10),
        lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
        metrics={"acc": MulticlassAccuracy(10, average="micro", validate_args=False)},
    )
    batches = TensorBatches(x, y, batch_size=BATCH_SIZE, shuffle=True, transform=transform)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    begin = time.perf_counter()
    trainer.fit(system, batches)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
