"""A study goes on only as what it was."""

import optuna
import pytest
from studies import SPACE, make, run

from sweeps.core.errors import ConfigError, StudyError
from sweeps.search.space.declare import parse_space


def test_another_space_metric_or_direction_is_shown_line_by_line(url):
    make(url)
    other = parse_space({"lr": "tag(log,interval(1e-5,1e-1))", "depth": "range(1,5)", "width": "8,16"})
    with pytest.raises(StudyError) as error:
        make(url, other, metric="val/loss", direction="minimize")
    assert str(error.value).splitlines() == [
        "Study 'study' exists, but differs from what is asked for:",
        "  lr: was tag(log,interval(0.0001,0.1)), now tag(log,interval(1e-05,0.1))",
        "  act: was choice(relu,tanh), now not searched",
        "  width: was not searched, now choice(8,16)",
        "  study.metric: was val/acc, now val/loss",
        "  study.direction: was maximize, now minimize",
        "Ask for the same to go on with it, or give another study.name.",
    ]


def test_another_space_alone_may_be_moved_to(url):
    make(url)
    with pytest.raises(StudyError, match=r"(?s)width: was not.*or move it to this space with --migrate: trials"):
        make(url, parse_space({**SPACE.describe(), "width": "8,16"}))


def test_a_study_of_another_program_is_not_taken_over(url):
    optuna.create_study(storage=url, study_name="study", direction="maximize").ask()
    with pytest.raises(StudyError, match="Lightsweep did not make it"):
        make(url)


def test_a_study_whose_creation_was_cut_short_is_made_whole(url):
    half = optuna.create_study(storage=url, study_name="study", direction="maximize")
    half.set_user_attr("metrics", ["val/acc"])
    assert run(make(url), 1)
    assert run(make(url), 1)


def test_an_unknown_direction_is_refused(url):
    with pytest.raises(ConfigError, match=r"study.direction must be 'maximize'"):
        make(url, direction="maximise")
