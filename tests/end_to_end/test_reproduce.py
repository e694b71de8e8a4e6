"""`lightsweep reproduce` at the real command: exact where nothing differs, and what differs is named."""

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import warm
from own_modules import MY_NET

Command = Callable[..., "subprocess.CompletedProcess[str]"]

SMALL = ("trainer.accelerator=cpu", "trainer.max_epochs=3", "launcher.threads=1")
OWN_DATA = """
import pytorch_lightning as pl
import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset


class MyDigits(pl.LightningDataModule):
    def __init__(self, num_classes: int = 10, input_shape: list = None):
        super().__init__()

    def setup(self, stage=None):
        digits = load_digits()
        x, y = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, torch.tensor(digits.target)
        self.train, self.val = TensorDataset(x[:1500], y[:1500]), TensorDataset(x[1500:], y[1500:])

    def train_dataloader(self):
        return DataLoader(self.train, 64, shuffle=True, generator=torch.Generator().manual_seed(0))

    def val_dataloader(self):
        return DataLoader(self.val, 297)
"""


# on some machines another number of threads gives the same bits; this net sees to it that it does not
THREADED_NET = MY_NET.replace(
    "return 1.0 * self.layers(images)",
    "return 1.0 * self.layers(images) * (1 + (torch.get_num_threads() - 1) * 2**-20)",
)
assert THREADED_NET != MY_NET
OWN = ("--config-dir", "mine")


class Store:
    """A folder with a store, and what a person does there."""

    def __init__(self, folder: Path, command: Command) -> None:
        self.folder = folder
        self._command = command

    def run(self, *arguments: str, status: int = 0) -> str:
        done = self._command(*arguments, cwd=self.folder, timeout_s=600)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    def reproduce(self, name: str, *arguments: str, status: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("reproduce", name, "--format", "json", *arguments, status=status))
        return found

    def show(self, name: str) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(self.run("show", name, "--format", "json"))
        return shown

    def artifact(self, name: str, file: str) -> Path:
        (path,) = self.folder.glob(f"mlruns/artifacts/{self.show(name)['run_id']}/artifacts/{file}")
        return path


@pytest.fixture
def store(tmp_path: Path, lightsweep_in: Command) -> Store:
    return Store(tmp_path, lightsweep_in)


@pytest.fixture
def mine(store: Store) -> Store:
    """A net of the user's, in `mine`, which nothing has been trained with."""
    folder = store.folder / "mine"
    (folder / "model").mkdir(parents=True)
    (folder / "my_net.py").write_text(THREADED_NET)
    (folder / "model" / "my_net.yaml").write_text("_target_: my_net.MyNet\nnum_classes: ${data.num_classes}\n")
    return store


@pytest.fixture
def own(mine: Store) -> Store:
    """A `train` with that net."""
    mine.run("train", *OWN, "model=my_net", *SMALL)
    return mine


@pytest.fixture
def trained(store: Store) -> Store:
    """One `train` of three epochs, whose record a test may change."""
    store.run("train", *SMALL)
    return store


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, lightsweep_in: Command) -> Store:
    """One `train` of three epochs, whose record stays as it is; reproductions are added to it."""
    store = Store(tmp_path_factory.mktemp("kept"), lightsweep_in)
    store.run("train", *SMALL)
    return store


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, lightsweep_in: Command) -> Store:
    """Six trials in two slots, some of which are pruned; reproductions are added to it."""
    store = Store(tmp_path_factory.mktemp("swept"), lightsweep_in)
    sweep = ("sweep", "study.name=s", "study.num_trials=6", "launcher.slots=2", "pruner.n_startup_trials=1", "seed=1")
    store.run(*sweep, "trainer.accelerator=cpu", "trainer.max_epochs=4")
    return store


def test_the_best_of_a_sweep_is_exact_and_both_runs_say_so(swept: Store) -> None:
    told = swept.run("reproduce", "best:s")
    assert "Nothing that is recorded differs today." in told
    assert "exact: Weights, order of the data and all metrics are equal bit for bit, over 4 epochs." in told
    assert "lightsweep promote best:s --name NAME --require-reproduced" in told
    best, again = swept.show("best:s"), swept.show("reproduction#0")
    assert best["tags"]["lightsweep.reproduced"].startswith("exact: ")
    assert best["tags"]["lightsweep.reproduced_by"] == again["run_id"]
    assert again["tags"]["lightsweep.reproduces"] == best["run_id"]
    assert "reproduced" in swept.run("show", "best:s")


@pytest.mark.slow
def test_a_pruned_trial_is_exact_up_to_where_it_was_pruned(swept: Store) -> None:
    rows = json.loads(swept.run("compare", "s", "--format", "json"))
    pruned = [row["trial"] for row in rows if row["state"] == "pruned"]
    assert pruned
    found = swept.reproduce(f"s#{pruned[0]}")
    assert found["verdict"] == "exact" and 1 <= found["num_epochs"] < 4


@pytest.mark.slow
def test_some_epochs_are_a_part_of_the_same_curve(store: Store) -> None:
    store.run("train", *SMALL, "scheduler=cosine", "trainer.max_epochs=5")
    found = store.reproduce("train#0", "--epochs", "2")
    assert (found["verdict"], found["num_epochs"]) == ("exact", 2)
    assert store.show("reproduction#0")["config"]["trainer.max_epochs"] == "5"
    assert store.show("train#0")["tags"]["lightsweep.reproduced"].startswith("exact (the first 2 epochs): ")
    assert "promote" in store.run("reproduce", "train#0", "--threads", "1")  # as many as it had
    whole = store.show("train#0")["tags"]
    assert whole["lightsweep.reproduced"].startswith("exact: ")
    assert "promote" not in store.run("reproduce", "train#0", "--epochs", "1")
    tags = store.show("train#0")["tags"]
    assert {key: tags[key] for key in tags if "reproduced" in key} == {
        key: whole[key] for key in whole if "reproduced" in key
    }


@pytest.mark.slow
def test_a_spawned_trial_in_one_slot_is_exact_forked_and_spawned(store: Store) -> None:
    space = "optimizer.lr=tag(log,interval(1e-3,1e-1))"
    start = ("launcher.slots=1", "launcher.start_method=spawn", "study.num_trials=2", "study.name=s", "pruner=none")
    store.run("sweep", space, *start, *SMALL)
    for method in ("forkserver", "spawn"):
        assert store.reproduce("s#1", "--start-method", method)["verdict"] == "exact"


def knows_where_to_go_on(folder: Path) -> bool:
    """Tell whether the record of a trial has a step from which it can go on."""
    if not any(folder.glob("mlruns/s/0000/resume-*.ckpt")):
        return False
    with closing(sqlite3.connect(folder / "mlruns" / "mlflow.db", timeout=30)) as store:
        return store.execute("SELECT 1 FROM tags WHERE key = 'lightsweep.resume_step'").fetchone() is not None


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT], ids=["killed", "stopped"])
def test_a_trial_that_was_cut_off_is_exact_and_still_is_when_resumed(store: Store, signum: signal.Signals) -> None:
    overrides = ("optimizer.lr=0.001,0.01", "study.name=s", "study.num_trials=1", "pruner=none", "launcher.threads=1")
    command = [sys.executable, "-m", "sweeps", "sweep", *overrides, "launcher.slots=1"]
    command += ["trainer.accelerator=cpu", "trainer.max_epochs=30", "tracking.resume_overhead=1e9"]
    driver = warm.Popen(command, cwd=store.folder, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not knows_where_to_go_on(store.folder):
        assert driver.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)  # the driver needs the core
    driver.send_signal(signum)
    driver.wait()
    found = store.reproduce("s#0")
    assert found["verdict"] == "exact" and 1 <= found["num_epochs"] < 30
    assert "where the record ends" in found["reason"]
    store.run("resume", "s")
    segments = [line for line in store.artifact("s#0", "trace.jsonl").read_text().splitlines() if "begins" in line]
    assert len(segments) == 2, "it went on, and did not begin anew"
    found = store.reproduce("s#0")
    assert (found["verdict"], found["num_epochs"]) == ("exact", 30)


@pytest.mark.slow
@pytest.mark.ddp
def test_two_ranks_are_exact(store: Store) -> None:
    store.run("train", "trainer=ddp_cpu", "trainer.devices=2", "trainer.max_epochs=2", "launcher.threads=1")
    trace = store.artifact("train#0", "trace.jsonl").read_text().splitlines()
    weights, order = (json.loads(trace[1])[key] for key in ("weights", "order"))
    assert weights[0] == weights[1] and order[0] != order[1]
    assert store.reproduce("train#0")["verdict"] == "exact"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_each_optimizer_is_exact(store: Store) -> None:
    options = ("study.name=s", "sampler=grid", "pruner=none", "model.dropout=0.3", "model.normalization=batch")
    store.run("sweep", "optimizer=choice(adagrad,adam,adamw,rmsprop,sgd)", "study.num_trials=5", *options, *SMALL)
    for number in range(5):
        assert store.reproduce(f"s#{number}")["verdict"] == "exact"


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_the_cnn_is_exact_with_augmentation(store: Store, threads: int) -> None:
    augmentation = ("data.augmentation.crop_padding=1", "data.augmentation.rotation_degrees=10")
    store.run(
        "train",
        "model=cnn",
        "trainer.accelerator=cpu",
        "trainer.max_epochs=2",
        *augmentation,
        f"launcher.threads={threads}",
    )
    assert store.reproduce("train#0")["verdict"] == "exact"


# --- each ingredient changed on purpose ------------------------------------------------------------------


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def parted(found: dict[str, Any]) -> tuple[str, int]:
    """Return what is blamed, and the epoch at which the trainings part."""
    assert found["verdict"] in ("diverged", "within tolerance")
    return found["ingredient"], found["diverged_at_epoch"]


def train_sample(folder: Path, num_samples: int) -> int:
    """Return the number of a sample that is trained on."""
    from lightning_modules.data.digits import Digits

    cache_dir = str(folder / "mlruns" / "data")
    data = Digits(num_classes=10, input_shape=[1, 8, 8], cache_dir=cache_dir, val_fraction=0.15, test_fraction=0.15)
    data.setup()
    subset = data.train_dataloader().subset
    assert subset is not None and len(subset) < num_samples
    return int(subset[3])


@pytest.mark.slow
def test_another_seed_is_named(trained: Store) -> None:
    edit(trained.artifact("train#0", "config.yaml"), "seed: 0", "seed: 7")
    found = json.loads(trained._command("reproduce", "train#0", "--format", "json", cwd=trained.folder).stdout)
    assert parted(found) == ("seed", -1)


@pytest.mark.slow
def test_another_number_of_threads_is_named(own: Store) -> None:
    found = own.reproduce("train#0", *OWN, "--threads", "2", status=3)
    assert parted(found) == ("threads", 0)
    assert found["differs"]["threads"] == ["threads 1 (now 2)"]


@pytest.mark.slow
def test_one_pixel_of_the_data_is_named_before_training(trained: Store) -> None:
    (file,) = trained.folder.glob("mlruns/data/digits-*/train_x.npy")
    pixels = np.load(file)
    pixels[train_sample(trained.folder, len(pixels)), 0, 4, 4] ^= 15
    np.save(file, pixels)
    done = trained._command("reproduce", "train#0", cwd=trained.folder)
    before, _, after = done.stdout.partition("run started")
    assert "data: the samples of train" in before
    assert "differ" in after and "most likely by data: the samples of train" in after and "bit for bit" not in after


@pytest.mark.slow
def test_a_package_of_another_version_is_named(trained: Store) -> None:
    path = trained.artifact("train#0", "provenance-*.json")
    record = json.loads(path.read_text())
    record["packages"]["torch"] = "2.1.0"
    path.write_text(json.dumps(record))
    trace = trained.artifact("train#0", "trace.jsonl")
    lines = trace.read_text().splitlines()
    begin = json.loads(lines[0])
    begin["ranks"][0]["torch"] = "2.1.0+cpu"
    lines[0] = json.dumps(begin)
    trace.write_text("\n".join(lines) + "\n")
    found = trained.reproduce("train#0")
    assert found["verdict"] == "exact" and "packages" in found["reason"]
    assert found["differs"].keys() == {"packages"}
    (change,) = found["differs"]["packages"]
    assert change.startswith("torch 2.1.0 (now ")
    second = json.loads(lines[2]) | {"weights": ["0" * 40]}
    trace.write_text("\n".join([*lines[:2], json.dumps(second), *lines[3:]]) + "\n")
    assert parted(trained.reproduce("train#0", status=3)) == ("packages", 1)


@pytest.mark.slow
def test_one_line_of_the_model_is_named(own: Store) -> None:
    assert own.reproduce("train#0", "--config-dir", "mine")["verdict"] == "exact"
    edit(own.folder / "mine" / "my_net.py", "return 1.0 *", "return 1.1 *")
    done = own._command("reproduce", "train#0", "--config-dir", "mine", "--format", "json", cwd=own.folder)
    found = json.loads(done.stdout)
    assert parted(found) == ("code", 0)
    assert found["differs"]["code"] == ["mine/my_net.py has changed"]
    # when more differs, how much the loss differs at first tells a line from rounding
    (own.folder / "mine" / "unused.py").write_text("A = 1\n")
    path = own.artifact("train#0", "provenance-*.json")
    record = json.loads(path.read_text())
    record["packages"]["torch"], record["machine"]["os"] = "2.1.0", "Linux 1.0"
    path.write_text(json.dumps(record))
    arguments = ("--config-dir", "mine", "--threads", "2", "--format", "json")
    found = json.loads(own._command("reproduce", "train#0", *arguments, cwd=own.folder).stdout)
    assert parted(found) == ("code", 0)
    assert "code: mine/my_net.py has changed (but" in found["reason"] and "differ, too" in found["reason"]
    assert {"threads", "packages", "environment", "other files"} < found["differs"].keys()
    edit(own.folder / "mine" / "my_net.py", "return 1.1 *", "return 1.0 *  ")  # as it was, but for the file
    found = json.loads(own._command("reproduce", "train#0", *arguments, cwd=own.folder).stdout)
    assert parted(found) == ("threads", 0)


@pytest.mark.slow
def test_a_record_brings_no_modules_along(own: Store) -> None:
    done = own._command("reproduce", "train#0", cwd=own.folder)
    assert done.returncode == 2
    assert "is not of an allowed module" in done.stderr and "--config-dir" in done.stderr


@pytest.mark.slow
def test_another_order_of_the_batches_is_named(store: Store) -> None:
    folder = store.folder / "mine"
    (folder / "data").mkdir(parents=True)
    (folder / "my_digits.py").write_text(OWN_DATA)
    (folder / "data" / "my_digits.yaml").write_text(
        "_target_: my_digits.MyDigits\nnum_classes: 10\ninput_shape: [1, 8, 8]\n"
    )
    arguments = ("--config-dir", "mine")
    store.run("train", *arguments, "data=my_digits", *SMALL)
    assert store.reproduce("train#0", *arguments)["verdict"] == "exact"
    edit(folder / "my_digits.py", "manual_seed(0)", "manual_seed(1)")
    done = store._command("reproduce", "train#0", *arguments, "--format", "json", cwd=store.folder)
    found = json.loads(done.stdout)
    assert parted(found)[1] == 0
    assert found["reason"].startswith("The order of the data differs from epoch 0 on")
    assert "the samples came in another order" in found["reason"] and "my_digits.py has changed" in found["reason"]


@pytest.mark.slow
def test_data_that_only_a_trainer_sets_up_as_it_was_is_not_blamed(store: Store) -> None:
    folder = store.folder / "mine"
    (folder / "data").mkdir(parents=True)
    (folder / "my_digits.py").write_text(OWN_DATA.replace("[:1500]", "[: 1500 if self.trainer else 1400]"))
    (folder / "data" / "my_digits.yaml").write_text(
        "_target_: my_digits.MyDigits\nnum_classes: 10\ninput_shape: [1, 8, 8]\n"
    )
    arguments = ("--config-dir", "mine")
    store.run("train", *arguments, "data=my_digits", *SMALL)
    before, _, after = store.run("reproduce", "train#0", *arguments).partition("run started")
    assert "data: the samples of train" in before  # what is seen without a Trainer
    assert "exact: " in after and "data" not in after.partition("exact: ")[2].replace("order of the data", "")


# --- what cannot be verified, and what is no reproduction ------------------------------------------------


def test_a_record_without_its_config_is_not_verifiable(trained: Store) -> None:
    trained.artifact("train#0", "config.yaml").unlink()
    (trained.folder / "mlruns" / "train" / "0000" / "config.yaml").unlink()
    found = trained.reproduce("train#0", status=5)
    assert found["verdict"] == "not verifiable" and "config.yaml" in found["reason"]
    assert not (trained.folder / "mlruns" / "reproductions").exists()


@pytest.mark.slow
def test_data_that_is_gone_is_not_verifiable(store: Store) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (store.folder / "pictures" / name).mkdir(parents=True)
        for index in range(20):
            Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(
                store.folder / f"pictures/{name}/{index}.png"
            )
    shape = ("data.num_classes=2", "data.input_shape=[3,8,8]", "data.mean=0.5", "data.std=0.5")
    store.run("train", "data=image_folder", "data.root=pictures", *shape, *SMALL)
    shutil.rmtree(store.folder / "pictures")
    shutil.rmtree(store.folder / "mlruns" / "data")
    found = store.reproduce("train#0", status=5)
    assert found["verdict"] == "not verifiable" and "pictures" in found["reason"]


@pytest.mark.slow
def test_without_a_trace_nothing_is_proved_exact(trained: Store) -> None:
    trained.artifact("train#0", "trace.jsonl").unlink()
    (trained.folder / "mlruns" / "train" / "0000" / "trace.jsonl").unlink()
    found = trained.reproduce("train#0", status=3)
    assert "The weights were not recorded" in found["reason"]


@pytest.mark.slow
def test_overrides_make_a_derived_run(kept: Store) -> None:
    found = kept.reproduce("train#0", "--", "optimizer.lr=0.5")
    assert found["verdict"] == "derived"
    tags = kept.show(found["run_id"])["tags"]
    assert "lightsweep.reproduces" not in tags and "lightsweep.derived_from" in tags
    assert kept.show("train#0")["tags"].get("lightsweep.reproduced_by") != found["run_id"]


@pytest.mark.slow
def test_an_exported_run_is_exact_elsewhere(trained: Store, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = Store(tmp_path_factory.mktemp("elsewhere"), trained._command)
    target = str(elsewhere.folder / "it")
    trained.run("export", "train#0", target)
    assert "lightsweep reproduce ." in (elsewhere.folder / "it" / "README.md").read_text()
    found = elsewhere.reproduce("it")
    assert (found["verdict"], found["original"]) == ("exact", "train#0")
    assert found["differs"] == {}
    assert elsewhere.show("reproduction#0")["tags"]["lightsweep.reproduced"].startswith("exact")
    assert "is there already" in trained._command("export", "train#0", target, cwd=trained.folder).stderr


def test_a_run_that_does_not_exist_is_a_usage_error(swept: Store) -> None:
    done = swept._command("reproduce", "s#77", cwd=swept.folder)
    assert done.returncode == 2 and "There is no run 's#77'" in done.stderr


@pytest.mark.slow
def test_replicates_give_the_tolerance(mine: Store) -> None:
    space = ("optimizer.lr=0.001,0.01", "study.name=s", "study.num_trials=1", "study.replicates=3", "pruner=none")
    mine.run("sweep", *OWN, "model=my_net", *space, *SMALL, "launcher.slots=1")
    found = mine.reproduce("s#0/1", *OWN, "--threads", "2", status=3)
    assert "3 times the spread of 3 replicates" in found["reason"]
