"""Recognise torch's warnings about operations without a deterministic form, and explain them."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["explained", "operations_without_form"]

_NO_FORM = " does not have a deterministic implementation"
_MOST = 200  # characters of a name


@contextmanager
def operations_without_form() -> Iterator[set[str]]:
    """Gather the names of such operations as torch warns of them, which `trainer.deterministic=warn` has it do."""
    found: set[str] = set()
    show = warnings.showwarning

    def heard(message: Warning | str, *arguments: Any, **more: Any) -> None:
        operation = _operation(str(message))
        if operation is not None:
            found.add(operation)
        show(message, *arguments, **more)

    with warnings.catch_warnings():  # gives back what it finds
        # whatever PYTHONWARNINGS says; torch's warning begins with the name, so that a long text is not searched
        warnings.filterwarnings("default", message=f".{{1,{_MOST}}}{re.escape(_NO_FORM)}")
        warnings.showwarning = heard
        yield found


def explained(message: str) -> str | None:
    """Say what is to be done where torch refuses an operation; None for any other message."""
    operation = _operation(message)
    if operation is None:
        return None
    return (
        f"The operation {operation} has no deterministic form, and trainer.deterministic=true allows no other: use "
        "another one in the model, or set trainer.deterministic=warn, which trains with it and names it in the record."
    )


def _operation(message: str) -> str | None:
    """Return the name before torch's fixed words, as far as a record may hold it; by `find`, as texts may be long."""
    end = message.find(_NO_FORM)
    words = message[max(0, end - _MOST) : max(0, end)].split()
    return words[-1] if words else None
