"""Stores for all tests that want one: a PostgreSQL server with a database for each test, and SQLite files."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from empty_stores import empty_store
from postgres_servers import PostgresServer, is_installed


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    if not is_installed():
        pytest.skip("PostgreSQL 15 is not installed")
    server = PostgresServer(Path(f"/tmp/lightsweep-pg-{os.getpid()}"))  # where its user may write
    yield server
    server.close()


@pytest.fixture(scope="session")
def empty_file(shared: Path) -> Path:
    """A SQLite file with Optuna's tables and nothing in them; to be copied, since making it takes longer."""
    return empty_store(shared, "optuna.db")


@pytest.fixture(scope="session")
def empty_mlflow(shared: Path) -> Path:
    """A SQLite file with MLflow's tables and nothing in them; to be copied, since making it takes seconds."""
    return empty_store(shared, "mlflow.db")


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    return postgres_server.new_database()


@dataclass(frozen=True)
class FilledStore:
    """A store with runs of every kind; not to be written to."""

    uri: str
    folder: Path
    ids: dict[str, str]


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> FilledStore:
    """The store of `run_stores.fill`, in a SQLite file."""
    from run_stores import fill

    folder = tmp_path_factory.mktemp("filled")
    uri = f"sqlite:///{folder}/mlflow.db"
    return FilledStore(uri, folder, fill(uri, folder))


@pytest.fixture(params=["database", "server"])
def address(request: pytest.FixtureRequest, filled: FilledStore, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of that store: of its database, and of a server over it."""
    if request.param == "database":
        return filled.uri
    import mlflow.tracking

    client = mlflow.tracking.MlflowClient(filled.uri)  # speaks to the tables what it would speak to a server
    monkeypatch.setattr(mlflow.tracking, "MlflowClient", lambda uri: client)
    return "http://localhost:5000"


@pytest.fixture
def empty_url(empty_file: Path, tmp_path: Path) -> str:
    """The URL of Optuna's tables with nothing in them."""
    shutil.copy(empty_file, tmp_path / "optuna.db")
    return f"sqlite:///{tmp_path / 'optuna.db'}"
