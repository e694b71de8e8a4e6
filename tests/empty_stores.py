"""New SQLite stores as copies of one that MLflow or Optuna made: MLflow's migrations take seconds, a copy takes none.

`install` gives this process, and all that are forked from it, the copies; the first process that needs one makes it,
by MLflow's or Optuna's own code, for all that use the same folder. Databases of other kinds, and files that have tables
already, are left to MLflow and Optuna.
"""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from filelock import FileLock

TABLE_OF = {"mlflow.db": "experiments", "optuna.db": "studies"}  # what tells whose tables are to be created

plain_create_all = sa.MetaData.create_all  # as SQLAlchemy has it
_making: set[str] = set()


def install(folder: Path) -> None:
    """Create the tables of new SQLite files by copying those of `folder`."""

    def create_all(self: sa.MetaData, bind: Any, *arguments: Any, **options: Any) -> None:
        name = next((name for name, table in TABLE_OF.items() if table in self.tables), None)
        if name is None or name in _making or not _is_new_file(bind):
            plain_create_all(self, bind, *arguments, **options)
            return
        template = empty_store(folder, name)
        target = bind.raw_connection()
        try:
            with closing(sqlite3.connect(f"{template.as_uri()}?mode=ro", uri=True)) as source:
                source.backup(target.driver_connection)
        finally:
            target.close()

    sa.MetaData.create_all = create_all  # type: ignore[method-assign]


def empty_store(folder: Path, name: str) -> Path:
    """Return the SQLite file with all tables of `mlflow.db` or `optuna.db` and nothing in them; make it if needed."""
    file = folder / name
    if file.exists():
        return file
    with FileLock(folder / f"{name}.lock"):
        if not file.exists():
            part = folder / f"{name}.part"
            part.unlink(missing_ok=True)
            _making.add(name)
            try:
                _make(name, f"sqlite:///{part}")
            finally:
                _making.discard(name)
            shutil.move(part, file)
    return file


def _make(name: str, url: str) -> None:
    if name == "mlflow.db":
        from mlflow.store.db.utils import _initialize_tables

        engine = sa.create_engine(url)
        _initialize_tables(engine)  # and no experiment: that has a folder
    else:
        from optuna.storages import RDBStorage

        engine = RDBStorage(url).engine
    engine.dispose()


def _is_new_file(bind: Any) -> bool:
    if not isinstance(bind, sa.Engine) or bind.dialect.name != "sqlite" or bind.url.database in (None, "", ":memory:"):
        return False
    return not sa.inspect(bind).get_table_names()
