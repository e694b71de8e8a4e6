"""Optuna's SQL storage: opened safely by many processes at once, with errors in the user's words, and its dashboard."""

import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.storages import RDBStorage

from sweeps.core.errors import StoreError, UsageError
from sweeps.core.locks import schema_lock, sqlite_file
from sweeps.core.urls import hide_password, passwords_in, with_installed_driver
from sweeps.search.optuna_private import study_ids

__all__ = ["Storage", "dashboard", "open_storage", "storage_errors"]

Storage = RDBStorage
"""The storage of studies, as the rest of Lightsweep passes it around."""

_BUSY_TIMEOUT_S = 60


def open_storage(url: str) -> RDBStorage:
    """Open Optuna's storage, creating folder, database file and tables if need be.

    Any number of processes may open an empty database at once: the tables are created under a lock. SQLite is
    put into WAL mode and waits up to 60 s for other writers.

    Args:
        url: `sqlite:///mlruns/optuna.db`, `postgresql://user:password@host/database` or another URL of
            SQLAlchemy's. Optuna and MLflow need separate databases.

    Raises:
        StoreError: The database cannot be opened; the message is one line without the password.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    optuna.logging.disable_default_handler()
    optuna.logging.enable_propagation()
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        parsed = sa.make_url(with_installed_driver(url))
    except sa.exc.ArgumentError as exc:
        raise StoreError(
            f"study.storage must be a database URL, but got {url!r}. Example: sqlite:///mlruns/optuna.db"
        ) from exc
    problem = f"The study's storage {_shown(parsed)} cannot be opened"
    try:
        return _open(parsed, problem)
    except (sa.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, sqlite3.Error) as exc:
        raise StoreError(f"{problem}: {_first_line(exc, parsed)}. {_way_out(parsed)}") from exc
    except OSError as exc:
        raise StoreError(f"{problem}: {exc.strerror or exc}. {_way_out(parsed)}") from exc
    except ImportError as exc:
        raise StoreError(
            f"{problem}: its driver is not installed ({exc.__cause__ or exc}). For PostgreSQL: "
            f"pip install 'lightsweep[postgres]'"
        ) from exc
    except RuntimeError as exc:  # Optuna raises it for a schema of another version
        raise StoreError(
            f"{problem}: its tables belong to another version of Optuna than {optuna.__version__}. Take a copy, "
            f"then run `optuna storage upgrade --storage URL`, or name another database."
        ) from exc


@contextmanager
def storage_errors(storage: RDBStorage) -> Iterator[None]:
    """Raise database errors as StoreError."""
    try:
        yield
    except (sa.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as exc:
        url = storage.engine.url
        raise StoreError(
            f"The study's storage {_shown(url)} does not answer: "
            f"{_first_line(exc, url)}. When it works again, go on with `lightsweep resume`."
        ) from exc


def _open(url: sa.URL, problem: str) -> RDBStorage:
    text = url.render_as_string(hide_password=False)
    options = _engine_options(url, text)
    with schema_lock(text):
        engine = sa.create_engine(url, **options)
        try:  # Optuna's tables must not be mixed with those of another program
            names = set(sa.inspect(engine).get_table_names())
        finally:
            engine.dispose()
        if "experiments" in names and "studies" not in names:
            raise StoreError(
                f"{problem}: it is MLflow's. Optuna and MLflow keep the same table (alembic_version), so each "
                f"needs its own; name another one in study.storage."
            )
        # Optuna formats the URL with its schema version, so that braces must be doubled.
        return RDBStorage(text.replace("{", "{{").replace("}", "}}"), engine_kwargs=options)


def _engine_options(url: sa.URL, text: str) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {} if sqlite_file(text) is None else {"creator": partial(_connect_sqlite, str(url.database))}
    if url.get_backend_name() == "postgresql":
        return {"pool_pre_ping": True, "connect_args": {"connect_timeout": 10}}
    return {"pool_pre_ping": True}


def _connect_sqlite(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, check_same_thread=False, uri=path.startswith("file:"))
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = normal")
    connection.execute("pragma foreign_keys = on")
    return connection


def _way_out(url: sa.URL) -> str:
    if url.get_backend_name() == "sqlite":
        return "Name a file in a folder that can be written: study.storage=sqlite:///FOLDER/optuna.db"
    return "Check that the server runs, and the host, user and database in study.storage."


def _first_line(exc: BaseException, url: sa.URL) -> str:
    exc = exc.__cause__ if isinstance(exc, optuna.exceptions.StorageInternalError) and exc.__cause__ else exc
    text = str(getattr(exc, "orig", None) or exc).strip()
    line = (text.splitlines() or [type(exc).__name__])[0].strip().rstrip(".")
    for secret in passwords_in(url.render_as_string(hide_password=False)):
        line = line.replace(secret, "***")
    return line


def _shown(url: sa.URL) -> str:
    return hide_password(url.render_as_string(hide_password=False))


Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def dashboard(storage_url: str, study: str | None = None) -> tuple[Application, str]:
    """Return Optuna's dashboard as a WSGI application, and the path of its page for a study.

    Raises:
        UsageError: The package is not installed.
        StoreError: The storage cannot be opened.
    """
    try:
        from optuna_dashboard import wsgi
    except ImportError as error:
        raise UsageError(
            f"--optuna needs Optuna's dashboard, which is not installed ({error}): pip install 'lightsweep[dashboard]'."
        ) from error
    storage = open_storage(storage_url)
    numbers = study_ids(storage)
    page = f"/dashboard/studies/{numbers[study]}" if study in numbers else "/dashboard"
    application: Application = wsgi(storage)
    return application, page
