"""Artifacts of a run that an attacker recorded: nothing is read beside them, and nothing written beside the copy."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from free_ports import free_port
from run_stores import StoreWriter

from sweeps.core.errors import StoreError
from sweeps.results.reader import open_reader
from sweeps.tracking.artifacts import (
    download_artifacts,
    is_safe_path,
    list_artifacts,
    require_allowed_location,
    walk_artifacts,
)
from sweeps.tracking.runs import StoredRun


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder}/mlflow.db"
    writer = StoreWriter(uri, folder / "artifacts")
    run_id = writer.add({})
    (folder / "a.txt").write_text("aaa")
    writer.client.log_artifact(run_id, str(folder / "a.txt"))
    writer.client.log_artifact(run_id, str(folder / "a.txt"), "deep/er")
    return uri, run_id


@pytest.fixture
def run(store: tuple[str, str]) -> StoredRun:
    with open_reader(store[0]) as reader:
        return reader.run(store[1])


def moved(run: StoredRun, artifact_uri: str, run_id: str | None = None) -> StoredRun:
    whole = {name: getattr(run, name) for name in ("run_id", "name", "status", "start_ms", "end_ms", "tags", "metrics")}
    return StoredRun(**whole | {"run_id": run_id or run.run_id}, params={}, artifact_uri=artifact_uri)


@pytest.mark.parametrize(
    "address",
    [
        *("s3://bucket/x", "gs://bucket/x", "abfss://files@account.dfs.core.windows.net/x"),
        *("wasbs://c@a.blob.core.usgovcloudapi.net/x", "abfss://f@a.z1.privatelink.dfs.core.windows.net/x"),
        "abfss://workspace@onelake.dfs.fabric.microsoft.com/x",
    ],
)
def test_cloud_of_its_own_hosts_is_asked(run: StoredRun, address: str) -> None:
    require_allowed_location(moved(run, address), "sqlite:///x.db")


def test_artifacts_are_copied_with_their_folders(run: StoredRun, store: tuple[str, str], tmp_path: Path) -> None:
    copies = download_artifacts(run, tmp_path / "to", uri=store[0])

    assert [path.relative_to(tmp_path / "to").as_posix() for path in copies] == ["a.txt", "deep/er/a.txt"]
    assert [path.read_text() for path in copies] == ["aaa", "aaa"]


@pytest.mark.parametrize(
    "path",
    [
        *("../x", "a/../../x", "/etc/passwd", "a//b", "./a", "..", "", "~/x", "~root", "a\\..\\x", "C:\\x", "c:/x"),
        *("a\0b", "a\nb", "\x1b[2J", "%2e%2e/x", "%252e%252e/x", "..%2fx", "%5c..", "a%00b", "\u202egpj"),
        *("x" * 256, "a/" * 600),
    ],
)
def test_path_that_leads_out_is_known_however_it_is_written(path: str) -> None:
    assert not is_safe_path(path)


@pytest.mark.parametrize("path", ["a.txt", "checkpoints/epoch=1-step=2.ckpt", "über/größe 50%.png", "..a", "a..b/...c"])
def test_path_that_stays_is_safe(path: str) -> None:
    assert is_safe_path(path)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("file:///etc", "in /etc, which is not looked into"),
        ("/root/.ssh", "which is not looked into"),
        ("file:///tmp/../etc", "which is not looked into"),
        ("file://evil.example/{run_id}/artifacts", "which is not looked into"),
        ("http://evil.example/x", "which is not asked"),
        ("https://me:pa55w0rd@evil.example/x", "https://me:***@evil.example/x, which is not asked"),
        ("mlflow-artifacts://evil.example/x", "which is not asked"),
        ("sftp://evil.example/x", "which is not asked"),
        ("dbfs:/x", "which is not asked"),
        ("hdfs://evil.example/x", "which is not asked"),
        ("models:/x/1", "which is not asked"),
        ("runs:/x/1", "which is not asked"),
        ("abfss://c@evil.example/x", "which is not asked"),
        ("wasbs://c@evil.example/x", "which is not asked"),
        ("abfss://c@a.core.windows.net.evil.example/x", "which is not asked"),
        ("abfss://c@evil.example\\.dfs.core.windows.net/x", "which is not asked"),
        ("abfss://c@evil.example:80@a.dfs.core.windows.net/x", "which is not asked"),
        ("abfss://c@evil.example#.dfs.core.windows.net/x", "which is not asked"),
    ],
)
def test_address_of_the_attackers_choice_is_not_asked(
    run: StoredRun, tmp_path: Path, address: str, message: str
) -> None:
    evil = moved(run, address.replace("{run_id}", run.run_id))

    for uri in ("", "http://127.0.0.1:9"):
        with pytest.raises(StoreError) as caught:
            list_artifacts(evil, uri)
        assert message in str(caught.value)
        with pytest.raises(StoreError):
            download_artifacts(evil, tmp_path / "to", uri=uri)
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("run_id", ["../../../etc", "etc", "0" * 31 + "/", ""])
def test_run_of_an_impossible_id_has_no_folder(run: StoredRun, run_id: str) -> None:
    with pytest.raises(StoreError, match="not looked into"):
        list_artifacts(moved(run, "/etc/artifacts", run_id or None), "")


def test_link_is_neither_listed_nor_followed(run: StoredRun, tmp_path: Path) -> None:
    outside, folder = tmp_path / "home", tmp_path / run.run_id / "artifacts"
    outside.mkdir()
    (outside / "id_rsa").write_text("secret")
    folder.mkdir(parents=True)
    (folder / "key").symlink_to(outside / "id_rsa")
    (folder / "home").symlink_to(outside)
    (folder / "plain").write_text("plain")

    copies = download_artifacts(moved(run, folder.as_uri()), tmp_path / "to", uri="")

    assert [path.name for path in copies] == ["plain"]


def test_folder_of_artifacts_that_is_a_link_is_not_looked_into(run: StoredRun, tmp_path: Path) -> None:
    (tmp_path / run.run_id).mkdir()
    (tmp_path / run.run_id / "artifacts").symlink_to("/etc")

    with pytest.raises(StoreError, match="not looked into"):
        list_artifacts(moved(run, (tmp_path / run.run_id / "artifacts").as_uri()), "")


def test_more_than_allowed_is_refused_before_it_is_copied(
    run: StoredRun, store: tuple[str, str], tmp_path: Path
) -> None:
    for limit in ({"max_files": 1}, {"max_bytes": 5}):
        with pytest.raises(StoreError, match=r"but has 2|but have 6"):
            download_artifacts(run, tmp_path / "to", uri=store[0], **limit)
    assert not (tmp_path / "to").exists()


def test_folder_that_has_something_in_it_is_not_written_to(
    run: StoredRun, store: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / "mine").write_text("")

    with pytest.raises(StoreError, match="must be an empty folder"):
        download_artifacts(run, tmp_path, uri=store[0])


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "a/../../x", "%2e%2e/x"])
def test_listing_of_a_server_that_leads_out_is_refused(name: str) -> None:
    class Entry:
        path, is_dir, file_size = name, False, 1

    with pytest.raises(StoreError, match="would leave its folder"):
        walk_artifacts(lambda path: [Entry()])


def test_listing_without_end_is_cut_off() -> None:
    class Folder:
        is_dir, file_size = True, 0

        def __init__(self, path: str) -> None:
            self.path = path

    with pytest.raises(StoreError, match="may have 10,000 artifacts"):
        walk_artifacts(lambda path: [Folder("a"), Folder("b")])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A real MLflow server that keeps artifacts for its clients."""
    port = free_port()
    where = ["--backend-store-uri", f"sqlite:///{tmp_path}/s.db", "--artifacts-destination", str(tmp_path / "kept")]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1", *where]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=1).read()
            break
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
    yield address
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_artifacts_of_a_server_are_copied_and_no_link_to_elsewhere_is_followed(server: str, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(server)
    own, evil = (client.create_run("0") for _ in range(2))
    with closing(sqlite3.connect(tmp_path / "s.db")) as database:
        database.execute(
            "update runs set artifact_uri = 'http://evil.example/x' where run_uuid = ?", [evil.info.run_id]
        )
        database.commit()
    (tmp_path / "a.txt").write_text("aaa")
    client.log_artifact(own.info.run_id, str(tmp_path / "a.txt"), "deep/er")
    with open_reader(server) as reader:
        copies = download_artifacts(reader.run(own.info.run_id), tmp_path / "to", uri=server)
        with pytest.raises(StoreError, match="which is not asked"):
            reader.artifacts(reader.run(evil.info.run_id))

    assert [path.relative_to(tmp_path / "to").as_posix() for path in copies] == ["deep/er/a.txt"]
    assert copies[0].read_text() == "aaa"


def test_store_that_was_tampered_with_shows_the_rest(store: tuple[str, str], tmp_path: Path) -> None:
    from sweeps.results.run import read_runs

    copy = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(store[0].removeprefix("sqlite:///"))) as source, closing(sqlite3.connect(copy)) as to:
        source.backup(to)
        to.execute("update runs set artifact_uri = 'file:///etc'")
        to.commit()

    (detail,) = read_runs(f"sqlite:///{copy}", [store[1]], tmp_path)

    assert detail.artifacts == [] and "not looked into" in detail.artifacts_problem
