"""A trial that was cut off and goes on in its folder ends as one that was not: the same bits, each point once."""

from typing import Any

import pytest
import torch

from sweeps.core import paths
from sweeps.core.messages import Artifact, Finished, Metrics, Report, Saved, Started
from sweeps.reproduce.trace import read_trace

SCHEDULERS = ["none", "cosine", "step", "plateau", "one_cycle"]
CALLBACK = "pytorch_lightning.callbacks."
RESTARTS = {"_target_": "torch.optim.lr_scheduler.CosineAnnealingWarmRestarts", "_partial_": True, "T_0": 3}
LOOSE = {"_target_": "mischief.Loose"}
PARTS: dict[str, dict[str, Any]] = {
    "a loader of the user's": {"data": LOOSE},
    "its workers": {"data": LOOSE | {"num_workers": 2}},
    "averaged weights": {"callbacks": {"swa": {"_target_": f"{CALLBACK}StochasticWeightAveraging", "swa_lrs": 0.01}}},
    "moving averages": {"callbacks": {"ema": {"_target_": f"{CALLBACK}EMAWeightAveraging", "decay": 0.9}}},
    "warm restarts": {"scheduler": RESTARTS},
}
EVERY_EPOCH = {"tracking__resume_overhead": 1e9, "trainer__max_epochs": 8, "seed": 5}


def weights(events: list[Any]) -> dict[str, torch.Tensor]:
    path = next(event.path for event in events if isinstance(event, Artifact))
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=False)["state_dict"]
    return state


def points(events: list[Any]) -> dict[tuple[str, int], float]:
    return {(p.key, p.step): p.value for event in events if isinstance(event, Metrics) for p in event.points}


def final_message(events: list[Any]) -> Any:
    return next(event for event in events if isinstance(event, Finished))


def cut_off(bench: Any, number: int, **how: Any) -> list[Any]:
    """Run a trial, kill it after its fifth report, and run it again."""
    bench.start(number, **how)
    heard = bench.events(number, until=lambda event: isinstance(event, Report) and event.step == 4)
    bench.launcher.kill(number)
    heard += bench.events(number)
    step = [event.step for event in heard if isinstance(event, Saved)][-1]
    bench.start(number, job={"resume_step": step}, **how)
    again: list[Any] = bench.events(number)
    assert {key: points(heard)[key] for key in points(heard).keys() & points(again).keys()} == {
        key: points(again)[key] for key in points(heard).keys() & points(again).keys()
    }
    return again


@pytest.mark.parametrize(
    ("ranks", "scheduler"),
    [*((1, scheduler) for scheduler in SCHEDULERS), pytest.param(2, "cosine", marks=pytest.mark.ddp)],
)
def test_a_killed_trial_goes_on_to_the_same_bits(bench: Any, ranks: int, scheduler: str) -> None:
    how: dict[str, Any] = {"ranks": ranks, "what": "drop", "scheduler": scheduler, **EVERY_EPOCH}
    require_the_same_bits(bench, 60 + SCHEDULERS.index(scheduler) + 10 * ranks, how)


@pytest.mark.parametrize("part", PARTS)
def test_a_killed_trial_of_a_users_own_parts_goes_on_to_the_same_bits(bench: Any, part: str) -> None:
    how = {"what": "drop", "parts": PARTS[part], **EVERY_EPOCH}
    require_the_same_bits(bench, 400 + list(PARTS).index(part), how)


def require_the_same_bits(bench: Any, number: int, how: dict[str, Any]) -> None:
    bench.start(number, **how)
    whole = bench.events(number)
    rest = cut_off(bench, number + 100, **how)
    assert final_message(rest).metrics == final_message(whole).metrics
    assert final_message(rest).value == final_message(whole).value
    for key, tensor in weights(whole).items():
        assert torch.equal(weights(rest)[key], tensor), key
    # it went on, and did not begin anew
    assert min(step for key, step in points(rest) if key == "train/loss_step") > 0
    assert [event.step for event in rest if isinstance(event, Report)][-1] == 7
    assert any(isinstance(event, Started) for event in rest)
    assert all(points(whole)[key] == value for key, value in points(rest).items())
    # the trace says so of every epoch, and that it went on
    traces = [read_trace(bench.folder / str(name) / paths.TRACE) for name in (number, number + 100)]
    assert traces[0].epochs == traces[1].epochs
    assert [epoch.epoch for epoch in traces[0].epochs] == list(range(8))
    assert [len(trace.segments) for trace in traces] == [1, 2]
    assert traces[1].segments[1].weights == traces[0].epochs[traces[1].segments[1].begins - 1].weights


def test_a_short_trial_pays_nothing(bench: Any) -> None:
    bench.start(59, trainer__max_epochs=3)
    bench.events(59)
    assert not list((bench.folder / "59").glob("resume-*"))
