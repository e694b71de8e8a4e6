"""The verdict over two trainings: what is equal, where they part, and what is blamed."""

from dataclasses import replace
from typing import Any

import pytest

from sweeps.reproducing.traces import Epoch, Segment, Trace
from sweeps.reproducing.verdict import Evidence, Tolerance, data_changes, judge, rank_changes

SEGMENT = Segment(
    begins=0,
    config="c",
    seed=1,
    provenance="p",
    ranks=({"threads": 1, "device": "cpu", "precision": "32"},),
    weights=("w",),
)
CURVE = [(9, 0.5), (19, 0.7), (29, 0.8)]
ALL: dict[str, list[str]] = {
    name: [f"some {name}"]
    for name in ("seed", "configuration", "threads", "hardware", "flags", "packages", "code", "environment")
} | {"data": ["the samples of train"]}


def evidence(num_epochs: int = 3, **points: Any) -> Evidence:
    epochs = [
        Epoch(epoch=n, step=10 * (n + 1), batches=10, order=(f"o{n}",), weights=(f"w{n}",)) for n in range(num_epochs)
    ]
    metrics = {"acc": CURVE[:num_epochs], "loss": [(step, 1.0 / (step + 1)) for step in range(10 * num_epochs)]}
    return Evidence(trace=Trace(segments=(SEGMENT,), epochs=tuple(epochs)), points=metrics | points, value=0.8)


def changed(epoch: int, **what: Any) -> Evidence:
    """Return a training of which an epoch differs; -1 for the weights before the first step."""
    whole = evidence()
    if epoch < 0:
        return replace(whole, trace=replace(whole.trace, segments=(replace(SEGMENT, **what),)))
    epochs = list(whole.trace.epochs)
    epochs[epoch] = replace(epochs[epoch], **what)
    return replace(whole, trace=replace(whole.trace, epochs=tuple(epochs)))


def verdict(again: Evidence, before: Evidence | None = None, **more: Any) -> Any:
    options = {"tolerance": Tolerance(width=0.01, source="so"), "differs": {}} | more
    return judge(before or evidence(), again, metric="acc", **options)


def test_the_same_is_exact() -> None:
    found = verdict(evidence())
    assert (found.kind, found.exit_status, found.num_epochs) == ("exact", 0, 3)


def test_equal_metrics_prove_nothing() -> None:
    found = verdict(changed(1, weights=("x",)))
    assert (found.kind, found.exit_status, found.epoch, found.step) == ("within tolerance", 3, 1, None)
    assert "all metrics are equal" in found.reason


def test_one_bit_of_one_metric_is_no_exactness() -> None:
    found = verdict(evidence(acc=[*CURVE[:2], (29, 0.8 + 2**-53)]))
    assert (found.kind, found.epoch, found.step) == ("within tolerance", None, 29)


@pytest.mark.parametrize("points", [{"acc": CURVE[:2]}, {"more": [(0, 1.0)]}, {"acc": [*CURVE, (29, 0.9)]}])
def test_points_that_only_one_has_are_no_exactness(points: dict[str, Any]) -> None:
    assert verdict(evidence(**points)).kind != "exact"


def test_what_is_not_a_number_equals_itself_and_zeros_have_signs() -> None:
    nan, zero = [(0, float("nan"))], [(0, 0.0)]
    assert verdict(evidence(x=nan), evidence(x=[(0, -float("nan"))])).kind == "exact"
    assert verdict(evidence(x=zero), evidence(x=[(0, -0.0)])).kind != "exact"


def test_far_apart_is_diverged() -> None:
    found = verdict(changed(0, weights=("x",)), evidence(acc=[(9, 0.1), (19, 0.2), (29, 0.3)]))
    assert (found.kind, found.exit_status, found.epoch, found.step) == ("diverged", 4, 0, 9)


@pytest.mark.parametrize(
    ("again", "differs", "ingredient"),
    [
        (changed(-1, weights=("x",)), ALL, "seed"),
        (changed(-1, weights=("x",)), {"code": ["net.py"], "threads": ["2"]}, "code"),
        (changed(0, order=("x",)), ALL, "data"),
        (changed(0, order=("x",)), {"code": ["data.py"]}, "code"),
        (changed(0, order=("x",)), {"threads": ["2"]}, "order of the data"),
        (changed(2, weights=("x",)), {"threads": ["2"], "packages": ["torch"], "code": ["x"]}, "threads"),
        (changed(2, weights=("x",)), {"packages": ["torch"]}, "packages"),
        (changed(2, weights=("x",)), {"packages": ["rich 1 (now 2)"], "code": ["net.py"]}, "code"),
        (changed(2, weights=("x",)), {"packages": ["torch 1 (now 2)"], "code": ["net.py"]}, "packages"),
        (changed(2, weights=("x",)), {"environment": ["os 5 (now 6)"], "code": ["net.py"]}, "code"),
        (changed(2, weights=("x",)), {"other files": ["the uncommitted changes"], "threads": ["2"]}, "threads"),
        (changed(2, weights=("x",)), {"data": ["the samples of val"], "hardware": ["cpu"]}, "hardware"),
        (changed(-1, weights=("x",)), {"data": ["the samples of train"]}, "data"),
        (evidence(acc=[*CURVE[:2], (29, 0.7)]), {"data": ["the samples of val"], "threads": ["2"]}, "data"),
        (changed(2, weights=("x",)), {}, ""),
    ],
)
def test_what_differs_first_tells_what_did_it(again: Evidence, differs: Any, ingredient: str) -> None:
    found = verdict(again, differs=differs)
    assert found.ingredient == ingredient
    assert all(word in found.reason for word in differs.get(ingredient, ()))


@pytest.mark.parametrize(("loss", "ingredient"), [(1 / 11 + 1e-9, "threads"), (0.2, "code")])
def test_rounding_is_blamed_for_little_and_code_for_much(loss: float, ingredient: str) -> None:
    points = [(step, 1.0 / (step + 1) if step < 10 else loss) for step in range(30)]
    again = replace(changed(1, weights=("x",)), points=evidence(loss=points).points)
    found = verdict(again, differs={"threads": ["2"], "code": ["net.py has changed"]})
    assert found.ingredient == ingredient
    assert "differs, too" in found.reason


def test_what_had_changed_midway_is_blamed_from_there_on() -> None:
    midway = [(2, {"threads": ["threads 1 (from epoch 2 on 2)"]})]
    assert verdict(changed(2, weights=("x",)), midway=midway).ingredient == "threads"
    assert verdict(changed(1, weights=("x",)), midway=midway).ingredient == ""


def test_where_nothing_differs_an_operation_is_named_or_the_flag_that_names_it() -> None:
    again = changed(1, weights=("x",))
    named = replace(again, trace=replace(again.trace, operations=("cumsum_cuda_kernel",)))
    assert "these operations have no deterministic form: cumsum_cuda_kernel" in verdict(named).reason
    gpu = replace(SEGMENT, ranks=({"device": "cuda", "deterministic": False},))
    before = replace(evidence(), trace=replace(evidence().trace, segments=(gpu,)))
    assert "trainer.deterministic=true" in verdict(again, before).reason
    assert "measures the machine" in verdict(evidence(more=[(0, 1.0)])).reason


def test_an_epoch_that_is_missing_is_where_they_part() -> None:
    found = verdict(evidence(2), differs={"threads": ["2"]})
    assert found.epoch == 2
    assert found.reason.startswith("The training ended before epoch 2")


def test_nothing_after_the_stop_is_compared() -> None:
    found = verdict(evidence(2), stop_step=20)
    assert (found.kind, found.num_epochs) == ("exact", 2)
    assert verdict(evidence(1), stop_step=20).kind != "exact"


def test_a_curve_is_compared_at_its_end_when_it_was_stopped() -> None:
    again = replace(changed(1, weights=("x",)), value=0.1)
    assert verdict(again, stop_step=20).kind == "within tolerance"


def test_without_a_trace_or_values_nothing_is_proved() -> None:
    bare = replace(evidence(), trace=Trace())
    assert verdict(evidence(), bare).kind == "within tolerance"
    assert "The weights were not recorded" in verdict(evidence(), bare).reason
    assert verdict(changed(0, weights=("x",)), tolerance=None).kind == "not verifiable"
    damaged = replace(evidence(), trace=replace(evidence(2).trace, is_damaged=True))
    assert "cannot be read after 2 epochs" in verdict(evidence(), damaged).reason


def test_the_tolerance_is_the_spread_of_replicates_where_there_are_some() -> None:
    assert Tolerance.of(0.5, [0.4, 0.5, 0.6]).width == pytest.approx(0.3)
    assert Tolerance.of(-0.5, [0.5]).width == pytest.approx(0.005)


def test_changes_of_ranks_are_sorted_by_kind() -> None:
    ranks = ({"threads": 2, "device": "cuda", "precision": "16", "unknown": 1},)
    again = Trace(segments=(replace(SEGMENT, ranks=ranks, sources={"a.py": "2", "b.py": "1"}),))
    before = Trace(segments=(replace(SEGMENT, sources={"a.py": "1"}),))
    assert rank_changes(before, again) == {
        "threads": ["threads 1 (now 2)"],
        "hardware": ["device cpu (now cuda)"],
        "flags": ["precision 32 (now 16)"],
        "code": ["a.py has changed"],
    }
    assert not any(rank_changes(Trace(), again).values())


def test_only_samples_that_both_know_can_differ() -> None:
    before = {"train": {"hash": "1"}, "val": {"hash": "1"}, "test": {"problem": "none"}, "x": 7}
    now = {"train": {"hash": "2"}, "val": {"hash": "1"}, "test": {"hash": "1"}, "x": {"hash": "1"}}
    assert data_changes(before, now) == ["the samples of train"]
