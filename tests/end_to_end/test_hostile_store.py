"""A store that an attacker with write access has left: every command reads it, none obeys it."""

import io
import json
import os
import re
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from sweeps.cli import main as cli
from sweeps.core import paths

sys.path.append(str(Path(__file__).parents[1] / "sweeps"))  # for run_stores
from run_stores import StoreWriter

STEERING = "\x1b[31mred\x1b]0;title\x07\x9b2J\u202egnp.exe\u2066\u200b\r\n#9  0.99  best\t[bold]b[/bold]|`x`<img src=x>"
FORMULA = "=cmd|'/C calc'!A0"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
HARMFUL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029]")
STEERED_MODEL = STEERING.replace("/", "|").replace(":", ";")
NAMES = [
    *(
        "../x",
        "..",
        ".",
        "/etc",
        "a/b",
        "a\\b",
        "~",
        "~root",
        "x" * 300,
        STEERING,
        FORMULA,
        "[bold]x[/bold]",
        "ü" * 200,
    ),
    *("$(touch harm)", "`touch harm`", "; touch harm", "con", "%2e%2e", "train", "data", "artifacts", "it's", '"'),
    *("name with blanks", "{{7*7}}", "${oc.env:HOME}", "%s%n", "' or 1=1 --", "best:best:x", "x#1#2"),
]


class Terminal:
    """The command in this process, and what it printed."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        try:
            status = cli.main([*arguments])
        except SystemExit as exit_:  # argparse
            status = int(exit_.code or 0)
        out, err = self._capsys.readouterr()
        assert "Traceback" not in err
        return status, out, err


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Runs in whose names, tags, parameters, metrics and reasons there is everything that terminals and shells obey."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "mlruns").mkdir()
    writer = StoreWriter(f"sqlite:///{folder}/mlruns/mlflow.db", folder / "mlruns" / "artifacts")
    ids = {"parent": writer.add({}, kind="study", study=STEERING, state=STEERING, metric=STEERING, direction=STEERING)}
    params = {f"model.{STEERING}": STEERING, "formula": FORMULA, "deep": [[[{"a": STEERING}]]]}
    for number in range(2):
        ids[str(number)] = writer.trial(
            STEERING,
            number,
            0.5 + number / 10,
            {"val/acc": [0.1, 0.5]},
            params=json.dumps({**params, f"only{number}": number}),
            reason=STEERING,
            infeasible=FORMULA,
            folder="../../../../../etc",
        )
        writer.client.set_tag(ids[str(number)], "mlflow.user", STEERING)
        writer.client.set_tag(ids[str(number)], f"own {STEERING[-8:-4]}", STEERING + str(number))
    for name in NAMES:
        ids[name] = writer.trial(name, 0, 0.1, {"val/acc": [0.1]})
    for key, value in (("objectives", "[1, 2"), ("params", "[" * 5000), ("values", '{"a": "b"}'), ("trial", "-1e9")):
        ids[key] = writer.trial("broken", 0, 0.1, {}, **{key: value})
    register_evil_models(writer, folder)
    return folder, ids


CODE = b"cos\nsystem\n(S'touch harm'\ntR."
MODEL = {
    "MLmodel": b"flavors: {python_function: {loader_module: sweeps.serving.predictor, "
    b"code: code, data: data/lightsweep}}",
    "code/sweeps/serving/predictor.py": b"open('harm', 'w')",
    "data/lightsweep/config.yaml": b"model: {_target_: os.system, command: touch harm}\noptimizer:\nscheduler:\n",
    "data/lightsweep/weights.pt": CODE,
    "data/lightsweep/model.json": json.dumps(
        {
            "sample": {"shape": [1], "dtype": "float32", "least": None, "greatest": None, "transform": None},
            **dict.fromkeys(("run_id", "label", "checkpoint", "weights"), ""),
            **dict.fromkeys(("format", "epoch", "step"), 1),
            "classes": [],
            "metrics": {},
            "modules": ["os", "builtins"],
            "output": "values",
        }
    ).encode(),
}


def register_evil_models(writer: StoreWriter, folder: Path) -> None:
    import torch

    weights = io.BytesIO()
    torch.save({"state_dict": {}}, weights)
    loader = b"flavors: {python_function: {loader_module: mlflow.pyfunc.model, python_model: python_model.pkl}}"
    registered(writer, STEERED_MODEL, {"MLmodel": b"flavors: {}"})
    registered(writer, "pickled", {"MLmodel": loader, "python_model.pkl": CODE})
    registered(writer, "elsewhere", {}, "file:///etc")
    registered(writer, "of a run", {}, f"runs:/{'0' * 32}/model")
    registered(writer, "weights", MODEL)
    registered(writer, "target", MODEL | {"data/lightsweep/weights.pt": weights.getvalue()})
    registered(writer, "deep", MODEL | {"data/lightsweep/model.json": b"[" * 999_999})
    registered(writer, "large", MODEL | {"data/lightsweep/model.json": b" " * 2_000_000})
    registered(writer, "laughs", MODEL | {"data/lightsweep/config.yaml": LAUGHS.encode()})
    linked = registered(writer, "linked", MODEL)
    (file,) = folder.glob(f"mlruns/artifacts/models/{linked}/artifacts/data/lightsweep/model.json")
    file.rename(folder / "model.json")
    file.symlink_to(folder / "model.json")
    led_away = registered(writer, "led away", MODEL)
    with closing(sqlite3.connect(folder / "mlruns" / "mlflow.db")) as database, database:
        database.execute("update logged_models set artifact_location = '/etc' where model_id = ?", (led_away,))


def registered(writer: StoreWriter, name: str, files: dict[str, bytes], source: str | None = None) -> str:
    """Register a model of these files, or one that says that it is elsewhere, and return its id."""
    import mlflow

    mlflow.set_tracking_uri(writer.uri)
    model_id = str(writer.client.create_logged_model(writer.experiment, name="evil").model_id)
    with TemporaryDirectory() as folder:
        for path, content in files.items():
            (Path(folder) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / path).write_bytes(content)
        writer.client.log_model_artifacts(model_id, folder)
    writer.client.create_registered_model(name)
    writer.client.create_model_version(name, source or f"models:/{model_id}")
    writer.client.set_registered_model_alias(name, "champion", "1")
    return model_id


@pytest.fixture
def terminal(
    store: tuple[Path, dict[str, str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Terminal:
    monkeypatch.chdir(store[0])
    return Terminal(store[0], capsys)


@pytest.fixture(autouse=True)
def nothing_ran(tmp_path: Path) -> Iterator[None]:
    yield
    harm = [*tmp_path.rglob("harm"), *Path.cwd().rglob("harm")]
    assert harm == []


READING: dict[str, Callable[[dict[str, str]], list[str]]] = {
    "compare": lambda ids: ["compare"],
    "compare a study": lambda ids: ["compare", STEERING],
    "compare as markdown": lambda ids: ["compare", "--format", "md"],
    "compare as CSV": lambda ids: ["compare", "--format", "csv"],
    "compare groups": lambda ids: ["compare", STEERING, "--group-by", "formula"],
    "compare with a wrong name": lambda ids: ["compare", STEERING, "--metric", STEERING],
    "show": lambda ids: ["show", ids["0"]],
    "show the best": lambda ids: ["show", f"best:{STEERING}"],
    "show the study": lambda ids: ["show", ids["parent"]],
    "diff": lambda ids: ["diff", ids["0"], ids["1"]],
    "no such study": lambda ids: ["compare", STEERING[:-1]],
    "resume": lambda ids: ["resume", STEERING],
    "enqueue": lambda ids: ["enqueue", STEERING, "model.depth=1"],
    "stop": lambda ids: ["stop", STEERING],
    "predict with a wrong name": lambda ids: ["predict", STEERED_MODEL[:-1], "x.csv"],
    "predict with a wrong alias": lambda ids: ["predict", f"{STEERED_MODEL}@champ", "x.csv"],
    "predict": lambda ids: ["predict", f"{STEERED_MODEL}@champion", "x.csv"],
    "promote": lambda ids: ["promote", ids["0"], "--name", "x"],
    "complete": lambda ids: ["completion", "bash", "--line", "lightsweep resume "],
}


@pytest.mark.parametrize("is_terminal", [False, True], ids=["piped", "terminal"])
@pytest.mark.parametrize("command", READING)
def test_texts_of_a_store_steer_no_terminal(
    terminal: Terminal, store: Any, command: str, is_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "100")

    status, out, err = terminal(*READING[command](store[1]))

    assert status in (0, 1, 2) and out + err
    assert not HARMFUL.search(COLOURS.sub("", out + err).replace("\n", "")), (out, err)
    assert not re.search(r"^\W*#9 ", COLOURS.sub("", out), re.MULTILINE)  # a line of the attacker's


def test_json_has_what_the_store_has(terminal: Terminal, store: Any) -> None:
    _, compared, _ = terminal("compare", STEERING, "--format", "json")
    _, shown, _ = terminal("show", store[1]["0"], "--format", "json")

    assert json.loads(compared)[0]["study"] == json.loads(shown)["study"] == STEERING
    assert "\x1b" not in compared + shown


def test_no_cell_of_csv_is_a_formula(terminal: Terminal) -> None:
    import csv

    _, out, _ = terminal("compare", "--format", "csv")

    cells = [cell for row in csv.reader(out.splitlines()) for cell in row]
    assert f"'{FORMULA}" in cells and FORMULA not in cells
    assert not [cell for cell in cells if cell[:1] in ("=", "@", "\t", "\r")]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name[:12])
def test_study_of_any_name_is_compared_and_shown_and_has_its_folder_in_the_store(
    terminal: Terminal, name: str, tmp_path: Path
) -> None:
    assert terminal("compare", "--format", "csv", "--", name)[0] == 0
    assert terminal("show", f"best:{name}")[0] in (0, 2)
    for command in (("resume", name), ("stop", name), ("enqueue", name, "model.depth=1")):
        status, _, err = terminal(*command)
        assert status in (1, 2) and err.startswith(("lightsweep: ", "usage: "))
    folder = paths.study_dir(tmp_path, name)
    assert folder.parent == tmp_path and folder.name not in (".", "..", "train", "data", "artifacts", "")
    folder.mkdir()


@pytest.mark.parametrize("broken", ["objectives", "params", "values", "trial"])
def test_run_with_tags_that_make_no_sense_is_shown(terminal: Terminal, store: Any, broken: str) -> None:
    status, out, err = terminal("show", store[1][broken])

    assert status in (0, 1, 2) and out + err


RECORD = "study: s\nconfig_name: sweep\nconfig_dir: null\noverrides: ['optimizer.lr=interval(0.1,1)', study.name=s]\n"
LAUGHS = "a0: &a0 [ha, ha]\n" + "\n".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60))


@pytest.mark.parametrize("command", [("resume", "s"), ("enqueue", "s", "optimizer.lr=0.5"), ("stop", "s")])
@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("!!python/object/apply:os.system ['touch harm']", "may have plain values only"),
        (LAUGHS, "has an anchor or an alias"),
        ("[" * 900_000, "may be 32 levels deep"),
        (" " * 100_000_000, "may have 1,000,000 bytes, but has 100,000,000"),
        (RECORD + "study: t\n", "has the key 'study' twice"),
        ("study: s\n", "is not the record of a study"),
        (RECORD.replace("study.name=s", "{a: 1}"), "its overrides must be texts"),
    ],
    ids=["code", "laughs", "deep", "large", "twice", "incomplete", "no texts"],
)
def test_record_of_a_study_that_is_more_than_data_is_refused(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], record: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlruns" / "s").mkdir(parents=True)
    paths.write_text(tmp_path / "mlruns" / "s" / "study.yaml", record)

    status, out, err = Terminal(tmp_path, capsys)(*command)

    assert (status, out) == (1, "") and message in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("who", ["everybody", "another user"])
@pytest.mark.parametrize("command", [("resume", "s"), ("enqueue", "s", "optimizer.lr=0.5")])
def test_command_line_that_another_has_left_is_not_run(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], who: str
) -> None:
    """It allows itself a module: what `resume` would compose, build and import."""
    monkeypatch.chdir(tmp_path)
    evil = tmp_path / "evil"
    (evil / "optimizer").mkdir(parents=True)
    (evil / "harmful.py").write_text(f"open({str(tmp_path / 'harm')!r}, 'w')\ndef make(): pass\n")
    (evil / "optimizer" / "evil.yaml").write_text("_target_: harmful.make\nlr: 1\n")
    record = RECORD.replace("config_dir: null", f"config_dir: {evil}").replace("[", "[optimizer=evil, ")
    file = tmp_path / "mlruns" / "s" / "study.yaml"
    paths.write_text(file, record)
    if who == "everybody":
        file.chmod(0o666)
    elif os.geteuid() == 0:
        os.chown(file, 12345, 12345)
    else:
        pytest.skip("only root can give files away")

    status, out, err = Terminal(tmp_path, capsys)(*command)

    assert (status, out) == (1, "")
    assert "has the command line that would be run, but others than you can have written it" in err
    assert "chown and chmod go-w" in err and "lightsweep sweep study.name=NAME" in err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pickled", "was not registered by `lightsweep promote`"),
        ("elsewhere", "was not registered by `lightsweep promote`"),
        ("of a run", "was not registered by `lightsweep promote`"),
        ("weights", "it has more in it than weights, which might run"),
        ("target", "model._target_: 'os.system' is not of an allowed module"),
        ("deep", "model.json is not what `lightsweep promote` writes"),
        ("large", "may have 1,000,000 bytes, but has 2,000,000"),
        ("laughs", "has an anchor or an alias"),
        ("linked", "has lost files"),
        ("led away", "which is not looked into"),
    ],
)
def test_model_that_others_have_registered_is_data(terminal: Terminal, name: str, message: str) -> None:
    (terminal.folder / "x.csv").write_text("1\n")

    status, out, err = terminal("predict", f"{name}@champion", "x.csv")

    assert status in (1, 2) and out == "" and message in err and len(err.splitlines()) == 1
    assert not (terminal.folder / "harm").exists()


@pytest.mark.slow
def test_sweep_whose_name_leads_out_stays_in_the_store(lightsweep: Any, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    done = lightsweep(
        *("sweep", "study.name='../../x'", "study.num_trials=1", "trainer.max_epochs=1", "trainer.accelerator=cpu"),
        cwd=folder,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["work"]
    assert [path.name for path in folder.iterdir()] == ["mlruns"]


SHORT = ("study.name=s", "study.num_trials=1", "trainer.max_epochs=1", "trainer.accelerator=cpu", "launcher.slots=1")


@pytest.mark.slow
def test_links_in_the_folders_of_a_study_lead_nowhere(lightsweep: Any, tmp_path: Path) -> None:
    """Whoever may write to the store puts links where the next sweep writes: to files of the user's."""
    first = lightsweep("sweep", *SHORT, cwd=tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    study, victim = tmp_path / "mlruns" / "s", tmp_path / "victim"
    victim.write_text("own")
    (study / "0001").mkdir()
    plots = list((study / "plots").glob("*.png"))
    for file in (*plots, study / "report.html", tmp_path / "mlruns" / "server.log", study / "server.log"):
        file.unlink(missing_ok=True)
        file.symlink_to(victim)
    for name in ("config.yaml", "rank0.log", "trace.jsonl", "checkpoints/epoch=0-step=5.ckpt"):
        (study / "0001" / name).parent.mkdir(exist_ok=True)
        (study / "0001" / name).symlink_to(victim)

    done = lightsweep("resume", "s", "study.num_trials=2", cwd=tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert plots and victim.read_text() == "own"
    assert not any(file.is_symlink() for file in (*plots, study / "report.html", study / "0001" / "rank0.log"))
    assert (study / "0001" / "trace.jsonl").read_text().count("\n") > 1


@pytest.mark.slow
@pytest.mark.parametrize("planted", ["s", "s/0000", "s/0000/checkpoints"])
def test_folder_that_is_a_link_is_refused(lightsweep: Any, tmp_path: Path, planted: str) -> None:
    elsewhere, link = tmp_path / "elsewhere", tmp_path / "mlruns" / planted
    elsewhere.mkdir()
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere)

    done = lightsweep("sweep", *SHORT, cwd=tmp_path)

    assert done.returncode == 1 and not list(elsewhere.iterdir())
    assert f"{planted} must be a folder, but is a link" in (done.stdout + done.stderr)
    assert "Traceback" not in done.stdout + done.stderr
