"""What a trial costs the driver itself: ask, compose, freeze, record, five reports, tell. Nothing is trained."""

import time
from pathlib import Path

from harness import Result, median, scratch

from sweeps.config.composer import Composer
from sweeps.core import paths
from sweeps.core.messages import Event, Exited, Finished, MetricPoint, Metrics, RankJob, Report
from sweeps.core.text import run_name
from sweeps.core.urls import default_uri
from sweeps.driver.display import Display
from sweeps.driver.driver import Driver, Limits
from sweeps.driver.study_run import StudyRun
from sweeps.driver.trial_runs import TrialSetup
from sweeps.launchers.launcher import Launcher
from sweeps.launchers.slots import Slot
from sweeps.search.samplers import build_pruner, build_sampler
from sweeps.search.space.declare import parse_space
from sweeps.search.storage import open_storage
from sweeps.search.study import Study
from sweeps.tracking.client import MlflowStore
from sweeps.tracking.recorder import Recorder

_TRIALS, _EPOCHS, _STEPS = 64, 5, 21


class InstantLauncher(Launcher):
    """Delivers the events of a real trial without training it, by default as many as one of digits has."""

    def __init__(self, epochs: int = _EPOCHS, steps: int = _STEPS) -> None:
        self._epochs = epochs
        self._steps = steps
        self._events: list[tuple[int, Event]] = []

    def start(self, number: int, job: RankJob, num_ranks: int = 1) -> None:
        value = 0.9
        for epoch in range(self._epochs):
            now = int(time.time() * 1000)
            steps = range(epoch * self._steps, (epoch + 1) * self._steps)
            points = [MetricPoint("train/loss_step", 0.5, step, now) for step in steps]
            for key in ("val/loss", "val/acc", "train/loss", "epoch"):
                points.append(MetricPoint(key, 0.5, steps[-1], now))
            value = 0.9 + 0.01 * epoch - 0.0001 * number
            self._events += [(number, Metrics(points=tuple(points))), (number, Report(value=value, step=epoch))]
        self._events += [(number, Finished(state="complete", value=value)), (number, Exited())]

    def poll(self, timeout_s: float) -> list[tuple[int, Event]]:
        events, self._events = self._events, []
        return events


def measure(folder: Path) -> tuple[float, float, float]:
    """Return the wall time, the processor time of all threads, and the recorder's share, in seconds a trial."""
    composer = Composer("sweep", [])
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
    driver = Driver(
        search=study,
        setup=TrialSetup(
            compose=lambda values, number, replicate: composer.trial(values, number),
            folder=lambda number: paths.trial_dir(folder, number),
            name=run_name,
            run_tags=run_tags,
            prunes=True,
        ),
        slots=[Slot(index=0, threads=1)],
        limits=Limits(num_trials=_TRIALS),
        launcher=InstantLauncher(),
        recorder=recorder,
        display=Display(),
        on_ended=parent.add,
    )
    began, began_cpu = time.perf_counter(), time.process_time()
    totals = driver.run()
    parent.close(totals.stopped)
    assert recorder.close() == 0
    assert totals.count("complete") + totals.count("pruned") == _TRIALS
    wall, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    return wall / _TRIALS, cpu / _TRIALS, recorder.busy_s / _TRIALS


def main() -> None:
    result = Result(
        name=Path(__file__).stem,
        claim="the driver's own work a trial (ask, compose, freeze, record, five reports, tell) takes at most 80 ms",
    )
    walls, cpus, recorders = [], [], []
    for _ in range(5):
        with scratch() as folder:
            wall, cpu, recorder = measure(folder)
        walls.append(wall)
        cpus.append(cpu)
        recorders.append(recorder)
    result.raw = {"wall (s a trial)": walls, "processor (s a trial)": cpus, "recorder (s a trial)": recorders}
    result.add("all of it", f"{1000 * median(walls):.0f} ms a trial", f"median of 5 studies of {_TRIALS} trials")
    result.add("processor time of it", f"{1000 * median(cpus):.0f} ms a trial", "both threads of the driver")
    result.add(
        "with the recorder's thread at work for",
        f"{1000 * median(recorders):.0f} ms a trial",
        "one run with its params, 126 metric points, one artifact, its end; the next trial does not wait for it",
    )
    result.holds = median(walls) <= 0.080
    result.save()


if __name__ == "__main__":
    main()
