"""A user's folder that imports `lightning`, of data without classes: it is trained by its own methods."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

KIT = """
import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset


class Own(L.LightningModule):
    def __init__(self, lr: float = 0.05):
        super().__init__()
        self.lr = lr
        self.layer = torch.nn.Linear(4, 3)

    def setup(self, stage):
        if stage == "fit":
            self.layer = torch.compile(self.layer, backend="eager")

    def forward(self, x):
        return self.layer(x)

    def training_step(self, batch, batch_idx):
        self.log("train/mine", 41.0, on_step=False, on_epoch=True)
        return F.mse_loss(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val/mine", 42.0 + self.lr)

    def test_step(self, batch, batch_idx):
        self.log("test/mine", 43.0)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class Data(L.LightningDataModule):
    def __init__(self, size: int = 8):
        super().__init__()
        self.size = size

    def loader(self):
        x = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
        return DataLoader(TensorDataset(x, x[:, :3]), batch_size=self.size)

    train_dataloader = val_dataloader = test_dataloader = loader


class Says(Callback):
    def on_validation_epoch_end(self, trainer, module):
        module.log("val/said", 44.0)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)

    def forward(self, x):
        return self.layer(x.flatten(1))


class Plain(Net):
    def training_step(self, batch, batch_idx): ...
"""
SHORT = ("trainer.accelerator=cpu", "trainer.max_epochs=1", "objective.metric=val/mine", "data=own")
FILES = {
    "kit.py": KIT,
    "model/own.yaml": "_target_: kit.Own\nlr: 0.05\n",
    "model/net.yaml": "_target_: kit.Net\n",
    "model/plain.yaml": "_target_: kit.Plain\n",
    "data/own.yaml": "_target_: kit.Data\nsize: 8\n",
    "callbacks/says.yaml": "says:\n  _target_: kit.Says\n",
    "callbacks/theirs.yaml": (
        "stop:\n  _target_: lightning.pytorch.callbacks.EarlyStopping\n  monitor: val/mine\n"
        "keep:\n  _target_: lightning.pytorch.callbacks.ModelCheckpoint\n  monitor: val/mine\n  mode: max\n"
    ),
}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def read_config(folder: Path) -> Any:
    return yaml.safe_load((folder / "config.yaml").read_text())


def test_module_data_and_callbacks_are_trained_reproduced_and_promoted_as_they_are(
    lightsweep: Any, own: Path, tmp_path: Path
) -> None:
    done = lightsweep("train", "--config-dir", "own", "model=own", "callbacks=[theirs,says]", *SHORT)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = json.loads(lightsweep("show", "train#0", "--format", "json").stdout)["metrics"]
    logged = {key: metric["last"] for key, metric in shown.items()}
    wanted = {"train/mine": 41.0, "val/mine": 42.05, "val/said": 44.0, "test/mine": 43.0, "num_params": 15}
    assert {key: logged[key] for key in wanted} == pytest.approx(wanted)
    folder = tmp_path / "mlruns" / "train" / "0000"
    recorded = read_config(folder)
    assert (recorded["system"], recorded["optimizer"], recorded["scheduler"]) == (None, None, None)
    assert len(list((folder / "checkpoints").glob("*.ckpt"))) == 1

    again = lightsweep("reproduce", "train#0", "--config-dir", "own")
    assert again.returncode == 0 and "exact:" in again.stdout, again.stdout + again.stderr
    promoted = lightsweep("promote", "train#0", "--name", "m", "--config-dir", "own", "--require-reproduced")
    assert promoted.returncode == 0, promoted.stdout + promoted.stderr

    samples = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    np.save(tmp_path / "samples.npy", samples)
    said = lightsweep("predict", "m/1", "samples.npy", "--config-dir", "own", "--format", "json")
    assert said.returncode == 0, said.stderr
    import torch

    (checkpoint,) = (folder / "checkpoints").glob("*.ckpt")
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert set(weights) == {"layer._orig_mod.weight", "layer._orig_mod.bias"}
    expected = torch.nn.functional.linear(torch.from_numpy(samples), *weights.values())
    rows = [list(record.values()) for record in json.loads(said.stdout)]
    np.testing.assert_array_equal(np.array(rows, dtype=np.float32), expected.numpy())


def test_a_sweep_over_nets_and_modules_records_for_each_what_it_takes(
    lightsweep: Any, own: Path, tmp_path: Path
) -> None:
    done = lightsweep(
        *("sweep", "--config-dir", "own", "model=net,mlp", "trainer.accelerator=cpu", "trainer.max_epochs=1"),
        *("sampler=grid", "study.num_trials=2", "study.name=nets"),
    )
    assert done.returncode == 0 and "2 complete" in done.stdout, done.stdout + done.stderr
    for trial in (tmp_path / "mlruns" / "nets").glob("0*"):
        assert read_config(trial)["system"]["label_smoothing"] == 0.0

    own_only = lightsweep(
        *("sweep", "--config-dir", "own", "model=own", "data=own", "trainer.accelerator=cpu", "trainer.max_epochs=1"),
        *("model.lr=0.1,0.2", "study.metric=val/mine", "sampler=grid", "study.num_trials=2", "study.name=own"),
    )
    assert own_only.returncode == 0 and "2 complete" in own_only.stdout, own_only.stdout + own_only.stderr
    rows = json.loads(lightsweep("compare", "own", "--format", "json").stdout)
    assert sorted(row["value"] for row in rows) == pytest.approx([42.1, 42.2])
    for trial in (tmp_path / "mlruns" / "own").glob("0*"):
        assert read_config(trial)["system"] is None


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("model=plain", "data=digits"), "model._target_: 'kit.Plain' has training_step"),
        (("model=net",), "data.num_classes"),
        (("model=net", "data=digits", "system=null"), "system is null"),
    ],
)
def test_what_would_be_another_model_is_refused_before_there_is_a_run(
    lightsweep: Any, own: Path, tmp_path: Path, overrides: tuple[str, ...], told: str
) -> None:
    done = lightsweep("train", "--config-dir", "own", *SHORT, *overrides)
    assert done.returncode == 2 and told in done.stderr, done.stdout + done.stderr
    assert not (tmp_path / "mlruns" / "train").exists()
