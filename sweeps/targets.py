"""What `_target_` may name: a list of what may be built, and the look at what a name leads to.

A configuration may come from somebody else. What is on the list is harmless whatever its arguments are, as far as
could be found (docs/security.md); what the user allows on this machine is the user's own to judge.
"""

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from sweeps.core import lightning_alias
from sweeps.core.errors import ConfigError, did_you_mean
from sweeps.core.failure_text import text_of
from sweeps.signatures import whole

__all__ = ["ALLOWED_MODULES", "locate"]

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
        "optuna.pruners._base.BasePruner",
        "optuna.samplers._base.BaseSampler",
        "optuna.samplers.nsgaii._after_trial_strategy.NSGAIIAfterTrialStrategy",
        "optuna.samplers.nsgaii._child_generation_strategy.NSGAIIChildGenerationStrategy",
        "optuna.samplers.nsgaii._crossovers._base.BaseCrossover",
        "optuna.samplers.nsgaii._elite_population_selection_strategy.NSGAIIElitePopulationSelectionStrategy",
        "optuna.samplers.nsgaii._mutations._base.BaseMutation",
        "pytorch_lightning.callbacks.callback.Callback",
        "pytorch_lightning.core.datamodule.LightningDataModule",
        "pytorch_lightning.strategies.strategy.Strategy",
        "torch.nn.modules.module.Module",
        "torch.optim.lr_scheduler.LRScheduler",
        "torch.optim.optimizer.Optimizer",
    }
)
"""What is meant to be built is a class below one of these: metrics, systems and losses are torch modules, too.

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
    bases = (
        {f"{base.__module__}.{base.__qualname__}" for base in inspect.getmro(found)}
        if inspect.isclass(found)
        else set()
    )
    is_factory = inspect.isfunction(found) and _is_of(home, _FACTORIES)
    is_private = any(part.startswith("_") for part in (target.rpartition(".")[2], *found.__qualname__.split(".")))
    if is_private or (not is_factory and not bases & _BASES):
        kind = "class" if inspect.isclass(found) else "function"
        raise ConfigError(
            f"{key}._target_: {target!r} is a {kind} that is not meant to be built: it is private, or no module, "
            f"metric, data module, optimizer, scheduler, callback, strategy, sampler or pruner. {way_out}"
        )
