"""How devices are shared out."""

from pathlib import Path
from typing import Any

import pytest

from sweeps.errors import ConfigError
from sweeps.launchers.slots import plan_slots, visible_gpus


def plan(**more: Any) -> list[Any]:
    return plan_slots(**{"slots": None, "threads": None, "accelerator": "auto", "cores": 8, "gpus": [], **more})


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
    assert [slot.gpu for slot in plan(gpus=["0", "1"], slots=4)] == ["0", "1", "0", "1"]


def test_a_cpu_trainer_leaves_the_gpus_alone() -> None:
    assert {slot.gpu for slot in plan(gpus=["0"], accelerator="cpu")} == {None}


@pytest.mark.parametrize("key", ["slots", "threads"])
def test_nothing_is_not_a_share(key: str) -> None:
    with pytest.raises(ConfigError, match=f"launcher.{key} must be at least 1, but got 0"):
        plan(**{key: 0})


def test_visible_gpus_respects_what_the_user_set(tmp_path: Path) -> None:
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / name).mkdir()
    assert visible_gpus({}, tmp_path) == ["0", "1"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "1, 3"}, tmp_path) == ["1", "3"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}, tmp_path) == []
    assert visible_gpus({}, tmp_path / "none") == []
