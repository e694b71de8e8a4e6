"""The names of the tags by which runs, studies and trials find each other."""

__all__ = [
    "DIRECTION",
    "ERROR",
    "FOLDER",
    "KIND",
    "METRIC",
    "PARAMS",
    "REASON",
    "STATE",
    "STUDY",
    "TRIAL",
    "VALUE",
]

KIND = "lightsweep.kind"
"""study (the parent run), trial (a child) or train (a run by itself)"""
STUDY = "lightsweep.study"
"""the study's name, on the parent and on every child"""
TRIAL = "lightsweep.trial"
"""the trial's number in its study"""
STATE = "lightsweep.state"
"""running, complete, pruned, failed or interrupted"""
REASON = "lightsweep.reason"
"""why the run ended before its time"""
ERROR = "lightsweep.error"
"""what failed, in one line"""
METRIC = "lightsweep.metric"
"""the metric that the run is judged by"""
DIRECTION = "lightsweep.direction"
"""maximize or minimize"""
VALUE = "lightsweep.value"
"""its value at the best checkpoint"""
PARAMS = "lightsweep.params"
"""the searched parameters as JSON, with their types"""
FOLDER = "lightsweep.folder"
"""the trial's folder, relative to the store"""
