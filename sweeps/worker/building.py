"""Build the parts of a run: the LightningModule, its data and its callbacks. Runs in a rank.

Objects are used as they are built: a LightningModule is never wrapped, and an object that looks like one of Lightning's
classes without being one is rejected.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.__version__ import version
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.compile import from_compiled

from sweeps.config.composer import Config
from sweeps.config.instantiate import build, locate
from sweeps.config.parts import PARTS
from sweeps.core.errors import ConfigError
from sweeps.core.messages import CheckPassed, Inspected, RankJob
from sweeps.worker.channel import Channel
from sweeps.worker.process_group import Ranks

__all__ = ["build_callback", "build_data", "build_module", "inspect_models", "parts_taken"]

_METHODS = ("training_step", "configure_optimizers")  # a net has neither


def build_module(config: Config, *, allowed: Sequence[str]) -> pl.LightningModule:
    """Build the LightningModule: what `model` builds if it is one, else the system around the net.

    A LightningModule of the user's is given `optimizer` and `scheduler` (functions that wait for parameters) if the
    signature of its class, or of the function that builds it, has them.

    Raises:
        ConfigError: A part cannot be built, or is not what it must be; a net has no `system` or no `optimizer`.
    """
    target = _located(config, allowed)
    names = _taken(target)
    parts = {name: _part(config, name, allowed) for name in (PARTS[1:] if names is None else names)}
    model = _model(config, parts if names else {}, allowed)
    if isinstance(model, pl.LightningModule):
        return model
    _require_net(type(getattr(model, "_orig_mod", model)), config)
    kind = type(model).__qualname__
    if config["system"] is None:
        raise ConfigError(
            f"system is null, but model._target_ ({config['model']['_target_']}) builds a {kind}, which is a net: "
            "a system trains it. Choose one, such as system=classifier."
        )
    parts |= {name: _part(config, name, allowed) for name in PARTS[1:] if name not in parts}
    wraps = _signature(locate(config["system"].get("_target_"), key="system", allowed=allowed))
    if parts["optimizer"] is None:
        if "optimizer" in wraps and wraps["optimizer"].default is inspect.Parameter.empty:
            raise ConfigError(
                f"optimizer is null, but the system that trains {kind} needs one. Choose one, such as optimizer=adam."
            )
        del parts["optimizer"]
    module = build(config["system"], key="system", allowed=allowed, net=model, **parts)
    if not isinstance(module, pl.LightningModule):
        raise ConfigError(f"system._target_ must be a LightningModule, but is a {type(module).__name__}.")
    return module


def parts_taken(config: Config, *, allowed: Sequence[str]) -> tuple[str, ...]:
    """Return which of `PARTS` the model of a config takes: all of them if it is a net.

    Of a class the signature tells. What a function builds is seen only when it is called.

    Raises:
        ConfigError: The model cannot be built, or is not what it must be.
    """
    target = _located(config, allowed)
    names = _taken(target)
    if names is None:
        return PARTS
    if not inspect.isclass(target):
        model = _model(config, {name: _part(config, name, allowed) for name in names}, allowed)
        if not isinstance(model, pl.LightningModule):
            _require_net(type(getattr(model, "_orig_mod", model)), config)
            return PARTS
    return tuple(names)


def inspect_models(configs: Sequence[Config], channel: Channel, ranks: Ranks, job: RankJob) -> CheckPassed:
    """Tell which parts the model of each config takes; the arguments are those of `preflight.try_corners`.

    Raises:
        ConfigError: As `parts_taken`.
    """
    parts = tuple(parts_taken(config, allowed=job.allowed_modules) for config in configs)
    channel.send(Inspected(parts=parts))
    return CheckPassed()


def build_data(config: Config, *, allowed: Sequence[str]) -> pl.LightningDataModule | None:
    """Build the data module; None if the module has its own loaders.

    Raises:
        ConfigError: It cannot be built, or is not a LightningDataModule.
    """
    if config["data"] is None:
        return None
    data = build(config["data"], key="data", allowed=allowed)
    if not isinstance(data, pl.LightningDataModule):
        raise _wrong_kind("data", config["data"]["_target_"], type(data), pl.LightningDataModule)
    return data


def build_callback(node: Config, *, key: str, allowed: Sequence[str]) -> Callback:
    """Build a callback; `key` is its dotted key, for messages.

    Raises:
        ConfigError: It cannot be built, or is not a Callback.
    """
    callback = build(node, key=key, allowed=allowed)
    if not isinstance(callback, Callback):
        raise _wrong_kind(key, node["_target_"], type(callback), Callback)
    return callback


def _located(config: Config, allowed: Sequence[str]) -> Callable[..., Any]:
    """Return what `model` names, unless its class tells already that it is refused."""
    model = config["model"]
    if not isinstance(model, dict):
        raise ConfigError(f"model must have a _target_ and its arguments, but got {model!r}.")
    target = locate(model.get("_target_"), key="model", allowed=allowed)
    if inspect.isclass(target) and not issubclass(target, pl.LightningModule):
        _require_net(target, config)
    return target


def _taken(target: Callable[..., Any]) -> list[str] | None:
    """Return which of optimizer and scheduler the target itself takes; None if it is the class of a net."""
    if inspect.isclass(target) and not issubclass(target, pl.LightningModule):
        return None
    names = {*_signature(target), *_signature(getattr(target, "builds", target))}
    return [name for name in PARTS[1:] if name in names]


def _signature(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(target).parameters)
    except (TypeError, ValueError):  # some C functions tell no signature
        return {}


def _part(config: Config, name: str, allowed: Sequence[str]) -> Any:
    return None if config[name] is None else build(config[name], key=name, allowed=allowed)


def _model(config: Config, parts: dict[str, Any], allowed: Sequence[str]) -> Any:
    """Build what `model` names, with the parts that it does not set itself; a compiled LightningModule as one."""
    more = {
        name: part
        for name, part in parts.items()
        if name not in config["model"] and (part is not None or name != "optimizer")
    }
    model = build(config["model"], key="model", allowed=allowed, **more)
    if isinstance(getattr(model, "_orig_mod", None), pl.LightningModule):
        return from_compiled(model)
    return model


def _require_net(kind: type, config: Config) -> None:
    """Refuse a class that would be trained by its own methods if it were a LightningModule."""
    method = next((name for name in _METHODS if hasattr(kind, name)), None)
    if method is None:
        return
    target = config["model"]["_target_"]
    if _namesake(kind, pl.LightningModule):
        raise _wrong_kind("model", target, kind, pl.LightningModule)
    raise ConfigError(
        f"model._target_: {target!r} has {method}, but is not a LightningModule: nothing would call it. Derive "
        f"{kind.__qualname__} from lightning.LightningModule, or, if it is a net that the system is to train, give "
        "that method another name."
    )


def _wrong_kind(key: str, target: str, kind: type, wanted: type) -> ConfigError:
    stranger = _namesake(kind, wanted)
    why = f"It is derived from {stranger}, which is another class. " if stranger else ""
    return ConfigError(
        f"{key}._target_: {target!r} builds a {kind.__qualname__}, which is not a {wanted.__name__} of the Lightning "
        f"that trains here (pytorch_lightning {version}). {why}Derive it from lightning.{wanted.__name__}."
    )


def _namesake(kind: type, wanted: type) -> str:
    """Return the base of a class that has the name of Lightning's, but is another's; empty if there is none."""
    found = (base for base in kind.__mro__ if base.__name__ == wanted.__name__ and base is not wanted)
    return next((f"{base.__module__}.{base.__qualname__}" for base in found), "")
