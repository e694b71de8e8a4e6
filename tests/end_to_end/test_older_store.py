"""A store that an earlier Lightsweep has written: every command works on it, and nothing that it holds is lost.

See `tests/older_store/unpack.py` for what is in it. `values.jsonl` beside it pins what the code that wrote it read.
"""

import csv
import io
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from older_store import values
from older_store.unpack import unpack

import sweeps

PINNED: dict[str, Any] = dict(
    json.loads(line) for line in Path(values.__file__).with_name("values.jsonl").read_text().splitlines()
)
PREDICTIONS: dict[str, Any] = {
    command.split()[1]: PINNED.pop(command) for command in [*PINNED] if command.startswith("predict")
}

Command = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store; only to be read."""
    return unpack(tmp_path_factory.mktemp("older"))


@pytest.fixture
def writable(tmp_path: Path) -> Path:
    """The store in a folder of the test's own."""
    return unpack(tmp_path)


@pytest.fixture
def store(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store as the working folder."""
    monkeypatch.chdir(unpacked)
    return unpacked


def run(*arguments: str) -> tuple[int, str]:
    """Run a command that starts no training, in this process; return its status and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            status = values.entry_point()([*arguments]) or 0
        except SystemExit as exit_:  # argparse
            status = int(exit_.code or 0)
    assert "Traceback" not in err.getvalue()
    return status, out.getvalue() + err.getvalue()


def read(*arguments: str) -> Any:
    status, said = run(*arguments, "--format", "json")
    assert status == 0, said
    return json.loads(said)


def lost(then: Any, now: Any, at: str = "") -> list[str]:
    """Name what was found then and is not found now; what is there besides does not matter."""
    if isinstance(then, dict) and isinstance(now, dict):
        found = [f"{at}.{key} is gone" for key in then if key not in now]
        return found + [line for key in then if key in now for line in lost(then[key], now[key], f"{at}.{key}")]
    if isinstance(then, list) and isinstance(now, list):
        if len(then) != len(now):
            return [f"{at}: {len(then)} -> {len(now)} entries"]
        return [line for i, (a, b) in enumerate(zip(then, now, strict=True)) for line in lost(a, b, f"{at}[{i}]")]
    if isinstance(then, float) and isinstance(now, float):
        return [] if math.isclose(then, now, rel_tol=1e-12) else [f"{at}: {then} -> {now}"]
    return [] if then == now and type(then) is type(now) else [f"{at}: {then!r} -> {now!r}"]


def rows(study: str) -> dict[int, dict[str, Any]]:
    return {row["trial"]: row for row in read("compare", study)}


def pinned_rows(study: str) -> dict[int, dict[str, Any]]:
    return {row["trial"]: row for row in PINNED[f"compare {study}"]}


# --- reading -------------------------------------------------------------------------------------------


def test_all_that_was_read_then_is_read_now(store: Path) -> None:
    found = dict(values.values())
    assert len(found) == len(PINNED) + len(PREDICTIONS)
    assert [line for command in PINNED for line in lost(PINNED[command], found[command], command)] == []


@pytest.mark.parametrize("study", values.STUDIES)
def test_tables_have_every_trial_and_parameter(study: str, store: Path) -> None:
    for form in ("table", "csv", "md"):
        status, said = run("compare", study, "--format", form)
        assert status == 0
        for row in pinned_rows(study).values():
            assert row["run_id"][:8] in said
            assert all(key.rpartition(".")[2] in said.replace("\\", "") for key in row["params"])  # Markdown escapes


def test_pages_of_runs_are_shown(store: Path) -> None:
    for name in ("best:small", "repeated#1/0", "types#9", "killed#1", "train#0"):
        status, said = run("show", name)
        assert status == 0
        assert "val/acc" in said and "model.depth" in said
    status, said = run("diff", "best:small", "front#0", "train#0")
    assert status == 0
    assert "optimizer.lr" in said and "study.metric" not in said


def test_a_run_that_is_not_there_is_refused_with_the_nearest(store: Path) -> None:
    status, said = run("show", "best:smal")
    assert status == 2 and "small" in said


@pytest.mark.parametrize("study", ["small", "front", "types", "failing", "killed"])
def test_a_report_is_written(study: str, store: Path, tmp_path: Path) -> None:
    status, said = run("report", study, "--output", str(tmp_path / "report.html"), "--png", str(tmp_path / "plots"))
    assert status == 0, said
    page = (tmp_path / "report.html").read_text()
    assert study in page and ("model.depth" if study == "failing" else "optimizer.lr") in page
    assert list((tmp_path / "plots").glob("*.png"))


def test_what_a_run_takes_is_exported(store: Path, tmp_path: Path) -> None:
    status, said = run("export", "best:small", str(tmp_path / "kept"))
    assert status == 0, said
    assert "width: 6" in (tmp_path / "kept" / "config.yaml").read_text()
    assert list((tmp_path / "kept").glob("**/trace.jsonl"))


def test_studies_are_completed(store: Path) -> None:
    status, said = run("completion", "bash", "--line", "lightsweep compare s")
    assert status == 0 and "small" in said.split()


def test_python_reads_studies(store: Path) -> None:
    study = sweeps.load_study("small")
    assert study.best[0].params == {"optimizer.lr": 0.03, "model.depth": 1}
    assert study.objectives == {"val/acc": "maximize"}
    assert [parameter.key for parameter in study.space] == ["optimizer.lr", "model.depth"]
    assert study.parent.tags["team"] == "digits"
    frame = study.trials_frame().set_index("number")
    assert len(frame) == 6
    for number, row in pinned_rows("small").items():
        assert frame["state"][number] == row["state"]
        assert frame["params.optimizer.lr"][number] == row["params"]["optimizer.lr"]
        assert frame["metrics.num_params"][number] == row["metrics"]["num_params"]
        assert frame["duration_s"][number] == row["duration_s"]
        value = math.nan if row["value"] is None else row["value"]
        np.testing.assert_equal(frame["value"][number], value)
    curve = study.histories("val/acc")[1].values
    assert curve.tolist() == PINNED["diff best:small small#2"]["metrics"]["val/acc"][0]["curve"]
    assert len(study.histories_frame(["val/acc"])) == 8


def test_python_reads_fronts_and_all_runs(store: Path) -> None:
    front = sweeps.load_study("front")
    assert {row.trial for row in front.best} == {1, 3, 4}
    assert front.trials_frame()["is_on_front"].sum() == 3
    frame = sweeps.runs_frame()
    assert len(frame) == sum(len(pinned_rows(study)) for study in values.STUDIES) + 2
    assert len(sweeps.runs_frame(["types", "failing"])) == 15
    types = sweeps.load_study("types").trials_frame()
    assert types["params.data.drop_last"].dtype == bool and types["params.data.batch_size"].dtype == np.int64
    assert set(types["params.tracking.tags.lot"]) == {"1e3", "2024_11_30", "true"}


# --- the registered model ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits@champion", "digits/1", "digits/2", "digits"])
def test_a_model_predicts_by_alias_and_version(name: str, store: Path, tmp_path: Path) -> None:
    status, said = run("predict", name, "samples.json", "--output", str(tmp_path / "found.csv"))
    assert status == 0, said
    found = list(csv.DictReader((tmp_path / "found.csv").read_text().splitlines()))
    pinned = PREDICTIONS["digits/1" if name == "digits/1" else "digits@champion"]
    assert [record["class"] for record in found] == [record["class"] for record in pinned]
    for then, now in zip(pinned, found, strict=True):  # processors may differ in the last bits
        assert float(now["probability"]) == pytest.approx(then["probability"], abs=1e-6)


def test_mlflow_loads_the_model_by_the_loader_that_is_written_in_it(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file `MLmodel` names the module `sweeps.promotion.serving`: that name must lead to the loader for ever."""
    import mlflow

    assert any("loader_module: sweeps.promotion.serving" in path.read_text() for path in store.rglob("MLmodel"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}/mlruns/mlflow.db")  # set back at the end, ...
    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])  # ... which this would not be
    samples = np.array(json.loads((store / "samples.json").read_text()), dtype=np.uint8)
    for name in ("digits@champion", "digits/1"):
        found = mlflow.pyfunc.load_model(f"models:/{name}").predict(samples)
        pinned = PREDICTIONS[name]
        assert found["class"].tolist() == [record["class"] for record in pinned]
        np.testing.assert_allclose(found["probability"], [record["probability"] for record in pinned], atol=1e-6)


@pytest.mark.slow
def test_mlflow_loads_the_model_in_a_process_without_lightsweep(store: Path) -> None:
    """A server imports the code that is kept in the model."""
    code = """
import json, mlflow, numpy, sys
mlflow.set_tracking_uri("sqlite:///mlruns/mlflow.db")
model = mlflow.pyfunc.load_model("models:/digits@champion")
samples = numpy.array(json.load(open("samples.json")), dtype=numpy.uint8)
print(json.dumps([sys.modules["sweeps"].__file__, model.predict(samples)["class"].tolist()]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=store, capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    place, found = json.loads(done.stdout.splitlines()[-1])
    assert Path(place).is_relative_to(store) and found == [record["class"] for record in PREDICTIONS["digits@champion"]]


@pytest.mark.slow
def test_another_version_is_registered(writable: Path, lightsweep: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    done = lightsweep("promote", "front#4", "--name", "digits", "--alias", "champion")
    assert done.returncode == 0, done.stdout + done.stderr
    monkeypatch.chdir(writable)
    assert "digits/3" in read("show", "front#4")["tags"]["lightsweep.promoted"]
    for name, version in (("digits@champion", "digits/3"), ("digits/2", "digits/2")):
        assert read("predict", name, "samples.json") == read("predict", version, "samples.json")
    assert read("predict", "digits/2", "samples.json") != read("predict", "digits/3", "samples.json")


# --- training on ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("study", ["interrupted", "killed"])
def test_a_study_is_resumed_to_its_total(
    study: str, writable: Path, lightsweep: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(writable)
    step = read("show", f"{study}#1")["tags"]["lightsweep.resume_step"]
    done = lightsweep("resume", study)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"step {step}" in done.stdout  # not begun anew
    found = rows(study)
    assert sorted(found) == [0, 1, 2]
    assert {row["state"] for row in found.values()} == {"complete"}
    assert lost(pinned_rows(study)[0], found[0]) == []
    then = pinned_rows(study)[1]
    assert found[1]["run_id"] == then["run_id"] and found[1]["params"] == then["params"]
    for history in sweeps.load_study(study).histories("val/acc").values():  # resumed in its run: each epoch once
        assert len(history.values) == len(set(history.steps)) == 30


@pytest.mark.slow
def test_more_trials_follow_an_order_that_was_left(
    writable: Path, lightsweep: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(writable)
    status, said = run("enqueue", "small", "optimizer.lr=0.02", "model.depth=2")
    assert status == 0, said
    assert run("stop", "small")[0] != 0  # nothing runs
    done = lightsweep("resume", "small", "study.num_trials=8")
    assert done.returncode == 0, done.stdout + done.stderr
    found = rows("small")
    assert sorted(found) == list(range(8))
    assert found[6]["params"] == {"optimizer.lr": 0.02, "model.depth": 2}
    for number, then in pinned_rows("small").items():
        assert lost(then, found[number]) == []
    assert read("show", "small#7")["tags"]["team"] == "digits"


@pytest.mark.slow
def test_a_run_is_reproduced_to_a_verdict(writable: Path, lightsweep: Any) -> None:
    done = lightsweep("reproduce", "best:small", "--format", "json")
    assert done.returncode in (0, 3, 4), done.stdout + done.stderr
    judged = json.loads(done.stdout)
    assert judged["verdict"] == {0: "exact", 3: "within tolerance", 4: "diverged"}[done.returncode]
    (then,) = (writable / "mlruns" / "small").glob("provenance-*.json")
    (now,) = (writable / "mlruns" / "reproductions" / "0001").glob("provenance-*.json")
    if all(json.loads(then.read_text())[key] == json.loads(now.read_text())[key] for key in ("machine", "packages")):
        assert judged["verdict"] == "exact"
