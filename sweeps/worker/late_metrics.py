"""Tell whether code may still log a metric that it has not logged yet, by the names in its source.

A metric may appear only after a warm-up, or with each second validation; a misspelt one never does. The first batches
cannot tell the two apart, but the source of the program that trains can.
"""

import ast
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

__all__ = ["may_log"]

_OTHERS = {"lightning_fabric", "lightning_modules", "pytorch_lightning", "torch", "torchmetrics", "sweeps"}
"""Packages of which nothing comes late: what they log, they log in each epoch."""

_JOINTS = "/_-.: "

_Source = type | FunctionType


def may_log(name: str, objects: Iterable[object], texts: Iterable[str] = (), *, by_variable: bool = False) -> bool:
    """Return whether the classes of these objects may log `name`.

    They may if the name stands in their source, whole or as a text with gaps (`f"{stage}/loss"`), or a part of it up to
    a separator (`prefix="val/"`), or as a constant of their modules; or if their source cannot be read. What they hold
    and what they name, functions and other classes, counts too; what libraries and the platform itself define does not.

    Args:
        name: The metric.
        objects: What logs: the module and its parts, callbacks.
        texts: Other texts that may be names, such as the arguments of the module.
        by_variable: Whether code that logs by the value of a variable (`log(name, ...)`) may log it.
    """
    logs = list(objects)
    held = [part for each in logs if _is_users(type(each)) for part in getattr(each, "__dict__", {}).values()]
    parts = [*logs, *(part for part in held if _is_users(type(part)))]
    sources = _reached({base for part in parts for base in type(part).__mro__ if _is_own(base.__module__)})
    if any(_fits(name, text) for one in sources for text in _texts_of(one)) or any(_fits(name, text) for text in texts):
        return True
    return by_variable and any(_logs_by_variable(one) for one in sources)


def _reached(classes: Iterable[_Source]) -> set[_Source]:
    """Return classes, and the functions and classes of users that they name, and those name in turn."""
    found: set[_Source] = set()
    left = list(classes)
    while left:
        one = left.pop()
        if one in found:
            continue
        found.add(one)
        known = getattr(sys.modules.get(one.__module__), "__dict__", {})
        for node in (node for part in _parsed(one)[1] for node in ast.walk(part)):
            named: Any = None
            if isinstance(node, ast.Name):
                named = known.get(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                place = known.get(node.value.id)
                named = getattr(place, node.attr, None) if inspect.ismodule(place) else None
            named = inspect.unwrap(named) if inspect.isfunction(named) else named
            if isinstance(named, type | FunctionType) and _is_users(named):
                left.append(named)
    return found


def _is_own(module: str) -> bool:
    return module.partition(".")[0] not in {*_OTHERS, *sys.stdlib_module_names}


def _is_users(one: _Source) -> bool:
    """Tell whether a source is the user's own, and no installed library's."""
    file = getattr(sys.modules.get(one.__module__), "__file__", None) or ""
    return _is_own(str(one.__module__)) and not {"site-packages", "dist-packages"} & {*Path(file).parts}


def _fits(name: str, text: str | re.Pattern[str]) -> bool:
    if isinstance(text, re.Pattern):
        return text.fullmatch(name) is not None
    if text == name:
        return True
    is_start = len(text) > 1 and text[-1] in _JOINTS and name.startswith(text)
    is_end = len(text) > 1 and text[0] in _JOINTS and name.endswith(text)
    return is_start or is_end


def _texts_of(one: _Source) -> Iterator[str | re.Pattern[str]]:
    """Yield the texts of a source, and the constants of its module; what fits everything if there is none to read."""
    tree, own = _parsed(one)
    if tree is None:
        yield re.compile(".*", re.DOTALL)
        return
    for node in (*own, *(node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign))):
        yield from _texts_in(node)


def _parsed(one: _Source) -> tuple[ast.Module | None, list[ast.AST]]:
    """Return the source of the module of a class or a function, None if it cannot be read, and the part that it is."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[one.__module__]))
    except (KeyError, OSError, TypeError, SyntaxError, ValueError):
        return None, []
    own: list[ast.AST] = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == one.__name__
    ]
    return tree, own or [tree]


def _logs_by_variable(one: _Source) -> bool:
    """Tell whether a class calls `log` or `log_dict` with a name that does not stand there."""
    calls = [node for part in _parsed(one)[1] for node in ast.walk(part) if isinstance(node, ast.Call)]
    for call in calls:
        method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        if method == "log" and call.args and not isinstance(call.args[0], ast.Constant | ast.JoinedStr):
            return True
        if method == "log_dict" and call.args and not isinstance(call.args[0], ast.Dict):
            return True
    return False


def _texts_in(tree: ast.AST) -> Iterator[str | re.Pattern[str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            parts = [re.escape(str(part.value)) if isinstance(part, ast.Constant) else ".*" for part in node.values]
            if any(part != ".*" for part in parts):
                yield re.compile(re.sub(r"(\.\*)+", ".*", "".join(parts)), re.DOTALL)
