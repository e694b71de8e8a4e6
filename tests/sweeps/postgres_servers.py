"""A PostgreSQL server of one's own, for tests and benchmarks."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

_BIN = Path("/usr/lib/postgresql/15/bin")


def is_installed() -> bool:
    """Tell whether a server can be started here."""
    return (_BIN / "initdb").exists() and shutil.which("runuser") is not None


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
