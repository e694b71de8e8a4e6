"""The command in a process that has imported everything already: a fork of milliseconds instead of seconds of imports.

`Popen` and `run` are those of `subprocess`. Where they are given `[sys.executable, "-m", "sweeps", ...]`, a server that
has imported torch, Lightning, MLflow, Optuna and all of Lightsweep forks the process: it has the arguments, the
folder, the environment, the streams, the module search path and the exit of a command of its own. The preloaded
server of the launcher, which the command starts for its ranks, is a fork of the same server.

Tests of what a process imports, of how it is started, or of what the interpreter reads when it starts (marker
`cold`, and all that use `subprocess` itself) start real ones; so does everything if LIGHTSWEEP_COLD_TESTS is set.
"""

import atexit
import contextlib
import gc
import importlib
import io
import json
import multiprocessing.connection
import os
import pkgutil
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

import empty_stores

COLD = "LIGHTSWEEP_COLD_TESTS"
_COMMAND = [sys.executable, "-m", "sweeps"]
_MAX_REQUEST = 1 << 20  # bytes
_PRELOAD = ["sweeps.launchers.preload"]


# --- for tests -------------------------------------------------------------------------------------------


def is_warm() -> bool:
    """Tell whether commands are forked."""
    return COLD not in os.environ and sys.platform == "linux"


class _Warm(subprocess.Popen):  # type: ignore[type-arg]
    """A process that the server forks. It is no child of this one, so that the server tells its exit status."""

    _server: socket.socket

    def _execute_child(self, args: Any, executable: Any, *more: Any) -> None:  # type: ignore[override]
        names = ["preexec_fn", "close_fds", "pass_fds", "cwd", "env", "startupinfo", "creationflags", "shell"]
        given = dict(zip(names, more, strict=False))
        p2cread, _, _, c2pwrite, _, errwrite = more[len(names) : len(names) + 6]
        start_new_session = more[len(names) + 11]
        assert not given["shell"] and given["preexec_fn"] is None and executable is None
        streams = [p2cread, c2pwrite, errwrite]
        request = {
            "kind": "run",
            "argv": [os.fsdecode(item) for item in args[len(_COMMAND) :]],
            "cwd": str(given["cwd"] or Path.cwd()),
            "env": dict(given["env"] if given["env"] is not None else os.environ),
            "is_leader": bool(start_new_session),
            "has_stream": [stream != -1 for stream in streams],
        }
        fds = [stream if stream != -1 else number for number, stream in enumerate(streams)]
        self._server, self.pid = _ask(_server().address, request, fds)
        self._child_created = True
        for fd in {p2cread, c2pwrite, errwrite} - {-1}:
            if fd != getattr(self, "_devnull", None):
                os.close(fd)
        if getattr(self, "_devnull", None) is not None:
            os.close(self._devnull)

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:  # type: ignore[override]
        self._server.setblocking(wait_flags != os.WNOHANG)
        try:
            said = self._server.recv(64)
        except BlockingIOError:
            return 0, 0
        return self.pid, int(said) if said else signal.SIGKILL

    def _internal_poll(self, _deadstate: Any = None, **others: Any) -> int | None:  # type: ignore[override]
        if self.returncode is None and self._waitpid_lock.acquire(False):
            try:
                pid, status = self._try_wait(os.WNOHANG)
                if pid == self.pid:
                    self._handle_exitstatus(status)
            finally:
                self._waitpid_lock.release()
        return self.returncode


def Popen(args: Sequence[Any], **options: Any) -> "subprocess.Popen[Any]":
    """Start a process as `subprocess.Popen` does; the command of Lightsweep is forked."""
    is_command = list(args[: len(_COMMAND)]) == _COMMAND and "preexec_fn" not in options
    return (_Warm if is_command and is_warm() else subprocess.Popen)(list(args), **options)


def run(
    args: Sequence[Any],
    *,
    timeout: float | None = None,
    check: bool = False,
    capture_output: bool = False,
    **options: Any,
) -> "subprocess.CompletedProcess[Any]":
    """Run a process as `subprocess.run` does; the command of Lightsweep is forked."""
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Popen(args, **options) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


def adopt_launchers(templates: Path) -> None:
    """Let the launchers of this process fork their servers from the warm one, too.

    Commands and tests copy their empty databases from the folder `templates` (`tests/empty_stores.py`).
    """
    if is_warm():
        empty_stores.install(templates)
        _templates.append(templates)
        _adopt(lambda: _server().address)


# --- asking the server -------------------------------------------------------------------------------------


class _Server:
    """The server of this process; it ends when the pipe to it closes."""

    def __init__(self) -> None:
        folder = tempfile.mkdtemp(prefix="lightsweep-warm-")
        self.address = f"{folder}/socket"
        reads, self._lifeline = os.pipe()
        strange = ("PYTEST_", "LIGHTSWEEP_")  # a launcher that starts sets LIGHTSWEEP_PRELOAD for its own server
        environment = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
        environment |= {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        environment["OPENBLAS_NUM_THREADS"] = "1"
        self._process = subprocess.Popen(
            [sys.executable, __file__, self.address, str(reads), *map(str, _templates)],
            env=environment,
            pass_fds=[reads],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        os.close(reads)
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            self._process.kill()
            raise RuntimeError(f"the warm server did not start: status {self._process.wait()}")
        atexit.register(self.close)

    def close(self) -> None:
        os.close(self._lifeline)
        self._process.wait()
        Path(self.address).unlink(missing_ok=True)
        Path(self.address).parent.rmdir()


_servers: list[_Server] = []
_templates: list[Path] = []  # the folder of the empty databases, if there is one


def _server() -> _Server:
    if not _servers:
        _servers.append(_Server())
    return _servers[0]


def _ask(address: str, request: dict[str, Any], fds: Sequence[int]) -> tuple[socket.socket, int]:
    """Have the server fork a process; return the connection that tells its exit status, and its process id."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(address)
    socket.send_fds(connection, [json.dumps(request).encode()], list(fds))
    return connection, int(connection.recv(64))


def _adopt(address: Callable[[], str]) -> None:
    """Have `multiprocessing` fork its servers that preload Lightsweep from the warm one."""
    plain_start, plain_stop = forkserver.ForkServer.ensure_running, forkserver.ForkServer._stop_unlocked

    def ensure_running(self: Any) -> None:
        if self._preload_modules != _PRELOAD or not is_warm():
            plain_start(self)
            return
        with self._lock:
            resource_tracker.ensure_running()
            if self._forkserver_pid is not None:
                if _is_there(self._forkserver_pid):
                    return
                os.close(self._forkserver_alive_fd)
                self._forkserver_address = self._forkserver_alive_fd = self._forkserver_pid = None
            with socket.socket(socket.AF_UNIX) as listener:
                path = multiprocessing.connection.arbitrary_address("AF_UNIX")
                listener.bind(path)
                Path(path).chmod(0o600)
                listener.listen()
                alive_r, alive_w = os.pipe()
                request = {"kind": "serve", "cwd": str(Path.cwd()), "env": dict(os.environ), "path": sys.path}
                fds = [listener.fileno(), alive_r, 1, 2]
                connection, self._forkserver_pid = _ask(address(), request, fds)
                connection.close()
                os.close(alive_r)
                self._forkserver_address, self._forkserver_alive_fd = path, alive_w
                self.is_warm = True

    def stop_unlocked(self: Any) -> None:
        if not getattr(self, "is_warm", False) or self._forkserver_pid is None:
            plain_stop(self)
            return
        os.close(self._forkserver_alive_fd)
        with contextlib.suppress(ProcessLookupError):
            end = os.pidfd_open(self._forkserver_pid)
            with selectors.DefaultSelector() as selector:
                selector.register(end, selectors.EVENT_READ)
                selector.select()
            os.close(end)
        Path(self._forkserver_address).unlink(missing_ok=True)
        self._forkserver_address = self._forkserver_alive_fd = self._forkserver_pid = None
        self.is_warm = False

    forkserver.ForkServer.ensure_running = ensure_running  # type: ignore[method-assign]
    forkserver.ForkServer._stop_unlocked = stop_unlocked  # type: ignore[method-assign]
    # bound when the module was imported
    forkserver.ensure_running = forkserver._forkserver.ensure_running
    forkserver.connect_to_new_process = forkserver._forkserver.connect_to_new_process


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"


# --- the server ------------------------------------------------------------------------------------------


def _import_all() -> None:
    """Import what commands and ranks import, and what their first use would."""
    for name in ("mlflow.tracking", "mlflow.store.tracking.sqlalchemy_store", "optuna", "hydra", "pandas", "sklearn"):
        importlib.import_module(name)
    from sweeps.core import lightning_alias

    lightning_alias.install()
    import sweeps

    for module in pkgutil.walk_packages(sweeps.__path__, "sweeps."):
        if module.name != "sweeps.__main__":
            importlib.import_module(module.name)
    from sweeps.launchers import preload

    for name in preload._LAZY:
        importlib.import_module(name)
    preload._settle_requirements()
    import sklearn.datasets  # noqa: F401


def _serve(address: str, lifeline: int, *templates: str) -> None:
    """Fork processes as they are asked for, and tell how they ended, until the other end of `lifeline` is closed."""
    script = str(Path(__file__).parent)
    sys.path[:] = [folder for folder in sys.path if folder != script]
    _import_all()
    for folder in templates:
        empty_stores.install(Path(folder))
    assert threading.active_count() == 1, threading.enumerate()
    gc.collect()
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(address)
    listener.listen(64)
    print("ready", flush=True)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(lifeline, selectors.EVENT_READ)
    children: dict[int, tuple[int, socket.socket]] = {}  # by the descriptor that says that they have ended
    while True:
        for key, _ in selector.select():
            if key.fd == lifeline:
                os._exit(0)
            if key.fd != listener.fileno():
                pid, connection = children.pop(key.fd)
                selector.unregister(key.fd)
                os.close(key.fd)
                with contextlib.suppress(OSError):
                    connection.send(str(os.waitpid(pid, 0)[1]).encode())
                connection.close()
                continue
            connection, _ = listener.accept()
            data, fds, _, _ = socket.recv_fds(connection, _MAX_REQUEST, 8)
            pid = os.fork()
            if pid == 0:
                selector.close()
                for one in (listener, connection, *(other for _, other in children.values())):
                    one.close()
                for end in children:
                    os.close(end)
                os.close(lifeline)
                _child(json.loads(data), fds, address)
            for fd in fds:
                os.close(fd)
            connection.send(str(pid).encode())
            end = os.pidfd_open(pid)
            children[end] = pid, connection
            selector.register(end, selectors.EVENT_READ)


def _child(request: dict[str, Any], fds: list[int], address: str) -> None:
    """Be the process that was asked for, and end."""
    status = 1
    try:
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(request["cwd"])
        importlib.invalidate_caches()
        if request["kind"] == "serve":
            _be_launchers_server(request["path"], *fds)
            status = 0
        else:
            if request["is_leader"]:
                os.setsid()
            _take_streams(fds, request["has_stream"])
            status = _be_command(request["argv"], request["cwd"], address)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _be_launchers_server(path: list[str], listener: int, alive: int, out: int, err: int) -> None:
    for number, fd in ((1, out), (2, err)):
        os.dup2(fd, number)
        os.close(fd)
    sys.path[:] = path
    from sweeps.launchers import preload

    preload._preload()
    forkserver.main(listener, alive, [])


def _take_streams(fds: list[int], has_stream: list[bool]) -> None:
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
    for fd in fds:
        if fd > 2:
            os.close(fd)
    sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False), encoding="utf-8", errors="surrogateescape")
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(1, "w", closefd=False)), encoding="utf-8", line_buffering=os.isatty(1)
    )
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(2, "w", closefd=False)),
        encoding="utf-8",
        errors="backslashreplace",
        line_buffering=True,
    )
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr


def _be_command(argv: list[str], cwd: str, address: str) -> int:
    import sweeps
    from sweeps.cli.main import main

    added = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.path[:] = [cwd, *(folder for folder in added if folder not in sys.path), *sys.path]
    sys.argv = [str(Path(sweeps.__file__).parent / "__main__.py"), *argv]
    _adopt(lambda: address)
    try:
        status: Any = main()
    except SystemExit as end:
        status = end.code
    except KeyboardInterrupt:
        traceback.print_exc()
        status = 130
    except BaseException:
        traceback.print_exc()
        status = 1
    if isinstance(status, str):
        print(status, file=sys.stderr)
        status = 1
    threading._shutdown()  # type: ignore[attr-defined] # as the interpreter's end does: wait for threads, then this
    atexit._run_exitfuncs()
    return int(status or 0)


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
