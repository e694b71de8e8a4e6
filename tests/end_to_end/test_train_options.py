"""What training can be asked for is configuration: each through the real command, on real digits."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from free_ports import free_port

FAST = ("train", "trainer.accelerator=cpu", "seed=3")


def points(folder: Path, key: str) -> list[tuple[int, float]]:
    """The history of a metric in the only run of the store."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("lightsweep")
    (run,) = client.search_runs([experiment.experiment_id])
    return [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, key)]


def test_early_stopping_best_checkpoints_and_the_learning_rate(lightsweep: Any, tmp_path: Path) -> None:
    done = lightsweep(
        *FAST,
        "callbacks=[default,early_stopping,lr_monitor]",
        "callbacks.early_stopping.patience=2",
        "callbacks.early_stopping.min_delta=1.0",  # no epoch is that much better, so it stops after three
        "callbacks.checkpoint.save_top_k=2",
        "scheduler=one_cycle",
        "trainer.max_epochs=9",
    )
    assert done.returncode == 0, done.stderr
    assert len(re.findall("^validation", done.stdout, re.MULTILINE)) == 3
    assert len(list(tmp_path.glob("mlruns/train/0000/checkpoints/*.ckpt"))) == 2
    rates = points(tmp_path, "lr-Adam")
    assert len({value for _, value in rates}) > 20  # it changes at every step


@pytest.mark.slow
def test_clipping_accumulation_and_mixed_precision(lightsweep: Any, tmp_path: Path) -> None:
    done = lightsweep(
        *FAST,
        "trainer.gradient_clip_val=0.5",
        "trainer.gradient_clip_algorithm=norm",
        "trainer.accumulate_grad_batches=3",
        "trainer.precision=bf16-mixed",
        "trainer.max_epochs=2",
    )
    assert done.returncode == 0, done.stderr
    steps = [step for step, _ in points(tmp_path, "train/loss_step")]
    assert steps == list(range(14))  # 20 batches make 7 steps an epoch
    assert all(0 < loss < 10 for _, loss in points(tmp_path, "train/loss_step"))  # not divided by the three


@pytest.mark.slow
def test_a_time_limit_stops_the_trials_and_counts_as_an_end(lightsweep: Any, tmp_path: Path) -> None:
    done = lightsweep(
        "sweep",
        "optimizer.lr=interval(0.001,0.01)",
        "study.timeout_s=2",
        "study.num_trials=50",
        "trainer.max_epochs=100000",
        "trainer.accelerator=cpu",
        "pruner=none",
    )
    assert "study.timeout_s is over" in done.stdout
    assert "interrupted" in done.stdout
    assert done.returncode == 1  # no trial is complete


@pytest.fixture
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real MLflow server, which `lightsweep ui` runs over a store of its own."""
    from mlflow.tracking import MlflowClient

    folder = tmp_path_factory.mktemp("server")
    (folder / "mlruns").mkdir()
    MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db").search_experiments()  # makes the tables
    port = free_port()
    command = [sys.executable, "-m", "sweeps", "ui", "--port", str(port)]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, start_new_session=True) as server:
        deadline = time.monotonic() + 300
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert time.monotonic() < deadline
        yield f"http://127.0.0.1:{port}"
        os.killpg(server.pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_real_mlflow_server_takes_a_sweep(lightsweep: Any, tmp_path: Path, mlflow_server: str) -> None:
    done = lightsweep(
        "sweep",
        "optimizer.lr=0.001,0.01",
        "study.name=remote",
        "study.num_trials=2",
        "trainer.max_epochs=1",
        "trainer.accelerator=cpu",
        f"tracking.uri={mlflow_server}",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    table = lightsweep("compare", "remote", "--uri", mlflow_server)
    assert table.stdout.count("complete") == 2
