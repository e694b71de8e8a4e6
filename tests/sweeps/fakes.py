"""Fakes that behave: a launcher whose trials follow a script, a search, a store that can be down, a display."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sweeps.core.messages import (
    Event,
    Exited,
    Failed,
    Finished,
    MetricPoint,
    Order,
    PruneDecision,
    RankJob,
    Report,
    Stop,
)
from sweeps.core.trials import Search, Suggestion, TrialResult
from sweeps.driver.display import Display
from sweeps.launchers.launcher import Launcher
from sweeps.tracking.store import RunStore

Script = Callable[[int], list[Event]]


@dataclass
class FakeLauncher(Launcher):
    """Runs trials in memory: each poll lets every running trial do the next thing of its script.

    A trial that is told to stop says so and exits; one that is `deaf` goes on until it is killed.
    """

    script: Script
    deaf: set[int] = field(default_factory=set)
    jobs: dict[int, RankJob] = field(default_factory=dict)
    num_ranks: dict[int, int] = field(default_factory=dict)
    decisions: dict[int, list[PruneDecision]] = field(default_factory=dict)
    killed: list[int] = field(default_factory=list)
    on_their_way: list[Event] = field(default_factory=list)  # what whoever is killed had said already
    most_at_once: int = 0
    on_poll: Callable[[int], None] = lambda polls: None
    _left: dict[int, deque[Event]] = field(default_factory=dict)
    _polls: int = 0

    def start(self, number: int, job: RankJob, num_ranks: int) -> None:
        self.jobs[number] = job
        self.num_ranks[number] = num_ranks
        self._left[number] = deque(self.script(number))
        self.most_at_once = max(self.most_at_once, len(self._left))

    def poll(self, timeout_s: float) -> list[tuple[int, Event]]:
        self._polls += 1
        self.on_poll(self._polls)
        events = []
        for number in list(self._left):
            if self._left[number]:
                events.append((number, self._left[number].popleft()))
            if events and isinstance(events[-1][1], Exited) and events[-1][0] == number:
                del self._left[number]
        return events

    def order(self, number: int, order: Order) -> None:
        if isinstance(order, PruneDecision):
            self.decisions.setdefault(number, []).append(order)
            if order.prune:
                self._left[number] = deque([Finished(state="pruned", reason=order.reason), Exited()])
        elif isinstance(order, Stop) and number not in self.deaf:
            self._left[number] = deque([Finished(state="interrupted"), Exited()])

    def kill(self, number: int) -> None:
        self.killed.append(number)
        self._left[number] = deque([*self.on_their_way, Failed(cause="died", message="killed by SIGKILL"), Exited()])


def complete(value: float, reports: int = 2) -> list[Event]:
    """The script of a trial that trains well."""
    values = [Report(value=value, step=step) for step in range(reports)]
    return [*values, Finished(state="complete", value=value, metrics={"val/acc": value}), Exited()]


@dataclass
class FakeSearch(Search):
    """Proposes `x = 0, 1, 2, ...`; prunes a trial whose report is below `threshold`."""

    threshold: float = float("-inf")
    largest: float = float("inf")
    size: int | None = None
    asked: int = 0
    elapsed_s: dict[int, float] = field(default_factory=dict)
    told: dict[int, tuple[str, float | None, str]] = field(default_factory=dict)
    metrics: dict[int, dict[str, float]] = field(default_factory=dict)
    replicates: dict[int, dict[int, TrialResult]] = field(default_factory=dict)
    hopeless: set[int] = field(default_factory=set)
    notes: dict[int, dict[str, Any]] = field(default_factory=dict)

    def ask(self) -> Suggestion:
        self.asked += 1
        number = self.asked - 1
        return Suggestion(number=number, values={"x": number}, elapsed_s=self.elapsed_s.get(number, 0.0))

    def admit(self, metrics: Mapping[str, float]) -> PruneDecision:
        is_large = metrics.get("num_params", 0.0) > self.largest
        return PruneDecision(prune=is_large, reason="too large" if is_large else "")

    def report(self, number: int, value: float, step: int) -> PruneDecision:
        is_poor = value < self.threshold
        return PruneDecision(prune=is_poor, reason=f"{value} is below {self.threshold}" if is_poor else "")

    def tell(
        self,
        number: int,
        state: Any,
        value: float | None,
        reason: str,
        *,
        metrics: Mapping[str, float],
        cause: str | None,
    ) -> TrialResult:
        self.told[number] = (state, value, reason)
        self.metrics[number] = dict(metrics)
        return TrialResult(state=state, reason=reason)

    def begin_replicates(self, number: int, *, restart: bool) -> dict[int, TrialResult]:
        if restart:
            self.replicates.pop(number, None)
        return dict(self.replicates.get(number, {}))

    def add_replicate(self, number: int, replicate: int, result: TrialResult) -> PruneDecision:
        self.replicates.setdefault(number, {})[replicate] = result
        is_hopeless = number in self.hopeless and len(self.replicates[number]) >= 2
        return PruneDecision(prune=is_hopeless, reason="hopeless" if is_hopeless else "")

    def note(self, number: int, key: str, value: Any) -> None:
        self.notes.setdefault(number, {})[key] = value

    def reuse(self, number: int, source: int) -> TrialResult:
        state, value, _ = self.told[source]
        reason = f"same configuration as trial {source}"
        metrics = self.notes[source]["metrics"]
        told = self.tell(number, state, value, reason, metrics=metrics, cause=None)
        return replace(told, value=value, metrics=metrics)

    @property
    def num_finished(self) -> int:
        return sum(state != "interrupted" for state, _, _ in self.told.values())

    @property
    def is_exhausted(self) -> bool:
        return self.size is not None and self.asked >= self.size


@dataclass
class FakeStore(RunStore):
    """Keeps runs in memory; raises `error` as often as `failures` says."""

    failures: int = 0
    error: Exception = field(default_factory=lambda: ConnectionError("the store is down"))
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    experiment_tags: dict[str, str] = field(default_factory=dict)

    def _answer(self) -> None:
        if self.failures > 0:
            self.failures -= 1
            raise self.error

    def create_run(
        self,
        name: str,
        *,
        run_tags: Mapping[str, str],
        parent: str | None,
        start_time_ms: int,
    ) -> str:
        self._answer()
        run_id = f"run{len(self.runs)}"
        self.runs[run_id] = {
            "name": name,
            "params": {},
            "tags": dict(run_tags),
            "parent": parent,
            "points": [],
            "artifacts": [],
            "status": "RUNNING",
            "batches": 0,
        }
        return run_id

    def log_params(self, run_id: str, params: Mapping[str, object]) -> None:
        self._answer()
        self.runs[run_id]["params"] |= params

    def log_metrics(self, run_id: str, points: list[MetricPoint]) -> None:
        self._answer()
        self.runs[run_id]["points"] += points
        self.runs[run_id]["batches"] += 1

    def set_tags(self, run_id: str, run_tags: Mapping[str, str]) -> None:
        self._answer()
        self.runs[run_id]["tags"] |= run_tags

    def log_artifact(self, run_id: str, path: Path, artifact_path: str = "") -> None:
        self._answer()
        self.runs[run_id]["artifacts"].append((Path(path).name, artifact_path))

    def end_run(self, run_id: str, status: str, *, end_time_ms: int) -> None:
        self._answer()
        self.runs[run_id]["status"] = status

    @property
    def experiment_id(self) -> str:
        return "1"

    def experiment_tag(self, key: str) -> str | None:
        return self.experiment_tags.get(key)

    def tag_experiment(self, key: str, value: str) -> None:
        self._answer()
        self.experiment_tags[key] = value

    def trial_runs(self, study: str, numbers: Iterable[int] | None = None) -> dict[str, int]:
        tagged = {run_id: run["tags"].get("lightsweep.trial") for run_id, run in self.runs.items()}
        found = {run_id: int(number) for run_id, number in tagged.items() if number is not None}
        return {run_id: number for run_id, number in found.items() if numbers is None or number in numbers}

    def steps_from(self, run_id: str, step: int) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for point in self.runs[run_id]["points"]:
            if point.step >= step:
                found.setdefault(point.key, []).append(point.step)
        return found

    def reopen_run(self, run_id: str) -> None:
        self.runs[run_id]["status"] = "RUNNING"

    def named(self, name: str) -> dict[str, Any]:
        return next(run for run in self.runs.values() if run["name"] == name)


@dataclass
class FakeDisplay(Display):
    """Remembers what it was told."""

    ended: list[TrialResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def trial_ended(self, outcome: Any) -> None:
        self.ended.append(outcome)

    def stopping(self, why: str, num_running: int) -> None:
        self.notes.append(why)

    def say(self, text: str) -> None:
        self.notes.append(text)


class FakeChannel:
    """Keeps what a rank sends; asks it to stop when it makes its `stop_at_report`th report, or logs a step."""

    flush_interval_s = 0.0
    prunes = False

    def __init__(self, stop_at_report: int | None = None, stop_at_step: int | None = None) -> None:
        self.stop_requested = threading.Event()
        self.events: list[Event] = []
        self.points: list[tuple[str, float]] = []
        self.curves: dict[str, list[tuple[int, float]]] = {}
        self.reports: list[float] = []
        self._stop_at_report = stop_at_report
        self._stop_at_step = stop_at_step

    def send(self, event: Event) -> None:
        self.events.append(event)

    def flush(self) -> None: ...

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.points += metrics.items()
        for key, value in metrics.items():
            self.curves.setdefault(key, []).append((step, value))
        if step == self._stop_at_step:
            self.stop_requested.set()

    def report(self, report: Report) -> PruneDecision:
        self.reports.append(report.value)
        if len(self.reports) == self._stop_at_report:
            self.stop_requested.set()
        return PruneDecision(prune=False)
