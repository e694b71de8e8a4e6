"""What it costs training to have the loss of every step in MLflow: a whole `train`, and MLFlowLogger as the peer."""

import logging
import time
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from harness import Result, median, scratch
from pytorch_lightning.loggers import MLFlowLogger
from torch.nn import functional

from lightning_modules.data.tensor_batches import TensorBatches
from lightning_modules.nets.mlp import MLP
from sweeps.driver.session import CommandLine, Reporter
from sweeps.driver.sweep import sweep

_ROUNDS, _PEER_STEPS = 5, 400


def ours(every: int, number: int) -> float:
    """Return the seconds from the first step to the end of one trial, the driver recording beside it."""
    overrides = (
        f"optimizer.lr=choice({0.001 + number * 1e-6})",
        "data=fashion_mnist",
        "study.num_trials=1",
        f"study.name=every-{every}-{number}",
        "trainer=cpu",
        "trainer.max_epochs=4",
        "launcher.slots=1",
        "launcher.threads=1",
        "pruner=none",
        "test=false",
        f"tracking.log_every_n_steps={every}",
    )
    result: Any = sweep(CommandLine(overrides=overrides, config_name="sweep"), Reporter())
    (outcome,) = result.totals.outcomes
    assert outcome.state == "complete"
    return float(outcome.duration_s)


class Plain(pl.LightningModule):
    """The same net, logging as Lightning's tutorials do."""

    def __init__(self, is_logging: bool) -> None:
        super().__init__()
        self.net, self.is_logging = MLP([1, 28, 28], 10), is_logging

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = functional.cross_entropy(self.net(batch[0]), batch[1])
        if self.is_logging:
            self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters())


def peer(is_logging: bool) -> float:
    """Return the seconds of a `fit` in this process."""
    x, y = torch.rand(_PEER_STEPS * 64, 1, 28, 28), torch.randint(0, 10, (_PEER_STEPS * 64,))
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=MLFlowLogger("peer", tracking_uri="sqlite:///peer.db") if is_logging else False,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    if trainer.logger is not None:
        _ = trainer.logger.experiment  # the tables are made before the clock starts
    began = time.perf_counter()
    trainer.fit(Plain(is_logging), TensorBatches(x, y, batch_size=64))
    return time.perf_counter() - began


def main() -> None:
    warnings.simplefilter("ignore")
    result = Result(
        name=Path(__file__).stem,
        claim="logging every training step makes training at most 5 % slower than logging none "
        "(Lightning's MLFlowLogger: about +270 %)",
    )
    times: dict[str, list[float]] = {"every step": [], "none": []}
    peers: dict[str, list[float]] = {"every step": [], "none": []}
    torch.set_num_threads(1)
    with scratch():
        ours(0, 99)  # decodes the images
        for number in range(_ROUNDS):
            order = (("every step", 1), ("none", 0))
            for name, every in order if number % 2 else order[::-1]:
                times[name].append(ours(every, number))
        for name in ("pytorch_lightning", "mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        for _ in range(_ROUNDS):
            for name, is_logging in (("none", False), ("every step", True)):
                peers[name].append(peer(is_logging))
    result.raw = {"lightsweep (s)": times, "MLFlowLogger (s)": peers}
    for title, measured in (("Lightsweep", times), ("MLFlowLogger", peers)):
        ratio = median([a / b for a, b in zip(measured["every step"], measured["none"], strict=True)])
        for name in ("none", "every step"):
            result.add(f"{title}, {name} logged", f"{median(measured[name]):.2f} s", f"median of {_ROUNDS}")
        result.add(f"{title}, slower by", f"{100 * (ratio - 1):.1f} %", "median of the ratios within a round")
        if title == "Lightsweep":
            result.holds = ratio <= 1.05
    result.save()


if __name__ == "__main__":
    main()
