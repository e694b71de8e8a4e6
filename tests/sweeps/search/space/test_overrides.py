"""Further overrides of a study that goes on."""

import pytest

from sweeps.core.errors import ConfigError, SpaceError
from sweeps.search.space.overrides import replaced, with_further


@pytest.mark.parametrize(
    ("recorded", "further", "joined"),
    [
        (["a=1", "b=2"], ["a=3"], ["b=2", "a=3"]),
        (["a=1,2", "b=2"], ["a=range(1,3)"], ["b=2", "a=range(1,3)"]),
        (["a=1,2"], ["a=1"], ["a=1"]),
        (["a=interval(0,1) when b=1"], ["a=interval(0,2) when b=2"], ["a=interval(0,2) when b=2"]),
        (["+a=1"], ["a=2"], ["+a=2"]),
        (["++a=1,2"], ["a=2,3"], ["++a=2,3"]),
        (["+a=1"], ["++a=2"], ["++a=2"]),
        (["a=1"], ["~a"], ["~a"]),
        (["+a=1"], ["~a"], []),
        (["~a"], ["+a=1"], ["~a", "+a=1"]),
        (["a.b=1"], ["a=x", "a.c=2", "a.c=3"], ["a.b=1", "a=x", "a.c=3"]),
    ],
)
def test_of_one_key_the_later_override_stays(recorded, further, joined):
    assert replaced(recorded, further) == joined


@pytest.mark.parametrize(
    ("recorded", "further", "joined"),
    [
        (["seed=1"], ["optimizer.lr=0.1,0.2"], ["seed=1", "search=mlp", "optimizer.lr=0.1,0.2"]),
        (["model=cnn"], ["optimizer.lr=0.1,0.2"], ["model=cnn", "search=cnn", "optimizer.lr=0.1,0.2"]),
        (["seed=1"], ["optimizer.lr=0.1"], ["seed=1", "optimizer.lr=0.1"]),
        (["seed=1"], ["search=none", "optimizer.lr=0.1,0.2"], ["seed=1", "search=none", "optimizer.lr=0.1,0.2"]),
        (["seed=1,2"], ["optimizer.lr=0.1,0.2"], ["seed=1,2", "optimizer.lr=0.1,0.2"]),
        (["search=[mlp]"], ["optimizer.lr=0.1,0.2"], ["search=[mlp]", "optimizer.lr=0.1,0.2"]),
    ],
)
def test_a_sweep_that_is_added_leaves_the_rest_of_the_space_as_it_is(recorded, further, joined):
    assert with_further(recorded, further, "sweep", None) == joined


@pytest.mark.parametrize("override", ["study.name=other", "+study.name=other", "store_dir=elsewhere"])
def test_another_study_cannot_be_asked_for(override):
    with pytest.raises(ConfigError, match=r"resume goes on with the study that it names"):
        with_further([], [override], "sweep", None)


def test_what_is_no_override_is_refused():
    with pytest.raises(SpaceError, match="an override is KEY=VALUE"):
        with_further([], ["fourty"], "sweep", None)
