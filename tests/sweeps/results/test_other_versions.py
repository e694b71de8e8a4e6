"""Stores that another version of MLflow made: read where they can be, and told what to do where they cannot."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from empty_stores import plain_create_all

from sweeps.core.errors import StoreError
from sweeps.results.queries import top_rows, trial_rows
from sweeps.results.study import load_study
from sweeps.tracking.client import MlflowStore
from sweeps.tracking.database import require_store, version_problem

ANCIENT = "7ac759974ad8"  # MLflow 0.9, which had no table of the latest metrics
OLDER, NEWER = "cc1f77228345", "0123456789ab"


def changed(filled: Any, folder: Path, *statements: str) -> str:
    """Return the address of a copy of a store that was changed so."""
    file = folder / "mlflow.db"
    with (
        closing(sqlite3.connect(filled.uri.removeprefix("sqlite:///"))) as source,
        closing(sqlite3.connect(file)) as copy,
    ):
        source.backup(copy)
        for statement in statements:
            copy.execute(statement)
        copy.commit()
    return f"sqlite:///{file}"


def of_schema(revision: str) -> str:
    return f"update alembic_version set version_num = '{revision}'"


@pytest.mark.parametrize("revision", [OLDER, NEWER])
def test_store_of_another_version_with_the_same_columns_is_read(filled: Any, tmp_path: Path, revision: str) -> None:
    uri = changed(filled, tmp_path, of_schema(revision))

    assert repr(trial_rows(uri)) == repr(trial_rows(filled.uri))
    assert [row.run_id for row in load_study("a", uri=uri).best] == [filled.ids["a1"]]


@pytest.mark.parametrize(
    ("revision", "message"),
    [
        (
            OLDER,
            r"made by an older MLflow \(its schema is cc1f77228345, .*\)\. Back it up, then run: mlflow db upgrade '",
        ),
        (NEWER, r"made by a newer MLflow \(its schema 0123456789ab is unknown to MLflow 3.*pip install -U mlflow"),
    ],
)
def test_mlflow_is_not_let_at_the_store_of_another_version(
    filled: Any, tmp_path: Path, revision: str, message: str
) -> None:
    uri = changed(filled, tmp_path, of_schema(revision))

    with pytest.raises(StoreError, match=message) as by_reading:
        require_store(uri)  # as `lightsweep ui` does
    with pytest.raises(StoreError, match=message) as by_writing:
        MlflowStore(uri, "lightsweep", tmp_path)  # as a sweep does

    assert "\n" not in f"{by_reading.value}{by_writing.value}"


def test_store_of_the_installed_version_is_nothing_to_speak_of(filled: Any) -> None:
    from sweeps.tracking.database import connected

    require_store(filled.uri)
    with connected(filled.uri) as connection:
        assert version_problem(connection, filled.uri) == ""


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        (
            ["alter table latest_metrics rename column is_nan to nan", of_schema(NEWER)],
            "no latest_metrics.is_nan; it was .* newer",
        ),
        (["alter table metrics rename to points", of_schema(NEWER)], "no metrics; it was .* newer"),
        (
            ["alter table runs rename column start_time to began", of_schema(OLDER)],
            "no runs.start_time; it was .* older",
        ),
        (["alter table runs rename column name to title"], "no runs.name; somebody has changed it"),
        (["drop table latest_metrics", of_schema(OLDER)], "no latest_metrics; it was .* older"),
    ],
)
def test_what_is_not_there_to_be_read_is_named(
    filled: Any, tmp_path: Path, statements: list[str], message: str
) -> None:
    uri = changed(filled, tmp_path, *statements)

    with pytest.raises(StoreError, match=rf"cannot be read: it has {message}") as caught:
        load_study("a", uri=uri).histories("val/acc")
    assert "\n" not in str(caught.value)


def test_store_of_an_ancient_mlflow_is_told_apart_from_a_stranger(tmp_path: Path) -> None:
    import sqlalchemy as sa
    from alembic import command
    from mlflow.store.db.utils import _get_alembic_config
    from mlflow.store.tracking.dbmodels.initial_models import Base

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    engine = sa.create_engine(uri)
    plain_create_all(Base.metadata, engine)
    with engine.begin() as connection:
        config = _get_alembic_config(uri)
        config.attributes["connection"] = connection
        command.upgrade(config, ANCIENT)
    engine.dispose()

    with pytest.raises(StoreError, match=rf"it has no .*; it was made by an older MLflow \(its schema is {ANCIENT}"):
        top_rows(uri, [], 10)


@pytest.mark.postgres
@pytest.mark.slow
def test_other_versions_on_postgresql(postgres_url: str) -> None:
    import sqlalchemy as sa
    from mlflow.tracking import MlflowClient

    url = postgres_url.replace("postgresql:", "postgresql+psycopg:")
    MlflowClient(url).search_experiments()
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text(of_schema(NEWER)))
    assert trial_rows(url) == []
    with engine.begin() as connection:
        connection.execute(sa.text("alter table tags rename column value to text"))
    engine.dispose()

    with pytest.raises(StoreError, match=r"me:\*\*\*@.* cannot be read: it has no tags.value; it was made by a newer"):
        trial_rows(url)
