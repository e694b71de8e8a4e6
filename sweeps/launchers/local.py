"""Start trials as processes of this machine, forked from a server that has imported everything once."""

import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import connection, forkserver, reduction
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from sweeps.core import paths
from sweeps.core.errors import StudyError
from sweeps.core.messages import Event, Exited, Failed, Order, Place, RankJob
from sweeps.core.text import storable
from sweeps.launchers.launcher import Launcher
from sweeps.launchers.preload import VARIABLE
from sweeps.launchers.rank_group import RankGroup, Timeouts
from sweeps.worker.main import main as rank_main
from sweeps.worker.main import pool_sizes

__all__ = ["LocalLauncher"]

_LOOPBACK = "127.0.0.1"
_HASH_SEED = "PYTHONHASHSEED"
_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
_MOST_OF_CRASH = 50_000  # bytes
_UNHEARD_S = 1.0  # so much of the time between two calls counts as a rank's silence


@dataclass(slots=True)
class _Rank:
    process: BaseProcess
    connection: Connection
    is_open: bool = True
    log: Path | None = None


@dataclass(slots=True)
class _Trial:
    ranks: dict[int, _Rank]
    group: RankGroup


class LocalLauncher(Launcher):
    """Starts the ranks of trials on this machine and carries events and orders.

    **Starting.** `start` returns as soon as the processes exist; the trial's events come from `poll`. With
    `forkserver` a process costs milliseconds, since a server has imported `modules` already; with `spawn` it costs
    the imports. `prepare` makes processes ahead, which the next `start` takes.

    **Meeting.** The ranks of a trial meet at a socket of the loopback interface, which this process opens and hands
    to rank 0: it listens before any rank exists, no two trials can get the same port, and nothing about it goes
    through environment variables.

    **Ending.** The last event of a trial is `Exited`, after all that it had sent. A trial that is killed gets it
    too, and nothing of the process groups of its ranks is left. One rank that fails ends all; see `RankGroup`.

    Args:
        start_method: How processes are made.
        modules: What the server imports ahead; what cannot be imported is left to the trial to report.
        python_path: Folders in which the user's modules are found.
        log: The file for what the server prints.
        threads: How many CPU threads each job will have: libraries make their pools when they are loaded.
        timeouts: How long ranks are waited for.
        clock: The time in seconds; monotonic.
    """

    def __init__(
        self,
        *,
        start_method: Literal["forkserver", "spawn"] = "forkserver",
        modules: Iterable[str] = (),
        python_path: Sequence[str] = (),
        log: Path,
        threads: int = 1,
        timeouts: Timeouts | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._context = multiprocessing.get_context(start_method)
        self._trials: dict[int, _Trial] = {}
        self._spares: list[_Rank] = []
        self._log = log
        self._variables = {_HASH_SEED: os.environ.get(_HASH_SEED, "0"), **pool_sizes(threads)}
        self._timeouts = timeouts or Timeouts()
        self._clock = clock
        self._called_at, self._excused_s = clock(), 0.0
        if start_method == "forkserver":
            log.parent.mkdir(parents=True, exist_ok=True)
            _start_server(modules, python_path, log, self._variables)

    @property
    def running(self) -> list[int]:
        """The numbers of the trials of which a process may be left."""
        return list(self._trials)

    def prepare(self, num_ranks: int = 1) -> None:
        """Make processes ahead, so that the next `start` need not wait for them.

        Raises:
            StudyError: A process could not be made.
        """
        while len(self._spares) < num_ranks:
            self._spares.append(self._new_rank())

    def start(self, number: int, job: RankJob, num_ranks: int = 1) -> None:
        """Start the ranks of trial `number`.

        A job whose place is given is that of one rank of a group that others start, too.

        Raises:
            StudyError: A process could not be made.
        """
        job = replace(job, join_timeout_s=self._timeouts.join_s, stall_timeout_s=self._timeouts.stall_s)
        place = job.place if job.place.is_given else None
        trial = _Trial({}, RankGroup(num_ranks, self._now(), self._timeouts, place))
        self._trials[number] = trial  # from here on `close` ends what exists
        if num_ranks == 1:
            trial.ranks[0] = self._assign_job(job)
            return
        with socket.create_server((_LOOPBACK, 0), backlog=num_ranks) as meeting:
            local = tuple(item for item in _loopback_only() if item[0] not in os.environ)
            for rank in range(num_ranks):
                place = Place(
                    rank=rank,
                    world_size=num_ranks,
                    local_rank=rank,
                    address=_LOOPBACK,
                    port=meeting.getsockname()[1],
                )
                own = replace(job, place=place, environment=(*local, *job.environment))
                trial.ranks[rank] = self._assign_job(own, meeting if rank == 0 else None)

    def poll(self, timeout_s: float) -> list[tuple[int, Event]]:
        """Wait at most `timeout_s` for events, and return those that have come, in order within each trial."""
        sources: dict[object, tuple[int, int]] = {}
        for number, trial in self._trials.items():
            for index, rank in trial.ranks.items():
                sources[rank.process.sentinel] = number, index
                if rank.is_open:
                    sources[rank.connection] = number, index
        self._now()
        ready = connection.wait(list(sources), timeout_s)  # type: ignore[arg-type]
        self._called_at = self._clock()
        events: list[tuple[int, Event]] = []
        for number, index in dict.fromkeys(sources[source] for source in ready):
            trial = self._trials[number]
            rank, group = trial.ranks[index], trial.group
            has_exited = rank.process.sentinel in ready
            for event in self._received(rank):
                events += [(number, passed) for passed in group.on_event(index, event, self._now())]
            if has_exited:
                exit_code = _reap(trial.ranks.pop(index))
                crash = _crash(rank.log) if -exit_code in _CRASHES else ""
                events += [(number, passed) for passed in group.on_exit(index, exit_code, self._now(), crash)]
        for number in list(self._trials):
            events += [(number, event) for event in self._watch_peers(number)]
        return events

    def order(self, number: int, order: Order) -> None:
        """Send an order to a trial, which its rank 0 hears; one that is gone already does not."""
        with suppress(OSError, KeyError):
            self._trials[number].ranks[0].connection.send(order)

    def kill(self, number: int) -> None:
        """End a trial and all that it started, at once."""
        if number in self._trials:
            for rank in self._trials[number].ranks.values():
                _kill_group(rank.process)

    def close(self) -> None:
        """Kill what still runs, and the server."""
        left = [*self._spares, *(rank for trial in self._trials.values() for rank in trial.ranks.values())]
        for rank in left:
            _kill_group(rank.process)
        for rank in left:
            _reap(rank)
        self._trials, self._spares = {}, []
        if self._context.get_start_method() == "forkserver":
            _stop_server()

    def _now(self) -> float:
        """Return the time that the rules go by: who waits for an answer of a busy driver is not silent."""
        now = self._clock()
        self._excused_s += max(0.0, now - self._called_at - _UNHEARD_S)
        self._called_at = now
        return now - self._excused_s

    def _watch_peers(self, number: int) -> list[Event]:
        """Apply the rules of the group now: ask silent ranks for their stacks, kill a failed group, report its exit."""
        trial = self._trials[number]
        events = trial.group.on_tick(self._now(), lambda index: _describe(trial.ranks[index].process))
        if any(isinstance(event, Failed) and event.cause == "stalled" for event in events):
            for rank in trial.ranks.values():
                _signal(rank.process, signal.SIGUSR1)  # write down where it is, see `trial`
        if trial.group.should_kill(self._now()):
            self.kill(number)
        if trial.group.is_over:
            del self._trials[number]
            events.append(Exited())
        return events

    def _assign_job(self, job: RankJob, meeting: socket.socket | None = None) -> _Rank:
        """Give the job to a process that was made ahead, or to a new one."""
        while True:
            is_spare = bool(self._spares)
            rank = self._spares.pop(0) if is_spare else self._new_rank()
            try:
                rank.connection.send(job)
                if meeting is not None:
                    reduction.send_handle(rank.connection, meeting.fileno(), rank.process.pid)
            except OSError:
                _kill_group(rank.process)  # it may live, and wait for what could not be sent
                _reap(rank)
                if not is_spare:  # else somebody has killed it meanwhile
                    raise
            else:
                rank.log = paths.rank_log(Path(job.folder), job.place.rank)
                return rank

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
        process = self._context.Process(target=rank_main, args=(theirs,))  # type: ignore[attr-defined]
        try:
            with _without_main(), _set(self._variables):
                process.start()
        except (OSError, EOFError) as error:
            ours.close()
            raise StudyError(f"No process for a trial could be started: {error}; see {self._log}.") from error
        finally:
            theirs.close()
        return _Rank(process, ours)


def _loopback_only() -> Iterator[tuple[str, str]]:
    """Name the variables by which the ranks of this machine talk over the loopback interface and no other."""
    loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
    if loopback is not None:
        yield "GLOO_SOCKET_IFNAME", loopback
        yield "NCCL_SOCKET_IFNAME", loopback


def _describe(process: BaseProcess) -> str:
    """Say what can be seen of a process that is silent."""
    try:
        state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
    return {"T": "is stopped by a signal", "t": "is held by a debugger", "D": "waits for a disk"}.get(state, "")


def _crash(log: Path | None) -> str:
    """Return the end of a rank's log from where the interpreter says that native code has crashed; else nothing."""
    if log is None or not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _MOST_OF_CRASH))
        _, mark, crash = file.read().rpartition(b"Fatal Python error: ")
    return storable((mark + crash).decode(errors="replace")) if mark else ""


def _signal(process: BaseProcess, signum: int) -> None:
    assert process.pid is not None
    with suppress(ProcessLookupError):
        os.kill(process.pid, signum)


def _reap(rank: _Rank) -> int:
    """Wait until a rank has ended, kill what it left behind, and return its exit code."""
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
        _signal(process, signal.SIGKILL)


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


@contextmanager
def _set(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment for the processes that are started meanwhile, and give back what was there.

    They are what is read when an interpreter starts or a library is loaded, so that no job can tell it later: how
    texts are hashed, and with it the order of a set of names, would be another in each driver's life; and how many
    threads sum up a matrix would follow the shell's variables.
    """
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _start_server(modules: Iterable[str], python_path: Sequence[str], log: Path, variables: Mapping[str, str]) -> None:
    order = {
        "modules": list(modules),
        "path": [*python_path, *sys.path],
        "own": list(python_path),
        "log": str(log.resolve()),
    }
    os.environ[VARIABLE] = json.dumps(order)  # the server inherits the environment; nothing else tells it
    try:
        forkserver.set_forkserver_preload(["sweeps.launchers.preload"])
        with _without_main(), _set(variables):
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
