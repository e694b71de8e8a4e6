"""How devices are shared out."""

from pathlib import Path
from typing import Any

import pytest

from sweeps.core.errors import ConfigError
from sweeps.launchers.slots import plan_slots, visible_gpus


def plan(**more: Any) -> list[Any]:
    usual = {"slots": None, "devices": 1, "trials_per_device": 1, "threads": None, "accelerator": "auto", "cores": 8}
    return plan_slots(**{**usual, "gpus": [], **more})


def test_without_gpus_each_core_is_a_slot() -> None:
    assert [slot.threads for slot in plan(cores=4)] == [1, 1, 1, 1]


def test_fewer_slots_share_the_cores() -> None:
    assert [slot.threads for slot in plan(slots=3)] == [2, 2, 2]


def test_each_gpu_is_a_slot_that_sees_only_that_gpu() -> None:
    slots = plan(gpus=["2", "5"])
    assert [slot.environment for slot in slots] == [
        (("CUDA_VISIBLE_DEVICES", "2"),),
        (("CUDA_VISIBLE_DEVICES", "5"),),
    ]
    assert [slot.threads for slot in slots] == [4, 4]


def test_more_slots_than_gpus_share_them() -> None:
    assert [slot.gpus for slot in plan(gpus=["0", "1"], slots=4)] == [("0",), ("1",), ("0",), ("1",)]


def test_a_cpu_trainer_leaves_the_gpus_alone() -> None:
    assert {slot.gpus for slot in plan(gpus=["0"], accelerator="cpu")} == {()}


def test_eight_gpus_make_four_slots_of_two() -> None:
    slots = plan(gpus=list("01234567"), devices=2, cores=16)
    assert [slot.gpus for slot in slots] == [("0", "1"), ("2", "3"), ("4", "5"), ("6", "7")]
    assert slots[1].environment == (("CUDA_VISIBLE_DEVICES", "2,3"),)
    assert {(slot.devices, slot.threads) for slot in slots} == {(2, 2)}


def test_gpus_that_are_left_over_are_leased_to_nobody() -> None:
    assert [slot.gpus for slot in plan(gpus=["0", "1", "2"], devices=2)] == [("0", "1")]


def test_trials_that_share_a_device_are_spread_over_all() -> None:
    slots = plan(gpus=["0", "1"], trials_per_device=2)
    assert [slot.gpus for slot in slots] == [("0",), ("1",), ("0",), ("1",)]
    assert {slot.threads for slot in slots} == {2}


def test_ranks_on_the_cpu_take_a_core_each() -> None:
    slots = plan(devices=3, accelerator="cpu", cores=8)
    assert [(slot.devices, slot.threads) for slot in slots] == [(3, 1), (3, 1)]


def test_more_ranks_than_cores_still_run() -> None:
    assert [(slot.devices, slot.threads) for slot in plan(devices=8, cores=2)] == [(8, 1)]


def test_more_gpus_than_there_are_is_told_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"trainer.devices=4 needs as many GPUs, but 2 can be seen \(0, 3\)"):
        plan(gpus=["0", "3"], devices=4)


@pytest.mark.parametrize("key", ["launcher.slots", "launcher.threads", "launcher.trials_per_device", "trainer.devices"])
def test_nothing_is_not_a_share(key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key} must be at least 1, but got 0"):
        plan(**{key.partition(".")[2]: 0})


def test_visible_gpus_respects_what_the_user_set(tmp_path: Path) -> None:
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / name).mkdir()
    assert visible_gpus({}, tmp_path) == ["0", "1"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "1, 3"}, tmp_path) == ["1", "3"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}, tmp_path) == []
    assert visible_gpus({}, tmp_path / "none") == []
