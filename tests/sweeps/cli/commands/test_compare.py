"""Tables that fit, CSV that is safe to open, JSON that any program reads."""

import csv
import io
import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
from rich.console import Console

from sweeps.cli.commands.compare import Format, print_rows
from sweeps.core.errors import UsageError
from sweeps.results.queries import TrialRow


def row(trial: int | None = 0, **changes: Any) -> TrialRow:
    values: dict[str, Any] = {
        "run_id": "0123456789abcdef",
        "name": "#0",
        "study": "digits-mlp-1",
        "trial": trial,
        "state": "complete",
        "metric": "val/acc",
        "direction": "maximize",
        "value": 0.912345,
        "metrics": {"val/acc": 0.912345, "val/loss": 0.25},
        "params": {"optimizer.lr": 0.0031, "model.depth": 3, "model.activation": "relu", "data.batch_size": 64},
        "duration_s": 12.0,
        "reason": "",
        "folder": "0000",
    }
    return TrialRow(**(values | changes))


TRAIN = row(None, study=None, params={}, folder="0003")


def printed(
    *rows: TrialRow,
    form: Format = "table",
    width: int = 80,
    is_terminal: bool = False,
    metric: str | None = None,
    columns: Sequence[str] = (),
) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=is_terminal, no_color=True, highlight=False)
    console._color_system = None
    print_rows(rows, form, console=console, out=out, metric=metric, columns=columns)
    return out.getvalue()


def test_table_in_a_pipe_is_as_wide_as_it_needs_to_be() -> None:
    params = {f"model.a_rather_long_name_{index}": index for index in range(20)}

    table = printed(row(params=params), width=80)

    assert all(f"a_rather_long_name_{index}" in table for index in range(20))
    assert "…" not in table and len(table.splitlines()) == 2


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_table_fits_a_terminal_and_keeps_what_matters(width: int) -> None:
    other = {"optimizer.lr": 0.1, "model.depth": 2, "model.activation": "tanh", "data.batch_size": 32}
    table = printed(row(), row(12, params=other), width=width, is_terminal=True)

    assert all(len(line.rstrip()) <= width for line in table.splitlines())
    assert "#12" in table and "0.9123" in table and "complete" in table and "01234567" in table
    assert ("lr" in table.splitlines()[0]) == (width > 40)
    assert ("Not shown for want of room" in table) == (width < 80)


def test_parameters_that_all_rows_share_are_said_once() -> None:
    rows = (row(params={"a.same": 1, "a.other": 2}), row(params={"a.same": 1, "a.other": 3}))

    header, _, _, same = printed(*rows).splitlines()

    assert "other" in header.split() and "same" not in header.split()
    assert same == "The same in all: same=1"


def test_what_is_shared_has_a_name_that_tells_it_from_the_columns() -> None:
    params = [{"model.width": 1, "head.width": 2}, {"model.width": 1, "head.width": 3}]

    assert printed(*(row(params=one) for one in params)).splitlines()[-1] == "The same in all: model.width=1"


def test_values_that_a_few_digits_do_not_tell_apart_get_more() -> None:
    rows = [row(params={"ema": value, "n": 1.0}) for value in (0.99991, 0.99992, 0.99991)]
    assert [line.split()[2] for line in printed(*rows).splitlines()[:4]] == ["ema", "0.99991", "0.99992", "0.99991"]


def test_wide_characters_leave_room_for_all_columns() -> None:
    rows = [row(params={"data.name": "数据" * 8}), row(params={"data.name": "🙂"})]
    assert all(line.endswith("01234567") for line in printed(*rows).splitlines()[1:3])


def test_an_objective_is_no_second_column_when_it_is_asked_for() -> None:
    both = {"objectives": {"val/acc": "maximize", "val/loss": "minimize"}}
    assert printed(row(**both), row(1, **both), metric="val/loss").split("\n")[0].split().count("val/loss") == 1


def test_parameter_of_another_type_or_of_some_rows_only_is_not_shared() -> None:
    header, *lines = printed(row(params={"a": 1, "b": True}), row(params={"a": 1.0})).splitlines()

    assert {"a", "b"} <= set(header.split()) and len(lines) == 2


def test_columns_are_those_that_were_asked_for() -> None:
    columns = ["trial", "lr", "val/loss", "params.model.depth", "reason"]
    other = row(1, metrics={}, params={}, reason="it broke")

    header, first, second = printed(row(), other, columns=columns).splitlines()
    found = list(csv.reader(io.StringIO(printed(row(), other, form="csv", columns=columns))))

    assert header.split() == columns
    assert first.split() == ["0", "0.0031", "0.25", "3"] and second.split() == ["1", "it", "broke"]
    assert found == [columns, ["0", "0.0031", "0.25", "3", ""], ["1", "", "", "", "it broke"]]
    assert json.loads(printed(row(), form="json", columns=columns))[0]["run_id"] == row().run_id


def test_unknown_column_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"None of these runs has 'val/los'. Did you mean 'val/loss'"):
        printed(row(), columns=["val/los"])


def test_markdown_is_a_table_of_github_and_holds_its_cells() -> None:
    rows = (row(params={"m": "a|b", "s": 1}), row(1, params={"m": "[x](y)\n`z`", "s": 1}))

    header, rule, first, second, blank, same = printed(*rows, form="md").splitlines()

    assert header == "| trial | val/acc | m | state | time | run |" and rule == "|" + " --- |" * 6
    assert first == "| #0 | 0.9123 | a\\|b | complete | 12 s | 01234567 |"
    assert "\\[x\\](y) \\`z\\`" in second and (blank, same) == ("", "The same in all: s=1")


def test_train_stands_beside_trials_under_its_own_number() -> None:
    header, trial, train = printed(row(), TRAIN).splitlines()

    assert header.split()[:3] == ["study", "trial", "val/acc"]
    assert trial.split()[:2] == ["digits-mlp-1", "#0"]
    assert train.split()[:2] == ["train", "3"]


def test_studies_of_different_metrics_name_them() -> None:
    header, *lines = printed(row(), row(study="b", metric="val/loss", value=0.25)).splitlines()

    assert header.split()[:4] == ["study", "trial", "metric", "value"]
    assert "val/acc" in lines[0] and "val/loss" in lines[1]


def test_chosen_metric_has_its_column() -> None:
    header, line, other, _ = printed(row(), row(1, metrics={}), metric="val/loss").splitlines()

    assert "val/loss" in header.split() and "0.25" in line.split() and "0.25" not in other.split()


def test_markup_in_a_value_is_shown_as_it_is() -> None:
    assert "[bold]x" in printed(row(params={"model.name": "[bold]x"}))


def test_json_has_what_scripts_need_with_types() -> None:
    (found,) = json.loads(printed(row(), form="json"))

    assert {"run_id", "study", "trial", "state", "metrics", "params", "duration_s"} <= set(found)
    assert found["params"] == row().params and found["metrics"] == row().metrics and found["duration_s"] == 12.0


def test_json_says_null_for_what_is_no_number() -> None:
    odd = row(value=math.nan, metrics={"val/loss": math.inf}, params={"model.widths": [1.0, math.nan]})

    (found,) = json.loads(printed(odd, form="json"), parse_constant=pytest.fail)

    assert found["value"] is None and found["metrics"] == {"val/loss": None}
    assert found["params"] == {"model.widths": [1.0, None]}


def test_nothing_is_an_empty_list_and_no_table() -> None:
    assert json.loads(printed(form="json")) == []
    assert printed() == ""


def test_csv_has_every_param_and_metric() -> None:
    first, second = csv.DictReader(io.StringIO(printed(row(), TRAIN, form="csv")))

    assert first["optimizer.lr"] == "0.0031" and first["val/loss"] == "0.25" and first["trial"] == "0"
    assert second["optimizer.lr"] == "" and second["study"] == "" and second["run_id"] == TRAIN.run_id


def test_csv_says_what_became_of_a_trial() -> None:
    pruned = row(state="pruned", reason="0.2 at step 1 is below the median 0.8 of 4 trials")
    infeasible = row(infeasible="num_params=20 violates num_params <= 10")
    found = list(csv.DictReader(io.StringIO(printed(pruned, infeasible, row(is_on_front=True), form="csv"))))

    assert [one["reason"] for one in found] == [pruned.reason, "", ""]
    assert [one["infeasible"] for one in found] == ["", infeasible.infeasible, ""]
    assert [one["is_on_front"] for one in found] == ["False", "False", "True"]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_csv_holds_no_formula(text: str) -> None:
    lines = list(csv.reader(io.StringIO(printed(row(study=text, params={text: text}), form="csv"), newline="")))

    assert all(not cell.startswith(("=", "+", "-", "@", "\t", "\r")) for line in lines for cell in line)


def test_negative_number_in_csv_stays_a_number() -> None:
    (found,) = csv.DictReader(io.StringIO(printed(row(value=-1.5), form="csv")))

    assert found["value"] == "-1.5"


def test_csv_of_several_objectives_has_the_front_and_the_values_that_count() -> None:
    objectives = {"val/acc": "maximize", "val/loss": "minimize"}
    best = row(objectives=objectives, values={"val/acc": 0.9, "val/loss": 0.125}, is_on_front=True)
    infeasible = row(1, objectives=objectives, infeasible="num_params=2 violates num_params <= 1")
    first, second = csv.DictReader(io.StringIO(printed(best, infeasible, form="csv")))
    assert (first["is_on_front"], first["val/loss"], first["infeasible"]) == ("True", "0.125", "")
    assert (second["is_on_front"], second["infeasible"]) == ("False", infeasible.infeasible)


LONG = ["You are a grader. " * 500 + end for end in ("a", "b")]


@pytest.mark.parametrize("is_terminal", [True, False])
@pytest.mark.parametrize("columns", [(), ("trial", "prompt")])
def test_long_texts_are_short_in_a_table_and_stay_apart(is_terminal: bool, columns: Sequence[str]) -> None:
    rows = [row(number, params={"model.prompt": text, "model.same": LONG[0]}) for number, text in enumerate(LONG)]
    header, one, other, *_ = printed(*rows, is_terminal=is_terminal, columns=columns, width=120).splitlines()
    assert "prompt" in header
    assert max(map(len, printed(*rows, columns=columns).splitlines())) < 250
    cells = {line.split("#")[-1].split(")")[0] for line in (one, other)}
    assert len(cells) == 2


def test_long_texts_are_whole_in_json_and_csv() -> None:
    rows = [row(number, params={"model.prompt": text}) for number, text in enumerate(LONG)]
    assert [found["params"]["model.prompt"] for found in json.loads(printed(*rows, form="json"))] == LONG
    assert [line["model.prompt"] for line in csv.DictReader(io.StringIO(printed(*rows, form="csv")))] == LONG
    assert len(printed(*rows, form="md")) < 1000
