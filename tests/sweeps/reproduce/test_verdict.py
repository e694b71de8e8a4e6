"""The verdict over two trainings: what is equal, where they part, and what is blamed."""

from dataclasses import replace
from typing import Any

import pytest

from sweeps.reproduce.trace import Epoch, Segment, Trace
from sweeps.reproduce.verdict import Evidence, Tolerance, data_changes, judge, merged, rank_changes

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
        Epoch(epoch=n, step=10 * (n + 1), metrics_end=10 * (n + 1), batches=10, order=(f"o{n}",), weights=(f"w{n}",))
        for n in range(num_epochs)
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


@pytest.mark.parametrize("lost", [[0], [1], [2], [1, 2]])
def test_an_epoch_that_the_record_lacks_is_no_exactness(lost: list[int]) -> None:
    epochs = tuple(epoch for epoch in evidence().trace.epochs if epoch.epoch not in lost)
    before = replace(evidence(), trace=replace(evidence().trace, epochs=epochs))
    found = verdict(changed(lost[0], weights=("x",)), before)
    assert found.kind == "within tolerance"
    if lost[0] > 0:
        assert (found.epoch, "which the record lacks" in found.reason) == (lost[0], True)


SECOND = evidence().trace.epochs[1]


def test_nothing_after_the_last_epoch_is_compared() -> None:
    found = verdict(evidence(2), last=SECOND)
    assert (found.kind, found.num_epochs) == ("exact", 2)
    assert verdict(evidence(1), last=SECOND).kind != "exact"
    later = [(2, {"threads": ["threads 1 (from epoch 2 on 2)"]})]
    assert not verdict(evidence(2), last=SECOND, midway=later).differs


def test_metrics_have_steps_of_their_own() -> None:
    """Two optimizers, whose steps are twice those of the metrics."""
    epochs = tuple(replace(epoch, step=2 * epoch.step) for epoch in evidence().trace.epochs)
    before = replace(evidence(), trace=replace(evidence().trace, epochs=epochs))
    again = replace(evidence(2), trace=replace(before.trace, epochs=epochs[:2]))
    assert verdict(again, before, last=epochs[1]).kind == "exact"


def test_what_the_record_lacks_at_its_end_is_not_compared() -> None:
    loss = evidence(2).points["loss"]
    before = evidence(2, loss=loss[:18], acc=CURVE[:1])  # whoever was killed did not send the rest
    found = verdict(evidence(2), before, last=SECOND, is_record_end=True)
    assert found.kind == "exact" and "over 2 epochs, where the record ends" in found.reason
    assert verdict(evidence(2), before, last=SECOND).kind != "exact"
    odd = evidence(2, loss=[*loss[:17], (17, 0.9), *loss[18:]])
    assert verdict(odd, before, last=SECOND, is_record_end=True).step == 17
    early = evidence(2, loss=loss[:8])
    assert verdict(evidence(2), early, last=SECOND, is_record_end=True).step == 8


def test_a_curve_is_compared_at_its_end_when_it_was_stopped() -> None:
    again = replace(changed(1, weights=("x",)), value=0.1)
    assert verdict(again, last=SECOND).kind == "within tolerance"


def test_a_metric_without_points_is_told_from_one_that_comes_later() -> None:
    again = replace(changed(0, weights=("x",)), value=None)
    bare = replace(evidence(acc=[]), value=None)
    assert "no acc was recorded ever" in verdict(again, bare).reason
    late = evidence(acc=CURVE[2:])
    assert "no acc was recorded in the epochs that are compared" in verdict(again, late, last=SECOND).reason


def test_the_reference_of_what_came_to_no_end_is_its_last_point() -> None:
    assert evidence(acc=CURVE).reference("acc") == 0.8
    assert replace(evidence(2), value=None).reference("acc") == 0.7
    assert replace(evidence(acc=[]), value=None).reference("acc") is None


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
        "packages": [],
        "code": ["a.py has changed"],
    }
    assert not any(rank_changes(Trace(), again).values())


def test_another_torch_is_a_package_that_is_named_once() -> None:
    old, new = (
        Trace(segments=(replace(SEGMENT, ranks=({"torch": version},)),)) for version in ("2.1.0+cu118", "2.2.0+cu121")
    )
    changes = rank_changes(old, new)
    assert changes["packages"] == ["torch 2.1.0+cu118 (now 2.2.0+cu121)"] and not changes["flags"]
    known = {"packages": ["torch 2.1.0 (now 2.2.0)", "rich 1 (now 2)"]}
    assert merged(known, changes)["packages"] == known["packages"]
    assert verdict(changed(2, weights=("x",)), differs=merged({}, changes)).ingredient == "packages"
    midway = {"packages": ["torch 2.1.0 (from epoch 2 on 2.2.0)"]}
    assert merged(known, midway)["packages"] == [*known["packages"], *midway["packages"]]


def test_only_samples_that_both_know_can_differ() -> None:
    before = {"train": {"hash": "1"}, "val": {"hash": "1"}, "test": {"problem": "none"}, "x": 7}
    now = {"train": {"hash": "2"}, "val": {"hash": "1"}, "test": {"hash": "1"}, "x": {"hash": "1"}}
    assert data_changes(before, now) == ["the samples of train"]
