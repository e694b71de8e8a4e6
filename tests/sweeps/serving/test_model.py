"""The files of a registered model as data, and what is built from them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sweeps.config.composer import ALLOWED_MODULES, Composer, freeze
from sweeps.core.errors import ConfigError, StoreError, UsageError
from sweeps.serving.model import MODEL, WEIGHTS, SampleSpec, ServedModel, read_model, write_model
from sweeps.serving.predictor import Predictions, load_predictor
from sweeps.worker.building import build_module

PIXELS = {"_target_": "lightning_modules.data.pixels.Standardize", "pixel_max": 16, "mean": 0.3, "std": 0.4}


def a_model(**more: Any) -> ServedModel:
    sample = SampleSpec(shape=(1, 8, 8), dtype="uint8", least=0, greatest=16, transform=PIXELS)
    known: dict[str, Any] = {
        "run_id": "a" * 32,
        "label": "train#0",
        "checkpoint": "best.ckpt",
        "epoch": 1,
        "step": 2,
        "weights": "b" * 40,
        "sample": sample,
        "output": "scores",
        "classes": tuple("0123456789"),
    }
    return ServedModel(**known | more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of the shipped net, with the weights that it begins with."""
    config = Composer("train", [f"store_dir={tmp_path}", "model.width=8"]).trial({}, seed=0)
    freeze(config, tmp_path)
    module = build_module(config, allowed=ALLOWED_MODULES)
    torch.save({"state_dict": module.state_dict()}, tmp_path / WEIGHTS)
    write_model(tmp_path, a_model())
    return tmp_path


def test_a_model_is_read_as_it_was_written(tmp_path: Path) -> None:
    model = a_model(metrics={"val/acc": 0.5, "val/loss": float("nan")}, modules=("mine",))
    write_model(tmp_path, model)
    assert read_model(tmp_path) == a_model(metrics={"val/acc": 0.5}, modules=("mine",))


@pytest.mark.parametrize(
    "changed",
    [
        {"format": 2},
        {"sample": None},
        {"sample": {"shape": [10**9, 10**9], "dtype": "uint8", "transform": None}},
        {"sample": {"shape": [-1], "dtype": "uint8", "transform": None}},
        {"sample": {"shape": [1], "dtype": "object", "transform": None}},
        {"sample": {"shape": [1], "dtype": "uint8", "least": 0, "greatest": 1, "transform": "os.system"}},
        {"output": "code"},
        {"classes": 3},
        {"epoch": "x"},
        {"metrics": {"a": []}},
    ],
    ids=str,
)
def test_what_is_no_model_is_refused_in_a_line(tmp_path: Path, changed: Mapping[str, Any]) -> None:
    write_model(tmp_path, a_model())
    tree = json.loads((tmp_path / MODEL).read_text())
    (tmp_path / MODEL).write_text(json.dumps(tree | changed))
    with pytest.raises(StoreError) as refused:
        read_model(tmp_path)
    assert "\n" not in str(refused.value) and MODEL in str(refused.value)


def test_predictions_do_not_depend_on_what_else_is_asked(folder: Path) -> None:
    predictor = load_predictor(folder, allowed=ALLOWED_MODULES)
    samples = np.random.default_rng(0).integers(0, 17, (600, 1, 8, 8), np.uint8)
    whole = predictor.predict(samples).values
    alone = predictor.predict(samples[300:301]).values

    assert whole.shape == (600, 10) and np.allclose(whole.sum(axis=1), 1)
    np.testing.assert_allclose(whole[300:301], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((2, 8, 8), np.uint8), "but got an array of 2 x 8 x 8"),
        (np.zeros((2, 1, 8, 8), np.float32), "but got float32"),
        (np.full((2, 1, 8, 8), 17, np.uint8), "but sample 0 has a 17"),
        (np.zeros((0, 1, 8, 8), np.uint8), "no sample"),
    ],
)
def test_samples_of_another_kind_are_refused(folder: Path, samples: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_predictor(folder, allowed=ALLOWED_MODULES).predict(samples)


class Harmful:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return (open, (str(self._path), "w"))


def test_weights_that_are_code_are_not_loaded(folder: Path) -> None:
    torch.save({"state_dict": {}, "more": Harmful(folder / "harm")}, folder / WEIGHTS)
    with pytest.raises(StoreError, match="it has more in it than weights, which might run"):
        load_predictor(folder, allowed=ALLOWED_MODULES)
    assert not (folder / "harm").exists()


@pytest.mark.parametrize("target", ["os.system", "builtins.eval", "subprocess.Popen", "torch.load", "torch.hub.load"])
@pytest.mark.parametrize("where", ["model", "system", "transform"])
def test_nothing_is_built_that_is_not_allowed(folder: Path, target: str, where: str) -> None:
    text = (folder / "config.yaml").read_text()
    node = {"_target_": target}
    if where == "transform":
        write_model(folder, a_model(sample=SampleSpec(shape=(1,), dtype="uint8", transform=node), modules=("os",)))
    else:
        old = {"model": "lightning_modules.nets.mlp.MLP", "system": "lightning_modules.systems.classifier.Classifier"}
        assert old[where] in text
        (folder / "config.yaml").write_text(text.replace(old[where], target))
    with pytest.raises(ConfigError, match=f"{where}._target_"):
        load_predictor(folder, allowed=ALLOWED_MODULES)


def test_weights_of_another_net_are_told(folder: Path) -> None:
    torch.save({"state_dict": {"other": torch.zeros(1)}}, folder / WEIGHTS)
    with pytest.raises(StoreError, match=r"The model of train#0 cannot be built from its files: .*other"):
        load_predictor(folder, allowed=ALLOWED_MODULES)


def test_what_is_no_classifier_gives_values() -> None:
    assert Predictions(values=np.array([[0.5], [2.0]])).records() == [{"value": 0.5}, {"value": 2.0}]
    assert Predictions(values=np.array([[1.0, 2.0]])).records() == [{"value0": 1.0, "value1": 2.0}]


@pytest.mark.parametrize("output", ["scores", "probabilities", "values"])
def test_a_model_with_the_names_of_other_classes_is_damaged(folder: Path, output: Any) -> None:
    write_model(folder, a_model(output=output, classes=("cat", "dog")))
    predictor = load_predictor(folder, allowed=ALLOWED_MODULES)

    with pytest.raises(StoreError, match=r"has the names of 2 classes, but the module of train#0 gives 10 values"):
        predictor.predict(np.zeros((1, 1, 8, 8), np.uint8))
