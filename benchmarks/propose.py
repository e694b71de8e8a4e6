"""What it takes to propose a trial when 500 have ended: suggest by TPE, compose and freeze, with 12 parameters.

python benchmarks/propose.py 50    # after 50 trials instead of 500, and no result file
"""

import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import Result, median, scratch

from sweeps.config.composer import Composer, freeze
from sweeps.core import paths
from sweeps.search.samplers import build_pruner, build_sampler
from sweeps.search.space.declare import parse_space
from sweeps.search.space.space import Space
from sweeps.search.storage import open_storage
from sweeps.search.study import Study

_ENDED, _MEASURED = 500, 100

_FLAT = {
    "optimizer.lr": "tag(log,interval(1e-4,1e-1))",
    "optimizer.weight_decay": "tag(log,interval(1e-6,1e-1))",
    "optimizer.eps": "tag(log,interval(1e-9,1e-6))",
    "data.batch_size": "choice(16,32,64,128)",
    "model.depth": "range(1,5)",
    "model.width": "int(interval(16,256))",
    "model.activation": "choice(relu,tanh,gelu)",
    "model.normalization": "choice(none,batch,layer)",
    "model.dropout": "interval(0,0.5)",
    "system.label_smoothing": "interval(0,0.2)",
    "trainer.gradient_clip_val": "interval(0.1,10)",
    "trainer.accumulate_grad_batches": "range(1,5)",
}
_CONDITIONAL = {
    "optimizer": "choice(sgd,adam,adamw,rmsprop)",  # bring eight ranges: four of lr and four more
    "data.batch_size": "choice(16,32,64,128)",
    "model.depth": "range(1,5)",
    "model.dropout": {"values": "interval(0,0.5)", "when": {"model.depth": "> 1"}},
}
_CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "flat": (_FLAT, {}),
    "conditional": (_CONDITIONAL, {}),
    "conditional, multivariate and group": (_CONDITIONAL, {"multivariate": True, "group": True}),
}


def value_of(values: dict[str, Any]) -> float:
    """Score a trial, so that TPE has something to learn; nothing is trained."""
    return -abs(math.log10(values["optimizer.lr"]) + 2) - 0.1 * values["model.depth"]


def measure(folder: Path, search: dict[str, Any], options: dict[str, Any], num_ended: int) -> dict[str, list[float]]:
    """Return the seconds of each step of each measured trial, and the processor time of all three."""
    composer = Composer("sweep", ["search=none"])
    config = composer.base()
    space: Space = parse_space(search, [], composer.options, fixed=composer.value, option_ranges=composer.ranges)
    assert len(space) == 12, space
    study = Study.create_or_load(
        "bench",
        open_storage(f"sqlite:///{folder / paths.OPTUNA_DB}"),
        space=space,
        sampler=build_sampler(config["sampler"] | options, space),
        pruner=build_pruner(config["pruner"]),
        seed=0,
    )
    steps: dict[str, list[float]] = {"suggest": [], "compose": [], "freeze": [], "processor time": []}

    def timed(step: str, act: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        done = act()
        steps[step].append(time.perf_counter() - began)
        return done

    for _ in range(num_ended + _MEASURED):
        began_cpu = time.process_time()
        ask = timed("suggest", study.ask)
        trial = timed("compose", lambda ask=ask: composer.trial(ask.values, ask.number))
        timed("freeze", lambda trial=trial, ask=ask: freeze(trial, paths.trial_dir(folder, ask.number)))
        steps["processor time"].append(time.process_time() - began_cpu)
        study.tell(ask.number, "complete", value_of(dict(ask.values)))
    return {step: taken[num_ended:] for step, taken in steps.items()}


def main() -> None:
    num_ended = int(sys.argv[1]) if len(sys.argv) > 1 else _ENDED
    result = Result(
        name=Path(__file__).stem,
        claim=f"suggest (TPE as shipped, 12 parameters, written to SQLite), compose and freeze a trial when "
        f"{num_ended} have ended: at most 30 ms (median), flat and conditional; with sampler.group=true, as it is",
    )
    medians: dict[str, float] = {}
    load_before = os.getloadavg()[0]
    for case, (search, options) in _CASES.items():
        with scratch() as folder:
            steps = measure(folder, search, options, num_ended)
        result.raw[case] = {step: [round(taken, 5) for taken in all_taken] for step, all_taken in steps.items()}
        cpu = steps.pop("processor time")
        whole = sorted(sum(parts) for parts in zip(*steps.values(), strict=True))
        medians[case] = median(whole)
        parts = ", ".join(f"{step} {1000 * median(taken):.1f}" for step, taken in steps.items())
        tenth, hundredth = whole[len(whole) * 9 // 10], whole[len(whole) * 99 // 100]
        result.add(
            case,
            f"{1000 * median(whole):.1f} ms",
            f"median of {len(whole)} ({parts}); 90 % within {1000 * tenth:.1f} ms, 99 % within "
            f"{1000 * hundredth:.1f} ms; processor time {1000 * median(cpu):.1f} ms",
        )
    result.add("load of the machine", f"{load_before:.1f} before, {os.getloadavg()[0]:.1f} after", "1 is its own")
    result.holds = max(medians["flat"], medians["conditional"]) <= 0.030
    if num_ended == _ENDED:
        result.save()


if __name__ == "__main__":
    main()
