"""`lightsweep sweep` and `resume`: set a study up, check it, drive it, and leave a record to go on from."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console

from sweeps.cli.console import preparing
from sweeps.cli.live import make_display
from sweeps.cli.preflight_report import print_warnings
from sweeps.config.composer import Composer, Config, to_yaml
from sweeps.core import paths
from sweeps.core.errors import ConfigError, StudyError
from sweeps.core.text import run_name
from sweeps.core.trials import Totals, TrialResult, Why
from sweeps.driver.display import Heading
from sweeps.driver.driver import Driver, Limits
from sweeps.driver.forecast import Budget
from sweeps.driver.inbox import Orders
from sweeps.driver.inspect import inspect_models
from sweeps.driver.preflight import check
from sweeps.driver.preflight_report import CheckReport
from sweeps.driver.reuse import ResultCache
from sweeps.driver.session import (
    CommandLine,
    lease_slots,
    open_recorder,
    python_path,
    start_launcher,
)
from sweeps.driver.study_run import ENDS, StudyRun
from sweeps.driver.sweep_setup import (
    compose_trial,
    judged_metrics,
    read_sweep,
    recorded_command,
    require_in_space,
    require_logged,
    require_same_devices,
    require_sound,
    storage_url,
)
from sweeps.driver.transfer import check_warm_start, known_choices, move_over, start_warm
from sweeps.driver.trial_runs import TrialSetup
from sweeps.launchers.local import LocalLauncher
from sweeps.launchers.slots import Slot, devices_per_slot
from sweeps.launchers.torchrun import given_place
from sweeps.report.build import FinalReport, Report
from sweeps.reproduce.provenance import capture
from sweeps.results.summary import StudySummary
from sweeps.search.objectives import parse_constraints, parse_objectives, require_judgeable
from sweeps.search.replicates import replication
from sweeps.search.samplers import build_pruner, build_sampler, seed_of
from sweeps.search.space.space import Space
from sweeps.search.storage import open_storage
from sweeps.search.study import Study
from sweeps.tracking import tags
from sweeps.tracking.recorder import Recorder
from sweeps.tracking.store import Unsent
from sweeps.tracking.ui import PARENT

__all__ = ["SweepResult", "resume", "sweep"]

_LOCK_WITHIN_S = 1.0  # `lightsweep enqueue` and `stop` hold the lock for an instant, to see whether it is free


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResult:
    """A sweep that has come to its end, or to a stop."""

    summary: StudySummary
    folder: Path
    totals: Totals
    unsent: Unsent
    report: Report | None
    """what the study has taught; None if there is no report"""


def sweep(command: CommandLine, console: Console, *, migrates: bool = False) -> SweepResult:
    """Search what the command line describes.

    A study of the same name goes on to its total, if it searches the same space, or if it `migrates` to this one.

    Raises:
        LightsweepError: The command line makes no sense, the check failed, or a store cannot be opened.
    """
    if given_place() is not None:
        raise ConfigError(
            "A sweep starts the ranks of its trials itself, but this process was started as one of several: run "
            "`lightsweep sweep` once, without torchrun or srun. They are for `lightsweep train` on several hosts."
        )
    composer, config, space = read_sweep(command)
    if migrates and config["study"]["name"] is None:
        raise ConfigError("--migrate moves a study that is there to another space: say which, study.name=NAME.")
    return _Sweep(command, composer, config, space, console).run(migrates=migrates)


def resume(
    name: str, store_dir: Path, console: Console, further: Sequence[str] = (), *, migrates: bool = False
) -> SweepResult:
    """Go on with a study by the command line that started it, and `further` overrides.

    Raises:
        StudyError: There is no such study in the store.
        LightsweepError: As for `sweep`.
    """
    return sweep(recorded_command(name, store_dir, further), console, migrates=migrates)


class _Sweep:
    """One sweep from the parsed command line to its result."""

    def __init__(
        self, command: CommandLine, composer: Composer, config: Config, space: Space, console: Console
    ) -> None:
        self._command = command
        self._composer = composer
        self._config = config
        self._space = space
        self._console = console
        self._store_dir = Path(config["store_dir"])
        self._objectives = {
            metric: direction.name.lower()
            for metric, direction in parse_objectives(config["study"]["metric"], config["study"]["direction"]).items()
        }
        self._constraints = parse_constraints(config["study"]["constraints"])
        self._replication = replication(config, space.keys)
        judges_no_epochs = ("optuna.pruners.NopPruner", "optuna.pruners.WilcoxonPruner")
        self._answers = config["pruner"]["_target_"] not in judges_no_epochs

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def run(self, *, migrates: bool) -> SweepResult:
        config = self._config
        slots = lease_slots(config, slots=None)
        require_sound(config)
        require_in_space(config["study"]["enqueue"], self._space)
        sampler = build_sampler(
            config["sampler"],
            self._space,
            config["allowed_modules"],
            num_objectives=len(self._objectives),
        )
        pruner = build_pruner(config["pruner"], config["allowed_modules"])
        reported = (config["objective"]["metric"], config["objective"]["direction"])
        objectives = parse_objectives(config["study"]["metric"], config["study"]["direction"])
        require_judgeable(pruner, objectives, reported, self._replication)
        # From here on processes and files exist: the server and the recorder import while Optuna's tables open.
        corners = self._corners()
        configs = [corner for _, corner in corners]
        require_same_devices(config, configs)
        launcher = start_launcher(self._composer, configs, threads=slots[0].threads, log=self._store_dir / "server.log")
        with closing(launcher):
            recorder = open_recorder(self._composer, self._store_dir)
            storage = open_storage(storage_url(config))
            check_warm_start(config, storage)
            with preparing(self._console):
                recorder.wait_until_open()  # the server imports meanwhile
                if inspect_models(launcher, self._composer, configs, slots[0], self._store_dir):
                    corners = self._corners()  # without what their models do not take
                    self._config = config = self._composer.base()
                report = self._check(launcher, corners, slots) if config["check"] else None
            if report is not None:
                require_logged(config, report.metrics, report.late)
                print_warnings(report, self._console)
            name = config["study"]["name"] or _new_name(self._composer, self._store_dir)
            folder = paths.study_dir(self._store_dir, name)
            with _only_driver(name, folder) as since_ns:
                if migrates:
                    move_over(
                        name,
                        storage,
                        config=config,
                        composer=self._composer,
                        space=self._space,
                        folder=folder,
                        say=self._print,
                    )
                start_warm(
                    name,
                    storage,
                    config=config,
                    composer=self._composer,
                    space=self._space,
                    store_dir=self._store_dir,
                    say=self._print,
                )
                study = Study.create_or_load(
                    name,
                    storage,
                    space=self._space,
                    sampler=sampler,
                    pruner=pruner,
                    metric=list(self._objectives),
                    direction=list(self._objectives.values()),
                    reported=reported,
                    constraints=self._constraints,
                    replication=self._replication,
                    seed=seed_of(config["sampler"], config["seed"]),
                )
                study.close_stale()
                _enqueue_first(study, config["study"]["enqueue"])
                return self._drive(study, folder, slots, launcher, recorder, since_ns, report.metrics if report else ())

    def _check(
        self, launcher: LocalLauncher, corners: Sequence[tuple[Mapping[str, Any], Config]], slots: list[Slot]
    ) -> CheckReport:
        return check(
            launcher,
            self._composer,
            corners,
            slots,
            self._store_dir,
            space=self._space,
            compose=lambda values: self._compose(values, 0, 0),
            judged=[metric for metrics in judged_metrics(self._config).values() for metric in metrics],
        )

    def _drive(
        self,
        study: Study,
        folder: Path,
        slots: list[Slot],
        launcher: LocalLauncher,
        recorder: Recorder,
        since_ns: int,
        metrics: Sequence[str],
    ) -> SweepResult:
        limits = Limits(
            num_trials=self._config["study"]["num_trials"],
            timeout_s=self._config["study"]["timeout_s"],
            device_hours=self._config["study"]["device_hours"],
            device_s_before=study.device_s,
            devices_per_slot=devices_per_slot(slots),
            trial_timeout_s=self._config["study"]["trial_timeout_s"],
            max_failures=self._config["study"]["max_failures"],
            grace_s=self._config["launcher"]["grace_s"],
        )
        self._leave_record(study.name, folder)
        parent = StudyRun(
            study,
            recorder,
            config=self._config,
            objectives=self._objectives,
            metrics=metrics,
            threads=slots[0].threads,
        )
        common_tags = parent.open(self._command.overrides)
        provenance = capture(
            ["lightsweep", "sweep", *self._command.overrides],
            self._command.config_dir,
            store_dir=self._store_dir,
            hide=self._composer.secrets.hide,
        )
        recorder.artifact(PARENT, provenance.write(folder))
        reported = self._config["objective"]["metric"]
        is_judged_by_another = reported != study.metrics[0]
        done = f" ({study.num_finished} finished before)" if study.num_finished else ""
        heading = Heading(
            title=f"study {study.name}: {limits.num_trials} trials{done}, {len(slots)} at once{_ranks_of(slots[0])}, "
            f"{self._replication.text}"
            + ", ".join(f"{direction} {metric}" for metric, direction in self._objectives.items()),
            name=study.name,
            metric=study.metrics[0],
            direction=self._objectives[study.metrics[0]],
            objectives=self._objectives if len(self._objectives) > 1 else {},
            reported=reported if is_judged_by_another else None,
            num_trials=limits.num_trials,
            num_finished=study.num_finished,
            replicates=self._replication.count,
            noun=self._replication.noun,
            budget=Budget(
                num_trials=limits.num_trials,
                num_slots=len(slots),
                devices_per_slot=limits.devices_per_slot,
                timeout_s=limits.timeout_s,
                device_s=None if limits.device_hours is None else 3600 * limits.device_hours,
            ),
            device_s_before=limits.device_s_before,
            best_before=parent.best,
        )
        display = make_display(heading, self._console)
        uri = self._config["tracking"]["uri"]
        final = FinalReport(study.name, folder, recorder, uri=uri, is_on=self._config["study"]["report"])

        def on_ended(outcome: TrialResult) -> None:
            parent.add(outcome)
            final.prepare()

        driver = Driver(
            search=study,
            setup=TrialSetup(
                compose=self._compose,
                folder=lambda number: paths.trial_dir(folder, number),
                name=run_name,
                run_tags={**common_tags, tags.KIND: "trial"},
                python_path=python_path(self._composer),
                hidden=self._composer.hidden,
                allowed_modules=self._composer.allowed_modules,
                answers=self._answers,
                replicates=self._replication.count,
                noun=self._replication.noun,
                objective=study.metrics[0] if is_judged_by_another else None,
                provenance=provenance.digest,
                runs=parent.interrupted,
            ),
            slots=slots,
            limits=limits,
            launcher=launcher,
            recorder=recorder,
            display=display,
            cache=ResultCache(study.twins, is_on=self._config["study"]["reuse"]),
            commands=Orders(study, folder, display.say, since_ns=since_ns),
            on_ended=on_ended,
        )
        stopped: Why | None = None  # unless the driver comes to an end of its own
        try:
            totals = driver.run()
            stopped = totals.stopped
        finally:
            display.close()
            report = None if stopped is None else final.leave(ENDS[stopped])
            parent.close(stopped, report=paths.REPORT if report else None)
            recorder.close()
        return SweepResult(
            summary=parent.summary(stopped),
            folder=folder,
            totals=totals,
            unsent=recorder.unsent,
            report=report,
        )

    def _compose(self, values: Mapping[str, Any], number: int, replicate: int | None) -> Config:
        return compose_trial(self._composer, self._config, self._replication, values, number, replicate)

    def _corners(self) -> list[tuple[dict[str, Any], Config]]:
        """Compose the first value of each parameter, then each further choice and end, all else as little changed."""
        return [(values, self._compose(values, 0, 0)) for values in self._space.corners()]

    def _leave_record(self, name: str, folder: Path) -> None:
        """Write what `resume` reads; for the user alone, since an override may hold a password."""
        config_dir = self._command.config_dir
        record = {
            "study": name,
            "config_name": self._command.config_name,
            "config_dir": str(config_dir.resolve()) if config_dir else None,
            "overrides": list(self._command.overrides),
            "space": self._space.describe(),
            "choices": known_choices(folder, self._composer.choices),
        }
        paths.write_text(folder / paths.STUDY, to_yaml(record))


def _ranks_of(slot: Slot) -> str:
    return "" if slot.devices == 1 else f" of {slot.devices} ranks each"


def _enqueue_first(study: Study, enqueue: Sequence[Mapping[str, Any]]) -> None:
    """Queue what the configuration wants to be tried first, once, when the study is new."""
    if study.is_new:
        for index, values in enumerate(enqueue):
            study.enqueue(values, request=f"study.enqueue[{index}]")


@contextmanager
def _only_driver(name: str, folder: Path) -> Iterator[int]:
    """Hold the study for this process, and say since when; the kernel frees it if the process dies."""
    paths.require_no_link(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / paths.LOCK, timeout=_LOCK_WITHIN_S)
    try:
        lock.acquire()
    except Timeout as error:
        raise StudyError(
            f"Another process drives study {name!r}. Wait for it or stop it, or give another study.name."
        ) from error
    try:
        yield time.time_ns()
    finally:
        lock.release()


def _new_name(composer: Composer, store_dir: Path) -> str:
    """Name a study after its data, model and the first free number; the folder made here reserves it."""
    stem = "-".join(composer.data_and_model)
    number = 1
    while True:
        folder = paths.study_dir(store_dir, f"{stem}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return f"{stem}-{number}"
