"""Whether two trainings are one: the verdict over their traces and metrics, and what most likely set them apart."""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sweeps.core.text import number, some_of
from sweeps.reproduce.provenance import computes
from sweeps.reproduce.trace import Epoch, Segment, Trace

__all__ = [
    "EXIT_STATUS",
    "Evidence",
    "Kind",
    "Points",
    "Tolerance",
    "Verdict",
    "data_changes",
    "judge",
    "merged",
    "midway_changes",
    "rank_changes",
]

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
_ENDED, _LACKING = "end", "lacking"
_COMPUTING = "computing packages"  # a kind of suspect, and told as packages
_OTHER_LENGTH = ("configuration", "data", "code", _COMPUTING, "threads", "hardware", _FLAGS, "environment", "seed")
_SUSPECTS = {  # by what differs first: what can have done it, the likeliest first; what is not named comes last
    "initial weights": ("seed", "configuration", "code", _COMPUTING, "hardware", _FLAGS, "threads", "environment"),
    "order": ("data", "seed", "configuration", "code", _COMPUTING, "environment"),
    "weights": ("data", "threads", "hardware", _FLAGS, _COMPUTING, "code", "configuration", "environment", "seed"),
    "much": ("data", "configuration", "code", "seed", _COMPUTING, _FLAGS, "threads", "hardware", "environment"),
    _ENDED: _OTHER_LENGTH,
    _LACKING: _OTHER_LENGTH,
    "metrics": ("data", "code", _COMPUTING, "configuration", "threads", "hardware", _FLAGS, "environment"),
}
_MUCH = 1e-3  # of a loss at the first step that differs; rounding alone changes a millionth
_NO_FORM = "these operations have no deterministic form: {}"
_TRAIN_CHANGED = "the samples of train"
_OF_RANKS: Mapping[str, Sequence[str]] = {  # what a trace has of each rank, by kind; what is not named is a flag
    "threads": ("threads", "interop_threads"),
    "hardware": ("cpu_capability", "device", "device_name", "device_capability", "cuda", "cudnn"),
    _FLAGS: (),
    "packages": ("torch",),
    "code": (),
}


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

    def reference(self, metric: str) -> float | None:
        """Return the value of the objective or, of a training that came to no end, its last point; None without any."""
        points = self.points.get(metric)
        return points[-1][1] if self.value is None and points else self.value


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
    """Where two traces part: `initial weights`, `order`, `weights`, `end` or `lacking`."""

    stage: str
    epoch: int


def judge(
    before: Evidence,
    again: Evidence,
    *,
    metric: str,
    tolerance: Tolerance | None,
    differs: Mapping[str, Sequence[str]],
    midway: Sequence[tuple[int, Mapping[str, Sequence[str]]]] = (),
    last: Epoch | None = None,
    is_record_end: bool = False,
) -> Verdict:
    """Compare a training with its repetition.

    Args:
        before: What is recorded.
        again: What was trained again.
        metric: The objective.
        tolerance: How far that may be off; None if its value is not known.
        differs: What is known to differ between both, by kind.
        midway: What had changed when it was interrupted and went on, and at which epoch.
        last: The epoch of the record after which the repetition was stopped; what comes later is not compared. None if
            it was let alone: then it must have come to its end where the record does.
        is_record_end: Whether the record ends with that epoch, or within it: then nobody knows what it lacks there.
    """
    mismatch = _first_mismatch(before.trace, again.trace, last)
    old, new = (_before(of.points, last) for of in (before, again))
    if last is not None and is_record_end:
        begins = max((epoch.metrics_end for epoch in before.trace.epochs if epoch.epoch < last.epoch), default=0)
        new = _as_far_as(old, new, begins)
    step, keys = _first_step(old, new)
    num = sum(last is None or epoch.epoch <= last.epoch for epoch in before.trace.epochs)
    for begins, changes in midway:
        if (mismatch is None or mismatch.epoch >= begins) and (last is None or last.epoch >= begins):
            differs = merged(differs, changes)
    known: dict[str, Any] = {"num_epochs": num, "differs": differs}
    if before.trace.is_whole and mismatch is None and step is None:
        what = f"{num} epochs" if num != 1 else "1 epoch"
        reason = f"Weights, order of the data and all metrics are equal bit for bit, over {what}"
        if last is not None and is_record_end:
            reason += ", where the record ends"
        if any(differs.values()):
            reason += f", although not all is as it was ({_named(differs)})"
        return Verdict(kind="exact", reason=f"{reason}.", **known)
    stage = mismatch.stage if mismatch else "metrics" if before.trace.is_whole else "weights"
    if stage == "weights" and _is_much(old, new):
        stage = "much"
    suspects = _suspects(stage, differs)
    ingredient = suspects[0] if suspects else "order of the data" if stage == "order" else ""
    where = _where(mismatch, step, keys, before.trace)
    blame = _blame(stage, suspects, differs) if differs else _unexplained(stage, before.trace, again.trace)
    known |= {"epoch": mismatch.epoch if mismatch else None, "step": step, "ingredient": ingredient}
    values = (before.value, again.value) if last is None else (None, None)  # else the best may come later
    closeness = _closeness(metric, old, new, *values, tolerance)
    if closeness is None:
        when = "in the epochs that are compared" if before.points.get(metric) else "ever"
        return Verdict(kind="not verifiable", reason=f"{where}, and no {metric} was recorded {when}.", **known)
    is_close, words = closeness
    return Verdict(kind="within tolerance" if is_close else "diverged", reason=f"{where}; {blame}. {words}", **known)


def rank_changes(before: Trace, again: Trace) -> dict[str, list[str]]:
    """Return in words what ranks knew of themselves and differs, by kind, and which sources of the user's do."""
    if not before.segments or not again.segments:
        return {kind: [] for kind in _OF_RANKS}
    return _segment_changes(before.segments[0], again.segments[0], "now ")


def midway_changes(trace: Trace) -> list[tuple[int, dict[str, list[str]]]]:
    """Return what had changed when a training was interrupted and went on, and at which epoch it did."""
    return [
        (segment.begins, _segment_changes(trace.segments[0], segment, f"from epoch {segment.begins} on "))
        for segment in trace.segments[1:]
    ]


def merged(one: Mapping[str, Sequence[str]], other: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return the words of both, by kind, each once, also a package whose version torch may name otherwise."""
    kinds = dict.fromkeys((*one, *other))
    found = {kind: list(dict.fromkeys((*one.get(kind, ()), *other.get(kind, ())))) for kind in kinds}
    if "packages" in found:
        packages: dict[tuple[str, str], str] = {}
        for word in found["packages"]:
            packages.setdefault((word.partition(" ")[0], _when(word)), word)
        found["packages"] = list(packages.values())
    return found


def _when(word: str) -> str:
    """Return since when something is other: `now`, or `from epoch 2 on`."""
    return word.rpartition("(")[2].rpartition(" ")[0]


def _segment_changes(old: Segment, new: Segment, when: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {kind: [] for kind in _OF_RANKS}
    if len(old.ranks) != len(new.ranks):
        found[_FLAGS].append(f"{len(old.ranks)} ranks ({when}{len(new.ranks)})")
    for then, now in zip(old.ranks, new.ranks, strict=False):
        for name in sorted(then.keys() & now.keys()):
            if then[name] != now[name] and name != "interop_threads":
                kind = next((kind for kind, names in _OF_RANKS.items() if name in names), _FLAGS)
                words = f"{name} {then[name]} ({when}{now[name]})"
                if words not in found[kind]:
                    found[kind].append(words)
    for name in sorted(old.sources.keys() & new.sources.keys()):
        if old.sources[name] != new.sources[name]:
            found["code"].append(f"{name} has changed" if when == "now " else f"{name} {when}another")
    return found


def data_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the splits whose samples differ, as far as both are known."""
    changed = []
    for split in sorted(before.keys() & now.keys()):
        old, new = (of[split].get("hash") if isinstance(of[split], Mapping) else None for of in (before, now))
        if old and new and old != new:
            changed.append(f"the samples of {split}")
    return changed


def _first_mismatch(before: Trace, again: Trace, last: Epoch | None) -> _Mismatch | None:
    if not before.is_whole:
        return None
    if before.segments[0].weights != (again.segments[0].weights if again.segments else ()):
        return _Mismatch("initial weights", -1)
    olds, news = ({epoch.epoch: epoch for epoch in of.epochs} for of in (before, again))
    for epoch in sorted(olds.keys() | news.keys()):
        if last is not None and epoch > last.epoch:
            break
        old, new = olds.get(epoch), news.get(epoch)
        if new is None:
            return _Mismatch(_ENDED, epoch)
        if old is None:
            return _Mismatch(_LACKING, epoch)
        if old.order != new.order or old.batches != new.batches:
            return _Mismatch("order", epoch)
        if old.weights != new.weights or old.step != new.step:
            return _Mismatch("weights", epoch)
    return None


def _before(points: Points, last: Epoch | None) -> dict[str, list[tuple[int, float]]]:
    if last is None:
        return {key: list(of) for key, of in points.items()}
    kept = {key: [(step, value) for step, value in of if step < last.metrics_end] for key, of in points.items()}
    return {key: of for key, of in kept.items() if of}


def _as_far_as(before: Points, again: Points, begins: int) -> dict[str, list[tuple[int, float]]]:
    """Leave out what comes after the last recorded point of each metric, from a step on.

    Whoever was stopped within an epoch did not log its end, and of whoever was killed the last points were not sent.
    """
    ends = {key: max(step for step, _ in of) for key, of in before.items() if of}
    kept = {
        key: [(step, value) for step, value in of if step < begins or step <= ends.get(key, -1)]
        for key, of in again.items()
    }
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


def _where(mismatch: _Mismatch | None, step: int | None, keys: Sequence[str], trace: Trace) -> str:
    words = []
    if mismatch is not None and mismatch.stage == _ENDED:
        words.append(f"The training ended before epoch {mismatch.epoch}")
    elif mismatch is not None and mismatch.stage == _LACKING:
        words.append(f"The training has an epoch {mismatch.epoch}, which the record lacks")
    elif mismatch is not None and mismatch.epoch < 0:
        words.append("The weights differ before the first step")
    elif mismatch is not None:
        what = "order of the data differs" if mismatch.stage == "order" else "weights differ"
        words.append(f"The {what} from epoch {mismatch.epoch} on")
    elif trace.is_damaged:
        words.append(f"The trace cannot be read after {len(trace.epochs)} epochs, so that nothing can be proved exact")
    elif not trace.is_whole:
        words.append("The weights were not recorded, so that nothing can be proved exact")
    else:
        words.append("The weights and the order of the data are equal, but not all metrics")
    if step is not None:
        words.append(
            f"{some_of(keys, 3)} from step {step} on" if words else f"{some_of(keys, 3)} differs from step {step} on"
        )
    elif mismatch is not None:
        words.append("all metrics are equal")
    return ", ".join(words)


def _is_much(before: Points, again: Points) -> bool:
    """Tell whether the metric that is known most densely differs by more than rounding where it differs first."""
    shared = [key for key in sorted(before) if key in again]
    if not shared:
        return False
    key = max(shared, key=lambda key: len(before[key]))
    sparsest = min(len(before[key]) for key in shared)
    first = next((pair for pair in zip(before[key], again[key], strict=False) if pair[0] != pair[1]), None)
    if first is None or len(before[key]) < 2 * sparsest:  # whatever it was, an epoch has made it large
        return False
    (_, old), (_, new) = first
    return abs(new - old) > _MUCH * max(abs(old), abs(new))


def _suspects(stage: str, differs: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the kinds that differ, the likeliest to have done it first."""
    found: list[str] = []
    for name in (*_SUSPECTS[stage], *differs):
        if stage == "order" and name in ("threads", "hardware", _FLAGS):  # they change no order
            continue
        if name == _COMPUTING and any(map(computes, differs.get("packages", ()))):
            found.append("packages")
        elif name == "data" and stage != "metrics" and not _is_trained_on(differs.get(name, ())):
            continue
        elif differs.get(name):
            found.append(name)
    return list(dict.fromkeys(found))


def _is_trained_on(changes: Sequence[str]) -> bool:
    return any(change.startswith(_TRAIN_CHANGED) for change in changes)


def _blame(stage: str, suspects: Sequence[str], differs: Mapping[str, Sequence[str]]) -> str:
    if not suspects:
        what = "the samples came in another order, or augmented otherwise" if stage == "order" else "something did it"
        return f"{what} that is not recorded: {_named(differs)} cannot have done it"
    first, *others = suspects
    also = f" (but {' and '.join(others)} differ{'s' if len(others) == 1 else ''}, too)" if others else ""
    words = f"{first}: {some_of(list(differs[first]), 3)}{also}"
    if stage == "order" and first not in ("data", "seed"):
        return f"the samples came in another order, or augmented otherwise, most likely by {words}"
    return f"most likely by {words}"


def _unexplained(stage: str, before: Trace, again: Trace) -> str:
    """Say what may have done it where nothing that is recorded differs."""
    operations = sorted({*before.operations, *again.operations})
    ranks = before.segments[0].ranks if before.segments else ()
    is_free_gpu = any(rank.get("device") == "cuda" and not rank.get("deterministic") for rank in ranks)
    nothing = "nothing that is recorded differs"
    if stage == "order":
        return (
            f"{nothing}, yet the samples came in another order, or augmented otherwise: the data draws numbers that "
            "are not derived from the seed"
        )
    if stage == "initial weights":
        return f"{nothing}: the model draws numbers that are not derived from the seed"
    if stage == _LACKING:
        return f"{nothing}: the record may have lost lines of its trace"
    if stage == "metrics":
        return f"{nothing}: such a metric measures the machine, or draws numbers that are not derived from the seed"
    if operations:
        return f"{nothing}, but {_NO_FORM.format(some_of(operations))}: use others in the model"
    if is_free_gpu:
        return (
            f"{nothing}, but trainer.deterministic was false, and a GPU then adds up in any order: train with "
            "trainer.deterministic=true, or =warn, which names operations that have no deterministic form"
        )
    return f"{nothing}: an operation may have no deterministic form, which trainer.deterministic=warn would name"


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
) -> tuple[bool, str] | None:
    """Return whether objective and curve are within the tolerance, and by how much they are off."""
    old, new = dict(before.get(metric, ())), dict(again.get(metric, ()))
    if tolerance is None or not old:
        return None
    shared = sorted(old.keys() & new.keys())
    if value is None or new_value is None:
        value, new_value = (of[shared[-1]] if shared else math.nan for of in (old, new))
    gap = abs(value - new_value)
    curve = math.fsum(abs(old[step] - new[step]) for step in shared) / len(shared) if shared else math.nan
    is_close = gap <= tolerance.width and curve <= tolerance.width and len(shared) == len(old)
    return is_close, (
        f"{metric} is {number(new_value)} and was {number(value)}; the curves are {number(curve)} apart in the mean "
        f"({'within' if is_close else 'not within'} {number(tolerance.width)}: {tolerance.source})."
    )
