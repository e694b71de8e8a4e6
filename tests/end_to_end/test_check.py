"""`lightsweep check` at the real command, and the same check before a sweep and before ranks start."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import warm

Command = Callable[..., "subprocess.CompletedProcess[str]"]

NETS = """
import torch


class Deep(torch.nn.Module):
    def __init__(self, num_classes: int, depth: int = 1, idle: float = 0.0):
        super().__init__()
        self.layer = torch.nn.Linear(64, num_classes)
        self.spare = torch.nn.Linear(2, 2)
        self.depth = depth

    def forward(self, x):
        if self.depth == 4:
            raise RuntimeError("four is too deep")
        return self.layer(x.flatten(1))
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    (folder / "model").mkdir(parents=True)
    (folder / "nets.py").write_text(NETS)
    (folder / "model" / "deep.yaml").write_text(
        "_target_: nets.Deep\nnum_classes: ${data.num_classes}\ndepth: 1\nidle: 0.0\n"
    )
    return folder


OWN = ("--config-dir", "mine", "model=deep", "trainer.accelerator=cpu")


def test_check_names_what_is_dead_and_leaves_nothing(lightsweep: Command, mine: Path, tmp_path: Path) -> None:
    searched = ("optimizer.lr=0.1,0.2", "model.idle=interval(0,1)", "+my_key=1,2")
    done = lightsweep("check", *OWN, *searched, "--format", "json")
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert (report["corners"], report["run"]) == (4, 4)
    assert (report["unread"], report["idle"]) == (["my_key"], ["model.idle"])
    assert report["unused"] == [{"parameters": ["net.spare.weight", "net.spare.bias"], "params": None}]
    assert report["memory"]["parameters"] >= 4 * report["largest"]["num_parameters"]
    assert not (tmp_path / "mlruns").exists()


def test_check_blames_the_corner_that_fails(
    lightsweep: Command, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # the logs stay
    done = lightsweep("check", *OWN, "model.depth=range(1,5)", "optimizer.lr=0.1,0.2")
    assert done.returncode == 1
    assert done.stderr.startswith("lightsweep: model.depth=4: RuntimeError: four is too deep\n")
    assert "Traceback" in Path(done.stderr.rpartition(" ")[2].strip(" )\n")).read_text()
    assert not (tmp_path / "mlruns").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("optimizer.lrr=interval(0.1,1)",), "There is no key 'optimizer.lrr'. Did you mean 'optimizer.lr'"),
        (("modle=mlp",), "There is no key 'modle'. Did you mean 'model'"),
        (("search=none",), "search space is empty"),
        (("study.num_trials=0",), "study.num_trials must be at least 1"),
        (("trainer.devices=choice(1,2)",), "trainer.devices cannot be searched"),
        (("--config-name", "train", "model.depth=range(1,3)"), "model.depth=range(1,3)"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_check_refuses_what_a_sweep_refuses(
    lightsweep: Command, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = lightsweep("check", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert not (tmp_path / "mlruns").exists()


@pytest.mark.ddp
def test_two_ranks_are_refused_parameters_that_plain_ddp_would_stumble_over(lightsweep: Command, mine: Path) -> None:
    searched = (*OWN, "trainer=ddp_cpu", "optimizer.lr=0.1,0.2", "study.num_trials=1", "trainer.max_epochs=1")
    refused = lightsweep("check", *searched)
    assert refused.returncode == 2
    assert "net.spare.weight, net.spare.bias got none" in refused.stderr
    assert "trainer.strategy=ddp_find_unused_parameters_true" in refused.stderr

    followed = lightsweep("sweep", *searched, "trainer.strategy=ddp_find_unused_parameters_true")
    assert followed.returncode == 0, followed.stderr
    lines = followed.stdout.splitlines()
    assert lines[0].startswith("warning: net.spare.weight, net.spare.bias got no gradient")
    assert lines[1].startswith("study digits-deep-1: 1 trials")


def test_an_interrupted_check_leaves_nothing(tmp_path: Path) -> None:
    process = warm.Popen(
        [sys.executable, "-m", "sweeps", "sweep", "trainer.accelerator=cpu"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell lets its background jobs ignore Ctrl-C, and what they start inherits that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("mlruns/check-*/config.yaml")):
        assert time.monotonic() < deadline and process.poll() is None
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 130, output
    assert not list((tmp_path / "mlruns").glob("check-*"))
    assert "Traceback" not in output
