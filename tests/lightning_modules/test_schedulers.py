from functools import partial
from math import cos, inf, pi

import pytest
import torch
from torch.optim import SGD, Adagrad
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
)

from lightning_modules import schedulers

LR = 0.1


def optimizer():
    return SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)


def curve(scheduler, intervals, **facts):
    """Give the rates of `intervals` intervals of a training of 20 steps in 5 epochs."""
    schedule = schedulers.attach(scheduler, own := optimizer(), **({"total_steps": 20, "max_epochs": 5} | facts))[
        "scheduler"
    ]
    rates = []
    for _ in range(intervals):
        rates.append(own.param_groups[0]["lr"])
        own.step()
        schedule.step()
    return rates


@pytest.mark.parametrize(
    ("ours", "torchs"),
    [
        (partial(schedulers.step, step_size=3, gamma=0.5), partial(StepLR, step_size=3, gamma=0.5)),
        (partial(schedulers.exponential, gamma=0.8), partial(ExponentialLR, gamma=0.8)),
        (schedulers.cosine, partial(CosineAnnealingLR, T_max=20)),
        (partial(schedulers.cosine, min_factor=0.2), partial(CosineAnnealingLR, T_max=20, eta_min=0.02)),
        (schedulers.one_cycle, partial(OneCycleLR, max_lr=LR, total_steps=20, cycle_momentum=False)),
    ],
)
def test_rates_are_those_of_torchs_schedulers(ours, torchs):
    assert curve(ours, 20) == pytest.approx(curve(torchs, 20), abs=1e-12)


def test_warm_up_rises_linearly_to_the_optimizers_rate_and_stays():
    rates = curve(partial(schedulers.warmup, warmup_steps=4), 6)
    assert rates == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


def test_warm_up_before_a_schedule_by_epochs_keeps_the_epochs():
    rates = curve(partial(schedulers.step, step_size=1, gamma=0.5, warmup_steps=2), 9)
    assert rates == pytest.approx([0.05, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05, 0.025])


def test_cosine_falls_after_its_warm_up():
    rates = curve(partial(schedulers.cosine, warmup_steps=10), 20)
    assert rates[9] == rates[10] == pytest.approx(LR)
    assert rates[15] == pytest.approx(LR * (1 + cos(pi * 0.5)) / 2)


def test_plateau_lowers_the_rate_after_more_than_patience_epochs_without_improvement():
    attached = schedulers.attach(
        partial(schedulers.plateau, patience=1, factor=0.5), own := optimizer(), total_steps=20, max_epochs=5
    )
    for loss in (1.0, 1.0, 1.0):
        attached["scheduler"].step(loss)
    assert attached["monitor"] == "val/loss"
    assert own.param_groups[0]["lr"] == LR / 2


@pytest.mark.parametrize(
    ("scheduler", "interval"),
    [
        (schedulers.step, "epoch"),
        (partial(schedulers.step, interval="step"), "step"),
        (partial(schedulers.exponential, warmup_steps=1), "step"),
        (schedulers.cosine, "step"),
        (schedulers.one_cycle, "step"),
        (schedulers.plateau, "epoch"),
        (partial(StepLR, step_size=3), "epoch"),
        (partial(OneCycleLR, max_lr=LR), "step"),
        (ReduceLROnPlateau, "epoch"),
    ],
)
def test_each_schedule_advances_at_its_own_interval(scheduler, interval):
    attached = schedulers.attach(scheduler, optimizer(), total_steps=20, max_epochs=5)
    assert attached["interval"] == interval


def test_torchs_plateau_watches_the_validation_loss():
    attached = schedulers.attach(ReduceLROnPlateau, optimizer(), total_steps=20, max_epochs=5)
    assert attached["monitor"] == "val/loss"


@pytest.mark.parametrize("scheduler", [schedulers.cosine, schedulers.one_cycle])
def test_a_schedule_that_needs_an_end_says_so(scheduler):
    with pytest.raises(ValueError, match=r"trainer\.max_epochs or trainer\.max_steps"):
        curve(scheduler, 1, total_steps=inf, max_epochs=-1)


@pytest.mark.parametrize(
    ("scheduler", "key"),
    [
        (partial(schedulers.step, step_size=0), "scheduler.step_size"),
        (partial(schedulers.cosine, warmup_steps=20), "scheduler.warmup_steps"),
        (partial(schedulers.warmup, warmup_steps=-1), "scheduler.warmup_steps"),
    ],
)
def test_impossible_numbers_are_refused_by_their_dotted_key(scheduler, key):
    with pytest.raises(ValueError, match=key):
        curve(scheduler, 1)


def test_one_cycle_works_with_an_optimizer_without_momentum():
    own = Adagrad([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    schedulers.attach(schedulers.one_cycle, own, total_steps=20, max_epochs=5)
