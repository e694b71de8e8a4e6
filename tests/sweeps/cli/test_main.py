"""The command line itself: quick help, light imports, quiet ends."""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweeps.cli.main import main
from sweeps.cli.parser import make_parser
from sweeps.core.urls import store_options

HEAVY = {"torch", "mlflow", "optuna", "hydra", "pytorch_lightning", "numpy", "pandas"}


def imported_by(*arguments: str, cwd: Path) -> set[str]:
    """Return the top-level modules that a command imports."""
    code = (
        "import sys, json\n"
        "from sweeps.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=cwd, capture_output=True, text=True, check=True)
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("sweep", "--help"),
        ("promote", "--help"),
        ("compare",),
        ("compare", "small", "--format", "json"),
        ("show", "best:small"),
        ("diff", "small#0", "small#1"),
    ],
    ids=" ".join,
)
def test_help_and_compare_import_nothing_heavy(swept: Any, arguments: tuple[str, ...]) -> None:
    assert imported_by(*arguments, cwd=swept.folder) & HEAVY == set()


def test_a_prediction_that_is_refused_imports_neither_torch_nor_mlflow(swept: Any) -> None:
    assert imported_by("predict", "none@champion", "x.csv", cwd=swept.folder) & {"torch", "mlflow"} == set()


def test_help_takes_half_a_second_at_most(tmp_path: Path) -> None:
    def seconds(*arguments: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True, check=True)
        return time.perf_counter() - began

    speed = min(seconds("-c", "pass") for _ in range(3)) / 0.05  # of the machine: a slow one takes more than 50 ms
    assert min(seconds("-m", "sweeps", "--help") for _ in range(3)) <= 0.5 * max(1.0, speed)


def test_help_on_the_configuration_lists_groups_and_expressions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "config"]) == 0

    text = capsys.readouterr().out
    assert "tag(log,interval(1e-4,1e-1))" in text
    assert any(line.split() == ["model:", "cnn,", "mlp"] for line in text.splitlines())


@pytest.mark.parametrize("command", ["train", "sweep", "check", "resume"])
def test_help_of_a_command_leads_to_the_one_page_on_the_configuration(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert main(["help", command]) == 0

    text = capsys.readouterr().out
    assert "help config" in text and "model:" not in text


def test_an_unknown_topic_of_help_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "comapre"]) == 2
    assert "'compare'" in capsys.readouterr().err


def test_help_without_a_topic_is_the_overview(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help"]) == 0
    assert "commands:" in capsys.readouterr().out


def test_texts_of_help_are_short() -> None:
    """A verb and an object in about fifty characters, for each command and option."""
    texts = [item.help for item in arguments() if item.help not in (None, argparse.SUPPRESS)]
    assert len(texts) > 60
    assert [text for text in texts if len(text) > 62] == []


def arguments() -> list[argparse.Action]:
    commands = next(it for it in make_parser()._actions if isinstance(it, argparse._SubParsersAction))
    own = [item for command in commands.choices.values() for item in command._actions]
    return [*commands._choices_actions, *own]


def test_an_error_that_nobody_has_foreseen_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(args: object) -> int:
        raise RuntimeError("what\nnow") from KeyError("x")

    monkeypatch.setattr("sweeps.cli.commands.steer.run_stop", fails)
    assert main(["stop", "s"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "RuntimeError: what. now" in line and "KeyError: 'x'" in line and "test_main.py" in line
    with pytest.raises(RuntimeError):
        main(["stop", "s", "--debug"])


@pytest.mark.parametrize("top", ["0", "-3", "1.5", "many"])
def test_top_must_be_a_positive_number(capsys: pytest.CaptureFixture[str], top: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["compare", f"--top={top}"])

    assert caught.value.code == 2
    assert f"must be a whole number of at least 1, but got '{top}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("show", "\udcff#1"), 2, "must be UTF-8"),
        (("show", "a#" + "9" * 5000), 2, "There is no run"),
        (("compare", "--where", "value > " + "9" * 5000), 0, ""),
        (("ui", "--no-browser", "--port", "99999"), 2, "There is no port 99999: the last one is 65535."),
        (("report", "small", "--output", "."), 1, ".: Is a directory."),
    ],
)
def test_odd_input_gets_one_line(swept: Any, arguments: tuple[str, ...], status: int, told: str) -> None:
    done = swept.run(*arguments)
    assert (done.returncode, "Traceback" in done.stderr) == (status, False), done.stderr
    assert told in done.stderr


def test_show_of_the_best_offers_no_difference_to_itself(swept: Any) -> None:
    (best,) = json.loads(swept.run("compare", "small", "--top", "1", "--format", "json").stdout)
    assert "lightsweep diff" not in swept.run("show", f"small#{best['trial']}").stdout
    other = next(number for number in range(6) if number != best["trial"])
    assert f"lightsweep diff best:small 'small#{other}'" in swept.run("show", f"small#{other}").stdout


def test_compare_ends_quietly_when_its_reader_has_enough(swept: Any) -> None:
    command = f"{sys.executable} -m sweeps compare --format json | head -1; echo ${{PIPESTATUS[0]}}"

    done = subprocess.run(["bash", "-c", command], cwd=swept.folder, capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[0] == "["
    assert done.stdout.splitlines()[1] == "0"
    assert done.stderr == ""


def test_compare_takes_the_best(swept: Any) -> None:
    best = json.loads(swept.run("compare", "small", "--top", "2", "--format", "json").stdout)
    all_of_them = json.loads(swept.run("compare", "small", "--format", "json").stdout)

    assert best == all_of_them[:2]


def test_compare_without_a_store_says_how_to_start_one(lightsweep: Callable[..., Any]) -> None:
    result = lightsweep("compare")

    assert result.returncode == 1
    assert "There is no store" in result.stderr and "lightsweep sweep" in result.stderr


def test_compare_of_an_unknown_study_or_metric_names_the_nearest(swept: Any) -> None:
    study, metric = swept.run("compare", "smal"), swept.run("compare", "--metric", "val/ac")

    assert (study.returncode, metric.returncode) == (1, 2)
    assert "Did you mean 'small'" in study.stderr and "Did you mean 'val/acc'" in metric.stderr


def test_compare_of_an_empty_store_says_so(lightsweep: Callable[..., Any], tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    MlflowClient(f"sqlite:///{tmp_path}/empty.db").search_experiments()

    table = lightsweep("compare", "--uri", "sqlite:///empty.db")
    data = lightsweep("compare", "--uri", "sqlite:///empty.db", "--format", "json")

    assert table.returncode == data.returncode == 0
    assert table.stdout == "" and "The store has no runs yet" in table.stderr
    assert json.loads(data.stdout) == []


def test_no_command_shows_the_help(lightsweep: Callable[..., Any]) -> None:
    result = lightsweep()

    assert result.returncode == 2
    assert "Start with: lightsweep sweep" in result.stdout


@pytest.mark.parametrize(
    ("store_dir", "uri", "options"),
    [
        ("mlruns", None, ""),
        ("my runs", None, " --store-dir 'my runs'"),
        ("mlruns", "postgresql://me:secret@host/db", " --uri 'postgresql://me:***@host/db'"),
        ("mlruns", "postgresql://h/db?password=secret", " --uri 'postgresql://h/db?password=***'"),
    ],
)
def test_commands_to_type_next_find_the_store(store_dir: str, uri: str | None, options: str) -> None:
    assert store_options(Path(store_dir), uri) == options


@pytest.mark.slow
@pytest.mark.postgres
def test_sweep_over_postgresql_is_compared(lightsweep: Callable[..., Any], postgres_server: Any) -> None:
    tracking, storage = postgres_server.new_database(), postgres_server.new_database()

    swept = lightsweep(
        *("sweep", "study.name=pg", "study.num_trials=2", "trainer.max_epochs=1", "trainer.accelerator=cpu"),
        *(f"tracking.uri={tracking}", f"study.storage={storage}"),
    )
    rows = json.loads(lightsweep("compare", "pg", "--uri", tracking, "--format", "json").stdout)

    assert swept.returncode == 0, swept.stdout + swept.stderr
    assert swept.stderr == "" and "secret" not in swept.stdout
    assert sorted(row["trial"] for row in rows) == [0, 1]


def test_sweep_over_a_server_is_refused_by_ui_alone(lightsweep: Callable[..., Any]) -> None:
    assert "open it in a browser" in lightsweep("ui", "--uri", "http://127.0.0.1:1").stderr
