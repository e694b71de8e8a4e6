"""What of an address is secret, and how the rest of it is shown."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from sweeps.core import paths
from sweeps.core.errors import StoreError
from sweeps.core.locks import sqlite_file
from sweeps.core.secrets import Secrets, withhold
from sweeps.core.urls import default_uri, hide_password, passwords_in, sqlite_url
from sweeps.search.storage import open_storage
from sweeps.tracking.artifacts import list_artifacts
from sweeps.tracking.client import MlflowStore
from sweeps.tracking.database import connected, require_store


@pytest.mark.parametrize(
    ("text", "shown", "secrets"),
    [
        ("postgresql://h/db?user=u&password=geheim", "postgresql://h/db?user=u&password=***", ["geheim"]),
        ("postgresql://h/db?password=ge@h/e?i:m&user=u", "postgresql://h/db?password=***&user=u", ["ge@h/e?i:m"]),
        ("mysql://me:one@h/db?ssl_password=tw%26o", "mysql://me:***@h/db?ssl_password=***", ["tw%26o", "tw&o", "one"]),
        ("x://h?pass%77ord=a+b", "x://h?pass%77ord=***", ["a+b", "a b"]),
        ("(see 'x://h?api_key=geheim') x", "(see 'x://h?api_key=***') x", ["geheim"]),
        (r'{"a":"[\"x://h?token=ge\"heim\"]","b":1}', r'{"a":"[\"x://h?token=***\"]","b":1}', [r"ge\"heim"]),
        ("https://TOKEN@host/x", "https://***@host/x", ["TOKEN"]),
        ("git+HTTPS://TOKEN:@host", "git+HTTPS://***:@host", ["TOKEN"]),
        ("sqlite:///a,http://TO@a,https://KEN@b", "sqlite:///a,http://***@a,https://***@b", ["TO", "KEN"]),
        ("https://me:pa?ss@host", "https://me:***@host", ["pa?ss"]),
        ("https://host/@me?to=me@host x@y", "https://host/@me?to=me@host x@y", []),
        ("postgresql://me@host/db?num_tokens=5&sslmode=require", None, []),
        ("x://h?password=${oc.env:PASSWORD}", None, []),
        ("https://github.com/@me/pass?page=2#token", None, []),
        ("password=abc&token=def", None, []),
    ],
)
def test_secrets_of_an_address_are_hidden_and_known(text: str, shown: str | None, secrets: list[str]) -> None:
    assert hide_password(text) == (shown or text)
    assert passwords_in(text) == secrets
    assert hide_password(hide_password(text)) == (shown or text)


@pytest.mark.parametrize("uri", ["postgresql://h/db?user=u&password=CANARY-1", "https://CANARY-1@host"])
def test_secret_of_an_address_reaches_no_record(uri: str) -> None:
    secrets = Secrets({})

    public, hidden = withhold({"tracking": {"uri": uri}}, secrets)

    assert public["tracking"]["uri"] == uri.replace("CANARY-1", "***")
    assert hidden == ((("tracking", "uri"), uri),)
    assert secrets.hide("CANARY-1 was refused") == "*** was refused"


@pytest.mark.parametrize(
    "name",
    [
        "a?b#c%20d",
        "it's 100%",
        'q"',
        "back\\slash",
        "blank ",
        "a:b@c",
        "?password=x",
        "${x}",
        "{b}",
        "file:x",
        "ü☃",
        "a+b&c",
    ],
)
def test_the_address_of_a_file_leads_to_it_whatever_its_folder_is_called(tmp_path: Path, name: str) -> None:
    file = tmp_path / name / "x.db"
    file.parent.mkdir()

    engine = sa.create_engine(sqlite_url(file))
    with engine.begin() as connection:
        connection.execute(sa.text("create table t (a int)"))
    engine.dispose()

    assert file.is_file() and sqlite_file(sqlite_url(file)) == file
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_the_address_of_a_plain_path_is_as_it_is_typed(tmp_path: Path) -> None:
    assert default_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    assert sqlite_file("sqlite:///mlruns/x.db") == Path("mlruns/x.db")
    assert sqlite_file("sqlite://") is sqlite_file("sqlite:///:memory:") is None
    assert sqlite_file("sqlite:///file:x?mode=memory&uri=true") is None


def test_a_folder_that_no_address_can_name_is_refused() -> None:
    with pytest.raises(StoreError, match="rename the folder"):
        sqlite_url(Path("/tmp/\udcff/x.db"))


def test_a_store_in_an_odd_folder_is_all_in_it(tmp_path: Path) -> None:
    store = tmp_path / "a?b#c%20d" / "it's 100%"
    store.mkdir(parents=True)
    file = tmp_path / "a.txt"
    file.write_text("hello")

    tracking = MlflowStore(default_uri(store), "e", store / paths.ARTIFACTS)
    run_id = tracking.create_run("r", run_tags={}, parent=None, start_time_ms=1)
    tracking.log_artifact(run_id, file, "sub")
    open_storage(sqlite_url(store / paths.OPTUNA_DB)).engine.dispose()

    require_store(default_uri(store))
    with connected(default_uri(store)) as connection:
        address = connection.execute(sa.text("select artifact_uri from runs")).scalar_one()
    recorded = SimpleNamespace(run_id=run_id, artifact_uri=address)
    assert [artifact.path for artifact in list_artifacts(recorded, default_uri(store))] == ["sub/a.txt"]
    assert (store / paths.OPTUNA_DB).is_file()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.txt", "a?b#c%20d"]
