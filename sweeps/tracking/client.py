"""The wrapper of MLflow's client: create, fill and end runs, synchronously."""

import getpass
import logging
import os
import re
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from sweeps.core.errors import StoreError
from sweeps.core.locks import schema_lock, sqlite_file
from sweeps.core.messages import MetricPoint
from sweeps.core.text import storable
from sweeps.core.urls import hide_password, with_installed_driver
from sweeps.tracking import tags
from sweeps.tracking.artifacts import repository
from sweeps.tracking.database import version_problem
from sweeps.tracking.names import MAX_PARAM, shortened, shown_name, spread, stored_file, stored_name
from sweeps.tracking.server import give_up_soon
from sweeps.tracking.store import RunStore, StudyRuns
from sweeps.tracking.ui import RunKey

__all__ = ["MlflowStore"]

_MAX_BATCH = 1000  # metrics of one log_batch
_MAX_ITEMS = 100  # params or tags of one log_batch
_MAX_RUN_NAME = 250
_RUN_NAME = "mlflow.runName"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    run_id: str
    artifact_uri: str


class MlflowStore(RunStore):
    """Runs of one MLflow experiment.

    Args:
        uri: An SQLAlchemy URL, or the http address of an MLflow server.
        experiment: The experiment's name; it is created if there is none.
        artifacts: The folder for the artifacts of a new experiment; a server chooses its own.

    Raises:
        StoreError: The store cannot be opened; passwords in the URL are not shown.
    """

    def __init__(self, uri: str, experiment: str, artifacts: Path) -> None:
        if uri.startswith(("file:", "/", "./")) or "://" not in uri:
            raise StoreError(
                f"tracking.uri must be an SQLAlchemy URL such as sqlite:///mlflow.db or the http address of an "
                f"MLflow server, but got {uri!r}."
            )
        self._uri = uri = with_installed_driver(uri)
        self._artifact_uris: dict[str, str] = {}
        try:
            with schema_lock(uri):  # whose tables they are cannot be told while another process creates them
                _require_database(uri)
        except (SQLAlchemyError, sqlite3.Error, OSError, ImportError) as error:
            raise _unopened(uri, error) from error
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a sweep tells nobody that it runs
        from mlflow.exceptions import MlflowException
        from mlflow.store.tracking import sqlalchemy_store  # noqa: F401  (a second of imports, not under the lock)
        from mlflow.tracking import MlflowClient

        for name in ("mlflow", "alembic", "urllib3"):  # after the import, which sets them to talk
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            give_up_soon()
            with schema_lock(uri):
                _create_file(uri)
                self._client = MlflowClient(uri)
                self._experiment_id = self._open_experiment(experiment, uri, artifacts)
                _use_wal(uri)
        except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ImportError) as error:
            raise _unopened(uri, error) from error

    def _open_experiment(self, name: str, uri: str, artifacts: Path) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None and found.lifecycle_stage != "active":
            raise StoreError(
                f"The experiment {name!r} was deleted in MLflow. Restore it there, or choose another with "
                "tracking.experiment=NAME."
            )
        if found is not None:
            return str(found.experiment_id)
        location = None if uri.startswith("http") else artifacts.resolve().as_uri()
        kind = {"mlflow.experimentKind": "custom_model_development"}  # what its pages are to show: not language models
        return str(self._client.create_experiment(name, artifact_location=location, tags=kind))

    @property
    def experiment_id(self) -> str:
        """The id of the experiment that has the runs."""
        return self._experiment_id

    def experiment_tag(self, key: str) -> str | None:
        """Return a tag of the experiment; None if it has none."""
        found: str | None = self._client.get_experiment(self._experiment_id).tags.get(key)
        return found

    def tag_experiment(self, key: str, value: str) -> None:
        """Set a tag on the experiment."""
        self._client.set_experiment_tag(self._experiment_id, key, value)

    def create_run(
        self,
        name: str,
        *,
        run_tags: Mapping[str, str],
        parent: str | None,
        start_time_ms: int,
    ) -> str:
        """Create a run with its tags, and return its id; a tag `mlflow.runName` is its name."""
        all_tags = {"mlflow.user": _user(), "mlflow.source.type": "LOCAL", **run_tags}
        name = storable(all_tags.pop(_RUN_NAME, "") or name)
        if parent is not None:
            all_tags["mlflow.parentRunId"] = parent
        run = self._client.create_run(
            self._experiment_id,
            start_time=start_time_ms,
            tags=_stored_tags(all_tags),
            run_name=shortened(name, _MAX_RUN_NAME),
        )
        run_id = str(run.info.run_id)
        self._artifact_uris[run_id] = run.info.artifact_uri
        return run_id

    def log_params(self, run_id: str, params: Mapping[str, object]) -> None:
        """Write params, a hundred at a time; again the same is no error."""
        from mlflow.entities import Param

        texts = {stored_name(key): shortened(storable(str(value)), MAX_PARAM) for key, value in params.items()}
        entities = [Param(key, text) for key, text in texts.items()]
        for start in range(0, len(entities), _MAX_ITEMS):
            batch = entities[start : start + _MAX_ITEMS]
            self._client.log_batch(run_id, params=batch, synchronous=True)

    def log_metrics(self, run_id: str, points: Sequence[MetricPoint]) -> None:
        """Write metric points, a thousand at a time.

        Raises:
            OverflowError: A step or a time is not a whole number of 64 bits.
        """
        from mlflow.entities import Metric

        for point in points:  # databases and servers say so in ways that cannot be told from being down
            if not (-(2**63) <= point.step < 2**63 and 0 <= point.time_ms < 2**63):
                raise OverflowError(f"step {point.step} of {point.key} is not a whole number of 64 bits")
        for start in range(0, len(points), _MAX_BATCH):
            batch = [
                Metric(stored_name(point.key), point.value, point.time_ms, point.step)
                for point in points[start : start + _MAX_BATCH]
            ]
            self._client.log_batch(run_id, metrics=batch, synchronous=True)

    def set_tags(self, run_id: str, run_tags: Mapping[str, str]) -> None:
        """Set tags, a hundred at a time."""
        from mlflow.entities import RunTag

        entities = [RunTag(key, text) for key, text in _stored_tags(run_tags).items()]
        for start in range(0, len(entities), _MAX_ITEMS):
            self._client.log_batch(run_id, tags=entities[start : start + _MAX_ITEMS], synchronous=True)

    def log_artifact(self, run_id: str, path: Path, artifact_path: str = "") -> None:
        """Copy a file into the run's artifacts; see `names` for what it is called there.

        Raises:
            StoreError: The record says that they are where it must not lead: the upload has the user's credentials.
        """
        if run_id not in self._artifact_uris:
            self._artifact_uris[run_id] = self._client.get_run(run_id).info.artifact_uri
        # The client would read the run from the database again for each file
        run = _Place(run_id=run_id, artifact_uri=self._artifact_uris[run_id])
        with _called(path, stored_file(path.name)) as file:
            repository(run, self._uri).log_artifact(str(file), artifact_path or None)

    def end_run(self, run_id: str, status: str, *, end_time_ms: int) -> None:
        """End a run as FINISHED, FAILED or KILLED."""
        self._client.set_terminated(run_id, status, end_time_ms)
        self._artifact_uris.pop(run_id, None)

    def find_study(self, study: str) -> StudyRuns:
        """Return the runs of a study that a new driver must know."""
        parents = self._runs_of(study, "study")
        if not parents:
            return StudyRuns()
        running: dict[str, RunKey] = {}
        interrupted: dict[str, RunKey] = {}
        for kind in ("trial", "replicate"):
            running |= self._runs_of(study, kind, "and attributes.status = 'RUNNING'")
            interrupted |= self._runs_of(study, kind, f"and tags.`{tags.STATE}` = 'interrupted'")
        return StudyRuns(
            parent=next(iter(parents)),
            running=running,
            interrupted={run_id: run for run_id, run in interrupted.items() if run_id not in running},
        )

    def trial_runs(self, study: str, numbers: Iterable[int] | None = None) -> dict[str, int]:
        """Return the runs of these trials of a study, with the trials' numbers; those of all if None are named."""
        conditions = [""] if numbers is None else [f"and tags.`{tags.TRIAL}` = '{number}'" for number in numbers]
        found = [self._runs_of(study, "trial", condition) for condition in conditions]
        return {run_id: int(trial) for runs in found for run_id, trial in runs.items()}

    def resume_step(self, run_id: str) -> int | None:
        """Return the step from which the trial of a run goes on, if one was noted."""
        step = self._client.get_run(run_id).data.tags.get(tags.RESUME_STEP, "")
        return int(step) if step.isdigit() else None

    def steps_from(self, run_id: str, step: int) -> dict[str, list[int]]:
        """Return the steps of all points that each metric of a run has from `step` on, in order."""
        found = {}
        for key in self._client.get_run(run_id).data.metrics:
            steps = sorted(point.step for point in self._client.get_metric_history(run_id, key))
            found[shown_name(key)] = [int(s) for s in steps if s >= step]
        return found

    def reopen_run(self, run_id: str) -> None:
        """Set a run RUNNING again."""
        self._client.update_run(run_id, status="RUNNING")

    def _runs_of(self, study: str, kind: str, condition: str = "") -> dict[str, RunKey]:
        """Return the ids of a study's runs, with what the driver calls them."""
        # MLflow's filters know no escape for a quote, so that it stands as any character and is compared here.
        pattern = re.sub(r"['\\]", "_", study)
        query = f"tags.`{tags.STUDY}` like '{pattern}' and tags.`{tags.KIND}` = '{kind}' {condition}"
        found: list[Any] = []
        page: str | None = None
        while page is None or page:
            some = self._client.search_runs([self._experiment_id], query, page_token=page)
            found += some
            page = some.token or ""
        own = [run for run in found if run.data.tags[tags.STUDY] == study]
        return {str(run.info.run_id): _key(run.data.tags) for run in own}


def _key(run_tags: Mapping[str, str]) -> RunKey:
    trial = run_tags.get(tags.TRIAL, "-1")
    return f"{trial}/{run_tags[tags.REPLICATE]}" if tags.REPLICATE in run_tags else int(trial)


def _require_database(uri: str) -> None:
    """Connect once: MLflow itself tries for minutes, and would fill the database of another program."""
    path = sqlite_file(uri)
    if uri.startswith("http") or (path is not None and not path.exists()):
        return
    options = {"connect_args": {"connect_timeout": 10}} if uri.startswith("postgres") else {}
    engine = sa.create_engine(uri, **options)
    problem = ""
    try:
        names = set(sa.inspect(engine).get_table_names())
        if {"alembic_version", "experiments"} <= names:
            with engine.connect() as connection:
                problem = version_problem(connection, uri)
    finally:
        engine.dispose()
    if problem:
        raise StoreError(f"The store {hide_password(uri)} cannot be written to: {problem}.")
    if "alembic_version" in names and "experiments" not in names:
        raise StoreError(
            f"The database {hide_password(uri)} is another program's, perhaps Optuna's, which needs one for itself: "
            "name another in tracking.uri."
        )


def _create_file(uri: str) -> None:
    """Put a new store of SQLite's into its place with all its tables: a process that ends midway leaves none."""
    path = sqlite_file(uri)
    if path is None or (path.exists() and path.stat().st_size > 0):
        return
    from mlflow.tracking import MlflowClient

    with TemporaryDirectory() as aside:
        made = Path(aside) / "mlflow.db"
        MlflowClient(f"sqlite:///{made}").search_experiments(max_results=1)
        # A copy: MLflow keeps its connection, and SQLite's locks end when any connection of a process to a file does.
        copy = path.with_name(f"{path.name}.part")
        shutil.copyfile(made, copy)
        copy.replace(path)


def _unopened(uri: str, error: Exception) -> StoreError:
    text = " ".join(str(getattr(error, "orig", None) or error).split())
    if "Max retries exceeded" in text:
        text = "the server does not answer"
    text = text[:300].rstrip(".")
    return StoreError(f"The store {hide_password(uri)} cannot be opened: {text}. It is named by tracking.uri.")


def _use_wal(uri: str) -> None:
    """Let readers such as MLflow's UI read while the driver writes; the setting stays with the file."""
    path = sqlite_file(uri)
    if path is not None:
        with closing(sqlite3.connect(path, timeout=60)) as database:
            database.execute("PRAGMA journal_mode=WAL")


@contextmanager
def _called(path: Path, name: str) -> Iterator[Path]:
    """Lend a file under another name."""
    if name == path.name:
        yield path
        return
    with TemporaryDirectory() as aside:
        yield Path(shutil.copyfile(path, Path(aside) / name))


def _stored_tags(run_tags: Mapping[str, str]) -> dict[str, str]:
    texts = spread({key: storable(text) for key, text in run_tags.items()})
    return {stored_name(key): text for key, text in texts.items()}


def _user() -> str:
    with suppress(KeyError, OSError):
        return getpass.getuser()
    return str(os.getuid())
