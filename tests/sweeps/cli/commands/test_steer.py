"""What `enqueue` and `stop` do beside a study: what they leave for its driver, and what they say."""

import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from studies import make, run

from sweeps.cli.main import main
from sweeps.config.composer import to_yaml
from sweeps.core import paths
from sweeps.core.errors import SpaceError, StudyError
from sweeps.driver.inbox import Enqueue, Inbox, Orders
from sweeps.driver.session import CommandLine
from sweeps.driver.steer import enqueue, is_driven, stop
from sweeps.driver.sweep import enqueue_first, only_driver
from sweeps.driver.sweep_setup import read_sweep
from sweeps.search.space.declare import parse_space
from sweeps.search.space.space import read_values

OVERRIDES = (
    "optimizer.lr=tag(log,interval(1e-4,1e-1))",
    "model.depth=range(1,5)",
    "model.activation=relu,tanh",
    "+search.forbid=[{model.depth: 4, model.activation: tanh}]",
    "study.num_trials=4",
)


@pytest.fixture
def store(tmp_path: Path, empty_file: Path) -> Path:
    shutil.copy(empty_file, tmp_path / "optuna.db")
    record = {"study": "s", "config_name": "sweep", "config_dir": None, "overrides": list(OVERRIDES), "space": {}}
    paths.write_text(tmp_path / "s" / paths.STUDY, to_yaml(record))
    return tmp_path


@pytest.fixture
def study(store: Path) -> Any:
    space = parse_space({"lr": "tag(log,interval(1e-4,1e-1))", "depth": "range(1,5)"})
    return make(f"sqlite:///{store}/optuna.db", space, name="s")


@contextmanager
def driving(study: Any, store: Path) -> Iterator[list[str]]:
    """Hold the study as a driver does, and carry out its orders; gives what it was told."""
    words: list[str] = []
    is_over = threading.Event()

    def drive() -> None:
        with only_driver("s", store / "s") as since_ns:
            orders = Orders(study, store / "s", words.append, since_ns=since_ns, look_every_s=0)
            is_up.set()
            while not is_over.is_set():
                words.extend(word for word in [orders()] if word)

    is_up = threading.Event()
    thread = threading.Thread(target=drive)
    thread.start()
    is_up.wait()
    yield words
    is_over.set()
    thread.join()


def orders(store: Path) -> list[Any]:
    return [command.order for command in Inbox(store / "s").read()]


def test_without_a_driver_it_waits_for_resume(store: Path, study: Any) -> None:
    said = enqueue("s", store, ["optimizer.lr=0.01", "model.activation='tanh'"])
    assert f"it waits for `lightsweep resume s --store-dir {store}`" in said
    assert orders(store) == [Enqueue(values={"optimizer.lr": 0.01, "model.activation": "tanh"})]


def test_with_a_driver_it_runs_next(store: Path, study: Any) -> None:
    lock = FileLock(store / "s" / paths.LOCK)
    with lock:
        assert enqueue("s", store, ["model.depth=2"]).endswith("enqueued; it runs next.")
        assert "it runs next, after 1 that waits already" in enqueue("s", store, ["model.depth=3"])


def test_a_study_that_has_its_trials_says_what_it_takes(store: Path, study: Any) -> None:
    run(study, 3)
    enqueue("s", store, ["model.depth=2"])
    said = enqueue("s", store, ["model.depth=2"])
    assert "the 4 trials of study 's' are all taken" in said
    assert "study.num_trials=5`" in said
    assert len(orders(store)) == 2  # nothing is lost


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("optimizer.lrr=0.01", "optimizer.lrr is not searched in this study. Did you mean 'optimizer.lr'?"),
        ("optimizer.lr=2", "2 is not in tag(log,interval(0.0001,0.1))"),
        ("model.depth=1,2", "a trial has one value for each key"),
    ],
)
def test_what_is_not_in_the_space_is_refused_at_once(
    store: Path, capsys: pytest.CaptureFixture[str], typed: str, words: str
) -> None:
    assert main(["enqueue", "s", typed, "--store-dir", str(store)]) == 2
    assert words in capsys.readouterr().err
    assert orders(store) == []


@pytest.mark.parametrize(
    ("typed", "values"),
    [
        ("optimizer.lr=1e-2", {"optimizer.lr": 0.01}),
        ("model.width=[8,16]", {"model.width": [8, 16]}),
        ("optimizer=sgd", {"optimizer": "sgd"}),
        ("model.name='a, b'", {"model.name": "a, b"}),
        ("+model.rate=null", {"model.rate": None}),
        ("model.flag=true", {"model.flag": True}),
    ],
)
def test_values_are_read_as_on_the_command_line_of_a_sweep(typed: str, values: dict[str, Any]) -> None:
    assert read_values([typed]) == values


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("model.depth=glob(*)", "a trial has one value for each key"),
        ("~model.depth", "a trial needs values"),
        ("model.depth", "there is no '='"),
        ("model.depth=[1", "is not closed"),
    ],
)
def test_what_is_no_value_is_refused(typed: str, words: str) -> None:
    with pytest.raises(SpaceError, match=re.escape(words)):
        read_values([typed])


def test_a_forbidden_combination_is_refused_at_once(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    typed = ["model.depth=4", "model.activation=tanh"]
    assert main(["enqueue", "s", *typed, "--store-dir", str(store)]) == 2
    assert "forbidden in this study" in capsys.readouterr().err
    assert main(["enqueue", "s", typed[0], "--store-dir", str(store)]) == 0


@pytest.mark.parametrize("command", [["enqueue", "t", "a=1"], ["stop", "t"]])
def test_a_study_that_is_not_there_is_named_with_those_that_are(
    store: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    assert main([*command, "--store-dir", str(store)]) == 1
    assert "There is no study 't'" in capsys.readouterr().err


def test_there_is_nothing_to_stop_without_a_driver(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):  # no lock file, and one that nobody holds
        assert main(["stop", "s", "--store-dir", str(store)]) == 1
        assert "No driver works on study 's'" in capsys.readouterr().err
        (store / "s" / paths.LOCK).touch()
    assert orders(store) == []


@pytest.mark.parametrize(("is_now", "word", "said"), [(False, "drain", "starts no more"), (True, "now", "after their")])
def test_a_driver_is_told_to_stop_and_has_heard_it(store: Path, study: Any, is_now: bool, word: str, said: str) -> None:
    with driving(study, store) as words:
        told = stop("s", store, is_now=is_now)
        assert said in told and "not answered" not in told
        assert orders(store) == []
    assert words == [word]


def test_an_order_that_comes_too_late_is_taken_back(store: Path) -> None:
    lock = FileLock(store / "s" / paths.LOCK, thread_local=False)
    lock.acquire()

    def end() -> None:
        while not orders(store):
            pass
        lock.release()

    ending = threading.Thread(target=end)
    ending.start()
    assert "has just ended" in stop("s", store, is_now=False)
    ending.join()
    assert orders(store) == []


def test_looking_whether_a_study_is_driven_keeps_no_driver_away(store: Path) -> None:
    lock = store / "s" / paths.LOCK
    lock.touch()
    is_over = threading.Event()

    def look() -> None:
        while not is_over.is_set():
            is_driven(store / "s")

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(20):
            with only_driver("s", store / "s"):
                assert is_driven(store / "s")
    finally:
        is_over.set()
        looking.join()
    assert not is_driven(store / "s")


def test_a_second_driver_is_still_refused(store: Path) -> None:
    second = only_driver("s", store / "s")
    with only_driver("s", store / "s"), pytest.raises(StudyError, match="Another process drives study 's'"):
        second.__enter__()


def test_known_good_points_are_queued_once_when_the_study_is_new(store: Path, study: Any) -> None:
    wanted = [{"depth": 2}, {"depth": 3, "lr": 0.01}]

    def again() -> Any:
        found = make(f"sqlite:///{store}/optuna.db", study.space, name="s")
        enqueue_first(found, wanted)
        return found

    study.enqueue(wanted[0], request="study.enqueue[0]")  # and then the driver died
    assert again().counts["waiting"] == 2
    found = again()
    assert [found.ask().values["depth"] for _ in range(2)] == [2, 3]
    found.ask()
    assert again().counts["waiting"] == 0


def test_known_good_points_are_not_queued_in_a_study_that_has_begun(store: Path, study: Any) -> None:
    run(study, 1)
    enqueue_first(study, [{"depth": 2}])
    assert study.counts["waiting"] == 0


@pytest.mark.parametrize(
    "typed",
    ["study.enqueue=[{optimizer.lr:0.01,model.depth:2}]", "study.enqueue=[{optimizer.lr: 0.01, model.depth: 2}]"],
)
def test_known_good_points_are_typed_as_a_list_of_mappings(typed: str) -> None:
    _, config, _ = read_sweep(CommandLine(overrides=(typed,), config_name="sweep"))
    assert config["study"]["enqueue"] == [{"optimizer.lr": 0.01, "model.depth": 2}]
