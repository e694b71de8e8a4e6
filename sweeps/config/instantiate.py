"""Resolve `_target_`s safely: an allow-list of names, a check of the object found, and a check of its arguments.

A configuration may come from somebody else. The targets on the list are harmless whatever their arguments, as far as
could be found out (docs/security.md); the user decides what else is allowed on this machine.
"""

import functools
import inspect
import os
import re
import types
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from sweeps.core import lightning_alias
from sweeps.core.errors import ConfigError, did_you_mean
from sweeps.core.failure_text import text_of

__all__ = ["ALLOWED_MODULES", "build", "check_arguments", "locate", "whole"]

ALLOWED_MODULES = (
    "lightning_modules",
    "pytorch_lightning.callbacks",
    "pytorch_lightning.strategies",
    "torch.nn",
    "torch.optim",
    "torchmetrics",
)
"""The modules that `_target_` may name; the user adds to them by `allowed_modules` or --config-dir."""

_LIBRARIES = (*ALLOWED_MODULES, "optuna.pruners", "optuna.samplers")
"""Modules of which only what is meant to be built may be: the others on a list are of the user's choice."""

_BASES = frozenset(
    {
        "lightning_modules.data.augmentation.Augmentation",
        "optuna.pruners.BasePruner",
        "optuna.samplers.BaseSampler",
        "optuna.samplers.nsgaii.NSGAIIAfterTrialStrategy",
        "optuna.samplers.nsgaii.NSGAIIChildGenerationStrategy",
        "optuna.samplers.nsgaii.BaseCrossover",
        "optuna.samplers.nsgaii.NSGAIIElitePopulationSelectionStrategy",
        "optuna.samplers.nsgaii.BaseMutation",
        "pytorch_lightning.callbacks.callback.Callback",
        "pytorch_lightning.core.datamodule.LightningDataModule",
        "pytorch_lightning.strategies.strategy.Strategy",
        "torch.nn.modules.module.Module",
        "torch.optim.lr_scheduler.LRScheduler",
        "torch.optim.optimizer.Optimizer",
    }
)
"""What is meant to be built is a class below one of these: metrics, systems and losses are torch modules as well.

Private modules are left out of the names: `optuna.samplers._base.BaseSampler` is `optuna.samplers.BaseSampler`.

The same libraries have thousands of functions, among them some that import, download or write what they are told."""

_FACTORIES = ("lightning_modules.schedulers",)
"""Modules of functions that are meant to be built."""

_CHECKPOINT_LOADER = "pytorch_lightning.core.module.LightningModule.load_from_checkpoint"

_LOADING = (
    "torchmetrics.audio.dnsmos",
    "torchmetrics.audio.nisqa",
    "torchmetrics.functional",
    "torchmetrics.image.arniqa",
    "torchmetrics.image.dists",
    "torchmetrics.image.fid",
    "torchmetrics.image.inception",
    "torchmetrics.image.kid",
    "torchmetrics.image.lpip",
    "torchmetrics.image.mifid",
    "torchmetrics.image.perceptual_path_length",
    "torchmetrics.multimodal",
    "torchmetrics.text.bert",
    "torchmetrics.text.infolm",
)
"""Modules of classes that load a model from a file, or from the network, which their arguments name.

Below `functional` are the nets of such metrics; what else is there are functions, which are not built."""


def locate(target: Any, *, key: str, allowed: Sequence[str]) -> Callable[..., Any]:
    """Import the class or function that `target` names, if it may be built.

    The name is checked before anything is imported. What it leads to is checked by the module that it was defined in:
    `torch.nn.X` that is an alias of `os.system` passes the first look and not the second. Of the libraries, it must be
    of a kind that is meant to be built. A class method of the user's own class is named `module.Class.method`. Names
    that begin with `lightning.` are those of the Lightning that is installed, see `lightning_alias`.

    Args:
        target: What `_target_` says.
        key: The dotted key of the node that says it, for messages.
        allowed: The modules that it may come from.

    Raises:
        ConfigError: It may not be built, or there is no such thing.
    """
    if not isinstance(target, str) or "." not in target:
        raise ConfigError(f"{key}._target_ must be a dotted name such as 'torch.optim.SGD', but got {target!r}.")
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", target, re.ASCII):
        raise ConfigError(f"{key}._target_: {target!r} is not the name of a class or function.")
    lightning_alias.install()
    name = lightning_alias.real_name(target)
    _require_allowed(name, key=key, target=target, allowed=allowed)
    owner, found = _imported(name, key, target, allowed)
    if inspect.ismodule(found) or not callable(found):
        raise ConfigError(f"{key}._target_: {target!r} is a {type(found).__name__}, not a class or function.")
    home = _home(found)
    if home == _CHECKPOINT_LOADER and _is_of(_home(owner), _own(allowed)):
        return _loading_weights_alone(owner, found)
    if home != name:
        _require_allowed(home, key=key, target=target, allowed=allowed)
    _require_buildable(found, home, key=key, target=target, allowed=allowed)
    located: Callable[..., Any] = found
    return located


def _imported(name: str, key: str, target: str, allowed: Sequence[str]) -> tuple[Any, Any]:
    """Return what a dotted name leads to, and the module or class that has it."""
    owner_name, _, last = name.rpartition(".")
    owner: Any
    try:
        owner = import_module(owner_name)
    except ImportError as error:
        owner = _class_named(owner_name, error) if _is_of(owner_name, _own(allowed)) else None
        if owner is None:
            raise ConfigError(f"{key}._target_: cannot import {target!r}: {text_of(error)}.") from error
    try:
        return owner, getattr(owner, last)
    except AttributeError as error:
        names = [name for name in dir(owner) if not name.startswith("_")]
        raise ConfigError(
            f"{key}._target_: there is no {last!r} in {target.rpartition('.')[0]}. {did_you_mean(last, names)}"
        ) from error


def _class_named(name: str, error: ImportError) -> Any:
    """Return the class of that name, which was not found as a module; None if it is not one either."""
    module_name, _, last = name.rpartition(".")
    if not module_name or not isinstance(error, ModuleNotFoundError) or error.name != name:
        return None
    try:
        found = getattr(import_module(module_name), last, None)
    except ImportError:
        return None
    return found if inspect.isclass(found) else None


def _home(found: Any) -> str:
    """Return the dotted name under which something was defined; of a `functools.partial`, the function in it."""
    found = whole(found)
    return f"{getattr(found, '__module__', None) or ''}.{getattr(found, '__qualname__', '')}"


def _own(allowed: Sequence[str]) -> list[str]:
    return [module for module in allowed if module not in _LIBRARIES]


def _loading_weights_alone(owner: Any, load: Callable[..., Any]) -> Callable[..., Any]:
    """Return Lightning's `load_from_checkpoint` of a class, which reads weights and plain data, and runs nothing."""

    @functools.wraps(load)
    def loaded(*arguments: Any, **more: Any) -> Any:
        if more.get("weights_only") not in (None, True):
            raise ValueError(
                "weights_only must be true: other checkpoints may run code. To load one that you trust, write a "
                "function in your module that does so, and name it"
            )
        return load(*arguments, **{**more, "weights_only": True})

    parameters = list(inspect.signature(load).parameters.values())
    loaded.__signature__ = inspect.Signature([one for one in parameters if one.name != "cls"])  # type: ignore[attr-defined]
    loaded.builds = owner  # type: ignore[attr-defined]
    return loaded


def _is_of(name: str, modules: Sequence[str]) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)


def _require_allowed(name: str, *, key: str, target: str, allowed: Sequence[str]) -> None:
    if not _is_of(name, allowed):
        module, _, last = target.rpartition(".")
        near = get_close_matches(module, allowed, n=1, cutoff=0.8)
        way_out = f"If you trust it, add allowed_modules=[{target.partition('.')[0]}]."
        if near and near[0] != module:
            way_out = f"Did you mean '{near[0]}.{last}'?"
        elif name != target:
            way_out = f"It leads to {name.strip('.') or 'something that has no module'}."
        raise ConfigError(f"{key}._target_: {target!r} is not of an allowed module ({', '.join(allowed)}). {way_out}")


def _without_private_modules(found: type) -> str:
    return ".".join([*(part for part in found.__module__.split(".") if part[:1] != "_"), found.__qualname__])


def _require_buildable(found: Any, home: str, *, key: str, target: str, allowed: Sequence[str]) -> None:
    """Refuse what has been found if it is none of the things that are built; see `_BASES`."""
    found = whole(found)
    if not inspect.isclass(found) and not inspect.isroutine(found):
        raise ConfigError(f"{key}._target_: {target!r} is a {type(found).__name__}, not a class or function.")
    if _is_of(home, _own(allowed)):
        return
    module = home.rpartition(".")[0]
    way_out = f"If you trust it, add allowed_modules=[{module}]."
    if _is_of(home, _LOADING):
        raise ConfigError(
            f"{key}._target_: {target!r} loads a model that its arguments name, from a file or the network. {way_out}"
        )
    bases = {_without_private_modules(base) for base in inspect.getmro(found)} if inspect.isclass(found) else set()
    is_factory = inspect.isfunction(found) and _is_of(home, _FACTORIES)
    is_private = any(part.startswith("_") for part in (target.rpartition(".")[2], *found.__qualname__.split(".")))
    if is_private or (not is_factory and not bases & _BASES):
        kind = "class" if inspect.isclass(found) else "function"
        raise ConfigError(
            f"{key}._target_: {target!r} is a {kind} that is not meant to be built: it is private, or no module, "
            f"metric, data module, optimizer, scheduler, callback, strategy, sampler or pruner. {way_out}"
        )


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


_HYDRA_WORDS = ("_target_", "_partial_", "_convert_")  # `_convert_` has nothing to do: the data is plain


def build(node: Mapping[str, Any], *, key: str, allowed: Sequence[str], **more: Any) -> Any:
    """Build the object that `node` describes by `_target_` and keyword arguments, nested ones first.

    Args:
        node: A mapping with `_target_`; `_partial_: true` returns a function that waits for the rest.
        key: The dotted key of `node`, for messages.
        allowed: The modules that a target may come from, checked before and after it is imported.
        more: Arguments that do not come from the configuration.

    Raises:
        ConfigError: A target is not allowed or does not exist; an argument is unknown, missing or mistyped.
    """
    target = locate(node.get("_target_"), key=key, allowed=allowed)
    arguments = {
        name: _build_nested(value, key=f"{key}.{name}", allowed=allowed)
        for name, value in node.items()
        if name not in _HYDRA_WORDS
    }
    is_partial = bool(node.get("_partial_", False))
    check_arguments(target, {**arguments, **more}, key=key, is_partial=is_partial)
    if is_partial:
        return functools.partial(target, **arguments, **more)
    try:
        return target(**arguments, **more)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key}: {node['_target_']} refuses its arguments: {error}") from error


def _build_nested(value: Any, *, key: str, allowed: Sequence[str]) -> Any:
    if isinstance(value, Mapping):
        if "_target_" in value:
            return build(dict(value), key=key, allowed=allowed)
        return {name: _build_nested(item, key=f"{key}.{name}", allowed=allowed) for name, item in value.items()}
    if isinstance(value, list):
        return [_build_nested(item, key=f"{key}.{index}", allowed=allowed) for index, item in enumerate(value)]
    return value
