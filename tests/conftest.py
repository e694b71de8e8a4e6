"""What tests of several folders share: the real command, and one real sweep for all who only look at it."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

Command = Callable[..., subprocess.CompletedProcess[str]]

SMALL_SWEEP = (
    "sweep",
    "study.name=small",
    "study.num_trials=6",
    "trainer.max_epochs=3",
    "trainer.accelerator=cpu",
    "pruner.n_startup_trials=2",
    "launcher.slots=2",
    "seed=1",
)


def run_lightsweep(*arguments: str, cwd: Path, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """Run the command as a shell would, and return what it printed and its status."""
    return subprocess.run(
        [sys.executable, "-m", "sweeps", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "TERM": "dumb"},
        check=False,
    )


@pytest.fixture(scope="session")
def lightsweep_in() -> Command:
    """The command, run in the folder `cwd`; for fixtures that several tests share."""
    return run_lightsweep


@pytest.fixture
def lightsweep(tmp_path: Path) -> Command:
    """The command, run in a new folder."""

    def run(*arguments: str, cwd: Path = tmp_path, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        return run_lightsweep(*arguments, cwd=cwd, timeout_s=timeout_s)

    return run


@dataclass(frozen=True)
class Swept:
    """A folder in which a sweep and a `train` have run, and what they printed; not to be written to."""

    folder: Path
    sweep: subprocess.CompletedProcess[str]
    train: subprocess.CompletedProcess[str]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command that only looks."""
        return run_lightsweep(*arguments, cwd=self.folder)

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder}/mlruns/mlflow.db"


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """One real sweep of six trials with pruning, and one `train`."""
    folder = tmp_path_factory.mktemp("swept")
    sweep = run_lightsweep(*SMALL_SWEEP, cwd=folder)
    assert sweep.returncode == 0, sweep.stdout + sweep.stderr
    train = run_lightsweep("train", "trainer.max_epochs=2", "trainer.accelerator=cpu", cwd=folder)
    assert train.returncode == 0, train.stdout + train.stderr
    return Swept(folder, sweep, train)
