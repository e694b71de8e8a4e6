"""The run of a study in the record, parent of those of its trials: open it, tell it how trials end, close it."""

import json
import time
from collections.abc import Mapping, Sequence

from sweeps.config import Config, flatten
from sweeps.earlier import record_move
from sweeps.outcome import Outcome, Why
from sweeps.records import MetricPoint
from sweeps.study import Study
from sweeps.tracking import tags
from sweeps.tracking.recorder import Recorder, RunKey
from sweeps.trial_runs import PARENT, InterruptedRun
from sweeps.workbench import common_tags

__all__ = ["ENDS", "ParentRun"]

ENDS: Mapping[Why, str] = {
    "": "complete",
    "timeout": "complete",
    "device_hours": "complete",
    "stop": "complete",
    "failures": "failed",
    "interrupt": "interrupted",
}
"""The state of a study by why its driver came to an end."""
_STATUS = {"complete": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


class ParentRun:
    """The run of a study.

    Args:
        study: What it tells of.
        recorder: Writes it.
        config: The composed configuration of the sweep.
        objectives: The metrics that the study is judged by, each with `maximize` or `minimize`.

    Attributes:
        interrupted: The runs of trials and replicates that go on; known when it is open.
    """

    def __init__(self, study: Study, recorder: Recorder, *, config: Config, objectives: Mapping[str, str]) -> None:
        self.interrupted: dict[RunKey, InterruptedRun] = {}
        self._study = study
        self._recorder = recorder
        self._config = config
        self._objectives = objectives

    def open(self, overrides: Sequence[str]) -> dict[str, str]:
        """Create the run, or go on with it; end what a dead driver left running, or note where it goes on.

        Args:
            overrides: What was typed.

        Returns:
            The tags that the runs of the trials get, too.
        """
        study, recorder = self._study, self._recorder
        store = recorder.wait_until_open()
        common = common_tags("sweep", overrides, self._config["tracking"]["tags"])
        metric = study.metrics[0]
        common |= {tags.STUDY: study.name, tags.METRIC: metric, tags.DIRECTION: self._objectives[metric]}
        if len(self._objectives) > 1:
            common[tags.OBJECTIVES] = json.dumps(self._objectives)
        own = {tags.STATE: "running", tags.SPACE: json.dumps(study.space.describe())}
        known = store.find_study(study.name)
        if known.parent is not None:
            recorder.go_on(PARENT, known.parent)
            recorder.tags(PARENT, own)
            for run_id, run in known.running.items():  # the study knows how they ended, if they did
                status, run_tags = tags.ending(*(_end_of(run, study) or ("interrupted", None, "the driver died")))
                store.set_tags(run_id, run_tags)
                store.end_run(run_id, status, end_time_ms=_now_ms())
            for run_id, run in (*known.running.items(), *known.interrupted.items()):
                if _end_of(run, study) is None and run not in self.interrupted:
                    self.interrupted[run] = InterruptedRun(run_id=run_id, resume_step=store.resume_step(run_id))
            record_move(study, store, known.parent)
            return common
        params = {f"search.{key}": text for key, text in study.space.describe().items()}
        for group in ("study", "sampler", "pruner", "launcher"):
            params |= {k: v for k, v in flatten({group: self._config[group]}).items() if "storage" not in k}
        recorder.start(PARENT, study.name, params=params, run_tags={**common, tags.KIND: "study", **own})
        return common

    def tell(self, outcome: Outcome) -> None:
        """Take note of a trial that has ended."""
        study, best = self._study, self._study.best_trials
        points = [(study.metrics[0], best[0].value)] if len(study.metrics) == 1 and best else []
        if len(study.metrics) > 1:
            points.append(("trials/on_front", float(len(best))))
        points.append(("trials/finished", float(study.num_finished)))
        now = _now_ms()
        self._recorder.metrics(PARENT, [MetricPoint(key, value, study.num_finished, now) for key, value in points])

    def close(self, stopped: Why | None) -> None:
        """End the run.

        Args:
            stopped: Why the driver came to its end; None if by an error of its own.
        """
        study, best = self._study, self._study.best_trials
        state = "failed" if stopped is None else ENDS[stopped]
        run_tags = {tags.STATE: state}
        if best:
            numbers = ", ".join(str(trial.number) for trial in best)
            note = f"Pareto front: trials {numbers}."
            if len(study.metrics) == 1:
                run_tags[tags.VALUE] = repr(best[0].value)
                note = f"Best: trial {numbers}, {study.metrics[0]} = {best[0].value:.6g}."
            run_tags |= {
                "lightsweep.best_trial": numbers,
                "mlflow.note.content": f"{note} {study.num_finished} trials.",
            }
        self._recorder.end(PARENT, _STATUS[state], run_tags)


def _end_of(run: RunKey, study: Study) -> tuple[str, float | None, str] | None:
    """Return how the trial or the replicate ended that a run belongs to; None if it has not."""
    trial, _, replicate = str(run).partition("/")
    if not replicate:
        return study.end_of(int(trial))
    result = study.replicates(int(trial)).get(int(replicate))
    return None if result is None else (result.state, result.value, result.reason)


def _now_ms() -> int:
    return int(time.time() * 1000)
