"""One run, from MLflow's tables and from a server, for people and for programs."""

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from run_stores import StoreWriter

from sweeps.cli.commands.show import print_run
from sweeps.results.run import RunDetail, read_runs


def read(address: str, name: str, store_dir: Path = Path("none")) -> RunDetail:
    (detail,) = read_runs(address, [name], store_dir)
    return detail


def shown(detail: RunDetail, *, width: int = 80, is_terminal: bool = False, **more: Any) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=is_terminal, color_system=None)
    print_run(detail, more.pop("form", "table"), console=console, out=out, **more)
    return out.getvalue()


def test_trial_has_its_values_origin_and_config(address: str) -> None:
    detail = read(address, "a#1")

    assert (detail.kind, detail.study, detail.row.trial, detail.row.state) == ("trial", "a", 1, "complete")
    assert detail.searched == {"model.depth": 1, "optimizer.lr": 0.1}
    assert detail.config["data.batch_size"] == "64" and detail.row.duration_s == 2.5
    assert detail.origin["enqueued"] == "somebody asked for these values"


def test_metrics_have_their_last_and_best_values_and_their_history(address: str) -> None:
    metrics = read(address, "a#1").metrics
    acc, epoch, loss = metrics["val/acc"], metrics["epoch"], read(address, "a#0").metrics["val/loss"]

    assert (acc.best_step, loss.best_step, epoch.best_step) == (1, 1, None)
    assert (acc.last, acc.best, acc.curve and acc.curve.means) == (0.7, 0.9, (0.1, 0.9, 0.7))
    assert (loss.last, loss.best, loss.direction) == (0.875, 0.75, "minimize")
    assert (epoch.last, epoch.best) == (2.0, None)


def test_curve_ends_where_training_did(address: str) -> None:
    metrics = read(address, "restated#0").metrics
    acc, own = metrics["val/acc"], metrics["own"]

    assert (acc.last, acc.best, acc.best_step) == (0.9, 0.9, 1)
    assert acc.curve is not None and (acc.curve.means, acc.curve.last_step) == ((0.2, 0.9, 0.4), 2)
    assert own.curve is not None and own.curve.means == (1, 1, 3, 4)


def test_means_of_more_and_more_trainings_have_no_best(tmp_path: Path, empty_mlflow: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(empty_mlflow.read_bytes())
    writer = StoreWriter(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
    writer.trial("a", 0, 0.5, {"val/acc": [0.9, 0.5], "val/acc_sem": [0.3, 0.1]})

    metrics = read(f"sqlite:///{tmp_path}/mlflow.db", "a#0").metrics

    assert {key: (metric.last, metric.best) for key, metric in metrics.items()} == {
        "val/acc": (0.5, None),
        "val/acc_sem": (0.1, None),
    }


@pytest.mark.parametrize(("state", "is_told"), [("running", True), ("interrupted", True), ("complete", False)])
def test_where_a_trial_goes_on_is_told_of_one_that_does(
    state: str, is_told: bool, tmp_path: Path, empty_mlflow: Path
) -> None:
    (tmp_path / "mlflow.db").write_bytes(empty_mlflow.read_bytes())
    writer = StoreWriter(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
    writer.trial("a", 0, None, {}, state=state, resume_step="7")

    assert ("goes on" in read(f"sqlite:///{tmp_path}/mlflow.db", "a#0").origin) == is_told


def test_what_is_no_number_neither_counts_nor_hides_the_rest(address: str) -> None:
    metrics = read(address, "a#2").metrics
    loss, acc = metrics["val/loss"].curve, metrics["val/acc"]

    assert loss is not None and (loss.lowest, loss.highest) == (-math.inf, math.inf)
    assert (loss.lowest_step, loss.highest_step) == (3, 1) and acc.best_step is None
    assert [value for value in loss.means if not math.isnan(value)] == [1.0, 2.0] and len(loss.means) == 5
    assert math.isnan(acc.last) and acc.best is None


def test_long_history_is_thinned_alike(filled: Any) -> None:
    from mlflow.tracking import MlflowClient

    from sweeps.results.histories import thinned

    curve = read(filled.uri, "a#4").metrics["train/loss_step"].curve
    points = MlflowClient(filled.uri).get_metric_history(filled.ids["a4"], "train/loss_step")
    expected = thinned((point.step, point.timestamp, point.value) for point in points)

    assert curve is not None and curve.means == pytest.approx(expected.means) and len(curve.means) == 60
    assert (curve.num_points, curve.lowest, curve.highest) == (1234, 0.0, 12.0)
    assert (curve.lowest_step, curve.highest_step) == (expected.lowest_step, expected.highest_step) == (0, 11)


def test_artifacts_have_their_sizes(address: str) -> None:
    assert [(file.path, file.size) for file in read(address, "a#1").artifacts] == [
        ("config.yaml", 18),
        ("more/of it/config.yaml", 18),
    ]
    assert read(address, "a#0").artifacts == []


@pytest.mark.parametrize("run", ["a1", "a2", "a4", "a1/0", "parent", "train4", "stranger", "front1"])
def test_database_and_server_give_the_same(filled: Any, monkeypatch: pytest.MonkeyPatch, run: str) -> None:
    import mlflow.tracking

    client = mlflow.tracking.MlflowClient(filled.uri)
    monkeypatch.setattr(mlflow.tracking, "MlflowClient", lambda uri: client)
    name = filled.ids[run]

    assert rounded(read("http://localhost:1", name)) == rounded(read(filled.uri, name))


def rounded(detail: RunDetail) -> dict[str, Any]:
    """Return what JSON says of a run, without the last digits of means."""
    plain: dict[str, Any] = json.loads(shown(detail, form="json"), parse_float=lambda text: f"{float(text):.12g}")
    return plain


@pytest.mark.postgres
@pytest.mark.slow
def test_postgresql_gives_the_same_as_sqlite(filled: Any, postgres_url: str, tmp_path: Path) -> None:
    from run_stores import fill

    ids = fill(postgres_url.replace("postgresql:", "postgresql+psycopg:"), tmp_path)
    for run in ("a1", "a2", "a4", "parent", "stranger"):
        ours, theirs = rounded(read(postgres_url, ids[run])), rounded(read(filled.uri, filled.ids[run]))
        for key in ("metrics", "params", "config", "state", "values", "artifacts", "duration_s"):
            assert ours[key] == theirs[key], (run, key)
    assert read(postgres_url, "best:a").run.run_id == ids["a1"]


@pytest.mark.parametrize("name", ["a#1", "a#2", "a#4", "best:front", "train#4"])
@pytest.mark.parametrize("width", [80, 50])
def test_page_fits_a_terminal(filled: Any, name: str, width: int) -> None:
    text = shown(read(filled.uri, name), width=width, is_terminal=True)

    assert max(map(len, text.splitlines())) <= width
    assert "Metrics" in text and ("batch_size=" in text or name == "train#4")


def test_page_says_what_a_person_asks(filled: Any) -> None:
    pruned, best = shown(read(filled.uri, "a#2")), shown(read(filled.uri, "best:front"))

    assert pruned.splitlines()[0] == "a#2  pruned" and "nan at step 5" in pruned
    assert "▁×××█" in pruned and filled.ids["a2"] in pruned
    assert "val/acc   0.9 (maximize)" in best and "val/loss  0.4 (minimize)" in best
    assert "the first of 2 on the Pareto front by val/acc" in best


def test_pipe_gets_one_key_a_line(filled: Any) -> None:
    assert "  data.batch_size=64" in shown(read(filled.uri, "a#1")).splitlines()


def test_markup_and_commands_are_shown_as_they_are(filled: Any) -> None:
    text = shown(read(filled.uri, "a#1"), commands=["lightsweep compare '[bold]x'"])

    assert text.endswith("Next\n  lightsweep compare '[bold]x'\n")


def test_json_says_null_for_what_is_no_number(filled: Any) -> None:
    found = json.loads(shown(read(filled.uri, "a#2"), form="json"), parse_constant=pytest.fail)

    assert found["metrics"]["val/loss"]["curve"] == [1.0, None, None, None, 2.0]
    assert found["reason"] == "nan at step 5" and found["name"] == "a#2"


def test_run_without_params_has_the_config_of_its_folder(filled: Any, tmp_path: Path) -> None:
    (tmp_path / "train" / "0004").mkdir(parents=True)
    (tmp_path / "train" / "0004" / "config.yaml").write_text("model: {depth: 3}\nseed: 1\n")
    detail = read(filled.uri, "train#4", tmp_path)

    assert detail.config == {"model.depth": "3", "seed": "1"}
    assert detail.folder == tmp_path / "train" / "0004"
    assert f"log and checkpoints: {detail.folder}" in shown(detail)


def test_run_without_params_and_folder_has_the_config_among_its_artifacts(address: str, filled: Any) -> None:
    assert read(address, filled.ids["train3"]).config == {"model.depth": "1"}


def test_config_cut_in_half_is_no_error(filled: Any, tmp_path: Path) -> None:
    (tmp_path / "train" / "0004").mkdir(parents=True)
    (tmp_path / "train" / "0004" / "config.yaml").write_text("model: {depth")

    assert read(filled.uri, "train#4", tmp_path).config == {}


def test_run_of_a_real_sweep_is_shown(swept: Any) -> None:
    result = swept.run("show", "best:small")
    (best, *_) = json.loads(swept.run("compare", "small", "--format", "json").stdout)
    plain = json.loads(swept.run("show", f"small#{best['trial']}", "--format", "json").stdout)

    assert result.returncode == 0 and result.stderr == ""
    assert result.stdout.startswith(f"small#{best['trial']}  complete\n") and best["run_id"] in result.stdout
    assert "  lightsweep compare small --top 10" in result.stdout.splitlines()
    assert "study.num_trials=6" in plain["origin"]["command"] and plain["run_id"] == best["run_id"]
    assert plain["params"] == best["params"] and plain["folder"] == f"mlruns/small/{best['folder']}"
    assert {"config.yaml"} < {file["path"] for file in plain["artifacts"]}
    assert plain["metrics"]["val/acc"]["best"] == pytest.approx(best["value"])


def test_unknown_run_is_told_in_one_line(swept: Any) -> None:
    result = swept.run("show", "smal#1")

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "lightsweep: There is no study 'smal'. Did you mean 'small'?\n"
