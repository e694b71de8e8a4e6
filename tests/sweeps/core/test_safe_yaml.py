"""Records that others may have written, read as data: what is refused, how fast, and that nothing of it ran."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from sweeps.config.composer import Composer, to_yaml
from sweeps.core.errors import StoreError
from sweeps.core.safe_yaml import MAX_BYTES, opened, read_config, read_text, read_yaml

LAUGHS = "a0: &a0 [ha, ha]\n" + "\n".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]" for n in range(1, 40))


def test_configuration_of_a_run_reads_back() -> None:
    config = Composer("train", ["callbacks=[default,early_stopping]"]).trial({}, seed=3)

    assert read_config(to_yaml(config)) == config


def test_what_stands_in_two_places_is_written_twice() -> None:
    shared = [1, 2]

    assert read_config(to_yaml({"a": shared, "b": shared})) == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "has an anchor or an alias (line 1)"),
        ("a: &a {b: *a}", "has an anchor or an alias"),
        ("a: 1\nb: {c: 1, d: 2, c: 3}", "has the key 'c' twice (line 2)"),
        ("[" * 500_000, "may be 32 levels deep"),
        ("- " * 400_000, "may be 32 levels deep"),
        ("{a: " * 200_000, "may be 32 levels deep"),
        ("a: [" + "1," * 100_000 + "1]", "may have 50,000 entries"),
        ("a: " + "x" * MAX_BYTES, "may have 1,000,000 characters"),
        ("a: !!python/object/apply:os.system [touch harm]", "python/object/apply:os.system' in it (line 1)"),
        ("a: !!python/name:os.system", "may have plain values only"),
        ("a: !!python/module:antigravity", "may have plain values only"),
        ("a: !mine 1", "may have plain values only"),
        ("a: !!binary aGk=", "may have plain values only"),
        ("a: 2026-01-01", "may have plain values only"),
        ("<<: {a: 1}", "a key that is not a plain value"),
        ("? [1, 2]\n: 3", "a key that is not a plain value"),
        ("1: 2", "must have words as its keys, but has 1"),
        ("a: " + "9" * 5000, "line 1 has no value that can be read"),
        ("a: \0", "is not valid YAML"),
        ("a: \x1b[31m", "is not valid YAML"),
        ("a: [1", "is not valid YAML"),
        ("a: 1\n---\nb: 2", "is not valid YAML"),
        ("- 1", "must hold a mapping, but holds a list"),
        ("", "must hold a mapping, but holds a NoneType"),
        ("hydra: {searchpath: [file:///tmp]}", "has a section hydra"),
        ("a: {b: [1, '${oc.env:SECRET}']}", "a.b.1 holds an interpolation, '${oc.env:SECRET}'"),
        ("a: ${a}", "a holds an interpolation"),
        ("${oc.env:SECRET}: 1", "holds an interpolation"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_what_is_more_than_a_mapping_of_plain_data_is_refused_in_one_line(text: str, message: str) -> None:
    began = time.perf_counter()
    with pytest.raises(StoreError) as caught:
        read_config(text)

    assert message in str(caught.value) and len(str(caught.value)) < 400 and "\n" not in str(caught.value)
    assert time.perf_counter() - began < 30


def test_environment_stays_out_of_what_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", "c4n4ry")

    assert read_yaml("a: ${oc.env:CANARY}") == {"a": "${oc.env:CANARY}"}


def test_file_of_a_hundred_megabytes_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    began = time.perf_counter()

    with pytest.raises(StoreError, match=r"may have 1,000,000 bytes, but has 100,000,000: it is not read"):
        read_config(path)
    assert time.perf_counter() - began < 10


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "config.yaml")

    with pytest.raises((StoreError, IsADirectoryError), match=r"must be a file|directory"):
        read_config(tmp_path / "config.yaml")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(b"a: \xff\xfe")

    with pytest.raises(StoreError, match=r"must be UTF-8, but is not: invalid start byte at byte 3"):
        read_config(tmp_path / "config.yaml")


def is_own(path: Path) -> bool:
    with opened(path) as (_, is_own):
        return is_own


def test_file_is_own_if_nobody_else_can_have_written_it(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("")
    own.chmod(0o644)

    assert is_own(own)
    for mode in (0o664, 0o646):
        own.chmod(mode)
        assert not is_own(own)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to(__file__)])
def test_what_is_no_file_is_not_opened(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "a.ckpt")

    with pytest.raises(StoreError, match="must be a file, but is a"):
        is_own(tmp_path / "a.ckpt")


def test_it_is_the_open_file_that_is_judged_and_read(tmp_path: Path) -> None:
    """Who owns the folder puts another file there, between the look and the reading."""
    theirs, own = tmp_path / "theirs", tmp_path / "own"
    theirs.write_text("theirs")
    theirs.chmod(0o666)
    own.write_text("own")
    own.chmod(0o600)

    with opened(theirs) as (file, is_own):
        own.replace(theirs)
        assert (is_own, file.read()) == (False, b"theirs")


def test_text_that_has_to_be_own_is_judged_as_it_is_read(tmp_path: Path) -> None:
    own, link = tmp_path / "own", tmp_path / "link"
    own.write_text("own")
    own.chmod(0o644)
    link.symlink_to(own)

    assert read_text(own, unless_own="is foreign") == read_text(link) == "own"
    own.chmod(0o646)
    for path in (own, link):
        with pytest.raises(StoreError, match=f"{path.name} is foreign"):
            read_text(path, unless_own="is foreign")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_file_of_another_user_is_not_own(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("")
    os.chown(tmp_path / "theirs", 12345, 12345)

    assert not is_own(tmp_path / "theirs")
