"""The storage opens for many at once, or says in one line why it does not."""

import sqlite3

import optuna
import pytest
from free_ports import free_port
from six_at_once import six_at_once
from studies import MEDIAN, make

from sweeps.core.errors import StoreError
from sweeps.search.space.declare import parse_space
from sweeps.search.storage import open_storage


def test_sqlite_is_made_with_its_folder_in_wal_mode_and_waits_for_others(new_url):
    with open_storage(new_url).engine.connect() as connection:
        pragmas = [
            connection.exec_driver_sql(f"pragma {name}").scalar()
            for name in ("journal_mode", "synchronous", "busy_timeout")
        ]
    assert pragmas == ["wal", 1, 60_000]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("mlruns/optuna.db", "must be a database URL"),
        ("sqlite:////proc/nowhere/optuna.db", "cannot be opened"),
        ("sqlite:///{tmp}/a file/optuna.db", "cannot be opened"),
        ("sqlite:///{tmp}/a file", "file is not a database"),
        ("postgresql+psycopg://me:secret@127.0.0.1:{port}/db", "Check that the server runs"),
        ("postgresql://me:secret@127.0.0.1:{port}/db", "Check that the server runs"),
        ("postgresql://127.0.0.1:{port}/db?user=me&password=secret", "Check that the server runs"),
    ],
)
def test_a_store_that_cannot_be_opened_is_one_line_without_the_password(tmp_path, bad, words):
    (tmp_path / "a file").write_text("text" * 500)
    with pytest.raises(StoreError, match=words) as error:
        open_storage(bad.format(tmp=tmp_path, port=free_port()))
    assert "\n" not in str(error.value) and "secret" not in str(error.value)


def test_mlflows_database_is_left_alone(tmp_path):
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("create table experiments (id int)")
    with pytest.raises(StoreError, match="MLflow's"):
        open_storage(f"sqlite:///{tmp_path}/mlflow.db")
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        assert connection.execute("select count(*) from sqlite_master where type = 'table'").fetchone() == (1,)


def test_six_processes_on_an_empty_sqlite_file_all_survive(new_url):
    assert six_at_once("studies", "open_and_ask", new_url) == ""
    assert len(optuna.get_all_study_names(new_url)) == 6


@pytest.mark.postgres
def test_six_processes_on_an_empty_postgresql_all_survive(postgres_url):
    assert six_at_once("studies", "open_and_ask", postgres_url) == ""
    assert len(optuna.get_all_study_names(open_storage(postgres_url))) == 6


@pytest.mark.postgres
def test_a_study_goes_on_when_the_server_was_restarted(postgres_server, postgres_url):
    study = make(postgres_url, sampler="tpe", pruner=MEDIAN)
    ask = study.ask()
    postgres_server.restart()
    assert not study.report(ask.number, 0.5, 0).prune
    study.tell(ask.number, "complete", 0.5)
    again = make(postgres_url, sampler="tpe")
    assert again.best.value == 0.5 and again.counts["complete"] == 1


def assert_choices_of_any_length(url):
    choices = ["x" * 8970, "x" * 9660 + "y"]
    space = parse_space({"model.prompt": ",".join(choices), "lr": "0.1,0.2"})
    study = make(url, space=space, sampler="grid")
    asked = [study.ask() for _ in range(4)]
    for ask in asked:
        study.tell(ask.number, "complete", 0.5)
    again = make(url, space=space, sampler="grid")
    assert {ask.values["model.prompt"] for ask in asked} == set(choices)
    assert [best.values for best in again.leaders(4)] == [ask.values for ask in asked]


def test_choices_of_any_length_are_kept(empty_url):
    assert_choices_of_any_length(empty_url)


@pytest.mark.postgres
def test_choices_of_any_length_are_kept_on_postgresql(postgres_url):
    assert_choices_of_any_length(postgres_url)
