"""Trials of two and three real ranks: what they agree on, and how they end when one of them does not go on."""

import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from benches import Bench, is_gone

from sweeps.config.composer import load_frozen
from sweeps.config.instantiate import build
from sweeps.core.messages import Artifact, Exited, Failed, Finished, Metrics, PruneDecision, Report, Started, Stop
from sweeps.launchers.rank_group import Timeouts

pytestmark = pytest.mark.ddp


def final_message(events: list[Any]) -> Any:
    return next(event for event in events if isinstance(event, (Finished, Failed)))


def sockets_of(pid: int) -> Iterator[str]:
    """Yield the numbers of the sockets that a process has open."""
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # the folder itself was open while it was listed
            if match := re.match(r"socket:\[(\d+)\]", str(file.readlink())):
                yield match[1]


def weights(events: list[Any]) -> dict[str, torch.Tensor]:
    path = next(event.path for event in events if isinstance(event, Artifact))
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=False)["state_dict"]
    return state


def test_two_ranks_are_one_trial_with_one_report_an_epoch(bench: Any) -> None:
    bench.start(20, ranks=2)
    events = bench.events(20)
    assert [type(event) for event in events].count(Started) == 1
    assert [type(event) for event in events].count(Finished) == 1
    assert len([event for event in events if isinstance(event, Report)]) == 2
    assert events[-1] == Exited()
    assert final_message(events).state == "complete"
    assert (bench.folder / "20" / "rank1.log").is_file()


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_learn_what_one_process_learns_with_the_whole_batch(bench: Any, ranks: int) -> None:
    plain = {"trainer__max_epochs": 3, "data__drop_last": True, "seed": 3}
    bench.start(21, data__batch_size=48, **plain)
    alone = bench.events(21)
    bench.start(22, ranks=ranks, data__batch_size=48 // ranks, **plain)
    together = bench.events(22)
    assert losses(together) == pytest.approx(losses(alone), rel=1e-4)
    for key, value in final_message(alone).metrics.items():
        assert final_message(together).metrics[key] == pytest.approx(value, rel=1e-4), key
    for key, tensor in weights(alone).items():
        torch.testing.assert_close(weights(together)[key], tensor, rtol=1e-3, atol=1e-5)


def losses(events: list[Any]) -> list[float]:
    points = [p for e in events if isinstance(e, Metrics) for p in e.points if p.key == "train/loss_step"]
    assert [point.step for point in points] == list(range(len(points)))
    return [point.value for point in points]


@pytest.mark.parametrize("ranks", [2, 3])
def test_what_ranks_measure_is_what_one_process_measures_on_the_same_samples(bench: Any, ranks: int) -> None:
    bench.start(
        29,
        ranks=ranks,
        trainer__max_epochs=1,
        data__test_fraction=0.2,
        data__val_fraction=0.1305,
        data__eval_batch_size=31,
    )
    events = bench.events(29)
    net = torch.nn.Linear(64, 10)
    net.load_state_dict({key.removeprefix("net."): value for key, value in weights(events).items()})
    config = load_frozen(bench.folder / "29")
    data = build(config["data"], key="data", allowed=bench.composer.allowed_modules)
    data.setup()
    for split, batches in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
        x, y = map(torch.cat, zip(*batches, strict=True))
        assert len(y) % ranks  # else no sample could be counted twice
        with torch.no_grad():
            scores = net(x.flatten(1))
        metrics = final_message(events).metrics
        right = (scores.argmax(1) == y).sum()
        assert metrics[f"{split}/acc"] == float(right / len(y))
        loss = torch.nn.functional.cross_entropy(scores.double(), y)
        assert metrics[f"{split}/loss"] == pytest.approx(loss.item(), rel=1e-6)


def test_each_rank_knows_its_place_and_talks_over_the_loopback_interface(bench: Any) -> None:
    bench.start(23, "where", ranks=2)
    bench.events(23)
    for rank in range(2):
        assert f"place {rank} {rank} 2 lo" in (bench.folder / "23" / f"rank{rank}.log").read_text()


def test_ranks_draw_dropout_of_their_own_and_the_same_bits_in_the_next_run(bench: Any) -> None:
    masks, metrics = [], []
    for number in (24, 25):
        bench.start(number, "mask", ranks=2, seed=5)
        metrics.append(final_message(bench.events(number)).metrics)
        logs = [(bench.folder / str(number) / f"rank{rank}.log").read_text() for rank in range(2)]
        masks.append([re.findall(r"mask .*", log) for log in logs])
    assert masks[0] == masks[1]
    assert masks[0][0] != masks[0][1]
    assert metrics[0] == metrics[1]


def test_an_order_to_stop_ends_all_ranks_after_the_same_step(bench: Any) -> None:
    bench.start(26, ranks=2, trainer__max_epochs=100_000)
    bench.events(26, until=lambda event: isinstance(event, Report))
    bench.launcher.order(26, Stop())
    assert final_message(bench.events(26)).state == "interrupted"


def test_a_signal_to_one_rank_stops_all(bench: Any) -> None:
    bench.start(27, ranks=2, trainer__max_epochs=100_000)
    bench.events(27, until=lambda event: isinstance(event, Report))
    os.kill(bench.pids(27)[1], signal.SIGTERM)
    assert final_message(bench.events(27)).state == "interrupted"


def test_a_loss_that_is_no_number_on_one_rank_ends_all_with_its_step(bench: Any) -> None:
    bench.start(28, "nan", ranks=2, culprit=1)
    failed = final_message(bench.events(28))
    assert failed.cause == "diverged"
    assert "became nan at step 2" in failed.message


@pytest.mark.parametrize("culprit", [0, 1])
@pytest.mark.parametrize(
    ("what", "cause", "words"),
    [
        ("raise", "error", "ValueError: the third step. is bad"),
        ("early", "usage", "no first step"),
        ("memory", "memory", "no more"),
        ("kill", "died", "killed by SIGKILL"),
        ("exit", "died", "ended with status 0"),
    ],
)
def test_a_rank_that_fails_ends_the_others_and_is_named(
    bench: Any, what: str, cause: str, words: str, culprit: int
) -> None:
    bench.start(30, what, ranks=2, culprit=culprit)
    pids = bench.pids(30)
    began = time.monotonic()
    failed = final_message(bench.events(30))
    assert failed.cause == cause
    assert failed.message.startswith("" if cause == "usage" else f"rank {culprit}: ")  # a config is the same for all
    assert words in failed.message
    assert time.monotonic() - began < 60  # not until a rank is taken for stuck
    assert all(is_gone(pid, within_s=10) for pid in pids)


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    bench = Bench(tmp_path_factory.mktemp("hasty"), timeouts=Timeouts(join_s=3, stall_s=3))
    yield bench
    bench.launcher.close()


def test_a_rank_that_is_stopped_is_a_failure_after_the_time_that_is_set(hasty: Any) -> None:
    hasty.start(1, "stop", ranks=2, culprit=1)
    pids = hasty.pids(1)
    failed = final_message(hasty.events(1))
    assert failed.cause == "stalled"
    assert "no progress for 3 s (launcher.stall_timeout_s)" in failed.message
    assert "rank 1 is stopped by a signal" in failed.message
    assert all(is_gone(pid, within_s=10) for pid in pids)
    assert "Current thread" in (hasty.folder / "1" / "rank0.log").read_text()  # where the other one waited


def test_a_rank_that_runs_in_circles_has_written_down_where(hasty: Any) -> None:
    hasty.start(2, "loop", ranks=2, culprit=1)
    assert final_message(hasty.events(2)).cause == "stalled"
    assert "mischief.py" in (hasty.folder / "2" / "rank1.log").read_text()


def test_a_rank_that_never_joins_is_a_failure_after_the_time_that_is_set(hasty: Any) -> None:
    hasty.launcher.prepare(2)
    os.kill(hasty.launcher._spares[1].process.pid, signal.SIGSTOP)
    hasty.start(3, ranks=2)
    failed = final_message(hasty.events(3))
    assert failed.cause == "stalled"
    assert "not all ranks had started within 3 s" in failed.message
    assert "rank 1 is stopped by a signal" in failed.message


@pytest.mark.parametrize("ranks", [1, 2])
def test_who_holds_metrics_back_for_long_is_alive_and_hears_an_order_to_stop(hasty: Any, ranks: int) -> None:
    hasty.start(4 + ranks, ranks=ranks, trainer__max_epochs=100_000, tracking__flush_interval_s=1000.0)
    began = time.monotonic()
    hasty.events(4 + ranks, until=lambda event: time.monotonic() - began > 4)
    hasty.launcher.order(4 + ranks, Stop())
    assert final_message(hasty.events(4 + ranks)).state == "interrupted"


def test_ranks_that_wait_for_a_busy_driver_do_not_stand_still(hasty: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hasty.start(4, ranks=2, trainer__max_epochs=1, job={"prunes": True})
    hasty.events(4, until=lambda event: isinstance(event, Report))
    monkeypatch.setattr(hasty.launcher, "_clock", lambda: time.monotonic() + 100)
    hasty.launcher.order(4, PruneDecision(prune=False))
    assert final_message(hasty.events(4)).state == "complete"


def test_ten_trials_of_two_ranks_leave_no_process_port_file_or_variable(bench: Any) -> None:
    def left_over() -> tuple[int, int, list[str], dict[str, str]]:
        children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        own = {inode for pid in (os.getpid(), *children) for inode in sockets_of(int(pid))}
        sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        listening = [words[1] for words in sockets if words[3] == "0A" and words[9] in own]
        return len(list(Path("/proc/self/fd").iterdir())), len(children), listening, dict(os.environ)

    bench.start(39, ranks=2)
    bench.events(39)
    before = left_over()
    pids = []
    for number in range(40, 50):
        bench.start(number, ranks=2, trainer__max_epochs=1)
        pids += bench.pids(number)
        assert final_message(bench.events(number)).state == "complete"
    assert left_over() == before
    assert all(is_gone(pid, within_s=10) for pid in pids)


def test_the_meeting_place_is_not_reachable_from_elsewhere(bench: Any) -> None:
    bench.start(50, ranks=2, trainer__max_epochs=100_000)
    bench.events(50, until=lambda event: isinstance(event, Report))
    inodes = {inode for pid in bench.pids(50) for inode in sockets_of(pid)}
    local = socket.inet_aton("127.0.0.1")[::-1].hex().upper()
    listening = [
        line.split()[1]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[3] == "0A" and line.split()[9] in inodes
    ]
    everywhere = [
        line.split()[1]
        for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]
        if line.split()[3] == "0A" and line.split()[9] in inodes
    ]
    bench.launcher.kill(50)
    bench.events(50)
    assert listening
    assert {address.split(":")[0] for address in listening} == {local}
    assert everywhere == []
