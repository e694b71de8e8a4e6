"""A store that an attacker with write access has left: every command reads it, none obeys it."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeps import cli, paths

sys.path.append(str(Path(__file__).parents[1] / "sweeps"))  # for run_stores
from run_stores import StoreWriter

STEERING = "\x1b[31mred\x1b]0;title\x07\x9b2J\u202egnp.exe\u2066\u200b\r\n#9  0.99  best\t[bold]b[/bold]|`x`<img src=x>"
FORMULA = "=cmd|'/C calc'!A0"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
HARMFUL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029]")
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
    return folder, ids


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
        ("study: s\n", "is no record of a study"),
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
