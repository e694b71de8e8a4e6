"""Shell completion: through the parser, and for real in bash."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeps.cli.completion import complete, script
from sweeps.cli.parser import options


def completed(line: str) -> list[str]:
    return complete(line, options())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "lightsweep ",
            [
                *("check ", "compare ", "completion ", "diff ", "enqueue ", "export ", "help ", "predict "),
                *("promote ", "report ", "reproduce ", "resume ", "show ", "stop ", "sweep ", "train ", "ui "),
            ],
        ),
        ("lightsweep co", ["compare ", "completion "]),
        ("lightsweep compare --to", ["--top "]),
        ("lightsweep show --format ", ["json ", "table "]),
        ("lightsweep compare --format ", ["csv ", "json ", "md ", "table "]),
        ("lightsweep compare --whe", ["--where "]),
        ("lightsweep check --fo", ["--format "]),
        ("lightsweep predict --format ", ["csv ", "json ", "table "]),
        ("lightsweep promote --require", ["--require-reproduced "]),
        ("lightsweep promote --name ", []),
        ("lightsweep help co", ["compare ", "completion ", "config "]),
        ("lightsweep help runs ", []),
        ("lightsweep check --format ", ["json ", "table "]),
        ("lightsweep check search=m", ["search=mlp "]),
        ("lightsweep train --cfg ", ["job "]),
        ("lightsweep train --config-dir ", []),
        ("lightsweep completion z", ["zsh "]),
        ("lightsweep stop --n", ["--now "]),
        ("lightsweep nonsense x", []),
        ("lightsweep train model=", ["model=cnn ", "model=mlp "]),
        ("lightsweep sweep model=m", ["model=mlp "]),
        ("lightsweep sweep model=cnn,m", ["model=cnn,mlp "]),
        ("lightsweep train optimizer.l", ["optimizer.lr="]),
        ("lightsweep train optimizer.lr=", ["optimizer.lr=0.003 "]),
        ("lightsweep train trainer.deterministic=", ["trainer.deterministic=true ", "trainer.deterministic=false "]),
        ("lightsweep train optimizer=sgd optimizer.nest", ["optimizer.nesterov="]),
        ("lightsweep train +model.de", ["+model.depth="]),
        ("lightsweep sweep 'optimizer.lr=interval(1e-3,1e-1)' model.de", ["model.depth="]),
        ("lightsweep sweep 'optimizer.l", ["optimizer.lr="]),
        ('lightsweep sweep "optimizer.lr=tag(log, inter', []),
        ("lightsweep sweep optimizer.lr=tag\\(log,", []),
        ("lightsweep train no.such.key=1 optimizer.l", ["optimizer.lr="]),
        ("lightsweep train hyd", []),
        ("lightsweep train hydra.", []),
        ("lightsweep train optimizer._tar", []),
        ("lightsweep train \\", None),
        ("lightsweep train 'a\"b", []),
        ("", None),
    ],
)
def test_words_that_may_follow(line: str, expected: list[str] | None) -> None:
    found = completed(line)

    assert expected is None or found == expected


def test_top_level_offers_groups_and_keys() -> None:
    found = completed("lightsweep sweep ")

    assert {"model=", "model.", "search=", "study.", "debug=", "seed="} <= set(found)
    assert not any(entry.startswith("hydra") for entry in found)


def test_own_options_are_offered(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("_target_: mine.Net\nhidden: 3\n")

    assert completed(f"lightsweep train --config-dir {tmp_path} model=mi") == ["model=mine "]
    assert completed(f"lightsweep train --config-dir={tmp_path} model=mine model.h") == ["model.hidden="]


def test_studies_are_offered_to_compare_report_and_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, text in (("s1", "study: first\n"), ("s2", "study: second\n"), ("s3", "{broken"), ("s4", "[]")):
        (tmp_path / "mlruns" / folder).mkdir(parents=True)
        (tmp_path / "mlruns" / folder / "study.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)

    assert completed("lightsweep compare ") == ["first ", "second "]
    assert completed("lightsweep report ") == ["first ", "second "]
    assert completed("lightsweep resume s") == ["second "]
    assert completed(f"lightsweep compare --store-dir {tmp_path}/none ") == []


def test_studies_and_the_keys_they_search_are_offered_to_enqueue_and_stop(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "study.yaml").write_text(
        "study: first\nspace:\n  optimizer.lr@sgd: interval(0,1)\n  optimizer.lr@adam: interval(0,1)\n"
        "  +model.width[0]: range(1,5)\n  forbid: optimizer=sgd\n"
    )
    where = f"--store-dir {tmp_path}"

    assert completed(f"lightsweep stop {where} ") == completed(f"lightsweep enqueue {where} f") == ["first "]
    assert completed(f"lightsweep enqueue {where} first ") == ["optimizer.lr=", "model.width="]
    assert completed(f"lightsweep enqueue {where} first optimizer.lr=1 mo") == ["model.width="]
    assert completed(f"lightsweep stop {where} first ") == []


@pytest.mark.parametrize("harm", ["$(touch harm)", "`id`", "a;id", "a b", "a|b", "a>b", "a&b", "'a", 'a"b'])
def test_nothing_that_a_shell_would_run_is_offered_from_a_store(tmp_path: Path, harm: str) -> None:
    for number, name in enumerate(("first", harm, f"first{harm}", "--yes")):
        (tmp_path / str(number)).mkdir()
        space = {harm: "interval(0,1)", f"model.{harm}": "interval(0,1)", "--yes": "range(1,5)", "seed": "range(1,5)"}
        (tmp_path / str(number) / "study.yaml").write_text(yaml.dump({"study": name, "space": space}))

    assert completed(f"lightsweep compare --store-dir {tmp_path} ") == ["first "]
    assert completed(f"lightsweep show --store-dir {tmp_path} best:f") == ["best:first "]
    assert completed(f"lightsweep enqueue --store-dir {tmp_path} first ") == ["seed="]


def test_nothing_that_a_shell_would_run_is_offered_from_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    option = {"_target_": "mine.Net", "$(touch harm)": 1, "text": "$(touch harm)", "widths": [1, 2]}
    (tmp_path / "model" / "mine.yaml").write_text(yaml.dump(option))
    mine = f"lightsweep train --config-dir {tmp_path} model=mine"

    assert completed(f"{mine} model.") == ["model.text=", "model.widths="]
    assert completed(f"{mine} model.text=") == []
    assert completed(f"{mine} model.widths=") == ["model.widths=[1,2] "]


def test_study_whose_space_is_no_mapping_has_no_keys_to_offer(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "study.yaml").write_text("study: first\nspace: [1, 2]\n")
    assert completed(f"lightsweep enqueue --store-dir {tmp_path} first ") == []


def test_runs_are_offered_by_their_study_and_then_by_number(tmp_path: Path) -> None:
    for folder in ("first/0000", "first/0002", "first/0010", "first/inbox", "train/0003"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "first" / "study.yaml").write_text("study: first\n")
    show = f"lightsweep show --store-dir {tmp_path}"

    assert completed(f"{show} ") == ["best:first ", "first#", "train#"]
    assert completed(f"{show} fi") == ["first#"]
    assert completed(f"{show} first#") == ["first#0 ", "first#2 ", "first#10 "]
    assert completed(f"{show} first#1") == ["first#10 "] and completed(f"{show} train#") == ["train#3 "]
    assert completed(f"lightsweep diff --store-dir {tmp_path} best:first fi") == ["first#"]
    assert completed(f"lightsweep promote --store-dir {tmp_path} --require-reproduced be") == ["best:first "]


@pytest.fixture
def registry(tmp_path: Path, empty_mlflow: Path) -> None:
    """A store with two registered models, one of them with an alias, and one that a shell would obey."""
    (tmp_path / "mlruns").mkdir()
    shutil.copy(empty_mlflow, tmp_path / "mlruns" / "mlflow.db")
    with closing(sqlite3.connect(tmp_path / "mlruns" / "mlflow.db")) as database, database:
        names = [("digits",), ("fashion",), ("$(touch harm)",)]
        database.executemany("insert into registered_models (name, creation_time) values (?, 0)", names)
        alias = "insert into registered_model_aliases (name, alias, version) values ('digits', 'champion', 1)"
        database.execute(alias)


def test_registered_models_are_offered_to_predict(
    tmp_path: Path, registry: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert completed("lightsweep predict ") == ["digits ", "digits@champion ", "fashion "]
    assert completed("lightsweep predict digits@") == ["digits@champion "]
    assert completed("lightsweep predict digits@champion ") == []
    assert completed("lightsweep predict --store-dir none ") == []


def test_bash_completes_an_alias_after_the_mark_at_which_it_cuts(
    bash: Callable[[str], list[str]], registry: None
) -> None:
    assert bash("lightsweep predict digits@c") == ["champion "]


@pytest.fixture
def bash(tmp_path: Path) -> Callable[[str], list[str]]:
    """Complete a line as bash would: words cut at its break characters, the function called, its reply read."""
    command = tmp_path / "bin" / "lightsweep"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m sweeps "$@"\n')
    command.chmod(0o755)
    code = """
        eval "$(lightsweep completion bash)"
        complete -p lightsweep > /dev/null || exit 1
        COMP_LINE="$1"; COMP_POINT=${#COMP_LINE}
        _lightsweep
        printf '%s\\n' "${COMPREPLY[@]}"
    """

    def run(line: str) -> list[str]:
        environment = {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "--norc", "-c", code, "bash", line],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        return [word for word in done.stdout.split("\n") if word]

    return run


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("lightsweep tr", ["train "]),
        ("lightsweep train model=", ["cnn ", "mlp "]),  # bash has cut the word at the =
        ("lightsweep train optimizer.l", ["optimizer.lr="]),
        ("lightsweep sweep 'optimizer.lr=tag(log,", []),
    ],
)
def test_bash_completes(bash: Callable[[str], list[str]], line: str, expected: list[str]) -> None:
    assert bash(line) == expected


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_scripts_of_other_shells_ask_the_same_command(lightsweep: Any, shell: str) -> None:
    text, words = lightsweep("completion", shell).stdout, lightsweep("completion", shell, "--line", "lightsweep tr")

    assert f"lightsweep completion {shell} --line" in text and text.strip() == script(shell)
    assert words.stdout == "train \n" and words.stderr == ""
