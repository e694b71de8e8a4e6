"""Names that MLflow refuses, and texts that are longer than it takes: nothing is lost, nothing mixed, nothing cut."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from sweeps.tracking.names import stored_name

MODULE = """
import pytorch_lightning as pl
import torch
from torch.nn import functional as F


class Names(pl.LightningModule):
    def __init__(self, lr=0.05, names=(), **more):
        super().__init__()
        self.lr, self.names = lr, list(names)
        self.layer = torch.nn.Linear(64, 10)

    def scores(self, batch):
        return self.layer(batch[0].flatten(1))

    def training_step(self, batch, index):
        loss = F.cross_entropy(self.scores(batch), batch[1])
        self.log("train/loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch, index):
        scores = self.scores(batch)
        self.log("val/acc", (scores.argmax(1) == batch[1]).float().mean())
        self.log("val/loss", F.cross_entropy(scores, batch[1]))
        for number, name in enumerate(self.names):
            self.log(name, 0.25 + number)

    def on_train_epoch_end(self):
        if self.logger is not None:
            self.logger.log_metrics({"beyond": 1.0, "": 2.0}, step=2**63)
            self.logger.log_metrics({"": 3.0, "none": None}, step=7)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)
"""
ODD = ["val//f1", "val/f1", "ok", "val/AR@100", "val/AR_100", "/", "..", "a/./b", "n" * 300]
PROMPTS = ["You are a careful grader. " * 345, "You are a careful grader. " * 371 + 'it\'s {"quoted": [1]}']
SHORT = ("trainer.accelerator=cpu", "trainer.max_epochs=1", "test=false")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    for folder in ("model", "search"):
        (tmp_path / "own" / folder).mkdir(parents=True)
    (tmp_path / "own/names_kit.py").write_text(MODULE)
    (tmp_path / "own/model/names.yaml").write_text("{_target_: names_kit.Names, lr: 0.05, names: []}")
    (tmp_path / "own/search/longer.yaml").write_text(json.dumps({"+model.prompt": PROMPTS, "model.lr": [0.1, 0.2]}))
    return tmp_path


def test_what_a_module_logs_is_recorded_by_its_name_and_only_what_is_refused_is_not(lightsweep: Any, own: Path) -> None:
    done = lightsweep("train", "--config-dir", "own", "model=names", f"model.names={json.dumps(ODD)}", *SHORT)
    assert done.returncode == 0, done.stdout + done.stderr
    told = [line for line in done.stdout.splitlines() if "did not take" in line]
    assert len(told) == 1 and "(beyond, " in told[0] and "mlruns/unsent.jsonl" in told[0]
    kept = [json.loads(line) for line in (own / "mlruns/unsent.jsonl").read_text().splitlines()]
    assert [point["key"] for line in kept for point in line["arguments"]["points"]] == ["beyond", ""]

    client = MlflowClient(f"sqlite:///{own}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("lightsweep")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.data.tags["lightsweep.state"] == "complete"
    assert {name: run.data.metrics[stored_name(name)] for name in ODD} == {
        name: 0.25 + number for number, name in enumerate(ODD)
    }
    assert {"val/acc", "val/loss", "train/loss_step", stored_name("")} <= run.data.metrics.keys()
    shown = json.loads(lightsweep("show", "train#0", "--format", "json").stdout)
    assert {*ODD[:-1], "", stored_name(ODD[-1])} <= shown["metrics"].keys()


@pytest.mark.slow
def test_a_study_is_judged_by_a_metric_that_mlflow_refuses(lightsweep: Any, own: Path) -> None:
    names = json.dumps(["val/AR@1", "val/AR_1", "val//f1"])
    done = lightsweep(
        *("sweep", "--config-dir", "own", "model=names", f"model.names={names}", *SHORT, "study.metric=val//f1"),
        *("model.lr=0.1,0.2", "sampler=grid", "study.num_trials=2", "study.name=odd"),
        'study.constraints="val/AR@1 < 1"',
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(lightsweep("compare", "odd", "--format", "json").stdout)
    assert [(row["metric"], row["value"], row["metrics"]["val/AR_1"]) for row in rows] == [("val//f1", 2.25, 1.25)] * 2
    told = lightsweep("compare", "odd", "--metric", "val/AR@1", "--format", "csv", "--columns", "val//f1,val/AR@1")
    assert list(csv.reader(io.StringIO(told.stdout))) == [["val//f1", "val/AR@1"], ["2.25", "0.25"], ["2.25", "0.25"]]
    assert lightsweep("report", "odd").returncode == 0 and (own / "mlruns/odd/report.html").is_file()


@pytest.mark.slow
def test_searched_texts_of_any_length_stay_whole(lightsweep: Any, own: Path) -> None:
    """In compare, show, diff, resume and reproduce; and no line is as long as they are."""
    begun = lightsweep(
        *("sweep", "--config-dir", "own", "model=names", "search=longer", "sampler=grid", *SHORT),
        *("study.num_trials=3", "study.name=longer"),
        timeout_s=300,
    )
    resumed = lightsweep("resume", "longer", "study.num_trials=4", timeout_s=300)
    for done in (begun, resumed):
        assert done.returncode == 0, done.stdout + done.stderr
        assert max(map(len, done.stdout.splitlines())) < 500
    rows = json.loads(lightsweep("compare", "longer", "--format", "json").stdout)
    searched = {(row["params"]["model.prompt"], row["params"]["model.lr"]) for row in rows}
    assert searched == {(prompt, lr) for prompt in PROMPTS for lr in (0.1, 0.2)}
    columns = lightsweep("compare", "longer", "--columns", "trial,value,lr", "--where", "lr > 0.1", "--format", "csv")
    assert [line["lr"] for line in csv.DictReader(io.StringIO(columns.stdout))] == ["0.2", "0.2"]
    groups = json.loads(lightsweep("compare", "longer", "--group-by", "prompt", "--format", "json").stdout)
    assert {group["keys"]["prompt"]: group["count"] for group in groups} == dict.fromkeys(PROMPTS, 2)
    best = json.loads(lightsweep("show", "best:longer", "--format", "json").stdout)
    assert best["params"]["model.prompt"] == best["config"]["model.prompt"] == rows[0]["params"]["model.prompt"]
    ends = {row["params"]["model.prompt"]: row["trial"] for row in rows}
    differs = lightsweep("diff", *(f"longer#{number}" for number in ends.values()), "--format", "json")
    assert json.loads(differs.stdout)["differs"]["searched"]["model.prompt"] == list(ends)
    table = lightsweep("compare", "longer").stdout
    assert (
        max(map(len, table.splitlines())) < 250
        and len({line.split("#")[-1][:6] for line in table.splitlines()[1:]}) == 2
    )
    again = lightsweep("reproduce", "best:longer", "--config-dir", "own", timeout_s=300)
    assert again.returncode == 0 and "exact" in again.stdout, again.stdout + again.stderr
