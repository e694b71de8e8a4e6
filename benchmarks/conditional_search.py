"""A conditional search of optimizer and architecture on Fashion-MNIST: TPE as shipped against random search.

Four optimizers with ranges of their own, one to four layers with a width each, activation and normalisation. All arms
train the same number of epochs. Runs about 15 minutes on two idle cores; a first argument makes it smaller:

    python benchmarks/conditional_search.py 6    # 6 trials a study instead of 40, and no result file
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from harness import Result, lightsweep, scratch
from scipy.stats import mannwhitneyu, ttest_rel

_TRIALS = 40
_EPOCHS, _BATCHES = 3, 150  # of 64 images: 9,600 a training epoch; all of the 6,000 for validation
_SEEDS = range(5)
_ARMS = {
    "random": ("sampler=random", "pruner=none"),
    "TPE": ("sampler=tpe", "pruner=none"),
    "TPE, median pruner": ("sampler=tpe", "pruner=median"),
}
_AT_MOST = {"TPE, median pruner": 2}  # times as many trials, of which those count that the epochs suffice for


def study(arm: str, seed: int, num_trials: int) -> list[dict[str, Any]]:
    """Run one study and return its trials by number, as `lightsweep compare` gives them."""
    name = f"{arm.replace(', ', '-').replace(' ', '-')}-{seed}"
    command = [
        *lightsweep(),
        "sweep",
        "search=[optimizer,architecture]",
        "data=fashion_mnist",
        "model=mlp",
        *_ARMS[arm],
        f"trainer.max_epochs={_EPOCHS}",
        f"trainer.limit_train_batches={_BATCHES}",
        "test=false",
        f"seed={seed}",
        f"study.num_trials={num_trials * _AT_MOST.get(arm, 1)}",
        f"study.name={name}",
        "launcher.slots=2",
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ)
    compare = [*lightsweep(), "compare", name, "--format", "json"]
    rows = json.loads(subprocess.run(compare, check=True, capture_output=True, text=True).stdout)
    assert {row["state"] for row in rows} <= {"complete", "pruned", "failed"}
    return sorted(rows, key=lambda row: row["trial"])


def num_epochs(row: dict[str, Any]) -> int:
    """Return how many epochs a trial has trained; one that failed counts in full."""
    return int(row["metrics"]["epoch"]) + 1 if row["state"] == "pruned" else _EPOCHS


def within(rows: list[dict[str, Any]], epochs: int) -> list[dict[str, Any]]:
    """Return the first trials that together take no more than so many epochs."""
    spent = 0
    for index, row in enumerate(rows):
        spent += num_epochs(row)
        if spent > epochs:
            return rows[:index]
    return rows


def best(rows: list[dict[str, Any]]) -> float:
    return max(row["value"] for row in rows if row["state"] == "complete")


def main() -> None:
    num_trials = int(sys.argv[1]) if len(sys.argv) > 1 else _TRIALS
    budget = num_trials * _EPOCHS
    result = Result(
        name=Path(__file__).stem,
        claim="a conditional search of optimizer and architecture on Fashion-MNIST by TPE as shipped, against random "
        f"search with the same {budget} epochs, {len(_SEEDS)} seeds each; reported as it is",
    )
    found: dict[str, list[list[dict[str, Any]]]] = {arm: [] for arm in _ARMS}
    with scratch():
        for seed in _SEEDS:  # arm after arm for each seed, so that a busy hour hits all alike
            for arm in _ARMS:
                found[arm].append(within(study(arm, seed, num_trials), budget))
                print(f"  seed {seed}, {arm}: {best(found[arm][-1]):.4f}", flush=True)
    scores = {arm: [best(rows) for rows in studies] for arm, studies in found.items()}
    for arm, values in scores.items():
        counts = [len(rows) for rows in found[arm]]
        trials = f"{counts[0]} trials" if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)} trials"
        seeds = ", ".join(f"{100 * value:.2f}" for value in values)
        error = stdev(values) / len(values) ** 0.5
        result.add(arm, f"{100 * mean(values):.2f} ± {100 * error:.2f} %", f"{trials}; by seed {seeds}")
    for part in (4, 2):
        epochs = budget // part
        means = [f"{arm} {100 * mean(best(within(rows, epochs)) for rows in found[arm]):.2f}" for arm in _ARMS]
        result.add(f"after {epochs} epochs", "; ".join(means), "mean of the best so far, %")
    for arm in list(_ARMS)[1:]:
        gains = [own - other for own, other in zip(scores[arm], scores["random"], strict=True)]
        paired, ranks = ttest_rel(scores[arm], scores["random"]), mannwhitneyu(scores[arm], scores["random"])
        result.add(
            f"{arm} above random",
            f"{100 * mean(gains):+.2f} %",
            f"better in {sum(gain > 0 for gain in gains)} of {len(gains)} seeds; two-sided p: paired t test "
            f"{paired.pvalue:.3f}, Mann-Whitney {ranks.pvalue:.3f} (0.008 at best with 5 against 5)",
        )
    result.raw = {
        arm: [
            [f"{row['state']} {row['value']} {num_epochs(row)} {json.dumps(row['params'])}" for row in rows]
            for rows in studies
        ]
        for arm, studies in found.items()
    }
    result.raw["best"] = scores
    if num_trials == _TRIALS:
        result.save()


if __name__ == "__main__":
    main()
