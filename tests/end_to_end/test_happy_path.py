"""One real sweep and one `train` on digits: what is recorded agrees everywhere, and nothing is missing."""

import json
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from own_modules import FRAGILE_NET


@pytest.fixture(scope="module")
def rows(swept: Any) -> list[dict[str, Any]]:
    """What `compare --format json` says of the sweep."""
    found: list[dict[str, Any]] = json.loads(swept.run("compare", "small", "--format", "json").stdout)
    return found


@pytest.fixture(scope="module")
def client(swept: Any) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(swept.uri)


@pytest.fixture(scope="module")
def trials(swept: Any) -> list[Any]:
    """Optuna's own record of the trials."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = f"sqlite:///{swept.folder}/mlruns/optuna.db"
    return optuna.load_study(study_name="small", storage=storage).trials


def test_every_trial_is_compared_with_what_scripts_need(rows: list[dict[str, Any]]) -> None:
    assert sorted(row["trial"] for row in rows) == list(range(6))
    for row in rows:
        assert {"run_id", "study", "trial", "state", "metrics", "params", "duration_s"} <= set(row)
        assert row["study"] == "small"
        assert isinstance(row["params"]["optimizer.lr"], float) and isinstance(row["params"]["model.depth"], int)
        assert 0 < row["duration_s"] < 100
    assert {row["state"] for row in rows} <= {"complete", "pruned"}


def test_best_comes_first(rows: list[dict[str, Any]]) -> None:
    values = [row["value"] for row in rows if row["state"] == "complete"]

    assert values == sorted(values, reverse=True)
    assert all(row["metrics"]["val/acc"] == pytest.approx(row["value"]) for row in rows)


def test_mlflow_agrees_with_optuna(rows: list[dict[str, Any]], trials: list[Any]) -> None:
    by_number = {row["trial"]: row for row in rows}

    for trial in trials:
        row = by_number[trial.number]
        assert row["state"] == trial.state.name.lower()
        assert row["params"]["optimizer.lr"] == trial.params["optimizer.lr"]
        assert row["params"]["model.depth"] == trial.params["model.depth"]
        if row["state"] == "complete":
            assert row["value"] == trial.value


def test_children_hang_below_the_study_under_names_for_people(rows: list[dict[str, Any]], client: Any) -> None:
    runs = [client.get_run(row["run_id"]) for row in rows]
    (parent_id,) = {run.data.tags["mlflow.parentRunId"] for run in runs}
    parent = client.get_run(parent_id)

    assert parent.info.run_name == "small" and parent.info.status == "FINISHED"
    for row, run in zip(rows, runs, strict=True):
        assert run.info.run_name.startswith(f"#{row['trial']} lr=")
        assert f"depth={row['params']['model.depth']}" in run.info.run_name
        assert run.data.params["optimizer.lr"] == str(row["params"]["optimizer.lr"])
        assert "model._target_" in run.data.params and "trainer.max_epochs" in run.data.params


def test_pruned_trial_is_killed_with_its_reason(rows: list[dict[str, Any]], client: Any) -> None:
    pruned = [row for row in rows if row["state"] == "pruned"]

    assert pruned, "the shared sweep must prune a trial"
    for row in pruned:
        run = client.get_run(row["run_id"])
        assert run.info.status == "KILLED"
        assert run.data.tags["pruned"] == "true"
        assert "below the median" in row["reason"]


def test_metric_histories_are_complete(rows: list[dict[str, Any]], client: Any) -> None:
    for row in rows:
        losses = client.get_metric_history(row["run_id"], "train/loss_step")
        epochs = Counter(point.step for point in client.get_metric_history(row["run_id"], "val/acc"))
        num_steps = len(losses)

        assert sorted(point.step for point in losses) == list(range(num_steps))
        restated = epochs.pop(num_steps + 1, 0)  # the best epoch's, where it is not the last
        assert restated <= 1
        assert set(epochs.values()) == {1}
        assert len(epochs) == (3 if row["state"] == "complete" else len(epochs))
        assert max(epochs) == num_steps - 1


def test_config_and_checkpoint_are_artifacts(rows: list[dict[str, Any]], client: Any, tmp_path: Path) -> None:
    import torch
    import yaml

    best = rows[0]
    config = yaml.safe_load(Path(client.download_artifacts(best["run_id"], "config.yaml", str(tmp_path))).read_text())
    (checkpoint,) = Path(client.download_artifacts(best["run_id"], "checkpoints", str(tmp_path))).iterdir()
    loaded = torch.load(checkpoint, weights_only=True)

    assert config["optimizer"]["lr"] == best["params"]["optimizer.lr"]
    assert "study" not in config and "hydra" not in config
    assert any(key.endswith("weight") for key in loaded["state_dict"])


def test_terminal_says_what_came_of_it_and_what_to_type(swept: Any, rows: list[dict[str, Any]]) -> None:
    lines = swept.sweep.stdout.splitlines()

    assert swept.sweep.stderr == ""
    assert lines[0].startswith("study small: 6 trials")
    assert sum(line.startswith("trial ") and " started" in line for line in lines) == 6
    assert any(line.startswith(f"best: #{rows[0]['trial']} val/acc=") for line in lines)
    assert "  lightsweep compare small --top 10" in lines and "  lightsweep ui small" in lines


def test_train_prints_metrics_and_run_id(swept: Any, client: Any) -> None:
    output = swept.train.stdout
    run_id = output.split("run ")[-1].split()[0]
    run = client.get_run(run_id)

    assert swept.train.stderr == ""
    assert "test/acc" in output and "val/loss" in output
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test/acc"] > 0.5
    assert "mlflow.parentRunId" not in run.data.tags


def test_train_stands_beside_the_trials(swept: Any) -> None:
    lines = swept.run("compare").stdout.splitlines()

    assert len(lines) == 1 + 7
    assert sum(line.startswith("train") for line in lines) == 1
    assert all("…" not in line for line in lines)


def test_stores_are_in_wal_mode_and_nothing_is_left_unsent(swept: Any) -> None:
    for name in ("mlflow.db", "optuna.db"):
        with closing(sqlite3.connect(swept.folder / "mlruns" / name)) as connection:
            assert connection.execute("pragma journal_mode").fetchone() == ("wal",)
    assert not list(swept.folder.glob("mlruns/**/unsent.jsonl"))


def test_printed_config_composes_again(swept: Any, tmp_path: Path) -> None:
    import yaml

    result = swept.run("train", "--cfg", "job", "--resolve", "model=cnn", "optimizer.lr=0.5")
    config = yaml.safe_load(result.stdout)
    (tmp_path / "again.yaml").write_text(f"defaults: [train_schema, _self_]\n{result.stdout}")
    again = swept.run("train", "--cfg", "job", "--resolve", "--config-dir", str(tmp_path), "--config-name", "again")

    assert config["optimizer"]["lr"] == 0.5 and config["model"]["_target_"].endswith("CNN")
    assert again.returncode == 0, again.stderr
    assert yaml.safe_load(again.stdout) == config


@pytest.mark.slow
def test_sweep_with_the_same_name_has_nothing_left_to_do(swept: Any) -> None:
    result = swept.run("resume", "small")

    assert result.returncode == 0, result.stderr
    assert "has its 6 trials already" in result.stdout


@pytest.mark.slow
def test_trial_that_raises_is_recorded_and_the_sweep_goes_on(lightsweep: Any, tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "fragile.py").write_text(FRAGILE_NET)
    (tmp_path / "conf" / "model").mkdir()
    (tmp_path / "conf" / "model" / "fragile.yaml").write_text("_target_: fragile.Fragile\nlimit: 0\n")

    swept = lightsweep(
        *("sweep", "study.name=f", "model=fragile", "model.limit=choice(5,1000)", "sampler=grid", "launcher.slots=1"),
        *("trainer.max_epochs=1", "trainer.accelerator=cpu", "--config-dir", "conf"),
    )
    rows = json.loads(lightsweep("compare", "f", "--format", "json").stdout)

    assert swept.returncode == 0, swept.stdout + swept.stderr
    assert "1 complete, 1 failed" in swept.stdout
    (failed,) = [row for row in rows if row["state"] == "failed"]
    assert failed["reason"] == "RuntimeError: no more than 5 steps"
    (story,) = tmp_path.glob(f"mlruns/artifacts/{failed['run_id']}/artifacts/traceback.txt")
    assert "in forward" in story.read_text()
    with closing(sqlite3.connect(tmp_path / "mlruns" / "mlflow.db")) as connection:
        status = connection.execute("select status from runs where run_uuid = ?", (failed["run_id"],)).fetchone()
    assert status == ("FAILED",)


@pytest.mark.slow
def test_spawned_trials_give_the_same_results(lightsweep: Any, swept: Any) -> None:
    from_server = json.loads(swept.run("compare", "small", "--format", "json").stdout)

    result = lightsweep(
        *("sweep", "study.name=small", "study.num_trials=1", "trainer.max_epochs=3", "trainer.accelerator=cpu"),
        *("pruner.n_startup_trials=2", "launcher.slots=2", "seed=1", "launcher.start_method=spawn"),
    )
    spawned = json.loads(lightsweep("compare", "--format", "json").stdout)

    assert result.returncode == 0, result.stderr
    values = {row["trial"]: row["value"] for row in from_server}
    assert {row["trial"]: row["value"] for row in spawned} == {0: values[0]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "pruner"),  # each once; tpe and the median drive the shared sweep
    [
        ("random", "percentile"),
        ("grid", "successive_halving"),
        ("cmaes", "hyperband"),
        ("gp", "none"),
        ("qmc", "median"),
    ],
)
def test_each_sampler_and_each_pruner_drives_a_sweep(lightsweep: Any, sampler: str, pruner: str) -> None:
    ranges = ("optimizer.lr=0.01,0.1",) if sampler == "grid" else ("optimizer.lr=tag(log,interval(1e-4,1e-1))",)

    result = lightsweep(
        *("sweep", f"sampler={sampler}", f"pruner={pruner}", *ranges, "model.depth=range(1,3)", "study.num_trials=4"),
        *("trainer.max_epochs=2", "trainer.accelerator=cpu", "study.report=false"),
    )

    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    assert " failed" not in result.stdout
    assert pruner != "none" or "4 complete in" in result.stdout


def test_module_runs_as_the_command(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "sweeps", "--version"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert result.returncode == 0
    assert result.stdout.startswith("lightsweep 0.")
