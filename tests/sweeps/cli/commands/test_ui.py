"""MLflow's UI over a real store: it serves, refuses strangers, and leaves nothing behind."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from free_ports import free_port

from sweeps.cli.commands.ui import settings


@pytest.fixture(scope="module")
def served(swept: Any) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The UI over the shared sweep, started by the command, in a process group of its own."""
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-m", "sweeps", "ui", "--port", str(port)],
        cwd=swept.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            wait_for(port)
            yield process, port
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def wait_for(port: int, timeout_s: float = 300) -> None:
    """Wait until the port is taken; requests then wait for their answers."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def ask(
    port: int, path: str, *, host: str = "", method: str = "GET", body: dict[str, Any] | None = None
) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Host": host or f"127.0.0.1:{port}", "Content-Type": "application/json"}
    connection.request(method, path, body=json.dumps(body) if body else None, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_page_is_served(served: tuple[Any, int]) -> None:
    status, page = ask(served[1], "/")

    assert status == 200 and "<html" in page


def test_api_finds_the_trials(served: tuple[Any, int]) -> None:
    port = served[1]
    _, found = ask(port, "/api/2.0/mlflow/experiments/get-by-name?experiment_name=lightsweep", host=f"localhost:{port}")
    experiment = json.loads(found)["experiment"]["experiment_id"]
    query = {"experiment_ids": [experiment], "filter": "tags.`lightsweep.kind` = 'trial'"}

    status, answer = ask(port, "/api/2.0/mlflow/runs/search", method="POST", body=query)

    assert status == 200
    assert len(json.loads(answer)["runs"]) == 6


def test_artifacts_are_served(served: tuple[Any, int], swept: Any) -> None:
    (best, *_) = json.loads(swept.run("compare", "small", "--format", "json").stdout)

    status, text = ask(served[1], f"/get-artifact?path=config.yaml&run_uuid={best['run_id']}")

    assert status == 200 and "optimizer:" in text


@pytest.mark.parametrize("host", ["evil.example", "10.evil.example", "127.0.0.1:1", "127.0.0.1"])
def test_other_hosts_are_refused(served: tuple[Any, int], host: str) -> None:
    assert ask(served[1], "/", host=host)[0] == 403


def test_taken_port_is_told_in_one_line(served: tuple[Any, int], swept: Any) -> None:
    result = swept.run("ui", "--port", str(served[1]))

    assert result.returncode == 1
    assert f"Port {served[1]} of 127.0.0.1 is taken" in result.stderr
    assert len(result.stderr.splitlines()) == 1 and result.stdout == ""


def test_address_of_the_store_is_in_no_argument(served: tuple[Any, int]) -> None:
    arguments = Path(f"/proc/{served[0].pid}/cmdline").read_text()

    assert "sqlite" not in arguments


def test_interrupt_ends_it_with_status_0_and_leaves_nothing(served: tuple[Any, int]) -> None:
    process, port = served
    ask(port, "/")
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=120)

    assert process.returncode == 0
    assert f"Open http://127.0.0.1:{port} in a browser" in output
    assert "Traceback" not in output and "INFO" not in output
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_store_that_is_none_is_told(lightsweep: Any, tmp_path: Path) -> None:
    assert "There is no store" in lightsweep("ui").stderr
    (tmp_path / "text.db").write_text("no database\n" * 100)
    assert "file is not a database" in lightsweep("ui", "--uri", "sqlite:///text.db").stderr
    assert lightsweep("ui", "--uri", "http://127.0.0.1:5000").returncode == 2


@pytest.fixture
def started(swept: Any) -> Iterator[Callable[..., tuple[subprocess.Popen[str], str]]]:
    """Starts the command, and returns its process and what it said until it was ready."""
    processes: list[subprocess.Popen[str]] = []

    def start(*options: str, until: str, **environment: str) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "sweeps", "ui", *options],
            cwd=swept.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, **environment},
        )
        processes.append(process)
        assert process.stdout is not None
        said = ""
        while until not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        return process, said

    yield start
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def two_ports() -> tuple[int, int]:
    """Return a free port whose next one is free, too."""
    while True:
        port = free_port()
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port, port + 1


def test_dashboard_is_served_beside_it_and_ends_with_it(started: Any) -> None:
    port, other = two_ports()
    process, said = started("small", "--port", str(port), "--optuna", "--no-browser", until="Optuna's dashboard")

    assert f"http://127.0.0.1:{other}/dashboard/studies/1" in said
    assert ask(other, "/dashboard/studies/1")[0] == 200
    assert '"study_name": "small"' in ask(other, "/api/studies")[1]
    os.killpg(process.pid, signal.SIGINT)
    rest, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and "Traceback" not in rest
    with pytest.raises(ConnectionRefusedError):
        ask(other, "/")


def test_kill_9_ends_the_dashboard_too_and_strangers_are_refused_before(started: Any) -> None:
    port, other = two_ports()
    process, _ = started("--port", str(port), "--optuna", "--no-browser", until="Optuna's dashboard")

    assert ask(other, "/api/studies", host="evil.example")[0] == 403
    process.kill()
    process.wait(10)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_browser_is_opened_at_the_page_of_the_study(started: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "opened")
    script = tmp_path / "browser"
    script.write_text(f'#!/bin/sh\necho "$1" > {tmp_path / "opened"}\n')
    script.chmod(0o700)
    _, said = started("--port", str(free_port()), until="study small: ", BROWSER=str(script))

    address = (tmp_path / "opened").read_text().strip()
    assert f"study small: {address}\n" in said and "/runs/" in address


def test_study_that_is_none_names_the_nearest(swept: Any) -> None:
    result = swept.run("ui", "smal")

    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr == "lightsweep: There is no study 'smal'. Did you mean 'small'?\n"


def test_dashboard_that_is_not_installed_is_told_with_the_way_out(swept: Any, tmp_path: Path) -> None:
    (tmp_path / "optuna_dashboard.py").write_text("raise ModuleNotFoundError(\"No module named 'optuna_dashboard'\")")
    found = subprocess.run(
        [sys.executable, "-m", "sweeps", "ui", "--optuna", "--port", str(two_ports()[0])],
        cwd=swept.folder,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert found.returncode == 2 and "pip install 'lightsweep[dashboard]'" in found.stderr
    assert len(found.stderr.splitlines()) == 1


def test_settings_are_the_ones_that_mlflow_reads(tmp_path: Path) -> None:
    from mlflow import environment_variables
    from mlflow.server import constants

    known = {getattr(environment_variables, name) for name in dir(environment_variables) if name.isupper()}
    names = {str(getattr(variable, "name", "")) for variable in known}
    names |= {str(getattr(constants, name)) for name in dir(constants) if name.endswith("_ENV_VAR")}

    assert set(settings("sqlite:///x.db", tmp_path, 5000)) <= names


def test_nothing_sleeps_for_long(swept: Any) -> None:
    began = time.monotonic()
    assert swept.run("ui", "--uri", "sqlite:///none.db").returncode == 1
    assert time.monotonic() - began < 20
