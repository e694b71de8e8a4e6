"""A sweep whose driver is killed again and again ends as one that was left alone: numbers, values, histories."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import warm

NUM_KILLS = int(os.environ.get("LIGHTSWEEP_TEST_KILLS", "4"))
SWEEP = (
    "sweep",
    "study.name=s",
    "study.num_trials=4",
    "optimizer.lr=tag(log,interval(1e-4,1e-2))",
    "sampler=random",  # what it proposes does not depend on when trials end
    "pruner=none",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=60",
    "tracking.resume_overhead=1",
    "launcher.slots=2",
    "seed=3",
)
REPLICATES = (
    "study.replicates=2",
    "study.num_trials=2",
    "launcher.slots=1",
    "launcher.threads=1",
    "trainer.max_epochs=20",
)


def histories(folder: Path) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Every point of every metric of each trial's run, and of each replicate's."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("lightsweep")
    found = {}
    for run in client.search_runs([experiment.experiment_id], "tags.`lightsweep.kind` != 'study'"):
        points = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
        name = f"{run.data.tags['lightsweep.trial']}/{run.data.tags.get('lightsweep.replicate', '')}"
        assert name not in found  # an interrupted one goes on in its run
        assert run.info.status == "FINISHED"
        found[name] = {key: [(point.step, point.value) for point in history] for key, history in points.items()}
    return found


def rows(folder: Path) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "sweeps", "compare", "s", "--format", "json"]
    found = json.loads(warm.run(command, cwd=folder, capture_output=True, check=True).stdout)
    kept = ("trial", "state", "params", "metrics")
    return sorted(({key: row[key] for key in kept} for row in found), key=lambda row: row["trial"])


@pytest.mark.slow
@pytest.mark.parametrize(("further", "num_kills"), [((), NUM_KILLS), (REPLICATES, max(2, NUM_KILLS // 2))])
def test_a_sweep_that_is_killed_again_and_again_ends_as_one_that_was_not(
    lightsweep: Any, tmp_path: Path, further: tuple[str, ...], num_kills: int
) -> None:
    left_alone, killed = tmp_path / "alone", tmp_path / "killed"
    left_alone.mkdir()
    killed.mkdir()
    done = lightsweep(*SWEEP, *further, cwd=left_alone)
    assert done.returncode == 0, done.stderr

    moment = random.Random(1)
    for number in range(num_kills):
        arguments = (*SWEEP, *further) if not (killed / "mlruns" / "s" / "study.yaml").exists() else ("resume", "s")
        driver = warm.Popen(
            [sys.executable, "-m", "sweeps", *arguments],
            cwd=killed,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert driver.stdout is not None
        for line in driver.stdout:  # a trial has started
            if " started" in line or " goes on" in line:
                break
        deadline = time.monotonic() + moment.uniform(0.0, 3.0)
        while time.monotonic() < deadline and driver.poll() is None:
            pass
        driver.kill()
        driver.communicate()
        if driver.returncode == 0:
            assert number > 0  # it had been killed before
            break
    done = lightsweep("resume", "s", cwd=killed)
    assert done.returncode == 0, done.stdout + done.stderr

    assert rows(killed) == rows(left_alone)
    expected, found = histories(left_alone), histories(killed)
    assert found.keys() == expected.keys()
    for trial, history in expected.items():
        assert found[trial].keys() == history.keys()
        for key, points in history.items():
            assert found[trial][key] == points, (trial, key, set(found[trial][key]) ^ set(points))
