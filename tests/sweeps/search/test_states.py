"""What is counted step by step is what a look at all trials would count."""

import random
from collections import Counter

from studies import make

from sweeps.search.states import state_of


def test_the_counts_are_those_of_all_trials_at_every_moment(url):
    study, chance, running = make(url), random.Random(0), []
    for _ in range(60):
        act = chance.choice(["ask", "ask", "complete", "pruned", "failed", "interrupted", "enqueue"])
        if act == "enqueue":
            study.enqueue({"depth": chance.randint(1, 4)})
        elif act == "ask":
            running.append(study.ask().number)
        elif running:
            study.tell(running.pop(chance.randrange(len(running))), act, 1.0 if act == "complete" else None)
        counts = Counter(state_of(trial) for trial in study.optuna.trials)
        assert {state: count for state, count in study.counts.items() if count} == counts
        assert study.num_finished == counts["complete"] + counts["pruned"] + counts["failed"]
    again = make(url)
    assert again.counts == study.counts and min(counts.values()) > 0


def test_a_trial_that_has_ended_is_looked_at_once(url):
    study, looks = make(url), Counter()

    def look(number, frozen=study._tally._trial):
        looks[number] += 1
        return frozen(number)

    study._tally._trial = look
    for _ in range(20):
        study.tell(study.ask().number, "complete", 1.0)
        assert study.counts["complete"] == study.num_finished
    assert max(looks.values()) == 1
