"""Ctrl-C, a second Ctrl-C, a killed trial and a killed driver, at the real command."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import warm

OVERRIDES = (
    "optimizer.lr=tag(log,interval(1e-4,1e-2))",
    "study.name=s",
    "study.num_trials=3",
    "trainer.accelerator=cpu",
    "launcher.slots=2",
    "pruner=none",
    "test=false",
)
LONG, MIDDLE, SHORT = "trainer.max_epochs=100000", "trainer.max_epochs=120", "trainer.max_epochs=1"


class Running:
    """A sweep whose trials train until somebody stops them."""

    def __init__(self, folder: Path, epochs: str = LONG) -> None:
        self.folder = folder
        self.process = warm.Popen(
            [sys.executable, "-m", "sweeps", "sweep", *OVERRIDES, epochs],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.until(lambda: len(list(folder.glob("mlruns/s/*/checkpoints/*.ckpt"))) >= 2)

    def until(self, is_so: Callable[[], bool], within_s: float = 60) -> None:
        """Wait until something is so; the sweep must go on meanwhile."""
        deadline = time.monotonic() + within_s
        while not is_so():
            assert time.monotonic() < deadline
            assert self.process.poll() is None, self.process.communicate()[0]

    def ranks(self) -> list[int]:
        """The processes that train: those which keep a trial's log open."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    target = str((entry / "fd" / "1").readlink())
                except OSError:
                    continue
                if re.fullmatch(rf"{re.escape(str(self.folder))}/mlruns/s/\d+/rank0\.log", target):
                    found.append(int(entry.name))
        return sorted(found)

    def end(self) -> str:
        """Wait for the end, and return what was printed."""
        return self.process.communicate(timeout=300)[0]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    sweep = Running(tmp_path)
    yield sweep
    sweep.process.kill()
    sweep.process.communicate()


def compare(folder: Path) -> dict[int, dict[str, Any]]:
    command = [sys.executable, "-m", "sweeps", "compare", "s", "--format", "json"]
    rows = json.loads(warm.run(command, cwd=folder, capture_output=True, check=True).stdout)
    return {row["trial"]: row for row in rows}


def shorten(folder: Path) -> None:
    """Let what is resumed train for an epoch only."""
    record = folder / "mlruns" / "s" / "study.yaml"
    record.write_text(record.read_text().replace(LONG, SHORT))


def test_ctrl_c_records_the_trials_and_says_how_to_go_on(running: Running) -> None:
    running.process.send_signal(signal.SIGINT)
    printed = running.end()
    assert running.process.returncode == 130
    assert "lightsweep resume s" in printed
    assert "Traceback" not in printed
    assert {row["state"] for row in compare(running.folder).values()} == {"interrupted"}
    assert running.ranks() == []


@pytest.mark.slow
def test_what_was_interrupted_goes_on_with_its_number_and_the_total_is_kept(tmp_path: Path, lightsweep: Any) -> None:
    running = Running(tmp_path, MIDDLE)
    running.process.send_signal(signal.SIGINT)
    running.end()
    before = compare(tmp_path)
    assert {before[number]["state"] for number in (0, 1)} == {"interrupted"}
    resumed = lightsweep("resume", "s")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    after = compare(tmp_path)
    assert {number: row["state"] for number, row in after.items()} == dict.fromkeys(range(3), "complete")
    for number in (0, 1):  # the same run goes on
        assert after[number]["params"] == before[number]["params"]
        assert after[number]["run_id"] == before[number]["run_id"]
    again = lightsweep("resume", "s")
    assert "has its 3 trials already" in again.stdout


@pytest.mark.slow
def test_what_was_interrupted_begins_anew_where_the_configuration_is_another(running: Running, lightsweep: Any) -> None:
    running.process.send_signal(signal.SIGINT)
    running.end()
    before = compare(running.folder)
    shorten(running.folder)
    resumed = lightsweep("resume", "s", cwd=running.folder)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    rows = json.loads(lightsweep("compare", "s", "--format", "json", cwd=running.folder).stdout)
    assert sorted(row["state"] for row in rows) == ["complete"] * 3 + ["interrupted"] * 2
    assert {row["run_id"] for row in rows if row["state"] == "interrupted"} == {r["run_id"] for r in before.values()}


def test_a_second_ctrl_c_ends_at_once_and_still_records(running: Running) -> None:
    os.kill(running.ranks()[0], signal.SIGSTOP)  # it would not hear the first
    running.process.send_signal(signal.SIGINT)
    running.until(lambda: len(running.ranks()) == 1)
    running.process.send_signal(signal.SIGINT)
    running.end()
    assert running.process.returncode == 130
    assert [row["state"] for row in compare(running.folder).values()] == ["interrupted", "interrupted"]
    assert running.ranks() == []


def test_a_killed_trial_is_a_failure_and_the_sweep_goes_on(running: Running) -> None:
    os.kill(running.ranks()[0], signal.SIGKILL)
    running.until(lambda: (running.folder / "mlruns/s/0002/checkpoints").exists())  # the next one trains
    running.process.send_signal(signal.SIGINT)
    assert "SIGKILL" in running.end()
    states = sorted(row["state"] for row in compare(running.folder).values())
    assert states == ["failed", "interrupted", "interrupted"]


def test_a_killed_driver_leaves_no_process(running: Running) -> None:
    running.process.kill()
    running.process.wait()
    deadline = time.monotonic() + 60
    while running.ranks():
        assert time.monotonic() < deadline


def test_a_study_has_one_driver(running: Running, lightsweep: Any) -> None:
    second = lightsweep("sweep", *OVERRIDES, LONG, cwd=running.folder)
    assert second.returncode == 1
    assert "Another process drives study 's'" in second.stderr
