"""The recorded runs of trials and of their replicates: how they begin, resume and end."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweeps.config.composer import Config, fingerprint, load_frozen
from sweeps.core import paths
from sweeps.core.errors import StoreError
from sweeps.core.messages import Failed, MetricPoint, RankJob, StopAfter
from sweeps.core.text import escaped, link, number
from sweeps.core.tree import flatten
from sweeps.core.trials import Suggestion, TrialResult
from sweeps.driver.jobs import JobBuilder
from sweeps.driver.trials import Job
from sweeps.reproduce.provenance import artifact_name
from sweeps.tracking import tags
from sweeps.tracking.store import RunRecorder
from sweeps.tracking.ui import PARENT, Pages, RunKey

__all__ = ["InterruptedRun", "TrialRuns", "TrialSetup", "rank_job"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class InterruptedRun:
    """The run of an interrupted trial, and the step from which it resumes (None: from its start)."""

    run_id: str
    resume_step: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSetup:
    """How to make a trial of suggested values.

    Attributes:
        compose: Values, trial number and replicate to the config of the run; a trial of several replicates has a
            config of its own, for which the replicate is None.
        folder: Trial number to its folder.
        name: Trial number and values to the run's name.
        run_tags: The tags that every run gets.
        prunes: Whether reports can lead to pruning.
        jobs: Builds what the ranks are started with.
        replicates: How often a trial is trained.
        noun: What one of its trainings is called, if they are several.
        objective: The first metric of the study, if trainings report another one.
        has_parent: Whether the runs belong to the run of a study.
        provenance: The hash of what is known of code, packages and machine.
        stop_after: Where each training stops; None for its end.
        runs: The runs of trials and replicates that were interrupted; they resume in these.
    """

    compose: Callable[[Mapping[str, Any], int, int | None], Config]
    folder: Callable[[int], Path]
    name: Callable[[int, Mapping[str, Any]], str]
    run_tags: Mapping[str, str]
    prunes: bool
    jobs: JobBuilder = field(default_factory=JobBuilder)
    replicates: int = 1
    noun: str = "replicate"
    objective: str | None = None
    has_parent: bool = True
    provenance: str = ""
    stop_after: StopAfter | None = None
    runs: Mapping[RunKey, InterruptedRun] = field(default_factory=dict)


class TrialRuns:
    """Records what happens to trials, in new runs or in those that were interrupted.

    Args:
        recorder: Writes them.
        setup: Names them, and knows which were interrupted.
    """

    def __init__(self, recorder: RunRecorder, setup: TrialSetup) -> None:
        self._recorder = recorder
        self._setup = setup
        self._recorded: set[RunKey] = set()  # runs that this driver has created or resumed

    @property
    def _provenance(self) -> dict[str, str]:
        return {tags.PROVENANCE: self._setup.provenance} if self._setup.provenance else {}

    def has(self, run: RunKey) -> bool:
        """Tell whether there is a run of it."""
        return run in self._recorded or run in self._setup.runs

    def resumes(self, run: RunKey, folder: Path, config: Config) -> bool:
        """Tell whether there is a run with the same config to resume; with another config the trial restarts."""
        if not self.has(run):
            return False
        if not (folder / paths.CONFIG).is_file():
            return False
        try:
            return fingerprint(load_frozen(folder)) == fingerprint(config)
        except StoreError:  # half written, or not ours
            return False

    def start(
        self,
        run: RunKey,
        suggestion: Suggestion,
        folder: Path,
        config: Config,
        *,
        replicate: int | None = None,
        slot: int | None = None,
        resumes: bool = False,
        step: int = 0,
        reused_from: int | None = None,
    ) -> None:
        """Create the run of a trial or of a replicate, or resume the one that was interrupted."""
        place = {} if slot is None else {tags.SLOT: str(slot)}
        if resumes:
            run_id = None if run in self._recorded else self._setup.runs[run].run_id
            self._recorder.resume(run, run_id, step=step)
            now = {tags.STATE: "running", tags.REASON: "", **self._provenance, **place}
            self._recorder.tags(run, now)
            self._describe(run, "running")
            self._recorded.add(run)
            return
        self._recorded.add(run)
        run_tags = {
            **self._setup.run_tags,
            **self._provenance,
            **place,
            tags.TRIAL: str(suggestion.number),
            tags.STATE: "running",
            tags.PARAMS: json.dumps(dict(suggestion.values)),
            tags.FOLDER: self._setup.folder(suggestion.number).name,
        }
        name = self._setup.name(suggestion.number, suggestion.values)
        parent: RunKey | None = PARENT if self._setup.has_parent else None
        if replicate is not None:
            run_tags |= {tags.KIND: "replicate", tags.REPLICATE: str(replicate)}
            name, parent = f"#{suggestion.number} {self._setup.noun} {replicate}", suggestion.number
        if suggestion.is_enqueued:
            run_tags[tags.ENQUEUED] = "true"
        if reused_from is not None:
            run_tags[tags.REUSED_FROM] = str(reused_from)
        # A searched group (`optimizer`) is no key of the config, but a column to sort and to group by
        params = {**suggestion.values, **flatten(config)}
        self._recorder.start(run, name, params=params, run_tags=run_tags, parent=parent)
        self._describe(run, "running")
        self._recorder.artifact(run, folder / paths.CONFIG)
        if self._setup.provenance and not self._setup.has_parent:  # else the run of the study has it
            self._recorder.artifact(run, folder / artifact_name(self._setup.provenance))

    def values(self, run: RunKey, metrics: Mapping[str, float], step: int) -> None:
        """Add a point of each metric at a step."""
        now_ms = int(time.time() * 1000)
        self._recorder.metrics(run, [MetricPoint(key, value, step, now_ms) for key, value in metrics.items()])

    def end(self, run: RunKey, result: TrialResult, *, trained_s: float | None = None) -> None:
        """End a run; `trained_s` is given where that is less than from start to end."""
        status, run_tags = tags.ending(result.state, result.value, result.reason)
        if len(result.objectives) > 1:
            run_tags[tags.VALUES] = json.dumps(dict(result.objectives))
        if trained_s is not None:
            run_tags[tags.TRAINED_S] = f"{trained_s:.3f}"
        if result.infeasible:
            run_tags[tags.INFEASIBLE] = result.infeasible
        self._describe(run, result.state, result.value, result.reason, result.infeasible)
        metric = self._setup.run_tags.get(tags.METRIC)
        if result.value is not None and metric:
            self.values(run, {tags.value_metric(metric, self._setup.run_tags[tags.DIRECTION]): result.value}, 0)
        self._recorder.end(run, status, run_tags)

    def _describe(
        self, run: RunKey, state: str, value: float | None = None, reason: str = "", infeasible: str = ""
    ) -> None:
        """Let MLflow's page of a run say what it is a part of, and what became of it."""
        if not self._setup.has_parent:
            return
        study, metric = self._setup.run_tags.get(tags.STUDY, ""), self._setup.run_tags.get(tags.METRIC, "")
        trial, _, replicate = str(run).partition("/")
        said = f": **{state}**"
        if reason:
            said += f": {escaped(reason)}"
        elif value is not None and metric:
            said += f", {escaped(metric)} = {number(value)}"
        if infeasible:
            said += f"; infeasible: {escaped(infeasible)}"

        def note(pages: Pages) -> str:
            of_study = f"of {link(escaped(study), pages.run(PARENT))}{said}."
            if replicate:
                of_trial = link(f"trial {trial}", pages.run(int(trial)))
                return f"{self._setup.noun.capitalize()} {replicate} of {of_trial} {of_study}"
            return f"Trial {trial} {of_study}"

        self._recorder.note(run, note)

    def keep_failure(self, run: RunKey, folder: Path, failed: Failed) -> None:
        """Keep the artifacts of a failure: the traceback, the logs of the ranks, the trace."""
        if failed.traceback:
            file = folder / "traceback.txt"
            try:
                paths.write_text(file, failed.traceback)
                self._recorder.artifact(run, file)
            except OSError as error:  # the disk is full: the other trials may still get through
                _LOG.error("the traceback of %s is not kept: %s", run, error)
        trace = folder / paths.TRACE
        for file in (*paths.rank_logs(folder), *([trace] if trace.is_file() else [])):
            self._recorder.artifact(run, file)


def rank_job(job: Job, setup: TrialSetup, known_data: Mapping[str, Any] | None) -> RankJob:
    """Return what the ranks of a training run are started with."""
    return setup.jobs.job(
        "fit",
        job.folder,
        job.slot,
        [job.config],
        prunes=setup.prunes,
        resume_step=job.resume_step,
        stop_after=setup.stop_after,
        provenance=setup.provenance,
        known_data=known_data,
    )
