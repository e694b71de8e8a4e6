"""A real sweep of two objectives with a constraint, in which some trials are too large and some diverge."""

import json
from typing import Any

import pytest


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, lightsweep_in: Any) -> Any:
    folder = tmp_path_factory.mktemp("objectives")
    done = lightsweep_in(
        "sweep",
        "study.name=two",
        "study.metric=[val/acc,num_params]",
        "study.direction=[maximize,minimize]",
        'study.constraints="num_params <= 30000"',
        "objective.metric=val/loss",
        "objective.direction=minimize",
        "sampler=grid",
        "search=none",
        "optimizer=sgd",
        "optimizer.lr=1e-3,0.1,1e30",
        "model.width=16,64,512",
        "trainer.max_epochs=3",
        "trainer.accelerator=cpu",
        "study.num_trials=9",
        "pruner.n_startup_trials=1",
        cwd=folder,
    )
    rows = json.loads(lightsweep_in("compare", "two", "--format", "json", cwd=folder).stdout)
    return done, rows


def test_what_is_too_large_is_not_trained(sweep: Any) -> None:
    _, rows = sweep
    large = [row for row in rows if row["params"]["model.width"] == 512]
    assert len(large) == 3
    for row in large:
        assert row["state"] == "pruned" and row["infeasible"] in row["reason"]
        assert row["metrics"].keys() == {"num_params"} and row["metrics"]["num_params"] > 30000


def test_what_diverges_is_pruned_with_a_reason_and_is_no_failure(sweep: Any) -> None:
    done, rows = sweep
    wild = [row for row in rows if row["params"]["optimizer.lr"] > 1 and row["params"]["model.width"] < 512]
    assert {row["state"] for row in wild} == {"pruned"}
    told = ("diverged: the training loss became", "diverged: the objective val/loss became nan")  # what is heard first
    assert all(row["reason"].startswith(told) for row in wild)
    assert all(row["infeasible"] == row["reason"] for row in wild)
    assert " failed" not in done.stdout


def test_the_front_is_named_at_the_end_and_comes_first_in_compare(sweep: Any) -> None:
    done, rows = sweep
    assert done.returncode == 0, done.stdout + done.stderr
    front = [row for row in rows if row["is_on_front"]]
    assert front and rows[: len(front)] == front
    assert f"Pareto front: {len(front)} of 9 trials" in done.stdout
    for row in front:
        assert row["objectives"] == {"val/acc": "maximize", "num_params": "minimize"}
        assert f"#{row['trial']} val/acc={row['values']['val/acc']:.4g} num_params=" in done.stdout
        assert row["values"]["num_params"] == row["metrics"]["num_params"]


def test_the_chosen_objective_decides_what_is_kept(sweep: Any) -> None:
    """The values are those of the epoch with the least val/loss, which `objective.metric` names."""
    _, rows = sweep
    for row in (row for row in rows if row["state"] == "complete"):
        assert row["metrics"]["val/acc"] == pytest.approx(row["values"]["val/acc"])
