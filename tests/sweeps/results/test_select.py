"""What compare shows of a store, and in which order: the same as from all rows in full."""

from pathlib import Path
from typing import Any

import pytest

from sweeps.cli.main import main
from sweeps.core.errors import UsageError
from sweeps.results.queries import trial_rows
from sweeps.results.select import Selection, parse_where, selected_rows


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A study of one objective with four trials, and one of two objectives with three."""
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    client = MlflowClient(uri)
    experiment = client.create_experiment("lightsweep")

    def add(study: str, trial: int, metrics: dict[str, float], state: str = "complete", **more: str) -> None:
        found = {"kind": "trial", "study": study, "trial": str(trial), "state": state, **more}
        run = client.create_run(experiment, tags={f"lightsweep.{key}": value for key, value in found.items()})
        for key, value in metrics.items():
            client.log_metric(run.info.run_id, key, value)

    for trial, (acc, depth) in enumerate([(0.5, 1), (0.95, 3), (0.9, 4), (0.7, 3)]):
        params = f'{{"model.depth": {depth}, "optimizer.lr": 0.1, "model.name": "net{trial % 2}"}}'
        judged = {"metric": "val/acc", "direction": "maximize", "value": repr(acc), "params": params}
        add("one", trial, {"val/acc": acc, "val/loss": 1 - acc}, "pruned" if trial == 2 else "complete", **judged)
    for trial, (acc, size) in enumerate([(0.5, 10.0), (0.4, 20.0), (0.8, 30.0)]):
        two: dict[str, str] = {
            "objectives": '{"val/acc": "maximize", "size": "minimize"}',
            "values": f'{{"val/acc": {acc}, "size": {size}}}',
            "metric": "val/acc",
            "direction": "maximize",
        }
        add("two", trial, {"val/acc": acc, "size": size}, value=repr(acc), **two)
    return uri


def trials(uri: str, study: str, **asked: Any) -> list[int | None]:
    selection = Selection(**asked)
    found = selected_rows(uri, [study], selection)
    assert found == selection.pick(trial_rows(uri, [study]))
    return [row.trial for row in found]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, [1, 2, 3, 0]),
        ({"top": 2}, [1, 2]),
        ({"is_descending": False}, [0, 3, 2, 1]),
        ({"metric": "val/loss"}, [1, 2, 3, 0]),
        ({"metric": "val/loss", "is_descending": True}, [0, 3, 2, 1]),
        ({"sort": "params.model.depth"}, [0, 1, 3, 2]),
        ({"sort": "depth", "is_descending": True}, [2, 1, 3, 0]),
        ({"sort": "model.name", "top": 2}, [0, 2]),
        ({"sort": "metrics.val/loss"}, [1, 2, 3, 0]),
        ({"sort": "trial", "is_descending": True, "top": 3}, [3, 2, 1]),
        ({"where": parse_where("params.model.depth >= 3 and metrics.val/acc > 0.9")}, [1]),
        ({"where": parse_where("state = 'complete'"), "top": 2}, [1, 3]),
        ({"where": parse_where("val/loss > 0.2"), "sort": "trial"}, [0, 3]),
        ({"where": parse_where("trial > 9"), "metric": "val/loss"}, []),
    ],
)
def test_rows_are_selected(uri: str, asked: dict[str, Any], expected: list[int]) -> None:
    assert trials(uri, "one", **asked) == expected


def test_front_alone(uri: str) -> None:
    assert trials(uri, "two", is_front=True) == [2, 0]
    assert trials(uri, "two", is_front=True, where=parse_where("size < 20")) == [0]


def test_front_of_one_objective_is_refused(uri: str) -> None:
    with pytest.raises(UsageError, match="--pareto is for studies of several objectives"):
        selected_rows(uri, ["one"], Selection(is_front=True))


def test_what_no_run_has_comes_last(uri: str) -> None:
    found = selected_rows(uri, [], Selection(sort="optimizer.lr", is_descending=True))
    assert [row.study for row in found] == ["one"] * 4 + ["two"] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--where", "params.model.dept = 1"], "Did you mean 'params.model.depth'"),
        (["--where", "depth >"], "expected a value, but got the end, at character 8"),
        (["--sort", "val/los"], "Did you mean 'val/loss'"),
        (["--where", "trial = 1", "--metric", "val/los"], "Did you mean 'val/loss'"),
        (["--pareto"], "one each"),
        (["--group-by", "model.dept"], "Did you mean 'model.depth'"),
        (["--group-by", "depth", "--sort", "trial"], "leave --sort and --columns out"),
        (["--columns", "val/los"], "Did you mean 'val/loss'"),
    ],
)
def test_what_is_wrong_is_a_usage_error(
    uri: str, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(["compare", "one", "--uri", uri, *options]) == 2
    out = capsys.readouterr()
    assert out.out == "" and message in out.err


def test_groups_are_printed(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "one", "--uri", uri, "--group-by", "depth", "--top", "2", "--where", "trial < 3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [["3", "1", "0.95"], ["4", "1", "0.9"]]


def test_nothing_left_is_told(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "one", "--uri", uri, "--where", "trial > 7"]) == 0
    assert "No trial is left" in capsys.readouterr().err


def test_text_is_never_sql(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = "' or 1=1; drop table runs; --"
    assert main(["compare", "one", "--uri", uri, "--where", f'state = "{text}" or model.name = "{text}"']) == 0
    assert main(["compare", "--uri", uri, "--where", f"`metrics.{text}` = 1"]) == 2
    assert len(trial_rows(uri)) == 7 and Path(uri.removeprefix("sqlite:///")).is_file()
