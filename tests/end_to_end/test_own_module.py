"""A user's own modules, options and primary config in a folder outside this repository."""

import json
from pathlib import Path
from typing import Any

import pytest
from own_modules import MY_NET

SYSTEM = """
import pytorch_lightning as pl
import torch


class MySystem(pl.LightningModule):
    def __init__(self, lr: float = 0.05):
        super().__init__()
        self.lr = lr
        self.layer = torch.nn.Linear(64, 10)

    def _loss(self, batch):
        images, labels = batch
        logits = self.layer(images.flatten(1))
        return torch.nn.functional.cross_entropy(logits, labels), (logits.argmax(1) == labels).float().mean()

    def training_step(self, batch, index):
        loss, _ = self._loss(batch)
        self.log("train/loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, index):
        loss, accuracy = self._loss(batch)
        self.log("val/my_score", accuracy)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)
"""
FILES = {
    "my_net.py": MY_NET,
    "my_system.py": SYSTEM,
    "model/my_net.yaml": "_target_: my_net.MyNet\nnum_classes: ${data.num_classes}\nhidden: 16\n",
    "model/my_system.yaml": "_target_: my_system.MySystem\nlr: 0.05\n",
    "search/my_net.yaml": "model.hidden: choice(8, 16)\noptimizer.lr: tag(log, interval(1e-3, 1e-1))\n",
    "my_train.yaml": (
        "defaults:\n  - train\n  - override model: my_system\n  - _self_\n"
        "objective:\n  metric: val/my_score\ntrainer:\n  max_epochs: 1\n  accelerator: cpu\n"
    ),
    "my_sweep.yaml": (
        "defaults:\n  - sweep\n  - override model: my_net\n  - _self_\n"
        "trainer:\n  max_epochs: 1\n  accelerator: cpu\nstudy:\n  name: mine\n  num_trials: 3\n"
    ),
}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder as a user would have it."""
    folder = tmp_path / "own"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_own_net_is_swept_over_its_own_space(lightsweep: Any, own: Path) -> None:
    result = lightsweep("sweep", "--config-dir", "own", "--config-name", "my_sweep")
    rows = json.loads(lightsweep("compare", "mine", "--format", "json").stdout)

    assert result.returncode == 0, result.stdout + result.stderr
    assert [row["state"] for row in rows] == ["complete"] * 3
    assert {row["params"]["model.hidden"] for row in rows} <= {8, 16}
    assert set(rows[0]["params"]) == {"model.hidden", "optimizer.lr"}


def test_own_lightning_module_trains_with_its_own_optimizer_and_metric(lightsweep: Any, own: Path) -> None:
    result = lightsweep("train", "--config-dir", "own", "--config-name", "my_train", "model.lr=0.1")

    assert result.returncode == 0, result.stdout + result.stderr
    assert "val/my_score" in result.stdout


@pytest.mark.slow
def test_own_lightning_module_is_swept(lightsweep: Any, own: Path) -> None:
    result = lightsweep(
        *("sweep", "--config-dir", "own", "model=my_system", "study.metric=val/my_score", "study.num_trials=3"),
        *("model.lr=tag(log,interval(1e-3,1e-1))", "trainer.max_epochs=1", "trainer.accelerator=cpu"),
    )

    assert result.returncode == 0, result.stdout + result.stderr
    assert "3 complete" in result.stdout


@pytest.mark.slow
def test_module_in_the_working_folder_is_allowed_by_name(lightsweep: Any, own: Path) -> None:
    arguments = ("train", "model._target_=my_net.MyNet", "~model.depth", "~model.width", "~model.input_shape")
    more = ("~model.activation", "~model.normalization", "~model.dropout", "~model.initialization")
    short = ("trainer.max_epochs=1", "trainer.accelerator=cpu")

    refused = lightsweep(*arguments, *more, *short, cwd=own)
    allowed = lightsweep(*arguments, *more, *short, "allowed_modules=[my_net]", cwd=own)

    assert refused.returncode == 2 and "add allowed_modules=[my_net]" in refused.stderr
    assert allowed.returncode == 0, allowed.stdout + allowed.stderr


def test_own_options_are_listed_beside_the_shipped_ones(lightsweep: Any, own: Path) -> None:
    result = lightsweep("train", "--config-dir", "own", "model=my_nett")

    assert result.returncode == 2
    assert "Did you mean 'my_net'" in result.stderr
