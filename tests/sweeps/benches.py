"""Real ranks that train a small net on digits, and modules of a user's that misbehave."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sweeps.config.composer import Composer, freeze
from sweeps.core.messages import Event, Exited, RankJob
from sweeps.launchers.local import LocalLauncher
from sweeps.launchers.rank_group import Timeouts

MISCHIEF = '''
import ctypes, multiprocessing, os, signal, subprocess, sys, time
import pytorch_lightning as pl
import threadpoolctl
import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, Dataset

class Silent(Exception):
    """One whose text raises."""
    def __str__(self):
        raise ValueError("no text")
    __repr__ = __str__

class Mischief(torch.nn.Linear):
    """A linear net on digits that does `what` at its third training step; on `rank` alone, if one is given."""
    def __init__(self, what: str = "nothing", rank: int | None = None, scale: float = 1.0):
        super().__init__(64, 10)
        is_mine = rank is None or rank == int(os.environ.get("RANK", "0"))
        self.what, self.steps = what if is_mine else "nothing", 0
        self.drop = torch.nn.Dropout(0.5)
        if self.what == "early":
            raise ValueError("no first step")
    def forward(self, x):
        if self.training:
            self.steps += 1
        if self.training and self.steps == 3:
            if self.what == "raise":
                raise ValueError("the third step\\nis bad")
            if self.what == "odd name":
                raise ValueError("cannot read b\\udcff.png\\0")
            if self.what == "long":
                raise RuntimeError("x" * 5_000_000)
            if self.what == "silent":
                raise Silent()
            if self.what == "closed":
                sys.stderr.close()
                os.close(2)
                raise ValueError("where nothing can be written")
            if self.what == "crash":
                ctypes.string_at(0)
            if self.what == "busy":  # holds the interpreter's lock
                subprocess.Popen(["sleep", "600"])
                ctypes.PyDLL(None).sleep(600)
            if self.what == "memory":
                raise MemoryError("no more")
            if self.what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.what == "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            if self.what == "loop":
                while True:
                    time.sleep(0.01)
            if self.what == "exit":
                os._exit(0)
            if self.what == "nan":
                return super().forward(x.flatten(1)) * float("nan")
            if self.what == "print":
                print("threads", torch.get_num_threads(), "variable", os.environ.get("OF_THE_SLOT"))
                print("pools", sorted({pool["num_threads"] for pool in threadpoolctl.threadpool_info()}))
                print("hash", hash("a name"))
                print("workers", multiprocessing.get_start_method())
            if self.what == "mask":
                print("mask", self.drop(torch.ones(64)).bool().int().tolist())
            if self.what == "where":
                names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "GLOO_SOCKET_IFNAME")
                print("place", *(os.environ[name] for name in names))
        return super().forward(self.drop(x.flatten(1)) if self.what == "drop" else x.flatten(1))

class Noisy(Dataset):
    """Digits with noise that is drawn when one is asked for."""
    def __init__(self, x, y, noise):
        self.x, self.y, self.noise = x, y, noise
    def __len__(self):
        return len(self.x)
    def __getitem__(self, index):
        return self.x[index] + self.noise * torch.randn(1, 8, 8), self.y[index]

class Loose(pl.LightningDataModule):
    """Loaders as users write them: nothing says what order and noise are drawn from."""
    def __init__(self, num_workers: int = 0):
        super().__init__()
        self.num_workers = num_workers
        digits = load_digits()
        self.x, self.y = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, torch.tensor(digits.target)
    def train_dataloader(self):
        data = Noisy(self.x[:1500], self.y[:1500], 0.1)
        return DataLoader(data, 64, shuffle=True, num_workers=self.num_workers)
    def val_dataloader(self):
        return DataLoader(Noisy(self.x[1500:], self.y[1500:], 0.0), 100)
'''


def is_gone(pid: int, *, within_s: float) -> bool:
    """Tell whether a process ends in time; a zombie that nobody has buried yet is gone, too."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):  # it went before the file was opened, or was read
            return True
        if state in "ZX":
            return True
        time.sleep(0.01)
    return False


class Bench:
    """A launcher over a folder of trials."""

    def __init__(self, folder: Path, start_method: Any = "forkserver", timeouts: Timeouts | None = None) -> None:
        self.folder = folder
        (folder / "mischief.py").write_text(MISCHIEF)
        self.composer = Composer("train", [f"store_dir={folder}", "trainer=cpu", "trainer.max_epochs=2"])
        self.launcher = LocalLauncher(
            start_method=start_method,
            modules=["mischief", "lightning_modules.data.digits", "lightning_modules.systems.classifier"],
            python_path=[str(folder)],
            log=folder / "server.log",
            timeouts=timeouts,
        )

    def start(
        self,
        number: int,
        what: str = "nothing",
        *,
        ranks: int = 1,
        culprit: int | None = None,
        job: dict[str, Any] | None = None,
        parts: dict[str, Any] | None = None,
        **values: Any,
    ) -> None:
        config = self.composer.trial({key.replace("__", "."): value for key, value in values.items()}, seed=number)
        config["trainer"]["devices"] = ranks
        for name, part in (parts or {}).items():
            config[name] = config[name] | part if name == "callbacks" else part
        config["model"] = {"_target_": "mischief.Mischief", "what": what, "rank": culprit}
        folder = self.folder / str(number)
        freeze(config, folder)
        allowed = (*self.composer.allowed_modules, "mischief")
        self.launcher.start(
            number,
            RankJob(folder=str(folder), python_path=(str(self.folder),), allowed_modules=allowed, **(job or {})),
            ranks,
        )

    def pids(self, number: int) -> list[int]:
        return [rank.process.pid for rank in self.launcher._trials[number].ranks.values()]

    def events(self, number: int, until: Callable[[Event], bool] | None = None) -> list[Event]:
        """Wait for the events of a trial up to its exit, or up to one of a kind; five minutes at most."""
        events: list[Event] = []
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            for source, event in self.launcher.poll(1.0):
                if source == number:
                    events.append(event)
            if any(isinstance(event, Exited) or (until is not None and until(event)) for event in events):
                return events
        raise AssertionError(f"trial {number} said only {events}")
