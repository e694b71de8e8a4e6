"""MLflow's UI over a real store: it serves, refuses strangers, and leaves nothing behind."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeps.ui import settings


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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


def wait_for(port: int, timeout_s: float = 60) -> None:
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
    output, _ = process.communicate(timeout=30)

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
    assert time.monotonic() - began < 5
