"""Every example of docs/search_spaces.md is a space that composes."""

import re
import shlex
from pathlib import Path

import optuna
import pytest

from sweeps.config.composer import Composer
from sweeps.core.errors import SpaceError
from sweeps.driver.sweep_setup import build_space
from sweeps.search.space.declare import split_overrides

PAGE = (Path(__file__).parents[4] / "docs" / "search_spaces.md").read_text()
FILES = re.findall(r"```yaml\n(# (?:conf|mine)/(\S+\.yaml)\b.*?)```", PAGE, re.DOTALL)
COMMANDS = [line.split("  #")[0] for line in re.findall(r"(?:^|: )(lightsweep sweep .*)$", PAGE, re.MULTILINE)]


@pytest.fixture
def folder(tmp_path):
    for text, name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def space_of(command, config_dir):
    arguments = [word for word in shlex.split(command)[2:] if word not in ("--config-dir", "mine")]
    plain, sweeps = split_overrides(arguments)
    if sweeps and not any(text.startswith("search=") for text in plain):
        plain.append("search=none")
    composer = Composer("sweep", plain, config_dir)
    return composer, build_space(composer, composer.base(), arguments)


def test_the_page_has_examples():
    assert len(COMMANDS) > 5 and len(FILES) > 1


@pytest.mark.parametrize("command", COMMANDS)
def test_an_example_composes_whatever_is_suggested(command, folder):
    composer, space = space_of(command, folder)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(3):
        values = space.suggest(study.ask())
        config = composer.trial(values, seed=0)
        for key, value in values.items():
            node = config
            for word in key.split("."):
                node = node[word]
            assert composer.is_group(key) or node == value


def test_conditions_on_fixed_values_are_those_of_the_command(folder):
    (folder / "search" / "both.yaml").write_text(
        "model.width: {values: '8,16', when: {model: mlp}}\nmodel.channels: {values: '8,16', when: {model: cnn}}\n"
    )
    assert space_of("lightsweep sweep search=both", folder)[1].keys == ("model.width",)
    assert space_of("lightsweep sweep search=both model=cnn", folder)[1].keys == ("model.channels",)


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ("model.dpeth=1", "Did you mean 'model.depth'"),  # of the configuration
        ("optimizer.beta=1", "Did you mean 'optimizer.betas'"),
        ("optimiser=adam", "Did you mean 'optimizer'"),
        ("model.wdith=8", "Did you mean 'model.width' or 'model.depth'"),  # searched
        ("zzz=8", "Valid names: model.dropout, model.width."),  # all that is fixed would be too much
    ],
)
def test_a_key_misspelt_in_a_condition_is_compared_with_all_keys(when, words, folder):
    with pytest.raises(SpaceError, match=re.escape(words)):
        space_of(f"lightsweep sweep model.width=8,16 'model.dropout=0.1,0.2 when {when}'", folder)


def test_a_key_that_only_one_option_has_is_checked_in_that_option(folder):
    space_of("lightsweep sweep optimizer=adam,sgd 'optimizer.momentum=0.1,0.9 when optimizer=sgd'", folder)
    with pytest.raises(Exception, match=r"There is no key 'optimizer.momentmu'. Did you mean 'optimizer.momentum'"):
        space_of("lightsweep sweep optimizer=adam,sgd 'optimizer.momentmu=0.1,0.9 when optimizer=sgd'", folder)
