"""The names of the tags by which runs, studies and trials find each other, and the encoding of results in them."""

__all__ = [
    "BACKUP",
    "BEST_TRIAL",
    "CHECKED",
    "DIRECTION",
    "ENQUEUED",
    "ERROR",
    "FOLDER",
    "INFEASIBLE",
    "KIND",
    "METRIC",
    "NOTE",
    "OBJECTIVES",
    "OVERRIDES",
    "PARAMS",
    "PROMOTED",
    "PROVENANCE",
    "REASON",
    "REPLICATE",
    "REPRODUCED",
    "REPRODUCED_BY",
    "REPRODUCES",
    "RESUME_STEP",
    "REUSED_FROM",
    "SLOT",
    "SPACE",
    "STATE",
    "STUDY",
    "THREADS",
    "TRAINED_S",
    "TRIAL",
    "VALUE",
    "VALUES",
    "ending",
    "judged_by",
    "value_metric",
]

KIND = "lightsweep.kind"
"""study (the parent run), trial (a child), replicate (a child of a trial), train (a run by itself) or reproduction"""
STUDY = "lightsweep.study"
"""the study's name, on the parent and on every child"""
CHECKED = "lightsweep.checked"
"""false where check=false left the check before the first trial out"""
TRIAL = "lightsweep.trial"
"""the trial's number in its study"""
REPLICATE = "lightsweep.replicate"
"""which training of its trial a replicate is, from 0"""
STATE = "lightsweep.state"
"""running, complete, pruned, failed, interrupted or dropped"""
REASON = "lightsweep.reason"
"""why the run ended before its time"""
ERROR = "lightsweep.error"
"""what failed, in one line"""
METRIC = "lightsweep.metric"
"""the metric that the run is judged by"""
DIRECTION = "lightsweep.direction"
"""maximize or minimize"""
VALUE = "lightsweep.value"
"""its value at the best checkpoint; also a metric, see `value_metric`, by which a database sorts"""
OBJECTIVES = "lightsweep.objectives"
"""of a study of several: the direction of each, as JSON"""
VALUES = "lightsweep.values"
"""of a trial of such a study: the value of each objective at the best checkpoint, as JSON"""
INFEASIBLE = "lightsweep.infeasible"
"""which constraints the trial violates, in words: such a trial is never the best"""
PARAMS = "lightsweep.params"
"""the searched parameters as JSON, with their types"""
OVERRIDES = "lightsweep.overrides"
"""what was typed, without secrets"""
PROVENANCE = "lightsweep.provenance"
"""the hash of code, packages and machine, which names the artifact of the study (or of the train) that tells of them"""
RESUME_STEP = "lightsweep.resume_step"
"""the step from which an interrupted trial goes on: all points of the steps before are recorded"""
ENQUEUED = "lightsweep.enqueued"
"""true for a trial that somebody asked for, by `lightsweep enqueue` or study.enqueue"""
REUSED_FROM = "lightsweep.reused_from"
"""the number of the trial of the same configuration whose result this one has"""
BACKUP = "lightsweep.backup"
"""on the parent of a study that was moved to another space: Optuna's study that holds it as it was before"""
SPACE = "lightsweep.space"
"""on the parent: the search space as JSON; the names of MLflow's params lack the marks in `optimizer.lr@sgd`"""
BEST_TRIAL = "lightsweep.best_trial"
"""on the parent: the number of the best trial, or those of the Pareto front"""
REPRODUCED = "lightsweep.reproduced"
"""the verdict of the last reproduction; on the run that was reproduced, and on the reproduction"""
REPRODUCED_BY = "lightsweep.reproduced_by"
"""the id of the last reproduction"""
REPRODUCES = "lightsweep.reproduces"
"""on a reproduction: the id of the run that it was to reproduce"""
PROMOTED = "lightsweep.promoted"
"""the version of a registered model that the run has become, as NAME/VERSION; the last one"""
SLOT = "lightsweep.slot"
"""the slot that a training runs in, from 0; the last one, if it went on in another"""
THREADS = "lightsweep.threads"
"""on the parent: the CPU threads of each rank, which decide the last bits of results"""
TRAINED_S = "lightsweep.trained_s"
"""of a trial that was interrupted and went on: the seconds for which it trained, without those between"""
FOLDER = "lightsweep.folder"
"""the trial's folder, relative to the store"""
NOTE = "mlflow.note.content"
"""the description that MLflow shows on the page of a run, in Markdown"""


def ending(state: str, value: float | None, reason: str) -> tuple[str, dict[str, str]]:
    """Return MLflow's status and the tags of a run that has ended as complete, pruned, failed or interrupted."""
    status = {"complete": "FINISHED", "failed": "FAILED"}.get(state, "KILLED")
    tags = {STATE: state}
    if reason:
        tags[REASON] = reason
    if value is not None:
        tags[VALUE] = repr(value)
    if state == "failed":
        tags |= {ERROR: reason, NOTE: f"Failed: {reason}"}
    elif state == "pruned":
        tags["pruned"] = "true"
    return status, tags


def value_metric(metric: str, direction: str) -> str:
    """Return the name of the metric that holds a run's value at the best checkpoint.

    A tag is text, which no database sorts as numbers. The name tells what the run is judged by and how, so that the
    few names that there are tell it of all runs.
    """
    return f"{_VALUE_OF[direction]}{metric}"


def judged_by(name: str) -> tuple[str, str] | None:
    """Return the metric and the direction of a name that `value_metric` gives; None for any other."""
    return next(((name[len(head) :], goal) for goal, head in _VALUE_OF.items() if name.startswith(head)), None)


_VALUE_OF = {"maximize": "lightsweep.maximize/", "minimize": "lightsweep.minimize/"}
