"""Every file of `conf/search`, alone and joined, and a block that was written for Hydra's own Optuna sweeper."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from sweeps.config.composer import Composer
from sweeps.core.paths import conf_dir
from sweeps.core.tree import flatten
from sweeps.driver.sweep_setup import build_space

FILES = sorted((conf_dir() / "search").glob("*.yaml"))
ANY_MODEL = ["architecture", "learning_rate", "optimizer", "regularization"]  # the others say a model in their name


def propose(overrides, config_dir=None, count=3):
    """Compose what random search proposes, and return the values and configurations."""
    composer = Composer("sweep", overrides, config_dir)
    space = build_space(composer, composer.base(), overrides)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found = [space.suggest(study.ask()) for _ in range(count)]
    return space, [(values, composer.trial(values, seed=0)) for values in found]


def test_each_file_opens_with_its_command():
    for file in FILES:
        assert file.read_text().startswith(f"# lightsweep sweep {'model=' if file.stem in ('cnn', 'mlp') else ''}")
        assert f"search={file.stem}" in file.read_text().splitlines()[0]


@pytest.mark.parametrize("name", [file.stem for file in FILES if file.stem != "none"])
def test_what_a_file_proposes_is_set_in_the_configuration(name):
    for model in [name] if name in ("cnn", "mlp") else ["cnn", "mlp"]:
        space, trials = propose([f"model={model}", f"search={name}"])
        assert len(space) > 1
        for values, config in trials:
            flat = flatten(config)
            assert all(flat[key] == value for key, value in values.items() if "." in key)


@pytest.mark.parametrize("model", ["cnn", "mlp"])
def test_all_files_that_fit_any_model_can_be_joined(model):
    space, _ = propose([f"search=[{','.join(ANY_MODEL)}]", f"model={model}"])
    parts = {
        "optimizer.lr",
        "data.batch_size",
        "optimizer",
        "model.dropout",
        "model.activation",
        "optimizer.weight_decay",
    }
    assert parts <= set(space.keys)


def test_a_block_for_hydras_optuna_sweeper_is_taken_as_it_is(tmp_path):
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "pasted.yaml").write_text(
        "hydra:\n"
        "  sweeper:\n"
        "    params:\n"
        "      optimizer: choice(sgd, adam)\n"
        "      optimizer.lr: tag(log, interval(0.0001, 0.1))\n"
        "      data.batch_size: 32,64,128\n"
        "      model.depth: range(1, 5)\n"
        "      model.width: int(interval(16, 256))\n"
        "      model.dropout: range(0.0, 0.5, step=0.1)\n"
        "      model.activation: choice('relu', \"tanh\")\n"
        "      system.label_smoothing: interval(0, 0.2)\n"
        "      trainer.max_epochs: tag(log, int(interval(1, 16)))\n"
        "      trainer.gradient_clip_val: choice(null, 1.0)\n"
        "      ++data.seed: shuffle(range(3))\n"
    )
    space, trials = propose(["search=pasted", "search.groups={optimizer: false}"], tmp_path)
    assert space.distributions == {
        "optimizer": CategoricalDistribution(["sgd", "adam"]),
        "optimizer.lr": FloatDistribution(1e-4, 1e-1, log=True),
        "data.batch_size": CategoricalDistribution([32, 64, 128]),
        "model.depth": IntDistribution(1, 4),
        "model.width": IntDistribution(16, 256),
        "model.dropout": FloatDistribution(0.0, 0.4, step=0.1),
        "model.activation": CategoricalDistribution(["relu", "tanh"]),
        "system.label_smoothing": FloatDistribution(0.0, 0.2),
        "trainer.max_epochs": IntDistribution(1, 16, log=True),
        "trainer.gradient_clip_val": CategoricalDistribution([None, 1.0]),
        "data.seed": IntDistribution(0, 2),
    }
    for values, config in trials:
        assert {key: flatten(config)[key] for key in values if "." in key} == {
            key: value for key, value in values.items() if "." in key
        }
