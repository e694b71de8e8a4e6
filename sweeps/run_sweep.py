"""`lightsweep sweep` and `resume`: set a study up, check it, drive it, and leave a record to go on from."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from rich.console import Console

from sweeps import paths
from sweeps.config import Composer, Config, flatten, to_yaml
from sweeps.display import Heading, make_display
from sweeps.driver import Driver, InterruptedRun, Limits, Outcome, Totals, TrialSetup
from sweeps.errors import ConfigError, StudyError, did_you_mean
from sweeps.joining import given_place
from sweeps.launchers.local import LocalLauncher
from sweeps.launchers.slots import Slot
from sweeps.naming import run_name
from sweeps.randomness import derive_seed
from sweeps.records import MetricPoint
from sweeps.space import Space, parse_space, quote, split_overrides
from sweeps.study import ENUMERATING, Best, Study, build_pruner, build_sampler, open_storage, seed_of
from sweeps.tracking import tags
from sweeps.tracking.recorder import Recorder
from sweeps.workbench import (
    CommandLine,
    check,
    common_tags,
    lease_slots,
    open_recorder,
    preparing,
    python_path,
    start_launcher,
)

__all__ = ["SweepResult", "resume", "storage_url", "sweep"]

_PARENT = "study"
_PARENT_STATES = {"": "complete", "timeout": "complete", "failures": "failed", "interrupt": "interrupted"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResult:
    """A sweep that has come to its end, or to a stop."""

    study: str
    folder: Path
    totals: Totals
    num_trials: int
    num_finished: int
    best: Best | None
    metric: str
    num_unsent: int
    tracking_uri: str | None


def storage_url(config: Config) -> str:
    """Return the URL of Optuna's tables."""
    url = config["study"]["storage"]
    return url or f"sqlite:///{(Path(config['store_dir']) / paths.OPTUNA_DB).resolve()}"


def sweep(command: CommandLine, console: Console) -> SweepResult:
    """Search what the command line describes.

    A study of the same name goes on to its total, if it searches the same space.

    Raises:
        LightsweepError: The command line makes no sense, the check failed, or a store cannot be opened.
    """
    if given_place() is not None:
        raise ConfigError(
            "A sweep starts the ranks of its trials itself, but this process was started as one of several: run "
            "`lightsweep sweep` once, without torchrun or srun. They are for `lightsweep train` on several hosts."
        )
    plain, sweeps = split_overrides(command.overrides)
    if sweeps and not any(override.startswith("search=") for override in plain):
        plain.append("search=none")  # who types what to search means just that
    composer = Composer(command.config_name, plain, command.config_dir)
    config = composer.base()
    if "study" not in config:
        raise ConfigError(
            f"--config-name={command.config_name} is no sweep: its defaults need sweep_schema, search, sampler, "
            "pruner, study and launcher, as in conf/sweep.yaml."
        )
    space = _space(composer, config, command.overrides)
    return _Sweep(command, composer, config, space, console).run()


def resume(name: str, store_dir: Path, console: Console) -> SweepResult:
    """Go on with a study by the command line that started it.

    Raises:
        StudyError: There is no such study in the store.
    """
    record = paths.study_dir(store_dir, name) / paths.STUDY
    if not record.is_file():
        known = [str(_read(path)["study"]) for path in sorted(store_dir.glob(f"*/{paths.STUDY}"))]
        hint = did_you_mean(name, known) or "There is none yet."
        raise StudyError(f"There is no study {name!r} in {store_dir}. {hint}")
    stored = _read(record)
    fixed = {"study.name": name, "store_dir": str(store_dir)}
    overrides = [override for override in stored["overrides"] if override.partition("=")[0] not in fixed]
    command = CommandLine(
        overrides=(*overrides, *(f"{key}={quote(value)}" for key, value in fixed.items())),
        config_name=stored["config_name"],
        config_dir=Path(stored["config_dir"]) if stored["config_dir"] else None,
    )
    return sweep(command, console)


def _read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _space(composer: Composer, config: Config, overrides: Sequence[str]) -> Space:
    """Build the space, and compose points that set every key so that a wrong key or type is refused at once."""
    space = parse_space(
        config["search"],
        overrides,
        composer.options,
        fixed=composer.value,
        option_ranges=composer.ranges,
        brings_options=config["sampler"]["_target_"] not in ENUMERATING,  # ranges are no grid
    )
    if not space:
        raise ConfigError(
            "There is nothing to search. Type a sweep expression such as "
            "'optimizer.lr=tag(log,interval(1e-4,1e-1))', or choose a space: search="
            f"{'|'.join(composer.options('search'))}."
        )
    composed: set[str] = set()
    for point in space.corners():
        settings = space.settings(point)
        if not settings <= composed:
            composer.check_values(space.overrides(point))
            composed |= settings
    return space


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
        self._metric = config["study"]["metric"]
        self._direction = config["study"]["direction"]
        self._runs: dict[int, InterruptedRun] = {}  # of trials that go on, by number
        self._answers = config["pruner"]["_target_"] != "optuna.pruners.NopPruner"

    def run(self) -> SweepResult:
        config = self._config
        slots = lease_slots(config, slots=None)
        _require(config)
        sampler = build_sampler(config["sampler"], self._space, self._composer.tree.allowed_modules)
        pruner = build_pruner(config["pruner"], self._composer.tree.allowed_modules)
        # From here on processes and files exist: the server and the recorder import while Optuna's tables open.
        corners = self._corners()
        _require_same_devices(config, corners)
        launcher = start_launcher(self._composer, corners, log=self._store_dir / "server.log")
        with closing(launcher):
            recorder = open_recorder(self._composer, self._store_dir)
            storage = open_storage(storage_url(config))
            with preparing(self._console):
                recorder.wait_until_open()  # the server imports meanwhile
                check(launcher, self._composer, corners[0], corners[1:], slots[0], self._store_dir)
            name = config["study"]["name"] or _new_name(self._composer, self._store_dir)
            folder = paths.study_dir(self._store_dir, name)
            with _only_driver(name, folder):
                study = Study.create_or_load(
                    name,
                    storage,
                    space=self._space,
                    sampler=sampler,
                    pruner=pruner,
                    metric=self._metric,
                    direction=self._direction,
                    seed=seed_of(config["sampler"], config["seed"]),
                )
                study.close_stale()
                return self._drive(study, folder, slots, launcher, recorder)

    def _drive(
        self, study: Study, folder: Path, slots: list[Slot], launcher: LocalLauncher, recorder: Recorder
    ) -> SweepResult:
        limits = Limits(
            num_trials=self._config["study"]["num_trials"],
            timeout_s=self._config["study"]["timeout_s"],
            max_failures=self._config["study"]["max_failures"],
            grace_s=self._config["launcher"]["grace_s"],
        )
        self._leave_record(study.name, folder)
        parent_tags = self._open_parent(study, recorder)
        done = f" ({study.num_finished} finished before)" if study.num_finished else ""
        heading = Heading(
            title=f"study {study.name}: {limits.num_trials} trials{done}, {len(slots)} at once{_ranks_of(slots[0])}, "
            f"{self._direction} {self._metric}",
            name=study.name,
            metric=self._metric,
            direction=self._direction,
            num_trials=limits.num_trials,
            num_finished=study.num_finished,
        )
        display = make_display(heading, self._console)
        driver = Driver(
            search=study,
            setup=TrialSetup(
                compose=self._compose,
                folder=lambda number: paths.trial_dir(folder, number),
                name=run_name,
                run_tags={**parent_tags, tags.KIND: "trial"},
                python_path=python_path(self._composer),
                allowed_modules=self._composer.allowed_modules,
                answers=self._answers,
                runs=self._runs,
            ),
            slots=slots,
            limits=limits,
            launcher=launcher,
            recorder=recorder,
            display=display,
            on_ended=lambda outcome: self._record_progress(study, recorder, outcome),
        )
        state = "failed"  # unless the driver comes to an end of its own
        try:
            totals = driver.run()
            state = _PARENT_STATES[totals.stopped]
        finally:
            display.close()
            self._close_parent(study, recorder, state)
            num_unsent = recorder.close()
        return SweepResult(
            study=study.name,
            folder=folder,
            totals=totals,
            num_trials=limits.num_trials,
            num_finished=study.num_finished,
            best=study.best,
            metric=self._metric,
            num_unsent=num_unsent,
            tracking_uri=self._config["tracking"]["uri"],
        )

    def _compose(self, values: Any, number: int) -> Config:
        seed = derive_seed(self._config["seed"], number) & 0x7FFFFFFF
        return self._composer.trial(values, seed)

    def _corners(self) -> list[Config]:
        """Compose the first value of each parameter, then each further choice and end, all else as little changed."""
        return [self._compose(values, 0) for values in self._space.corners()]

    def _leave_record(self, name: str, folder: Path) -> None:
        """Write what `resume` reads; for the user alone, since an override may hold a password."""
        config_dir = self._command.config_dir
        record = {
            "study": name,
            "config_name": self._command.config_name,
            "config_dir": str(config_dir.resolve()) if config_dir else None,
            "overrides": list(self._command.overrides),
            "space": self._space.describe(),
        }
        paths.write_text(folder / paths.STUDY, to_yaml(record))

    # --- the parent run --------------------------------------------------------------------------------

    def _open_parent(self, study: Study, recorder: Recorder) -> dict[str, str]:
        """Create the parent run, or go on with it; end what a dead driver left running, or note where it goes on."""
        store = recorder.wait_until_open()
        common = common_tags("sweep", self._command.overrides, self._config["tracking"]["tags"])
        common |= {tags.STUDY: study.name, tags.METRIC: self._metric, tags.DIRECTION: self._direction}
        known = store.find_study(study.name)
        if known.parent is not None:
            recorder.go_on(_PARENT, known.parent)
            recorder.tags(_PARENT, {tags.STATE: "running"})
            for run_id, trial in known.running.items():  # the study knows how they ended, if they did
                status, run_tags = tags.ending(*(study.end_of(trial) or ("interrupted", None, "the driver died")))
                store.set_tags(run_id, run_tags)
                store.end_run(run_id, status, end_time_ms=int(time.time() * 1000))
            for run_id, trial in (*known.running.items(), *known.interrupted.items()):
                if study.end_of(trial) is None and trial not in self._runs:
                    self._runs[trial] = InterruptedRun(run_id=run_id, resume_step=store.resume_step(run_id))
            return common
        params = {f"search.{key}": text for key, text in self._space.describe().items()}
        for group in ("study", "sampler", "pruner", "launcher"):
            params |= {k: v for k, v in flatten({group: self._config[group]}).items() if "storage" not in k}
        recorder.start(
            _PARENT, study.name, params=params, run_tags={**common, tags.KIND: "study", tags.STATE: "running"}
        )
        return common

    def _record_progress(self, study: Study, recorder: Recorder, outcome: Outcome) -> None:
        best = study.best
        points = [] if best is None else [(self._metric, best.value)]
        points.append(("trials/finished", float(study.num_finished)))
        now = int(time.time() * 1000)
        recorder.metrics(_PARENT, [MetricPoint(key, value, study.num_finished, now) for key, value in points])

    def _close_parent(self, study: Study, recorder: Recorder, state: str) -> None:
        best = study.best
        run_tags = {tags.STATE: state}
        if best is not None:
            run_tags |= {
                tags.VALUE: repr(best.value),
                "lightsweep.best_trial": str(best.number),
                "mlflow.note.content": f"Best: trial {best.number}, {self._metric} = {best.value:.6g}. "
                f"{study.num_finished} trials.",
            }
        status = {"complete": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}[state]
        recorder.end(_PARENT, status, run_tags)


def _ranks_of(slot: Slot) -> str:
    return "" if slot.devices == 1 else f" of {slot.devices} ranks each"


def _require(config: Config) -> None:
    study = config["study"]
    if study["num_trials"] < 1:
        raise ConfigError(f"study.num_trials must be at least 1, but got {study['num_trials']}.")
    if study["timeout_s"] is not None and study["timeout_s"] <= 0:
        raise ConfigError(f"study.timeout_s must be above 0, or null for no limit, but got {study['timeout_s']}.")
    if study["direction"] not in ("maximize", "minimize"):
        raise ConfigError(f"study.direction must be 'maximize' or 'minimize', but got {study['direction']!r}.")


def _require_same_devices(config: Config, corners: Sequence[Config]) -> None:
    """Refuse a space in which trials differ in what the slots are cut to."""
    for key in ("accelerator", "devices", "num_nodes"):
        if any(corner["trainer"][key] != config["trainer"][key] for corner in corners):
            raise ConfigError(
                f"trainer.{key} cannot be searched, since the slots are cut to it: run one sweep for each value."
            )


@contextmanager
def _only_driver(name: str, folder: Path) -> Iterator[None]:
    """Hold the study for this process; the kernel frees it if the process dies."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / paths.LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise StudyError(
            f"Another process drives study {name!r}. Wait for it or stop it, or give another study.name."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _new_name(composer: Composer, store_dir: Path) -> str:
    """Name a study after its data, model and the first free number; the folder made here reserves it."""
    stem = f"{composer.choices['data']}-{composer.choices['model']}"
    number = 1
    while True:
        folder = paths.study_dir(store_dir, f"{stem}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return f"{stem}-{number}"
