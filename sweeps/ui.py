"""`lightsweep ui`: MLflow's server and pages over the store, on this machine's loopback address.

The server runs in this process, as `mlflow server` would run it in a child: so one Ctrl-C, and even `kill -9`, ends
all of it. MLflow's job runners (for language models) are left out; they are four processes more.
"""

import errno
import logging
import os
import socket
import sys
import warnings
from pathlib import Path

from sweeps import paths
from sweeps.database import require_store
from sweeps.errors import StoreError, UsageError
from sweeps.tracking.server import is_server
from sweeps.urls import hide_password, with_installed_driver

__all__ = ["serve", "settings"]

_HOST = "127.0.0.1"
_GRACE_S = 1  # for requests that are answered when Ctrl-C comes


def serve(uri: str, store_dir: Path, port: int) -> int:
    """Serve until Ctrl-C, and return the exit status.

    Raises:
        StoreError: There is no such store yet, or the port is taken.
        UsageError: The store is itself a server, which has a UI of its own.
    """
    if is_server(uri):
        raise UsageError(f"{hide_password(uri)} is an MLflow server and shows its own UI: open it in a browser.")
    require_store(uri)
    listener = _listen(port)
    # By the environment, since others on this machine can read a process's arguments, passwords included
    os.environ.update(settings(with_installed_driver(uri), store_dir, port))
    print(f"MLflow over {hide_password(uri)}", flush=True)
    print(f"Starting http://{_HOST}:{port} ...", flush=True)
    try:
        _run(listener, port)
    except KeyboardInterrupt:
        print("\nStopped.", flush=True)
    finally:
        listener.close()
    return 0


def settings(uri: str, store_dir: Path, port: int) -> dict[str, str]:
    """Return the environment that tells MLflow's server what `mlflow server` would: store, artifacts, hosts."""
    return {
        "_MLFLOW_SERVER_FILE_STORE": uri,
        "_MLFLOW_SERVER_REGISTRY_STORE": uri,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": (store_dir / paths.ARTIFACTS).resolve().as_uri(),
        "_MLFLOW_SGI_NAME": "uvicorn",
        # Its default accepts a name such as 10.evil.example; only these two are this machine's
        "MLFLOW_SERVER_ALLOWED_HOSTS": f"{_HOST}:{port},localhost:{port}",
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": f"http://{_HOST}:{port},http://localhost:{port}",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def _listen(port: int) -> socket.socket:
    """Take the port before the slow imports, so that one that is taken is told at once."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((_HOST, port))
        listener.listen(128)  # a browser that comes too early waits
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise StoreError(
                f"Port {port} of {_HOST} is taken, perhaps by another `lightsweep ui`. Choose one: --port {port + 1}."
            ) from error
        raise StoreError(f"Port {port} of {_HOST} cannot be opened: {error.strerror}.") from error
    return listener


def _run(listener: socket.socket, port: int) -> None:
    warnings.simplefilter("ignore")  # deprecations within MLflow's server
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            print(f"Open http://{_HOST}:{port} in a browser; Ctrl-C here ends it.", flush=True)

    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    config = uvicorn.Config(
        "mlflow.server.fastapi_app:app",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    config.load()  # imports MLflow, which sets its loggers to talk
    for name in ("mlflow", "alembic", "uvicorn"):
        logging.getLogger(name).setLevel(logging.WARNING)
    Server(config).run(sockets=[listener])
