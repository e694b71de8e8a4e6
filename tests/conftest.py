"""What tests of several folders share: the real command, one real sweep for all who only look at it, a browser."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import warm
from filelock import FileLock
from hypothesis import settings

# Before torch is imported, here and in all processes that tests start: OpenMP threads that wait for each other sleep.
# By default they spin, and two trials on two cores spend more time on that than on training.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# HYPOTHESIS_PROFILE=full, as in .ci/run, tries as many examples as a change of the search space deserves
settings.register_profile("quick", max_examples=25, deadline=None)
settings.register_profile("full", max_examples=150, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of the session share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session", autouse=True)
def launchers_are_warm(shared: Path) -> None:
    """Let launchers that tests make fork their servers from one that has imported everything."""
    warm.adopt_launchers(shared)


@pytest.fixture(autouse=True)
def cold(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start real processes in tests that are marked `cold`."""
    if request.node.get_closest_marker("cold") is not None:
        monkeypatch.setenv(warm.COLD, "1")


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


def run_lightsweep(*arguments: str, cwd: Path, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
    """Run the command as a shell would, and return what it printed and its status."""
    return warm.run(
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

    def run(*arguments: str, cwd: Path = tmp_path, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
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
def swept(shared: Path) -> Swept:
    """One real sweep of six trials with pruning, and one `train`; all workers of the session share it."""
    folder, printed = shared / "swept", shared / "swept.json"
    with FileLock(shared / "swept.lock"):
        if not printed.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
            folder.mkdir()
            sweep = run_lightsweep(*SMALL_SWEEP, cwd=folder)
            assert sweep.returncode == 0, sweep.stdout + sweep.stderr
            train = run_lightsweep("train", "trainer.max_epochs=2", "trainer.accelerator=cpu", cwd=folder)
            assert train.returncode == 0, train.stdout + train.stderr
            printed.write_text(json.dumps([vars(sweep), vars(train)]))
    sweep, train = (subprocess.CompletedProcess(**done) for done in json.loads(printed.read_text()))
    return Swept(folder, sweep, train)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window, driven by selenium; `get_log("browser")` tells what its console said."""
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("Chromium is not installed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "window-size=1600,1200"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(executable_path=driver))
    opened.set_page_load_timeout(60)
    try:
        yield opened
    finally:
        opened.quit()
