"""The rules by which what single ranks say becomes what a trial says."""

from typing import Any

import pytest

from sweeps.core.messages import Failed, Finished, Joined, Metrics, Progress
from sweeps.launchers.rank_group import RankGroup, Timeouts

TIMEOUTS = Timeouts(join_s=10, stall_s=60, settle_s=2, last_look_s=1)
DONE = Finished(state="complete", value=0.9)


def make(size: int = 2, timeouts: Timeouts = TIMEOUTS) -> RankGroup:
    return RankGroup(size, 0.0, timeouts)


def joined(size: int = 2, timeouts: Timeouts = TIMEOUTS) -> RankGroup:
    group = make(size, timeouts)
    for rank in range(size):
        assert group.on_event(rank, Joined(), 1.0) == []
    return group


def failed(cause: Any = "error", message: str = "ValueError: no") -> Failed:
    return Failed(cause=cause, message=message, traceback="the story")


def progress(step: int) -> Progress:
    return Progress(epoch=0, max_epochs=1, step=step, num_steps=100)


def nothing(rank: int) -> str:
    return ""


def test_one_rank_is_heard_word_for_word() -> None:
    group = joined(1)
    assert group.on_event(0, progress(3), 2.0) == [progress(3)]
    assert group.on_event(0, failed(), 3.0) == [failed()]
    assert group.on_exit(0, 1, 3.1) == []
    assert group.is_over


def test_only_rank_0_tells_how_far_training_is() -> None:
    group = joined()
    assert group.on_event(1, progress(3), 2.0) == []
    assert group.on_event(0, Metrics(points=()), 2.0) == [Metrics(points=())]


def test_a_trial_has_finished_when_every_rank_has_said_so() -> None:
    group = joined(3)
    assert group.on_event(0, DONE, 2.0) == []
    assert group.on_event(2, Finished(state="complete"), 2.1) == []
    assert group.on_event(1, Finished(state="complete"), 2.2) == [DONE]
    assert not group.should_kill(2.3)


def test_a_rank_that_exits_with_status_0_and_says_nothing_has_failed() -> None:
    group = joined()
    group.on_event(0, DONE, 2.0)
    (verdict,) = group.on_exit(1, 0, 2.1)
    assert isinstance(verdict, Failed)
    assert verdict.message == "rank 1: the process ended with status 0 before it had finished"
    assert group.should_kill(2.1)


def test_a_rank_that_dies_after_all_have_finished_changes_nothing() -> None:
    group = joined()
    group.on_event(0, DONE, 2.0)
    group.on_event(1, DONE, 2.0)
    assert group.on_exit(1, -9, 2.1) == []


def test_ranks_that_do_not_go_after_their_last_word_are_killed() -> None:
    group = joined()
    group.on_event(0, DONE, 2.0)
    group.on_event(1, DONE, 3.0)
    assert not group.should_kill(62.9)
    assert group.should_kill(63.0)


def test_the_first_failure_is_the_cause_and_the_others_are_killed() -> None:
    group = joined()
    assert [event.message for event in group.on_event(1, failed(), 2.0)] == ["rank 1: ValueError: no"]  # type: ignore[union-attr]
    assert group.should_kill(2.0)
    assert group.on_event(0, failed("memory", "no more"), 2.1) == []
    assert group.on_exit(0, -9, 2.2) == []


@pytest.mark.parametrize("exit_code", [-9, -11, 0])
def test_a_lost_line_is_not_the_cause_when_the_other_rank_has_died(exit_code: int) -> None:
    group = joined()
    assert group.on_event(0, failed("peer", "gloo: Connection closed by peer"), 2.0) == []
    assert not group.should_kill(2.0)
    (verdict,) = group.on_exit(1, exit_code, 2.5)
    assert isinstance(verdict, Failed)
    assert verdict.cause == "died"
    assert verdict.message.startswith("rank 1: ")


def test_a_lost_line_is_the_cause_when_nothing_else_comes_to_light() -> None:
    group = joined()
    group.on_event(0, failed("peer", "Connection reset"), 2.0)
    assert group.on_tick(3.9, nothing) == []
    (verdict,) = group.on_tick(4.0, nothing)
    assert isinstance(verdict, Failed)
    assert verdict.message == "rank 0: Connection reset"


def test_when_all_have_lost_each_other_nobody_is_waited_for() -> None:
    group = joined()
    group.on_event(1, failed("peer", "Connection reset"), 2.0)
    assert [event.message for event in group.on_event(0, failed("peer", "closed"), 2.1)] == ["rank 1: Connection reset"]  # type: ignore[union-attr]


def test_an_abort_of_a_library_is_a_lost_line() -> None:
    group = joined()
    assert group.on_exit(0, -6, 2.0) == []
    (verdict,) = group.on_exit(1, -9, 2.1)
    assert "rank 1: killed by SIGKILL" in verdict.message  # type: ignore[union-attr]


def test_an_abort_of_a_single_rank_is_its_own() -> None:
    (verdict,) = joined(1).on_exit(0, -6, 2.0)
    assert verdict.message == "killed by SIGABRT"  # type: ignore[union-attr]


def test_a_rank_that_never_joins_is_a_failure() -> None:
    group = make()
    group.on_event(0, Joined(), 1.0)
    assert group.on_tick(10.0, nothing) == []
    (verdict,) = group.on_tick(10.1, lambda rank: "is stopped by a signal")
    assert isinstance(verdict, Failed)
    assert verdict.cause == "stalled"
    assert "launcher.join_timeout_s" in verdict.message
    assert "rank 1 is stopped by a signal" in verdict.message
    assert "rank 0" not in verdict.message


def test_a_silent_rank_is_a_failure_that_says_where_all_were() -> None:
    group = joined()
    group.on_event(0, progress(41), 50.0)
    group.on_event(1, progress(40), 50.0)
    assert group.on_tick(110.0, nothing) == []
    (verdict,) = group.on_tick(110.1, lambda rank: "is stopped by a signal" if rank else "")
    assert verdict.message == (  # type: ignore[union-attr]
        "no progress for 60 s (launcher.stall_timeout_s) (rank 0 at step 41, rank 1 at step 40): "
        "rank 1 is stopped by a signal"
    )
    assert not group.should_kill(110.2)  # the ranks write down where they are
    assert group.should_kill(111.2)


def test_a_rank_that_is_done_may_wait_for_the_others() -> None:
    group = joined()
    group.on_event(1, DONE, 2.0)
    group.on_event(0, progress(5), 61.0)
    assert group.on_tick(100.0, nothing) == []


def test_without_a_time_out_silence_is_never_a_failure() -> None:
    assert joined(timeouts=Timeouts(stall_s=None)).on_tick(1e9, nothing) == []
