"""The entry of a rank: set the process up, train, and say how it ended. Nothing here reads a command line."""

import os
import signal
import sys
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Literal

from sweeps import paths
from sweeps.channel import Channel
from sweeps.config import load_frozen
from sweeps.errors import ConfigError
from sweeps.records import CheckPassed, Failed, Finished, RankJob

__all__ = ["main"]


def main(connection: Connection) -> None:
    """Wait for a job and do it; the last event is `Finished`, `CheckPassed` or `Failed`.

    A process that ends without such a last word has failed, whatever its exit code.
    """
    os.setpgid(0, 0)  # one signal reaches the rank and all that it starts; the terminal's Ctrl-C does not
    _redirect_output(Path(os.devnull))
    _warm_up()
    try:
        job: RankJob = connection.recv()
    except EOFError:  # the driver has ended and needs this process no more
        return
    folder = Path(job.folder)
    _redirect_output(paths.rank_log(folder, 0))
    os.environ.update(job.environment)
    sys.path[:0] = [path for path in job.python_path if path not in sys.path]
    config = load_frozen(folder)
    channel = Channel(connection, flush_interval_s=config["tracking"]["flush_interval_s"], answers=job.answers)
    _own_signals(channel)
    last_word = _run(job, config, channel, folder)
    channel.send(last_word)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if isinstance(last_word, Failed) else 0)  # skip tear-down: libraries' threads may hang there


def _warm_up() -> None:
    """Do what every training does once at its start, while there is no job yet: imports, lazy parts of torch.

    It leaves no trace in a result: all streams are seeded when the job comes.
    """
    import torch

    from sweeps import train  # noqa: F401

    if torch.version.cuda:  # a backward pass and a step ask for the GPUs, before the job says which are visible
        return
    torch.set_num_threads(1)
    layer = torch.nn.Linear(1, 1)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.zeros(1, 1)).sum().backward()
    optimizer.step()


def _run(job: RankJob, config: dict[str, object], channel: Channel, folder: Path) -> Finished | CheckPassed | Failed:
    try:
        import torch

        from sweeps import train

        torch.set_num_threads(job.threads)
        if job.kind == "check":
            corners = [load_frozen(corner) for corner in sorted(folder.iterdir()) if corner.is_dir()]
            return train.check(config, corners, folder=folder, allowed=job.allowed_modules)
        return train.fit(config, channel, folder=folder, allowed=job.allowed_modules)
    except BaseException as error:  # the boundary of the process: whatever it is, the driver must hear of it
        traceback.print_exc()
        return _failed(error)


def _failed(error: BaseException) -> Failed:
    return Failed(cause=_cause(error), message=_one_line(error), traceback=traceback.format_exc())


def _cause(error: BaseException) -> Literal["error", "memory", "diverged", "usage"]:
    import torch

    from sweeps.train import DivergedError

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return "memory"
    if isinstance(error, DivergedError):
        return "diverged"
    return "usage" if isinstance(error, ConfigError) else "error"


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(line if line[-1] in ".:;,?!" or line == lines[-1] else f"{line}." for line in lines)
    is_plain = isinstance(error, ConfigError) or (isinstance(error, FileNotFoundError) and error.errno is None)
    return text if is_plain else f"{type(error).__name__}: {text}".rstrip(": ")


def _redirect_output(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _own_signals(channel: Channel) -> None:
    """Take SIGTERM as the order to stop after the running step."""

    def request_stop(signum: int, frame: FrameType | None) -> None:
        channel.stop_requested.set()

    signal.signal(signal.SIGTERM, request_stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
