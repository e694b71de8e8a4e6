"""The driver's side of the check before the first trial: run the corners of the space, and judge the results together.

A rank reports the result of each corner (`worker/preflight.py`). Here they are compared: memory, parameters without a
gradient, and searched keys that change nothing.

A key is suspected if all corners that differ in it alone behave alike. That alone proves little: dropout changes
nothing in a net without hidden layers. So a suspect is also varied at every other corner before it is reported.
"""

import math
import shutil
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from sweeps.config.composer import Config, fingerprint, freeze
from sweeps.config.quoting import quote
from sweeps.core import paths
from sweeps.core.errors import ConfigError, LightsweepError, PreflightError
from sweeps.core.messages import CheckPassed, CornerResult, Event, Exited, Failed
from sweeps.core.text import memory, shortened
from sweeps.driver.jobs import JobBuilder
from sweeps.driver.preflight_report import AvailableMemory, CheckReport, Point, Size, Unused, text_of
from sweeps.launchers.launcher import Launcher
from sweeps.launchers.slots import Slot
from sweeps.search.space.space import Space

__all__ = ["check", "suspects", "variants", "without_effect"]

_CHECK = -1  # the number of the check among the trials
_LIMIT_S = 20.0  # for running the corners after the first
_MOST_OF_VALUES = 1000  # characters, in a message
_LAST_S = 5.0  # for a process that is killed to be gone
_MOST_COMPARED = 40  # configs that are trained to find out whether a key changes anything
_JUDGED = ("model.", "system.", "data.", "optimizer.")  # what else there is acts later than in the first batches
_UNJUDGED = {  # of a loader: they change how fast batches come, not what is in them
    "multiprocessing_context",
    "num_workers",
    "persistent_workers",
    "pin_memory",
    "prefetch_factor",
    "timeout",
    "timeout_s",
}

Compose = Callable[[Point], Config]
Corner = tuple[Point, Config]


def check(
    launcher: Launcher,
    jobs: JobBuilder,
    corners: Sequence[Corner],
    slots: Sequence[Slot],
    store_dir: Path,
    *,
    space: Space | None = None,
    compose: Compose | None = None,
    judged: Sequence[str] = (),
) -> CheckReport:
    """Build and run the corners of a space, before any trial is asked for.

    Args:
        launcher: Starts the processes.
        jobs: Builds what they are started with.
        corners: The points to try, with their configs; for a single run its config alone, without values.
        slots: The leases; the check runs in the first.
        store_dir: The store, in which the check's log stays if what fails is no error of usage.
        space: What is searched; None for a single run.
        compose: Composes the config of any point of the space; needed where there is one.
        judged: The metrics that trials are judged by.

    Raises:
        ConfigError: The configuration is to blame.
        PreflightError: Something else failed.
    """
    points = [point for point, _ in corners]
    configs = [config for _, config in corners]
    bench = _Bench(launcher, jobs, slots[0], paths.check_dir(store_dir), judged)
    try:
        results, final_message = bench.run("check", configs)
        if isinstance(final_message, Failed):
            raise _failure(final_message, points, len(results), bench.folder)
        view = _View(
            points=points,
            results=results,
            prints=[fingerprint(config) for config in configs],
            passed=final_message,
            available=_available(final_message, slots),
        )
        search = None if space is None or compose is None else (space, compose)
        report = view.report(search, bench)
    except BaseException as error:
        bench.clear(keeps_logs=isinstance(error, PreflightError))
        raise
    bench.clear()
    return report


class _Bench:
    """Runs checks in processes of their own, one at a time, in one folder."""

    def __init__(
        self, launcher: Launcher, jobs: JobBuilder, slot: Slot, folder: Path, judged: Sequence[str] = ()
    ) -> None:
        self.folder = folder
        self._judged = tuple(judged)
        self._launcher = launcher
        self._jobs = jobs
        self._slot = slot
        self._num_runs = 0
        self._is_running = False
        self.elapsed_s = 0.0

    @property
    def left_s(self) -> float:
        """How much time there is left."""
        return max(0.0, _LIMIT_S - self.elapsed_s)

    def run(
        self, kind: Literal["check", "measure", "compare"], configs: Sequence[Config]
    ) -> tuple[list[CornerResult], CheckPassed | Failed]:
        """Let a process try configs, and return what it told of each, as far as it came, and its last word."""
        folder = self.folder / f"again-{self._num_runs}" if self._num_runs else self.folder
        self._num_runs += 1
        freeze(configs[0], folder)
        for number, config in enumerate(configs[1:]):
            freeze(config, paths.trial_dir(folder, number))
        self._is_running = True
        self._launcher.start(
            _CHECK,
            self._jobs.job(kind, folder, self._slot, configs, limit_s=self.left_s, judged=self._judged),
            self._slot.devices,
        )
        events = self._remaining_events()
        final_messages = [event for event in events if isinstance(event, (CheckPassed, Failed))]
        assert final_messages, "a launcher says how a check ended before it says that nothing is left"
        final_message = final_messages[0]
        self.elapsed_s += final_message.duration_s if isinstance(final_message, CheckPassed) else _LIMIT_S
        return [event for event in events if isinstance(event, CornerResult)], final_message

    def clear(self, *, keeps_logs: bool = False) -> None:
        """End what still runs, and remove the folder, unless an error names the logs in it."""
        if self._is_running:
            self._launcher.kill(_CHECK)
            with suppress(LightsweepError):
                self._remaining_events(_LAST_S)
        if not keeps_logs:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _remaining_events(self, timeout_s: float = float("inf")) -> list[Event]:
        events: list[Event] = []
        deadline = time.monotonic() + timeout_s
        while self._is_running and time.monotonic() < deadline:
            events += [event for number, event in self._launcher.poll(1.0) if number == _CHECK]
            self._is_running = not any(isinstance(event, Exited) for event in events)
        return events


def _failure(failed: Failed, points: Sequence[Point], index: int, folder: Path) -> LightsweepError:
    """Say what failed, and at which values: of a later corner those in which it differs from the first."""
    point = points[min(index, len(points) - 1)]
    own = _differing(point, points[0]) if index else {}
    message = f"{shortened(text_of(own), _MOST_OF_VALUES)}: {failed.message}" if own else failed.message
    if failed.cause == "usage":
        return ConfigError(message)
    where = f" with {shortened(text_of(point), _MOST_OF_VALUES)}" if point and not own else ""
    return PreflightError(
        f"{message}\n(two batches were tried beforehand{where}; all of it is in "
        f"{', '.join(str(log) for log in paths.rank_logs(folder))})"
    )


def _differing(point: Point, first: Point) -> Point:
    differing = {k: v for k, v in point.items() if k not in first or quote(first[k]) != quote(v)}
    return differing or point


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """All that is known after the corners were tried."""

    points: Sequence[Point]
    results: Sequence[CornerResult]
    prints: Sequence[str]
    passed: CheckPassed
    available: AvailableMemory

    def report(self, search: tuple[Space, Compose] | None, bench: _Bench) -> CheckReport:
        """Judge what was seen, and look once more where that is needed."""
        sizes = [
            Size(values=_differing(point, self.points[0]) if number else point, **_size(result))
            for number, (point, result) in enumerate(zip(self.points, self.results, strict=True))
        ]
        combination: tuple[Point, str] | None = None
        unread: list[str] = []
        idle: list[str] = []
        if search is not None:
            space, compose = search
            unread = self._unread(space, compose)
            idle = self._idle(space, compose, bench, unread)
            largest = _largest(space, self.points, self.results)
            if largest is not None:
                size, why = self._measured(largest, compose(largest), bench)
                sizes += [] if size is None else [size]
                combination = None if why is None else (largest, why)
        measured = [size for size in sizes if size.memory is not None]
        return CheckReport(
            num_corners=len(self.points),
            num_run=sum(result.was_run for result in self.results),
            elapsed_s=bench.elapsed_s,
            metrics=self.passed.metrics,
            smallest=min(sizes, key=lambda size: size.num_parameters),
            largest=max(sizes, key=lambda size: size.num_parameters),
            peak_memory=max(measured, key=lambda size: size.memory.total if size.memory else 0, default=None),
            available=self.available,
            unread=tuple(unread),
            idle=tuple(idle),
            unused=self._unused(),
            combination=combination,
            heard=self.passed.warnings,
            late=self.passed.late,
        )

    def _unread(self, space: Space, compose: Compose) -> list[str]:
        """Return the keys whose values leave the whole configuration of a run as it is."""
        keys = suspects(space, self.points, self.prints)
        return without_effect(space, self.points, keys, lambda point: fingerprint(compose(point)))

    def _idle(self, space: Space, compose: Compose, bench: _Bench, unread: Sequence[str]) -> list[str]:
        """Return the keys that are read, but change nothing of what the first batches of any corner compute."""
        digests = [result.digest or None for result in self.results]
        keys = [
            key
            for key in suspects(space, self.points, digests)
            if key.startswith(_JUDGED) and key.rpartition(".")[2] not in _UNJUDGED and key not in unread
        ]
        asked = {text_of(point): point for key in keys for pair in variants(space, self.points, key) for point in pair}
        if not asked or len(asked) > _MOST_COMPARED or bench.left_s <= 0:
            return []
        results, final_message = bench.run("compare", [compose(point) for point in asked.values()])
        if isinstance(final_message, Failed):  # a combination of no corner; a trial there will say so
            return []
        known = {text: one.digest for text, one in zip(asked, results, strict=False)}  # as far as the time went
        return without_effect(space, self.points, keys, lambda point: known.get(text_of(point)))

    def _measured(self, point: Point, config: Config, bench: _Bench) -> tuple[Size | None, str | None]:
        """Run the point that joins what is large; return its size, or why there is none."""
        expected = _extrapolated(self.points, self.results)
        if expected > self.available.num_bytes:  # or the kernel would choose what to kill
            return None, (
                f"may take {memory(expected)} a rank (extrapolated from the corners), but "
                f"{memory(self.available.num_bytes)} are free: trials there may fail. This was not tried."
            )
        if bench.left_s <= 0:
            return None, None
        results, final_message = bench.run("measure", [config])
        if isinstance(final_message, Failed):
            return None, f"fail, and so will trials there: {final_message.message}"
        return Size(values=_differing(point, self.points[0]), **_size(results[0])), None

    def _unused(self) -> tuple[Unused, ...]:
        """Return the parameters without a gradient, those of all corners first."""
        ran = [(point, result) for point, result in zip(self.points, self.results, strict=True) if result.was_run]
        everywhere = {name for _, result in ran[:1] for name in result.unused}
        everywhere.intersection_update(*(result.unused for _, result in ran))
        told, found = set(everywhere), []
        if everywhere:
            found.append(Unused(names=tuple(n for n in ran[0][1].unused if n in everywhere), values=None))
        for point, result in ran:
            own = tuple(name for name in result.unused if name not in told)
            if own:
                told |= set(own)
                found.append(Unused(names=own, values=_differing(point, self.points[0])))
        return tuple(found)


def _size(result: CornerResult) -> dict[str, Any]:
    return {"num_parameters": result.num_parameters, "memory": result.memory}


def _largest(space: Space, points: Sequence[Point], results: Sequence[CornerResult]) -> Point | None:
    """Join what makes each corner larger than the first; None if that is a corner already, or nothing is larger.

    A corner differs from the first by as little as can be, so none of them has the largest of everything.
    """
    first = results[0].memory
    if first is None:
        return None
    larger = [(it.memory.total, point) for it, point in zip(results, points, strict=True) if it.memory is not None]
    larger = sorted((pair for pair in larger if pair[0] > first.total), key=lambda pair: pair[0])
    firsts = {(parameter.key_path, quote(parameter.ends[0])) for parameter in space}
    base = space.by_key_path(points[0])
    found: Point = points[0]
    for _, point in larger:  # the largest last, which so has the say
        joined = space.by_key_path(found)
        changes = {
            key: value
            for key, value in space.by_key_path(point).items()
            if quote(base.get(key)) != quote(value)
            and not (key in joined and (key, quote(value)) in firsts)  # it is there for the sake of others
        }
        found = space.moved(found, changes) or found
    return None if text_of(found) in {text_of(point) for point in points} else found


def _extrapolated(points: Sequence[Point], results: Sequence[CornerResult]) -> float:
    """Multiply by how much each group of keys makes the first corner larger."""
    first = results[0].memory
    assert first is not None
    ratios: dict[frozenset[str], float] = {}
    for point, it in zip(points[1:], results[1:], strict=True):
        keys = frozenset(_differing(point, points[0]))
        if it.memory is not None:
            ratios[keys] = max(ratios.get(keys, 1.0), it.memory.total / first.total)
    return first.total * math.prod(ratios.values())


# --- the memory that there is --------------------------------------------------------------------------


def _available(passed: CheckPassed, slots: Sequence[Slot]) -> AvailableMemory:
    if passed.device_bytes is not None:
        uses = [gpu for slot in slots for gpu in slot.gpus]
        sharing = max((uses.count(gpu) for gpu in uses), default=1)  # a trial has one rank on each of its GPUs
        return AvailableMemory(where="gpu", num_bytes=passed.device_bytes, num_ranks=sharing)
    return AvailableMemory(where="host", num_bytes=host_memory_bytes(), num_ranks=sum(slot.devices for slot in slots))


def host_memory_bytes(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how much memory this process and its children may still take, as Linux and the container's limit say."""
    kilobytes = {}
    with suppress(OSError):
        for line in (proc / "meminfo").read_text().splitlines():
            name, _, rest = line.partition(":")
            kilobytes[name] = int(rest.split()[0])
    free = kilobytes.get("MemAvailable", 0) * 1024 or _physical_bytes()
    with suppress(OSError, ValueError):  # no limit is the word `max`
        limit, used = ((cgroup / f"memory.{name}").read_text() for name in ("max", "current"))
        free = min(free, max(0, int(limit) - int(used)))
    return free


def _physical_bytes() -> int:
    import os

    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def suspects(space: Space, points: Sequence[Point], behaviours: Sequence[Hashable | None]) -> list[str]:
    """Return the keys of the space in which points that differ in nothing else behave alike.

    Args:
        space: What is searched.
        points: Some of its points, such as the corners.
        behaviours: What each of them does; None where that is not known.
    """
    alike: dict[str, bool] = {}
    for (one, its), (other, others) in combinations(list(zip(points, behaviours, strict=True)), 2):
        key = _only_difference(space, one, other)
        if key is not None and its is not None and others is not None:
            alike[key] = alike.get(key, True) and its == others
    return [parameter.key_path for parameter in space if alike.pop(parameter.key_path, False)]


def variants(space: Space, points: Sequence[Point], key: str) -> list[tuple[Point, Point]]:
    """Return all of the points in which `key` is active, each with one in which it has another value.

    The other value is the farthest: that at the end of the range, or the last choice. Where the change is not valid
    or brings other changes with it, the point is left out.
    """
    ends = [end for parameter in space if parameter.key_path == key for end in reversed(parameter.ends)]
    found: list[tuple[Point, Point]] = []
    for point in points:
        now = space.by_key_path(point).get(key)
        others = (space.moved(point, {key: end}) for end in ends if quote(end) != quote(now))
        found += [(point, other) for other in others if other and _only_difference(space, point, other)][:1]
    return found


def without_effect(
    space: Space, points: Sequence[Point], keys: Sequence[str], behaviour: Callable[[Point], Hashable | None]
) -> list[str]:
    """Return those of the keys that change nothing in any of the points, as far as all could be tried."""
    dead = []
    for key in keys:
        pairs = [(behaviour(one), behaviour(other)) for one, other in variants(space, points, key)]
        if pairs and all(one is not None and one == other for one, other in pairs):
            dead.append(key)
    return dead


def _only_difference(space: Space, one: Point, other: Point) -> str | None:
    """Return the key in which two points differ, if there is one alone; what only one of them has is not compared."""
    first, second = space.by_key_path(one), space.by_key_path(other)
    differing = list(_differing_keys(first, second))
    return differing[0] if len(differing) == 1 else None


def _differing_keys(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[str]:
    return (key for key in first if key in second and quote(first[key]) != quote(second[key]))
