"""What differs between runs, and nothing else."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from run_stores import StoreWriter

from sweeps.cli.commands.diff import Difference, _short, difference, print_difference
from sweeps.core.errors import UsageError
from sweeps.results.run import RunDetail, read_runs


def compared(address: str, *names: str) -> Difference:
    return difference(read_runs(address, list(names), Path("none")))


def shown(found: Difference, *, width: int = 80, is_terminal: bool = False, **more: Any) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=is_terminal, color_system=None)
    print_difference(found, more.pop("form", "table"), console=console, out=out)
    return out.getvalue()


def tagged(run: RunDetail, **run_tags: str) -> RunDetail:
    known = {key.replace("__", "."): value for key, value in run_tags.items()}
    return replace(run, run=replace(run.run, tags={**run.run.tags, **known}))


def test_only_what_differs_is_named_in_its_section(address: str) -> None:
    found = compared(address, "a#0", "a#1")

    assert {name: dict(rows) for name, rows in found.sections.items()} == {
        "searched": {"model.depth": ("0", "1")},
        "config": {},
        "data": {"data.batch_size": ("32", "64")},
        "code": {},
        "environment": {},
    }
    assert found.num_same == 3  # optimizer.lr, data.fold, model.width


def test_more_than_two_runs_of_several_kinds_are_compared(address: str) -> None:
    found = compared(address, "a#0", "best:front", "train#4")

    assert found.sections["searched"]["model.depth"] == ("0", "1", None)
    assert found.sections["config"] == {"model.width": ("64", "64", None)}


def test_code_and_environment_differ(filled: Any) -> None:
    first, second = read_runs(filled.uri, ["a#0", "a#1"], Path("none"))
    first = tagged(first, mlflow__source__git__commit="abc", lightsweep__git__dirty="false", torch="2.8", host="x")
    second = tagged(second, mlflow__source__git__commit="def", lightsweep__git__dirty="true", torch="2.9", host="x")
    sections = difference([first, second]).sections

    assert sections["code"] == {"commit": ("abc", "def"), "uncommitted changes": ("false", "true")}
    assert sections["environment"] == {"torch": ("2.8", "2.9")}


def test_same_commit_with_uncommitted_changes_is_doubtful(filled: Any) -> None:
    commit = {"mlflow__source__git__commit": "abc"}
    runs = read_runs(filled.uri, ["a#0", "a#1"], Path("none"))
    clean = [tagged(run, **commit, lightsweep__git__dirty="false") for run in runs]
    dirty = [tagged(run, **commit, lightsweep__git__dirty="true") for run in runs]

    assert "the code may differ" in shown(difference(dirty))
    assert "the code may differ" not in shown(difference(clean))


def test_runs_of_one_configuration_differ_in_nothing_but_results(address: str) -> None:
    text = shown(compared(address, "a#1/0", "a#1/1"))

    assert "Nothing differs but the results." in text and "The same in all: 5 keys." in text
    assert "Searched" not in text and "Config" not in text


def test_metrics_stand_side_by_side_on_one_scale(filled: Any) -> None:
    lines = shown(compared(filled.uri, "a#0", "a#1", "train#4")).splitlines()
    acc = next(line for line in lines[6:] if line.startswith("val/acc"))
    loss = next(line for line in lines if line.startswith("val/loss"))

    assert acc.split() == ["val/acc", "0.5", "0.7", "▁█▆", "0.7"]
    assert loss.split() == ["val/loss", "0.875", "█▁▅", "-", "-"]


def test_numbers_are_short_unless_they_would_look_the_same(filled: Any) -> None:
    first, second = read_runs(filled.uri, ["a#0", "a#1"], Path("none"))
    for own, texts in (("0.123456", ("0.1235", "0.9877")), ("0.987651", ("0.987651", "0.987654"))):
        runs = [replace(first, config={"x": own}), replace(second, config={"x": "0.987654"})]
        line = next(line for line in shown(difference(runs)).splitlines() if line.startswith("x "))
        assert tuple(line.split()[1:]) == texts


@pytest.mark.parametrize("width", [80, 40])
@pytest.mark.parametrize("names", [("a#0", "a#2"), ("a#0", "a#1", "a#2", "a#4", "front#0", "front#1", "train#4")])
def test_page_fits_a_terminal_and_loses_nothing(filled: Any, names: tuple[str, ...], width: int) -> None:
    text = shown(compared(filled.uri, *names), width=width, is_terminal=True)

    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert all(name in text for name in names) and "…" not in text


@pytest.mark.parametrize(("width", "num_characters"), [(400, 16), (80, 13), (62, 7)])
def test_curves_shrink_before_runs_stand_one_below_the_other(filled: Any, width: int, num_characters: int) -> None:
    text = shown(compared(filled.uri, "a#0", "a#1", "a#4"), width=width, is_terminal=True)
    (line,) = [line for line in text.splitlines() if line.startswith("train/loss_step  ")]

    assert len(line.split()[-1]) == num_characters


def test_pipe_gets_a_line_for_each_key_however_long(filled: Any) -> None:
    first, second = read_runs(filled.uri, ["a#0", "a#1"], Path("none"))
    text = shown(difference([tagged(first, note="x" * 200), tagged(second, note="y" * 200)]))

    assert f"note  {'x' * 200}  {'y' * 200}" in text


def test_a_run_whose_name_is_that_of_another_by_now_goes_by_its_id(filled: Any) -> None:
    text = shown(compared(filled.uri, "a#1", filled.ids["dropped"]))

    assert text.splitlines()[0].split() == ["a#1", filled.ids["dropped"][:8]]


def test_a_result_that_is_that_of_another_trial_is_told(tmp_path: Path, empty_mlflow: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(empty_mlflow.read_bytes())
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    writer = StoreWriter(uri, tmp_path)
    writer.add({}, kind="study", study="a")
    writer.trial("a", 0, 0.5, {})
    writer.trial("a", 1, 0.5, {}, reused_from="0")
    assert shown(compared(uri, "a#0", "a#1")).startswith(
        "a#1: the result is that of a#0, which has the same configuration."
    )


@pytest.mark.parametrize("text", ["2024_01", "1.10", "0012e3", "1e1000"])
def test_a_text_that_python_takes_for_a_number_stays_as_it_is(text: str) -> None:
    assert _short(text) == text


def test_json_has_what_programs_need(filled: Any) -> None:
    found = json.loads(shown(compared(filled.uri, "a#0", "a#2"), form="json"), parse_constant=pytest.fail)

    assert [run["name"] for run in found["runs"]] == ["a#0", "a#2"]
    assert found["differs"]["searched"] == {"model.depth": ["0", "2"]} and found["num_same"] == 3
    assert [metric["last"] for metric in found["metrics"]["val/acc"]] == [0.5, None]
    assert found["metrics"]["val/loss"][1]["curve"] == [1.0, None, None, None, 2.0]


@pytest.mark.parametrize(
    ("names", "message"),
    [(("a#0",), "two runs or more, but got 1"), (("a#1", "best:a"), "a#1 was named 2 times")],
)
def test_less_than_two_runs_are_refused(filled: Any, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        compared(filled.uri, *names)


def test_runs_of_a_real_sweep_are_compared(swept: Any) -> None:
    result = swept.run("diff", "small#0", "small#1", "train#0")
    plain = json.loads(swept.run("diff", "small#0", "train#0", "--format", "json").stdout)
    one = swept.run("diff", "small#0")

    assert result.returncode == 0 and result.stderr == ""
    assert "Searched" in result.stdout and "Metrics" in result.stdout and "The same in all: " in result.stdout
    assert plain["differs"]["config"]["trainer.max_epochs"] == ["3", "2"]
    assert plain["differs"]["environment"]["mlflow.source.name"] == ["lightsweep sweep", "lightsweep train"]
    assert (one.returncode, one.stdout) == (2, "")
