"""Check the arguments of a configuration against the signature of what it builds."""

import functools
import inspect
import os
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from sweeps.core.errors import ConfigError, did_you_mean

__all__ = ["check_arguments", "whole"]


def check_arguments(target: Callable[..., Any], arguments: Mapping[str, Any], *, key: str, is_partial: bool) -> None:
    """Refuse an argument that `target` does not take, one of the wrong type, and one that is missing.

    Types are checked as far as annotations of plain types, `Literal`, unions and sequences tell; what a foreign
    annotation means is left to the target.

    Raises:
        ConfigError: Names the dotted key, the value and the valid names or type.
    """
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):  # some C functions tell no signature
        return
    parameters = signature.parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    hints = _hints(target)
    name_of_target = getattr(whole(target), "__qualname__", str(target))
    for name, value in arguments.items():
        if name not in parameters:
            if takes_any:
                continue
            raise ConfigError(
                f"{key}.{name}: {name_of_target} takes no such argument. {did_you_mean(name, parameters)}"
            )
        is_default = value is None and parameters[name].default is None  # `size: int = None`, as many write it
        if name in hints and not is_default and not _fits(value, hints[name]):
            quoting = ""
            if isinstance(value, int | float) and _fits("text", hints[name]):
                quoting = f""" Text that looks like a number is quoted twice: {key}.{name}="'TEXT'"."""
            raise ConfigError(f"{key}.{name} must be {_words(hints[name])}, but got {value!r}.{quoting}")
    if is_partial:
        return
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is inspect.Parameter.empty
        and parameter.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        and name not in arguments
    ]
    if missing:
        raise ConfigError(f"{key}: {name_of_target} needs {', '.join(f'{key}.{name}' for name in missing)}.")


def whole(target: Any) -> Any:
    """Return what a `functools.partial` is a part of."""
    while isinstance(target, functools.partial):
        target = target.func
    return target


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    target = whole(target)
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return get_type_hints(function)
    except Exception:  # a forward reference that cannot be resolved says nothing about our values
        return {}


def _fits(value: Any, hint: Any) -> bool:
    """Tell whether a value of plain data may be given for `hint`; what cannot be told fits."""
    if not _is_plain(value):
        return True
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return any(value == arg and type(value) is type(arg) for arg in args)
    if origin in (Union, types.UnionType):
        # A foreign class beside plain types (`float | Tensor`) is what code passes, not what YAML holds
        plain = [arg for arg in args if not _is_foreign(arg)]
        return any(_fits(value, arg) for arg in plain or args)
    if hint is None or hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, str)
    if origin in (list, tuple) or (inspect.isclass(origin) and issubclass(origin, Sequence)):
        return isinstance(value, list) and (not args or origin is tuple or all(_fits(item, args[0]) for item in value))
    if origin is dict or (inspect.isclass(origin) and issubclass(origin, Mapping)):
        return isinstance(value, dict)
    return True


def _is_foreign(hint: Any) -> bool:
    return inspect.isclass(hint) and hint.__module__ != "builtins" and not issubclass(hint, os.PathLike)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str, list, dict))


def _words(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(repr(arg) for arg in args)
    if origin in (Union, types.UnionType):
        meant = [arg for arg in args if not _is_foreign(arg)]
        return " or ".join(_words(arg) for arg in meant or args)
    plain: dict[Any, str] = {
        bool: "true or false",
        int: "an integer",
        float: "a number",
        str: "a string",
        type(None): "null",
    }
    if hint in plain:
        return plain[hint]
    if origin in (list, tuple) or (inspect.isclass(origin) and issubclass(origin, Sequence)):
        return f"a list of {_words(args[0])}" if args else "a list"
    return str(getattr(hint, "__name__", hint))
