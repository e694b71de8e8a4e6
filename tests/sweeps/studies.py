"""Studies to test on, and what is stored of them."""

import math
import os

import optuna
import yaml

from sweeps.core.paths import conf_dir
from sweeps.search.samplers import build_pruner, build_sampler
from sweeps.search.space.declare import parse_space
from sweeps.search.storage import open_storage
from sweeps.search.study import Study
from sweeps.search.terms import StudyTerms

SPACE = parse_space({"lr": "tag(log,interval(1e-4,1e-1))", "depth": "range(1,5)", "act": "relu,tanh"})
FINITE = parse_space({"depth": "range(1,4)", "width": "choice([8],[16,8])"})
TERMS = ("metric", "direction", "reported", "constraints", "replication")
MEDIAN = {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 2}


def make(url, space=SPACE, sampler="random", pruner=None, seed=1, **more):
    words = {key: more.pop(key) for key in TERMS if key in more}
    return Study.create_or_load(
        more.pop("name", "study"),
        open_storage(url),
        space=space,
        sampler=build_sampler(shipped("sampler", sampler), space),
        pruner=build_pruner(pruner or shipped("pruner", "none")),
        terms=StudyTerms.of(**words),
        seed=seed,
        **more,
    )


def shipped(group, option):
    config = yaml.safe_load((conf_dir() / group / f"{option}.yaml").read_text())
    return {key: 1 if value == "${seed}" else value for key, value in config.items()}


def objective(values):
    return -abs(math.log10(values["lr"]) + 2) if "lr" in values else float(values["depth"])


def run(study, count):
    asks = []
    for _ in range(count):
        asks.append(study.ask())
        study.tell(asks[-1].number, "complete", objective(asks[-1].values))
    return [ask.values for ask in asks]


def stored(url, name="study"):
    return optuna.load_study(study_name=name, storage=url).trials


def open_and_ask(url):
    """Run two trials of a study of this process's own."""
    run(make(url, name=f"study{os.getpid()}"), 2)
