"""The base classes of stores and recorders, which write runs, and the operations that pass between them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sweeps.core.messages import MetricPoint
from sweeps.tracking.ui import Pages, RunKey

__all__ = ["Note", "RunRecorder", "RunStore", "StudyRuns", "Unsent"]

Note = Callable[[Pages], str]
"""Writes the description of a run, in Markdown, when the runs that it points to are in the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRuns:
    """The runs of a study that a new driver must know.

    Attributes:
        parent: The study's own run; None if there is none yet.
        running: The runs of trials and replicates that have no end; the newest first.
        interrupted: Likewise those whose end was an interruption.
    """

    parent: str | None = None
    running: Mapping[str, RunKey] = field(default_factory=dict)
    interrupted: Mapping[str, RunKey] = field(default_factory=dict)


class RunStore:
    """Where a recorder writes; each call returns when it is written, or raises. By default it is empty."""

    @property
    def experiment_id(self) -> str:
        """The id of the experiment that has the runs."""
        return ""

    def experiment_tag(self, key: str) -> str | None:
        """Return a tag of the experiment; None if it has none."""
        return None

    def tag_experiment(self, key: str, value: str) -> None:
        """Set a tag on the experiment."""

    def create_run(
        self,
        name: str,
        *,
        run_tags: Mapping[str, str],
        parent: str | None,
        start_time_ms: int,
    ) -> str:
        """Create a run and return its id."""
        raise NotImplementedError

    def log_params(self, run_id: str, params: Mapping[str, object]) -> None:
        """Write params; again the same is no error."""

    def log_metrics(self, run_id: str, points: list[MetricPoint]) -> None:
        """Write metric points."""

    def set_tags(self, run_id: str, run_tags: Mapping[str, str]) -> None:
        """Set tags."""

    def log_artifact(self, run_id: str, path: Path, artifact_path: str = "") -> None:
        """Copy a file into the run's artifacts."""

    def end_run(self, run_id: str, status: str, *, end_time_ms: int) -> None:
        """End a run."""

    def find_study(self, study: str) -> StudyRuns:
        """Return the runs of a study that a new driver must know."""
        return StudyRuns()

    def trial_runs(self, study: str, numbers: Iterable[int] | None = None) -> dict[str, int]:
        """Return the runs of these trials of a study, with the trials' numbers; those of all if None are named."""
        return {}

    def resume_step(self, run_id: str) -> int | None:
        """Return the step from which the trial of a run goes on, if one was noted."""
        return None

    def steps_from(self, run_id: str, step: int) -> dict[str, list[int]]:
        """Return the steps of all points that each metric of a run has from `step` on, in order."""
        return {}

    def reopen_run(self, run_id: str) -> None:
        """Set a run RUNNING again."""


class RunRecorder:
    """Records runs without letting the driver wait; by default nothing is recorded."""

    def start(
        self,
        run: RunKey,
        name: str,
        *,
        params: Mapping[str, object],
        run_tags: Mapping[str, str],
        parent: RunKey | None = None,
    ) -> None:
        """Create a run."""

    def resume(self, run: RunKey, run_id: str | None = None, *, step: int = 0) -> None:
        """Resume an interrupted run."""

    def metrics(self, run: RunKey, points: Iterable[MetricPoint]) -> None:
        """Add metric points."""

    def tags(self, run: RunKey, run_tags: Mapping[str, str]) -> None:
        """Set tags."""

    def note(self, run: RunKey, note: Note) -> None:
        """Describe a run."""

    def artifact(self, run: RunKey, path: Path, artifact_path: str = "") -> None:
        """Keep a file."""

    def end(self, run: RunKey, status: str, run_tags: Mapping[str, str]) -> None:
        """End a run."""

    def when_written(self, run: RunKey, do: Callable[[], None]) -> None:
        """Call `do`, in any thread, once what was asked for so far of a run is in the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsent:
    """What a store did not take.

    Attributes:
        file: Where it is kept, one JSON object a line.
        records: Each in words, such as `val/acc of trial 3`.
    """

    file: Path
    records: tuple[str, ...]
