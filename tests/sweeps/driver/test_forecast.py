"""What a sweep is expected to do: exact where every trial takes the same, sensible everywhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.driver.forecast import Budget, Forecast, Training, forecast

SECONDS = st.floats(0.01, 1e5)
SHARES = st.none() | st.floats(0, 1)
TRAININGS = st.builds(Training, elapsed_s=SECONDS, share=SHARES)


@st.composite
def situations(draw: st.DrawFn) -> dict:
    running = draw(st.lists(TRAININGS, max_size=8))
    num_finished = draw(st.integers(0, 200))
    return {
        "budget": Budget(
            num_trials=draw(st.integers(1, 500)),
            num_slots=draw(st.integers(max(1, len(running)), 8)),
            devices_per_slot=draw(st.floats(0.1, 8)),
            timeout_s=draw(st.none() | SECONDS),
            device_s=draw(st.none() | SECONDS),
        ),
        "elapsed_s": draw(SECONDS),
        "num_finished": num_finished,
        "durations_s": draw(st.lists(SECONDS, min_size=1, max_size=20)),
        "running": running,
        "device_s": draw(SECONDS),
    }


def changed(budget: Budget, **changes: object) -> Budget:
    return Budget(**{name: getattr(budget, name) for name in Budget.__slots__} | changes)  # type: ignore[attr-defined]


def ahead(situation: dict, **changes: object) -> Forecast:
    found = forecast(**{**situation, "budget": changed(situation["budget"], **changes)})
    assert found is not None
    return found


@given(situations())
def test_nothing_is_negative_and_no_budget_is_overdrawn(situation: dict) -> None:
    budget, found = situation["budget"], ahead(situation)
    assert found.left_s >= 0
    assert found.device_s >= situation["device_s"]
    assert situation["num_finished"] <= found.num_trials
    most = max(budget.num_trials, situation["num_finished"] + len(situation["running"]))
    assert found.num_trials <= most
    assert (found.num_trials == most) >= (found.ends_by == "trials")
    if budget.timeout_s is not None:
        assert found.left_s <= max(0, budget.timeout_s - situation["elapsed_s"]) * (1 + 1e-6) + 1e-6
    if budget.device_s is not None:
        assert found.device_s <= max(budget.device_s, situation["device_s"]) * (1 + 1e-6) + 1e-6


@given(situations(), st.integers(0, 100), st.integers(0, 4))
def test_more_trials_take_longer_and_more_slots_do_not(situation: dict, more_trials: int, more_slots: int) -> None:
    budget, found = situation["budget"], ahead(situation)
    longer = ahead(situation, num_trials=budget.num_trials + more_trials)
    faster = ahead(situation, num_slots=budget.num_slots + more_slots)
    if budget.device_s is None:  # else more trials at once use the device-hours up sooner
        assert longer.left_s >= found.left_s * (1 - 1e-6)
        assert longer.num_trials >= found.num_trials
    assert faster.left_s <= found.left_s * (1 + 1e-6) + 1e-6


@given(situations(), st.floats(0.1, 1))
def test_a_tighter_budget_ends_sooner_with_no_more_trials(situation: dict, share: float) -> None:
    found = ahead(situation)
    for key, most in (("timeout_s", situation["elapsed_s"]), ("device_s", situation["device_s"])):
        tight = (getattr(situation["budget"], key) or most + found.left_s) * share
        tighter = ahead(situation, **{key: tight})
        assert tighter.left_s <= found.left_s * (1 + 1e-6) + 1e-6
        assert tighter.num_trials <= found.num_trials


@given(situations(), st.floats(1, 10))
def test_longer_trials_end_later_and_are_fewer_by_then(situation: dict, factor: float) -> None:
    slower = {**situation, "durations_s": [duration * factor for duration in situation["durations_s"]]}
    before, after = ahead(situation, device_s=None), ahead(slower, device_s=None)
    assert after.left_s >= before.left_s * (1 - 1e-6)
    assert after.num_trials <= before.num_trials


@given(
    num_slots=st.integers(1, 6),
    num_trials=st.integers(1, 300),
    one_s=st.floats(0.5, 1000),
    turns=st.integers(1, 60),
    part=st.floats(0, 0.99),
    knows_progress=st.booleans(),
)
def test_exact_where_every_trial_takes_the_same(
    num_slots: int, num_trials: int, one_s: float, turns: int, part: float, knows_progress: bool
) -> None:
    """All slots are in step: `turns` whole turns are over, and each slot is `part` of a trial further."""
    num_finished = min(num_trials, turns * num_slots)
    num_running = min(num_slots, num_trials - num_finished)
    whole = -(-num_trials // num_slots)  # turns that the sweep takes
    elapsed_s = (turns + part) * one_s
    found = forecast(
        Budget(num_trials=num_trials, num_slots=num_slots),
        elapsed_s=elapsed_s,
        num_finished=num_finished,
        durations_s=[one_s] * num_finished,
        running=[Training(elapsed_s=part * one_s, share=part if knows_progress else None)] * num_running,
        device_s=(num_finished + num_running * part) * one_s,
    )
    assert found is not None
    assert found.num_trials == num_trials and found.ends_by == "trials"
    assert found.left_s == pytest.approx(max(0.0, whole * one_s - elapsed_s) if num_running else 0.0, abs=1e-6)
    assert found.device_s == pytest.approx(num_trials * one_s)


def at_start(budget: Budget, **known: object) -> Forecast | None:
    nothing = {"elapsed_s": 0.0, "num_finished": 0, "durations_s": [], "running": [], "device_s": 0.0}
    return forecast(budget, **{**nothing, **known})  # type: ignore[arg-type]


def test_nothing_is_known_before_the_first_end_but_by_the_progress_of_what_runs() -> None:
    budget = Budget(num_trials=4, num_slots=2)
    assert at_start(budget) is None
    assert at_start(budget, running=[Training(elapsed_s=3.0)]) is None
    found = at_start(budget, running=[Training(elapsed_s=3.0, share=0.25)] * 2)
    assert found == Forecast(left_s=9.0 + 12.0, ends_by="trials", num_trials=4, device_s=2 * (9.0 + 12.0))


def test_the_budget_that_is_used_up_first_ends_the_sweep() -> None:
    known = {"elapsed_s": 10.0, "num_finished": 2, "durations_s": [10.0, 10.0], "device_s": 40.0}
    by_time = at_start(Budget(num_trials=20, num_slots=2, devices_per_slot=2, timeout_s=35), **known)
    assert by_time == Forecast(left_s=25.0, ends_by="timeout", num_trials=6, device_s=140.0)
    by_devices = at_start(Budget(num_trials=20, num_slots=2, devices_per_slot=2, timeout_s=35, device_s=120), **known)
    assert by_devices == Forecast(left_s=20.0, ends_by="device_hours", num_trials=6, device_s=120.0)
    by_neither = at_start(Budget(num_trials=6, num_slots=2, devices_per_slot=2, timeout_s=35, device_s=120), **known)
    assert by_neither == Forecast(left_s=20.0, ends_by="trials", num_trials=6, device_s=120.0)


def test_results_that_are_reused_take_no_time() -> None:
    found = at_start(Budget(num_trials=20, num_slots=2), num_finished=3, durations_s=[0.0] * 3)
    assert found == Forecast(left_s=0.0, ends_by="trials", num_trials=20, device_s=0.0)


def test_many_trials_on_slots_far_apart_are_dealt_out_as_one_by_one() -> None:
    running = [Training(elapsed_s=1.0, share=0.05), Training(elapsed_s=1.0, share=0.5)]  # 19 s and 1 s to go
    found = at_start(Budget(num_trials=1002, num_slots=3), durations_s=[2.0], running=running)
    free_at = [19.0, 1.0, 0.0]
    for _ in range(1000):
        first = min(range(3), key=lambda slot: free_at[slot])
        free_at[first] += 2.0
    assert found is not None and found.left_s == max(free_at) and found.device_s == sum(free_at)
