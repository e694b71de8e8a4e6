"""What differs of a run and its reproduction: where training stops, and what the original's tag gets."""

from typing import Any

import pytest

from sweeps.reproduce.comparison import differences_of_traces, known_differences, last_epoch, summary_for
from sweeps.reproduce.original import IncompleteError, Original
from sweeps.reproduce.trace import Epoch, Segment, Trace
from sweeps.reproduce.verdict import Evidence, Verdict
from sweeps.tracking.runs import StoredRun

RUN = {"run_id": "r", "name": "n", "status": "RUNNING", "start_ms": 0, "end_ms": None, "tags": {}, "metrics": {}}
RUN |= {"params": {}, "artifact_uri": ""}
BEGIN = Segment(begins=0, config="c", seed=0, provenance="", ranks=({"threads": 1},), weights=("w",))


def recorded(state: str, num_epochs: int, num_points: int, **what: Any) -> Original:
    """Return a run of epochs of ten steps, with points of as many steps."""
    epochs = tuple(
        Epoch(epoch=n, step=10 * (n + 1), metrics_end=10 * (n + 1), batches=10, order=("o",), weights=("w",))
        for n in range(num_epochs)
    )
    trace = what.get("trace", Trace(segments=(BEGIN,), epochs=epochs))
    points = {"loss": [(step, 1.0) for step in range(num_points)]} if num_points else {}
    return Original(
        name="train#0",
        notes=(),
        run=StoredRun(**RUN),
        state=state,
        config=what.get("config", {}),
        edited=(),
        evidence=Evidence(trace=trace, points=points, value=None),
        provenance={},
        replicates=(),
    )


@pytest.mark.parametrize(
    ("state", "num_epochs", "num_points", "epochs", "last", "is_part"),
    [
        ("complete", 3, 30, None, None, False),
        ("complete", 3, 30, 3, None, False),
        ("complete", 3, 30, 2, 1, True),
        ("pruned", 3, 30, None, 2, False),
        ("pruned", 3, 30, 1, 0, True),
        ("running", 5, 30, None, 2, False),  # killed: the trace is ahead of the points
        ("running", 5, 34, None, 2, False),
        ("running", 5, 30, 4, 2, False),
        ("failed", 2, 26, None, 1, False),  # the points are ahead of the trace
    ],
)
def test_training_stops_where_trace_and_metrics_of_the_record_end(
    state: str, num_epochs: int, num_points: int, epochs: int | None, last: int | None, is_part: bool
) -> None:
    found = last_epoch(recorded(state, num_epochs, num_points), epochs)
    assert (found[0] and found[0].epoch, found[1]) == (last, is_part)


def test_where_no_epoch_is_whole_there_is_nothing_to_compare() -> None:
    for num_epochs, num_points in ((0, 7), (2, 7), (2, 0)):
        with pytest.raises(IncompleteError, match="there is nothing to compare"):
            last_epoch(recorded("failed", num_epochs, num_points), None)
    with pytest.raises(IncompleteError, match="--epochs needs a trace"):
        last_epoch(recorded("complete", 0, 30), 2)
    assert last_epoch(recorded("pruned", 0, 7, trace=Trace()), None) == (None, False)


def test_a_verdict_over_the_first_epochs_never_takes_the_place_of_one_over_all() -> None:
    exact = Verdict(kind="exact", reason="So.", num_epochs=1)
    assert summary_for(exact, "", is_part=True) == "exact (the first epoch): So."
    assert summary_for(exact, "exact (the first epoch): So.", is_part=True) is not None
    assert summary_for(exact, "exact: So.", is_part=True) is None
    assert summary_for(exact, "diverged: epochs differ (the first 2).", is_part=True) is None
    assert summary_for(exact, "exact (the first 2 epochs): So.", is_part=False) == "exact: So."
    two = Verdict(kind="diverged", reason="So.", num_epochs=2)
    assert summary_for(two, "", is_part=True) == "diverged (the first 2 epochs): So."
    assert summary_for(two, "exact: So.", is_part=False) == "diverged: So."


def test_threads_devices_and_an_edited_config_are_known_to_differ_before_training() -> None:
    segment = Segment(
        begins=0, config="c", seed=3, provenance="", ranks=({"threads": 2, "device": "cuda"},), weights=()
    )
    original = recorded("complete", 1, 10, trace=Trace(segments=(segment,)), config={"seed": 4})
    found = known_differences(original, {}, threads=1, has_gpu=False)
    assert found["threads"] == ["threads 2 (now 1)"]
    assert found["hardware"] == ["device cuda (now cpu)"]
    assert len(found["seed"]) == len(found["configuration"]) == 1


def test_without_traces_all_files_that_differ_count_as_code() -> None:
    known = {"code": ["mine.py"], "data": ["forecast"]}
    assert differences_of_traces(known, Trace(), Trace())["code"] == ["mine.py"]


def test_a_file_that_training_has_not_imported_is_not_code() -> None:
    found = differences_of_traces(
        {"code": ["a/mine.py", "sweeps/x.py"]}, Trace(segments=(BEGIN,)), Trace(segments=(BEGIN,))
    )
    assert found["code"] == ["sweeps/x.py"] and found["other files"] == ["a/mine.py"]
