"""Ten thousand trials that train nothing: what each costs, from first to last, and what the driver's memory does.

Runs 7 minutes on an idle machine and twice as long on a busy one. A first argument makes it smaller; then no result
file is written:

    python benchmarks/many_trials.py 1000
"""

import gc
import os
import sys
import time
from pathlib import Path

from driver_work import InstantLauncher
from harness import Result, median, scratch

from sweeps.config.composer import Composer
from sweeps.core import paths
from sweeps.core.text import run_name
from sweeps.core.trials import TrialResult
from sweeps.core.urls import default_uri
from sweeps.driver.display import Display
from sweeps.driver.driver import Driver, Limits
from sweeps.driver.study_run import StudyRun
from sweeps.driver.trial_runs import TrialSetup
from sweeps.launchers.slots import Slot
from sweeps.search.samplers import build_pruner, build_sampler
from sweeps.search.space.declare import parse_space
from sweeps.search.storage import open_storage
from sweeps.search.study import Study
from sweeps.tracking import tags
from sweeps.tracking.client import MlflowStore
from sweeps.tracking.recorder import Recorder

_TRIALS, _SAMPLED_EVERY = 10_000, 500
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Samples:
    """What is noted of each trial that has ended, and of the memory now and then."""

    def __init__(self) -> None:
        self.ends_s: list[float] = []
        self.cpu_s: list[float] = []
        self.memory_mb: list[float] = []

    def add(self) -> None:
        if len(self.ends_s) % _SAMPLED_EVERY == 0:
            gc.collect()
            self.memory_mb.append(int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES / 2**20)
        self.ends_s.append(time.perf_counter())
        self.cpu_s.append(time.process_time())


def measure(folder: Path, num_trials: int) -> tuple[Samples, float]:
    """Run a study, and return what was noted of it and how long the recorder wrote after the last trial."""
    composer = Composer("sweep", ["sampler=random", "pruner=none"])
    config = composer.base()
    space = parse_space(config["search"], [], composer.options)
    study = Study.create_or_load(
        "bench",
        open_storage(f"sqlite:///{folder / paths.OPTUNA_DB}"),
        space=space,
        sampler=build_sampler(config["sampler"], space),
        pruner=build_pruner(config["pruner"]),
        seed=0,
    )
    recorder = Recorder(
        lambda: MlflowStore(default_uri(folder), "bench", folder / "artifacts"), unsent=folder / "unsent.jsonl"
    )
    recorder.wait_until_open()
    parent = StudyRun(study, recorder, config=config, objectives={"val/acc": "maximize"}, metrics=["val/acc"])
    run_tags = parent.open([])
    samples = Samples()

    def note(outcome: TrialResult) -> None:
        """Record what a sweep records of its progress, and take the samples."""
        parent.add(outcome)
        samples.add()

    driver = Driver(
        search=study,
        setup=TrialSetup(
            compose=lambda values, number, replicate: composer.trial(values, number),
            folder=lambda number: paths.trial_dir(folder, number),
            name=run_name,
            run_tags={**run_tags, tags.KIND: "trial"},
            prunes=False,
        ),
        slots=[Slot(index=0, threads=1)],
        limits=Limits(num_trials=num_trials),
        launcher=InstantLauncher(epochs=1, steps=1),
        recorder=recorder,
        display=Display(),
        on_ended=note,
    )
    samples.add()
    totals = driver.run()
    parent.close(totals.stopped)
    ended = time.perf_counter()
    assert recorder.close() == 0
    assert totals.count("complete") == num_trials
    return samples, time.perf_counter() - ended


def main() -> None:
    num_trials = int(sys.argv[1]) if len(sys.argv) > 1 else _TRIALS
    load_before = os.getloadavg()[0]
    result = Result(
        name=Path(__file__).stem,
        claim=f"{num_trials:,} trials that train nothing (random sampler; Optuna and MLflow on SQLite): at most 80 ms "
        "a trial; how much slower the end is than the start, and how much the driver's memory grows, as it is",
    )
    with scratch() as folder:
        samples, left_s = measure(folder, num_trials)
        sizes = {name: (folder / name).stat().st_size / 2**20 for name in (paths.OPTUNA_DB, paths.MLFLOW_DB)}
    hundreds = range(0, num_trials - 99, 100)
    walls = [samples.ends_s[i + 100] - samples.ends_s[i] for i in hundreds]
    cpus = [samples.cpu_s[i + 100] - samples.cpu_s[i] for i in hundreds]
    wall = (samples.ends_s[-1] - samples.ends_s[0] + left_s) / num_trials
    cpu = (samples.cpu_s[-1] - samples.cpu_s[0]) / num_trials
    load = " and ".join(f"{value:.1f}" for value in (load_before, os.getloadavg()[0]))
    result.add("all of it", f"{1000 * wall:.1f} ms a trial", f"wall time; load of the machine before and after: {load}")
    result.add("processor time of it", f"{1000 * cpu:.1f} ms a trial", "both threads of the driver")
    result.add(
        "of the hundreds, the fastest, the median and the slowest",
        ", ".join(f"{10 * value:.0f}" for value in (min(walls), median(walls), max(walls))) + " ms a trial",
        "wall time; what else runs on the machine makes the difference",
    )
    part = max(len(walls) // 10, 1)
    ends = {"first": slice(part), "last": slice(-part, None)}
    for name, least in (("wall time", walls), ("processor time", cpus)):
        first, last = (10 * median(least[end]) for end in ends.values())
        result.add(
            f"{name} of the first and the last tenth", f"{first:.1f} and {last:.1f} ms a trial", "median hundred"
        )
    memory = samples.memory_mb
    growth = 1000 * (memory[-1] - memory[len(memory) // 10]) / (0.9 * num_trials)
    result.add(
        "memory at the first and the last sample",
        f"{memory[0]:.0f} and {memory[-1]:.0f} MB",
        f"resident; from the first tenth on {growth:.1f} MB for 1,000 trials, 2.6 of them Optuna's trials in memory",
    )
    result.add("databases", " and ".join(f"{size:.0f} MB" for size in sizes.values()), "Optuna's and MLflow's")
    result.raw = {
        "memory (MB)": memory,
        "wall of each hundred trials (s)": walls,
        "processor of each hundred trials (s)": cpus,
    }
    result.holds = wall <= 0.080
    if num_trials == _TRIALS:
        result.save()


if __name__ == "__main__":
    main()
