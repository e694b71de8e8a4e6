"""Options of groups that state the ranges of their own keys, and how a space is put together."""

import optuna
import pytest

from sweeps.core.errors import SpaceError
from sweeps.search.space.declare import parse_space

RANGES = {
    "sgd": {"lr": "interval(0.1,1)", "momentum": "0.5,0.9"},
    "adam": {"lr": "interval(0.001,0.1)"},
    "deep": {"depth": "range(1,4)", "width": {"values": "8,16", "repeat": "model.depth"}},
    "wide": {},
}
GROUPS = {"optimizer": ["adam", "sgd"], "model": ["deep", "wide"]}
CHOSEN = {"optimizer": "adam", "model": "deep", "model.depth": 2, "optimizer.lr": 0.1}


def space_of(expressions=None, *overrides, chosen=CHOSEN, **more):
    return parse_space(
        expressions,
        overrides,
        lambda group: GROUPS.get(group, []),
        fixed=chosen.__getitem__,
        option_ranges=lambda group, option: RANGES[option or chosen[group]],
        **more,
    )


def suggested(space, count=40, seed=0):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [space.suggest(study.ask()) for _ in range(count)]


def test_a_searched_group_brings_the_ranges_of_its_options():
    space = space_of({}, "optimizer=sgd,adam")
    assert space.describe() == {
        "optimizer": "choice(sgd,adam)",
        "optimizer.lr@sgd": "interval(0.1,1.0)",
        "optimizer.momentum@sgd": "choice(0.5,0.9)",
        "optimizer.lr@adam": "interval(0.001,0.1)",
    }
    assert parse_space(space.describe()) == space
    assert space.keys == ("optimizer", "optimizer.lr", "optimizer.momentum")


def test_each_range_is_active_with_its_option_only():
    for values in suggested(space_of({"optimizer": "glob(*)"})):
        assert (values["optimizer.lr"] >= 0.1) == (values["optimizer"] == "sgd") == ("optimizer.momentum" in values)


def test_values_are_known_by_their_key_and_stored_by_their_option():
    space = space_of({}, "optimizer=sgd,adam")
    assert space.encode({"optimizer": "adam", "optimizer.lr": 0.05})["optimizer.lr@adam"] == 0.05
    assert space.encode({"optimizer.lr": 0.5}) == {"optimizer.lr@sgd": 0.5}
    assert space.decode({"optimizer": "sgd", "optimizer.lr@sgd": 0.5}) == {"optimizer": "sgd", "optimizer.lr": 0.5}
    with pytest.raises(SpaceError, match=r"^optimizer.lr: 5.0 is not in"):
        space.encode({"optimizer": "adam", "optimizer.lr": 5.0})


def test_groups_bring_the_ranges_of_the_option_that_is_fixed():
    space = {"optimizer.lr": "interval(0.001,0.1)"}
    assert space_of({"groups": ["optimizer"]}).describe() == space
    assert space_of({"groups": {"optimizer": True}}).describe() == space
    assert space_of({"optimizer._search_": True}).describe() == space
    assert space_of({"optimizer": {"_search_": True}}).describe() == space


def test_what_is_named_wins_over_what_options_state():
    assert "optimizer.lr@sgd" not in space_of({"optimizer": "sgd,adam", "optimizer.lr": "0.1,0.2"})
    assert "optimizer.lr" not in space_of({"optimizer": "sgd,adam"}, "optimizer.lr=0.1").keys
    assert space_of({"optimizer": "sgd,adam"}, "optimizer.lr=1,2").describe()["optimizer.lr"] == "choice(1,2)"


def test_a_space_may_name_the_range_of_one_option():
    space = space_of({"optimizer": "sgd,adam", "optimizer.lr@sgd": "0.1,0.2", "optimizer.lr@adam": "1,2"})
    assert all((values["optimizer.lr"] < 1) == (values["optimizer"] == "sgd") for values in suggested(space))


def test_a_group_may_be_left_out():
    assert space_of({"groups": {"optimizer": False}}, "optimizer=sgd,adam").keys == ("optimizer",)
    assert space_of({}, "optimizer=sgd,adam", brings_options=False).keys == ("optimizer",)
    assert len(space_of({"groups": ["optimizer"]}, "optimizer=sgd,adam", brings_options=False)) == 4


def test_an_option_may_repeat_a_parameter():
    for values in suggested(space_of({}, "model=deep,wide")):
        assert values["model"] == "wide" or len(values["model.width"]) == values["model.depth"]
    assert len(space_of({"groups": ["model"]})) == 4


def test_another_option_is_a_difference():
    lines = space_of({}, "optimizer=sgd,adam").difference(space_of({}, "optimizer=sgd").describe())
    assert "optimizer.lr@sgd: was not searched, now interval(0.1,1.0)" in lines


@pytest.mark.parametrize(
    ("expressions", "words"),
    [
        ({"groups": ["optimiser"]}, r"^search.groups: there is no config group 'optimiser'"),
        ({"groups": {"optimizer": 1}}, r"^search.groups.optimizer must be true or false, but got 1"),
        ({"hydra": {"sweeper": {"params": {}, "n_trials": 3}}}, r"^hydra.sweeper.n_trials: .*study.num_trials"),
        ({"hydra": {"run": {}}}, r"^hydra.run: "),
        ({"a": "1,2", "hydra": {"sweeper": {"params": {"a": "1,2"}}}}, r"^a: .*there twice"),
    ],
)
def test_what_cannot_be_is_refused(expressions, words):
    with pytest.raises(SpaceError, match=words):
        space_of(expressions)


def test_a_block_of_hydras_optuna_sweeper_is_read_unchanged():
    params = {
        "optimizer.lr": "tag(log, interval(0.1, 1))",
        "+x": "choice('a,b', [1,2])",
        "y": "1, 2",
        "z": "range(1, 4)",
    }
    assert parse_space({"hydra": {"sweeper": {"params": params}}}) == parse_space(params)
    assert parse_space(params).describe()["+x"] == "choice('a,b',[1,2])"
