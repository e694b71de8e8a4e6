"""Whether two trainings are one: the verdict over their traces and metrics, and what most likely set them apart."""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sweeps.naming import number, some_of
from sweeps.traces import Trace

__all__ = ["EXIT_STATUS", "Evidence", "Kind", "Points", "Tolerance", "Verdict", "data_changes", "judge", "rank_changes"]

Kind = Literal["exact", "within tolerance", "diverged", "not verifiable", "derived"]

EXIT_STATUS: Mapping[Kind, int] = {
    "exact": 0,
    "derived": 0,
    "within tolerance": 3,
    "diverged": 4,
    "not verifiable": 5,
}

Points = Mapping[str, Sequence[tuple[int, float]]]
"""of each metric all points: step and value"""

_RTOL = 0.01
_SPREADS = 3.0
_FLAGS = "flags"
_SUSPECTS = {  # by what differs first: what can have done it, the likeliest first
    "initial weights": ("seed", "configuration", "code", "packages", "hardware", _FLAGS, "environment", "threads"),
    "order": ("data", "seed", "configuration", "code", "packages", "environment"),
    "weights": ("data", "threads", "hardware", _FLAGS, "packages", "code", "configuration", "environment", "seed"),
}
_THREADS = ("threads", "interop_threads")
_HARDWARE = ("cpu_capability", "device", "device_name", "device_capability", "cuda", "cudnn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What there is of a training.

    Attributes:
        trace: Empty if it left none.
        points: Its metrics.
        value: The objective at its best checkpoint.
    """

    trace: Trace
    points: Points
    value: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far the objective may be off, and where that comes from."""

    width: float
    source: str

    @classmethod
    def of(cls, value: float, replicates: Sequence[float]) -> "Tolerance":
        """Take it from the spread of replicates where there are two or more, else a hundredth of the value."""
        if len(replicates) > 1:
            mean = math.fsum(replicates) / len(replicates)
            spread = math.sqrt(math.fsum((one - mean) ** 2 for one in replicates) / (len(replicates) - 1))
            return cls(width=_SPREADS * spread, source=f"{_SPREADS:g} times the spread of {len(replicates)} replicates")
        return cls(width=_RTOL * abs(value), source="1 % of the value, since there are no replicates")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a reproduction has shown.

    Attributes:
        kind: In one word or two.
        reason: In one sentence.
        num_epochs: How many epochs were compared.
        epoch: The first epoch that differs; -1 for the weights before the first step.
        step: The first step at which a metric differs.
        ingredient: What most likely did it; empty if nothing is known to differ.
        differs: All that is known to differ, by kind.
    """

    kind: Kind
    reason: str
    num_epochs: int = 0
    epoch: int | None = None
    step: int | None = None
    ingredient: str = ""
    differs: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def exit_status(self) -> int:
        """What the command ends with."""
        return EXIT_STATUS[self.kind]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "verdict": self.kind,
            "reason": self.reason,
            "num_epochs": self.num_epochs,
            "diverged_at_epoch": self.epoch,
            "diverged_at_step": self.step,
            "ingredient": self.ingredient or None,
            "differs": {name: list(words) for name, words in self.differs.items() if words},
        }


@dataclass(frozen=True, slots=True)
class _Mismatch:
    """Where two traces part: `initial weights`, `order` or `weights`."""

    stage: str
    epoch: int


def judge(
    before: Evidence,
    again: Evidence,
    *,
    metric: str,
    tolerance: Tolerance | None,
    differs: Mapping[str, Sequence[str]],
    stop_step: int | None = None,
) -> Verdict:
    """Compare a training with its repetition.

    Args:
        before: What is recorded.
        again: What was trained again.
        metric: The objective.
        tolerance: How far that may be off; None if its value is not known.
        differs: What is known to differ between both, by kind.
        stop_step: The step after which the repetition was stopped; points from there on are not compared.
    """
    epochs = [epoch for epoch in before.trace.epochs if stop_step is None or epoch.step <= stop_step]
    mismatch = _first_mismatch(before.trace, again.trace, [epoch.epoch for epoch in epochs])
    old, new = (_before(of.points, stop_step) for of in (before, again))
    step, keys = _first_step(old, new)
    num = len(epochs)
    known: dict[str, Any] = {"num_epochs": num, "differs": differs}
    if before.trace.is_whole and mismatch is None and step is None:
        what = f"{num} epochs" if num != 1 else "1 epoch"
        reason = f"Weights, order of the data and all metrics are equal bit for bit, over {what}"
        if any(differs.values()):
            reason += f", although not all is as it was ({_named(differs)})"
        return Verdict(kind="exact", reason=f"{reason}.", **known)
    stage = mismatch.stage if mismatch else "weights"
    ingredient = _ingredient(stage, differs)
    where = _where(mismatch, step, keys, before.trace.is_whole)
    blame = _blame(stage, ingredient, differs)
    known |= {"epoch": mismatch.epoch if mismatch else None, "step": step, "ingredient": ingredient}
    closeness = _closeness(metric, old, new, before.value, again.value, tolerance, stop_step)
    if closeness is None:
        return Verdict(kind="not verifiable", reason=f"{where}, and {metric} was never recorded.", **known)
    is_close, words = closeness
    return Verdict(kind="within tolerance" if is_close else "diverged", reason=f"{where}; {blame}. {words}", **known)


def rank_changes(before: Trace, again: Trace) -> dict[str, list[str]]:
    """Return in words what ranks knew of themselves and differs: threads, hardware, flags; and the user's sources."""
    found: dict[str, list[str]] = {"threads": [], "hardware": [], _FLAGS: [], "code": []}
    if not before.segments or not again.segments:
        return found
    old, new = before.segments[0], again.segments[0]
    if len(old.ranks) != len(new.ranks):
        found[_FLAGS].append(f"{len(old.ranks)} ranks (now {len(new.ranks)})")
    for then, now in zip(old.ranks, new.ranks, strict=False):
        for name in sorted(then.keys() & now.keys()):
            if then[name] != now[name] and name != "interop_threads":
                kind = "threads" if name in _THREADS else "hardware" if name in _HARDWARE else _FLAGS
                words = f"{name} {then[name]} (now {now[name]})"
                if words not in found[kind]:
                    found[kind].append(words)
    for name in sorted(old.sources.keys() & new.sources.keys()):
        if old.sources[name] != new.sources[name]:
            found["code"].append(f"{name} has changed")
    return found


def data_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the splits whose samples differ, as far as both are known."""
    changed = []
    for split in sorted(before.keys() & now.keys()):
        old, new = (of[split].get("hash") if isinstance(of[split], Mapping) else None for of in (before, now))
        if old and new and old != new:
            changed.append(f"the samples of {split}")
    return changed


def _first_mismatch(before: Trace, again: Trace, epochs: Sequence[int]) -> _Mismatch | None:
    if not before.is_whole:
        return None
    if before.segments[0].weights != (again.segments[0].weights if again.segments else ()):
        return _Mismatch("initial weights", -1)
    olds, news = ({epoch.epoch: epoch for epoch in of.epochs} for of in (before, again))
    for epoch in epochs:
        old, new = olds[epoch], news.get(epoch)
        if new is None or old.order != new.order or old.batches != new.batches:
            return _Mismatch("order", epoch)
        if old.weights != new.weights or old.step != new.step:
            return _Mismatch("weights", epoch)
    return None


def _before(points: Points, stop_step: int | None) -> dict[str, list[tuple[int, float]]]:
    if stop_step is None:
        return {key: list(of) for key, of in points.items()}
    kept = {key: [(step, value) for step, value in of if step < stop_step] for key, of in points.items()}
    return {key: of for key, of in kept.items() if of}


def _first_step(before: Points, again: Points) -> tuple[int | None, list[str]]:
    """Return the first step at which the points differ by a bit, and the metrics that do there."""
    odd: dict[int, set[str]] = {}
    for key in {*before, *again}:
        old, new = ({(step, _bits(value)) for step, value in of.get(key, ())} for of in (before, again))
        for step, _ in old ^ new:
            odd.setdefault(step, set()).add(key)
    if not odd:
        return None, []
    return min(odd), sorted(odd[min(odd)])


def _bits(value: float) -> bytes:
    return b"nan" if math.isnan(value) else struct.pack("<d", value)


def _where(mismatch: _Mismatch | None, step: int | None, keys: Sequence[str], has_trace: bool) -> str:
    words = []
    if mismatch is not None and mismatch.epoch < 0:
        words.append("The weights differ before the first step")
    elif mismatch is not None:
        what = "order of the data differs" if mismatch.stage == "order" else "weights differ"
        words.append(f"The {what} from epoch {mismatch.epoch} on")
    elif not has_trace:
        words.append("The weights were not recorded, so that nothing can be proved exact")
    if step is not None:
        words.append(
            f"{some_of(keys, 3)} from step {step} on" if words else f"{some_of(keys, 3)} differs from step {step} on"
        )
    elif mismatch is not None:
        words.append("all metrics are equal")
    return ", ".join(words)


def _ingredient(stage: str, differs: Mapping[str, Sequence[str]]) -> str:
    found = next((name for name in _SUSPECTS[stage] if differs.get(name)), "")
    return found or ("order of the data" if stage == "order" else "")


def _blame(stage: str, ingredient: str, differs: Mapping[str, Sequence[str]]) -> str:
    if stage == "order" and ingredient not in ("data", "seed"):
        known = f" ({ingredient}: {some_of(list(differs[ingredient]), 3)})" if differs.get(ingredient) else ""
        return f"the samples came in another order, or augmented otherwise{known}"
    if not ingredient:
        return "nothing that is recorded differs: an operation may have no deterministic form"
    return f"most likely by {ingredient}: {some_of(list(differs[ingredient]), 3)}"


def _named(differs: Mapping[str, Sequence[str]]) -> str:
    names = [name for name, words in differs.items() if words]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _closeness(
    metric: str,
    before: Points,
    again: Points,
    value: float | None,
    new_value: float | None,
    tolerance: Tolerance | None,
    stop_step: int | None,
) -> tuple[bool, str] | None:
    """Return whether objective and curve are within the tolerance, and by how much they are off."""
    old, new = dict(before.get(metric, ())), dict(again.get(metric, ()))
    if tolerance is None or not old:
        return None
    shared = sorted(old.keys() & new.keys())
    if stop_step is not None or value is None or new_value is None:  # the best may come later
        value, new_value = (of[shared[-1]] if shared else math.nan for of in (old, new))
    gap = abs(value - new_value)
    curve = math.fsum(abs(old[step] - new[step]) for step in shared) / len(shared) if shared else math.nan
    is_close = gap <= tolerance.width and curve <= tolerance.width and len(shared) == len(old)
    return is_close, (
        f"{metric} is {number(new_value)} and was {number(value)}; the curves are {number(curve)} apart in the mean "
        f"({'within' if is_close else 'not within'} {number(tolerance.width)}: {tolerance.source})."
    )
