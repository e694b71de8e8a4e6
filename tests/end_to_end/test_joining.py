"""`lightsweep train` under torchrun, by hand and on two hosts: one run, and one end for all ranks."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import warm
from free_ports import free_port

pytestmark = pytest.mark.ddp

_LOOK_S = 0.05  # ranks need the cores that a loop without a pause would take
TRAIN = ("train", "trainer=cpu", "trainer.max_epochs=2", "launcher.threads=1", "seed=3")  # threads change last bits
TROUBLE = '''
import os
import time
from pathlib import Path

import torch


class Trouble(torch.nn.Linear):
    """A linear net of which rank 1 raises in its third step, the first time, while rank 0 does not listen."""

    def __init__(self):
        super().__init__(64, 10)
        self.is_first_time, self.steps = not Path("marker").exists(), 0

    def forward(self, images):
        self.steps += self.training
        if self.training and self.steps == 3 and self.is_first_time:
            if os.environ["RANK"] == "1":
                Path("marker").touch()
                raise ValueError("the third step is bad")
            time.sleep(1000)  # as a GPU would wait for the other rank
        return super().forward(images.flatten(1))
'''


class Group:
    """Processes that were started in a folder, and all that they have started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, command: Sequence[str], **variables: str) -> subprocess.Popen[str]:
        self.processes.append(
            warm.Popen(
                command,
                cwd=self.folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                stdin=subprocess.DEVNULL,
                text=True,
                env={**os.environ, "TERM": "dumb", **variables},
            )
        )
        return self.processes[-1]

    def torchrun(self, *arguments: str) -> subprocess.Popen[str]:
        """Start two ranks as the documentation says."""
        run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
        return self.start([*run, *arguments])

    def rank(self, rank: int, port: int, *arguments: str) -> subprocess.Popen[str]:
        """Start one of two ranks by hand."""
        return self.start(
            [sys.executable, "-m", "sweeps", *arguments],
            RANK=str(rank),
            WORLD_SIZE="2",
            LOCAL_RANK=str(rank),
            LOCAL_WORLD_SIZE="2",
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )

    def left(self) -> list[int]:
        """The processes that work in the folder; what has ended has none."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    folder = (entry / "cwd").readlink()
                except OSError:
                    continue
                if folder == self.folder:
                    found.append(int(entry.name))
        return found

    def is_gone(self, within_s: float = 10) -> bool:
        deadline = time.monotonic() + within_s
        while self.left() and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        return not self.left()

    def until(self, is_so: Callable[[], bool], within_s: float = 90) -> None:
        """Wait until something is so; all processes must go on meanwhile."""
        deadline = time.monotonic() + within_s
        while not is_so():
            assert time.monotonic() < deadline
            for process in self.processes:
                assert process.poll() is None, process.communicate()
            time.sleep(_LOOK_S)


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    started = Group(tmp_path)
    yield started
    for pid in started.left():
        os.kill(pid, signal.SIGKILL)
    for process in started.processes:
        process.communicate()


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def trouble(tmp_path: Path) -> tuple[str, ...]:
    """The arguments that train a net of which a rank fails."""
    (tmp_path / "own" / "model").mkdir(parents=True)
    (tmp_path / "own" / "trouble.py").write_text(TROUBLE)
    (tmp_path / "own" / "model" / "trouble.yaml").write_text("_target_: trouble.Trouble\n")
    return ("train", "--config-dir", "own", *TRAIN[1:], "model=trouble")


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Return a process's status and what it printed on both streams."""
    printed, complained = process.communicate(timeout=300)
    return process.returncode, printed, complained


def runs(folder: Path) -> list[Any]:
    """The runs of a store, oldest first."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("lightsweep")
    found = client.search_runs([experiment.experiment_id], order_by=["start_time"])
    for run in found:
        run.losses = [point.value for point in client.get_metric_history(run.info.run_id, "train/loss_step")]
    return list(found)


def how_it_ended(run: Any) -> tuple[str, str]:
    return run.data.tags["lightsweep.state"], run.data.tags["lightsweep.reason"]


def rank_folders(folder: Path) -> list[Path]:
    """The folders of ranks that record nothing."""
    return list(folder.glob("mlruns/rank*"))


def said(printed: str) -> list[str]:
    """Return what was printed without what differs from run to run: its number, and times."""
    return [
        re.sub(r"\d+(\.\d)? s$", "", line) for line in printed.splitlines() if not re.match("run [0-9a-f]{32}", line)
    ]


@dataclass(frozen=True)
class Launched:
    """The run of two ranks that the launcher starts itself, what was printed, and where its checkpoint is."""

    run: Any
    printed: str
    checkpoint: str


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Launched:
    folder = tmp_path_factory.mktemp("launched")
    command = [sys.executable, "-m", "sweeps", *TRAIN, "trainer.devices=2"]
    done = warm.run(command, cwd=folder, capture_output=True, text=True, check=True)
    (run,) = runs(folder)
    (checkpoint,) = folder.glob("mlruns/train/0000/checkpoints/*.ckpt")
    return Launched(run, done.stdout, str(checkpoint.relative_to(folder)))


def assert_same(run: Any, other: Any) -> None:
    assert run.data.metrics == other.data.metrics
    assert run.losses == other.losses
    assert len(run.losses) > 20


@pytest.mark.slow
def test_ranks_of_torchrun_are_one_run_with_the_very_numbers_of_ranks_of_the_launcher(
    group: Group, launched: Launched
) -> None:
    status, printed, _ = ended(group.torchrun("--standalone", "-m", "sweeps", *TRAIN))
    assert status == 0, printed
    (run,) = runs(group.folder)
    assert run.info.status == "FINISHED"
    assert run.data.params["trainer.devices"] == "2"
    assert run.data.params["trainer.num_nodes"] == "1"
    assert_same(run, launched.run)
    assert said(printed) == said(launched.printed)  # the other rank has printed nothing
    assert rank_folders(group.folder) == []
    assert group.left() == []


@pytest.mark.slow
def test_a_failed_rank_is_the_recorded_cause_though_the_other_is_busy_and_torchrun_starts_both_again(
    group: Group, trouble: tuple[str, ...]
) -> None:
    process = group.torchrun("--standalone", "--max-restarts=1", "-m", "sweeps", *trouble)
    group.until((group.folder / "marker").exists)
    failing = group.left()
    began = time.monotonic()
    group.until(lambda: not set(failing) - {process.pid} & set(group.left()))
    assert time.monotonic() - began < 15
    status, printed, complained = ended(process)
    assert status == 0, complained
    assert "Traceback" not in printed + complained
    first, second = runs(group.folder)
    assert first.info.status == "FAILED"
    assert how_it_ended(first) == ("failed", "rank 1: ValueError: the third step is bad")
    assert second.info.status == "FINISHED"
    assert second.data.tags["lightsweep.state"] == "complete"
    (folder,) = rank_folders(group.folder)
    assert f"The log is in mlruns/{folder.name}." in printed
    assert group.left() == []


@pytest.mark.slow
def test_torchrun_that_is_told_to_end_lets_all_ranks_finish_their_step(group: Group) -> None:
    process = group.torchrun("--standalone", "-m", "sweeps", *TRAIN, "trainer.max_epochs=100000")
    group.until(lambda: bool(list(group.folder.glob("mlruns/train/0000/checkpoints/*.ckpt"))))
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)  # to Ctrl-C it does the same
    status, printed, _ = ended(process)
    assert status != 0
    assert time.monotonic() - began < 15  # less than launcher.grace_s, after which ranks would be killed
    (run,) = runs(group.folder)
    assert how_it_ended(run) == ("interrupted", "interrupt")
    assert printed.count("Interrupted.") == 1
    assert rank_folders(group.folder) == []
    assert group.is_gone()


def test_ranks_with_different_command_lines_fail_alike_and_name_the_key(group: Group, port: int) -> None:
    first = group.rank(0, port, *TRAIN, "optimizer.lr=0.1")
    second = group.rank(1, port, *TRAIN, "optimizer.lr=0.2")
    message = "All ranks must train the same configuration, but rank 1 has optimizer.lr=0.2 (rank 0: 0.1)"
    for status, printed, complained in (ended(first), ended(second)):
        assert status == 1
        assert printed.count(message) == 1
        assert complained == ""
    (run,) = runs(group.folder)
    assert how_it_ended(run)[1].startswith(message)


def test_a_rank_whose_other_never_comes_gives_up_after_the_time_that_is_set(group: Group, port: int) -> None:
    status, printed, complained = ended(group.rank(0, port, *TRAIN, "launcher.join_timeout_s=2"))
    assert status == 1
    assert f"not all 2 ranks had met at 127.0.0.1:{port} within 2 s (launcher.join_timeout_s)" in printed
    assert complained == ""


def test_a_rank_that_is_told_to_stop_while_it_waits_for_the_other_ends_at_once(group: Group, port: int) -> None:
    process = group.rank(0, port, *TRAIN)
    group.until(lambda: (group.folder / "mlruns" / "train" / "0000" / "rank0.log").exists())
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert ended(process)[0] == 130
    assert time.monotonic() - began < 15
    (run,) = runs(group.folder)
    assert how_it_ended(run) == ("interrupted", "interrupt")
    assert group.is_gone()


def test_a_sweep_is_not_started_as_one_of_several(group: Group, port: int) -> None:
    status, _, complained = ended(group.rank(1, port, "sweep", "trainer=cpu"))
    assert status == 2
    assert complained.startswith("lightsweep: A sweep starts the ranks of its trials itself")
    assert len(complained.splitlines()) == 1
    assert not (group.folder / "mlruns").exists()


def test_an_override_that_contradicts_the_group_is_refused(group: Group, port: int) -> None:
    status, _, complained = ended(group.rank(1, port, *TRAIN, "trainer.devices=4"))
    assert status == 2
    assert complained.startswith("lightsweep: trainer.devices=4, but this process was started as one of 2 on 1 host:")


class Hosts:
    """Two network namespaces, joined by a cable: each has a loopback interface of its own, and no other way."""

    def __init__(self) -> None:
        self.names = [f"lightsweep-{os.getpid()}-{number}" for number in range(2)]
        self.addresses = ["10.77.0.1", "10.77.0.2"]
        self.links = [f"ls{os.getpid()}-{number}" for number in range(2)]

    def open(self) -> None:
        for name in self.names:
            _ip("netns", "add", name)
        near, far = self.links
        _ip("link", "add", near, "netns", self.names[0], "type", "veth", "peer", far, "netns", self.names[1])
        for name, link, address in zip(self.names, self.links, self.addresses, strict=True):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", link)
            for device in ("lo", link):
                _ip("-n", name, "link", "set", device, "up")

    def close(self) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)

    def num_bytes(self) -> int:
        """How much has gone over the cable."""
        show = ["ip", "netns", "exec", self.names[0], "cat", "/proc/net/dev"]
        table = subprocess.run(show, capture_output=True, text=True, check=True).stdout
        (line,) = (line for line in table.splitlines() if line.strip().startswith(f"{self.links[0]}:"))
        return int(line.split()[1]) + int(line.split()[9])


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], capture_output=True, check=True)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        pytest.skip("needs ip and unshare")
    made = Hosts()
    try:
        try:
            made.open()
            subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=True)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"may not make network or mount namespaces: {error.stderr!r}")
        yield made
    finally:
        made.close()


@pytest.mark.slow
def test_two_hosts_that_share_no_disk_train_as_one_even_where_an_old_run_has_the_same_name(
    group: Group, hosts: Hosts, port: int, launched: Launched
) -> None:
    own_disk = 'mount -t tmpfs none "$PWD" && cd "$PWD" && mkdir -p "${0%/*}" && echo old > "$0" && "$@" && ls mlruns'
    disks = [[], ["unshare", "--mount", "sh", "-c", own_disk, launched.checkpoint]]
    meet = ["--nnodes", "2", "--nproc-per-node", "1", "--master-addr", hosts.addresses[0], "--master-port", str(port)]
    first, second = (
        group.start(
            [
                *("ip", "netns", "exec", hosts.names[number], *disks[number]),
                *(sys.executable, "-m", "torch.distributed.run", *meet, "--node-rank", str(number)),
                *("-m", "sweeps", *TRAIN),
            ]
        )
        for number in range(2)
    )
    status, printed, complained = ended(first)
    assert status == 0, printed + complained
    assert ended(second)[:2] == (0, "data\nserver.log\ntrain\n")  # a cache of its own; nothing new in train
    (run,) = runs(group.folder)
    assert run.data.params["trainer.devices"] == "1"
    assert run.data.params["trainer.num_nodes"] == "2"
    assert_same(run, launched.run)
    assert hosts.num_bytes() > 500_000  # gradients have gone this way, for there is no other
