"""`lightsweep sweep` and `resume`: set up a study, check it, drive it, and write the file that `resume` reads."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sweeps.config.composer import Composer, to_yaml
from sweeps.core import paths
from sweeps.core.errors import ConfigError, StudyError
from sweeps.core.text import run_name
from sweeps.core.trials import Totals, TrialResult, Why
from sweeps.driver.display import Heading
from sweeps.driver.driver import Limits
from sweeps.driver.forecast import Budget
from sweeps.driver.inbox import Orders
from sweeps.driver.reuse import ResultCache
from sweeps.driver.session import CommandLine, Reporter, Session, lease_slots, ranks_of
from sweeps.driver.study_run import ENDS, StudyRun
from sweeps.driver.sweep_setup import SweepPlan, plan_sweep, recorded_command, require_logged, storage_url
from sweeps.driver.transfer import check_warm_start, known_choices, move_over, start_warm
from sweeps.driver.trial_runs import InterruptedRun, TrialSetup
from sweeps.launchers.slots import devices_per_slot
from sweeps.launchers.torchrun import given_place
from sweeps.report.build import FinalReport, Report
from sweeps.results.summary import BestTrial, StudySummary
from sweeps.search.samplers import seed_of
from sweeps.search.storage import Storage, open_storage
from sweeps.search.study import Study
from sweeps.tracking import tags
from sweeps.tracking.recorder import Recorder
from sweeps.tracking.store import Unsent
from sweeps.tracking.ui import PARENT, RunKey

__all__ = ["SweepResult", "enqueue_first", "only_driver", "resume", "sweep"]

_LOCK_WITHIN_S = 1.0  # `lightsweep enqueue` and `stop` hold the lock for an instant, to see whether it is free


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResult:
    """A sweep that has ended or was stopped."""

    summary: StudySummary
    folder: Path
    totals: Totals
    unsent: Unsent
    report: Report | None
    """the report; None if `study.report` is false"""


def sweep(command: CommandLine, reporter: Reporter, *, migrates: bool = False) -> SweepResult:
    """Search what the command line describes.

    A study of the same name is resumed to its total, if it searches the same space, or if it `migrates` to this one.

    Raises:
        LightsweepError: The command line makes no sense, the check failed, or a store cannot be opened.
    """
    if given_place() is not None:
        raise ConfigError(
            "A sweep starts the ranks of its trials itself, but this process was started as one of several: run "
            "`lightsweep sweep` once, without torchrun or srun. They are for `lightsweep train` on several hosts."
        )
    plan = plan_sweep(command)
    if migrates and plan.config["study"]["name"] is None:
        raise ConfigError("--migrate moves an existing study to another space: name it, study.name=NAME.")
    slots = lease_slots(plan.config, slots=None)
    with Session(command, plan.composer, plan.corners, slots, reporter=reporter) as session:
        return _Sweep(session, plan).run(migrates=migrates)


def resume(
    name: str, store_dir: Path, reporter: Reporter, further: Sequence[str] = (), *, migrates: bool = False
) -> SweepResult:
    """Resume a study by the command line that started it, and `further` overrides.

    Raises:
        StudyError: There is no such study in the store.
        LightsweepError: As for `sweep`.
    """
    return sweep(recorded_command(name, store_dir, further), reporter, migrates=migrates)


class _Sweep:
    """A sweep whose processes run, from its plan to its result."""

    def __init__(self, session: Session, plan: SweepPlan) -> None:
        self._session = session
        self._plan = plan
        self._reporter = session.reporter
        self._store_dir = session.store_dir

    def run(self, *, migrates: bool) -> SweepResult:
        plan = self._plan
        recorder = self._session.open_recorder()  # it imports while Optuna's tables open
        storage = open_storage(storage_url(plan.config))
        check_warm_start(plan, storage)
        metrics = self._prepare()
        name = plan.config["study"]["name"] or _new_name(plan.composer, self._store_dir)
        folder = paths.study_dir(self._store_dir, name)
        with only_driver(name, folder) as since_ns:
            study = self._open_study(name, storage, folder, migrates=migrates)
            self._leave_record(name, folder)
            return self._drive(study, folder, recorder, since_ns, metrics)

    def _prepare(self) -> tuple[str, ...]:
        """Wait for the store, ask what the models are, check the corners; return what they log, if they were."""
        plan, session = self._plan, self._session
        with self._reporter.preparing():
            session.wait_until_open()  # the launcher's server imports meanwhile
            if session.inspect():
                plan.config = plan.composer.base()
            if not plan.config["check"]:
                return ()
            report = session.check(space=plan.space, compose=plan.trial, judged=plan.judged)
        require_logged(plan.config, report.metrics, report.late)
        self._reporter.warn(report)
        return report.metrics

    def _open_study(self, name: str, storage: Storage, folder: Path, *, migrates: bool) -> Study:
        """Create the study or load it, with the trials that it is to know of."""
        plan, say = self._plan, self._reporter.echo
        if migrates:
            move_over(plan, name, storage, folder=folder, say=say)
        start_warm(plan, name, storage, store_dir=self._store_dir, say=say)
        study = Study.create_or_load(
            name,
            storage,
            space=plan.space,
            sampler=plan.sampler,
            pruner=plan.pruner,
            terms=plan.terms,
            seed=seed_of(plan.config["sampler"], plan.config["seed"]),
        )
        study.close_stale()
        enqueue_first(study, plan.config["study"]["enqueue"])
        return study

    def _drive(
        self, study: Study, folder: Path, recorder: Recorder, since_ns: int, metrics: Sequence[str]
    ) -> SweepResult:
        plan, session, config = self._plan, self._session, self._plan.config
        limits = self._limits(study)
        threads = session.slots[0].threads
        parent = StudyRun(
            study, recorder, config=config, objectives=plan.terms.directions, metrics=metrics, threads=threads
        )
        run_tags = parent.open(session.command.overrides)
        provenance = session.capture("sweep")
        file = provenance.write(folder)
        recorder.artifact(PARENT, file)
        uri = config["tracking"]["uri"]
        final = FinalReport(study.name, folder, recorder, uri=uri, is_on=config["study"]["report"])
        display = self._reporter.display(self._heading(study, limits, parent.best))

        def on_ended(outcome: TrialResult) -> None:
            parent.add(outcome)
            final.prepare()

        stopped: Why | None = None  # unless the driver ends normally
        try:
            totals = session.drive(
                study,
                self._setup(study, folder, run_tags, provenance.digest, parent.interrupted),
                limits,
                recorder,
                display,
                cache=ResultCache(study.twins, is_on=config["study"]["reuse"]),
                commands=Orders(study, folder, display.say, since_ns=since_ns),
                on_ended=on_ended,
            )
            stopped = totals.stopped
        finally:
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

    def _limits(self, study: Study) -> Limits:
        asked = self._plan.config["study"]
        return Limits(
            num_trials=asked["num_trials"],
            timeout_s=asked["timeout_s"],
            device_hours=asked["device_hours"],
            device_s_before=study.device_s,
            devices_per_slot=devices_per_slot(self._session.slots),
            trial_timeout_s=asked["trial_timeout_s"],
            max_failures=asked["max_failures"],
            grace_s=self._plan.config["launcher"]["grace_s"],
        )

    def _setup(
        self,
        study: Study,
        folder: Path,
        run_tags: Mapping[str, str],
        provenance: str,
        runs: Mapping[RunKey, InterruptedRun],
    ) -> TrialSetup:
        replicates = self._plan.terms.replication
        return TrialSetup(
            compose=self._plan.trial,
            folder=lambda number: paths.trial_dir(folder, number),
            name=run_name,
            run_tags={**run_tags, tags.KIND: "trial"},
            jobs=self._session.jobs,
            prunes=self._plan.prunes,
            replicates=replicates.count,
            noun=replicates.noun,
            objective=study.metrics[0] if self._is_judged_by_another(study) else None,
            provenance=provenance,
            runs=runs,
        )

    def _heading(self, study: Study, limits: Limits, best_before: tuple[BestTrial, ...]) -> Heading:
        plan, slots = self._plan, self._session.slots
        done = f" ({study.num_finished} finished before)" if study.num_finished else ""
        return Heading(
            title=f"study {study.name}: {limits.num_trials} trials{done}, {len(slots)} at once{ranks_of(slots[0])}, "
            f"{plan.terms.replication.text}"
            + ", ".join(f"{direction} {metric}" for metric, direction in plan.terms.directions.items()),
            name=study.name,
            metric=study.metrics[0],
            direction=plan.terms.directions[study.metrics[0]],
            objectives=plan.terms.directions if len(plan.terms.directions) > 1 else {},
            reported=plan.terms.reported[0] if self._is_judged_by_another(study) else None,
            num_trials=limits.num_trials,
            num_finished=study.num_finished,
            replicates=plan.terms.replication.count,
            noun=plan.terms.replication.noun,
            budget=Budget(
                num_trials=limits.num_trials,
                num_slots=len(slots),
                devices_per_slot=limits.devices_per_slot,
                timeout_s=limits.timeout_s,
                device_s=None if limits.device_hours is None else 3600 * limits.device_hours,
            ),
            device_s_before=limits.device_s_before,
            best_before=best_before,
        )

    def _is_judged_by_another(self, study: Study) -> bool:
        """Whether trials are judged by a metric other than the one that trainings report."""
        return self._plan.terms.reported[0] != study.metrics[0]

    def _leave_record(self, name: str, folder: Path) -> None:
        """Write what `resume` reads; for the user alone, since an override may hold a password."""
        command = self._session.command
        record = {
            "study": name,
            "config_name": command.config_name,
            "config_dir": str(command.config_dir.resolve()) if command.config_dir else None,
            "overrides": list(command.overrides),
            "space": self._plan.space.describe(),
            "choices": known_choices(folder, self._plan.composer.choices),
        }
        paths.write_text(folder / paths.STUDY, to_yaml(record))


def enqueue_first(study: Study, enqueue: Sequence[Mapping[str, Any]]) -> None:
    """Queue what the configuration wants to be tried first, once, when the study is new."""
    if study.is_new:
        for index, values in enumerate(enqueue):
            study.enqueue(values, request=f"study.enqueue[{index}]")


@contextmanager
def only_driver(name: str, folder: Path) -> Iterator[int]:
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
