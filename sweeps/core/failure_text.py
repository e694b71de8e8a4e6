"""Describe a failure: one line for people, and the traceback for the record.

An exception comes from the user's code, so nothing is taken for granted: its text may raise, be of any size, or be a
whole traceback of another process. Nothing here raises.
"""

import traceback
from collections.abc import Callable, Iterator

from sweeps.core.determinism import explained
from sweeps.core.errors import LightsweepError
from sweeps.core.text import plain, shortened, storable

__all__ = ["leaves_of", "one_line", "text_of", "traceback_text"]

_MOST_OF_LINE = 600
_MOST_OF_MEMBER = 250
_MOST_OF_OUR_LINE = 4000  # our own messages are as long as they have to be
_MOST_OF_TRACEBACK = 60_000
_MOST_READ = 20_000
_MOST_MEMBERS = 3
_MOST_LEAVES = 1000
_IN_WORKER = "Original Traceback (most recent call last):"

Hide = Callable[[str], str]


def one_line(error: BaseException, hide: Hide = str, ours: tuple[type[BaseException], ...] = (LightsweepError,)) -> str:
    """Return the type and the text of an exception on one line of some hundreds of characters, with its causes.

    Args:
        error: Of a group, its first members are written as well; of one that a worker of a data loader passed on, the
            worker's own error.
        hide: Hides what is secret; it gets the whole text, since half a secret would not be recognised.
        ours: The types whose text says all, without the name of the type.
    """
    try:
        if isinstance(error, ours):
            return plain(shortened(_joined(_text(error, hide)), _MOST_OF_OUR_LINE))
        line = _line(error, hide, _MOST_OF_LINE)
        for cause in _causes(error):
            told = _line(cause, hide, _MOST_OF_MEMBER)
            if told not in line:
                line += f"; caused by {told}"
        return line
    except BaseException:  # a class that raises wherever it is touched, or no memory is left
        return f"{_name(error)}: it cannot be read"


def traceback_text(error: BaseException, hide: Hide = str) -> str:
    """Return the traceback of an exception with all that led to it; of a very long one, the beginning and the end."""
    try:
        text = "".join(traceback.format_exception(error))
    except BaseException:  # it has a form of its own for that, which fails
        frames = BaseException.__dict__["__traceback__"].__get__(error)
        text = "".join([*traceback.format_tb(frames), one_line(error, hide), "\n"])
    return storable(shortened(hide(text), _MOST_OF_TRACEBACK))


def text_of(error: BaseException) -> str:
    """Return `str(error)`, or why it cannot be had."""
    try:
        return str.__str__(str(error))
    except BaseException as second:  # whatever the user's `__str__` does
        return f"its text cannot be read, since str() raised {_name(second)}"


def leaves_of(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions of a group and of the groups in it, a thousand at most; else the exception itself."""
    waiting = [error]
    for _ in range(_MOST_LEAVES):
        if not waiting:
            return
        first = waiting.pop(0)
        if isinstance(first, BaseExceptionGroup):
            waiting[:0] = first.exceptions[:_MOST_LEAVES]
        else:
            yield first


def _line(error: BaseException, hide: Hide, most: int) -> str:
    text = _text(error, hide)
    told = explained(text) if isinstance(error, RuntimeError) else None
    told = told or _of_worker(text)
    if told is None:
        line = _joined(text)
        if isinstance(error, BaseExceptionGroup):
            line = f"{line}: {_members(error, hide)}"
        elif not line:
            line = _place(error)
        is_whole = isinstance(error, FileNotFoundError) and error.errno is None
        told = line if is_whole and text else f"{_name(error)}: {line}".removesuffix(": ")
    return plain(shortened(told, most))


def _text(error: BaseException, hide: Hide) -> str:
    return shortened(hide(text_of(error)), _MOST_READ)


def _joined(text: str) -> str:
    """Return the lines of a text as sentences of one line."""
    lines = [stripped for line in text.splitlines() if (stripped := line.strip())]
    ended = [line if line[-1] in ".:;,?!" else f"{line}." for line in lines[:-1]]
    return " ".join([*ended, *lines[-1:]])


def _of_worker(text: str) -> str | None:
    """Return what failed in another process or thread, if the text is the traceback that torch brought from there.

    The text is `Caught ValueError in DataLoader worker process 0.`, and the traceback there.
    """
    first, mark, there = text.partition(_IN_WORKER)
    where = first.strip().rstrip(".").partition(" in ")[2]
    if not mark or not first.startswith("Caught ") or not where:
        return None
    lines = there.rstrip().splitlines()
    frames = [number for number, line in enumerate(lines) if line.startswith('  File "')]
    own = lines[frames[-1] + 1 :] if frames else lines
    while own and own[0].startswith("    "):  # the line of code, and the marks below it
        own.pop(0)
    kind, colon, rest = "\n".join(own).partition(":")
    return f"{_joined(kind.rpartition('.')[2] + colon + rest)} (in {where})" if own else None


def _members(group: BaseException, hide: Hide) -> str:
    leaves = list(leaves_of(group))
    shown = [_line(leaf, hide, _MOST_OF_MEMBER // 2) for leaf in leaves[:_MOST_MEMBERS]]
    more = len(leaves) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more > 0 else "")


def _place(error: BaseException) -> str:
    """Say where an exception without a text was raised: `assert x` says no more."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"raised in {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""


def _causes(error: BaseException) -> list[BaseException]:
    """Return the exception from which this one was raised, and the one at the beginning."""
    found: list[BaseException] = [error]
    while len(found) < _MOST_LEAVES:
        last = found[-1]
        # `sys.exit` is how Lightning answers an interrupt
        cause = last.__cause__ or (last.__context__ if isinstance(last, SystemExit) else None)
        if cause is None or any(cause is earlier for earlier in found):
            break
        found.append(cause)
    return [*found[1:2], *found[2:][-1:]]


def _name(error: BaseException) -> str:
    return str(type.__dict__["__name__"].__get__(type(error)))
