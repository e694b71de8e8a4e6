"""The resume points of interrupted training runs: their steps are noted in the runs, and their files are kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sweeps.config.composer import Config, fingerprint
from sweeps.core import paths
from sweeps.driver.trial_runs import InterruptedRun
from sweeps.tracking import tags
from sweeps.tracking.store import RunRecorder
from sweeps.tracking.ui import RunKey

__all__ = ["ResumePoints"]


@dataclass(slots=True)
class _Steps:
    """Steps of a run: the last one saved, the last one given to the recorder, the last one that the store has."""

    saved: int | None = None
    given: int | None = None
    written: int | None = None


class ResumePoints:
    """Knows the step from which each training run resumes if it is interrupted or its driver is killed.

    It is the step in a tag of its run, so all metrics before it are recorded as well. The store may be slower than
    the training run saves: one step at a time is on its way to the store, and the files of three steps are kept: the
    step that the store has, the one that it may have, and the last one.

    Args:
        recorder: Writes the tags.
        interrupted: Runs that were interrupted before.
    """

    def __init__(self, recorder: RunRecorder, interrupted: Mapping[RunKey, InterruptedRun]) -> None:
        self._recorder = recorder
        self._steps: dict[RunKey, _Steps] = {}
        for run, before in interrupted.items():
            self._steps[run] = _Steps(before.resume_step, before.resume_step, before.resume_step)

    def step(self, run: RunKey, folder: Path, config: Config) -> int | None:
        """Return the step from which a training run resumes; None if its state is no longer on the disk."""
        step = self._steps[run].saved if run in self._steps else None
        if step is None or not paths.resume_point(folder, fingerprint(config), step).is_file():
            return None
        return step

    def saved(self, run: RunKey, folder: Path, step: int) -> None:
        """Note that a training run has saved its state at a step, and delete the files that it no longer needs."""
        steps = self._steps.setdefault(run, _Steps())
        steps.saved = step
        if steps.given == steps.written:
            self._give(run, steps)
        needed = {steps.saved, steps.given, steps.written}
        for path, at in paths.resume_points(folder).items():
            if at < step and at not in needed:
                path.unlink(missing_ok=True)

    def ended(self, run: RunKey, folder: Path, *, is_interrupted: bool) -> None:
        """Note where an interrupted training run resumes; delete the files of one that has ended."""
        if not is_interrupted:
            for path in paths.resume_points(folder):
                path.unlink(missing_ok=True)
        elif run in self._steps and self._steps[run].saved != self._steps[run].given:
            self._give(run, self._steps[run])

    def _give(self, run: RunKey, steps: _Steps) -> None:
        steps.given = steps.saved
        self._recorder.tags(run, {tags.RESUME_STEP: str(steps.saved)})
        self._recorder.when_written(run, partial(setattr, steps, "written", steps.saved))
