"""The file of a trace: whole after a crash, and after a training that went on."""

from pathlib import Path

import pytest

from sweeps.core import paths
from sweeps.reproduce.trace import Epoch, Segment, TraceFile, read_trace


def segment(begins: int, provenance: str = "here") -> Segment:
    return Segment(begins=begins, config="c", seed=1, provenance=provenance, ranks=({"threads": 1},), weights=("w",))


def epoch(number: int, word: str = "first") -> Epoch:
    return Epoch(
        epoch=number,
        step=10 * (number + 1),
        metrics_end=10 * (number + 1),
        batches=10,
        order=(f"o{number}",),
        weights=(f"{word}{number}",),
    )


def written(folder: Path, num_epochs: int) -> TraceFile:
    file = TraceFile(folder)
    file.begin(segment(0))
    for number in range(num_epochs):
        file.add(epoch(number))
    return file


def test_what_was_written_is_read(tmp_path: Path) -> None:
    file = written(tmp_path, 2)
    file.tell_data({"train": {"hash": "d"}})
    trace = read_trace(tmp_path / paths.TRACE)
    assert trace.segments == (segment(0),)
    assert trace.epochs == (epoch(0), epoch(1))
    assert trace.data == {"train": {"hash": "d"}} and trace.is_whole


def test_a_training_that_goes_on_replaces_later_epochs(tmp_path: Path) -> None:
    written(tmp_path, 4).tell_data({"train": "stale"})
    file = TraceFile(tmp_path)
    file.begin(segment(2, "there"))
    file.add(epoch(2, "again"))
    trace = read_trace(file.path)
    assert trace.epochs == (epoch(0), epoch(1), epoch(2, "again"))
    assert [(part.begins, part.provenance) for part in trace.segments] == [(0, "here"), (2, "there")]
    assert trace.data == {}


def test_a_training_that_goes_on_from_before_it_went_on_forgets_that(tmp_path: Path) -> None:
    written(tmp_path, 4)
    for begins in (3, 1):
        file = TraceFile(tmp_path)
        file.begin(segment(begins, str(begins)))
        file.add(epoch(begins, "again"))
    trace = read_trace(file.path)
    assert trace.epochs == (epoch(0), epoch(1, "again"))
    assert [part.provenance for part in trace.segments] == ["here", "1"]


def test_a_training_that_begins_anew_replaces_all(tmp_path: Path) -> None:
    written(tmp_path, 3)
    assert read_trace(written(tmp_path, 1).path).epochs == (epoch(0),)


@pytest.mark.parametrize(
    "junk", [b'{"epoch": 2, "st', b"\x00\xff\n", b"[" * 100_000 + b"\n", b'{"epoch": 2}\n', b"7\n"]
)
def test_a_line_that_cannot_be_read_ends_the_trace(tmp_path: Path, junk: bytes) -> None:
    file = written(tmp_path, 2)
    with file.path.open("ab") as stream:
        stream.write(junk)
    assert read_trace(file.path).epochs == (epoch(0), epoch(1))
    assert not read_trace(file.path).is_whole  # of what was lost nothing can be proved
    file.begin(segment(2))  # what goes on after such a line is read again
    file.add(epoch(2))
    assert [item.epoch for item in read_trace(file.path).epochs] == [0, 1, 2]


def test_an_older_trace_without_the_end_of_metrics_is_read(tmp_path: Path) -> None:
    file = written(tmp_path, 1)
    file.path.write_text(file.path.read_text().replace('"metrics_end": 10, ', ""))
    assert read_trace(file.path).epochs == (epoch(0),)


def test_no_file_is_an_empty_trace(tmp_path: Path) -> None:
    assert not read_trace(tmp_path / "none").is_whole
