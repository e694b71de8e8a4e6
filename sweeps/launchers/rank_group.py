"""The state of a trial's ranks together: when it has finished, when it has failed, and which rank caused it.

Pure rules: no process, no pipe, and time is passed in. A launcher passes on what its ranks report.
"""

import signal
from collections.abc import Callable
from dataclasses import dataclass

from sweeps.core.messages import Cause, CheckPassed, Event, Failed, Finished, Joined, Place, Progress
from sweeps.core.text import plain

__all__ = ["RankGroup", "Timeouts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long a trial's ranks are waited for.

    Attributes:
        join_s: From the start until a rank has joined the others.
        stall_s: Between two events of a rank, and after the final messages until all have exited; None: no limit.
        settle_s: After a rank has lost another, until the other has reported or shown why.
        last_look_s: After a stall, until the ranks are killed: time to write down where each is.
    """

    join_s: float = 120.0
    stall_s: float | None = 600.0
    settle_s: float = 2.0
    last_look_s: float = 1.0


@dataclass(slots=True)
class _Rank:
    last_event_s: float
    has_joined: bool = False
    final_message: Finished | CheckPassed | Failed | None = None
    has_exited: bool = False
    step: int = -1


class RankGroup:
    """The ranks of one trial.

    A trial has finished when every rank has reported so, whatever their exit codes. It has failed when one rank has
    failed, died, never joined or fallen silent; then the others are to be killed. The cause that is reported is the
    first failure of a rank's own: a lost connection to another rank counts only if no other failure arrives within
    `Timeouts.settle_s`.

    Args:
        size: The number of ranks.
        now_s: The time of the start.
        timeouts: How long to wait for what.
        place: The place of the only rank in a group whose others have launchers of their own; None if it has none.
    """

    def __init__(self, size: int, now_s: float, timeouts: Timeouts, place: Place | None = None) -> None:
        self._ranks = [_Rank(last_event_s=now_s) for _ in range(size)]
        self._began_s = now_s
        self._timeouts = timeouts
        self._place = place
        self._suspicion: Failed | None = None
        self._settled_at = 0.0
        self._verdict: Finished | CheckPassed | Failed | None = None
        self._kill_at: float | None = None

    def on_event(self, rank: int, event: Event, now_s: float) -> list[Event]:
        """Take an event of a rank, and return the events for the driver."""
        member = self._ranks[rank]
        member.last_event_s = now_s
        match event:
            case Joined():
                member.has_joined = True
            case Failed():
                member.final_message = event
                return self._fail(rank, event, now_s)
            case Finished() | CheckPassed():
                member.final_message = event
                if all(isinstance(other.final_message, (Finished, CheckPassed)) for other in self._ranks):
                    first = self._ranks[0].final_message
                    assert first is not None
                    if self._timeouts.stall_s is not None:  # they wait for each other once more before they go
                        self._kill_at = now_s + self._timeouts.stall_s
                    return self._end(first)
            case _:
                if isinstance(event, Progress):
                    member.step = event.step
                return [event] if rank == 0 else []
        return []

    def on_exit(self, rank: int, exit_code: int, now_s: float, crash: str = "") -> list[Event]:
        """Take that a rank's process has ended, and return the events for the driver.

        Args:
            rank: The rank.
            exit_code: Below 0: killed by a signal.
            now_s: The time.
            crash: What the interpreter wrote when native code crashed: the stacks of all threads.
        """
        member = self._ranks[rank]
        member.has_exited = True
        if member.final_message is not None or self._verdict is not None:
            return self._blame_lost_peer(now_s)
        # A library that has lost a peer may abort the process
        cause: Cause = "peer" if len(self._ranks) > 1 and exit_code == -signal.SIGABRT else "died"
        message = f"{_how_it_died(exit_code)}{_where(crash)}"
        member.final_message = Failed(cause=cause, message=message, traceback=crash)
        return self._fail(rank, member.final_message, now_s)

    def on_tick(self, now_s: float, describe: Callable[[int], str]) -> list[Event]:
        """Let time pass, and return the events for the driver.

        Args:
            now_s: The time.
            describe: Says of a silent rank what its process does, if that can be seen from outside; else nothing.
        """
        if self._verdict is not None:
            return []
        timeouts = self._timeouts
        late = [
            rank for rank, member in enumerate(self._ranks) if not member.has_joined and member.final_message is None
        ]
        if late and now_s - self._began_s > timeouts.join_s:
            who = "the process had not started" if len(self._ranks) == 1 else "not all ranks had started"
            if self._place is not None:
                who = f"not all {self._place.world_size} ranks had met at {self._place.address}:{self._place.port}"
            text = f"{who} within {timeouts.join_s:g} s (launcher.join_timeout_s){_seen(late, describe)}"
            return self._give_up(text, now_s)
        if timeouts.stall_s is None:
            return self._blame_lost_peer(now_s)
        if any(
            member.has_joined and member.final_message is None and now_s - member.last_event_s > timeouts.stall_s
            for member in self._ranks
        ):
            alive = [rank for rank, member in enumerate(self._ranks) if member.final_message is None]
            steps = ", ".join(f"rank {rank} at step {self._ranks[rank].step}" for rank in alive)
            where = "" if len(self._ranks) == 1 else f" ({steps})"
            text = f"no progress for {timeouts.stall_s:g} s (launcher.stall_timeout_s){where}{_seen(alive, describe)}"
            return self._give_up(text, now_s)
        return self._blame_lost_peer(now_s)

    def should_kill(self, now_s: float) -> bool:
        """Tell whether the remaining processes of the trial are to be killed."""
        if self._kill_at is not None:
            return now_s >= self._kill_at
        return isinstance(self._verdict, Failed)

    @property
    def is_over(self) -> bool:
        """Whether no process is left."""
        return all(member.has_exited for member in self._ranks)

    # --- the rules -----------------------------------------------------------------------------------

    def _fail(self, rank: int, failed: Failed, now_s: float) -> list[Event]:
        is_several = len(self._ranks) > 1 or self._place is not None
        if is_several and failed.cause != "usage" and not failed.message.startswith("rank "):
            number = rank if self._place is None else self._place.rank
            failed = Failed(cause=failed.cause, message=f"rank {number}: {failed.message}", traceback=failed.traceback)
        if self._verdict is not None:
            return []
        if failed.cause != "peer":
            return self._end(failed)
        if self._suspicion is None:
            self._suspicion, self._settled_at = failed, now_s + self._timeouts.settle_s
        return self._blame_lost_peer(now_s)

    def _blame_lost_peer(self, now_s: float) -> list[Event]:
        """Take a lost line for the cause when nothing else can be, or nothing else has come to light in time."""
        if self._suspicion is None or self._verdict is not None:
            return []
        has_all = all(isinstance(member.final_message, Failed) for member in self._ranks)
        return self._end(self._suspicion) if has_all or now_s >= self._settled_at else []

    def _give_up(self, message: str, now_s: float) -> list[Event]:
        self._kill_at = now_s + self._timeouts.last_look_s
        return self._end(Failed(cause="stalled", message=message))

    def _end(self, verdict: Finished | CheckPassed | Failed) -> list[Event]:
        self._verdict = verdict
        return [verdict]


def _seen(ranks: list[int], describe: Callable[[int], str]) -> str:
    seen = [f"rank {rank} {words}" for rank in ranks if (words := describe(rank))]
    return f": {', '.join(seen)}" if seen else ""


def _how_it_died(exit_code: int) -> str:
    if exit_code >= 0:
        return f"the process ended with status {exit_code} before it had finished"
    name = signal.Signals(-exit_code).name
    hint = ": often the kernel, out of memory (see dmesg)" if name == "SIGKILL" else ""
    return f"killed by {name}{hint}"


def _where(crash: str) -> str:
    """Say where native code crashed: in the innermost frame of the thread that did."""
    _, _, stack = crash.partition("\nCurrent thread ")
    frame = next((line.strip() for line in stack.splitlines()[1:2] if line.startswith('  File "')), "")
    return f" in native code: {plain(frame[:300])}" if frame else ""
