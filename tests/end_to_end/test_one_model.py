"""By the real command: the numbers of a run are of one model; what would fail in every trial is reported first."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

MODULES = Path(__file__).parents[1] / "sweeps" / "field_modules.py"
OWN_LOADERS = """

class OwnLoaders(Base):
    def train_dataloader(self):
        return Tables().train_dataloader()

    def val_dataloader(self):
        return Tables().val_dataloader()

    def test_dataloader(self):
        return Tables().test_dataloader()
"""
SCRIPTED = "_target_: kit.Scripted\nacc: [0.9, 0.1]\nloss: [0.5, 0.2]\nnames: [val_acc, val_loss]\n"


@pytest.fixture
def run(lightsweep: Any, tmp_path: Path) -> Callable[..., Any]:
    """The command, with the modules of the field in --config-dir."""
    own = tmp_path / "own"
    (own / "model").mkdir(parents=True)
    (own / "data").mkdir()
    shutil.copy(MODULES, own / "kit.py")
    with (own / "kit.py").open("a") as file:
        file.write(OWN_LOADERS)
    for name in ("Base", "OwnLoaders", "Blows", "Lazy"):
        (own / "model" / f"{name.lower()}.yaml").write_text(f"_target_: kit.{name}\n")
    (own / "model" / "scripted.yaml").write_text(SCRIPTED)
    (own / "data" / "tables.yaml").write_text("_target_: kit.Tables\n")
    small = ("--config-dir", str(own), "trainer=cpu", "trainer.max_epochs=2")
    return lambda command, *more: lightsweep(command, *small, *more)


def shown(folder: Path, name: str) -> dict[str, float]:
    """Return what MLflow shows of the run with this name."""
    client = MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    experiments = [one.experiment_id for one in client.search_experiments()]
    runs = client.search_runs(experiments, f"attributes.run_name = '{name}'")
    return dict(runs[0].data.metrics) | {tag: value for tag, value in runs[0].data.tags.items() if "." in tag}


def test_what_mlflow_shows_is_of_the_model_that_is_kept(run: Any, lightsweep: Any, tmp_path: Path) -> None:
    done = run("train", "data=tables", "model=scripted", "objective.metric=val_acc")
    assert done.returncode == 0, done.stdout + done.stderr
    found = shown(tmp_path, "train 0 tables scripted")
    assert [found["val_acc"], found["val_loss"], found["test/epochs_seen"]] == pytest.approx([0.9, 0.5, 1])
    listed = json.loads(lightsweep("show", "train#0", "--format", "json").stdout)
    assert "epoch=0-step=21.ckpt" in json.dumps(listed)


def test_a_monitor_that_does_not_exist_ends_a_sweep_before_it_begins(run: Any, lightsweep: Any, tmp_path: Path) -> None:
    stops = ("callbacks=[default,early_stopping]", "callbacks.early_stopping.monitor=val/los")
    sweeps = ("+model.lr=0.1,0.2,0.3", "sampler=grid", "study.num_trials=3", "study.name=never")
    done = run("sweep", "data=tables", "model=base", *stops, *sweeps)
    assert done.returncode == 2
    assert "callbacks.early_stopping.monitor=val/los" in done.stderr and "'val/loss'" in done.stderr
    assert not (tmp_path / "mlruns" / "never").exists()


def test_the_check_can_be_left_out_which_the_record_says(run: Any, tmp_path: Path) -> None:
    done = run("train", "data=tables", "model=base", "check=false")
    assert done.returncode == 0, done.stdout + done.stderr
    assert shown(tmp_path, "train 0 tables base")["lightsweep.checked"] == "false"


def test_a_run_that_diverges_between_recorded_steps_is_none(run: Any, tmp_path: Path) -> None:
    done = run("train", "data=tables", "model=blows", "tracking.log_every_n_steps=50")
    assert done.returncode == 1
    assert "diverged" in done.stdout
    assert shown(tmp_path, "train 0 tables blows")["lightsweep.state"] == "failed"


def test_lazy_parameters_are_judged_by_a_constraint(run: Any, lightsweep: Any) -> None:
    sweep = ("sampler=grid", "study.num_trials=2", "study.name=small", "seed=0,1")
    done = run("sweep", "data=tables", "model=lazy", *sweep, 'study.constraints="num_params <= 700"')
    assert done.returncode == 1 and "num_params=778" in done.stdout, done.stdout + done.stderr  # there is no best
    trials = json.loads(lightsweep("compare", "small", "--format", "json").stdout)
    assert [(trial["state"], trial["metrics"]["num_params"]) for trial in trials] == [("pruned", 778), ("pruned", 778)]


def test_a_module_with_loaders_of_its_own_needs_no_data(run: Any, lightsweep: Any) -> None:
    done = run("train", "data=null", "model=ownloaders")
    assert done.returncode == 0, done.stdout + done.stderr
    again = lightsweep("reproduce", "train#0", "--config-dir", "own")
    assert "exact" in again.stdout, again.stdout + again.stderr
