"""Learning-rate schedules with flat keys, and a function that converts any schedule to Lightning's form.

A configuration names one of the schedules with `_partial_: true`; `attach` calls it with the optimizer, the
length of the training run (`total_steps`, `max_epochs`) and the configured keys. A schedule here multiplies the
optimizer's own learning rate, so `optimizer.lr` is the peak in all of them. Its value depends only on the number
of steps or epochs done, never on the previous value, so a resumed run follows the same curve.
"""

import inspect
from collections.abc import Callable
from math import ceil, cos, isfinite, pi
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

__all__ = [
    "Interval",
    "Scheduler",
    "attach",
    "cosine",
    "exponential",
    "one_cycle",
    "plateau",
    "step",
    "warmup",
]

Interval = Literal["epoch", "step"]
Scheduler = Callable[..., LRScheduler | dict[str, Any]]
"""A configured schedule: called with an optimizer, and with `total_steps` and `max_epochs` if it takes them."""

_MONITOR = "val/loss"


def attach(scheduler: Scheduler, optimizer: Optimizer, *, total_steps: float, max_epochs: int | None) -> dict[str, Any]:
    """Call `scheduler` and return Lightning's `lr_scheduler` dictionary.

    `scheduler` may be a function of this module, a class of `torch.optim.lr_scheduler`, or any callable that
    returns one of torch's schedulers or Lightning's dictionary. Of torch's classes OneCycleLR and CyclicLR
    advance every step and the others every epoch, as their documentation asks; ReduceLROnPlateau watches
    `val/loss`.
    """
    facts = {"total_steps": total_steps, "max_epochs": max_epochs}
    taken = inspect.signature(scheduler).parameters
    given = getattr(scheduler, "keywords", {})
    built = scheduler(optimizer, **{key: facts[key] for key in facts if key in taken and key not in given})
    if isinstance(built, dict):
        return built
    if isinstance(built, ReduceLROnPlateau):
        return {"scheduler": built, "interval": "epoch", "monitor": _MONITOR}
    return {"scheduler": built, "interval": "step" if isinstance(built, OneCycleLR | CyclicLR) else "epoch"}


def warmup(
    optimizer: Optimizer, *, total_steps: float, max_epochs: int | None, warmup_steps: int = 100
) -> dict[str, Any]:
    """Rise linearly over `warmup_steps` optimizer steps (Goyal et al. 2017), then stay constant."""
    return _multiplied(optimizer, lambda _: 1.0, "step", warmup_steps, total_steps, max_epochs)


def step(
    optimizer: Optimizer,
    *,
    total_steps: float,
    max_epochs: int | None,
    step_size: int = 10,
    gamma: float = 0.1,
    interval: Interval = "epoch",
    warmup_steps: int = 0,
) -> dict[str, Any]:
    """Multiply the rate by `gamma` after every `step_size` epochs, or optimizer steps (`interval`).

    Raises:
        ValueError: `step_size` is below 1.
    """
    if step_size < 1:
        raise ValueError(f"scheduler.step_size must be at least 1, but got {step_size}")
    return _multiplied(
        optimizer, lambda done: gamma ** (done // step_size), interval, warmup_steps, total_steps, max_epochs
    )


def exponential(
    optimizer: Optimizer,
    *,
    total_steps: float,
    max_epochs: int | None,
    gamma: float = 0.9,
    interval: Interval = "epoch",
    warmup_steps: int = 0,
) -> dict[str, Any]:
    """Multiply the rate by `gamma` after every epoch, or optimizer step (`interval`)."""
    return _multiplied(optimizer, lambda done: gamma**done, interval, warmup_steps, total_steps, max_epochs)


def cosine(
    optimizer: Optimizer,
    *,
    total_steps: float,
    max_epochs: int | None,
    min_factor: float = 0.0,
    warmup_steps: int = 0,
) -> dict[str, Any]:
    """Fall along half a cosine, step by step, to `min_factor` of the rate at the end.

    The fall begins when the warm-up ends (Loshchilov & Hutter 2017, without restarts).

    Raises:
        ValueError: the training run has no known end, or the warm-up would outlast it.
    """
    last = _finite("cosine", total_steps)
    if warmup_steps >= last:
        raise ValueError(
            f"scheduler.warmup_steps must be below the number of training steps, which is {last}, "
            f"but got {warmup_steps}"
        )

    def factor(done: int) -> float:
        progress = min(1.0, max(0.0, (done - warmup_steps) / (last - warmup_steps)))
        return min_factor + (1 - min_factor) * (1 + cos(pi * progress)) / 2

    return _multiplied(optimizer, factor, "step", warmup_steps, total_steps, max_epochs)


def one_cycle(
    optimizer: Optimizer,
    *,
    total_steps: float,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    anneal: Literal["cos", "linear"] = "cos",
    cycle_momentum: bool = False,
) -> dict[str, Any]:
    """Rise from lr / `div_factor` to lr over `pct_start` of the training run, then fall (Smith & Topin 2018).

    It falls to lr / (`div_factor` · `final_div_factor`). The peak is the optimizer's own rate. Unlike torch's
    class it does not change momentum by default, since `optimizer.momentum` may be searched.

    Raises:
        ValueError: the training run has no known end, or the optimizer has no momentum to cycle.
    """
    schedule = OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=_finite("one_cycle", total_steps),
        pct_start=pct_start,
        div_factor=div_factor,
        final_div_factor=final_div_factor,
        anneal_strategy=anneal,
        cycle_momentum=cycle_momentum,
    )
    return {"scheduler": schedule, "interval": "step"}


def plateau(
    optimizer: Optimizer,
    *,
    monitor: str = _MONITOR,
    mode: Literal["min", "max"] = "min",
    factor: float = 0.1,
    patience: int = 5,
    threshold: float = 1e-4,
    min_lr: float = 0.0,
) -> dict[str, Any]:
    """Multiply the rate by `factor` when `monitor` has not improved for more than `patience` epochs.

    An improvement is relative and by more than `threshold`, as in torch's ReduceLROnPlateau.
    """
    schedule = ReduceLROnPlateau(
        optimizer, mode=mode, factor=factor, patience=patience, threshold=threshold, min_lr=min_lr
    )
    return {"scheduler": schedule, "interval": "epoch", "monitor": monitor}


def _multiplied(
    optimizer: Optimizer,
    factor: Callable[[int], float],
    interval: Interval,
    warmup_steps: int,
    total_steps: float,
    max_epochs: int | None,
) -> dict[str, Any]:
    """Multiply the rate by `factor(intervals done)`, and by a linear rise in the first `warmup_steps`."""
    if warmup_steps < 0:
        raise ValueError(f"scheduler.warmup_steps must be at least 0, but got {warmup_steps}")
    if warmup_steps == 0:
        return {"scheduler": LambdaLR(optimizer, factor), "interval": interval}
    per_interval = 1 if interval == "step" else _steps_per_epoch(total_steps, max_epochs)

    def warmed_up(done: int) -> float:
        return min(1.0, (done + 1) / warmup_steps) * factor(done // per_interval)

    return {"scheduler": LambdaLR(optimizer, warmed_up), "interval": "step"}


def _steps_per_epoch(total_steps: float, max_epochs: int | None) -> int:
    if max_epochs is None or max_epochs < 1:
        raise ValueError(
            "scheduler.warmup_steps needs trainer.max_epochs to count steps in epochs, but it is not set: "
            "set trainer.max_epochs, or scheduler.interval=step"
        )
    return max(1, ceil(_finite("warm-up", total_steps) / max_epochs))


def _finite(schedule: str, total_steps: float) -> int:
    if not isfinite(total_steps) or total_steps < 1:
        raise ValueError(
            f"the {schedule} schedule must know when training ends, but it has {total_steps} steps: "
            "set trainer.max_epochs or trainer.max_steps"
        )
    return int(total_steps)
