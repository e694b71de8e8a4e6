"""Let only one process at a time create a database's tables: a race would leave them broken."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from filelock import FileLock

__all__ = ["schema_lock", "sqlite_file"]

_TIMEOUT_S = 120
_NAME = 7_091_994_212  # any number, the same in every process


@contextmanager
def schema_lock(url: str) -> Iterator[None]:
    """Hold the right to create tables in a database; other processes wait up to two minutes for it.

    SQLite is locked by a file beside the database, whose folder is created; PostgreSQL and MySQL by a lock of the
    server's. What else a URL may name (an MLflow server, a database in memory) is not locked. The lock of a process
    that dies is free again.

    Raises:
        OSError: The folder or the lock file cannot be written, or others hold the lock for too long.
        sqlalchemy.exc.SQLAlchemyError: The server does not respond.
    """
    file = sqlite_file(url)
    backend = url.partition(":")[0].partition("+")[0]
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock", timeout=_TIMEOUT_S):
            yield
    elif backend in ("postgresql", "mysql", "mariadb"):
        with _session(url) as session:
            if backend == "postgresql":
                session.execute(sa.text(f"set lock_timeout = '{_TIMEOUT_S}s'"))
                session.execute(sa.text(f"select pg_advisory_lock({_NAME})"))
            elif session.scalar(sa.text(f"select get_lock('{_NAME}', {_TIMEOUT_S})")) != 1:
                raise TimeoutError(f"another process has been creating tables for more than {_TIMEOUT_S} s")
            yield
    else:
        yield


def sqlite_file(url: str) -> Path | None:
    """Return the file of a SQLite database; None for one in memory and for other databases."""
    if not url.startswith("sqlite"):
        return None
    parsed = sa.make_url(url)
    database = parsed.database or ":memory:"
    if database.startswith("file:"):  # SQLite's own address, see its documentation of URIs
        database, _, query = database.removeprefix("file:").partition("?")
        if "mode=memory" in query or parsed.query.get("mode") == "memory":
            return None
    return None if database == ":memory:" else Path(database)


@contextmanager
def _session(url: str) -> Iterator[sa.Connection]:
    """Open a session that ends, and with it its locks, when the block is left."""
    # Without autocommit the session would lie in a transaction, which bars others from altering tables.
    engine = sa.create_engine(
        url,
        poolclass=sa.NullPool,
        isolation_level="AUTOCOMMIT",
        connect_args={"connect_timeout": 10} if url.startswith("postgresql") else {},
    )
    with engine.connect() as session:
        yield session
