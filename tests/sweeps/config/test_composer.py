"""Compose, freeze and build configurations; every shipped option of every group composes."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.config import composer as config
from sweeps.config.composer import ALLOWED_MODULES, Composer, fingerprint, freeze, load_frozen, to_yaml
from sweeps.config.instantiate import build
from sweeps.core import paths
from sweeps.core.errors import ConfigError, StoreError
from sweeps.core.tree import flatten
from sweeps.core.urls import hide_password
from sweeps.driver.session import common_tags

OPTIONS = sorted(f"{path.parent.name}={path.stem}" for path in paths.conf_dir().glob("*/*.yaml"))


@pytest.fixture(scope="module")
def composer() -> Composer:
    return Composer("sweep", ["data=digits"])


@pytest.mark.parametrize("choice", OPTIONS)
def test_every_shipped_option_composes(choice: str) -> None:
    needed = ["data.root=here"] if choice == "data=image_folder" else []

    resolved = Composer("sweep", [choice, *needed]).base()

    assert resolved["seed"] == 0


def test_every_file_says_by_its_first_lines_what_uses_it() -> None:
    for path in paths.conf_dir().glob("**/*.yaml"):
        comments = [line for line in path.read_text().splitlines()[:2] if line.startswith("# lightsweep")]
        assert comments, f"{path} must begin with the command that uses it"


def test_trial_sets_values_and_derived_ones_follow(composer: Composer) -> None:
    trial = composer.trial({"model.depth": 4, "data.batch_size": 7, "study.metric": "val/loss"}, seed=11)

    assert trial["model"]["depth"] == 4 and trial["data"]["batch_size"] == 7
    assert trial["seed"] == trial["data"]["seed"] == 11
    assert trial["objective"]["metric"] == trial["callbacks"]["checkpoint"]["monitor"] == "val/loss"
    assert "study" not in trial and "hydra" not in trial and "search" not in trial


def test_trials_do_not_touch_each_other_or_the_base(composer: Composer) -> None:
    before = to_yaml(composer.base())
    composer.trial({"model.depth": 9}, seed=1)

    assert composer.trial({}, seed=1)["model"]["depth"] != 9
    assert to_yaml(composer.base()) == before


def test_choice_of_a_group_is_composed_anew(composer: Composer) -> None:
    trial = composer.trial({"optimizer": "sgd", "optimizer.lr": 0.5}, seed=0)

    assert trial["optimizer"]["_target_"] == "torch.optim.SGD"
    assert trial["optimizer"]["lr"] == 0.5 and trial["optimizer"]["momentum"] == 0.9


def test_seed_that_is_searched_wins(composer: Composer) -> None:
    assert composer.trial({"seed": 5}, seed=1)["seed"] == 5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lrr=1", "There is no key 'optimizer.lrr'. Did you mean 'optimizer.lr'"),
        ("lr=1", "There is no key 'lr'. Did you mean 'optimizer.lr'"),
        ("model=resnet", "model=resnet: there is no such option. Valid names: cnn, mlp"),
        ("search=optimiser", "search=optimiser: there is no such option. Did you mean 'optimizer'"),
        ("search=[mlp,learning]", "search=learning: there is no such option. Did you mean 'learning_rate'"),
        ("trainer.max_epochs=many", "trainer.max_epochs must be an integer, but got 'many'"),
        ("trainer.gradient_clip_val=x", "trainer.gradient_clip_val must be a number, but got 'x'"),
        ("trainer.detect_anomaly=maybe", "trainer.detect_anomaly must be true or false, but got 'maybe'"),
        ("trainer.max_epochs", "is not an override"),
        ("~no.such", "no.such"),
        ("study.direction=up", "must be 'maximize' or 'minimize', but got 'up'"),
        ("data=image_folder", "data.root has no value: give it one, data.root=VALUE"),
        ("seed=${nowhere}", "seed"),
    ],
)
def test_wrong_override_names_its_key(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Composer("sweep", [override]).base()

    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_only_the_culprit_is_named() -> None:
    with pytest.raises(ConfigError, match=r"There is no key 'model\.dept'"):
        Composer("train", ["seed=1", "optimizer.lr=0.1", "model.dept=1", "trainer.max_epochs=2"])


def test_own_file_that_is_no_yaml_is_told(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("a: [1,\n")

    with pytest.raises(ConfigError, match="not valid YAML"):
        Composer("train", ["model=mine"], tmp_path)


def test_frozen_config_reads_back_and_nothing_in_it_is_run(tmp_path: Path, composer: Composer) -> None:
    trial = composer.trial({}, seed=3) | {"note": "${oc.env:HOME}", "more": "!!python/object:os.system"}

    freeze(trial, tmp_path)

    assert load_frozen(tmp_path) == trial
    (tmp_path / paths.CONFIG).write_text("!!python/object/apply:os.getcwd []")
    with pytest.raises(StoreError, match="plain values only"):
        load_frozen(tmp_path)


def test_fingerprint_is_of_the_content() -> None:
    assert fingerprint({"a": 1, "b": {"c": 2, "d": 3}}) == fingerprint({"b": {"d": 3, "c": 2}, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 1.5})


def test_fingerprint_of_words_or_whole_numbers_as_keys_stays_what_it_was() -> None:
    known = {"a": [1, {"b": None}], "m": {10: "x", 9: "y"}}

    assert fingerprint(known) == hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def test_keys_that_differ_have_different_fingerprints() -> None:
    mappings: list[dict[Any, Any]] = [
        {1: "a", "x": 0},
        {"1": "a", "x": 0},
        {True: "a", "x": 0},
        {None: "a"},
        {"None": "a"},
        {1.5: "a"},
        {"1.5": "a"},
    ]

    assert len({fingerprint({"m": mapping}) for mapping in mappings}) == len(mappings)
    assert fingerprint({"m": {0: "a", "b": 1}}) == fingerprint({"m": {"b": 1, 0: "a"}})


_TRAPS = [
    "1e3",
    "on",
    "2024-11-30",
    "0o10",
    "1_000",
    "=",
    "<<",
    "~",
    "",
    "\x85",
    "\u2028",
    "\ufeff",
    "\x1b",
    "1:30",
    "---",
]
_TEXTS = st.one_of(st.text(), st.sampled_from(_TRAPS))
_KEYS = st.one_of(_TEXTS, st.integers(), st.floats(allow_nan=False), st.booleans(), st.none())
_LEAVES = st.one_of(_TEXTS, st.integers(), st.floats(allow_nan=False), st.booleans(), st.none())
_TREES = st.recursive(
    _LEAVES,
    lambda tree: st.one_of(st.lists(tree, max_size=3), st.dictionaries(_KEYS, tree, max_size=3)),
    max_leaves=8,
)


@given(tree=st.dictionaries(_TEXTS, _TREES, max_size=3))
def test_plain_data_of_any_kind_reads_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, tree: Any) -> None:
    folder = tmp_path_factory.getbasetemp()
    freeze(tree, folder)

    assert repr(load_frozen(folder)) == repr(tree)  # repr tells 1 from true and from 1.0
    assert fingerprint(load_frozen(folder)) == fingerprint(tree)


def test_no_key_hides_another_one_when_flattened() -> None:
    flat = flatten({"m": {"1": "a", 1: "b", None: 0, "a.b": 1, "a": {"b": 2}}})

    assert flat["m.1"] == "a" and flat["m.null"] == 0 and flat["m.a.b"] == 1
    assert sorted(map(str, flat.values())) == ["0", "1", "2", "a", "b"]


def test_what_hydra_says_is_that_of_each_trial() -> None:
    composer = Composer("sweep", ["+model.note=${hydra:runtime.choices.optimizer}", "+model.job=${hydra:job.name}"])

    assert composer.base()["model"]["note"] == composer.choices["optimizer"] == "adam"
    assert composer.trial({"optimizer": "sgd"}, seed=0)["model"]["note"] == "sgd"
    assert composer.trial({"optimizer.lr": 0.5}, seed=0)["model"]["job"] == "lightsweep"


def test_the_time_is_that_of_the_command_in_all_trials() -> None:
    composer = Composer("sweep", ["+model.note=${now:%f}"])
    first = composer.base()["model"]["note"]

    assert {composer.trial(values, seed=0)["model"]["note"] for values in ({}, {"seed": 1}, {"optimizer": "sgd"})} == {
        first
    }


def test_flatten_names_leaves_by_dotted_keys() -> None:
    tree = {"a": {"b": 1, "c": {}}, "l": [1, 2], "m": [{"x": 1}]}

    assert flatten(tree) == {"a.b": 1, "a.c": {}, "l": [1, 2], "m.0.x": 1}


# --- objects from data ---------------------------------------------------------------------------------


def built(node: dict[str, Any]) -> Any:
    return build(node, key="model", allowed=ALLOWED_MODULES)


def test_nested_targets_are_built_first() -> None:
    net = built({"_target_": "torch.nn.Sequential"})
    layer = built({"_target_": "torch.nn.TransformerEncoder", "num_layers": 1, "encoder_layer": ENCODER})

    assert type(net).__name__ == "Sequential" and len(layer.layers) == 1


ENCODER = {"_target_": "torch.nn.TransformerEncoderLayer", "d_model": 4, "nhead": 1}


def test_partial_waits_for_the_rest() -> None:
    make = built({"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.5})
    parameters = built({"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1}).parameters()

    assert make(parameters).param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("os.system", "'os.system' is not of an allowed module"),
        ("torch.optim.os.system", "torch.optim.os.system"),
        ("torch.optim.lr_scheduler.warnings.warn", "torch.optim.lr_scheduler.warnings"),
        ("torch.nn.functional.torch.load", "torch.nn.functional.torch"),
        ("torch.nnx.Linear", "is not of an allowed module"),
        ("torch.optm.Adam", "Did you mean 'torch.optim.Adam'?"),
        ("torch.optim.Adamm", "there is no 'Adamm' in torch.optim. Did you mean 'Adam'"),
        ("torch.nn.no_such_module.Net", "cannot import 'torch.nn.no_such_module.Net'"),
        ("Adam", "must be a dotted name"),
        (None, "must be a dotted name"),
        ("torch.nn.functional", "is a module, not a class or function"),
        ("lightning_modules.schedulers.importlib", "lightning_modules.schedulers"),
    ],
)
def test_target_that_may_not_be_built_is_refused(target: str | None, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        built({"_target_": target})

    assert message in str(caught.value) and str(caught.value).startswith("model._target_")


def test_names_reached_through_an_allowed_module_are_refused_by_their_home(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    import torch.optim

    monkeypatch.setattr(torch.optim, "innocent", os.system, raising=False)

    with pytest.raises(ConfigError, match=r"'torch\.optim\.innocent' is not of an allowed module"):
        built({"_target_": "torch.optim.innocent"})


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"_target_": "torch.nn.Linear", "in_features": "x", "out_features": 1}, "model.in_features must be"),
        ({"_target_": "torch.nn.Linear", "in_features": 1}, "needs model.out_features"),
        ({"_target_": "torch.nn.Linear", "in_featurs": 1}, "Did you mean 'in_features'"),
        ({"_target_": "torch.nn.Dropout", "p": 3.0}, "model: torch.nn.Dropout refuses its arguments"),
    ],
    ids=["type", "missing", "unknown", "value"],
)
def test_wrong_argument_names_its_key(node: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        built(node)

    assert message in str(caught.value)


def test_composing_leaves_no_state_of_hydra_behind(composer: Composer) -> None:
    from hydra.core.global_hydra import GlobalHydra

    assert composer.is_group("model") and not composer.is_group("model.depth") and not composer.is_group("seed")
    assert not GlobalHydra.instance().is_initialized()
    assert config.ALLOWED_MODULES


def test_a_password_in_a_url_reaches_neither_rank_nor_record() -> None:
    uri = "postgresql://me:canary@localhost/mlflow"
    composer = Composer("train", [f"tracking.uri={uri}", f"+tracking.tags.origin={uri}"])
    assert composer.base()["tracking"]["uri"] == uri  # the driver opens the store with it
    frozen = to_yaml(composer.trial({}, seed=0))
    assert "canary" not in frozen
    assert "postgresql://me:***@localhost/mlflow" in frozen


def test_a_password_in_a_typed_override_is_hidden_in_the_tags() -> None:
    tags = common_tags("sweep", ["tracking.uri=postgresql://me:canary@localhost/mlflow", "seed=1"], {})
    assert tags["lightsweep.overrides"] == "tracking.uri=postgresql://me:***@localhost/mlflow seed=1"


@pytest.mark.parametrize("password", ["ab/cd", "p@ss", "plain"])
def test_no_part_of_a_password_is_shown(password: str) -> None:
    assert hide_password(f"key=postgresql://me:{password}@host/db seed=1") == "key=postgresql://me:***@host/db seed=1"
