"""A PostgreSQL server for all tests that want one, each with a database of its own."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

_BIN = Path("/usr/lib/postgresql/15/bin")


class PostgresServer:
    """A server on a free port of this machine, in a folder that goes with it."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._folder = folder
        self._num_databases = 0
        self._run("initdb", "-U", "me", "-A", "trust", "--no-sync")
        self._control("start")

    def new_database(self) -> str:
        """Return the URL of an empty database."""
        self._num_databases += 1
        name = f"test{self._num_databases}"
        command = ["psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "me", "-d", "postgres"]
        subprocess.run([str(_BIN / command[0]), *command[1:], "-qc", f"create database {name}"], check=True, cwd="/")
        return f"postgresql://me:secret@127.0.0.1:{self.port}/{name}"

    def restart(self) -> None:
        """Lose every connection."""
        self._control("restart", "-m", "fast")

    def close(self) -> None:
        """Stop at once and delete everything."""
        self._control("stop", "-m", "immediate")
        shutil.rmtree(self._folder, ignore_errors=True)

    def _control(self, verb: str, *options: str) -> None:
        server = f"-p {self.port} -k /tmp -c listen_addresses=127.0.0.1 -c fsync=off"
        log = [] if verb == "stop" else ["-l", f"{self._folder}/log", "-o", server]
        self._run("pg_ctl", verb, "-w", *log, *options)

    def _run(self, program: str, *options: str) -> None:
        as_user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []  # it refuses to run as root
        command = [*as_user, str(_BIN / program), "-D", str(self._folder), *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    if not (_BIN / "initdb").exists() or shutil.which("runuser") is None:
        pytest.skip("PostgreSQL 15 is not installed")
    server = PostgresServer(Path(f"/tmp/lightsweep-pg-{os.getpid()}"))  # where its user may write
    yield server
    server.close()


@pytest.fixture(scope="session")
def empty_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with Optuna's tables and nothing in them; to be copied, since making it takes longer."""
    from sweeps.study import open_storage

    file = tmp_path_factory.mktemp("empty") / "optuna.db"
    open_storage(f"sqlite:///{file}").engine.dispose()
    return file


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    return postgres_server.new_database()


@pytest.fixture
def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


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
