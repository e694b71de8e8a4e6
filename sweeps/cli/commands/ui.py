"""`lightsweep ui`: serve MLflow's UI for a store on the loopback address.

The server runs in this process, not in a child as under `mlflow server`: one Ctrl-C, and even `kill -9`, ends all of
it. MLflow's job runners for language models, four more processes, are left out. Optuna's dashboard is a thread of the
same process.
"""

import argparse
import errno
import logging
import os
import platform
import socket
import sys
import warnings
import webbrowser
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from socketserver import ThreadingMixIn
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from sweeps.cli.arguments import uri_of
from sweeps.core import paths
from sweeps.core.errors import StoreError, UsageError
from sweeps.core.urls import hide_password, sqlite_url, with_installed_driver
from sweeps.tracking.database import require_store
from sweeps.tracking.runs import is_server
from sweeps.tracking.ui import study_pages

__all__ = ["run", "serve", "settings"]

_HOST = "127.0.0.1"
_GRACE_S = 1  # for requests in progress at Ctrl-C


def serve(
    uri: str,
    store_dir: Path,
    port: int,
    *,
    study: str | None = None,
    has_dashboard: bool = False,
    opens_browser: bool = False,
) -> int:
    """Serve until Ctrl-C, and return the exit status.

    Args:
        uri: The address of MLflow's database.
        store_dir: The folder of the store.
        port: The port of MLflow's server; the dashboard gets the next one.
        study: The study to open; None for the one that was driven last.
        has_dashboard: Whether to serve Optuna's dashboard as well.
        opens_browser: Whether to open the page in a browser, if there is a screen.

    Raises:
        StoreError: There is no such store yet, or a port is taken.
        StudyError: There is no such study.
        UsageError: The store is an MLflow server, which has its own UI; or the dashboard is not installed.
    """
    if is_server(uri):
        raise UsageError(f"{hide_password(uri)} is an MLflow server with its own UI: open it in a browser.")
    require_store(uri)
    pages = study_pages(uri, study)
    address = f"http://{_HOST}:{port}"
    with ExitStack() as open_things:
        listener = open_things.enter_context(_listen(port))
        lines = [f"Open {address} in a browser; Ctrl-C here ends it."]
        if pages.study is not None:
            lines += [f"  study {pages.study}: {address}/{pages.front}", f"  its trials: {address}/{pages.trials}"]
        if pages.charts is not None:
            lines.append(f"  their charts: {address}/{pages.charts}")
        # By the environment, since others on this machine can read a process's arguments, passwords included
        os.environ.update(settings(with_installed_driver(uri), store_dir, port))
        print(f"MLflow over {hide_password(uri)}", flush=True)
        if has_dashboard:
            lines.append(f"  Optuna's dashboard: {_start_dashboard(open_things, port + 1, store_dir, pages.study)}")
        print(f"Starting {address} ...", flush=True)

        def ready() -> None:
            print("\n".join(lines), flush=True)
            if opens_browser and _has_screen():
                # In a thread, since a browser may take its time
                Thread(target=webbrowser.open, args=[f"{address}/{pages.front}"], daemon=True).start()

        try:
            _run(listener, ready)
        except KeyboardInterrupt:
            print("\nStopped.", flush=True)
    return 0


def settings(uri: str, store_dir: Path, port: int) -> dict[str, str]:
    """Return the environment variables by which `mlflow server` passes store, artifacts and hosts to its server."""
    return {
        "_MLFLOW_SERVER_FILE_STORE": uri,
        "_MLFLOW_SERVER_REGISTRY_STORE": uri,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": (store_dir / paths.ARTIFACTS).resolve().as_uri(),
        "_MLFLOW_SGI_NAME": "uvicorn",
        # Its default accepts names such as 10.evil.example; only these two are of this machine
        "MLFLOW_SERVER_ALLOWED_HOSTS": f"{_HOST}:{port},localhost:{port}",
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": f"http://{_HOST}:{port},http://localhost:{port}",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def _has_screen() -> bool:
    """Tell whether this session has a screen for a browser; a remote terminal has none."""
    if os.environ.get("BROWSER"):  # the user has chosen one
        return True
    if platform.system() == "Linux":
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return not os.environ.get("SSH_CONNECTION")


def _start_dashboard(open_things: ExitStack, port: int, store_dir: Path, study: str | None) -> str:
    """Serve Optuna's dashboard over the storage of a study, and return the address of its page."""
    listener = open_things.enter_context(_listen(port))
    from sweeps.driver.sweep_setup import recorded_storage
    from sweeps.search.storage import dashboard

    default = sqlite_url(store_dir / paths.OPTUNA_DB)
    application, page = dashboard(default if study is None else recorded_storage(study, store_dir), study)
    server = _Dashboard((_HOST, port), _Quiet, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    server.server_name, server.server_port = _HOST, port
    server.setup_environ()
    server.set_app(_for_this_machine(application, port))
    Thread(target=server.serve_forever, daemon=True).start()
    return f"http://{_HOST}:{port}{page}"


class _Dashboard(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Log no single request."""


def _for_this_machine(application: Any, port: int) -> Any:
    """Refuse requests from pages of other sites: the dashboard itself has no authentication."""
    hosts = {f"{_HOST}:{port}", f"localhost:{port}"}

    def refuse_or_answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        origin = environ.get("HTTP_ORIGIN", "").removeprefix("http://")
        if environ.get("HTTP_HOST") in hosts and (not origin or origin in hosts):
            answer: Iterable[bytes] = application(environ, start)
            return answer
        start("403 Forbidden", [("Content-Type", "text/plain")])
        return [b"Only for this machine.\n"]

    return refuse_or_answer


def _listen(port: int) -> socket.socket:
    """Bind the port before the slow imports, so that a taken one is reported at once."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((_HOST, port))
        listener.listen(128)  # an early browser waits
    except OverflowError as error:
        listener.close()
        raise UsageError(f"There is no port {port}: the last one is 65535.") from error
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise StoreError(
                f"Port {port} of {_HOST} is taken, perhaps by another `lightsweep ui`. Choose one: --port {port + 1}."
            ) from error
        raise StoreError(f"Port {port} of {_HOST} cannot be opened: {error.strerror}.") from error
    return listener


def _run(listener: socket.socket, ready: Callable[[], None]) -> None:
    warnings.simplefilter("ignore")  # deprecations within MLflow's server
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready()

    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    config = uvicorn.Config(
        "mlflow.server.fastapi_app:app",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    config.load()  # imports MLflow, which makes its loggers verbose
    for name in ("mlflow", "alembic", "uvicorn"):
        logging.getLogger(name).setLevel(logging.WARNING)
    Server(config).run(sockets=[listener])


def run(args: argparse.Namespace) -> int:
    """Serve MLflow's UI until it is interrupted."""
    return serve(
        uri_of(args),
        args.store_dir,
        args.port,
        study=args.study,
        has_dashboard=args.optuna,
        opens_browser=not args.no_browser,
    )
