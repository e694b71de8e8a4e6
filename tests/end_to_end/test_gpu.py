"""The same promises on CUDA; every test skips where there is none."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

SWEEP = ("sweep", "study.name=s", "optimizer.lr=tag(log,interval(1e-4,1e-2))", "trainer.max_epochs=3", "seed=1")


def rows(lightsweep: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(lightsweep("compare", "s", "--format", "json").stdout)
    return found


def test_two_trials_share_a_gpu_in_bf16(lightsweep: Any) -> None:
    done = lightsweep(
        *SWEEP,
        "trainer=gpu",
        "study.num_trials=4",
        "launcher.trials_per_device=2",
        "launcher.slots=2",
        "pruner=none",
        timeout_s=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 at once" in done.stdout
    assert [row["state"] for row in rows(lightsweep)] == ["complete"] * 4


def test_a_group_of_one_rank_trains_over_nccl(lightsweep: Any, tmp_path: Path) -> None:
    done = lightsweep(
        *SWEEP, "trainer=ddp", "trainer.accelerator=gpu", "trainer.devices=1", "study.num_trials=2", timeout_s=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(row["metrics"]["val/acc"] > 0.5 for row in rows(lightsweep))


@pytest.mark.parametrize("trainer", ["ddp", "fsdp", "local_sgd"])
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are not two CUDA devices")
def test_two_gpus_train_one_trial(lightsweep: Any, trainer: str) -> None:
    done = lightsweep(*SWEEP, f"trainer={trainer}", "trainer.precision=bf16-mixed", "study.num_trials=2", timeout_s=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "of 2 ranks each" in done.stdout


def test_a_trial_that_runs_out_of_memory_is_told_apart_and_the_next_one_runs(lightsweep: Any, tmp_path: Path) -> None:
    modules = tmp_path / "modules"
    (modules / "model").mkdir(parents=True)
    (modules / "greedy.py").write_text(
        "import torch\n\n\n"
        "class Greedy(torch.nn.Linear):\n"
        "    def __init__(self, gigabytes: int = 0):\n"
        "        super().__init__(64, 10)\n"
        "        self.gigabytes = gigabytes\n\n"
        "    def forward(self, x):\n"
        "        hoard = torch.empty(self.gigabytes << 30, dtype=torch.uint8, device=x.device)\n"
        "        return super().forward(x.flatten(1)) + 0 * hoard.numel()\n"
    )
    (modules / "model" / "greedy.yaml").write_text("_target_: greedy.Greedy\ngigabytes: 0\n")
    overrides = ("--config-dir", "modules", "trainer=gpu", "model=greedy", "sampler=grid", "trainer.max_epochs=1")
    # the check builds 1000 but runs only the first choice
    done = lightsweep("sweep", "study.name=s", *overrides, "model.gigabytes=choice(0,1000,1)", timeout_s=300)
    assert re.search(r"failed .*out of memory", done.stdout), done.stdout + done.stderr
    assert sorted(row["state"] for row in rows(lightsweep)) == ["complete", "complete", "failed"]
