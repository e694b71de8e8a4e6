"""Operations that have no deterministic form: heard of by the warnings of torch, and told to people."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["explained", "operations_without_form"]

_NO_FORM = re.compile(r"(\S+) does not have a deterministic implementation")


@contextmanager
def operations_without_form() -> Iterator[set[str]]:
    """Gather the names of such operations as torch warns of them, which `trainer.deterministic=warn` has it do."""
    found: set[str] = set()
    show = warnings.showwarning

    def heard(message: Warning | str, *arguments: Any, **more: Any) -> None:
        found.update(_NO_FORM.findall(str(message)))
        show(message, *arguments, **more)

    with warnings.catch_warnings():  # gives back what it finds
        warnings.filterwarnings("default", message=f".*{_NO_FORM.pattern}")  # whatever PYTHONWARNINGS says
        warnings.showwarning = heard
        yield found


def explained(message: str) -> str | None:
    """Say what is to be done where torch refuses an operation; None for any other message."""
    operation = _NO_FORM.search(message)
    if operation is None:
        return None
    return (
        f"The operation {operation[1]} has no deterministic form, and trainer.deterministic=true allows no other: use "
        "another one in the model, or set trainer.deterministic=warn, which trains with it and names it in the record."
    )
