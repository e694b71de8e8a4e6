"""The report that a sweep leaves: what it needs, and that nothing of it harms the sweep."""

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeStore

from sweeps.driver.trial_runs import PARENT
from sweeps.report import build as run_report
from sweeps.report.build import FinalReport
from sweeps.tracking.recorder import Recorder


def recorder_of(store: FakeStore, folder: Path) -> Recorder:
    recorder = Recorder(lambda: store, unsent=folder / "unsent.jsonl", timeout_s=1.0)
    recorder.start(PARENT, "parent", params={}, run_tags={})
    return recorder


def final(recorder: Recorder, folder: Path, *, is_on: bool = True) -> FinalReport:
    return FinalReport("a", folder / "a", recorder, uri=None, is_on=is_on)


def test_a_report_that_fails_is_one_line_and_the_sweep_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = FakeStore()
    recorder = recorder_of(store, tmp_path)
    final(recorder, tmp_path).leave("complete")  # there is no database
    recorder.end(PARENT, "FINISHED", {})
    assert recorder.close() == 0
    assert store.named("parent")["status"] == "FINISHED"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("no report on a: StoreError: There is no store at")


def test_an_interrupt_ends_the_report_and_not_the_sweep(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_report, "load_study", interrupted)
    recorder = recorder_of(FakeStore(), tmp_path)
    final(recorder, tmp_path).leave("complete")
    assert recorder.close() == 0
    assert "interrupted" in caplog.text


def test_no_report_is_made_of_what_the_store_has_not_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_report, "_PATIENCE_S", 0.05)
    recorder = recorder_of(FakeStore(failures=1_000), tmp_path)
    final(recorder, tmp_path).leave("complete")
    assert caplog.records[-1].getMessage().startswith("no report on a: the tracking store")
    recorder.close()


def test_nothing_is_done_where_no_report_is_wanted(tmp_path: Path) -> None:
    store = FakeStore()
    recorder = recorder_of(store, tmp_path)
    report = final(recorder, tmp_path, is_on=False)
    report.prepare()
    report.leave("complete")
    recorder.close()
    assert store.named("parent")["artifacts"] == []
    assert not (tmp_path / "a").exists()


def test_a_recorder_says_when_all_is_written(tmp_path: Path) -> None:
    store = FakeStore()
    recorder = recorder_of(store, tmp_path)
    recorder.tags(PARENT, {"a": "b"})
    assert recorder.wait_until_written(5.0)
    assert store.named("parent")["tags"] == {"a": "b"}
    recorder.close()


def test_importances_are_found_without_scikit_learn_and_leave_optunas_package_whole() -> None:
    program = (
        "import sys, sweeps.search.importance as it; found = it._evaluator_type(); "
        "assert 'sklearn' not in sys.modules; "
        "from optuna.importance import PedAnovaImportanceEvaluator as own, get_param_importances; assert found is own"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


def test_a_store_that_mlflow_made_with_odd_runs_has_a_report_on_each_study(filled: Any, tmp_path: Path) -> None:
    for name in ("a", "front", "it's 50%#1", "train"):
        report = run_report.make_report(name, store_dir=tmp_path, uri=filled.uri)
        report.write(tmp_path / "report.html")
        assert [file.suffix for file in report.write_plots(tmp_path / "plots")]
        assert "<h1>" in (tmp_path / "report.html").read_text()
        assert "resume" not in {command.kind for command in report.commands}  # its folder is not here
