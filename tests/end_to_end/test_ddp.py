"""Trials of two ranks through the real command: sweeps, faults, every strategy, and modules of a user's own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import warm

pytestmark = pytest.mark.ddp

SWEEP = (
    "sweep",
    "study.name=s",
    "optimizer.lr=tag(log,interval(1e-4,1e-1))",
    "trainer=ddp_cpu",
    "trainer.devices=2",
    "study.report=false",
    "seed=1",
)


def runs(folder: Path) -> list[Any]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("lightsweep")
    found: list[Any] = list(client.search_runs([experiment.experiment_id]))
    return found


def compare(lightsweep: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(lightsweep("compare", "s", "--format", "json").stdout)
    return sorted(rows, key=lambda row: row["trial"])


def test_a_sweep_of_two_ranks_a_trial_prunes_and_records_each_trial_once(lightsweep: Any, tmp_path: Path) -> None:
    done = lightsweep(
        *SWEEP, "study.num_trials=8", "trainer.max_epochs=4", "pruner.n_startup_trials=2", "launcher.slots=2"
    )
    assert done.returncode == 0, done.stderr
    assert "2 at once of 2 ranks each" in done.stdout
    rows = compare(lightsweep)
    assert len(rows) == 8
    assert {row["state"] for row in rows} == {"complete", "pruned"}
    assert len(runs(tmp_path)) == 9  # and the study's own
    for row in rows:
        folder = tmp_path / "mlruns" / "s" / f"{row['trial']:04d}"
        assert len(list((folder / "checkpoints").glob("*.ckpt"))) == 1
        assert {log.name for log in folder.glob("*.log")} == {"rank0.log", "rank1.log"}


def test_a_rank_that_is_killed_fails_its_trial_and_the_sweep_goes_on(tmp_path: Path) -> None:
    sweep = warm.Popen(
        [
            *(sys.executable, "-m", "sweeps", *SWEEP, "study.num_trials=3", "pruner=none", "launcher.slots=1"),
            *("trainer.max_epochs=60", "test=false"),
        ],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("mlruns/s/0001/checkpoints/*.ckpt")):
        assert time.monotonic() < deadline
        assert sweep.poll() is None, sweep.communicate()[0]
    os.kill(process_that_prints_to(tmp_path / "mlruns" / "s" / "0001" / "rank1.log"), signal.SIGKILL)
    output = sweep.communicate(timeout=300)[0]
    assert sweep.returncode == 0, output
    assert re.search(r"trial 1 failed .*rank 1: killed by SIGKILL", output)
    assert "2 complete, 1 failed" in output


def process_that_prints_to(log: Path) -> int:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "fd" / "1").readlink() == log:
                    return int(entry.name)
            except OSError:
                continue
    raise AssertionError(f"nobody prints to {log}")


@pytest.mark.parametrize(
    "overrides",
    [
        (
            "trainer=ddp_cpu",
            "model=cnn",
            "trainer.sync_batchnorm=true",
            "trainer.precision=bf16-mixed",
            "trainer.accumulate_grad_batches=2",
        ),
        ("trainer=fsdp", "trainer.gradient_clip_val=1"),
        ("trainer=local_sgd", "trainer.strategy.period=4"),
        ("trainer=model_parallel",),
    ],
    ids=" ".join,
)
def test_every_strategy_trains_and_tests_its_best_checkpoint(
    lightsweep: Any, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    done = lightsweep("train", *overrides, "trainer.accelerator=cpu", "trainer.max_epochs=4", "optimizer.lr=0.01")
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = runs(tmp_path)
    assert run.data.params["trainer.devices"] == "2"
    assert run.data.metrics["val/acc"] > 0.8
    assert run.data.metrics["test/acc"] > 0.8


OWN = """
import pytorch_lightning as pl
import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset


class OwnData(pl.LightningDataModule):
    def __init__(self, num_classes: int):
        super().__init__()

    def setup(self, stage):
        x, y = load_digits(return_X_y=True)
        x, y = torch.tensor(x, dtype=torch.float32) / 16, torch.tensor(y)
        self.parts = {"train": TensorDataset(x[:1000], y[:1000]), "val": TensorDataset(x[1000:1257], y[1000:1257])}

    def train_dataloader(self):
        return DataLoader(self.parts["train"], batch_size=50, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.parts["val"], batch_size=64)


class OwnModule(pl.LightningModule):
    def __init__(self, sync: bool = True):
        super().__init__()
        self.sync = sync
        self.net = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.BatchNorm1d(32), torch.nn.Linear(32, 10))

    def training_step(self, batch, index):
        return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, index):
        x, y = batch
        accuracy = (self.net(x).argmax(1) == y).float().mean()
        self.log("val/acc", accuracy, sync_dist=self.sync, batch_size=len(y))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
"""


def own(folder: Path, **more: object) -> tuple[str, ...]:
    modules = folder / "modules"
    modules.mkdir()
    (modules / "own.py").write_text(OWN)
    (modules / "model").mkdir()
    (modules / "model" / "own.yaml").write_text(f"_target_: own.OwnModule\n{json.dumps(more)[1:-1]}\n")
    (modules / "data").mkdir()
    (modules / "data" / "own.yaml").write_text("_target_: own.OwnData\nnum_classes: 10\n")
    return "train", "--config-dir", "modules", "data=own", "model=own", "trainer=ddp_cpu", "trainer.max_epochs=2"


def test_a_users_own_loaders_count_every_validation_sample_once(lightsweep: Any, tmp_path: Path) -> None:
    done = lightsweep(*own(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = runs(tmp_path)
    script = """
import glob, sys, torch
sys.path.insert(0, "modules")
import own
data, module = own.OwnData(10), own.OwnModule()
data.setup("fit")
(path,) = glob.glob("mlruns/train/0000/checkpoints/*.ckpt")
module.load_state_dict(torch.load(path, weights_only=False)["state_dict"])
module.eval()
x, y = data.parts["val"].tensors
print(float((module.net(x).argmax(1) == y).double().mean()))
"""
    alone = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.data.metrics["val/acc"] == pytest.approx(float(alone.stdout), abs=1e-6)


def test_an_objective_of_one_ranks_share_is_refused_before_anything_is_trained(lightsweep: Any, tmp_path: Path) -> None:
    done = lightsweep(*own(tmp_path, sync=False))
    assert done.returncode == 2
    assert "sync_dist=True" in done.stderr
    assert runs(tmp_path) == []
