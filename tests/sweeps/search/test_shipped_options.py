"""All samplers and pruners that Optuna has are shipped, with all their options, at Optuna's values, and work."""

import inspect
import warnings
from functools import cache

import optuna
import pytest
from studies import FINITE

from sweeps.config.composer import Composer
from sweeps.core.errors import ConfigError, SpaceError
from sweeps.core.paths import conf_dir
from sweeps.search.samplers import build_pruner, build_sampler, seed_of
from sweeps.search.space.declare import parse_space
from sweeps.search.storage import open_storage
from sweeps.search.study import Study

NUMBERS = parse_space({"lr": "tag(log,interval(1e-4,1e-1))", "dropout": "interval(0,0.5)", "depth": "range(1,5)"})

SAMPLERS, PRUNERS = (
    sorted(file.stem for file in (conf_dir() / group).glob("*.yaml")) for group in ("sampler", "pruner")
)
NOT_SHIPPED = {
    "BaseSampler": "the base of all",
    "BaseGASampler": "the base of NSGA-II and NSGA-III",
    "BasePruner": "the base of all",
    "PartialFixedSampler": "a plain value on the command line fixes a key",
}
NOT_OPTIONS = {
    "constraints_func": "deprecated, and no data: study.constraints",
    "elite_population_selection_strategy": "no data, but a function",
    "child_generation_strategy": "no data, but a function",
    "after_trial_strategy": "no data, but a function",
    "reference_points": "an array: dividing_parameter makes one",
    "source_trials": "no data, but trials",
    "search_space": "the study's",
    "points": "the study's",
}
DEPRECATED = {
    "tpe": {
        "consider_prior",
        "prior_weight",
        "consider_magic_clip",
        "consider_endpoints",
        "gamma",
        "weights",
        "warn_independent_sampling",
    },
    "cmaes": {"x0", "sigma0", "restart_strategy", "inc_popsize"},
}
DIFFERENT = {  # a value of ours for what Optuna has no default of, or a better one
    ("seed", 0): "reproducible",
    ("warn_independent_sampling", False): "said in docs/search_spaces.md, not at each trial",
    ("percentile", 25.0): "Optuna has no default",
    ("patience", 3): "Optuna has no default",
}


@cache
def shipped(group, option, *overrides):
    config = Composer("sweep", [f"{group}={option}", *overrides]).base()
    return config[group]


def needed(option):
    return ("pruner.lower=0.5",) if option == "threshold" else ()


def target(config):
    module, _, name = config["_target_"].rpartition(".")
    return getattr({"optuna.samplers": optuna.samplers, "optuna.pruners": optuna.pruners}[module], name)


def study(url, sampler=None, pruner=None, space=NUMBERS, seed=1, name="study"):
    return Study.create_or_load(
        name,
        open_storage(url),
        space=space,
        sampler=build_sampler(sampler or shipped("sampler", "random"), space),
        pruner=build_pruner(pruner or shipped("pruner", "none")),
        seed=seed,
    )


def loss(values):
    return -abs(values.get("lr", 0.1) - 0.01) - 0.1 * values["depth"]


def run(opened, count):
    found = []
    for _ in range(count):
        ask = opened.ask()
        opened.tell(ask.number, "complete", loss(ask.values))
        found.append(dict(ask.values))
    return found


# --- what is shipped -----------------------------------------------------------------------------------


def test_every_sampler_and_pruner_of_optuna_is_shipped_or_said_why_not():
    public = {
        name
        for module, base in (
            (optuna.samplers, optuna.samplers.BaseSampler),
            (optuna.pruners, optuna.pruners.BasePruner),
        )
        for name, found in vars(module).items()
        if inspect.isclass(found) and issubclass(found, base) and not name.startswith("_")
    }
    groups = (("sampler", SAMPLERS), ("pruner", PRUNERS))
    have = {target(shipped(group, option)).__name__ for group, options in groups for option in options}
    assert public - have <= NOT_SHIPPED.keys()
    assert have <= public


@pytest.mark.parametrize(("group", "option"), [("sampler", o) for o in SAMPLERS] + [("pruner", o) for o in PRUNERS])
def test_a_file_opens_with_its_command_and_has_all_options_at_optunas_values(group, option):
    assert (conf_dir() / group / f"{option}.yaml").read_text().startswith(f"# lightsweep sweep {group}={option}")
    config = {key: value for key, value in shipped(group, option).items() if key != "_target_"}
    parameters = inspect.signature(target(shipped(group, option))).parameters
    assert config.keys() <= parameters.keys()
    assert parameters.keys() - config.keys() <= NOT_OPTIONS.keys() | DEPRECATED.get(option, set())
    for key, value in config.items():
        if key != "wrapped_pruner":
            assert (key, value) in DIFFERENT or value == parameters[key].default, key


def test_a_threshold_needs_a_bound_and_a_brute_force_a_finite_space():
    with pytest.raises(ConfigError, match=r"^pruner: .*Either lower or upper must be specified"):
        build_pruner(shipped("pruner", "threshold"))
    with pytest.raises(SpaceError, match=r"^lr=.*values that can be counted"):
        build_sampler(shipped("sampler", "brute_force"), NUMBERS)
    with pytest.raises(SpaceError, match="take sampler=grid"):
        space = parse_space({"depth": "range(1,5)", "forbid": {"depth": 2}})
        build_sampler(shipped("sampler", "brute_force"), space)


# --- that it works -------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", SAMPLERS)
def test_a_sampler_proposes_what_its_seed_says(new_url, option):
    space = FINITE if option in ("grid", "brute_force") else NUMBERS
    options = {"nsgaii": {"population_size": 4}, "nsgaiii": {"population_size": 4}, "gp": {"n_startup_trials": 2}}
    count = 6 if space is FINITE or option == "gp" else 14  # beyond the startup trials of all

    def proposed(seed, name):
        config = shipped("sampler", option, f"sampler.seed={seed}") | options.get(option, {})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # QMC's words on points that are no power of two
            return run(study(new_url, config, space=space, seed=seed_of(config, 0), name=name), count)

    first = proposed(3, "a")
    assert proposed(3, "b") == first
    assert proposed(4, "c") != first
    assert all(space.encode(values) for values in first)
    if space is FINITE:
        assert len({str(values) for values in first}) == len(list(FINITE.points())) == count


def test_a_brute_force_ends_when_all_is_tried(url):
    opened = study(url, shipped("sampler", "brute_force"), space=FINITE)
    run(opened, 6)
    assert opened.is_exhausted


@pytest.mark.parametrize("option", ["cmaes", "gp", "qmc"])
def test_a_sampler_leaves_what_it_cannot_model_to_another(url, option):
    inner = "sampler.independent_sampler={_target_: optuna.samplers.TPESampler, n_startup_trials: 2}"
    opened = study(url, shipped("sampler", option, inner))
    assert isinstance(opened.optuna.sampler._independent_sampler, optuna.samplers.TPESampler)
    assert len(run(opened, 3)) == 3


@pytest.mark.parametrize("crossover", ["UniformCrossover", "BLXAlphaCrossover", "SBXCrossover", "SPXCrossover"])
def test_an_evolution_takes_a_crossover_and_a_mutation_by_name(url, crossover):
    nodes = (
        f"sampler.crossover={{_target_: optuna.samplers.nsgaii.{crossover}}}",
        "sampler.mutation={_target_: optuna.samplers.nsgaii.PolynomialMutation}",
        "sampler.population_size=4",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        opened = study(url, shipped("sampler", "nsgaii", *nodes))
        assert len(run(opened, 12)) == 12
    assert type(opened.optuna.sampler._child_generation_strategy._crossover).__name__ == crossover


@pytest.mark.parametrize("option", [option for option in PRUNERS if option not in ("none", "wilcoxon")])
def test_a_pruner_stops_a_hopeless_trial_and_says_why(url, option):
    overrides = ["pruner.max_resource=9"] if option == "hyperband" else []
    pruner = shipped("pruner", option, *needed(option), *overrides)
    opened = study(url, pruner=pruner)
    for _ in range(9):
        good = opened.ask().number
        for step in range(9):
            opened.report(good, 0.6 + 0.01 * step, step)
        opened.tell(good, "complete", 0.7)
    verdicts = []
    for _ in range(3):  # Hyperband has a bracket that lets its trials run to the end
        bad = opened.ask().number
        verdicts += [opened.report(bad, 0.4 - 0.01 * step, step) for step in range(9)]
        opened.tell(bad, "pruned")
    reasons = {verdict.reason for verdict in verdicts if verdict.prune}
    assert reasons and "" not in reasons


@pytest.mark.parametrize("inner", ["hyperband", "none", "threshold"])
def test_patience_wraps_another_pruner(url, inner):
    nodes = [f"pruner@pruner.wrapped_pruner={inner}"]
    nodes += ["pruner.wrapped_pruner.lower=0.5"] if inner == "threshold" else []
    opened = study(url, pruner=shipped("pruner", "patient", "pruner.patience=1", *nodes))
    assert type(opened.optuna.pruner._wrapped_pruner) is target(shipped("pruner", inner))
    number = opened.ask().number
    prunes = [opened.report(number, 0.4 - 0.1 * step, step).prune for step in range(4)]
    assert any(prunes) == (inner == "threshold") and not any(prunes[:2])


def test_the_seed_of_a_sampler_wins_over_the_seed_of_the_runs():
    assert seed_of(shipped("sampler", "tpe"), 5) == 0
    assert seed_of(shipped("sampler", "tpe", "seed=7"), 5) == 7
    assert seed_of(shipped("sampler", "tpe", "seed=7", "sampler.seed=3"), 7) == 3
    assert seed_of(shipped("sampler", "tpe", "sampler.seed=null"), 7) is None
    assert seed_of({"_target_": "mine.Sampler"}, 7) == 7


def test_a_brute_force_that_has_tried_all_asks_for_no_more_when_it_goes_on(url):
    def reopened():
        return study(url, shipped("sampler", "brute_force"), space=FINITE)

    assert not reopened().is_exhausted
    run(reopened(), 5)
    opened = reopened()
    last = opened.ask()
    opened.tell(last.number, "interrupted")
    assert not reopened().is_exhausted
    run(reopened(), 1)
    assert reopened().is_exhausted
    assert reopened().enqueue({"depth": 1}) == 6 and not reopened().is_exhausted
