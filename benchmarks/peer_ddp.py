"""The peer of the benchmarks of several ranks: a script that trains with Lightning's own DDP launcher.

`python peer_ddp.py CONFIG EPOCHS BATCHES` prints the seconds from `fit` to the first step, then those of each epoch.
"""

import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from sweeps.config.composer import ALLOWED_MODULES, load_frozen
from sweeps.config.instantiate import build
from sweeps.worker.building import build_module
from sweeps.worker.trainer import quieten


class Clock(pl.Callback):
    """Prints when things begin."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.is_started = False

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        if not self.is_started and trainer.is_global_zero:
            print(time.perf_counter() - self.began, flush=True)
        self.is_started = True

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.began_epoch = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            print(time.perf_counter() - self.began_epoch, flush=True)


def main() -> None:
    quieten()
    torch.set_num_threads(1)
    config = load_frozen(Path(sys.argv[1]))
    data = build(config["data"], key="data", allowed=ALLOWED_MODULES)
    module = build_module(config, allowed=ALLOWED_MODULES)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=int(sys.argv[2]),
        callbacks=[Clock()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_train_batches=int(sys.argv[3]),
        limit_val_batches=0,
        use_distributed_sampler=False,
    )
    trainer.fit(module, datamodule=data)


if __name__ == "__main__":
    main()
