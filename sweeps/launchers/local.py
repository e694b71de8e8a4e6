"""Start trials as processes of this machine, forked from a server that has imported everything once."""

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from sweeps import trial
from sweeps.errors import StudyError
from sweeps.launchers.preload import VARIABLE
from sweeps.records import Event, Exited, Order, RankJob

__all__ = ["LocalLauncher"]


@dataclass(slots=True)
class _Rank:
    process: BaseProcess
    connection: Connection
    is_open: bool = True


class LocalLauncher:
    """Starts ranks on this machine and carries events and orders.

    **Starting.** `start` returns as soon as the process exists; its events come from `poll`. With `forkserver` a
    process costs milliseconds, since a server has imported `modules` already; with `spawn` it costs the imports.
    `prepare` makes a process ahead, which the next `start` takes.

    **Ending.** The last event of a trial is `Exited`, after all that it had sent. A trial that is killed gets it
    too, and nothing of its process group is left.

    Args:
        start_method: How processes are made.
        modules: What the server imports ahead; what cannot be imported is left to the trial to report.
        python_path: Folders in which the user's modules are found.
        log: The file for what the server prints.
    """

    def __init__(
        self,
        *,
        start_method: Literal["forkserver", "spawn"] = "forkserver",
        modules: Iterable[str] = (),
        python_path: Sequence[str] = (),
        log: Path,
    ) -> None:
        self._context = multiprocessing.get_context(start_method)
        self._ranks: dict[int, _Rank] = {}
        self._spare: _Rank | None = None
        self._log = log
        if start_method == "forkserver":
            log.parent.mkdir(parents=True, exist_ok=True)
            _start_server(modules, python_path, log)

    @property
    def running(self) -> list[int]:
        """The numbers of the trials whose process has not been seen to exit."""
        return list(self._ranks)

    def prepare(self) -> None:
        """Make a process ahead, so that the next `start` need not wait for it.

        Raises:
            StudyError: The process could not be made.
        """
        if self._spare is None:
            self._spare = self._new_rank()

    def start(self, number: int, job: RankJob) -> None:
        """Start the rank of trial `number`.

        Raises:
            StudyError: The process could not be made.
        """
        rank, self._spare = self._spare or self._new_rank(), None
        try:
            rank.connection.send(job)
        except OSError:  # a spare that somebody has killed meanwhile
            _bury(rank)
            rank = self._new_rank()
            rank.connection.send(job)
        self._ranks[number] = rank

    def poll(self, timeout_s: float) -> list[tuple[int, Event]]:
        """Wait at most `timeout_s` for events, and return those that have come, in order within each trial."""
        sources: dict[object, int] = {}
        for number, rank in self._ranks.items():
            sources[rank.process.sentinel] = number
            if rank.is_open:
                sources[rank.connection] = number
        ready = connection.wait(list(sources), timeout_s)  # type: ignore[arg-type]
        events: list[tuple[int, Event]] = []
        for number in dict.fromkeys(sources[source] for source in ready):
            rank = self._ranks[number]
            has_exited = rank.process.sentinel in ready
            events += [(number, event) for event in self._received(rank)]
            if has_exited:
                events.append((number, Exited(exit_code=_bury(self._ranks.pop(number)))))
        return events

    def order(self, number: int, order: Order) -> None:
        """Send an order to a trial; one that is gone already does not hear it."""
        with suppress(OSError, KeyError):
            self._ranks[number].connection.send(order)

    def kill(self, number: int) -> None:
        """End a trial and all that it started, at once."""
        if number in self._ranks:
            _kill_group(self._ranks[number].process)

    def close(self) -> None:
        """Kill what still runs, and the server."""
        spare = [] if self._spare is None else [self._spare]
        for rank in (*self._ranks.values(), *spare):
            _kill_group(rank.process)
            _bury(rank)
        self._ranks, self._spare = {}, None
        if self._context.get_start_method() == "forkserver":
            _stop_server()

    def _received(self, rank: _Rank) -> list[Event]:
        events: list[Event] = []
        try:
            while rank.is_open and rank.connection.poll():
                events.append(rank.connection.recv())
        except (EOFError, OSError):  # closed, or killed in the middle of a message
            rank.is_open = False
        return events

    def _new_rank(self) -> _Rank:
        ours, theirs = self._context.Pipe(duplex=True)
        process = self._context.Process(target=trial.main, args=(theirs,))  # type: ignore[attr-defined]
        try:
            with _without_main():
                process.start()
        except (OSError, EOFError) as error:
            ours.close()
            raise StudyError(f"No process for a trial could be started: {error}; see {self._log}.") from error
        finally:
            theirs.close()
        return _Rank(process, ours)


def _bury(rank: _Rank) -> int:
    """Wait for a rank that ends, leave nothing of it, and return its exit code."""
    rank.process.join()
    _kill_group(rank.process)  # workers that a killed rank left behind
    rank.connection.close()
    exit_code = rank.process.exitcode
    rank.process.close()
    return -signal.SIGKILL if exit_code is None else exit_code


def _kill_group(process: BaseProcess) -> None:
    pid = process.pid
    assert pid is not None
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    if process.exitcode is None:  # killed before it had a group of its own
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide the program's main module from `multiprocessing`, which would run it again in every rank.

    A rank needs nothing of it, and running it costs what it imports.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _start_server(modules: Iterable[str], python_path: Sequence[str], log: Path) -> None:
    order = {"modules": list(modules), "path": [*python_path, *sys.path], "log": str(log.resolve())}
    os.environ[VARIABLE] = json.dumps(order)  # the server inherits the environment; nothing else tells it
    try:
        forkserver.set_forkserver_preload(["sweeps.launchers.preload"])
        with _without_main():
            forkserver.ensure_running()
    finally:
        del os.environ[VARIABLE]


def _stop_server() -> None:
    # The public interface has no way to stop the server before this process exits.
    server: Any = forkserver._forkserver
    if server._forkserver_pid is not None:
        with suppress(ProcessLookupError):  # it has no child left, and may be in the middle of imports
            os.kill(server._forkserver_pid, signal.SIGKILL)
    server._stop()
