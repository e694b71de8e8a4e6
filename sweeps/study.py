"""A study: what to try next, when to stop a trial, and the record of it in Optuna's SQL storage.

This is the only door to Optuna besides `space/`. It starts nothing and trains nothing.

One driver owns a study while it runs, so Optuna thinks over trials held in memory, and the database is
written in one transaction per ask and one per tell. Reports wait for the next of these, or for
`flush_interval_s`; a finished trial is on disk when `tell` returns.
"""

import copy
import importlib
import importlib.util
import inspect
import json
import logging
import math
import sqlite3
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import optuna
import sqlalchemy as sa
from optuna.distributions import distribution_to_json
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    PatientPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
    ThresholdPruner,
)
from optuna.samplers import BaseSampler
from optuna.samplers._lazy_random_state import LazyRandomState
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeps.errors import ConfigError, SpaceError, StoreError, StudyError, did_you_mean
from sweeps.space import Space

__all__ = [
    "Ask",
    "Best",
    "Outcome",
    "Study",
    "Verdict",
    "build_pruner",
    "build_sampler",
    "open_storage",
]

_log = logging.getLogger(__name__)

EndState = Literal["complete", "pruned", "failed", "interrupted"]
Direction = Literal["maximize", "minimize"]
_Built = TypeVar("_Built")


_MAX_GRID_POINTS = 1_000_000
_SCHEMA_LOCK = 7_091_994_212  # any number, the same in every process: names the lock on a server
_LOCK_TIMEOUT_S = 60
_RETRY_AFTER_S = (0.1, 0.3, 1.0, 3.0, 10.0)
_TARGETS: dict[str, tuple[str, type[Any]]] = {
    "sampler": ("optuna.samplers.", BaseSampler),
    "pruner": ("optuna.pruners.", BasePruner),
}


# --- the storage -------------------------------------------------------------------------------------


def open_storage(url: str) -> RDBStorage:
    """Open Optuna's storage, creating folder, database file and tables if need be.

    Any number of processes may open an empty database at once: the tables are made under a lock. SQLite is
    put into WAL mode and waits up to 60 s for other writers.

    Args:
        url: `sqlite:///mlruns/optuna.db`, `postgresql://user:password@host/database` or another URL of
            SQLAlchemy's. Optuna and MLflow need a database each.

    Raises:
        StoreError: The database cannot be opened, in one line and without the password.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    optuna.logging.disable_default_handler()
    optuna.logging.enable_propagation()
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError as exc:
        raise StoreError(
            f"study.storage must be a database URL, but got {url!r}. Example: sqlite:///mlruns/optuna.db"
        ) from exc
    parsed = _with_installed_driver(parsed)
    try:
        if parsed.get_backend_name() == "sqlite":
            return _open_sqlite(parsed)
        return _open_server(parsed)
    except (sa.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, sqlite3.Error) as exc:
        raise StoreError(f"{_cannot_open(parsed)}: {_first_line(exc, parsed)}. {_way_out(parsed)}") from exc
    except OSError as exc:
        raise StoreError(f"{_cannot_open(parsed)}: {exc.strerror or exc}. {_way_out(parsed)}") from exc
    except ImportError as exc:
        raise StoreError(
            f"{_cannot_open(parsed)}: its driver is not installed ({exc.__cause__ or exc}). For PostgreSQL: "
            f"pip install 'lightsweep[postgres]'"
        ) from exc
    except RuntimeError as exc:  # Optuna's word for a schema of another version
        raise StoreError(
            f"{_cannot_open(parsed)}: its tables belong to another version of Optuna than "
            f"{optuna.__version__}. Take a copy, then run "
            f"`optuna storage upgrade --storage URL`, or name another database."
        ) from exc


def _open_sqlite(url: sa.URL) -> RDBStorage:
    path = url.database or ":memory:"
    if path == ":memory:" or "mode=memory" in path:
        return RDBStorage(url.render_as_string(hide_password=False))
    file = Path(path.removeprefix("file:").partition("?")[0])
    file.parent.mkdir(parents=True, exist_ok=True)
    connect = partial(_connect_sqlite, path, uri=path.startswith("file:"))
    with _file_lock(file.with_name(f"{file.name}.lock")):
        with connect() as probe:  # the tables of another program must not be mixed with Optuna's
            names = {name for (name,) in probe.execute("select name from sqlite_master where type = 'table'")}
        probe.close()
        _check_tables(names, url)
        return RDBStorage(_template(url), engine_kwargs={"creator": connect})


def _connect_sqlite(path: str, *, uri: bool = False) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_LOCK_TIMEOUT_S, check_same_thread=False, uri=uri)
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = normal")
    connection.execute("pragma foreign_keys = on")
    return connection


@contextmanager
def _file_lock(path: Path) -> Iterator[None]:
    import fcntl

    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # freed by the kernel if this process dies
        yield


def _open_server(url: sa.URL) -> RDBStorage:
    name = url.get_backend_name()
    options: dict[str, Any] = {"pool_pre_ping": True}
    lock, unlock = "", ""
    if name == "postgresql":
        options["connect_args"] = {"connect_timeout": 10}
        lock, unlock = (
            f"select pg_advisory_lock({_SCHEMA_LOCK})",
            f"select pg_advisory_unlock({_SCHEMA_LOCK})",
        )
    elif name in ("mysql", "mariadb"):
        lock, unlock = f"select get_lock('{_SCHEMA_LOCK}', 60)", f"select release_lock('{_SCHEMA_LOCK}')"
    engine = sa.create_engine(url, **options)
    try:
        with engine.connect() as connection:
            if lock:
                connection.execute(sa.text(lock))
                connection.commit()  # the lock belongs to the session; an idle transaction would bar DDL
            try:
                _check_tables(set(sa.inspect(engine).get_table_names()), url)
                return RDBStorage(_template(url), engine_kwargs=options)
            finally:
                if unlock:
                    connection.execute(sa.text(unlock))
    finally:
        engine.dispose()


def _check_tables(names: set[str], url: sa.URL) -> None:
    if "experiments" in names and "studies" not in names:
        raise StoreError(
            f"{_cannot_open(url)}: it is MLflow's. Optuna and MLflow keep the same table (alembic_version), "
            f"so each needs its own; name another one in study.storage."
        )


def _with_installed_driver(url: sa.URL) -> sa.URL:
    if url.drivername in ("postgresql", "postgres") and importlib.util.find_spec("psycopg2") is None:
        return url.set(drivername="postgresql+psycopg")
    return url


def _template(url: sa.URL) -> str:
    # Optuna formats the URL with its schema version, so that braces must be doubled.
    return url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")


def _cannot_open(url: sa.URL) -> str:
    return f"The study's storage {url.render_as_string(hide_password=True)} cannot be opened"


def _way_out(url: sa.URL) -> str:
    if url.get_backend_name() == "sqlite":
        return "Name a file in a folder that can be written: study.storage=sqlite:///FOLDER/optuna.db"
    return "Check that the server runs, and the host, user and database in study.storage."


def _first_line(exc: BaseException, url: sa.URL) -> str:
    exc = exc.__cause__ if isinstance(exc, optuna.exceptions.StorageInternalError) and exc.__cause__ else exc
    text = str(getattr(exc, "orig", None) or exc).strip()
    line = (text.splitlines() or [type(exc).__name__])[0].strip().rstrip(".")
    return line.replace(url.password, "***") if url.password else line


# --- samplers and pruners ----------------------------------------------------------------------------


class _Grid(optuna.samplers.GridSampler):
    """Optuna's grid for asking and telling: each point once, in the order of the shuffled grid.

    The base class picks a point that runs already once all have been started, and ends an `optimize` loop
    that is not there.
    """

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Assign the first point that no trial has, unless the trial brings its own."""
        if "grid_id" in trial.system_attrs or "fixed_params" in trial.system_attrs:
            return
        free = set(range(self._n_min_trials)) - self.started(study)
        if not free:
            raise StudyError(f"All {self._n_min_trials} points of the grid have been tried. Widen the search space.")
        study._storage.set_trial_system_attr(trial._trial_id, "search_space", self._search_space)
        study._storage.set_trial_system_attr(trial._trial_id, "grid_id", min(free))

    def after_trial(self, *args: Any) -> None:
        """Do nothing: `Study.is_exhausted` says when the grid is done."""

    def started(self, study: optuna.Study) -> set[int]:
        """Return the points that a trial has or had, whatever became of it."""
        trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
        return {trial.system_attrs["grid_id"] for trial in trials if "grid_id" in trial.system_attrs}

    def is_done(self, study: optuna.Study) -> bool:
        """Return whether every point has been started."""
        return len(self.started(study)) >= self._n_min_trials


def build_sampler(
    config: Mapping[str, Any], space: Space | None = None, allowed_prefixes: Sequence[str] = ()
) -> BaseSampler:
    """Build a sampler from its config node, `{_target_: optuna.samplers.TPESampler, seed: 1}`.

    Args:
        config: The node; nested nodes with a `_target_` are built first.
        space: The search space; a grid needs it.
        allowed_prefixes: Modules of the user's own from which `_target_` may come as well.

    Raises:
        ConfigError: The target or an option does not exist or has the wrong type.
        SpaceError: A grid over a continuous parameter.
    """
    if config.get("_target_") != "optuna.samplers.GridSampler":
        sampler: BaseSampler = _build(config, "sampler", "sampler", tuple(allowed_prefixes))
        return sampler
    if "search_space" in config:
        raise ConfigError("sampler.search_space: the grid is the study's search space; delete this key.")
    if space is None:
        raise ConfigError("sampler: a grid needs a search space. Name one with search=NAME.")

    if (space.size or 0) > _MAX_GRID_POINTS:
        raise SpaceError(
            f"The grid has {space.size:,} points, but at most {_MAX_GRID_POINTS:,} are possible. Take fewer "
            f"values, or sampler=random."
        )
    grid = {key: [space[key].encode(value) for value in values] for key, values in space.grid().items()}
    options = {key: value for key, value in config.items() if key != "_target_"}
    return _call(_Grid, {"search_space": grid, **options}, "sampler", "GridSampler")


def build_pruner(config: Mapping[str, Any], allowed_prefixes: Sequence[str] = ()) -> BasePruner:
    """Build a pruner from its config node, `{_target_: optuna.pruners.MedianPruner}`.

    Raises:
        ConfigError: The target or an option does not exist or has the wrong type.
    """
    pruner: BasePruner = _build(config, "pruner", "pruner", tuple(allowed_prefixes))
    return pruner


def _build(config: Mapping[str, Any], key: str, kind: str, allowed: tuple[str, ...]) -> Any:
    target = config.get("_target_")
    own, base = _TARGETS[kind]
    if not isinstance(target, str):
        raise ConfigError(f"{key}._target_: name a class, such as {own}{_names(own)[-1]}, but got {target!r}.")
    prefixes = (own, *(f"{prefix.removesuffix('.')}." for prefix in allowed))
    if not target.startswith(prefixes):
        raise ConfigError(
            f"{key}._target_: a {kind} comes from {' or '.join(prefixes)}, but got {target}. "
            f"Add its package to the allowed ones."
        )
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as exc:
        hint = did_you_mean(name, _names(own)) if target.startswith(own) else "Check the spelling and sys.path."
        raise ConfigError(f"{key}._target_: there is no {target}. {hint}") from exc
    if not (inspect.isclass(found) and issubclass(found, base)) or found is base:
        raise ConfigError(f"{key}._target_: {target} is no {kind}. {did_you_mean(name, _names(own))}")
    options = {option: value for option, value in config.items() if option != "_target_"}
    for option, value in options.items():
        if isinstance(value, Mapping) and "_target_" in value:
            inner = "pruner" if str(value["_target_"]).startswith(_TARGETS["pruner"][0]) else kind
            options[option] = _build(value, f"{key}.{option}", inner, allowed)
    return _call(found, options, key, name)


def _call(build: Callable[..., _Built], options: Mapping[str, Any], key: str, name: str) -> _Built:
    parameters = inspect.signature(build).parameters
    takes_any = any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values())
    for option, value in options.items():
        if option not in parameters and not takes_any:
            raise ConfigError(f"{key}.{option}: {name} has no such option. {did_you_mean(option, parameters)}")
        default = parameters[option].default if option in parameters else None
        wanted = _wanted_type(default, value)
        if wanted:
            raise ConfigError(f"{key}.{option}: {name} wants {wanted} (by default {default}), but got {value!r}.")
    missing = [
        option
        for option, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        and option not in options
    ]
    if missing:
        raise ConfigError(f"{key}.{missing[0]}: {name} needs this option. Example: {key}.{missing[0]}=1")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return build(**options)
    except (TypeError, ValueError) as exc:
        raise ConfigError(f"{key}: {name} refuses its options: {exc}") from exc


def _wanted_type(default: Any, value: Any) -> str:
    """Return what type the default tells, in words, if the value has another one; else nothing."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(default, bool):
        return "" if isinstance(value, bool) else "true or false"
    if isinstance(default, int):
        return "" if is_number and value == int(value) else "a whole number"
    if isinstance(default, float):
        return "" if is_number else "a number"
    return ""


def _names(prefix: str) -> list[str]:
    module = importlib.import_module(prefix.removesuffix("."))
    return [name for name in module.__all__ if name[0].isupper() and not name.startswith("Base")]


# --- the study ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A trial to run.

    Attributes:
        number: Counts the trials of the study from 0.
        values: What each searched key gets.
        trial: Optuna's handle.
        retry_of: The number of the interrupted trial that this one takes up again.
        attempt: 1, or more for a trial that takes up an interrupted one.
    """

    number: int
    values: dict[str, Any]
    trial: optuna.Trial
    retry_of: int | None = None
    attempt: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a trial is to be pruned, and why."""

    prune: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a trial; a value that is not finite turns `complete` into `failed`, with the reason."""

    state: EndState
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """A best trial: its number, its objectives and what it searched."""

    number: int
    objectives: tuple[float, ...]
    values: dict[str, Any]

    @property
    def value(self) -> float:
        """The first objective, which is the only one as a rule."""
        return self.objectives[0]


class _AskTellStudy(optuna.Study):
    """An Optuna study whose samplers may say stop although no `optimize` loop runs."""

    is_stopped = False

    def stop(self) -> None:
        """Remember that the sampler has nothing left to try."""
        self.is_stopped = True


class Study:
    """A study, asked and told by one driver.

    **Durability**
    A trial is in the database when `ask` returns, and its end when `tell` returns, even if the machine
    loses power then. Reports of running trials reach it within `flush_interval_s`.

    **Randomness**
    With a seed, the sampler's random numbers for a trial come from the seed and the trial's number: a study
    that was stopped and goes on neither repeats its first trials nor depends on when it was stopped.

    **One writer**
    Trials that others enqueue meanwhile, a dashboard for instance, are found by the next `ask`. A second
    driver that starts trials in the same study is an error which both notice.

    **Failures of the database**
    A write that fails is tried again for some seconds, then StoreError is raised; nothing is forgotten, and
    the next write brings it along.
    """

    def __init__(
        self,
        *,
        name: str,
        storage: RDBStorage,
        study_id: int,
        directions: Sequence[StudyDirection],
        space: Space,
        sampler: BaseSampler,
        pruner: BasePruner,
        seed: int | None = None,
        flush_interval_s: float = 1.0,
    ) -> None:
        """Load all trials; use `create_or_load`, which checks that the study is the same."""
        self.name = name
        self.space = space
        self._seed = seed
        self._storage = storage
        self._storage_id = study_id
        self._record = _Record(storage, study_id)
        self._memory = InMemoryStorage()
        self._memory_id = self._memory.create_new_study(list(directions), name)
        self._attrs: dict[str, Any] = storage.get_study_system_attrs(study_id)
        for key, value in self._attrs.items():
            self._memory.set_study_system_attr(self._memory_id, key, value)
        self.optuna = _AskTellStudy(name, self._memory, sampler, pruner)
        self._running: dict[int, optuna.Trial] = {}
        self._flush_interval_s = flush_interval_s
        self._flushed_at_s = time.monotonic()
        self._learn_of_new_trials()

    @classmethod
    def create_or_load(
        cls,
        name: str,
        storage: RDBStorage,
        *,
        space: Space,
        sampler: BaseSampler,
        pruner: BasePruner | None = None,
        metric: str | Sequence[str] = "val/acc",
        direction: str | Sequence[str] = "maximize",
        metadata: Mapping[str, Any] | None = None,
        seed: int | None = None,
        flush_interval_s: float = 1.0,
    ) -> "Study":
        """Create the study, or go on with the one of this name.

        Args:
            name: The study's name, unique in the storage.
            storage: From `open_storage`.
            space: What is searched.
            sampler: Which values to try; from `build_sampler`.
            pruner: Which trials to stop early; None stops none.
            metric: The objective, or several.
            direction: `maximize` or `minimize`, one for each metric.
            metadata: What else to keep with the study at its creation; JSON-able.
            seed: Of the sampler; None takes other random numbers each time.
            flush_interval_s: How long a report may wait to be written, in seconds.

        Raises:
            StudyError: A study of this name has another space, direction or metric; one line for each.
            ConfigError: A direction is neither `maximize` nor `minimize`.
        """
        directions = _directions(direction)
        metrics = [metric] if isinstance(metric, str) else list(metric)
        if len(metrics) != len(directions):
            raise ConfigError(
                f"study.direction: one direction for each metric, but got {len(directions)} for {metrics}."
            )
        identity = {"space": space.describe(), "metrics": metrics}
        with _translated(storage):
            study_id = _create(storage, name, directions, identity, dict(metadata or {}))
            _check_identity(storage, study_id, name, directions, space, metrics)
            return cls(
                name=name,
                storage=storage,
                study_id=study_id,
                directions=directions,
                space=space,
                sampler=sampler,
                pruner=pruner or optuna.pruners.NopPruner(),
                seed=seed,
                flush_interval_s=flush_interval_s,
            )

    # --- asking and telling

    def ask(self) -> Ask:
        """Start a trial: one that waits in the queue, or else one that the sampler proposes.

        Raises:
            StudyError: The grid is exhausted, or another program started trials in this study.
            StoreError: The database does not answer.
        """
        self._sync()
        if self.is_exhausted:
            raise StudyError(f"Study {self.name!r} has tried every point of its space. Widen the space.")
        if self._seed is not None:
            _reseed(self.optuna.sampler, f"{self._seed}/{self._num_trials()}")
        try:
            trial = self.optuna.ask(self.space.distributions)
        except Exception as exc:
            self._close_half_asked(exc)
            raise
        self._running[trial.number] = trial
        frozen = self._frozen(trial.number)
        self._save(trial.number)
        return Ask(
            number=trial.number,
            values=self.space.decode(frozen.params),
            trial=trial,
            retry_of=frozen.user_attrs.get("retry_of"),
            attempt=frozen.user_attrs.get("attempt", 1),
        )

    def report(self, number: int, value: float, step: int) -> Verdict:
        """Take an intermediate value of a running trial and judge it.

        A step that was reported before keeps its first value.
        """
        trial = self._running.get(number)
        if trial is None:
            return Verdict(prune=True, reason=f"trial {number} is closed already")
        if len(self.optuna.directions) > 1:
            return Verdict(prune=False, reason="a study of several objectives prunes nothing")
        if step not in self._frozen(number).intermediate_values:
            trial.report(float(value), step)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "All-NaN slice")  # numpy's word for a trial that diverged
            prune = bool(trial.should_prune())
        reason = _why_pruned(self.optuna.pruner, self.optuna, self._frozen(number)) if prune else ""
        if time.monotonic() - self._flushed_at_s >= self._flush_interval_s:
            try:
                self._save(is_patient=False)
            except StoreError as exc:  # reports can wait, and the trials go on meanwhile
                _log.warning("%s", exc)
                self._flushed_at_s = time.monotonic()
        return Verdict(prune=prune, reason=reason)

    def tell(
        self, number: int, state: EndState, value: float | Sequence[float] | None = None, reason: str = ""
    ) -> Outcome:
        """End a trial.

        Args:
            number: The trial's number.
            state: `interrupted` is recorded as a failure that does not count and may be requeued.
            value: The objective, or several; only for `complete`. A pruned trial has its last report.
            reason: Why it did not complete, kept with the trial.

        Returns:
            What was recorded: `complete` becomes `failed` if a value is missing or not finite.

        Raises:
            StudyError: The trial does not run.
            StoreError: The database does not answer; the end is kept in memory for the next write.
        """
        if number >= self._num_trials() or self._frozen(number).state != TrialState.RUNNING:
            raise StudyError(f"Trial {number} of study {self.name!r} does not run, so it cannot end as {state}.")
        values: list[float] | None = None
        if state == "complete":
            values, wrong = self._finite(value)
            if wrong:
                state, values, reason = "failed", None, wrong
        self._end(number, state, values, reason)
        self._save(number, is_durable=True)
        return Outcome(state=state, reason=reason)

    def requeue(self, number: int) -> int | None:
        """Put the parameters of an interrupted trial back into the queue, once.

        May be called before or after `tell(number, "interrupted")`.

        Returns:
            The number of the waiting trial; None if the trial never got its parameters.
        """
        self._sync()
        added = self._requeue(number)
        if added is not None:
            self._save(added, is_durable=True)
        return added

    def enqueue(self, values: Mapping[str, Any]) -> int:
        """Queue a trial with these values; the sampler chooses those that are missing.

        Returns:
            The trial's number.

        Raises:
            SpaceError: A key or a value is not in the space.
        """
        self._sync()
        self.optuna.enqueue_trial(self.space.encode(values))
        number = self._num_trials() - 1
        self._save(number, is_durable=True)
        return number

    def close_stale(self) -> list[int]:
        """Close the trials that a dead driver left running, and requeue each interrupted trial once.

        To be called before the first `ask`, when no other driver works on the study.

        Returns:
            The numbers of the trials that were left running.
        """
        self._sync()
        stale = [t.number for t in self._trials() if t.state == TrialState.RUNNING and t.number not in self._running]
        touched: list[int] = list(stale)
        for number in stale:
            self._end(number, "interrupted", None, "the driver died")
        retried = {trial.user_attrs.get("retry_of") for trial in self._trials()}
        for trial in self._trials():
            if _is_interrupted(trial) and trial.number not in retried:
                added = self._requeue(trial.number)
                touched += [] if added is None else [added]
        if touched:  # in one transaction: a crash leaves all of it or nothing
            self._save(*touched, is_durable=True)
        return stale

    def flush(self) -> None:
        """Write the reports that wait."""
        self._save()

    # --- reading

    @property
    def best(self) -> Best | None:
        """The best complete trial; None before the first.

        Raises:
            StudyError: The study has several objectives.
        """
        if len(self.optuna.directions) > 1:
            raise StudyError("A study of several objectives has no single best trial. Read `best_trials`.")
        try:
            return self._best(self.optuna.best_trial)
        except ValueError:
            return None

    @property
    def best_trials(self) -> list[Best]:
        """The best complete trial, or the Pareto front of several objectives."""
        if len(self.optuna.directions) == 1:
            return [] if self.best is None else [self.best]
        return [self._best(trial) for trial in self.optuna.best_trials]

    @property
    def counts(self) -> dict[str, int]:
        """How many trials are complete, pruned, failed, interrupted, running and waiting."""
        counts = dict.fromkeys((*get_args(EndState), "running", "waiting"), 0)
        for trial in self._trials():
            counts[_state(trial)] += 1
        return counts

    @property
    def num_finished(self) -> int:
        """How many trials count against `study.num_trials`: all that ended, but for interrupted ones."""
        counts = self.counts
        return counts["complete"] + counts["pruned"] + counts["failed"]

    @property
    def is_exhausted(self) -> bool:
        """Whether nothing is left to ask for: no trial waits and the sampler has tried all it can."""
        if self._memory.get_all_trials(self._memory_id, deepcopy=False, states=(TrialState.WAITING,)):
            return False
        sampler = self.optuna.sampler
        return sampler.is_done(self.optuna) if isinstance(sampler, _Grid) else self.optuna.is_stopped

    # --- inside

    def _trials(self) -> list[FrozenTrial]:
        return self._memory.get_all_trials(self._memory_id, deepcopy=False)

    def _num_trials(self) -> int:
        return self._memory.get_n_trials(self._memory_id)

    def _frozen(self, number: int) -> FrozenTrial:
        return self._memory.get_trial(self._memory.get_trial_id_from_study_id_trial_number(self._memory_id, number))

    def _best(self, trial: FrozenTrial) -> Best:
        return Best(number=trial.number, objectives=tuple(trial.values), values=self.space.decode(trial.params))

    def _sync(self) -> None:
        with _translated(self._storage):
            self._learn_of_new_trials()

    def _learn_of_new_trials(self) -> None:
        for trial in self._record.new_trials(self._num_trials()):
            self._memory.create_new_trial(self._memory_id, trial)
            number = self._num_trials() - 1
            if number != trial.number:
                raise StudyError(
                    f"Trial {trial.number} of study {self.name!r} should be number {number}: trials were "
                    f"deleted from its storage. Start a study with another study.name."
                )

    def _finite(self, value: float | Sequence[float] | None) -> tuple[list[float] | None, str]:
        many = [value] if not isinstance(value, Sequence) else list(value)
        try:
            values = [float(number) for number in many]  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return None, f"the objective must be a number, but is {value!r}"
        if len(values) != len(self.optuna.directions):
            return (
                None,
                f"the study has {len(self.optuna.directions)} objectives, but got {len(values)} values",
            )
        wrong = [number for number in values if not math.isfinite(number)]
        return values, f"the objective must be finite, but is {wrong[0]}" if wrong else ""

    def _end(self, number: int, state: EndState, values: list[float] | None, reason: str) -> None:
        trial_id = self._frozen(number)._trial_id
        if reason:
            self._memory.set_trial_user_attr(trial_id, "reason", reason)
        if state == "interrupted":
            self._memory.set_trial_user_attr(trial_id, "interrupted", True)
        self._running.pop(number, None)
        ends = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
        try:
            self.optuna.tell(number, values, state=ends.get(state, TrialState.FAIL))
        except Exception:  # the end is in memory all the same; a sampler's bookkeeping must not lose it
            if not self._frozen(number).state.is_finished():
                raise
            _log.warning("trial %d: the sampler could not take note of its end", number, exc_info=True)

    def _requeue(self, number: int) -> int | None:
        for trial in self._trials():
            if trial.user_attrs.get("retry_of") == number:
                return trial.number
        old = self._frozen(number)
        if not old.params and len(self.space):
            return None
        # The grid's marks go along: the point then still counts once.
        kept: dict[str, Any] = {
            key: old.system_attrs[key] for key in ("grid_id", "search_space") if key in old.system_attrs
        }
        attempt = old.user_attrs.get("attempt", 1) + 1
        self.optuna.add_trial(
            create_trial(
                state=TrialState.WAITING,
                system_attrs={"fixed_params": old.params, **kept},
                user_attrs={"retry_of": number, "attempt": attempt},
            )
        )
        return self._num_trials() - 1

    def _close_half_asked(self, exc: Exception) -> None:
        """End the trial that Optuna had begun when its sampler raised, so that it does not run for ever."""
        half = [t.number for t in self._trials() if t.state == TrialState.RUNNING and not self._record.has(t.number)]
        for number in half:
            self._end(number, "interrupted", None, f"the sampler raised {type(exc).__name__}: {exc}")
        if half:
            self._save(*half)

    def _save(self, *numbers: int, is_durable: bool = False, is_patient: bool = True) -> None:
        """Write what is new: of the trials named, of the running ones, and the study's own attributes."""
        missing = range(self._record.num_known, self._num_trials())  # left over when a write failed
        wanted = sorted({*numbers, *missing, *self._running, *self._record.unwritten})
        with _translated(self._storage):
            trials = [self._frozen(number) for number in wanted]
            self._record.write(trials, is_durable=is_durable, is_patient=is_patient)
            attrs = self._memory.get_study_system_attrs(self._memory_id)
            for key, value in attrs.items():
                if self._attrs.get(key) != value:
                    self._storage.set_study_system_attr(self._storage_id, key, value)
            self._attrs = attrs
        self._flushed_at_s = time.monotonic()


def _directions(direction: str | Sequence[str]) -> list[StudyDirection]:
    names = [direction] if isinstance(direction, str) else list(direction)
    for name in names:
        if name not in get_args(Direction):
            raise ConfigError(f"study.direction: {name!r} is none. {did_you_mean(name, get_args(Direction))}")
    return [StudyDirection[name.upper()] for name in names]


def _create(
    storage: RDBStorage,
    name: str,
    directions: list[StudyDirection],
    identity: dict[str, Any],
    metadata: dict[str, Any],
) -> int:
    """Return the id of the study, made if it is not there; what identifies it is written first of all."""
    try:
        study_id = storage.create_new_study(directions, name)
    except optuna.exceptions.DuplicatedStudyError:
        study_id = storage.get_study_id_from_name(name)
        is_empty = not storage.get_study_user_attrs(study_id) and not storage.get_n_trials(study_id)
        if not is_empty or storage.get_study_directions(study_id) != directions:
            return study_id
    storage.set_study_system_attr(study_id, "study:metric_names", identity["metrics"])
    storage.set_study_user_attr(study_id, "metadata", metadata)
    storage.set_study_user_attr(study_id, "metrics", identity["metrics"])
    storage.set_study_user_attr(study_id, "space", identity["space"])
    return study_id


def _check_identity(
    storage: RDBStorage,
    study_id: int,
    name: str,
    directions: list[StudyDirection],
    space: Space,
    metrics: list[str],
) -> None:
    stored = storage.get_study_user_attrs(study_id)
    if "space" not in stored:
        raise StudyError(
            f"A study {name!r} is in this storage, but Lightsweep did not make it. Give another study.name."
        )
    lines = space.difference(stored["space"])
    if stored["metrics"] != metrics:
        lines.append(f"study.metric: was {', '.join(stored['metrics'])}, now {', '.join(metrics)}")
    was, now = (
        ", ".join(d.name.lower() for d in found) for found in (storage.get_study_directions(study_id), directions)
    )
    if was != now:
        lines.append(f"study.direction: was {was}, now {now}")
    if lines:
        raise StudyError(
            f"Study {name!r} exists, but differs from what is asked for:\n  "
            + "\n  ".join(lines)
            + "\nAsk for the same to go on with it, or give another study.name."
        )


def _reseed(sampler: BaseSampler, source: str) -> None:
    """Set every random state of the sampler, and of the samplers inside it, from `source`."""
    for key, value in vars(sampler).items():
        if isinstance(value, LazyRandomState):
            value.rng.seed(zlib.crc32(f"{source}/{key}".encode()))
        elif isinstance(value, BaseSampler):
            _reseed(value, f"{source}/{key}")


def _state(trial: FrozenTrial) -> str:
    if trial.state == TrialState.FAIL:
        return "interrupted" if _is_interrupted(trial) else "failed"
    return trial.state.name.lower()


def _is_interrupted(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and bool(trial.user_attrs.get("interrupted"))


@contextmanager
def _translated(storage: RDBStorage) -> Iterator[None]:
    try:
        yield
    except (sa.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as exc:
        url = storage.engine.url
        raise StoreError(
            f"The study's storage {url.render_as_string(hide_password=True)} does not answer: "
            f"{_first_line(exc, url)}. When it works again, go on with `lightsweep resume`."
        ) from exc


# --- the record in the database ----------------------------------------------------------------------


class _Record:
    """The trials of a study in Optuna's tables, written in as few transactions as can be.

    Optuna's own storage takes one or more transactions for every report, parameter and attribute, and reads
    all unfinished trials before each decision. What is written here is the same, row by row.
    """

    def __init__(self, storage: RDBStorage, study_id: int) -> None:
        self._storage = storage
        self._study_id = study_id
        self._last_id = -1
        self._written: dict[int, tuple[FrozenTrial, FrozenTrial]] = {}  # by number: the trial, and it as written
        self._ids: dict[int, int] = {}
        self._failed = False  # then what seemed to fail may have been committed
        self.unwritten: set[int] = set()  # numbers whose write failed

    @property
    def num_known(self) -> int:
        """The number of trials in the database as far as is known here."""
        return len(self._ids)

    def has(self, number: int) -> bool:
        """Return whether the trial is in the database."""
        return number in self._ids

    def new_trials(self, num_known: int) -> list[FrozenTrial]:
        """Return the trials that others have put there, from number `num_known` on."""
        trials = models.TrialModel.__table__
        query = sa.select(sa.func.max(trials.c.trial_id)).where(trials.c.study_id == self._study_id)
        with self._storage.engine.connect() as connection:
            last = connection.execute(query).scalar()
        if last is None or last <= self._last_id:
            return []
        found = [t for t in self._storage.get_all_trials(self._study_id, deepcopy=False) if t.number >= num_known]
        for trial in found:
            self._ids[trial.number] = trial._trial_id
            self._written[trial.number] = (trial, _snapshot(trial))
        self._last_id = int(last)
        return found

    def write(self, trials: Sequence[FrozenTrial], *, is_durable: bool, is_patient: bool) -> None:
        """Bring the database to the state of `trials`, in one transaction.

        Raises:
            StudyError: Another program started a trial in the study, or ended one of these.
            sqlalchemy.exc.SQLAlchemyError: The database does not answer, after all attempts.
        """
        dirty = [trial for trial in trials if self._written.get(trial.number, (None,))[0] is not trial]
        if not dirty:
            return
        self.unwritten.update(trial.number for trial in dirty if trial.number in self._ids)
        for attempt, pause_s in enumerate((*_RETRY_AFTER_S, None)):
            try:
                ids = self._write_once(dirty, is_durable=is_durable, is_retry=attempt > 0 or self._failed)
                self._failed = False
                break
            except sa.exc.OperationalError as exc:
                self._failed = True
                if not is_patient or pause_s is None or self._storage.engine.dialect.name == "sqlite":
                    raise  # SQLite has waited itself
                _log.warning("the study's storage does not answer, trying again: %s", exc.orig)
                time.sleep(pause_s)
        self._ids.update(ids)
        self._last_id = max(self._last_id, *ids.values())
        self._written.update((trial.number, (trial, _snapshot(trial))) for trial in dirty)
        self.unwritten.difference_update(trial.number for trial in dirty)

    def _write_once(self, trials: list[FrozenTrial], *, is_durable: bool, is_retry: bool) -> dict[int, int]:
        ids: dict[int, int] = {}
        rows: dict[Any, list[dict[str, Any]]] = {}
        with self._storage.engine.connect() as connection:
            if connection.dialect.name == "sqlite":  # before the transaction: inside it has no effect
                connection.exec_driver_sql(f"pragma synchronous = {'full' if is_durable else 'normal'}")
            self._lock_study(connection)
            for trial in trials:
                old = self._written.get(trial.number, (None, None))[1]
                if old is None:
                    ids[trial.number] = self._insert_trial(connection, trial, is_retry=is_retry)
                else:
                    ids[trial.number] = self._ids[trial.number]
                    self._update_trial(connection, ids[trial.number], old, trial)
                self._collect(connection, ids[trial.number], old, trial, rows)
            for table, new in rows.items():
                connection.execute(sa.insert(table), new)
            connection.commit()
        return ids

    def _lock_study(self, connection: sa.Connection) -> None:
        """Begin by a write: SQLite then waits for others, not failing halfway; servers lock the row."""
        studies = models.StudyModel.__table__
        found = connection.execute(
            sa.update(studies).where(studies.c.study_id == self._study_id).values(study_name=studies.c.study_name)
        )
        if not found.rowcount:
            raise StudyError("The study was deleted from its storage while it ran. Give another study.name.")

    def _insert_trial(self, connection: sa.Connection, trial: FrozenTrial, *, is_retry: bool) -> int:
        trials = models.TrialModel.__table__
        mine = trials.c.study_id == self._study_id
        row = {
            "number": trial.number,
            "study_id": self._study_id,
            "state": trial.state,
            "datetime_start": _utc(trial.datetime_start),
            "datetime_complete": _utc(trial.datetime_complete),
        }
        others = connection.execute(
            sa.select(trials).where(mine, trials.c.number >= trial.number).order_by(trials.c.number)
        ).all()
        if is_retry and others and _is_same_row(others[0], row):
            trial_id = int(others[0].trial_id)
            for model in (
                models.TrialParamModel,
                models.TrialUserAttributeModel,
                models.TrialSystemAttributeModel,
                models.TrialIntermediateValueModel,
                models.TrialValueModel,
            ):
                table = model.__table__
                connection.execute(sa.delete(table).where(table.c.trial_id == trial_id))
            return trial_id
        if others:
            raise StudyError(
                f"Another program started trial {others[0].number} of this study at the same time. Only one "
                f"driver may run a study: stop the other one, then go on with `lightsweep resume`."
            )
        result = connection.execute(sa.insert(trials).values(**row))
        assert result.inserted_primary_key is not None
        return int(result.inserted_primary_key[0])

    def _update_trial(self, connection: sa.Connection, trial_id: int, old: FrozenTrial, trial: FrozenTrial) -> None:
        if trial.state == old.state:
            return
        trials = models.TrialModel.__table__
        found = connection.execute(
            sa.update(trials)
            .where(trials.c.trial_id == trial_id, trials.c.state.in_([old.state, trial.state]))
            .values(
                state=trial.state,
                datetime_start=_utc(trial.datetime_start),
                datetime_complete=_utc(trial.datetime_complete),
            )
        )
        if not found.rowcount:
            raise StudyError(
                f"Trial {trial.number} was ended by another program. Only one driver may run a study: stop "
                f"the other one, then go on with `lightsweep resume`."
            )

    def _collect(
        self,
        connection: sa.Connection,
        trial_id: int,
        old: FrozenTrial | None,
        trial: FrozenTrial,
        rows: dict[Any, list[dict[str, Any]]],
    ) -> None:
        """Add the rows that `trial` has more than `old`."""

        def add(model: Any, **columns: Any) -> None:
            rows.setdefault(model.__table__, []).append({"trial_id": trial_id, **columns})

        for name, value in trial.params.items():
            if old is None or name not in old.params:
                distribution = trial.distributions[name]
                add(
                    models.TrialParamModel,
                    param_name=name,
                    param_value=float(distribution.to_internal_repr(value)),
                    distribution_json=distribution_to_json(distribution),
                )
        for step, number in trial.intermediate_values.items():
            if old is None or step not in old.intermediate_values:
                stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(float(number))
                add(
                    models.TrialIntermediateValueModel,
                    step=step,
                    intermediate_value=stored,
                    intermediate_value_type=kind,
                )
        if trial.values is not None and (old is None or old.values is None):
            for objective, number in enumerate(trial.values):
                stored, value_kind = models.TrialValueModel.value_to_stored_repr(float(number))
                add(models.TrialValueModel, objective=objective, value=stored, value_type=value_kind)
        for model, new, known in (
            (models.TrialUserAttributeModel, trial.user_attrs, old.user_attrs if old else {}),
            (models.TrialSystemAttributeModel, trial.system_attrs, old.system_attrs if old else {}),
        ):
            for key, value in new.items():
                if key in known and known[key] == value:
                    continue
                if key in known:
                    table = model.__table__
                    connection.execute(sa.delete(table).where(table.c.trial_id == trial_id, table.c.key == key))
                add(model, key=key, value_json=json.dumps(value))


def _snapshot(trial: FrozenTrial) -> FrozenTrial:
    """Copy a trial that may still change: Optuna's handle of a running trial alters it in place."""
    if trial.state.is_finished():
        return trial
    found = copy.copy(trial)
    found.params = dict(trial.params)
    found.intermediate_values = dict(trial.intermediate_values)
    found.user_attrs = dict(trial.user_attrs)
    found.system_attrs = dict(trial.system_attrs)
    return found


def _is_same_row(row: Any, own: dict[str, Any]) -> bool:
    return bool(row.number == own["number"] and row.datetime_start == own["datetime_start"])


def _utc(moment: datetime | None) -> datetime | None:
    """Return the moment as Optuna stores it: in UTC, without saying so."""
    return None if moment is None else moment.astimezone(UTC).replace(tzinfo=None)


# --- why a trial was pruned --------------------------------------------------------------------------


def _why_pruned(pruner: BasePruner, study: optuna.Study, trial: FrozenTrial) -> str:
    """Explain a decision to prune from the data that it was taken on."""
    step = trial.last_step
    assert step is not None
    value = trial.intermediate_values[step]
    match pruner:
        case PercentilePruner():
            return _why_percentile(pruner, study, trial, step)
        case SuccessiveHalvingPruner():
            return _why_halved(pruner, study.get_trials(deepcopy=False), study.direction, trial, step)
        case HyperbandPruner():
            bracket = pruner._get_bracket_id(study, trial)
            peers = [
                peer for peer in study.get_trials(deepcopy=False) if pruner._get_bracket_id(study, peer) == bracket
            ]
            why = _why_halved(pruner._pruners[bracket], peers, study.direction, trial, step)
            return f"{why}, bracket {bracket}"
        case ThresholdPruner():
            if math.isnan(value):
                return f"nan at step {step}"
            if value < pruner._lower:
                return f"{_short(value)} at step {step} is below the lower threshold {_short(pruner._lower)}"
            return f"{_short(value)} at step {step} is above the upper threshold {_short(pruner._upper)}"
        case PatientPruner():
            why = f"no better value in the last {pruner._patience + 1} steps up to step {step}"
            inner = pruner._wrapped_pruner
            return why if inner is None else f"{why}; {_why_pruned(inner, study, trial)}"
        case _:
            return f"{type(pruner).__name__} stops it with {_short(value)} at step {step}"


def _why_percentile(pruner: PercentilePruner, study: optuna.Study, trial: FrozenTrial, step: int) -> str:
    is_maximized = study.direction == StudyDirection.MAXIMIZE
    reported = [value for value in trial.intermediate_values.values() if not math.isnan(value)]
    if not reported:
        return f"nothing but nan up to step {step}"
    best = max(reported) if is_maximized else min(reported)
    peers = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    values = [peer.intermediate_values[step] for peer in peers if step in peer.intermediate_values]
    share = 100 - pruner._percentile if is_maximized else pruner._percentile
    threshold = float(np.nanpercentile(np.array(values, dtype=float), share))
    own = "" if best == trial.intermediate_values[step] else ", its best so far,"
    what = "median" if isinstance(pruner, MedianPruner) else f"{pruner._percentile:g}% best limit"
    side = "below" if is_maximized else "above"
    return f"{_short(best)}{own} at step {step} is {side} the {what} {_short(threshold)} of {len(values)} trials"


def _why_halved(
    pruner: SuccessiveHalvingPruner,
    trials: Sequence[FrozenTrial],
    direction: StudyDirection,
    trial: FrozenTrial,
    step: int,
) -> str:
    value = trial.intermediate_values[step]
    if math.isnan(value):
        return f"nan at step {step}"
    rung = 0
    while f"completed_rung_{rung + 1}" in trial.system_attrs:
        rung += 1
    key = f"completed_rung_{rung}"
    others = [peer.system_attrs[key] for peer in trials if key in peer.system_attrs and peer.number != trial.number]
    values = sorted([*others, value], reverse=direction == StudyDirection.MAXIMIZE)
    if len(values) <= pruner._bootstrap_count:
        return f"rung {rung} has {len(values)} trials, and its first {pruner._bootstrap_count} go no further"
    kept = max(len(values) // pruner._reduction_factor, 1)
    return (
        f"{_short(value)} at step {step} is not among the best {kept} of {len(values)} trials in rung "
        f"{rung}, which begin at {_short(values[kept - 1])}"
    )


def _short(value: float) -> str:
    return f"{value:.4g}"
