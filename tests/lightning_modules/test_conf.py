"""Every option of the groups data, model, system, optimizer and scheduler composes, builds and trains."""

import inspect
from importlib import import_module
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Trainer

from sweeps.config.composer import ALLOWED_MODULES, Composer, freeze, load_frozen
from sweeps.config.instantiate import build
from sweeps.worker.building import build_module

CONF = Path(__file__).parents[2] / "conf"
GROUPS = ("data", "model", "system", "optimizer", "scheduler")
OPTIONS = [
    (group, path.stem)
    for group in GROUPS
    for path in sorted((CONF / group).glob("*.yaml"))
    if "lightning_modules." in path.read_text() or "torch.optim." in path.read_text()
]


@pytest.fixture
def configure(cache_dir):
    """Compose and resolve a configuration from overrides; all of a module share one cache of digits."""

    def _configure(*overrides):
        return Composer("train", [f"store_dir={cache_dir}", *overrides]).trial({}, seed=0)

    return _configure


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


def build_data(cfg):
    return build(cfg["data"], key="data", allowed=ALLOWED_MODULES)


def build_system(cfg):
    return build_module(cfg, allowed=ALLOWED_MODULES)


def trainer(**options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(accelerator="cpu", enable_checkpointing=False, **quiet, **options)


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_begins_with_the_command_that_uses_it(group, option):
    lines = (CONF / group / f"{option}.yaml").read_text().splitlines()
    assert lines[0].startswith("# lightsweep train ")
    assert f"{group}={option}" in lines[0]


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_names_all_arguments_of_its_target_and_none_else(configure, group, option):
    given = [f"{group}.root=/images"] if option == "image_folder" else []
    node = configure(f"{group}={option}", *given)[group]
    module, _, name = node["_target_"].rpartition(".")
    known = set(inspect.signature(getattr(import_module(module), name)).parameters)
    given = set(node) - {"_target_", "_partial_"}
    assert given <= known
    if node["_target_"].startswith("lightning_modules."):
        passed = {"net", "optimizer", "scheduler", "total_steps", "max_epochs"}
        assert known - given <= passed


@pytest.mark.parametrize(("group", "option"), [one for one in OPTIONS if one[0] != "data"])
def test_every_option_trains_a_step(configure, group, option):
    cfg = configure(f"{group}={option}")
    trainer(max_epochs=1, limit_train_batches=1).fit(build_system(cfg), build_data(cfg))


@pytest.mark.parametrize("option", [one for group, one in OPTIONS if group == "data"])
def test_every_data_option_builds(configure, option):
    given = ["data.root=/images"] if option == "image_folder" else []
    data = build_data(configure(f"data={option}", *given))
    assert data.num_classes == 10 and type(data.input_shape) is list


def test_no_scheduler_is_null_by_default_and_after_another_option(configure):
    assert configure()["scheduler"] is None
    assert configure("scheduler=cosine", "scheduler=none")["scheduler"] is None
    assert configure("scheduler=cosine")["scheduler"]["min_factor"] == 0.0


def test_a_frozen_configuration_builds_the_same_net(configure, tmp_path):
    freeze(configure("model=cnn", "model.channels=[4,8]", "data=fashion_mnist"), tmp_path)
    model = load_frozen(tmp_path)["model"]
    assert model["input_shape"] == [1, 28, 28]
    net = build(model, key="model", allowed=ALLOWED_MODULES)
    assert net(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_a_torch_scheduler_and_more_metrics_can_be_given_in_yaml(configure):
    cfg = configure()
    step = {"_target_": "torch.optim.lr_scheduler.StepLR", "_partial_": True, "step_size": 1}
    f1 = {"_target_": "torchmetrics.classification.MulticlassF1Score", "num_classes": 10}
    cfg["scheduler"], cfg["system"]["metrics"]["f1"] = step, f1
    fit = trainer(max_epochs=2, limit_train_batches=2)
    fit.fit(build_system(cfg), build_data(cfg))
    assert fit.optimizers[0].param_groups[0]["lr"] == pytest.approx(cfg["optimizer"]["lr"] * 0.01)
    assert "val/f1" in fit.callback_metrics


def test_a_checkpoint_of_the_defaults_loads_with_weights_only(configure, tmp_path):
    cfg = configure()
    fit = trainer(max_epochs=1, limit_train_batches=1)
    fit.fit(build_system(cfg), build_data(cfg))
    fit.save_checkpoint(tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["epoch"] == 1


def test_the_defaults_learn_the_digits(configure):
    torch.manual_seed(0)
    cfg = configure()
    fit = trainer(max_epochs=10)
    fit.fit(build_system(cfg), build_data(cfg))
    assert fit.callback_metrics["val/acc"] > 0.96
