"""What a run may be called, and what is said of names that fit none or several."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from run_stores import StoreWriter

from sweeps.core.errors import UsageError
from sweeps.results.reader import open_reader
from sweeps.results.run_names import Found, best_run_id, find_run, label
from sweeps.results.study import load_study


def found(address: str, name: str) -> Found:
    with open_reader(address) as reader:
        return find_run(reader, address, name)


@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("a#0", "a0"),
        ("a#1", "a1"),  # its namesake was dropped by a migration
        ("a#1/0", "a1/0"),
        ("a#1/1", "a1/1"),
        ("best:a", "a1"),  # a#3 has a higher value, and violates a constraint
        ("train#4", "train4"),
        ("it's 50%#1#0", "odd name"),
    ],
)
def test_run_has_a_name(address: str, filled: Any, name: str, run: str) -> None:
    assert found(address, name) == Found(filled.ids[run])


@pytest.mark.parametrize("run", ["a0", "a1/0", "parent", "train3", "stranger"])
def test_run_is_found_by_its_id_and_by_the_beginning_of_it(address: str, filled: Any, run: str) -> None:
    run_id = filled.ids[run]
    ids = [other for other in filled.ids.values() if other != run_id]
    beginning = next(run_id[:n] for n in range(6, 33) if not any(other.startswith(run_id[:n]) for other in ids))

    assert found(address, run_id).run_id == found(address, beginning).run_id == run_id


def test_best_of_several_objectives_is_the_first_of_the_front_and_is_said_to_be(address: str, filled: Any) -> None:
    best = found(address, "best:front")

    assert best.run_id == filled.ids["front1"]
    assert best.note == "best:front is trial 1, the first of 2 on the Pareto front by val/acc."


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a#7", "There is no run 'a#7'. The numbers go from 0 to 4. Did you mean a#2 or a#3 or a#4?"),
        ("a#1/2", "There is no run 'a#1/2'. The numbers go from 0 to 1. Did you mean a#1/0 or a#1/1?"),
        ("a#0/0", "There is no run 'a#0/0'. Trial 0 has no replicates."),
        ("a#8/0", "There is no run 'a#8/0'. Study 'a' has no trial 8."),
        ("fron#1", "There is no study 'fron'. Did you mean 'front'?"),
        ("best:fron", "There is no study 'fron'. Did you mean 'front'?"),
        ("best:empty", "There is no study 'empty'."),
        ("front", "'front' is a study, not a run: name a trial as front#0, or its best as best:front."),
        ("best-front", "There is no run 'best-front'. A run is named by its id"),
        ("train#9", "There is no run 'train#9'. The numbers go from 3 to 3. Did you mean train#3?"),
        ("0123456789abcdef", "There is no run '0123456789abcdef'."),
        ("", "There is no run ''."),
    ],
)
def test_unknown_name_is_told_with_what_is_near(address: str, name: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        found(address, name)

    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_best_of_a_study_whose_own_run_was_deleted_is_found(tmp_path: Path, empty_mlflow: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(empty_mlflow.read_bytes())
    writer = StoreWriter(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
    run_id = writer.trial("a", 0, 0.5, {})

    assert found(f"sqlite:///{tmp_path}/mlflow.db", "best:a").run_id == run_id


def test_deleted_run_is_none(address: str, filled: Any) -> None:
    for name in (filled.ids["deleted"], "a#9"):
        with pytest.raises(UsageError, match="There is no run"):
            found(address, name)


def test_name_of_several_runs_is_told_with_their_ids(address: str, filled: Any) -> None:
    with pytest.raises(UsageError, match=r"2 runs are called 'train#3'.*Name one by its id") as caught:
        found(address, "train#3")

    assert filled.ids["train3"] in str(caught.value)


def test_beginning_of_several_ids_lists_them(address: str, filled: Any) -> None:
    ids = sorted(run_id for name, run_id in filled.ids.items() if name != "deleted")  # of 17 two begin alike
    letter = next(run_id[0] for run_id, other in pairwise(ids) if run_id[0] == other[0])

    with pytest.raises(UsageError, match=rf"runs begin with '{letter}': {letter}[0-9a-f]{{31}}, .*Type more"):
        found(address, letter)


@pytest.mark.parametrize("name", ["a#1", "a#1/1", "train#4", "it's 50%#1#0"])
def test_label_is_the_name_by_which_it_was_found(address: str, name: str) -> None:
    with open_reader(address) as reader:
        assert label(reader, reader.run(find_run(reader, address, name).run_id)) == name


@pytest.mark.parametrize("run", ["dropped", "train3"])
def test_label_of_a_run_whose_name_finds_another_or_several_is_its_id(address: str, filled: Any, run: str) -> None:
    run_id = filled.ids[run]
    with open_reader(address) as reader:
        assert label(reader, reader.run(run_id)) == run_id[:8]


def test_best_of_equals_is_the_first_trial_whenever_it_began(tmp_path: Path, empty_mlflow: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(empty_mlflow.read_bytes())
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    writer = StoreWriter(uri, tmp_path)
    writer.add({}, kind="study", study="ties", metric="val/acc", direction="maximize")
    writer.trial("ties", 3, None, {}, state="failed")
    assert best_run_id(uri, "ties") is None
    ids = [writer.trial("ties", number, 0.5, {}, began_ms=1000 * (3 - number)) for number in range(3)]
    study = load_study("ties", uri=uri)
    assert found(uri, "best:ties").run_id == ids[0] == best_run_id(uri, "ties") == study.best[0].run_id


def test_number_of_thousands_of_digits_names_no_run(address: str) -> None:
    with pytest.raises(UsageError, match="There is no run"):
        found(address, f"a#{'9' * 5000}")
