"""The peer: a hand-written loop of Optuna, Lightning and MLFlowLogger on SQLite in one process.

What a competent user writes in an afternoon. Run as `python peer_loop.py TRIALS EPOCHS epoch|step`: the metrics of
each epoch are logged, and with `step` the training loss of every step as well.
"""

import logging
import sys
import warnings

import mlflow
import optuna
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import MLFlowLogger
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy


class Digits(pl.LightningModule):
    """An MLP on digits, with `self.log` as in Lightning's tutorials."""

    def __init__(self, lr: float, depth: int, every_step: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        width = 64
        for _ in range(depth):
            layers += [nn.Linear(width, 128), nn.ReLU()]
            width = 128
        self.net = nn.Sequential(*layers, nn.Linear(width, 10))
        self.lr, self.every_step = lr, every_step
        self.accuracy = MulticlassAccuracy(10, average="micro")

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = functional.cross_entropy(self.net(x), y)
        self.log("train/loss", loss, on_step=self.every_step, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        scores = self.net(x)
        self.accuracy(scores, y)
        self.log("val/loss", functional.cross_entropy(scores, y))
        self.log("val/acc", self.accuracy)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)


def main() -> None:
    num_trials, epochs, every_step = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "step"
    warnings.simplefilter("ignore")
    for name in ("pytorch_lightning", "lightning", "mlflow", "alembic", "optuna"):
        logging.getLogger(name).setLevel(logging.ERROR)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    images, labels = load_digits(return_X_y=True)
    x, x_val, y, y_val = train_test_split(images / 16, labels, test_size=0.15, random_state=0, stratify=labels)
    train = TensorDataset(torch.tensor(x, dtype=torch.float32), torch.tensor(y))
    val = TensorDataset(torch.tensor(x_val, dtype=torch.float32), torch.tensor(y_val))

    def objective(trial: optuna.Trial) -> float:
        lr = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
        depth = trial.suggest_int("depth", 1, 3)
        logger = MLFlowLogger("peer", tracking_uri="sqlite:///mlflow.db", run_name=f"trial {trial.number}")
        logger.log_hyperparams({"lr": lr, "depth": depth})
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            logger=logger,
            log_every_n_steps=1 if every_step else 50,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(
            Digits(lr, depth, every_step),
            DataLoader(train, batch_size=64, shuffle=True),
            DataLoader(val, batch_size=1024),
        )
        return trainer.callback_metrics["val/acc"].item()

    study = optuna.create_study(
        storage="sqlite:///optuna.db", direction="maximize", sampler=optuna.samplers.TPESampler(seed=0)
    )
    study.optimize(objective, n_trials=num_trials)
    runs = mlflow.MlflowClient("sqlite:///mlflow.db").search_runs(["1"], max_results=1000)
    assert len(runs) == num_trials
    print(f"best {study.best_value:.4f}")


if __name__ == "__main__":
    main()
