"""Every option of the groups data, model, system, optimizer and scheduler composes, builds and trains."""

import inspect
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_class, get_method, instantiate
from omegaconf import OmegaConf
from pytorch_lightning import Trainer

CONF = Path(__file__).parents[2] / "conf"
GROUPS = ("data", "model", "system", "optimizer", "scheduler")
OPTIONS = [
    (group, path.stem)
    for group in GROUPS
    for path in sorted((CONF / group).glob("*.yaml"))
    if "lightning_modules." in path.read_text() or "torch.optim." in path.read_text()
]
ROOT = """
defaults: [_self_, {data: digits}, {model: mlp}, {system: classifier}, {optimizer: adam}, {scheduler: none}]
hydra: {searchpath: ["file://CONF"]}
seed: 0
store_dir: STORE
"""


@pytest.fixture
def configure(tmp_path, cache_dir):
    """Compose a configuration from overrides; all of a module share one cache of digits."""

    def _configure(*overrides):
        root = ROOT.replace("CONF", str(CONF)).replace("STORE", str(cache_dir))
        (tmp_path / "root.yaml").write_text(root)
        with initialize_config_dir(str(tmp_path), version_base="1.3"):
            return compose("root", overrides=list(overrides))

    return _configure


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


def build_system(cfg):
    return instantiate(cfg.system, _partial_=True)(
        net=instantiate(cfg.model), optimizer=instantiate(cfg.optimizer), scheduler=instantiate(cfg.scheduler)
    )


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
    node = configure(f"{group}={option}")[group]
    locate = get_class if node._target_.split(".")[-1][0].isupper() else get_method
    known = set(inspect.signature(locate(node._target_)).parameters)
    given = set(node) - {"_target_", "_partial_", "_convert_"}
    assert given <= known
    if node._target_.startswith("lightning_modules."):
        passed = {"net", "optimizer", "scheduler", "total_steps", "max_epochs"}
        assert known - given <= passed


@pytest.mark.parametrize(("group", "option"), [one for one in OPTIONS if one[0] != "data"])
def test_every_option_trains_a_step(configure, group, option):
    cfg = configure(f"{group}={option}")
    trainer(max_epochs=1, limit_train_batches=1).fit(build_system(cfg), instantiate(cfg.data))


@pytest.mark.parametrize("option", [one for group, one in OPTIONS if group == "data"])
def test_every_data_option_builds(configure, option):
    given = ["data.root=/images"] if option == "image_folder" else []
    data = instantiate(configure(f"data={option}", *given).data)
    assert data.num_classes == 10 and type(data.input_shape) is list


def test_no_scheduler_is_null_by_default_and_after_another_option(configure):
    assert configure().scheduler is None
    assert configure("scheduler=cosine", "scheduler=none").scheduler is None
    assert configure("scheduler=cosine").scheduler.min_factor == 0.0


def test_a_frozen_configuration_builds_the_same_net(configure):
    cfg = configure("model=cnn", "model.channels=[4,8]", "data=fashion_mnist")
    frozen = OmegaConf.create(OmegaConf.to_yaml(cfg, resolve=True))
    assert frozen.model.input_shape == [1, 28, 28]
    assert instantiate(frozen.model)(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_a_torch_scheduler_and_more_metrics_can_be_given_in_yaml(configure):
    cfg = configure()
    OmegaConf.update(
        cfg,
        "scheduler",
        {"_target_": "torch.optim.lr_scheduler.StepLR", "_partial_": True, "step_size": 1},
        force_add=True,
    )
    f1 = {"_target_": "torchmetrics.classification.MulticlassF1Score", "num_classes": 10}
    OmegaConf.update(cfg, "system.metrics.f1", f1, force_add=True)
    fit = trainer(max_epochs=2, limit_train_batches=2)
    fit.fit(build_system(cfg), instantiate(cfg.data))
    assert fit.optimizers[0].param_groups[0]["lr"] == pytest.approx(cfg.optimizer.lr * 0.01)
    assert "val/f1" in fit.callback_metrics


def test_a_checkpoint_of_the_defaults_loads_with_weights_only(configure, tmp_path):
    cfg = configure()
    fit = trainer(max_epochs=1, limit_train_batches=1)
    fit.fit(build_system(cfg), instantiate(cfg.data))
    fit.save_checkpoint(tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["epoch"] == 1


def test_the_defaults_learn_the_digits(configure):
    torch.manual_seed(0)
    cfg = configure()
    fit = trainer(max_epochs=10)
    fit.fit(build_system(cfg), instantiate(cfg.data))
    assert fit.callback_metrics["val/acc"] > 0.96
