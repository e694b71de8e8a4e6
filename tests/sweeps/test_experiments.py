"""Every recipe of `conf/experiment` and every overlay of `conf/debug` composes, and its module can be built."""

from pathlib import Path

import pytest

from sweeps.config.composer import ALLOWED_MODULES, Composer
from sweeps.config.instantiate import build
from sweeps.core.paths import conf_dir
from sweeps.worker.building import build_module

EXPERIMENTS = sorted(path.stem for path in conf_dir().joinpath("experiment").glob("*.yaml"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_composes_for_both_commands_and_builds(name: str, tmp_path: Path) -> None:
    for primary in ("train", "sweep"):
        config = Composer(primary, [f"experiment={name}", f"store_dir={tmp_path}"]).trial({}, seed=0)
        build(config["data"], key="data", allowed=ALLOWED_MODULES)
        assert build_module(config, allowed=ALLOWED_MODULES) is not None


def test_the_reference_cnn_has_the_layers_of_its_source() -> None:
    config = Composer("train", ["experiment=fashion_cnn"]).trial({}, seed=0)
    shapes = [tuple(p.shape) for p in build_module(config, allowed=ALLOWED_MODULES).parameters() if p.ndim > 1]
    assert shapes == [(32, 1, 3, 3), (64, 32, 3, 3), (64, 64, 3, 3), (64, 64 * 7 * 7), (10, 64)]


def test_an_experiment_can_take_other_data() -> None:
    config = Composer("train", ["experiment=mlp_dropout", "data=fashion_mnist"]).trial({}, seed=0)
    assert config["data"]["_target_"].endswith("FashionMNIST")
    assert (config["data"]["batch_size"], config["model"]["dropout"]) == (32, 0.2)


def test_fast_debugging_takes_two_batches() -> None:
    config = Composer("train", ["debug=fast"]).trial({}, seed=0)
    assert config["trainer"]["max_epochs"] == 1
    assert config["trainer"]["limit_train_batches"] == 2
