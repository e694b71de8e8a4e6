"""Random spaces with conditions, repeats, options and forbidden combinations: what holds for all of them."""

import json
from contextlib import contextmanager
from functools import cache
from itertools import islice

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from spaces import as_text, declared_spaces, require_valid, space_of
from studies import shipped

from sweeps.config.composer import Composer
from sweeps.config.quoting import quote
from sweeps.core.errors import StudyError
from sweeps.search.samplers import build_pruner, build_sampler, propose
from sweeps.search.space.declare import parse_space
from sweeps.search.storage import open_storage
from sweeps.search.study import Study

optuna.logging.set_verbosity(optuna.logging.WARNING)


@contextmanager
def chance():
    """Set aside the spaces of which so little is allowed, a single number for instance, that chance misses it."""
    try:
        yield
    except StudyError as error:
        assert "random combinations are forbidden" in str(error)
        assume(False)


def proposed(study, space, seed):
    with chance():
        return space.decode(propose(study, space, seed).params)


@cache
def composer():
    return Composer("sweep", ["search=none"])


@given(declared_spaces(), st.integers(0, 99))
def test_what_is_proposed_is_valid_composes_and_survives_optuna_and_hydra(declared, seed):
    space = space_of(declared)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    for _ in range(3):
        values = proposed(study, space, seed)
        require_valid(values, declared)
        assert as_text(space.decode(space.encode(values))) == as_text(values)
        read = OverridesParser.create().parse_overrides(space.overrides(values))
        assert {o.key_or_group: quote(o.value()) for o in read} == as_text(values)
        config = composer().trial(values, seed=0)
        optimizer = {"torch.optim.Adam": "adam", "torch.optim.SGD": "sgd"}[config["optimizer"]["_target_"]]
        composed = {"optimizer": optimizer} | {
            f"{group}.{key}": value for group in ("model", "optimizer") for key, value in config[group].items()
        }
        assert as_text({key: composed[key] for key in values}) == as_text(values)


@given(declared_spaces())
def test_every_corner_and_every_point_of_the_grid_is_valid(declared):
    space = space_of(declared)
    for corner in space.corners():
        require_valid(corner, declared)
    if all(parameter.values is not None for parameter in space):
        points = [json.dumps(space.encode(point)) for point in islice(space.points(), 300)]
        assert len(set(points)) == len(points)
        for point in islice(space.points(), 300):
            require_valid(point, declared)


@given(declared_spaces())
def test_every_choice_and_end_that_can_be_is_in_a_corner(declared):
    space = space_of(declared)
    corners = [space.encode(corner) for corner in space.corners()]
    for name, parameter in ((parameter.name, parameter) for parameter in space):
        for value in parameter.ends:
            stored = quote(parameter.encode(value))
            if not any(quote(corner.get(name)) == stored for corner in corners if name in corner):
                points = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
                seen = [space.encode(proposed(points, space, 0)) for _ in range(20)]
                assert not any(quote(point[name]) == stored for point in seen if name in point)


@given(declared_spaces())
def test_a_stored_description_gives_the_same_space_back(declared):
    space = space_of(declared)
    stored = json.loads(json.dumps(space.describe()))
    again = parse_space(stored)
    assert again == space and again.distributions == space.distributions
    assert space.difference(stored) == again.difference(space.describe()) == []


@given(declared_spaces(), st.sampled_from(["tpe", "random"]))
@settings(max_examples=12)
def test_a_study_that_is_stopped_goes_on_as_if_it_had_not_been(tmp_path_factory, declared, sampler):
    space = space_of(declared)

    def study(file):
        return Study.create_or_load(
            "study",
            open_storage(f"sqlite:///{file}"),
            space=parse_space(space.describe()),
            sampler=build_sampler(
                {**shipped("sampler", sampler), **({"n_startup_trials": 3} if sampler == "tpe" else {})}
            ),
            pruner=build_pruner(shipped("pruner", "none")),
            seed=1,
        )

    def run(opened, count):
        for _ in range(count):
            with chance():
                ask = opened.ask()
            require_valid(ask.values, declared)
            opened.tell(ask.number, "complete", float(ask.number % 3))
        return [as_text(space.decode(trial.params)) for trial in opened.optuna.trials]

    folder = tmp_path_factory.mktemp("studies")
    whole = run(study(folder / "whole.db"), 6)
    run(study(folder / "parts.db"), 3)
    assert run(study(folder / "parts.db"), 3) == whole
