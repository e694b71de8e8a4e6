"""Replicates of a trial against those of the best one."""

import optuna
import pytest
from studies import make, shipped, stored

from sweeps.core.errors import ConfigError, StudyError
from sweeps.core.trials import TrialResult
from sweeps.search.replicates import Replication

FIVE = Replication(count=5)
WILCOXON = shipped("pruner", "wilcoxon")
GOOD, POOR = [0.9, 0.91, 0.92, 0.93, 0.94], [0.5, 0.52, 0.49, 0.51, 0.5]


def train(study, values):
    """Train replicate by replicate, and return after how many the trial was given up, with the reason."""
    ask = study.ask()
    study.begin_replicates(ask.number, restart=True)
    for index, value in enumerate(values):
        verdict = study.add_replicate(ask.number, index, TrialResult(state="complete", value=value))
        if verdict.prune:
            study.tell(ask.number, "pruned", None, verdict.reason)
            return index + 1, verdict.reason
    study.tell(ask.number, "complete", sum(values) / len(values))
    return len(values), ""


def test_a_hopeless_trial_needs_no_more_replicates_than_it_takes_to_see_it(url):
    study = make(url, pruner=WILCOXON, replication=FIVE)
    assert train(study, GOOD) == (5, "")
    count, reason = train(study, POOR)
    assert count == 4  # the fewest of which Wilcoxon's one-sided test gives p < 0.1: 1/16
    assert "mean 0.505 of 4 replicates against 0.92 of trial 0" in reason and "p < 0.1" in reason
    assert stored(url)[1].user_attrs["reason"] == reason


def test_a_trial_that_may_be_as_good_gets_all_its_replicates(url):
    study = make(url, pruner=WILCOXON, replication=FIVE)
    train(study, GOOD)
    assert train(study, [0.95, 0.9, 0.93, 0.92, 0.91]) == (5, "")


def test_least_is_best_of_what_is_minimized(url):
    study = make(url, pruner=WILCOXON, replication=FIVE, direction="minimize")
    train(study, POOR)
    assert train(study, GOOD)[0] == 4


def test_a_pruner_of_epochs_leaves_the_test_its_defaults_and_none_prunes_nothing(url, tmp_path):
    for pruner, expected in (("median", 4), ("none", 5)):
        study = make(f"sqlite:///{tmp_path}/{pruner}.db", pruner=shipped("pruner", pruner), replication=FIVE)
        train(study, GOOD)
        assert train(study, POOR)[0] == expected


def test_wilcoxon_judges_no_epochs(url):
    study = make(url, pruner=WILCOXON, replication=FIVE)
    train(study, GOOD)
    number = study.ask().number
    assert not any(study.report(number, 0.0, step).prune for step in range(10))


def test_wilcoxon_without_replicates_is_refused(url):
    with pytest.raises(ConfigError, match=r"pruner=wilcoxon .* study.replicates=5 or study.folds=5"):
        make(url, pruner=WILCOXON)


def test_a_trial_that_goes_on_knows_its_replicates_unless_it_begins_anew(url):
    first = make(url, replication=FIVE)
    number = first.ask().number
    for index in (0, 2):
        first.add_replicate(number, index, TrialResult(state="complete", value=0.5, metrics={"val/acc": 0.5}))
    second = make(url, replication=FIVE)
    assert second.close_stale() == [number] == [second.ask().number]
    assert second.begin_replicates(number, restart=False).keys() == {0, 2}
    assert second.replicates(number)[2].metrics == {"val/acc": 0.5}
    assert second.begin_replicates(number, restart=True) == {}
    assert optuna.load_study(study_name="study", storage=url).trials[0].user_attrs["replicates"] == {}


def test_the_number_of_replicates_of_a_study_does_not_change(url):
    make(url, replication=FIVE)
    with pytest.raises(StudyError, match=r"study.replicates, study.folds: was 5 replicates, now one training"):
        make(url)
    with pytest.raises(StudyError, match="now 5 folds"):
        make(url, replication=Replication(count=5, is_by_fold=True))
