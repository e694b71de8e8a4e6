"""Canaries: real runs with passwords of every origin, and all that they left is searched for them."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import warm

from sweeps.config.quoting import quote

TYPED, IN_URL, IN_ENVIRONMENT = "c4n4ry-\\99\"'ö-typed", "c4n4ry-in-url", "c4n4ry-\\99\"'ö in environment"
TAG = "c4n4ry-tag"
DATA = f"""
import json
from urllib.parse import quote, urlencode

import yaml

from lightning_modules.data.digits import Digits


class Guarded(Digits):
    '''Data that must be paid for, from a source that talks too much.'''

    def __init__(self, password: str, token: str, url: str, fails: bool = False, **more):
        super().__init__(**more)
        assert (password, token) == ({TYPED!r}, {IN_ENVIRONMENT!r}), "wrong password"
        assert url == "postgresql://me:{IN_URL}@host/data", "wrong URL"
        print("logging in with", password, token, url)
        print(json.dumps([password, token]), [password, token], json.dumps(dict(message=repr([password, token]))))
        print(quote(password), urlencode(dict(token=token, password=password)), password.encode(), ascii(token))
        print(yaml.dump([password, token]), yaml.dump([password, token], allow_unicode=True))
        if fails:
            raise RuntimeError(f"{{url}} did not let in {{password!r}} with {{json.dumps(token)}}")
"""
OPTION = "defaults: [digits, _self_]\n_target_: guarded.Guarded\n"
ARGUMENTS = (
    *("--config-dir", "own", "data=guarded", f"+data.password={quote(TYPED)}", "+data.token=${oc.env:MY_VAULT}"),
    *(f"+data.url='postgresql://me:{IN_URL}@host/data'", f"+tracking.tags.api_token={TAG}"),
    "+extra={user: me, password: correct c4n4ry battery c4n4ry}",
    *("trainer.max_epochs=1", "trainer.accelerator=cpu"),
)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "own" / "data").mkdir(parents=True, exist_ok=True)
    (folder / "own" / "guarded.py").write_text(DATA)
    (folder / "own" / "data" / "guarded.yaml").write_text(OPTION)
    return warm.run(
        [sys.executable, "-m", "sweeps", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "MY_VAULT": IN_ENVIRONMENT, "THE_TOKEN": IN_ENVIRONMENT},
    )


def leaks(folder: Path) -> dict[str, int]:
    """Return the files that have a canary in them, with the permissions of all but their owner."""
    for database in (folder / "mlruns").glob("*.db"):
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("pragma wal_checkpoint(truncate)")
    files = [path for path in (folder / "mlruns").rglob("*") if path.is_file()]
    assert len(files) > 5
    return {
        path.relative_to(folder / "mlruns").as_posix(): path.stat().st_mode & 0o077
        for path in files
        if b"c4n4ry" in path.read_bytes()
    }


@pytest.mark.slow
def test_no_secret_of_a_sweep_is_recorded_or_shown_and_its_trials_get_them(tmp_path: Path) -> None:
    done = run(tmp_path, "sweep", *ARGUMENTS, "study.name=s", "study.num_trials=2", "launcher.slots=2")

    assert done.returncode == 0, done.stdout + done.stderr  # so that the ranks had the right ones
    assert "c4n4ry" not in done.stdout + done.stderr
    # What the module prints is in its log, and what was typed in study.yaml, which `resume` reads: for this user alone
    assert set(leaks(tmp_path)) == {"s/study.yaml", "s/0000/rank0.log", "s/0001/rank0.log"}
    assert set(leaks(tmp_path).values()) == {0}
    again = run(tmp_path, "resume", "s", "study.num_trials=3")
    assert again.returncode == 0, again.stdout + again.stderr


@pytest.mark.parametrize("command", ["train", pytest.param("sweep", marks=pytest.mark.slow)])
def test_no_secret_is_in_what_tells_of_a_failure(tmp_path: Path, command: str) -> None:
    failed = run(tmp_path, command, *ARGUMENTS, "+data.fails=true")

    assert failed.returncode == 1
    assert "did not let in '***' with \"***\"" in failed.stderr
    assert "c4n4ry" not in failed.stdout + failed.stderr


def test_no_secret_is_in_a_composed_configuration_that_is_printed(tmp_path: Path) -> None:
    for more in ((), ("--resolve",)):
        printed = run(tmp_path, "train", *ARGUMENTS, "--cfg", "job", *more)

        assert printed.returncode == 0 and "password: '***'" in printed.stdout
        assert "c4n4ry" not in printed.stdout + printed.stderr


def test_no_secret_is_in_the_message_about_a_wrong_key(tmp_path: Path) -> None:
    refused = run(tmp_path, "train", f"data.pasword_token={quote(TYPED)}", f"optimizer.api_key={quote(TYPED)}")

    assert refused.returncode == 2 and "There is no key" in refused.stderr
    assert "c4n4ry" not in refused.stderr


@pytest.mark.slow
def test_a_run_is_reproduced_with_secrets_that_are_typed_and_none_is_recorded(tmp_path: Path) -> None:
    trained = run(tmp_path, "train", *ARGUMENTS)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    typed = ("--config-dir", "own", "--", f"data.url=postgresql://me:{IN_URL}@host/data")

    without = run(tmp_path, "reproduce", "train#0", *typed)
    assert "data.password is secret, so that the record does not have it" in without.stdout
    assert "'data.token=${oc.env:NAME}'" in without.stdout and "data.url is secret" not in without.stdout
    assert without.returncode == 5 and "wrong password" in without.stdout
    done = run(
        tmp_path, "reproduce", "train#0", *typed, f"data.password={json.dumps(TYPED)}", "data.token=${oc.env:MY_VAULT}"
    )
    assert done.returncode == 0 and "\nexact: " in done.stdout and "derived" not in done.stdout
    assert "c4n4ry" not in done.stdout + done.stderr + without.stdout + without.stderr
    logs = ("reproductions/0000", "train/0000")
    assert set(leaks(tmp_path)) == {f"{folder}/rank0.log" for folder in logs}
