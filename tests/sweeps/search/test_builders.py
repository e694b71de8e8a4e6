"""Samplers and pruners are built from their config nodes, and a wrong option is named."""

import optuna
import pytest
from studies import FINITE, MEDIAN, SPACE, shipped

from sweeps.core.errors import ConfigError, SpaceError
from sweeps.search.samplers import build_pruner, build_sampler


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"_target_": "optuna.samplers.TPESampler", "n_startup_trails": 8},
            r"^sampler.n_startup_trails: .*'n_startup_trials'",
        ),
        (
            {"_target_": "optuna.samplers.TPESampler", "n_startup_trials": "8"},
            r"^sampler.n_startup_trials .* whole number",
        ),
        ({"_target_": "optuna.samplers.TPESampler", "constant_liar": "yes"}, r"^sampler.constant_liar .*true or false"),
        ({"_target_": "optuna.samplers.QMCSampler", "scramble": 1}, r"^sampler.scramble must be true or false"),
        ({"_target_": "optuna.samplers.TPESamler"}, r"^sampler._target_: .*'TPESampler'"),
        ({"_target_": "os.system"}, r"^sampler._target_: .*not of an allowed module \(optuna.samplers\)"),
        ({"_target_": "optuna.samplers.nsgaii"}, r"^sampler._target_: .* is a module"),
        ({"seed": 1}, r"^sampler._target_ must be a dotted name"),
        ({"_target_": "optuna.samplers.QMCSampler", "qmc_type": "x"}, r"^sampler: optuna.samplers.QMCSampler refuses"),
        ({"_target_": "optuna.samplers.PartialFixedSampler"}, r"^sampler: .*needs sampler.fixed_params"),
    ],
)
def test_a_wrong_option_of_a_sampler_is_named(config, words):
    with pytest.raises(ConfigError, match=words):
        build_sampler(config, FINITE)


def test_a_nested_pruner_is_built_and_its_options_checked_too():
    config = {"_target_": "optuna.pruners.PatientPruner", "patience": 1, "wrapped_pruner": MEDIAN}
    assert isinstance(build_pruner(config)._wrapped_pruner, optuna.pruners.MedianPruner)
    with pytest.raises(ConfigError, match=r"^pruner.wrapped_pruner.n_startup: .*n_startup_trials"):
        build_pruner({**config, "wrapped_pruner": {**MEDIAN, "n_startup": 1}})


def test_a_package_of_the_users_own_must_be_allowed():
    config = {"_target_": "optuna._hypothetical.Sampler"}
    with pytest.raises(ConfigError, match=r"not of an allowed module"):
        build_sampler(config)
    with pytest.raises(ConfigError, match=r"cannot import 'optuna._hypothetical"):
        build_sampler(config, allowed_prefixes=["optuna._hypothetical"])


def test_what_is_built_must_be_a_sampler():
    with pytest.raises(ConfigError, match=r"^sampler._target_: 'optuna.pruners.NopPruner' is no sampler"):
        build_sampler({"_target_": "optuna.pruners.NopPruner"}, allowed_prefixes=["optuna.pruners"])


def test_a_grid_over_an_interval_names_the_parameter():
    with pytest.raises(SpaceError, match=r"^lr="):
        build_sampler(shipped("sampler", "grid"), SPACE)


CMA = {"_target_": "optuna.samplers.CmaEsSampler"}


@pytest.mark.parametrize(
    ("config", "key"),
    [(CMA, "sampler"), ({"_target_": "optuna.samplers.QMCSampler", "independent_sampler": CMA}, "independent_sampler")],
)
def test_a_sampler_of_one_objective_is_refused_for_several(config, key):
    build_sampler(config, SPACE)
    with pytest.raises(ConfigError, match=rf"{key}: CMA-ES takes one objective, .*sampler=nsgaii"):
        build_sampler(config, SPACE, num_objectives=2)
