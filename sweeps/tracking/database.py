"""MLflow's database: the tables and columns that are read by SQL, and a connection with one-line errors.

A database of another MLflow version can be read as long as it has these columns, even if MLflow itself refuses it.
"""

import gc
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from sweeps.core.errors import StoreError
from sweeps.core.text import some_of
from sweeps.core.urls import hide_password, with_installed_driver

__all__ = [
    "ALIASES",
    "LATEST",
    "LOGGED_MODELS",
    "PARAMS",
    "POINTS",
    "REGISTERED_MODELS",
    "RUNS",
    "TAGS",
    "VERSIONS",
    "VERSION_TAGS",
    "connected",
    "lacking",
    "of_runs",
    "require_store",
    "run_parts",
    "version_problem",
]

RUNS = sa.table(
    "runs",
    *map(sa.column, ("run_uuid", "name", "status", "start_time", "end_time", "lifecycle_stage", "artifact_uri")),
)
TAGS = sa.table("tags", *map(sa.column, ("run_uuid", "key", "value")))
PARAMS = sa.table("params", *map(sa.column, ("run_uuid", "key", "value")))
LATEST = sa.table("latest_metrics", *map(sa.column, ("run_uuid", "key", "value", "is_nan", "step")))
POINTS = sa.table("metrics", *map(sa.column, ("run_uuid", "key", "value", "is_nan", "step", "timestamp")))
REGISTERED_MODELS = sa.table("registered_models", sa.column("name"))
ALIASES = sa.table("registered_model_aliases", *map(sa.column, ("name", "alias", "version")))
VERSIONS = sa.table("model_versions", *map(sa.column, ("name", "version", "source", "current_stage")))
VERSION_TAGS = sa.table("model_version_tags", *map(sa.column, ("name", "version", "key", "value")))
LOGGED_MODELS = sa.table("logged_models", *map(sa.column, ("model_id", "artifact_location", "lifecycle_stage")))

_REVISION = re.compile(r"^(down_)?revision\s*(?::[^=]*)?=\s*[\"'](\w+)", re.MULTILINE)


_RUNS_AT_ONCE = 500  # ids in one query, so that no more of its rows are held


def run_parts(
    connection: sa.Connection, column: sa.ColumnElement[str], run_ids: Sequence[str]
) -> Iterator[sa.ColumnElement[bool]]:
    """Yield conditions that a run id is one of these, each for some hundred of them.

    Args:
        connection: To the store.
        column: The run ids of a table.
        run_ids: The runs, each once.
    """
    for start in range(0, len(run_ids), _RUNS_AT_ONCE):
        part = run_ids[start : start + _RUNS_AT_ONCE]
        if connection.dialect.name == "sqlite":  # one parameter for all takes two thirds of the time of one for each
            listed = sa.func.json_each(json.dumps(part)).table_valued("value")
            yield column.in_(sa.select(listed.c.value))
        else:
            yield column.in_(part)


def of_runs(
    connection: sa.Connection, query: sa.Select[Any], column: sa.ColumnElement[str], run_ids: Sequence[str]
) -> Iterator[Any]:
    """Return the rows of a query that belong to these runs, read in parts; see `run_parts`."""
    parts = run_parts(connection, column, run_ids)
    return chain.from_iterable(connection.execute(query.where(some)).all() for some in parts)


def lacking(connection: sa.Connection) -> list[str]:
    """Return the tables and columns that are needed and are not there, as `runs` or `runs.name`."""
    inspector = sa.inspect(connection)
    names = set(inspector.get_table_names())
    found = []
    for table in (RUNS, TAGS, PARAMS, LATEST, POINTS):
        if table.name not in names:
            found.append(table.name)
            continue
        columns = {column["name"] for column in inspector.get_columns(table.name)}
        found += [f"{table.name}.{column.name}" for column in table.columns if column.name not in columns]
    return found


def version_problem(connection: sa.Connection, uri: str) -> str:
    """Say whether another MLflow than the installed one made the tables, and what to do; empty if it was this one."""
    try:
        revision = connection.scalar(sa.select(sa.column("version_num")).select_from(sa.table("alembic_version")))
    except SQLAlchemyError:  # so old, or so new, that it has no such table
        revision = None
    known, newest = _revisions()
    if revision == newest:
        return ""
    ours = f"MLflow {version('mlflow')}"
    if revision is not None and revision not in known:
        return (
            f"it was made by a newer MLflow (its schema {revision} is unknown to {ours}). Update MLflow here: "
            "pip install -U mlflow"
        )
    return (
        f"it was made by an older MLflow (its schema is {revision or 'none'}, that of {ours} is {newest}). Back it up, "
        f"then run: mlflow db upgrade '{hide_password(uri)}'"
    )


def _revisions() -> tuple[set[str], str]:
    """Return the schemas that the installed MLflow knows, and its own; without importing it, which takes seconds."""
    spec = find_spec("mlflow")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "store" / "db_migrations" / "versions"
    texts = (file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.py")))
    found = [match for text in texts for match in _REVISION.findall(text)]
    known = {revision for down, revision in found if not down}
    ends = known - {revision for down, revision in found if down}
    return known, next(iter(ends), "")


def require_store(uri: str) -> None:
    """Refuse a database that cannot be opened, is not one of MLflow's, or was made by another version of MLflow.

    MLflow itself refuses to work with the tables of another version; to read them is another matter, see `connected`.

    Raises:
        StoreError: Says which, in one line.
    """
    with connected(uri) as connection:
        problem = version_problem(connection, uri)
    if problem:
        raise StoreError(f"MLflow cannot use the store {hide_password(uri)}: {problem}.")


@contextmanager
def connected(uri: str) -> Iterator[sa.Connection]:
    """Connect to a database with MLflow's tables; errors of the database become a `StoreError`, whenever they come.

    Whichever version of MLflow made them: as long as they have the columns that are read, they can be.
    """
    engine = _engine(uri)
    is_collecting = gc.isenabled()
    gc.disable()  # it would look through all rows again and again: half of the time of 200,000 points
    try:
        with engine.connect() as connection:
            _require_tables(connection, uri)
            yield connection
    except SQLAlchemyError as error:
        raise _unreadable(engine, uri, error) from error
    finally:
        engine.dispose()
        if is_collecting:
            gc.enable()


def _engine(uri: str) -> sa.Engine:
    try:
        url = sa.make_url(with_installed_driver(uri))
    except ArgumentError as error:
        raise StoreError(
            f"--uri must be a database URL such as sqlite:///mlruns/mlflow.db or the http address of an MLflow "
            f"server, but got {uri!r}."
        ) from error
    if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).is_file():
        raise StoreError(
            f"There is no store at {url.database}. Start one with `lightsweep sweep`, or name another with "
            "--store-dir or --uri."
        )
    try:
        return _engine_of(url)
    except (ImportError, SQLAlchemyError) as error:
        hint = " For PostgreSQL: pip install 'lightsweep[postgres]'." if url.get_backend_name() == "postgresql" else ""
        raise StoreError(f"The store {hide_password(uri)} cannot be opened: {error}.{hint}") from error


@lru_cache(maxsize=8)
def _engine_of(url: sa.URL) -> sa.Engine:
    """Return the same engine for the same address: it knows the queries that it has compiled, half of a read's time."""
    options = {"connect_args": {"connect_timeout": 10}} if url.get_backend_name() == "postgresql" else {}
    return sa.create_engine(url, **options)


def _require_tables(connection: sa.Connection, uri: str) -> None:
    names = set(sa.inspect(connection).get_table_names())
    if {"runs", "tags", "latest_metrics"} <= names:
        return
    if {"runs", "experiments"} <= names:
        raise StoreError(f"The store {hide_password(uri)} cannot be read: {_otherness(connection, uri)}.")
    whose = "it is Optuna's, and MLflow's lies beside it" if "trials" in names else "it has none of its tables"
    raise StoreError(f"The database {hide_password(uri)} is not a store of MLflow's: {whose}.")


def _unreadable(engine: sa.Engine, uri: str, error: SQLAlchemyError) -> StoreError:
    lines = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
    why = lines[0]
    if isinstance(error, DBAPIError) and error.statement is not None:  # it could be connected to
        with suppress(SQLAlchemyError), engine.connect() as connection:
            why = _otherness(connection, uri) or why
    return StoreError(f"The store {hide_password(uri)} cannot be read: {why}.")


def _otherness(connection: sa.Connection, uri: str) -> str:
    """Say what is not as it is read; empty if nothing is."""
    missing = lacking(connection)
    if not missing:
        return ""
    problem = version_problem(connection, uri) or "somebody has changed it"
    return f"it has no {some_of(missing, 3)}; {problem}"
