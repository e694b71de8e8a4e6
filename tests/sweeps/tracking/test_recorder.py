"""The recorder keeps what it is given, whatever the store does."""

import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeStore

from sweeps.core.errors import StoreError
from sweeps.core.messages import MetricPoint
from sweeps.tracking.client import MlflowStore
from sweeps.tracking.recorder import Recorder
from sweeps.tracking.store import Unsent


def point(step: int) -> MetricPoint:
    return MetricPoint("val/acc", step / 10, step, 1000 + step)


def make(store: FakeStore, folder: Path, timeout_s: float = 5.0) -> Recorder:
    recorder = Recorder(lambda: store, unsent=folder / "unsent.jsonl", timeout_s=timeout_s)
    recorder.start("study", "parent", params={}, run_tags={})
    recorder.start(0, "child", params={"lr": 0.1}, run_tags={"a": "b"}, parent="study")
    return recorder


def test_a_child_is_joined_to_its_parent(tmp_path: Path) -> None:
    store = FakeStore()
    recorder = make(store, tmp_path)
    assert recorder.close() == 0
    assert store.named("child")["parent"] == recorder.run_id("study")


def test_points_that_wait_together_are_written_together_and_in_order(tmp_path: Path) -> None:
    store = FakeStore()
    recorder = make(store, tmp_path)
    recorder.wait_until_open()
    for step in range(50):
        recorder.metrics(0, [point(step)])
    recorder.end(0, "FINISHED", {})
    recorder.close()
    run = store.named("child")
    assert [p.step for p in run["points"]] == list(range(50))
    assert run["batches"] < 50
    assert run["status"] == "FINISHED"


def test_a_store_that_is_down_for_a_while_loses_nothing(tmp_path: Path) -> None:
    store = FakeStore(failures=2)
    recorder = make(store, tmp_path)
    recorder.metrics(0, [point(1)])
    assert recorder.close() == 0
    assert store.named("child")["points"] == [point(1)]


@pytest.mark.parametrize("case", ["a folder for a file", "a step beyond 64 bits"])
def test_what_the_store_never_takes_holds_up_nothing_behind_it(case: str, tmp_path: Path, empty_mlflow: Path) -> None:
    database = shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    store = MlflowStore(f"sqlite:///{database}", "an experiment", tmp_path / "artifacts")
    recorder = Recorder(lambda: store, unsent=tmp_path / "unsent.jsonl", timeout_s=5.0)
    recorder.start(0, "child", params={}, run_tags={})
    if case == "a step beyond 64 bits":
        recorder.metrics(0, [point(2**63)])
    else:
        (tmp_path / "rank0.log").mkdir()
        recorder.artifact(0, tmp_path / "rank0.log")
    recorder.metrics(0, [point(1)])
    assert recorder.wait_until_written(5.0), "it is tried again and again"
    run_id = recorder.run_id(0)
    assert run_id is not None and store.steps_from(run_id, 0) == {"val/acc": [1]}
    assert recorder.close() == 1


def test_what_waits_for_a_write_is_called_after_it(tmp_path: Path) -> None:
    store, seen = FakeStore(failures=2), []
    recorder = make(store, tmp_path)
    for step in ("1", "2"):
        recorder.tags(0, {"step": step})
        recorder.when_written(0, lambda: seen.append(store.named("child")["tags"]["step"]))
    assert recorder.close() == 0
    assert seen == ["1", "2"]


def test_what_waits_for_a_write_that_a_dead_store_does_not_take_is_not_kept_in_a_file(tmp_path: Path) -> None:
    recorder = make(FakeStore(failures=10**9), tmp_path, timeout_s=0.1)
    recorder.when_written(0, lambda: None)
    assert recorder.close() == 4
    assert len((tmp_path / "unsent.jsonl").read_text().splitlines()) == 4


def test_what_a_dead_store_does_not_take_is_kept_in_a_file(tmp_path: Path) -> None:
    store = FakeStore()
    recorder = make(store, tmp_path, timeout_s=0.3)
    recorder.wait_until_open()
    while recorder.run_id(0) is None:
        pass
    store.failures = 10_000
    recorder.metrics(0, [point(1)])
    recorder.end(0, "FINISHED", {"state": "complete"})
    assert recorder.close() == 2
    kept = [json.loads(line) for line in (tmp_path / "unsent.jsonl").read_text().splitlines()]
    assert [record["kind"] for record in kept] == ["metrics", "end"]
    assert kept[0]["run_id"] == recorder.run_id(0)
    assert kept[0]["arguments"]["points"][0]["value"] == 0.1


def test_a_request_that_the_store_refuses_does_not_hold_up_the_others(tmp_path: Path) -> None:
    store = FakeStore()
    recorder = make(store, tmp_path)
    recorder.metrics("no such run", [point(1)])
    recorder.metrics(0, [point(2)])
    assert recorder.close() == 1
    assert store.named("child")["points"] == [point(2)]


def test_a_store_that_cannot_be_opened_is_an_error_for_who_waits(tmp_path: Path) -> None:
    def refuse() -> FakeStore:
        raise StoreError("no such store")

    recorder = Recorder(refuse, unsent=tmp_path / "unsent.jsonl")
    with pytest.raises(StoreError, match="no such store"):
        recorder.wait_until_open()


def test_a_second_try_makes_no_second_run(tmp_path: Path) -> None:
    store = FakeStore()
    recorder = make(store, tmp_path)
    recorder.wait_until_open()
    store.failures = 1
    recorder.start(1, "another", params={"lr": 0.2}, run_tags={}, parent="study")
    assert recorder.close() == 0
    assert [run["name"] for run in store.runs.values()].count("another") == 1
    assert store.named("another")["params"] == {"lr": 0.2}


def test_nothing_is_tried_after_the_deadline(tmp_path: Path) -> None:
    store = FakeStore()
    recorder = make(store, tmp_path, timeout_s=-1.0)
    while recorder.run_id(0) is None:
        pass
    store.failures = 10_000  # each try would fail, and none is made
    for step in range(5):
        recorder.tags(0, {"step": str(step)})
    recorder.close()
    kept = [json.loads(line) for line in (tmp_path / "unsent.jsonl").read_text().splitlines()]
    assert [record["arguments"]["run_tags"]["step"] for record in kept if record["kind"] == "tags"] == list("01234")


def test_a_run_that_goes_on_gets_no_point_twice_though_a_try_fails(tmp_path: Path) -> None:
    store = FakeStore()
    first = make(store, tmp_path)
    first.metrics(0, [point(step) for step in range(6)])
    first.metrics(0, [point(5)])  # a metric may have two points at a step
    first.close()
    second = Recorder(lambda: store, unsent=tmp_path / "unsent.jsonl", timeout_s=5)
    second.wait_until_open()
    store.failures = 2
    second.resume(0, first.run_id(0), step=4)
    second.metrics(0, [point(4), point(5)])
    second.metrics(0, [point(5), point(6)])
    second.end(0, "FINISHED", {})
    assert second.close() == 0
    assert [found.step for found in store.named("child")["points"]] == [0, 1, 2, 3, 4, 5, 5, 6]


class SlowStore(FakeStore):
    def set_tags(self, run_id, run_tags):
        time.sleep(0.002)
        super().set_tags(run_id, run_tags)


def test_trials_wait_for_a_store_that_is_slower_than_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.tracking.recorder._MAX_BEHIND", 20)
    monkeypatch.setattr("sweeps.tracking.recorder._MAX_AT_ONCE", 5)
    store = SlowStore()
    recorder = make(store, tmp_path)
    for number in range(100):
        recorder.tags(0, {str(number): ""})
    recorder.start(1, "next", params={}, run_tags={}, parent="study")
    assert len(store.named("child")["tags"]) > 80
    assert recorder.close() == 0
    assert store.named("next")["parent"] == recorder.run_id("study")


def test_trials_do_not_wait_for_a_store_that_is_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.tracking.recorder._MAX_BEHIND", 20)
    store = FakeStore()
    recorder = make(store, tmp_path, timeout_s=0.0)
    while recorder.run_id(0) is None:
        pass
    store.failures = 10_000
    for number in range(100):
        recorder.tags(0, {str(number): ""})
    while recorder._is_answered:
        pass
    began = time.monotonic()
    recorder.start(1, "next", params={}, run_tags={}, parent="study")
    assert time.monotonic() - began < 10
    assert recorder.close() == 102


def noting(store: FakeStore, folder: Path, interval_s: float) -> Recorder:
    recorder = Recorder(lambda: store, unsent=folder / "unsent.jsonl", note_interval_s=interval_s)
    recorder.start("study", "parent", params={}, run_tags={})
    recorder.start(0, "child", params={}, run_tags={}, parent="study")
    return recorder


def test_a_note_points_to_runs_by_the_ids_that_the_store_gave_them(tmp_path: Path) -> None:
    store = FakeStore()
    recorder = noting(store, tmp_path, interval_s=0.0)
    recorder.note("study", lambda pages: f"best: {pages.run(0)}, {pages.run(7)}")
    recorder.close()
    link = f"#/experiments/1/runs/{recorder.run_id(0)}?workflowType=machine_learning"
    assert store.named("parent")["tags"]["mlflow.note.content"] == f"best: {link}, None"


def test_of_notes_that_follow_each_other_only_the_last_is_written_and_with_the_end(tmp_path: Path) -> None:
    store, written = FakeStore(), []
    recorder = noting(store, tmp_path, interval_s=1000.0)
    for number in range(5):
        recorder.note(0, lambda pages, number=number: written.append(number) or str(number))  # type: ignore[misc]
    recorder.end(0, "FINISHED", {"a": "b"})
    recorder.close()
    assert written == [4]
    assert store.named("child")["tags"] == {"a": "b", "mlflow.note.content": "4"}


def test_a_note_is_written_while_nothing_else_happens(tmp_path: Path) -> None:
    store, is_written = FakeStore(), threading.Event()
    recorder = noting(store, tmp_path, interval_s=0.05)
    recorder.note(0, lambda pages: is_written.set() or "running")  # type: ignore[func-returns-value]
    assert is_written.wait(10)
    recorder.close()


def test_a_note_that_raises_ends_neither_the_thread_nor_the_record(tmp_path: Path) -> None:
    store = FakeStore()
    recorder = noting(store, tmp_path, interval_s=0.0)
    recorder.note(0, lambda pages: str(1 / 0))
    recorder.metrics(0, [point(1)])
    recorder.end(0, "FINISHED", {})
    assert recorder.close() == 0
    assert store.named("child")["status"] == "FINISHED" and store.named("child")["points"] == [point(1)]


def test_a_note_points_to_runs_of_an_earlier_driver(tmp_path: Path) -> None:
    store = FakeStore()
    recorder = noting(store, tmp_path, interval_s=1000.0)
    recorder.wait_until_open()
    recorder.know({7: "earlier", 0: "not this one"})
    recorder.note("study", lambda pages: f"{pages.run(7)} {pages.artifact(7, 'a b.html')}")
    recorder.end("study", "FINISHED", {})
    recorder.close()
    text = store.named("parent")["tags"]["mlflow.note.content"]
    assert "/runs/earlier?" in text and "/runs/earlier/artifacts/a%20b.html?" in text


def test_link_in_place_of_a_log_publishes_nothing(tmp_path: Path) -> None:
    """Logs are found by their names, in a folder that others may write to."""
    (tmp_path / "id_rsa").write_text("private")
    (tmp_path / "rank7.log").symlink_to(tmp_path / "id_rsa")
    (tmp_path / "rank0.log").write_text("a line")
    store = FakeStore()
    recorder = make(store, tmp_path)
    for name in ("rank0.log", "rank7.log"):
        recorder.artifact(0, tmp_path / name)

    assert recorder.close() == 1
    assert store.named("child")["artifacts"] == [("rank0.log", "")]
    (line,) = (tmp_path / "unsent.jsonl").read_text().splitlines()
    assert "rank7.log must be a file, but is a link or none: it is not recorded" in line and "private" not in line


def test_unsent_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("own")
    (tmp_path / "unsent.jsonl").symlink_to(tmp_path / "own")
    recorder = make(FakeStore(), tmp_path)
    recorder.artifact(0, tmp_path / "gone.log")

    assert recorder.close() == 1
    assert (tmp_path / "own").read_text() == "own" and "gone.log" in (tmp_path / "unsent.jsonl").read_text()


# --- what the store refuses ----------------------------------------------------------------------------


class StrictStore(FakeStore):
    """Refuses a batch that has something bad in it, as MLflow does, and counts what it is asked."""

    num_asked = 0

    def _require(self, is_good: bool) -> None:
        self.num_asked += 1
        if not is_good:
            raise TypeError("refused")

    def create_run(self, name, *, run_tags, parent, start_time_ms):
        self._require("bad" not in run_tags)
        return super().create_run(name, run_tags=run_tags, parent=parent, start_time_ms=start_time_ms)

    def log_metrics(self, run_id, points):
        self._require(not any(p.key == "bad" or p.value < 0 for p in points))
        super().log_metrics(run_id, points)

    def log_params(self, run_id, params):
        self._require("bad" not in params)
        super().log_params(run_id, params)

    def set_tags(self, run_id, run_tags):
        self._require("bad" not in run_tags)
        super().set_tags(run_id, run_tags)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "unsent.jsonl").read_text().splitlines()]


def test_one_bad_point_of_a_thousand_takes_none_with_it(tmp_path: Path) -> None:
    store = StrictStore()
    recorder = make(store, tmp_path)
    recorder.wait_until_open()
    points = [MetricPoint(f"metric{step % 10}", -1.0 if step == 777 else 1.0, step, 1000) for step in range(1000)]
    recorder.metrics(0, points)
    assert recorder.close() == 1
    kept = store.named("child")["points"]
    assert sorted(p.step for p in kept) == [step for step in range(1000) if step != 777]
    assert store.num_asked < 30
    assert [p["step"] for line in lines_of(tmp_path) for p in line["arguments"]["points"]] == [777]
    assert recorder.unsent == Unsent(file=tmp_path / "unsent.jsonl", records=("metric7 of trial 0",))


def test_a_metric_that_is_always_refused_takes_no_other_with_it(tmp_path: Path) -> None:
    store = StrictStore()
    recorder = make(store, tmp_path)
    recorder.metrics(0, [MetricPoint(key, 1.0, step, 1000) for step in range(300) for key in ("a", "bad", "c")])
    recorder.end(0, "FINISHED", {})
    assert recorder.close() == 300
    run = store.named("child")
    assert run["status"] == "FINISHED"
    assert [(p.key, p.step) for p in run["points"] if p.key == "a"] == [("a", step) for step in range(300)]
    assert sum(p.key == "c" for p in run["points"]) == 300
    assert set(recorder.unsent.records) == {"bad of trial 0"}


def test_what_was_written_of_a_batch_is_not_written_twice(tmp_path: Path) -> None:
    store = StrictStore()
    recorder = make(store, tmp_path)
    recorder.metrics(0, [MetricPoint("a", -1.0 if step == 1500 else 1.0, step, 1000) for step in range(2500)])
    assert recorder.close() == 1
    assert [p.step for p in store.named("child")["points"]] == [step for step in range(2500) if step != 1500]


class DownAfterTheFirst(FakeStore):
    """Is down once, after it has taken a batch."""

    def log_metrics(self, run_id, points):
        super().log_metrics(run_id, points)
        self.failures = 1 if len(self.runs[run_id]["points"]) == len(points) else 0


def test_a_second_try_begins_where_the_first_ended(tmp_path: Path) -> None:
    store = DownAfterTheFirst()
    recorder = make(store, tmp_path)
    recorder.metrics(0, [point(step) for step in range(2500)])
    assert recorder.close() == 0
    assert [p.step for p in store.named("child")["points"]] == list(range(2500))


def test_a_param_and_a_tag_that_are_refused_take_nothing_with_them(tmp_path: Path) -> None:
    store = StrictStore()
    recorder = make(store, tmp_path)
    recorder.start(1, "another", params={"a": 1, "bad": 2, "c": 3}, run_tags={"d": "4", "bad": "5", "e": "6"})
    recorder.end(1, "FINISHED", {"f": "7", "bad": "8", "state": "complete"})
    assert recorder.close() == 3
    run = store.named("another")
    assert run["params"] == {"a": 1, "c": 3}
    assert run["tags"] == {"d": "4", "e": "6", "f": "7", "state": "complete"}
    assert run["status"] == "FINISHED"
    assert set(recorder.unsent.records) == {"param bad of trial 1", "tag bad of trial 1"}


def test_a_run_that_is_deleted_is_not_asked_for_each_point(tmp_path: Path) -> None:
    store = StrictStore()
    recorder = make(store, tmp_path)
    recorder.metrics(0, [MetricPoint("a", -1.0, step, 1000) for step in range(3000)])
    recorder.metrics("no such run", [point(step) for step in range(100)])
    recorder.close()
    assert store.num_asked < 600
    assert sum(len(line["arguments"]["points"]) for line in lines_of(tmp_path)) == 3100
    assert [line["run"] for line in lines_of(tmp_path)].count("no such run") == 1


def test_what_json_cannot_write_is_kept_all_the_same(tmp_path: Path) -> None:
    store = FakeStore()
    recorder = make(store, tmp_path)
    recorder.metrics("no such run", [MetricPoint("a", 1j, 0, 1000)])  # type: ignore[arg-type]
    recorder.metrics(0, [point(1)])
    assert recorder.close() == 1
    assert store.named("child")["points"] == [point(1)]
    assert lines_of(tmp_path)[0]["arguments"]["points"][0]["value"] == "1j"
