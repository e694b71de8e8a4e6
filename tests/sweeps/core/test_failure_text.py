"""What is said of an exception: one line and a traceback, whatever the exception is."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from sweeps.core.determinism import explained
from sweeps.core.errors import ConfigError, SpaceError
from sweeps.core.failure_text import one_line, traceback_text
from sweeps.core.secrets import Secrets
from sweeps.core.urls import hide_password, passwords_in
from sweeps.search.space.declare import parse_space
from sweeps.worker.process_group import is_peer_failure


class Silent(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


class NoText(Exception):
    def __str__(self) -> str:
        return 3  # type: ignore[return-value]


class Endless(Exception):
    def __str__(self) -> str:
        return f"{self}"


class Untouchable(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise OSError(name)


class Text(str):
    def __getitem__(self, key: Any) -> str:
        raise ValueError(key)

    splitlines = partition = __len__ = __getitem__  # type: ignore[assignment]


class SubText(Exception):
    def __str__(self) -> str:
        return Text("a text of its own kind")


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as caught:
        return caught


def noted(error: BaseException, notes: Any) -> BaseException:
    error.__notes__ = notes
    return error


def circle() -> BaseException:
    first, second = ValueError("a"), KeyError("b")
    first.__cause__, second.__cause__ = second, first
    return first


OF_WORKER = """Caught ValueError in DataLoader worker process 3.
Original Traceback (most recent call last):
  File "worker.py", line 10, in loop
    data = fetch()
           ^^^^^^^
  File "mine.py", line 7, in __getitem__
    raise Bad("bad sample")
mine.Bad: bad sample
   with more of it
"""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("a\n\n b:\nc"), "ValueError: a. b: c"),
        (ConfigError("lr: no"), "lr: no"),
        (KeyError("x"), "KeyError: 'x'"),
        (FileNotFoundError("no data; get it"), "no data; get it"),
        (FileNotFoundError(2, "No such file", "x"), "FileNotFoundError: [Errno 2] No such file: 'x'"),
        (SystemExit(0), "SystemExit: 0"),
        (Silent(), "Silent: its text cannot be read, since str() raised ValueError"),
        (NoText(), "NoText: its text cannot be read, since str() raised TypeError"),
        (Endless(), "Endless: its text cannot be read, since str() raised RecursionError"),
        (SubText(), "SubText: a text of its own kind"),
        (ValueError("\x1b[1m\ud800\0\u202e"), r"ValueError: \x1b[1m\ud800\x00\u202e"),
        (RuntimeError(OF_WORKER), "Bad: bad sample. with more of it (in DataLoader worker process 3)"),
        (raised(RuntimeError("no"), KeyError("x")), "RuntimeError: no; caused by KeyError: 'x'"),
        (circle(), "ValueError: a; caused by KeyError: 'b'"),
        (noted(ValueError("a"), 3), "ValueError: a"),
        (
            ExceptionGroup("many", [ValueError("a"), ExceptionGroup("more", [Silent(), *[KeyError("x")] * 3])]),
            "ExceptionGroup: many (2 sub-exceptions): ValueError: a; Silent: its text cannot be read, since str() "
            "raised ValueError; KeyError: 'x'; and 2 more",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_failure_is_one_line_and_a_traceback(error: BaseException, line: str) -> None:
    assert one_line(error) == line
    assert traceback_text(error)


@pytest.mark.parametrize("error", [AssertionError(), ValueError(" \n\t "), KeyboardInterrupt(), StopIteration()])
def test_an_exception_without_a_text_says_where_it_was_raised(error: BaseException) -> None:
    assert __file__ in one_line(raised(error))


def test_an_exception_that_raises_wherever_it_is_touched_still_has_a_name() -> None:
    assert one_line(raised(Untouchable("x"))).startswith("Untouchable")
    assert traceback_text(raised(Untouchable("x")))


def test_an_interrupt_that_lightning_turns_into_an_exit_is_named() -> None:
    try:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise SystemExit(1)  # noqa: B904
    except SystemExit as error:
        assert one_line(error).startswith("SystemExit: 1; caused by KeyboardInterrupt")


@pytest.mark.parametrize("text", ["x" * 5_000_000, "line\n" * 1_000_000, " " * 5_000_000, "[(" * 1_000_000])
def test_of_a_long_text_the_beginning_and_the_end_are_kept(text: str) -> None:
    error = raised(RuntimeError(f"first {text} last"))
    line, told = one_line(error), traceback_text(error)
    assert len(line) < 1000 and line.startswith("RuntimeError: first") and line.endswith("last")
    assert len(told) < 100_000 and told.startswith("Traceback") and told.endswith("last\n")


@pytest.mark.parametrize("before", range(380, 400))
def test_no_half_of_a_secret_is_left_where_a_text_is_cut(before: int) -> None:
    secrets = Secrets({})
    secrets.add(["geheimwort"])
    line = one_line(RuntimeError("x" * before + "geheimwort" + "y" * 5000), secrets.hide)
    assert "gehe" not in line and "wort" not in line


def searched(text: str) -> None:
    with pytest.raises(SpaceError):
        parse_space({"x": f"tag(log, {text}"})


@pytest.mark.parametrize(
    ("read", "text", "size"),
    [
        (explained, "x", 1_000_000),
        (hide_password, "://", 300_000),
        (hide_password, "://a:", 200_000),
        (hide_password, "?a=\\", 250_000),
        (hide_password, "://h?a=" + "\\" * 9, 100_000),
        (lambda text: hide_password(f"://a:b@{text}"), "://a:", 200_000),
        (lambda text: hide_password(f"://h?token={text}"), "\\", 1_000_000),
        (passwords_in, "http://a", 100_000),
        (lambda text: is_peer_failure(RuntimeError(text)), "Connection ", 100_000),
        (searched, "x", 200_000),
    ],
)
def test_no_search_takes_time_that_grows_with_the_square_of_a_text(
    read: Callable[[str], Any], text: str, size: int
) -> None:
    began = time.process_time()
    read(text * size)
    assert time.process_time() - began < 20  # a search that does takes hours


def test_an_operation_without_a_deterministic_form_is_explained_wherever_it_is_named() -> None:
    told = explained("Caught it.\nmax_unpooling2d does not have a deterministic implementation, but you set")
    assert told is not None and told.startswith("The operation max_unpooling2d has")
