"""The recorded packages: only names with versions reach pip, and an environment has exactly these."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement

from sweeps.core.errors import LightsweepError, StoreError, UsageError
from sweeps.reproduce.environment import environments_dir, interpreter, is_made, made, recorded_lock, require_fits
from sweeps.reproduce.original import IncompleteError
from sweeps.reproduce.provenance import local_packages

PYTHON = f"CPython {sys.version_info[0]}.{sys.version_info[1]}.0"


def record(packages: Any, python: Any = PYTHON, **more: Any) -> dict[str, Any]:
    return {"packages": packages, "machine": {"python": python}, **more}


@pytest.mark.parametrize(
    ("name", "version"),
    [
        *(("--index-url=http://x", "1"), ("-r/etc/passwd", "1"), ("a @ https://x/y.whl", "1"), ("a", "1 --pre")),
        *(("a[b]", "1"), ("a>0,", "1"), ("a\n--pre", "1"), ("", "1"), ("a", ""), ("a", "*"), ("a", "1.*")),
        *(
            ("./a", "1"),
            ("a; python_version>'3'", "1"),
            ("a", "1; x"),
            ("a", None),
            ("a", ["1"]),
            ("git+http://x", "1"),
        ),
    ],
)
def test_what_is_no_name_with_a_version_is_refused(name: str, version: Any) -> None:
    with pytest.raises(StoreError, match="names with versions"):
        recorded_lock(record({"good": "1.0", name: version}), {})


@given(st.dictionaries(st.text(max_size=12), st.text(max_size=12), min_size=1, max_size=3))
def test_pip_gets_a_name_and_a_version_or_nothing(packages: dict[str, str]) -> None:
    try:
        lines = recorded_lock(record(packages), {}).requirements()
    except LightsweepError as error:
        assert str(error).isprintable()
        return
    for line in lines:
        found = Requirement(line)
        assert (found.url, found.marker, found.extras, len(found.specifier)) == (None, None, set(), 1)
        assert not line.startswith("-") and line.isprintable()


@pytest.mark.parametrize("content", [{}, record({}), record(None), record({"a": "1"}, None), {"packages": {"a": "1"}}])
def test_a_record_without_packages_is_incomplete(content: dict[str, Any]) -> None:
    with pytest.raises(IncompleteError):
        recorded_lock(content, {})


def test_what_is_from_no_index_is_never_asked_of_one(tmp_path: Path) -> None:
    packages = {"lightsweep": "0.1.0", "ours": "1.0", "theirs": "2.0", "open": "3.0", "mine": "4.0"}
    today = {"mine": {"url": f"file://{tmp_path}"}, "theirs": {"url": "https://example.org/theirs.whl"}}
    lock = recorded_lock(record(packages, local_packages=["ours", "lightsweep"]), today)
    assert lock.packages == {"open": "3.0"}
    assert lock.local == {"mine": tmp_path}
    assert lock.missing == ("ours", "theirs")


def test_this_very_installation_is_told_apart_from_packages_of_an_index() -> None:
    found = local_packages()
    assert "numpy" not in found
    assert all(isinstance(origin.get("url"), str) for origin in found.values())


@pytest.mark.parametrize(
    "python", ["PyPy 3.11.7", "CPython", "CPython 3.11.7; rm", "CPython ../x.3.1", "CPython -c.1.1"]
)
def test_another_python_than_cpython_is_refused(python: str) -> None:
    with pytest.raises(StoreError, match="must be a CPython"):
        recorded_lock(record({"a": "1"}, python), {})


def test_a_python_that_is_not_here_is_told() -> None:
    with pytest.raises(UsageError, match=r"needs a python3\.999 on the PATH"):
        interpreter(recorded_lock(record({"a": "1"}, "CPython 3.999.1"), {}))
    assert interpreter(recorded_lock(record({"a": "1"}), {})) == sys.executable


def test_another_minor_version_is_looked_for_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python3.999"
    lock = recorded_lock(record({"a": "1"}, "CPython 3.999.1"), {})
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    python.write_text("#!/bin/sh\necho cpython 3 998\n")
    python.chmod(0o755)
    with pytest.raises(UsageError, match=r"python3\.999"):
        interpreter(lock)
    python.write_text("#!/bin/sh\necho cpython 3 999\n")
    assert interpreter(lock) == str(python)


def test_packages_with_which_lightsweep_cannot_run_are_refused_before_anything_is_installed() -> None:
    lock = recorded_lock(record({"optuna": "4.0", "torch": "2.13.0+cpu", "Typing_Extensions": "4.1"}), {})
    require_fits(lock, ["torch>=2.10", "typing.extensions", "psycopg ; extra == 'postgres'"], "It")
    with pytest.raises(UsageError, match=r"optuna<6,>=5.0 \(recorded: 4.0\), rich \(recorded: none\)"):
        require_fits(lock, ["optuna>=5.0,<6", "rich"], "It")


# --- the environment, made for real ----------------------------------------------------------------------


def wheel(folder: Path, name: str, version: str) -> None:
    """Write a wheel with one module."""
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}.py", f"VERSION = {version!r}\n")
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", "")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels, which is all that pip has; and a cache of its own."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def installed(python: Path) -> list[str]:
    question = (
        "from importlib.metadata import distributions as d; print(*sorted(f'{x.name}=={x.version}' for x in d()))"
    )
    return subprocess.run([python, "-c", question], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.slow
def test_an_environment_has_the_recorded_versions_and_no_others(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    for version in ("1.0", "2.0"):
        wheel(index, "tiny", version)
    wheel(index, "built", "3.1")
    lock = recorded_lock(record({"tiny": "1.0", "built": "3.1+cpu"}), {})
    said: list[str] = []
    python = made(lock, sys.executable, said.append)
    assert installed(python) == ["built==3.1", "tiny==1.0"]
    assert any("+cpu" in line and "without local versions" in line for line in said)
    assert is_made(lock) and environments_dir().stat().st_mode & 0o077 == 0
    said.clear()
    assert made(lock, "/no/such/python", said.append) == python, "it is made once"
    assert said == [f"The environment is there already: {python.parents[1]}"]


def test_an_environment_that_fails_is_not_left_behind(index: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nmkdir "$3"\necho "ERROR: no ensurepip"\nexit 1\n')
    python.chmod(0o755)
    lock = recorded_lock(record({"tiny": "1.5"}), {})
    with pytest.raises(LightsweepError, match=r"no ensurepip \(the whole of it is in"):
        made(lock, str(python), lambda line: None)
    assert not is_made(lock) and not (environments_dir() / lock.key).exists()


def test_environments_that_others_can_write_are_not_used(index: Path) -> None:
    environments_dir().mkdir(parents=True)
    environments_dir().chmod(0o777)
    with pytest.raises(StoreError, match="yours alone"):
        made(recorded_lock(record({"tiny": "1.0"}), {}), sys.executable, lambda line: None)


def test_other_versions_are_another_environment() -> None:
    locks = [
        recorded_lock(record({"a": version}, f"CPython 3.{minor}.1"), {}) for version in "12" for minor in (11, 12)
    ]
    assert len({lock.key for lock in locks}) == 4
    one, same = (recorded_lock(record(of), {}) for of in ({"b": "1", "a": "1"}, {"a": "1", "B": "1"}))
    assert one.key == same.key
