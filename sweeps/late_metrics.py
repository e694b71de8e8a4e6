"""Whether code may log a metric that it has not logged yet, by the names that stand in it.

A metric may come only after a warm-up, or with each second validation; a misspelt one never comes. Which of the two it
is, the first batches cannot tell, but the texts of the program that trains can.
"""

import ast
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache

__all__ = ["may_log"]

_OTHERS = {"lightning_fabric", "lightning_modules", "pytorch_lightning", "torch", "torchmetrics", "sweeps"}
"""Packages of which nothing comes late: what they log, they log in each epoch."""

_JOINTS = "/_-.: "


def may_log(name: str, objects: Iterable[object]) -> bool:
    """Return whether the modules in which these objects are defined may log `name`.

    They may if the name stands in them, whole or as a text with gaps (`f"{stage}/loss"`), or a part of it up to a
    separator (`prefix="val/"`), or if their source cannot be read. What libraries and the platform itself define is
    left out.
    """
    modules = {base.__module__ for each in objects if each is not None for base in type(each).__mro__}
    own = [module for module in modules if module.partition(".")[0] not in {*_OTHERS, *sys.stdlib_module_names}]
    return any(_fits(name, text) for module in sorted(own) for text in _texts(module))


def _fits(name: str, text: str | re.Pattern[str]) -> bool:
    if isinstance(text, re.Pattern):
        return text.fullmatch(name) is not None
    if text == name:
        return True
    is_start = len(text) > 1 and text[-1] in _JOINTS and name.startswith(text)
    is_end = len(text) > 1 and text[0] in _JOINTS and name.endswith(text)
    return is_start or is_end


@cache
def _texts(module: str) -> tuple[str | re.Pattern[str], ...]:
    """Return the texts of a module's source; one that fits everything if there is none to read."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (KeyError, OSError, TypeError, SyntaxError, ValueError):
        return (re.compile(".*", re.DOTALL),)
    return tuple(_texts_in(tree))


def _texts_in(tree: ast.AST) -> Iterator[str | re.Pattern[str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            parts = [re.escape(str(part.value)) if isinstance(part, ast.Constant) else ".*" for part in node.values]
            if any(part != ".*" for part in parts):
                yield re.compile(re.sub(r"(\.\*)+", ".*", "".join(parts)), re.DOTALL)
