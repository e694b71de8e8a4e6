"""`lightsweep ui`: MLflow's UI on this machine's loopback address, over the store."""

import os
import subprocess
import sys
from pathlib import Path

from sweeps import paths
from sweeps.errors import StoreError, UsageError

__all__ = ["command", "serve"]

_HOST = "127.0.0.1"


def serve(uri: str, store_dir: Path, port: int) -> int:
    """Serve until Ctrl-C, and return the server's exit status.

    Raises:
        StoreError: There is no such store yet.
        UsageError: The store is itself a server, which has a UI of its own.
    """
    if uri.startswith("http"):
        raise UsageError(f"{uri} is an MLflow server and shows its own UI: open it in a browser.")
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise StoreError(f"There is no store at {uri.removeprefix('sqlite:///')}. Start with `lightsweep sweep`.")
    print(f"MLflow's UI over {store_dir}: http://{_HOST}:{port}  (Ctrl-C ends it)", flush=True)
    # By the environment, since others on this machine can read a process's arguments, passwords included
    environment = {**os.environ, "MLFLOW_BACKEND_STORE_URI": uri}
    try:
        return subprocess.run(command(store_dir, port), env=environment, check=False).returncode
    except KeyboardInterrupt:
        return 0


def command(store_dir: Path, port: int) -> list[str]:
    """Return the command that starts the server: loopback only, for its own names only."""
    hosts = ",".join(f"{name}:{port}" for name in (_HOST, "localhost"))
    artifacts = (store_dir / paths.ARTIFACTS).resolve().as_uri()
    return [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--host", _HOST, "--port", str(port), "--allowed-hosts", hosts),
        *("--default-artifact-root", artifacts, "--workers", "1"),
    ]
