"""The driver's rules, over fakes that behave."""

from pathlib import Path
from typing import Any

import pytest
from fakes import FakeDisplay, FakeLauncher, FakeSearch, FakeStore, complete

from sweeps.core.errors import StoreError
from sweeps.core.messages import (
    Artifact,
    DataContent,
    Event,
    Exited,
    Failed,
    Finished,
    MetricPoint,
    Metrics,
    Progress,
    Report,
    Started,
)
from sweeps.core.trials import Totals, TrialResult
from sweeps.driver.driver import Driver, Limits
from sweeps.driver.trial_runs import InterruptedRun, TrialSetup
from sweeps.launchers.slots import Slot
from sweeps.tracking import tags
from sweeps.tracking.recorder import Recorder


class Sweep:
    """A driver over fakes, with what a test looks at afterwards."""

    def __init__(
        self,
        folder: Path,
        script: Any,
        *,
        slots: int = 2,
        devices: int = 1,
        replicates: int = 1,
        objective: str | None = None,
        **limits: Any,
    ) -> None:
        self.store, self.search, self.display = FakeStore(), FakeSearch(), FakeDisplay()
        self.launcher = FakeLauncher(script)
        self.recorder = Recorder(lambda: self.store, unsent=folder / "unsent.jsonl", timeout_s=1)
        self.recorder.start("study", "study", params={}, run_tags={})
        self.now = 0.0
        self.driver = Driver(
            search=self.search,
            setup=TrialSetup(
                compose=lambda values, number, replicate: {"x": values["x"], "seed": number, "replicate": replicate},
                folder=lambda number: folder / str(number),
                name=lambda number, values: f"#{number}",
                run_tags={},
                prunes=True,
                replicates=replicates,
                objective=objective,
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


def outcome(number: int, state: Any) -> TrialResult:
    return TrialResult(
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
    (tmp_path / "best.ckpt").touch()
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
    size, *logged = run["points"]
    assert (size.key, size.value, size.step) == ("num_params", 10.0, 0)
    assert logged == list(points)
    assert run["artifacts"] == [("config.yaml", ""), ("best.ckpt", "checkpoints")]
    assert (run["status"], run["tags"][tags.VALUE]) == ("FINISHED", "0.7")


def test_a_model_that_is_too_large_is_killed_before_it_trains_and_pruned(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, lambda number: [Started(time_s=0.0, num_parameters=10**number), *complete(0.5)])
    sweep.search.largest = 100.0
    sweep.run()
    assert sweep.states == dict.fromkeys(range(3), "complete") | dict.fromkeys(range(3, 6), "pruned")
    assert sweep.launcher.killed == [3, 4, 5]
    assert sweep.search.told[3][2] == "not trained: too large"
    assert sweep.search.metrics[3] == {"num_params": 1000.0}


def test_what_a_model_that_is_too_large_had_said_before_it_was_killed_is_not_recorded(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, lambda number: [Started(time_s=0.0, num_parameters=1000)], num_trials=1)
    sweep.search.largest = 100.0
    sweep.launcher.on_their_way = [Metrics(points=(MetricPoint("loss", 1.0, 0, 0),)), *complete(0.5)[:-1]]
    sweep.run()
    assert sweep.states == {0: "pruned"}
    assert [point.key for point in sweep.store.named("#0")["points"]] == ["num_params"]


def test_the_search_is_told_all_metrics_and_the_size(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, lambda n: [Started(time_s=0.0, num_parameters=7), *complete(0.5)], num_trials=1).run()
    assert sweep.search.metrics[0] == {"num_params": 7.0, "val/acc": 0.5}


def test_a_frozen_config_is_written_before_the_rank_starts(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, lambda number: complete(0.5), num_trials=1).run()
    assert Path(sweep.launcher.jobs[0].folder, "config.yaml").read_text() == "x: 0\nseed: 0\nreplicate: 0\n"


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


# --- several trainings of a trial


def of(trials: dict[int, list[float]], replicates: int = 3) -> Any:
    """Scripts by training: the value of each replicate of each trial."""
    return lambda job: complete(trials[job // replicates][job % replicates])


def test_the_trainings_of_a_trial_end_in_their_mean(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, of({0: [0.1, 0.2, 0.3], 1: [0.5, 0.5, 0.5]}), replicates=3, num_trials=2).run()
    assert {n: (state, round(value or 0, 6)) for n, (state, value, _) in sweep.search.told.items()} == {
        0: ("complete", 0.2),
        1: ("complete", 0.5),
    }
    assert sweep.search.metrics[0]["val/acc_sem"] == pytest.approx(0.1 / 3**0.5)
    assert [outcome.number for outcome in sweep.totals.outcomes] == [0, 1]


def test_each_training_has_a_run_below_that_of_its_trial(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, of({0: [0.1, 0.2, 0.3]}), replicates=3, num_trials=1).run()
    ids = {run["name"]: run_id for run_id, run in sweep.store.runs.items()}
    trial = sweep.store.named("#0")
    assert trial["parent"] == ids["study"] and trial["status"] == "FINISHED"
    for index, value in enumerate((0.1, 0.2, 0.3)):
        run = sweep.store.named(f"#0 replicate {index}")
        assert run["parent"] == ids["#0"] and run["status"] == "FINISHED"
        assert (run["tags"][tags.KIND], run["tags"][tags.REPLICATE]) == ("replicate", str(index))
        assert (run["tags"][tags.VALUE], run["params"]["replicate"]) == (repr(value), index)
        assert sweep.launcher.jobs[index].folder == str(tmp_path / "0" / f"replicate{index}")
    means = [(point.step, point.value) for point in trial["points"] if point.key == "val/acc"]
    assert means == [(1, 0.1), (2, pytest.approx(0.15)), (3, pytest.approx(0.2))]


def test_trials_train_side_by_side_and_their_trainings_one_after_the_other(tmp_path: Path) -> None:
    order: list[tuple[int, int]] = []

    def script(job: int) -> list[Event]:
        order.append(divmod(job, 2))
        return complete(0.5)

    Sweep(tmp_path, script, replicates=2, num_trials=4).run()
    assert order == [(0, 0), (1, 0), (0, 1), (1, 1), (2, 0), (3, 0), (2, 1), (3, 1)]


def test_slots_that_no_trial_needs_train_the_rest_of_the_last_one(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, of({0: [0.1, 0.2, 0.3]}), replicates=3, num_trials=1, slots=3).run()
    assert sweep.launcher.most_at_once == 3
    assert sweep.states == {0: "complete"}


def test_a_hopeless_trial_is_spared_its_other_trainings(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, of({0: [0.1, 0.1, 0.1, 0.1]}, 4), replicates=4, num_trials=1, slots=1)
    sweep.search.hopeless = {0}
    sweep.run()
    assert sweep.launcher.jobs.keys() == {0, 1}
    assert sweep.search.told[0] == ("pruned", 0.1, "hopeless")
    assert sweep.store.named("#0")["tags"][tags.REASON] == "hopeless"


def test_only_the_first_training_is_judged_by_its_epochs(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, of({0: [0.9, 0.1, 0.9]}), replicates=3, num_trials=1, slots=1)
    sweep.search.threshold = 0.5
    sweep.run()
    assert sweep.states == {0: "complete"}
    sweep = Sweep(tmp_path / "2", of({0: [0.1, 0.9, 0.9]}), replicates=3, num_trials=1, slots=1)
    sweep.search.threshold = 0.5
    sweep.run()
    assert sweep.search.told[0][::2] == ("pruned", "replicate 0: 0.1 is below 0.5")
    assert sweep.launcher.jobs.keys() == {0}


def test_a_training_that_fails_fails_its_trial_with_its_story(tmp_path: Path) -> None:
    def script(job: int) -> list[Event]:
        return failed() if job == 1 else complete(0.5)

    sweep = Sweep(tmp_path, script, replicates=3, num_trials=2, slots=1).run()
    assert sweep.states == {0: "failed", 1: "complete"}
    assert sweep.search.told[0][2] == "replicate 1: ValueError: no"
    assert ("traceback.txt", "") in sweep.store.named("#0 replicate 1")["artifacts"]
    assert sweep.launcher.jobs.keys() == {0, 1, 3, 4, 5}


def test_an_interrupted_trial_keeps_what_it_has_and_ends_as_interrupted(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, lambda job: complete(0.5, reports=2), replicates=3, num_trials=2, slots=1)
    sweep.launcher.on_poll = lambda polls: sweep.driver.interrupt() if polls == 6 else None
    sweep.run()
    assert sweep.states == {0: "interrupted"}
    assert sweep.search.replicates[0].keys() == {0}
    statuses = {
        name: sweep.store.named(name)["tags"][tags.STATE] for name in ("#0", "#0 replicate 0", "#0 replicate 1")
    }
    assert statuses == {"#0": "interrupted", "#0 replicate 0": "complete", "#0 replicate 1": "interrupted"}


def test_only_a_trial_that_went_on_has_a_tag_of_the_time_it_trained(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, lambda job: complete(0.5), num_trials=2, slots=1)
    sweep.search.elapsed_s = {1: 41.5}
    sweep.launcher.on_poll = lambda polls: setattr(sweep, "now", sweep.now + 1.0)
    sweep.run()
    assert tags.TRAINED_S not in sweep.store.named("#0")["tags"]
    assert float(sweep.store.named("#1")["tags"][tags.TRAINED_S]) > 41.5


def test_a_trial_that_has_all_its_trainings_already_needs_none(tmp_path: Path) -> None:
    from sweeps.config.composer import freeze
    from sweeps.core.trials import TrialResult

    sweep = Sweep(tmp_path, of({0: [0.0] * 3, 1: [0.5] * 3}), replicates=3, num_trials=2, slots=1)
    freeze({"x": 0, "seed": 0, "replicate": None}, tmp_path / "0")
    object.__setattr__(sweep.driver._setup, "runs", {0: InterruptedRun(run_id="run7", resume_step=None)})
    sweep.store.runs["run7"] = {"tags": {}, "points": [], "status": "RUNNING", "artifacts": [], "name": "#0"}
    sweep.search.replicates[0] = {i: TrialResult(state="complete", value=0.25, metrics={"a": 1.0}) for i in range(3)}
    sweep.run()
    assert sweep.search.told[0][:2] == ("complete", 0.25)
    assert sweep.launcher.jobs.keys() == {3, 4, 5}
    assert sweep.store.runs["run7"]["status"] == "FINISHED"


@pytest.mark.parametrize("replicates", [1, 2])
def test_the_value_of_what_did_not_complete_is_the_objective_not_what_it_reports(
    tmp_path: Path, replicates: int
) -> None:
    def script(job: int) -> list[Event]:
        word = Finished(state="pruned", value=2.5, metrics={"val/acc": 0.75}, reason="too slow")
        return [Report(value=2.5, step=0), word, Exited()]

    sweep = Sweep(tmp_path, script, num_trials=1, replicates=replicates, objective="val/acc").run()
    assert sweep.totals.outcomes[0].value == 0.75
    assert {run["tags"].get(tags.VALUE) for run in sweep.store.runs.values()} == {None, "0.75"}  # None: the study's


def test_a_training_that_is_pruned_without_a_reason_spares_its_trial_the_others(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, lambda job: [Finished(state="pruned"), Exited()], replicates=3, num_trials=1, slots=1).run()
    assert (list(sweep.launcher.jobs), sweep.states) == ([0], {0: "pruned"})


def test_a_trial_that_goes_on_says_under_which_code_it_does(tmp_path: Path) -> None:
    from sweeps.config.composer import freeze

    sweep = Sweep(tmp_path, of({0: [0.5] * 3, 1: [0.5] * 3}), num_trials=2, slots=1)
    freeze({"x": 0, "seed": 0, "replicate": 0}, tmp_path / "0")
    runs = {0: InterruptedRun(run_id="run7", resume_step=None)}
    for name, value in (("runs", runs), ("provenance", "new")):
        object.__setattr__(sweep.driver._setup, name, value)
    before = {tags.PROVENANCE: "old"}
    sweep.store.runs["run7"] = {"tags": before, "points": [], "status": "RUNNING", "artifacts": [], "name": "#0"}
    sweep.run()
    assert {run["tags"].get(tags.PROVENANCE) for run in sweep.store.runs.values()} == {None, "new"}
    assert {job.provenance for job in sweep.launcher.jobs.values()} == {"new"}


def test_what_one_trial_has_told_of_the_data_the_next_one_knows(tmp_path: Path) -> None:
    def script(job: int) -> list[Event]:
        word = Finished(state="complete", value=0.5)
        return [DataContent(content={"train": "it"}, ignores=("seed",)), word, Exited()]

    sweep = Sweep(tmp_path, script, num_trials=2, slots=1).run()
    assert [job.known_data for job in sweep.launcher.jobs.values()] == [None, {"train": "it"}]
