"""The report as a table and as JSON."""

import io
import json

import pytest
from rich.console import Console

from sweeps.cli.preflight_report import print_report
from sweeps.core.messages import Memory
from sweeps.driver.preflight_report import AvailableMemory, CheckReport, Size, Unused

MEMORY = Memory(parameters=1_000_000, gradients=1_000_000, optimizer=2_000_000, activations=500_000)
LARGEST = Size(values={"model.depth": 4}, num_parameters=250_000, memory=MEMORY)
REPORT = CheckReport(
    num_corners=3,
    num_run=2,
    elapsed_s=0.51,
    metrics=("train/loss", "val/acc"),
    smallest=Size(values={"model.depth": 1, "optimizer.lr": 0.1}, num_parameters=1_000, memory=None),
    largest=LARGEST,
    peak_memory=LARGEST,
    available=AvailableMemory(where="host", num_bytes=8_000_000, num_ranks=2),
    unread=("my_key",),
    unused=(Unused(names=tuple(f"net.{n}" for n in range(7)), values=None),),
)


def printed(form: str, *, is_terminal: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=is_terminal, width=200)
    print_report(REPORT, form, title="digits mlp", console=console, out=out)  # type: ignore[arg-type]
    return out.getvalue()


def test_plain_text_has_a_line_for_each_thing() -> None:
    lines = printed("table").splitlines()
    assert lines[0] == "digits mlp"
    assert lines[1] == "corners     3 built, 2 of them run, two batches each, in 0.5 s"
    assert lines[2] == "parameters  1,000 with model.depth=1 optimizer.lr=0.1, to 250,000 with model.depth=4"
    assert lines[3] == "memory      about 4.5 MB a rank with model.depth=4; an estimate"
    assert lines[4].strip() == "parameters 1.0 MB, gradients 1.0 MB, optimizer 2.0 MB, activations of a batch 500 kB"
    assert lines[5] == "free        8.0 MB on the host, for 2 ranks at once"
    assert [line.partition(":")[0] for line in lines[7:]] == ["warning"] * 4


def test_a_long_list_of_parameters_is_cut() -> None:
    assert "net.3, net.4 and 2 more got no gradient" in printed("table")


def test_a_terminal_shows_the_same_words() -> None:
    shown = printed("table", is_terminal=True)
    assert "250,000 with model.depth=4" in shown and "8.0 MB on the host" in shown


def test_json_has_numbers_and_the_values_of_the_points() -> None:
    data = json.loads(printed("json"))
    assert (data["corners"], data["run"]) == (3, 2)
    assert data["largest"] == {"num_parameters": 250_000, "params": {"model.depth": 4}}
    assert data["memory"]["bytes"] == 4_500_000
    assert data["available"] == {"where": "host", "bytes": 8_000_000, "ranks": 2}
    assert data["unread"] == ["my_key"]
    assert len(data["warnings"]) == 4


@pytest.mark.parametrize(("peak", "total"), [(None, 4_500_000), (7_000_000, 7_000_000)])
def test_the_peak_of_a_gpu_counts_rather_than_the_sum(peak: int | None, total: int) -> None:
    parts = {name: getattr(MEMORY, name) for name in ("parameters", "gradients", "optimizer", "activations")}
    assert Memory(**parts, peak=peak).total == total
