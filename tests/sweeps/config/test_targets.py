"""What `_target_` may name. Each refused name was tried on what stood here before; those with a canary did harm."""

import inspect
import pkgutil
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torchmetrics

from sweeps.config.instantiate import ALLOWED_MODULES, build, locate
from sweeps.core.errors import ConfigError

ALLOWED = (*ALLOWED_MODULES, "optuna.samplers", "optuna.pruners")


def refusal(target: object, allowed: tuple[str, ...] = ALLOWED) -> str:
    with pytest.raises(ConfigError) as caught:
        locate(target, key="model", allowed=allowed)
    return str(caught.value)


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "posix.system",
        "nt.system",
        "builtins.eval",
        "builtins.exec",
        "builtins.__import__",
        "subprocess.Popen",
        "_posixsubprocess.fork_exec",
        "runpy.run_path",
        "pickle.loads",
        "importlib.import_module",
        "joblib.load",
        "numpy.load",
        "pandas.read_pickle",
        "pathlib.Path.write_text",
        "functools.partial",
        "torch.load",
        "torch.hub.load",
        "torch.jit.load",
        "torch.export.load",
        "torch.compile",
        "torch.utils.cpp_extension.load_inline",
        "torch.utils.data.DataLoader",
        "torch.serialization.load",
        "torch.distributed.run.main",
        "torch.multiprocessing.spawn",
        "pytorch_lightning.Trainer",
        "pytorch_lightning.cli.LightningCLI",
        "pytorch_lightning.loggers.CSVLogger",
        "pytorch_lightning.utilities.model_helpers.is_overridden",
        "optuna.load_study",
        "optuna.storages.RDBStorage",
        "mlflow.pyfunc.load_model",
        "sweeps.config.composer.build",
        "torch.nnx.Linear",
        "lightning_modules_of_mine.Net",
    ],
)
def test_module_that_is_not_allowed_is_not_even_imported(target: str) -> None:
    assert f"{target!r} is not of an allowed module" in refusal(target)


@pytest.mark.parametrize(
    "target",
    [
        "torch.nn.modules.module.os.system",
        "torch.nn.functional.importlib.import_module",
        "torch.optim.lr_scheduler.warnings.warn",
        "pytorch_lightning.strategies.launchers.subprocess_script.subprocess.Popen",
        "pytorch_lightning.callbacks.model_checkpoint.os.remove",
        "lightning_modules.data.download.urllib.request.urlopen",
        "torch.nn.Module.__class__",
        "torch.nn.Module.__subclasses__",
        "torch.nn.Module.__init__.__globals__",
        "torch.nn.Module.load_state_dict",
        "torchmetrics.Metric.__reduce__",
    ],
)
def test_attribute_of_an_allowed_thing_is_no_way_out(target: str) -> None:
    assert "cannot import" in refusal(target)


@pytest.mark.parametrize(
    "target",
    [
        "torch.nn..os.system",
        "torch.nn.\0.Linear",
        "torch.nn.Linear\n",
        "torch.nn. Linear",
        "torch/nn.Linear",
        "torch.nn.Lin\u0435ar",
        ".torch.nn.Linear",
        "torch.nn.",
        "torch.nn.Linear()",
        "torch.nn.__import__('os').system",
        "[bold].x",
    ],
)
def test_name_that_is_none_is_refused_before_it_is_looked_up(target: str) -> None:
    assert "is not the name of a class or function" in refusal(target)


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("lightning_modules.data.download.download", "function"),
        ("lightning_modules.data.download.DownloadError", "class"),
        ("lightning_modules.schedulers._multiplied", "function"),
        ("torch.nn.modules.module.register_module_forward_hook", "function"),
        ("torch.nn.modules.module._WrappedHook", "class"),
        ("torch.nn.utils.parametrize.register_parametrization", "function"),
        ("torch.nn.Parameter", "class"),
        ("torch.optim.swa_utils.update_bn", "function"),
        ("torchmetrics.image._deprecated._TotalVariation", "class"),
        ("torchmetrics.utilities.prints.rank_zero_warn", "function"),
        ("pytorch_lightning.strategies.launchers.subprocess_script._SubprocessScriptLauncher", "class"),
        ("pytorch_lightning.strategies.launchers.multiprocessing._MultiProcessingLauncher", "class"),
        ("optuna.samplers._tpe.probability_distributions._MixtureOfProductDistribution", "class"),
    ],
)
def test_what_the_libraries_do_not_mean_to_be_built_is_refused(target: str, kind: str) -> None:
    assert f"{target!r} is a {kind} that is not meant to be built" in refusal(target)


@pytest.mark.parametrize(
    "target",
    [
        "torchmetrics.text.bert.BERTScore",
        "torchmetrics.text.infolm.InfoLM",
        "torchmetrics.image.fid.FrechetInceptionDistance",
        "torchmetrics.functional.audio.dnsmos._load_session",
        "torchmetrics.functional.image.arniqa._ARNIQA",
        "torchmetrics.functional.image.dists.DISTSNetwork",
        "torchmetrics.functional.image.lpips._LPIPS",
    ],
)
def test_class_that_loads_a_model_by_name_needs_the_users_word(target: str) -> None:
    assert "loads a model that its arguments name" in refusal(target)


def test_no_class_of_torchmetrics_that_may_be_built_loads_anything() -> None:
    """Looks through the whole package, since a new version has new metrics."""
    found: dict[type, str] = {}
    for module in pkgutil.walk_packages(torchmetrics.__path__, "torchmetrics."):
        for name, thing in vars(import_module(module.name)).items():
            if inspect.isclass(thing):
                with suppress(ConfigError):
                    found[locate(f"{module.name}.{name}", key="x", allowed=ALLOWED)] = name  # type: ignore[index]
    loads = re.compile(r"torch\.load\(|jit\.load|from_pretrained|from_url|torch\.hub|urlretrieve|requests|onnxruntime")
    bodies = {f"{one.__module__}.{name}": inspect.getsource(sys.modules[one.__module__]) for one, name in found.items()}

    assert len(found) > 200 and not [name for name in bodies if name.rpartition(".")[2].startswith("_")]
    assert not [name for name in bodies if ".functional." in name]
    assert not [name for name, body in bodies.items() if loads.search(body)]


@pytest.mark.parametrize("name", ["system", "Popen", "eval", "partial", "load", "lambda", "instance", "method"])
def test_alias_in_an_allowed_module_is_judged_by_its_home(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    import functools
    import os
    import subprocess

    import torch

    things: dict[str, Callable[..., Any]] = {
        "system": os.system,
        "Popen": subprocess.Popen,
        "eval": eval,
        "partial": functools.partial(os.system, "true"),
        "load": torch.load,
        "lambda": lambda: None,
        "instance": torch.nn.Identity(),
        "method": torch.nn.Identity().load_state_dict,
    }
    monkeypatch.setattr(torch.optim, "innocent", things[name], raising=False)

    assert "torch.optim.innocent" in refusal("torch.optim.innocent")


def test_object_that_only_says_it_is_of_an_allowed_module_is_no_class(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    class Liar:
        __module__ = "torch.optim.adam"
        __qualname__ = "Adam"

        def __call__(self) -> None: ...

    monkeypatch.setattr(torch.optim, "innocent", Liar(), raising=False)

    assert "is a Liar, not a class or function" in refusal("torch.optim.innocent")


def test_file_of_ones_choice_cannot_be_written(tmp_path: Path) -> None:
    """`download` writes what a mirror has to the file that it is given: a line in ~/.bashrc is code."""
    source, target = tmp_path / "evil", tmp_path / ".bashrc"
    source.write_text("touch /tmp/harm\n")
    node = {
        "_target_": "lightning_modules.data.download.download",
        "mirrors": [source.as_uri()],
        "target": str(target),
        "sha256": "0" * 64,
        "timeout_s": 1.0,
    }

    with pytest.raises(ConfigError, match="not meant to be built"):
        build(node, key="data", allowed=ALLOWED)
    assert list(tmp_path.iterdir()) == [source]


def test_module_of_ones_choice_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function of torch's attention imports the module that its argument names."""
    (tmp_path / "evil_kernels.py").write_text(f"open({str(tmp_path / 'harm')!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    pytest.importorskip("torch.nn.attention._fa4")
    node = {"_target_": "torch.nn.attention._fa4.register_flash_attention_fa4", "module_path": "evil_kernels"}

    with pytest.raises(ConfigError, match="not meant to be built"):
        build(node, key="model", allowed=ALLOWED)
    assert not (tmp_path / "harm").exists() and "evil_kernels" not in sys.modules


@pytest.mark.parametrize("place", ["argument", "list", "mapping", "partial"])
def test_nested_target_is_refused_before_anything_is_built(place: str) -> None:
    evil = {"_target_": "os.system", "command": "true"}
    node: dict[str, Any] = {
        "argument": {"_target_": "torch.nn.Linear", "in_features": evil, "out_features": 1},
        "list": {"_target_": "torch.nn.Sequential", "modules": [evil]},
        "mapping": {"_target_": "torch.nn.ModuleDict", "modules": {"a": {"b": evil}}},
        "partial": {"_target_": "torch.optim.SGD", "_partial_": True, "lr": {**evil, "_partial_": True}},
    }[place]

    with pytest.raises(ConfigError, match=r"'os\.system' is not of an allowed module"):
        build(node, key="model", allowed=ALLOWED)


@pytest.mark.parametrize(
    "target",
    [
        "lightning_modules.nets.mlp.MLP",
        "lightning_modules.data.digits.Digits",
        "lightning_modules.data.augmentation.Augmentation",
        "lightning_modules.schedulers.cosine",
        "lightning_modules.systems.classifier.Classifier",
        "lightning_modules.strategies.fully_sharded.FullySharded",
        "torch.nn.CrossEntropyLoss",
        "torch.optim.AdamW",
        "torch.optim.lr_scheduler.ReduceLROnPlateau",
        "torchmetrics.classification.MulticlassAccuracy",
        "torchmetrics.MetricCollection",
        "pytorch_lightning.callbacks.EarlyStopping",
        "pytorch_lightning.strategies.DDPStrategy",
        "optuna.samplers.TPESampler",
        "optuna.samplers.nsgaii.SBXCrossover",
        "optuna.pruners.HyperbandPruner",
    ],
)
def test_what_is_meant_to_be_built_is_found(target: str) -> None:
    assert locate(target, key="model", allowed=ALLOWED).__name__ == target.rpartition(".")[2]


def test_function_of_a_module_that_the_user_allows_is_found_and_what_it_imports_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("my_own")
    exec("from os import system\nfrom torch import load\ndef make(): pass\n", module.__dict__)
    monkeypatch.setitem(sys.modules, "my_own", module)

    assert locate("my_own.make", key="model", allowed=("my_own",)) is module.make
    assert "leads to posix.system" in refusal("my_own.system", ("my_own",))
    assert "leads to torch.serialization.load" in refusal("my_own.load", ("my_own",))


def test_user_may_allow_what_is_not_meant_to_be_built_of_a_library() -> None:
    allowed = (*ALLOWED, "torch.nn.init")

    assert callable(locate("torch.nn.init.zeros_", key="model", allowed=allowed))
    assert "allowed_modules=[torch.nn.init]" in refusal("torch.nn.init.zeros_")
