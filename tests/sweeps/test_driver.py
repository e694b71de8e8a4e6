"""The driver's rules, over fakes that behave."""

from pathlib import Path
from typing import Any

import pytest
from fakes import FakeDisplay, FakeLauncher, FakeSearch, FakeStore, complete

from sweeps.driver import Driver, Limits, Outcome, Totals, TrialSetup
from sweeps.errors import StoreError
from sweeps.launchers.slots import Slot
from sweeps.records import Artifact, Event, Exited, Failed, Finished, MetricPoint, Metrics, Progress, Report, Started
from sweeps.tracking import tags
from sweeps.tracking.recorder import Recorder


class Sweep:
    """A driver over fakes, with what a test looks at afterwards."""

    def __init__(self, folder: Path, script: Any, *, slots: int = 2, devices: int = 1, **limits: Any) -> None:
        self.store, self.search, self.display = FakeStore(), FakeSearch(), FakeDisplay()
        self.launcher = FakeLauncher(script)
        self.recorder = Recorder(lambda: self.store, unsent=folder / "unsent.jsonl", timeout_s=1)
        self.recorder.start("study", "study", params={}, run_tags={})
        self.now = 0.0
        self.driver = Driver(
            search=self.search,
            setup=TrialSetup(
                compose=lambda values, number: {"x": values["x"], "seed": number},
                folder=lambda number: folder / str(number),
                name=lambda number, values: f"#{number}",
                run_tags={},
                python_path=(),
                allowed_modules=(),
                answers=True,
            ),
            slots=[Slot(index=index, threads=1, devices=devices) for index in range(slots)],
            limits=Limits(**{"num_trials": 6, **limits}),
            launcher=self.launcher,
            recorder=self.recorder,
            display=self.display,
            clock=lambda: self.now,
        )

    def run(self) -> "Sweep":
        self.totals = self.driver.run()
        self.recorder.close()
        return self

    @property
    def states(self) -> dict[int, str]:
        return {number: state for number, (state, _, _) in self.search.told.items()}


def outcome(number: int, state: Any) -> Outcome:
    return Outcome(
        number=number,
        state=state,
        value=None,
        values={},
        metrics={},
        reason="",
        duration_s=1.0,
        start_latency_s=None,
    )


def test_runs_every_trial_of_the_total_in_the_slots_there_are(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, lambda number: complete(0.5)).run()
    assert sweep.states == dict.fromkeys(range(6), "complete")
    assert sweep.launcher.most_at_once == 2


def test_the_totals_count_what_has_ended_so_far() -> None:
    totals = Totals()
    for number, state in enumerate(("complete", "failed", "complete", "pruned", "failed", "complete")):
        assert totals.count("complete") == [0, 1, 1, 2, 2, 2][number]
        totals.outcomes.append(outcome(number, state))
    assert [totals.count(state) for state in ("complete", "pruned", "failed", "interrupted")] == [3, 1, 2, 0]


def test_a_free_slot_starts_the_next_trial_while_a_slow_one_runs(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, lambda number: complete(0.5, reports=50 if number == 0 else 1)).run()
    assert [outcome.number for outcome in sweep.display.ended] == [1, 2, 3, 4, 5, 0]


def test_a_pruned_trial_is_told_and_recorded_with_its_reason(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, lambda number: complete(0.1 if number == 2 else 0.9))
    sweep.search.threshold = 0.5
    sweep.run()
    run = sweep.store.named("#2")
    assert sweep.states[2] == "pruned"
    assert (run["status"], run["tags"]["pruned"]) == ("KILLED", "true")
    assert run["tags"][tags.REASON] == "0.1 is below 0.5"


def failed(cause: str = "error") -> list[Event]:
    word = Failed(cause=cause, message="ValueError: no", traceback="Traceback: no")  # type: ignore[arg-type]
    return [word, Exited()]


def test_a_trial_that_raises_is_recorded_with_its_traceback_and_the_sweep_goes_on(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, lambda number: failed() if number == 1 else complete(0.5)).run()
    run = sweep.store.named("#1")
    assert (run["status"], run["tags"][tags.ERROR]) == ("FAILED", "ValueError: no")
    assert ("traceback.txt", "") in run["artifacts"]
    assert sweep.totals.count("complete") == 5


def test_a_trial_is_started_with_as_many_ranks_as_its_slot_has_devices(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, lambda number: complete(0.5), num_trials=2, devices=3).run()
    assert sweep.launcher.num_ranks == {0: 3, 1: 3}


def test_memory_that_runs_out_is_named_as_the_cause(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, lambda number: failed("memory"), num_trials=1).run()
    assert sweep.search.told[0][2] == "out of memory: ValueError: no"


def test_too_many_failures_stop_the_sweep(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, lambda number: failed(), num_trials=20, max_failures=3, slots=1).run()
    assert sweep.totals.stopped == "failures"
    assert len(sweep.search.told) == 4


def test_the_first_interrupt_stops_gracefully(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, lambda number: complete(0.5, reports=100))
    sweep.launcher.on_poll = lambda polls: sweep.driver.interrupt() if polls == 3 else None
    sweep.run()
    assert sweep.states == {0: "interrupted", 1: "interrupted"}
    assert sweep.launcher.killed == []
    assert sweep.store.named("#0")["status"] == "KILLED"


def test_the_second_interrupt_kills_what_does_not_stop(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, lambda number: complete(0.5, reports=100))
    sweep.launcher.deaf = {0, 1}
    sweep.launcher.on_poll = lambda polls: sweep.driver.interrupt() if polls in (3, 5) else None
    sweep.run()
    assert sweep.launcher.killed == [0, 1]
    assert sweep.states == {0: "interrupted", 1: "interrupted"}


def test_a_trial_that_does_not_stop_in_time_is_killed(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, lambda number: complete(0.5, reports=100), timeout_s=5, grace_s=2, slots=1)
    sweep.launcher.deaf = {0}

    def let_time_pass(polls: int) -> None:
        sweep.now = float(polls)

    sweep.launcher.on_poll = let_time_pass
    sweep.run()
    assert sweep.totals.stopped == "timeout"
    assert sweep.launcher.killed == [0]
    assert sweep.display.notes == ["timeout"]


def test_a_grid_that_is_exhausted_ends_the_sweep(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, lambda number: complete(0.5), num_trials=20)
    sweep.search.size = 3
    assert len(sweep.run().search.told) == 3


def test_metrics_and_artifacts_reach_the_run(tmp_path: Path) -> None:
    points = tuple(MetricPoint("train/loss", 1.0 / (step + 1), step, step) for step in range(3))
    events = [
        Started(time_s=0.0, num_parameters=10),
        Metrics(points=points[:2]),
        Progress(epoch=0, max_epochs=1, step=2, num_steps=3),
        Metrics(points=points[2:]),
        Report(value=0.7, step=0),
        Artifact(path=str(tmp_path / "best.ckpt"), artifact_path="checkpoints"),
        Finished(state="complete", value=0.7),
        Exited(),
    ]
    sweep = Sweep(tmp_path, lambda number: events, num_trials=1).run()
    run = sweep.store.named("#0")
    assert run["points"] == list(points)
    assert run["artifacts"] == [("config.yaml", ""), ("best.ckpt", "checkpoints")]
    assert (run["status"], run["tags"][tags.VALUE]) == ("FINISHED", "0.7")


def test_a_frozen_config_is_written_before_the_rank_starts(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, lambda number: complete(0.5), num_trials=1).run()
    assert Path(sweep.launcher.jobs[0].folder, "config.yaml").read_text() == "x: 0\nseed: 0\n"


def test_an_error_of_the_driver_ends_the_runs_of_what_it_cuts_off(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, lambda number: complete(0.5, reports=100))

    def fail(polls: int) -> None:
        if polls == 3:
            raise StoreError("the study's storage does not answer")

    sweep.launcher.on_poll = fail
    with pytest.raises(StoreError):
        sweep.driver.run()
    sweep.recorder.close()
    assert [sweep.store.named(name)["status"] for name in ("#0", "#1")] == ["KILLED", "KILLED"]
