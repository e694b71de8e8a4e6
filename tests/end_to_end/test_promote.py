"""`lightsweep promote` and `lightsweep predict` at the real command, and MLflow's own server over HTTP."""

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from free_ports import free_port
from own_modules import MY_NET

from sweeps.cli import main as cli
from sweeps.config.composer import ALLOWED_MODULES
from sweeps.core.safe_yaml import read_config

pytestmark = pytest.mark.slow

Command = Callable[..., "subprocess.CompletedProcess[str]"]

SMALL = ("trainer.accelerator=cpu", "trainer.max_epochs=2", "launcher.threads=1")
NEAR = {"rtol": 0, "atol": 1e-6}  # other numbers of threads, and batches of other sizes
MINE = ("--config-dir", "mine")


class Promoted:
    """A folder in which a training was reproduced and promoted, and what the command said on the way."""

    def __init__(self, folder: Path, command: Command) -> None:
        self.folder = folder
        self._command = command
        self.said: dict[str, str] = {}

    def run(self, *arguments: str, status: int = 0) -> str:
        done = self._command(*arguments, cwd=self.folder, timeout_s=600)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder}/mlruns/mlflow.db"

    def raw(self) -> Any:
        """Return some images as the data has them."""
        (file,) = self.folder.glob("mlruns/data/digits-*/train_x.npy")
        return np.load(file)[100:400]


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory, lightsweep_in: Command) -> Promoted:
    """One `train` of a net of the user's, which is refused, reproduced, and then promoted as digits@champion."""
    store = Promoted(tmp_path_factory.mktemp("promoted") / "work", lightsweep_in)
    mine = store.folder / "mine"
    (mine / "model").mkdir(parents=True)
    (mine / "my_net.py").write_text(MY_NET)
    (mine / "model" / "my_net.yaml").write_text("_target_: my_net.MyNet\nnum_classes: ${data.num_classes}\n")
    promote = ("promote", "train#0", "--name", "digits", "--alias", "champion", "--require-reproduced", *MINE)
    store.run("train", *MINE, "model=my_net", *SMALL)
    store.said["refused"] = store.run(*promote, status=1)
    store.run("reproduce", "train#0", *MINE)
    store.said["promoted"] = store.run(*promote)
    np.save(store.folder / "x.npy", store.raw())
    return store


@pytest.fixture
def here(promoted: Promoted, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Callable[..., tuple[int, str]]:
    """The command in this process, in that folder; for what only looks, or is refused."""
    monkeypatch.chdir(promoted.folder)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        mine = MINE if arguments[0] in ("promote", "predict") and "--allow" not in arguments else ()
        status = cli.main([arguments[0], *mine, *arguments[1:]])
        out, err = capsys.readouterr()
        return status, out + err

    return run


@pytest.fixture
def client(promoted: Promoted) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(promoted.uri, registry_uri=promoted.uri)


def test_only_a_run_that_was_reproduced_exactly_passes(promoted: Promoted) -> None:
    assert promoted.said["refused"].count("\n") == 1
    assert (
        "it has not been reproduced yet. Run: lightsweep reproduce 'train#0' --config-dir mine"
        in promoted.said["refused"]
    )
    assert "digits/1 is train#0, epoch=" in promoted.said["promoted"]
    assert "reproduced: exact: Weights, order of the data and all metrics" in promoted.said["promoted"]


@pytest.fixture(scope="module")
def server(promoted: Promoted) -> Iterator[str]:
    """MLflow's server of digits@champion, in a folder where nothing of the user's is found."""
    port = free_port()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        "models:/digits@champion",
        "--env-manager",
        "local",
    ]
    elsewhere = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    process = subprocess.Popen(
        [*command, "-h", "127.0.0.1", "-p", str(port)],
        cwd=promoted.folder.parent,
        env={**elsewhere, "MLFLOW_TRACKING_URI": promoted.uri, "PATH": path},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        said: list[str] = []
        while not said or "Uvicorn running" not in said[-1]:
            said.append(process.stderr.readline())
            assert said[-1], "".join(said)  # else it has ended
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate()


def invoke(address: str, body: bytes) -> list[dict[str, Any]]:
    request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as answer:
        found: list[dict[str, Any]] = json.load(answer)["predictions"]
    return found


def module_of(promoted: Promoted) -> tuple[Any, Any]:
    """Return the Lightning module with the weights of the run's checkpoint, and its data, built as `train` does."""
    from sweeps.config.instantiate import build
    from sweeps.worker.building import build_module

    run = promoted.folder / "mlruns" / "train" / "0000"
    config = read_config(run / "config.yaml")
    sys.path.insert(0, str(promoted.folder / "mine"))
    data = build(
        config["data"] | {"cache_dir": str(promoted.folder / "mlruns/data")}, key="data", allowed=ALLOWED_MODULES
    )
    data.setup("fit")
    module = build_module(config, allowed=(*ALLOWED_MODULES, "my_net"))
    sys.path.remove(str(promoted.folder / "mine"))
    (checkpoint,) = (run / "checkpoints").glob("*.ckpt")
    module.load_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"])
    return module.eval(), data


def test_the_command_the_server_and_the_lightning_module_say_the_same(promoted: Promoted, server: str) -> None:
    told = json.loads(promoted.run("predict", "digits@champion", "x.npy", "--probabilities", "--format", "json", *MINE))
    asked = {"inputs": promoted.raw().tolist(), "params": {"probabilities": True}}
    served = invoke(server, json.dumps(asked).encode())
    module, data = module_of(promoted)
    pixels = torch.from_numpy(promoted.raw())
    with torch.inference_mode():
        scores = module(data.val_dataloader().transform(pixels, None)).double()
    expected = torch.softmax(scores, dim=1).numpy()

    for records in (told, served):
        assert len(records) == 300
        np.testing.assert_allclose([record["probabilities"] for record in records], expected, **NEAR)
        assert [record["class"] for record in records] == [str(digit) for digit in expected.argmax(axis=1)]


def test_the_server_takes_the_recorded_example_as_it_was_saved(promoted: Promoted, server: str, here: Any) -> None:
    (example,) = promoted.folder.glob("mlruns/artifacts/models/*/artifacts/serving_input_example.json")
    status, told = here("predict", "digits@champion", str(example), "--format", "json")
    served = invoke(server, example.read_bytes())

    assert status == 0 and len(served) == 4
    assert [record["class"] for record in served] == [record["class"] for record in json.loads(told)]
    with pytest.raises(urllib.error.HTTPError) as refused:
        invoke(server, json.dumps({"inputs": [[[[17] * 8] * 8]]}).encode())
    assert refused.value.code == 400 and "but sample 0 has a 17" in refused.value.read().decode()


def test_the_request_of_the_documentation_is_answered(server: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "promoting.md").read_text()
    (body,) = re.findall(r"-d '(\{.*?\})'\n```", page, re.DOTALL)
    (answer,) = invoke(server, body.encode())

    assert set(answer) == {"class", "probability", "probabilities"} and len(answer["probabilities"]) == 10


def test_its_version_knows_where_it_comes_from(promoted: Promoted, client: Any, here: Any) -> None:
    run = json.loads(here("show", "train#0", "--format", "json")[1])
    version = client.get_model_version_by_alias("digits", "champion")
    model = client.get_logged_model(version.source.rpartition("/")[2])

    assert version.run_id == run["run_id"] and run["tags"]["lightsweep.promoted"] == "digits/1"
    assert version.tags["lightsweep.reproduced"].startswith("exact: ")
    assert "train\\#0" in version.description and "exact" in version.description
    last = {key: metric["last"] for key, metric in run["metrics"].items()}
    assert {point.key: point.value for point in model.metrics} == last
    assert model.params["optimizer.lr"] == run["config"]["optimizer.lr"] and model.source_run_id == run["run_id"]


def test_the_run_itself_is_as_it_was(promoted: Promoted, here: Any) -> None:
    """Its metrics are in MLflow's model, too, and in no curve twice."""
    run = json.loads(here("show", "train#0", "--format", "json")[1])
    again = json.loads(here("show", "reproduction#0", "--format", "json")[1])
    assert {key: of["num_points"] for key, of in run["metrics"].items()} == {
        key: of["num_points"] for key, of in again["metrics"].items()
    }


def test_the_same_once_more_moves_only_the_alias(here: Any, client: Any) -> None:
    status, told = here("promote", "train#0", "--name", "digits", "--alias", "second")

    assert status == 0 and "digits/1 was there already: it is train#0" in told
    assert len(client.search_model_versions("name = 'digits'")) == 1
    assert client.get_registered_model("digits").aliases == {"champion": 1, "second": 1}


def test_data_that_lies_elsewhere_here_makes_the_same_model(here: Any, promoted: Promoted) -> None:
    cache = promoted.folder / "mlruns" / "data"
    cache.rename(promoted.folder / "moved")
    status, told = here("promote", "train#0", "--name", "digits", "--", f"data.cache_dir={promoted.folder}/moved")
    (promoted.folder / "moved").rename(cache)

    assert status == 0 and "digits/1 was there already" in told


def test_another_run_is_a_new_version_and_takes_the_alias(here: Any, client: Any) -> None:
    here("promote", "train#0", "--name", "other", "--alias", "best")
    status, told = here("promote", "reproduction#0", "--name", "other", "--alias", "best")

    assert status == 0 and "is called other@best now (it named version 1 before)" in told
    weights = [client.get_model_version("other", str(number)).tags["lightsweep.value"] for number in (1, 2)]
    assert weights[0] == weights[1], "the reproduction is equal"


def test_predictions_go_into_a_file(promoted: Promoted, here: Any) -> None:
    np.savetxt(promoted.folder / "x.csv", promoted.raw()[:3].reshape(3, -1), delimiter=",", fmt="%d")
    status, told = here("predict", "digits", "x.csv", "--output", "out.csv", "--probabilities")
    lines = (promoted.folder / "out.csv").read_text().splitlines()

    assert status == 0 and "3 predictions of digits/1 in out.csv" in told
    assert lines[0].startswith("sample,class,probability,p(0),p(1)") and len(lines) == 4
    shown = here("predict", "digits/1", "x.csv")[1].splitlines()
    assert [line.split()[:2] for line in shown[1:]] == [line.split(",")[:2] for line in lines[1:]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("predict", "digit@champion", "x.npy"), "There is no registered model 'digit'. Did you mean 'digits'?"),
        (("predict", "digits@champ", "x.npy"), "has no alias 'champ'. Did you mean 'champion'?"),
        (("predict", "digits/7", "x.npy"), "has no version 7. It has 1."),
        (("predict", "digits", "gone.npy"), "There is no file gone.npy."),
        (("predict", "digits", "serve.log"), "A file of samples must be .csv, .npy"),
        (("promote", "train#7", "--name", "digits"), "There is no run 'train#7'"),
        (
            ("promote", "train#0", "--name", "a", "--", "optimizer.lr=1"),
            "optimizer.lr=1 would make another model of train#0",
        ),
        (("promote", "train#0", "--name", "a", "--", "data.cachedir=x"), "There is no key 'data.cachedir'."),
        (("promote", "train#0", "--name", "a/b"), "--name must begin with a letter"),
        (("promote", "train#0", "--name", "a", "--alias", "latest"), "--alias must be of letters"),
    ],
)
def test_what_is_not_there_is_told_in_a_line(here: Any, arguments: tuple[str, ...], message: str) -> None:
    Path("serve.log").touch()
    status, told = here(*arguments)

    assert status == 2 and message in told and told.count("\n") == 1


def test_samples_of_another_shape_are_told_with_what_is_expected(here: Any) -> None:
    np.save("wrong.npy", np.zeros((5, 28, 28), np.uint8))
    np.save("bright.npy", np.full((1, 8, 8), 17, np.uint8))

    assert "must have samples of 1 x 8 x 8 (uint8, from 0 to 16" in here("predict", "digits", "wrong.npy")[1]
    assert "but has 5 x 28 x 28" in here("predict", "digits", "wrong.npy")[1]
    assert "but sample 0 has a 17." in here("predict", "digits", "bright.npy")[1]


@pytest.mark.parametrize("told", [{}, {"epoch": 7, "global_step": 99}], ids=["its epoch", "an epoch that none is"])
def test_a_checkpoint_that_was_not_proved_equal_is_told(
    promoted: Promoted, here: Any, client: Any, told: dict[str, int]
) -> None:
    """The verdict is of weights; a checkpoint with others, whoever put it there, has none, whatever it says it is."""
    run_id = json.loads(here("show", "train#0", "--format", "json")[1])["run_id"]
    (file,) = promoted.folder.glob(f"mlruns/artifacts/{run_id}/artifacts/checkpoints/*.ckpt")
    before = file.read_bytes()
    content = torch.load(file, weights_only=True)
    next(iter(content["state_dict"].values())).view(-1)[0] += 1
    torch.save(content | told, file)
    try:
        strict = here("promote", "train#0", "--name", "digits", "--require-reproduced")
        lax = here("promote", "train#0", "--name", "edited")
    finally:
        file.write_bytes(before)

    assert strict[0] == 1 and "are none that train#0 had at the end of an epoch" in strict[1]
    assert lax[0] == 0 and "has weights that trace.jsonl has at the end of no epoch" in lax[1]


def test_weights_that_cannot_be_checked_are_refused(promoted: Promoted, here: Any) -> None:
    """A rank that holds a part of the weights has a hash of that alone."""
    run_id = json.loads(here("show", "train#0", "--format", "json")[1])["run_id"]
    trace = promoted.folder / f"mlruns/artifacts/{run_id}/artifacts/trace.jsonl"
    before = trace.read_text()
    trace.write_text(before.replace('"SingleDeviceStrategy"', '"FullySharded"'))
    try:
        status, told = here("promote", "train#0", "--name", "digits", "--require-reproduced")
    finally:
        trace.write_text(before)

    assert status == 1 and "cannot be checked: train#0 has no trace.jsonl with a hash of all weights" in told


class Harmful:
    """Runs when it is unpickled."""

    def __reduce__(self) -> Any:
        return (open, ("harm", "w"))


def test_a_pickle_in_a_checkpoint_is_not_run_though_the_file_is_this_users(promoted: Promoted, here: Any) -> None:
    run_id = json.loads(here("show", "train#0", "--format", "json")[1])["run_id"]
    (file,) = promoted.folder.glob(f"mlruns/artifacts/{run_id}/artifacts/checkpoints/*.ckpt")
    before = file.read_bytes()
    torch.save(torch.load(file, weights_only=True) | {"hyper_parameters": Harmful()}, file)
    try:
        status, told = here("promote", "train#0", "--name", "digits", "--require-reproduced")
    finally:
        file.write_bytes(before)

    assert status == 0 and "digits/1 was there already" in told
    assert not (promoted.folder / "harm").exists()


@pytest.mark.parametrize(
    ("state", "verdict", "message"),
    [
        ("pruned", "exact: all equal", "was pruned: it was stopped because others were better. Only a run that is"),
        ("failed", "exact: all equal", "has failed. Only a run that is complete is promoted"),
        ("complete", "within tolerance: threads differ.", "says: within tolerance: threads differ. Run: lightsweep"),
        ("complete", "exact (the first 1 epochs): all equal", "says: exact (the first 1 epochs): all equal. Run:"),
    ],
)
def test_what_is_not_complete_or_not_exact_is_refused(
    here: Any, client: Any, state: str, verdict: str, message: str
) -> None:
    run = json.loads(here("show", "reproduction#0", "--format", "json")[1])
    for key, value in (("state", state), ("reproduced", verdict)):
        client.set_tag(run["run_id"], f"lightsweep.{key}", value)
    try:
        status, told = here("promote", "reproduction#0", "--name", "digits", "--require-reproduced")
    finally:
        for key in ("state", "reproduced"):
            client.set_tag(run["run_id"], f"lightsweep.{key}", run["tags"][f"lightsweep.{key}"])

    assert status in (1, 2) and message in told and told.count("\n") == 1


def test_a_run_without_its_checkpoint_says_what_to_do(promoted: Promoted, here: Any) -> None:
    run = json.loads(here("show", "reproduction#0", "--format", "json")[1])
    kept = [
        *promoted.folder.glob(f"mlruns/artifacts/{run['run_id']}/artifacts/checkpoints"),
        *promoted.folder.glob("mlruns/reproductions/0000/checkpoints"),
    ]
    assert len(kept) == 2
    for folder in kept:
        folder.rename(f"{folder}.gone")
    status, told = here("promote", "reproduction#0", "--name", "digits")
    for folder in kept:
        Path(f"{folder}.gone").rename(folder)

    assert status == 1 and "There is no checkpoint of the run" in told and "lightsweep reproduce" in told


def test_modules_of_ones_own_go_along_for_the_server_alone(promoted: Promoted, here: Any) -> None:
    assert "has a copy of your code, which its server runs: my_net.py" in promoted.said["promoted"]
    for arguments in (("promote", "train#0", "--name", "digits"), ("predict", "digits", "x.npy")):
        status, told = here(*arguments, "--allow", "torch.nn")
        assert status == 2 and "'my_net.MyNet' is not of an allowed module" in told
        assert "--config-dir DIR or --allow MODULE" in told
