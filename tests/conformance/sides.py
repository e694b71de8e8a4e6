"""Both sides of a case: plain Lightning, and Lightsweep's own check and launcher."""

import multiprocessing
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conformance import plain
from conformance.cases import Case
from conformance.plain import Course
from omegaconf.errors import OmegaConfBaseException

from sweeps.config.composer import Composer, Config, freeze
from sweeps.core import paths
from sweeps.core.errors import LightsweepError
from sweeps.core.messages import Artifact, Event, Exited, Failed, Finished, MetricPoint, Metrics, RankJob, Started
from sweeps.driver.jobs import JobBuilder
from sweeps.driver.preflight import check
from sweeps.launchers.local import LocalLauncher, _without_main
from sweeps.launchers.slots import Slot
from sweeps.reproduce.trace import read_trace

_TESTS = str(Path(__file__).parents[1])
_LIMIT_S = 60.0


class Sides:
    """Runs cases; both sides fork from one process that has imported everything."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._base = ("trainer=cpu", f"store_dir={folder}", "allowed_modules=[conformance]", "trainer.max_epochs=3")
        self._composer = Composer("train", self._base)
        self._launcher = LocalLauncher(
            modules=[f"conformance.{name}" for name in ("plain", "modules", "callbacks")],
            python_path=[_TESTS],
            log=folder / "server.log",
        )
        self._number = 0

    def close(self) -> None:
        """End the processes."""
        self._launcher.close()

    def run(self, case: Case) -> tuple[Course, Course]:
        """Return what plain Lightning and what Lightsweep make of a case."""
        number, self._number = self._number, self._number + 1
        folder = self._folder / f"{number:03d}"
        folder.mkdir()
        config = self._config(case)
        ours, theirs = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("forkserver").Process(
            target=plain.run, args=(theirs, self._plain_config(case, config), folder)
        )
        with _without_main():
            process.start()
        theirs.close()
        self._launcher.prepare(2)
        if isinstance(config, LightsweepError):
            swept = Course(error=f"refused: {config}")
        else:
            swept = self._swept(number, config, folder)
        try:
            assert ours.poll(_LIMIT_S), "plain Lightning does not end"
            alone = ours.recv()
        except EOFError:
            alone = Course(error="died")
        finally:
            process.kill()
            process.join()
            ours.close()
        return alone, swept

    def _config(self, case: Case) -> Config | LightsweepError:
        values = {f"trainer.{key}": value for key, value in case.trainer.items()}
        values |= {f"objective.{key}": value for key, value in case.objective.items()} | dict(case.more)
        try:
            config = self._composer.trial(values, seed=case.seed)
        except (LightsweepError, OmegaConfBaseException):  # as the command line says it
            try:
                overrides = [f"++{key}={_typed(value)}" for key, value in values.items()]
                config = Composer("train", [*self._base, *overrides]).trial({}, seed=case.seed)
            except LightsweepError as error:
                return error
        return _with_parts(config, case)

    def _plain_config(self, case: Case, config: Config | LightsweepError) -> Config:
        """Return what the plain Trainer is given; it knows keys that Lightsweep may not have."""
        if not isinstance(config, LightsweepError):
            return config
        plainly = _with_parts(self._composer.trial({}, seed=case.seed), case)
        plainly["trainer"] = plainly["trainer"] | dict(case.trainer)
        return plainly

    def _swept(self, number: int, config: Config, folder: Path) -> Course:
        slot = Slot(index=0, threads=1)
        try:
            check(self._launcher, JobBuilder.of(self._composer), [({}, config)], [slot], folder)
        except LightsweepError as error:
            return Course(error=f"refused: {error}")
        freeze(config, folder)
        job = RankJob(
            folder=str(folder), python_path=(_TESTS,), allowed_modules=self._composer.allowed_modules, threads=1
        )
        self._launcher.start(number, job)
        events = self._events(number)
        return _course(events, config, folder)

    def _events(self, number: int) -> list[Event]:
        events: list[Event] = []
        deadline = time.monotonic() + _LIMIT_S
        while not any(isinstance(event, Exited) for event in events):
            if time.monotonic() > deadline:
                self._launcher.kill(number)
            events += [event for source, event in self._launcher.poll(1.0) if source == number]
        return events


def _with_parts(config: Config, case: Case) -> Config:
    config = config | dict(case.parts)
    config["callbacks"] = {**({} if case.without_default else config["callbacks"]), **case.callbacks}
    if "checkpoint" in case.changed:
        config["callbacks"]["checkpoint"] = config["callbacks"]["checkpoint"] | case.changed["checkpoint"]
    config["callbacks"] = dict(sorted(config["callbacks"].items()))  # as `callbacks=[more,default]` may order them
    return config


def _typed(value: Any) -> str:
    return "null" if value is None else str(value)


def _course(events: list[Event], config: Config, folder: Path) -> Course:
    final_message = next((event for event in events if isinstance(event, (Finished, Failed))), None)
    if not isinstance(final_message, Finished):
        why = "no last word" if final_message is None else f"{final_message.cause}: {final_message.message}"
        return Course(error=f"failed: {why}")
    if final_message.state != "complete":
        return Course(error=f"{final_message.state}: {final_message.reason}")
    trace = read_trace(folder / paths.TRACE)
    files = [event.path for event in events if isinstance(event, Artifact) and event.artifact_path == paths.CHECKPOINTS]
    course = Course(
        value=final_message.value,
        metrics=dict(final_message.metrics),
        epochs=[(epoch.step, epoch.weights[0]) for epoch in trace.epochs],
        kept=plain.kept_in(Path(files[-1])) if files else None,
        num_parameters=[event.num_parameters for event in events if isinstance(event, Started)][-1],
    )
    course.latest = _latest([point for event in events if isinstance(event, Metrics) for point in event.points])
    return course


def _latest(points: list[MetricPoint]) -> dict[str, float]:
    """Return what a run shows of each metric: the last value of the highest step."""
    found: dict[str, MetricPoint] = {}
    for point in points:
        if point.key not in found or point.step >= found[point.key].step:
            found[point.key] = point
    return {key: point.value for key, point in found.items()}


def differences(alone: Course, swept: Course, objective: Mapping[str, str]) -> list[str]:
    """Say in what Lightsweep differs from plain Lightning."""
    if alone.error or swept.error:
        both = bool(alone.error) and bool(swept.error)
        return [] if both else [f"plain: {alone.error or 'trains'}; Lightsweep: {swept.error or 'trains'}"]
    found = []
    if alone.num_parameters != swept.num_parameters:
        found.append(f"number of parameters: {swept.num_parameters}, not {alone.num_parameters}")
    if not plain.same(alone.value, swept.value):
        found.append(f"value: {swept.value}, not {alone.value}")
    metric = objective["metric"]
    logged = alone.training | alone.validation | ({} if alone.value is None else {metric: alone.value})
    shown = {key: value for key, value in logged.items() if key == metric or key not in alone.test}
    shown |= {key: value for key, value in alone.test.items() if key not in logged}
    found += [
        f"{key}: {swept.metrics.get(key)}, not {value}"
        for key, value in shown.items()
        if not plain.same(swept.metrics.get(key), value)
    ]
    found += [
        f"latest point of {key}: {swept.latest[key]}, not {value}"
        for key, value in (alone.validation | alone.test).items()
        if key in swept.latest and key in shown and not plain.same(swept.latest[key], shown[key])
    ]
    if alone.epochs != swept.epochs:
        where = next(
            (i for i, pair in enumerate(zip(alone.epochs, swept.epochs, strict=False)) if pair[0] != pair[1]), None
        )
        steps = [[step for step, _ in course.epochs] for course in (swept, alone)]
        found.append(f"weights differ from epoch {where} on; steps {steps[0]}, not {steps[1]}")
    if alone.kept != swept.kept:
        found.append(f"kept checkpoint: {_short(swept.kept)}, not {_short(alone.kept)}")
    return found


def _short(kept: tuple[int, int, str] | None) -> str:
    return "none" if kept is None else f"epoch {kept[0]} step {kept[1]} ({kept[2][:6]})"
