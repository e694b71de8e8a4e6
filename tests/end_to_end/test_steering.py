"""A sweep that is steered from another terminal while it runs, at the real command."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import warm

SWEEP = (
    "sweep",
    "optimizer.lr=tag(log,interval(1e-4,1e-1))",
    "model.depth=range(1,3)",
    "study.name=s",
    "study.num_trials=500",
    "study.enqueue=[{optimizer.lr:0.02,model.depth:2}]",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
    "launcher.slots=2",
    "pruner=none",
)


class Running:
    """A sweep with more trials than it will ever run."""

    def __init__(self, folder: Path) -> None:
        self.lines: list[str] = []
        self.process = warm.Popen(
            [sys.executable, "-m", "sweeps", *SWEEP],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def until(self, words: str) -> str:
        """Read its lines up to one with these words."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if words in line:
                return line
        raise AssertionError("".join(self.lines))


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    sweep = Running(tmp_path)
    yield sweep
    sweep.process.kill()
    sweep.process.communicate()


def test_a_sweep_is_enqueued_to_and_stopped_while_it_runs(running: Running, lightsweep: Any) -> None:
    assert running.until("trial 0 started").rstrip().endswith("lr=0.02 depth=2 (enqueued)")
    running.until("forecast: all 500 trials in about")
    done = lightsweep("enqueue", "s", "optimizer.lr=0.05")
    assert done.stdout == "lr=0.05: enqueued; it runs next.\n", done.stderr
    started = running.until("lr=0.05 depth=")  # ... which the sampler has added
    assert "enqueued" in started
    stopped = lightsweep("stop", "s")
    assert stopped.stdout.startswith("Told the driver of study 's': it starts no more trials"), stopped.stderr
    running.until("Stopping: no new trials")
    rest = running.process.communicate(timeout=300)[0]
    assert running.process.returncode == 0
    assert not re.search(r"trial \d+ started", rest)
    assert "Stopped by `lightsweep stop` after" in rest and "  lightsweep resume s\n" in rest
    assert lightsweep("stop", "s").returncode == 1
    rows = json.loads(lightsweep("compare", "s", "--format", "json").stdout)
    assert {row["state"] for row in rows} == {"complete"} and len(rows) < 500
    assert sum(row["params"]["optimizer.lr"] == 0.05 for row in rows) == 1


@pytest.mark.slow
def test_a_space_of_two_points_is_trained_twice(lightsweep: Any) -> None:
    done = lightsweep(
        *("sweep", "model.depth=range(1,3)", "study.name=s", "study.num_trials=8", "sampler=random"),
        *("trainer.max_epochs=1", "trainer.accelerator=cpu", "launcher.slots=2", "pruner=none"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"^ +#\d", done.stdout, re.MULTILINE)) == 2  # the leaderboard has no row twice
    assert "8 complete in" in done.stdout and "6 of 8 reused" in done.stdout
    rows = json.loads(lightsweep("compare", "s", "--format", "json").stdout)
    assert len(rows) == 8
    for depth in (1, 2):
        same = [row for row in rows if row["params"]["model.depth"] == depth]
        first = min(same, key=lambda row: row["trial"])
        for row in same:
            assert row["value"] == first["value"]
            assert row["metrics"]["test/acc"] == first["metrics"]["test/acc"]
            assert row is first or row["reason"] == f"same configuration as trial {first['trial']}"
