"""A rank's connection to the driver: events go out, orders come in, and the rank dies with the driver.

The driver's end of the pipe closes when the driver dies, however it dies; the listener then kills the rank's
whole process group, workers of its data loaders included. Where the kernel can do that itself, it does, since a thread
waits for code that holds the interpreter's lock. So no orphan outlives a driver.
"""

import fcntl
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection

from sweeps.core.messages import (
    Artifact,
    CornerResult,
    Event,
    Failed,
    Finished,
    MetricPoint,
    Metrics,
    Order,
    PruneDecision,
    Report,
    Saved,
    Started,
    Stop,
)

__all__ = ["Channel", "die_with_driver"]

_MAX_POINTS = 500  # a message of this size stays below 64 KiB


def die_with_driver() -> None:
    """Let the kernel kill this process group when the driver ends, however busy its processes are; Linux only.

    The kernel signals the owner of a pipe when its other end closes. The pipe is the one by which `multiprocessing`
    knows the parent, and nothing is written to it any more. A death signal (`prctl`) would reach this process alone,
    and come when the server ends that has forked it.
    """
    driver = multiprocessing.parent_process()
    if driver is None or not hasattr(fcntl, "F_SETSIG"):
        return
    lifeline = driver.sentinel
    with suppress(OSError):  # a kernel that only claims to be Linux
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


class Channel:
    """Sends events to the driver and listens for its orders.

    Args:
        connection: The rank's end of a duplex pipe, whose other end only the driver holds.
        flush_interval_s: How long metric points are held back, to be sent together.
        prunes: Whether the driver answers reports with a `PruneDecision`.
        records: Whether this rank is the one that records; another's metrics, artifacts and the like are not sent.
        hide: Hides what is secret in the words of an event.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        flush_interval_s: float = 0.5,
        prunes: bool = False,
        records: bool = True,
        hide: Callable[[Event], Event] = lambda event: event,
    ) -> None:
        self.flush_interval_s = flush_interval_s
        self.prunes = prunes
        self.stop_requested = threading.Event()
        self._connection = connection
        self._line = threading.Lock()
        self._records = records
        self._hide = hide
        self._inbox: queue.SimpleQueue[PruneDecision] = queue.SimpleQueue()
        self._points: list[MetricPoint] = []
        self._sent_at = time.monotonic()
        threading.Thread(target=self._listen, name="orders", daemon=True).start()

    def send(self, event: Event) -> None:
        """Send an event, after the metric points that were logged before it."""
        if not self._records and isinstance(event, (Started, Saved, Artifact, Report)):
            return
        self.flush()
        with self._line:
            self._connection.send(self._hide(event) if isinstance(event, (Finished, Failed, CornerResult)) else event)

    def report(self, report: Report) -> PruneDecision:
        """Send an intermediate value, and wait for the answer if the driver gives any."""
        self.send(report)
        return self._inbox.get() if self.prunes else PruneDecision(prune=False)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Hold metric points for the next flush; costs microseconds."""
        if not self._records:
            return
        now = int(time.time() * 1000)
        self._points.extend(MetricPoint(key, value, step, now) for key, value in metrics.items())
        if len(self._points) >= _MAX_POINTS or time.monotonic() - self._sent_at > self.flush_interval_s:
            self.flush()

    def flush(self) -> None:
        """Send the metric points that are held."""
        while self._points:
            batch, self._points = self._points[:_MAX_POINTS], self._points[_MAX_POINTS:]
            with self._line:
                self._connection.send(Metrics(points=tuple(batch)))
        self._sent_at = time.monotonic()

    def _listen(self) -> None:
        while True:
            try:
                order: Order = self._connection.recv()
            except (EOFError, OSError):  # the driver is gone
                os.killpg(os.getpgid(0), signal.SIGKILL)
                return
            if isinstance(order, Stop):
                self.stop_requested.set()
            else:
                self._inbox.put(order)
