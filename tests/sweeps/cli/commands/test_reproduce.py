"""`reproduce` without a training: where it stops, what the original is told, and which records it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sweeps.cli.commands.reproduce import ReproduceRequest, _last_epoch, _told, reproduce
from sweeps.config.composer import Composer, to_yaml
from sweeps.core import paths
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
        config={},
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
    found = _last_epoch(recorded(state, num_epochs, num_points), epochs)
    assert (found[0] and found[0].epoch, found[1]) == (last, is_part)


def test_where_no_epoch_is_whole_there_is_nothing_to_compare() -> None:
    for num_epochs, num_points in ((0, 7), (2, 7), (2, 0)):
        with pytest.raises(IncompleteError, match="there is nothing to compare"):
            _last_epoch(recorded("failed", num_epochs, num_points), None)
    with pytest.raises(IncompleteError, match="--epochs needs a trace"):
        _last_epoch(recorded("complete", 0, 30), 2)
    assert _last_epoch(recorded("pruned", 0, 7, trace=Trace()), None) == (None, False)


def test_a_verdict_over_the_first_epochs_never_takes_the_place_of_one_over_all() -> None:
    exact = Verdict(kind="exact", reason="So.", num_epochs=1)
    assert _told(exact, "", is_part=True) == "exact (the first epoch): So."
    assert _told(exact, "exact (the first epoch): So.", is_part=True) is not None
    assert _told(exact, "exact: So.", is_part=True) is None
    assert _told(exact, "diverged: epochs differ (the first 2).", is_part=True) is None
    assert _told(exact, "exact (the first 2 epochs): So.", is_part=False) == "exact: So."
    two = Verdict(kind="diverged", reason="So.", num_epochs=2)
    assert _told(two, "", is_part=True) == "diverged (the first 2 epochs): So."
    assert _told(two, "exact: So.", is_part=False) == "diverged: So."


@pytest.mark.parametrize("devices", ["x", [0], None, True, 1.5])
@pytest.mark.parametrize("key", ["devices", "num_nodes"])
def test_a_record_with_devices_of_another_kind_is_incomplete(tmp_path: Path, key: str, devices: Any) -> None:
    config = Composer("train", [f"store_dir={tmp_path}", "trainer=cpu"]).trial({}, seed=0)
    config["trainer"][key] = devices
    (tmp_path / "it").mkdir()
    (tmp_path / "it" / paths.CONFIG).write_text(to_yaml(config))
    record = {"name": "train#0", "notes": [], "state": "complete", "edited": [], "value": 0.5, "replicates": []}
    (tmp_path / "it" / "run.json").write_text(json.dumps(record | {"points": {}, "run": RUN}))
    request = ReproduceRequest(run=str(tmp_path / "it"), store_dir=tmp_path)
    found = reproduce(request, Console(quiet=True), say=lambda line: None)
    assert found.verdict.kind == "not verifiable"
    assert f"trainer.{key} must be a whole number, but the record has {devices!r}" in found.verdict.reason
