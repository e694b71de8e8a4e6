"""Orders, budgets and reuse: a driver over a real study on disk, and trials that follow a script."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeDisplay, FakeLauncher, FakeStore, Script, complete
from studies import make, stored

from sweeps.core.messages import Event, Exited, Failed, Finished, Report
from sweeps.driver.driver import Driver, Limits
from sweeps.driver.inbox import Enqueue, Inbox, Orders, StopCommand
from sweeps.driver.reuse import ResultCache
from sweeps.driver.trial_runs import InterruptedRun, TrialSetup
from sweeps.launchers.slots import Slot
from sweeps.search.space.declare import parse_space
from sweeps.tracking import tags
from sweeps.tracking.recorder import Recorder

WIDE = parse_space({"lr": "interval(0.0,1.0)", "depth": "range(1,5)"})
SMALL = parse_space({"depth": "range(1,4)"})
ONE = parse_space({"depth": "3"})


def composed(values: Mapping[str, Any], number: int, replicate: int | None) -> dict[str, Any]:
    """A config that refers to its seed, as the shipped ones do."""
    seed = values.get("seed", 7919 + number)
    return {**values, "seed": seed, "data": {"seed": seed}}


class Steered:
    """One run of a study: a driver with an inbox, and what a test looks at afterwards."""

    def __init__(
        self, folder: Path, script: Script = lambda number: complete(0.5), *, space: Any = WIDE, **more: Any
    ) -> None:
        self.url = f"sqlite:///{folder}/optuna.db"
        self.study = make(self.url, space, sampler=more.pop("sampler", "random"))
        self.study.close_stale()
        self.inbox = Inbox(folder)
        self.store, self.display, self.now = FakeStore(), FakeDisplay(), 0.0
        self.launcher = FakeLauncher(script)
        self.recorder = Recorder(lambda: self.store, unsent=folder / "unsent.jsonl", timeout_s=1)
        self.recorder.start("study", "study", params={}, run_tags={})
        runs = more.pop("runs", {})
        slots, reuse, since_ns = more.pop("slots", 2), more.pop("reuse", True), more.pop("since_ns", 0)
        self.driver = Driver(
            search=self.study,
            setup=TrialSetup(
                compose=composed,
                folder=lambda number: folder / str(number),
                name=lambda number, values: f"#{number}",
                run_tags={},
                prunes=False,
                runs=runs,
            ),
            slots=[Slot(index=index, threads=1) for index in range(slots)],
            limits=Limits(**{"num_trials": 6, "device_s_before": self.study.device_s, **more}),
            launcher=self.launcher,
            recorder=self.recorder,
            display=self.display,
            cache=ResultCache(self.study.twins, is_on=reuse),
            commands=Orders(self.study, folder, self.display.say, since_ns=since_ns, look_every_s=0),
            clock=lambda: self.now,
        )

    def on_poll(self, act: Callable[[int], None]) -> "Steered":
        self.launcher.on_poll = act
        return self

    def run(self) -> "Steered":
        self.totals = self.driver.run()
        self.recorder.close()
        return self

    def pass_time(self, seconds_a_poll: float) -> "Steered":
        def tick(polls: int) -> None:
            self.now = polls * seconds_a_poll

        return self.on_poll(tick)

    @property
    def trained(self) -> list[int]:
        return sorted(self.launcher.jobs)

    @property
    def states(self) -> list[str]:
        return [trial.state.name.lower() for trial in stored(self.url)]


def at(poll: int, act: Callable[[], object]) -> Callable[[int], None]:
    return lambda polls: act() if polls == poll else None  # type: ignore[func-returns-value]


@pytest.fixture(autouse=True)
def tables(tmp_path: Path, empty_file: Path) -> None:
    shutil.copy(empty_file, tmp_path / "optuna.db")


# --- orders


def test_what_was_enqueued_before_the_start_runs_first_in_the_order_written(tmp_path: Path) -> None:
    for depth in (3, 1):
        Inbox(tmp_path).write(Enqueue(values={"depth": depth, "lr": 0.25}))
    sweep = Steered(tmp_path).run()
    depths = [outcome.values["depth"] for outcome in sorted(sweep.totals.outcomes, key=lambda o: o.number)]
    assert depths[:2] == [3, 1]
    assert len(sweep.totals.outcomes) == 6
    assert [sweep.store.named(f"#{number}")["tags"].get(tags.ENQUEUED) for number in (0, 1, 2)] == ["true"] * 2 + [None]
    assert sweep.inbox.read() == []


def test_what_is_enqueued_meanwhile_runs_before_what_the_sampler_proposes(tmp_path: Path) -> None:
    sweep = Steered(tmp_path, slots=1)
    sweep.on_poll(at(2, lambda: sweep.inbox.write(Enqueue(values={"lr": 0.125})))).run()
    assert stored(sweep.url)[1].params["lr"] == 0.125
    assert any("trial 1 enqueued  lr=0.125" in note for note in sweep.display.notes)


def test_an_order_that_was_carried_out_but_not_forgotten_is_not_carried_out_twice(tmp_path: Path) -> None:
    first = Steered(tmp_path, num_trials=2)
    command = first.inbox.write(Enqueue(values={"lr": 0.125}))
    first.study.enqueue({"lr": 0.125}, request=command)  # and then the driver died
    second = Steered(tmp_path, num_trials=3).run()
    assert [trial.params["lr"] == 0.125 for trial in stored(second.url)] == [True, False, False]
    assert second.inbox.read() == []


def test_an_order_that_cannot_be_carried_out_is_kept_and_told(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    inbox.write(Enqueue(values={"width": 3}))
    inbox.write(Enqueue(values={"depth": 30}))
    (tmp_path / "inbox" / "00000000000000000001-x.yaml").write_text("order: dance\n")
    sweep = Steered(tmp_path, num_trials=1).run()
    assert len(list((tmp_path / "inbox").glob("*.refused"))) == 3
    told = "\n".join(sweep.display.notes)
    assert "width is not searched in this study" in told and "30 is not in range(1,5)" in told
    assert "not a command that this version knows" in told
    assert sweep.states == ["complete"]


def test_a_study_that_is_told_to_stop_ends_when_the_running_trials_have_ended(tmp_path: Path) -> None:
    sweep = Steered(tmp_path, lambda number: complete(0.5, reports=5))
    sweep.on_poll(at(2, lambda: sweep.inbox.write(StopCommand(is_now=False)))).run()
    assert sweep.states == ["complete", "complete"]
    assert (sweep.totals.stopped, sweep.display.notes) == ("stop", ["drain"])
    assert sweep.inbox.read() == []


def test_a_study_that_is_told_to_stop_now_lets_its_trials_wait(tmp_path: Path) -> None:
    sweep = Steered(tmp_path, lambda number: complete(0.5, reports=5))

    def order(polls: int) -> None:
        if polls in (2, 4):
            sweep.inbox.write(StopCommand(is_now=polls == 4))

    sweep.on_poll(order).run()
    assert sweep.states == ["waiting", "waiting"]
    assert (sweep.totals.stopped, sweep.display.notes) == ("stop", ["drain", "stop"])


def test_ctrl_c_still_stops_what_was_told_to_stop_later(tmp_path: Path) -> None:
    sweep = Steered(tmp_path, lambda number: complete(0.5, reports=50))

    def act(polls: int) -> None:
        if polls == 2:
            sweep.inbox.write(StopCommand(is_now=False))
        if polls == 5:
            sweep.driver.interrupt()

    sweep.on_poll(act).run()
    assert sweep.totals.stopped == "interrupt"
    assert sweep.states == ["waiting", "waiting"]


def test_an_order_to_stop_that_an_earlier_driver_did_not_hear_is_forgotten(tmp_path: Path) -> None:
    Inbox(tmp_path).write(StopCommand(is_now=True))
    (command,) = Inbox(tmp_path).read()
    sweep = Steered(tmp_path, since_ns=command.written_ns + 1).run()
    assert sweep.states == ["complete"] * 6
    assert sweep.inbox.read() == []


# --- budgets


def test_device_hours_are_used_up_over_several_runs(tmp_path: Path) -> None:
    """Two slots of half a device each; a poll takes 100 s, so trials of 4 polls use 200 device-seconds.

    It takes a poll to notice, and two more until trials have stopped.
    """
    first = Steered(tmp_path, devices_per_slot=0.5, num_trials=2).pass_time(100).run()
    used = first.study.device_s
    known = {"devices_per_slot": 0.5, "num_trials": 50, "device_hours": 1100 / 3600}
    assert used == 400
    second = Steered(tmp_path, **known)
    assert second.study.device_s == used
    second.pass_time(100).run()
    assert second.totals.stopped == "device_hours"
    assert 1100 <= second.study.device_s <= 1400
    third = Steered(tmp_path, **known).run()
    assert third.totals.outcomes == [] and third.totals.stopped == "device_hours"


def test_what_an_interrupted_trial_used_counts_and_is_added_to(tmp_path: Path) -> None:
    def long(number: int) -> list[Event]:
        return complete(0.5, reports=9)

    first = Steered(tmp_path, long, slots=1, num_trials=1, timeout_s=30).pass_time(10).run()
    assert first.states == ["waiting"]
    before = first.study.device_s
    assert before >= 30
    second = Steered(tmp_path, long, slots=1, num_trials=1).pass_time(10).run()
    assert second.states == ["complete"]
    (trial,) = stored(second.url)
    assert trial.user_attrs["used"]["device_s"] == second.study.device_s == before + 10 * 11


def test_a_killed_driver_has_noted_what_its_trials_used(tmp_path: Path) -> None:
    sweep = Steered(tmp_path, lambda number: complete(0.5, reports=50), slots=1)

    def act(polls: int) -> None:
        sweep.now = 10.0 * polls
        if polls == 10:
            raise SystemExit

    with pytest.raises(SystemExit):
        sweep.on_poll(act).run()
    assert Steered(tmp_path).study.device_s == 90


def test_a_trial_that_takes_too_long_is_pruned_with_what_it_has(tmp_path: Path) -> None:
    """A poll takes a second; trial 1 would take 50."""
    sweep = Steered(
        tmp_path, lambda number: complete(0.5, reports=50 if number == 1 else 3), num_trials=3, trial_timeout_s=10
    )
    sweep.pass_time(1).run()
    assert sweep.states == ["complete", "pruned", "complete"]
    trial = stored(sweep.url)[1]
    assert trial.value == 0.5 and len(trial.intermediate_values) >= 9
    assert sweep.store.named("#1")["tags"][tags.REASON] == "study.trial_timeout_s=10 is over"
    assert sweep.launcher.killed == []


def test_a_trial_that_takes_too_long_and_does_not_stop_is_killed_and_pruned(tmp_path: Path) -> None:
    sweep = Steered(tmp_path, lambda number: complete(0.5, reports=50), num_trials=1, trial_timeout_s=10, grace_s=3)
    sweep.launcher.deaf = {0}
    sweep.pass_time(1).run()
    assert sweep.states == ["pruned"]
    assert sweep.launcher.killed == [0]


def test_ctrl_c_changes_nothing_for_a_trial_that_takes_too_long(tmp_path: Path) -> None:
    sweep = Steered(tmp_path, lambda number: complete(0.5, reports=50), num_trials=1, trial_timeout_s=10, grace_s=3)
    sweep.launcher.deaf = {0}

    def act(polls: int) -> None:
        sweep.now = float(polls)
        if polls == 12:
            sweep.driver.interrupt()

    sweep.on_poll(act).run()
    assert sweep.states == ["pruned"] and sweep.now <= 16
    assert stored(sweep.url)[0].user_attrs["reason"] == "study.trial_timeout_s=10 is over"


def test_a_limit_for_one_trial_counts_what_it_took_before_an_interruption(tmp_path: Path) -> None:
    def long(number: int) -> list[Event]:
        return complete(0.5, reports=50)

    Steered(tmp_path, long, num_trials=1, timeout_s=8, trial_timeout_s=10).pass_time(1).run()
    sweep = Steered(tmp_path, long, num_trials=1, trial_timeout_s=10).pass_time(1).run()
    assert sweep.states == ["pruned"]
    assert sweep.now <= 5


# --- results that identical configurations share


def test_a_space_of_three_points_is_trained_three_times_at_most(tmp_path: Path) -> None:
    sweep = Steered(tmp_path, lambda number: complete(0.1 * number), space=SMALL, num_trials=20).run()
    assert len(sweep.trained) == 3
    assert sweep.states == ["complete"] * 20
    assert sweep.totals.num_reused == 17
    trials = stored(sweep.url)
    for number in set(range(20)) - set(sweep.trained):
        trial = trials[number]
        twin = trials[trial.user_attrs["reused_from"]]
        assert (trial.value, trial.params, trial.intermediate_values) == (
            twin.value,
            twin.params,
            twin.intermediate_values,
        )
        assert trial.user_attrs["reason"] == f"same configuration as trial {twin.number}"


def test_a_run_of_its_own_has_the_same_metrics_and_says_whose_they_are(tmp_path: Path) -> None:
    sweep = Steered(tmp_path, lambda number: complete(0.9), space=ONE, num_trials=2, slots=1).run()
    run = sweep.store.named("#1")
    assert run["status"] == "FINISHED"
    assert run["tags"][tags.REUSED_FROM] == "0" and run["tags"][tags.VALUE] == "0.9"
    assert run["tags"][tags.REASON] == "same configuration as trial 0"
    assert [(point.key, point.value) for point in run["points"]] == [("val/acc", 0.9)]
    assert run["artifacts"] == [("config.yaml", "")]


def test_what_runs_still_is_waited_for_without_a_slot(tmp_path: Path) -> None:
    sweep = Steered(tmp_path, lambda number: complete(0.5, reports=9), space=SMALL, num_trials=6, slots=2)
    busy: list[int] = []
    sweep.on_poll(lambda polls: busy.append(len(sweep.driver._running))).run()
    assert len(sweep.trained) <= 3 and sweep.states == ["complete"] * 6
    assert max(busy) == 2


def test_a_pruned_result_is_shared_and_a_failure_is_not(tmp_path: Path) -> None:
    def script(number: int) -> list[Event]:
        if number == 0:
            return [Failed(cause="error", message="no"), Exited()]
        return [Report(value=0.2, step=0), Finished(state="pruned", reason="too low", value=0.2), Exited()]

    sweep = Steered(tmp_path, script, space=ONE, num_trials=4).run()
    assert sweep.trained == [0, 1]
    assert sweep.states == ["fail", "pruned", "pruned", "pruned"]
    assert stored(sweep.url)[3].user_attrs["reason"] == "same configuration as trial 1, which was pruned: too low"
    assert [trial.value for trial in stored(sweep.url)[1:]] == [0.2] * 3


def test_results_of_earlier_runs_are_known(tmp_path: Path) -> None:
    Steered(tmp_path, space=ONE, num_trials=1).run()
    sweep = Steered(tmp_path, space=ONE, num_trials=3).run()
    assert sweep.trained == [] and sweep.states == ["complete"] * 3
    assert [trial.user_attrs.get("reused_from") for trial in stored(sweep.url)] == [None, 0, 0]


def test_what_waits_for_a_trial_that_is_interrupted_waits_for_the_next_run(tmp_path: Path) -> None:
    first = Steered(tmp_path, lambda number: complete(0.5, reports=50), space=ONE, num_trials=4)
    first.on_poll(at(5, first.driver.interrupt)).run()
    assert first.states == ["waiting"] * 4
    assert [outcome.number for outcome in first.totals.outcomes] == [0]
    second = Steered(tmp_path, space=ONE, num_trials=4).run()
    assert second.trained == [0] and second.states == ["complete"] * 4


def test_what_somebody_asks_for_is_trained_all_the_same(tmp_path: Path) -> None:
    Steered(tmp_path, space=ONE, num_trials=1).run()
    Inbox(tmp_path).write(Enqueue(values={"depth": 3}))
    sweep = Steered(tmp_path, space=ONE, num_trials=3).run()
    assert sweep.trained == [1] and sweep.totals.num_reused == 1


def test_what_has_been_trained_in_part_goes_on(tmp_path: Path) -> None:
    Steered(tmp_path, space=ONE, num_trials=1).run()
    second = Steered(tmp_path, lambda number: complete(0.5, reports=9), space=ONE, num_trials=2, reuse=False)
    second.on_poll(at(5, second.driver.interrupt)).run()
    assert second.states == ["complete", "waiting"]
    third = Steered(tmp_path, space=ONE, num_trials=2, runs={1: InterruptedRun(run_id="run1", resume_step=None)})
    third.store.runs["run1"] = {"tags": {}, "points": [], "artifacts": [], "params": {}, "name": "#1"}
    assert third.run().trained == [1]


def test_a_seed_that_is_searched_is_trained_again(tmp_path: Path) -> None:
    space = parse_space({"seed": "range(0,50)"})
    sweep = Steered(tmp_path, space=space, sampler="grid", num_trials=50)
    assert len(sweep.run().trained) == 50


def test_all_is_trained_where_nothing_is_to_be_reused(tmp_path: Path) -> None:
    sweep = Steered(tmp_path, space=ONE, num_trials=5, reuse=False).run()
    assert sweep.trained == list(range(5))
    assert "fingerprint" not in stored(sweep.url)[0].user_attrs
