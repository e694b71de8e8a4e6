"""What differs between a run and its reproduction, before and after training, and the verdict on it."""

from collections.abc import Mapping, Sequence
from typing import Any

from sweeps.config.composer import fingerprint
from sweeps.core.text import plain
from sweeps.reproduce.original import IncompleteError, Original
from sweeps.reproduce.provenance import differences
from sweeps.reproduce.trace import Epoch, Trace
from sweeps.reproduce.verdict import Evidence, Tolerance, Verdict, data_changes, judge, merged, rank_changes

__all__ = [
    "differences_of_traces",
    "known_differences",
    "last_epoch",
    "recorded_threads",
    "summary_for",
    "verdict_of",
]

_MOST_THREADS = 1024
_OWN_CODE = ("lightning_modules/", "sweeps/")  # Lightsweep's, which is not in the traces
_FIRST = " (the first "  # the mark of a verdict over the first epochs alone


def last_epoch(original: Original, epochs: int | None) -> tuple[Epoch | None, bool]:
    """Return the epoch that is the last one to train, and whether the record has more; None if it comes to its end.

    The number of epochs is left as it is, since schedules may depend on it. Of a run that did not come to its end, the
    trace may tell of epochs whose metrics were still to be sent, or the metrics of one that the trace does not have.

    Raises:
        IncompleteError: There is nothing to compare.
    """
    evidence = original.evidence
    recorded = evidence.trace.epochs
    if epochs is not None and not recorded:
        raise IncompleteError("--epochs needs a trace, which the run does not have.")
    is_complete = original.state == "complete"
    if not is_complete and evidence.trace.segments:
        metrics_end = 1 + max((step for of in evidence.points.values() for step, _ in of), default=-1)
        recorded = tuple(epoch for epoch in recorded if epoch.metrics_end <= metrics_end)
        if not recorded:
            raise IncompleteError("It ended before trace and metrics had a whole epoch: there is nothing to compare.")
    if epochs is not None and epochs < len(recorded):
        return recorded[epochs - 1], True
    return (None if is_complete or not recorded else recorded[-1]), False


def recorded_threads(trace: Trace) -> int | None:
    """Return the CPU threads of each rank of a recorded run; None if the trace does not have a sensible number."""
    ranks = trace.segments[0].ranks if trace.segments else ()
    threads = ranks[0].get("threads") if ranks else None
    return threads if isinstance(threads, int) and 0 < threads <= _MOST_THREADS else None


def known_differences(
    original: Original, provenance: Mapping[str, Any], *, threads: int, has_gpu: bool
) -> dict[str, list[str]]:
    """Return what is known to differ before anything is trained, in words, by kind.

    Args:
        original: The run.
        provenance: Code, packages and machine of today.
        threads: The CPU threads of each rank today.
        has_gpu: Whether it is trained on a GPU today.
    """
    trace = original.evidence.trace
    found: dict[str, list[str]] = {"seed": [], "configuration": [], "data": [], "threads": []}
    edited = list(original.edited)
    if trace.segments and fingerprint(original.config) != trace.segments[0].config and not edited:
        edited = ["a key that the run has no param of"]
    if trace.segments and trace.segments[0].seed != original.config["seed"]:
        found["seed"].append(f"{trace.segments[0].seed} was trained, and the record's config has another")
    seeds = [key for key in edited if key.rpartition(".")[2] == "seed"]
    found["seed"] += [f"{key} in the record is not what its params say" for key in seeds if not found["seed"]]
    found["configuration"] += [f"{key} in the record is not what was trained" for key in edited if key not in seeds]
    recorded = recorded_threads(trace)
    if recorded is not None and recorded != threads:
        found["threads"].append(f"threads {recorded} (now {threads})")
    if original.provenance:
        for name, words in differences(original.provenance, provenance).items():
            found.setdefault(name, []).extend(words)
    if trace.segments and trace.segments[0].ranks:
        had_gpu = trace.segments[0].ranks[0].get("device") == "cuda"
        if had_gpu and not has_gpu:
            found.setdefault("hardware", []).append("device cuda (now cpu)")
    return {name: list(map(plain, words)) for name, words in found.items()}


def differences_of_traces(known: Mapping[str, Sequence[str]], before: Trace, again: Trace) -> dict[str, list[str]]:
    """Return what differs once both traces are there; what was known of the data before training was a forecast."""
    changes = {name: list(map(plain, words)) for name, words in rank_changes(before, again).items()}
    imported = changes.pop("code")
    found = {name: list(words) for name, words in known.items()}
    found |= _sorted_files(found.get("code", []), imported, before, again)
    found = merged(found, changes)
    found["data"] = data_changes(before.data, again.data)
    return found


def _sorted_files(known: Sequence[str], imported: Sequence[str], before: Trace, again: Trace) -> dict[str, list[str]]:
    """Separate files that training has imported from others that differ, if the traces name the imported ones.

    Args:
        known: In words, the files that differ.
        imported: In words, the files that both have imported and that differ.
        before: The trace of the original.
        again: That of the reproduction.
    """
    if not (before.segments and again.segments):
        return {"code": list(known)} if known else {}
    new = [word for word in imported if not _is_named(word, known)]
    told = [word for word in known if any(_is_named(name, [word]) for name in imported)]
    ours = [word for word in known if word.startswith(_OWN_CODE) and word not in told]
    return {"code": [*told, *new, *ours], "other files": [word for word in known if word not in (*told, *ours)]}


def _is_named(word: str, known: Sequence[str]) -> bool:
    """Return whether a changed file is in a list already, by a path that ends the same."""
    return any(other.split()[0].endswith(word.split()[0]) for other in known if other)


def verdict_of(
    original: Original,
    again: Evidence,
    *,
    metric: str,
    differs: Mapping[str, Sequence[str]],
    last: Epoch | None,
    is_part: bool,
) -> Verdict:
    """Judge a reproduction by the evidence of both runs.

    Args:
        original: The run.
        again: The evidence of the reproduction.
        metric: The objective.
        differs: What differs, in words, by kind.
        last: The last epoch that was trained; None if training came to its end.
        is_part: Whether the record has more epochs than were trained again.
    """
    before = original.evidence
    reference = before.reference(metric)
    return judge(
        before,
        again,
        metric=metric,
        tolerance=None if reference is None else Tolerance.of(reference, original.replicates),
        differs={name: words for name, words in differs.items() if words},
        midway=[
            (begins, {name: list(map(plain, words)) for name, words in changes.items() if words})
            for begins, changes in original.midway
        ],
        last=last,
        is_record_end=not is_part,
    )


def summary_for(verdict: Verdict, known: str, *, is_part: bool) -> str | None:
    """Return the verdict for the original's tag; None where a verdict on a part would replace one on the whole.

    Args:
        verdict: The verdict.
        known: What the tag has now; empty if nothing.
        is_part: Whether only its first epochs were trained again.
    """
    if not is_part:
        return f"{verdict.kind}: {verdict.reason}"
    if known and _FIRST not in known.partition(":")[0]:
        return None
    epochs = "epoch" if verdict.num_epochs == 1 else f"{verdict.num_epochs} epochs"
    return f"{verdict.kind}{_FIRST}{epochs}): {verdict.reason}"
