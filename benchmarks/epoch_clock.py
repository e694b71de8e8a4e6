"""A callback that notes the seconds of each epoch in the trial's folder, on rank 0."""

import json
import time
from pathlib import Path

import pytorch_lightning as pl

__all__ = ["EpochClock"]


class EpochClock(pl.Callback):
    """Writes `epochs.json` after each epoch."""

    def __init__(self) -> None:
        self._seconds: list[float] = []
        self._began = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock; an epoch with a validation is left out."""
        if trainer.is_global_zero and trainer.current_epoch + 1 < (trainer.max_epochs or 0):
            self._seconds.append(time.perf_counter() - self._began)
            Path(trainer.default_root_dir, "epochs.json").write_text(json.dumps(self._seconds))
