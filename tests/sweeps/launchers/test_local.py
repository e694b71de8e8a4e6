"""Real ranks: how they start, what they say, and how they end."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from benches import is_gone

from sweeps.core.messages import Artifact, Exited, Failed, Finished, Metrics, Progress, Report, Started, Stop


def kinds(events: list[Any]) -> list[type]:
    return [type(event) for event in events]


def final_message(events: list[Any]) -> Any:
    return next(event for event in events if isinstance(event, (Finished, Failed)))


def test_workers_of_a_loader_are_forked_as_in_a_program_of_its_own(bench: Any) -> None:
    bench.start(60, "print", parts={"data": {"_target_": "mischief.Loose", "num_workers": 1}})
    assert final_message(bench.events(60)).state == "complete"
    assert "workers fork" in (bench.folder / "60" / "rank0.log").read_text()


def test_a_trial_starts_reports_finishes_and_exits(bench: Any) -> None:
    bench.start(1)
    events = bench.events(1)
    assert {Started, Progress, Metrics, Report, Artifact, Finished, Exited} <= set(kinds(events))
    assert events[-1] == Exited()
    finished = final_message(events)
    assert finished.state == "complete"
    assert finished.value == max(event.value for event in events if isinstance(event, Report))
    assert {"train/loss", "val/acc", "val/loss", "test/acc"} <= finished.metrics.keys()


def test_every_step_of_the_loss_is_logged_once_and_in_order(bench: Any) -> None:
    bench.start(2)
    points = [p for e in bench.events(2) if isinstance(e, Metrics) for p in e.points if p.key == "train/loss_step"]
    assert [point.step for point in points] == list(
        range(2 * 21)
    )  # 2 epochs of 1,257 samples and more in batches of 64


def test_the_same_seed_gives_the_same_values_in_another_process(bench: Any) -> None:
    values = []
    for number in (3, 4):
        bench.start(number, seed=7)
        values.append(final_message(bench.events(number)).metrics)
    assert values[0] == values[1]


def test_a_module_that_raises_is_heard_with_its_traceback(bench: Any) -> None:
    bench.start(5, "raise")
    failed = final_message(bench.events(5))
    assert (failed.cause, failed.message) == ("error", "ValueError: the third step. is bad")
    assert "mischief.py" in failed.traceback


def test_what_is_no_unicode_in_a_message_is_told_as_an_escape(bench: Any) -> None:
    bench.start(9, "odd name")
    failed = final_message(bench.events(9))
    assert failed.message == r"ValueError: cannot read b\udcff.png\x00"
    assert failed.message in failed.traceback


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("long", "RuntimeError: xxx"),
        ("silent", "Silent: its text cannot be read"),
        ("closed", "ValueError: where nothing can be written"),
    ],
)
def test_any_failure_is_one_line_with_its_traceback(bench: Any, what: str, line: str) -> None:
    bench.start(16, what)
    failed = final_message(bench.events(16))
    assert failed.cause == "error"
    assert failed.message.startswith(line) and len(failed.message) < 1000
    assert "mischief.py" in failed.traceback and len(failed.traceback) < 100_000


def test_a_crash_of_native_code_names_its_place(bench: Any) -> None:
    bench.start(17, "crash")
    failed = final_message(bench.events(17))
    assert failed.cause == "died"
    assert "SIGSEGV" in failed.message and "ctypes" in failed.message
    assert "mischief.py" in failed.traceback


@pytest.mark.parametrize(("what", "cause"), [("memory", "memory"), ("nan", "diverged")])
def test_the_cause_of_a_failure_is_told_apart(bench: Any, what: str, cause: str) -> None:
    bench.start(6, what)
    assert final_message(bench.events(6)).cause == cause


def test_a_loss_that_is_no_number_names_its_step(bench: Any) -> None:
    bench.start(7, "nan")
    assert "became nan at step 2" in final_message(bench.events(7)).message


@pytest.mark.parametrize(("what", "words"), [("kill", "killed by SIGKILL"), ("exit", "ended with status 0")])
def test_a_process_that_dies_has_failed_whatever_its_exit_code(bench: Any, what: str, words: str) -> None:
    bench.start(8, what)
    failed, exited = bench.events(8)[-2:]
    assert exited == Exited()
    assert failed.cause == "died"
    assert words in failed.message


def test_what_a_rank_printed_before_it_was_killed_is_in_its_log(tmp_path: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from sweeps.core.paths import open_to_append
from sweeps.worker.main import _redirect_output
_redirect_output(open_to_append(Path(sys.argv[1])))
print("the last line")
os.kill(os.getpid(), 9)
"""
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "rank0.log")], env=buffered, check=False)
    assert (tmp_path / "rank0.log").read_text() == "the last line\n"


def test_an_unknown_argument_is_named_with_its_key(bench: Any) -> None:
    bench.start(9, data__batch_sise=32)
    failed = final_message(bench.events(9))
    assert failed.cause == "usage"
    assert "data.batch_sise" in failed.message
    assert "'batch_size'" in failed.message


def test_an_order_to_stop_ends_training_after_the_step(bench: Any) -> None:
    bench.start(10, trainer__max_epochs=100_000)
    bench.events(10, until=lambda event: isinstance(event, Report))
    bench.launcher.order(10, Stop())
    assert final_message(bench.events(10)).state == "interrupted"


def test_sigterm_is_an_order_to_stop(bench: Any) -> None:
    bench.start(11, trainer__max_epochs=100_000)
    bench.events(11, until=lambda event: isinstance(event, Report))
    os.kill(bench.pids(11)[0], signal.SIGTERM)
    assert final_message(bench.events(11)).state == "interrupted"


def test_a_killed_trial_is_gone_at_once(bench: Any) -> None:
    bench.start(12, trainer__max_epochs=100_000)
    bench.events(12, until=lambda event: isinstance(event, Started))
    bench.launcher.kill(12)
    assert bench.events(12)[-1] == Exited()


def test_a_rank_gets_the_threads_and_variables_of_its_slot_and_prints_into_its_log(bench: Any) -> None:
    bench.start(13, "print", job={"threads": 2, "environment": (("OF_THE_SLOT", "yes"),)})
    bench.events(13)
    printed = (bench.folder / "13" / "rank0.log").read_text()
    assert "threads 2 variable yes" in printed
    assert "OF_THE_SLOT" not in os.environ


POOLS = """
import sys
sys.path.insert(0, {here!r})
from pathlib import Path
from benches import Bench

if __name__ == "__main__":
    bench = Bench(Path({folder!r}), {start_method!r})
    bench.start(1, "print")
    bench.events(1)
    bench.launcher.close()
"""


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_the_pools_of_libraries_follow_the_slot_and_not_the_shell(tmp_path: Path, start_method: str) -> None:
    here = str(Path(__file__).parents[1])
    script = tmp_path / "driver.py"
    script.write_text(POOLS.format(here=here, folder=str(tmp_path), start_method=start_method))
    shell = {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    subprocess.run([sys.executable, str(script)], env={**os.environ, **shell}, check=True)
    assert "pools [1]" in (tmp_path / "1" / "rank0.log").read_text()  # torch's, NumPy's, scikit-learn's


@pytest.mark.skipif("PYTHONHASHSEED" in os.environ, reason="whoever sets it has the say")
def test_texts_have_the_same_hashes_in_the_ranks_of_every_driver(bench: Any) -> None:
    bench.start(31, "print")
    bench.events(31)
    command = [sys.executable, "-c", "print('hash', hash('a name'))"]
    fixed = subprocess.run(command, env={"PYTHONHASHSEED": "0"}, capture_output=True, text=True, check=True).stdout
    assert fixed in (bench.folder / "31" / "rank0.log").read_text()
    assert "PYTHONHASHSEED" not in os.environ


def test_ten_trials_in_a_row_leave_no_process_and_no_open_file(bench: Any) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    bench.start(14)
    bench.events(14)
    before = open_files()
    for number in range(20, 30):
        bench.start(number, trainer__max_epochs=1)
        bench.events(number)
    assert open_files() == before
    assert bench.launcher.running == []


@pytest.mark.slow
def test_spawned_ranks_give_the_same_bits_as_forked_ones(bench: Any, tmp_path: Path) -> None:
    bench.start(15, seed=3)
    forked = final_message(bench.events(15)).metrics
    other = type(bench)(tmp_path, start_method="spawn")
    other.start(15, seed=3)
    assert final_message(other.events(15)).metrics == forked
    other.launcher.close()


DRIVER = """
import sys, time
sys.path.insert(0, {here!r})
from pathlib import Path
from benches import Bench
from sweeps.core.messages import Report, Started
if __name__ == "__main__":
    bench = Bench(Path({folder!r}), {start_method!r})
    bench.start(1, {what!r}, ranks={ranks}, trainer__max_epochs=100_000, **{values!r})
    bench.events(1, until=lambda event: isinstance(event, {event}))
    print(*bench.pids(1), flush=True)
    time.sleep(600)
"""


def pids_of_driver(tmp_path: Path, **case: Any) -> tuple["subprocess.Popen[str]", list[int]]:
    """Start a driver, and return it with its ranks."""
    case = {"what": "nothing", "ranks": 1, "start_method": "forkserver", "event": "Report", "values": {}} | case
    script = tmp_path / "driver.py"
    script.write_text(DRIVER.format(here=str(Path(__file__).parents[1]), folder=str(tmp_path), **case))
    driver = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    pids = [int(pid) for pid in driver.stdout.readline().split()]
    assert len(pids) == case["ranks"]
    return driver, pids


def kill(driver: "subprocess.Popen[str]") -> None:
    driver.kill()
    driver.wait()
    assert driver.stdout is not None
    driver.stdout.close()


def group_of(pgid: int) -> list[int]:
    """Return the processes of a group that live."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            state, _, group = file.read_text().rpartition(")")[2].split()[:3]
            if int(group) == pgid and state not in "ZX":
                found.append(int(file.parent.name))
    return found


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.ddp)])
def test_killing_the_driver_leaves_no_rank_behind(tmp_path: Path, ranks: int) -> None:
    driver, pids = pids_of_driver(tmp_path, ranks=ranks)
    kill(driver)
    assert all(is_gone(pid, within_s=10) for pid in pids)


@pytest.mark.skipif(sys.platform != "linux", reason="only there the kernel ends a rank whose threads cannot run")
@pytest.mark.parametrize(
    ("ranks", "start_method"),
    [(1, "forkserver"), (1, "spawn"), pytest.param(2, "forkserver", marks=[pytest.mark.ddp, pytest.mark.slow])],
)
def test_a_rank_that_holds_the_interpreters_lock_dies_with_its_driver_and_all_that_it_started(
    tmp_path: Path, ranks: int, start_method: str
) -> None:
    data = {"parts": {"data": {"_target_": "mischief.Loose", "num_workers": 2}}} if ranks == 1 else {}
    driver, pids = pids_of_driver(
        tmp_path, what="busy", ranks=ranks, start_method=start_method, event="Started", values=data
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not all(_holds_the_lock(pid) for pid in pids):
        time.sleep(0.05)
    groups = [group_of(pid) for pid in pids]
    assert all(len(group) > 1 for group in groups)
    kill(driver)
    assert all(is_gone(pid, within_s=10) for group in groups for pid in group)


def _holds_the_lock(pid: int) -> bool:
    """Tell whether a rank has come to where it does: then it has started `sleep`."""
    return any(Path(f"/proc/{one}/comm").read_text() == "sleep\n" for one in group_of(pid))
