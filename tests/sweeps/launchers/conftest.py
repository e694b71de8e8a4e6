"""Real ranks that train a small net on digits, and modules of a user's that misbehave."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeps.config import Composer, freeze
from sweeps.launchers.local import LocalLauncher
from sweeps.records import Event, Exited, RankJob

MISCHIEF = '''
import os, signal, time
import torch

class Mischief(torch.nn.Linear):
    """A linear net on digits that does `what` at its third training step."""
    def __init__(self, what: str = "nothing"):
        super().__init__(64, 10)
        self.what, self.steps = what, 0
    def forward(self, x):
        if self.training:
            self.steps += 1
        if self.training and self.steps == 3:
            if self.what == "raise":
                raise ValueError("the third step\\nis bad")
            if self.what == "memory":
                raise MemoryError("no more")
            if self.what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.what == "exit":
                os._exit(0)
            if self.what == "nan":
                return super().forward(x.flatten(1)) * float("nan")
            if self.what == "print":
                print("threads", torch.get_num_threads(), "variable", os.environ.get("OF_THE_SLOT"))
        return super().forward(x.flatten(1))
'''


class Bench:
    """A launcher over a folder of trials."""

    def __init__(self, folder: Path, start_method: Any = "forkserver") -> None:
        self.folder = folder
        (folder / "mischief.py").write_text(MISCHIEF)
        self.composer = Composer("train", [f"store_dir={folder}", "trainer=cpu", "trainer.max_epochs=2"])
        self.launcher = LocalLauncher(
            start_method=start_method,
            modules=["mischief", "lightning_modules.data.digits", "lightning_modules.systems.classifier"],
            python_path=[str(folder)],
            log=folder / "server.log",
        )

    def start(self, number: int, what: str = "nothing", *, job: dict[str, Any] | None = None, **values: Any) -> None:
        config = self.composer.trial({key.replace("__", "."): value for key, value in values.items()}, seed=number)
        config["model"] = {"_target_": "mischief.Mischief", "what": what}
        folder = self.folder / str(number)
        freeze(config, folder)
        allowed = (*self.composer.allowed_modules, "mischief")
        self.launcher.start(
            number,
            RankJob(folder=str(folder), python_path=(str(self.folder),), allowed_modules=allowed, **(job or {})),
        )

    def events(self, number: int, until: Callable[[Event], bool] | None = None) -> list[Event]:
        """Wait for the events of a trial up to its exit, or up to one of a kind; a minute at most."""
        events: list[Event] = []
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for source, event in self.launcher.poll(1.0):
                if source == number:
                    events.append(event)
            if any(isinstance(event, Exited) or (until is not None and until(event)) for event in events):
                return events
        raise AssertionError(f"trial {number} said only {events}")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(tmp_path_factory.mktemp("bench"))
    yield bench
    bench.launcher.close()
