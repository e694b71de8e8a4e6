"""Modules whose layers come late or are compiled: what is restored predicts as what was trained."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from sweeps.core import lightning_alias
from sweeps.core.errors import ConfigError
from sweeps.serving.predictor import Predictor, restored
from sweeps.worker.tracer import weights_hash
from sweeps.worker.trainer import quieten

lightning_alias.install()
import late_modules  # noqa: E402

ALLOWED = ("late_modules", "lightning_modules", "torch.optim")


def config(name: str, system: Any = None) -> Any:
    optimizer = {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.5} if system else None
    return {
        "model": {"_target_": f"late_modules.{name}"},
        "data": {"_target_": "late_modules.Digits"},
        "system": system,
        "optimizer": optimizer,
        "scheduler": None,
        "trainer": {"max_epochs": 1},
    }


def trained(module: pl.LightningModule, folder: Path) -> dict[str, Any]:
    """Train a module for an epoch and return its checkpoint; the module keeps its weights."""
    quieten()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=str(folder),
    )
    trainer.fit(module, datamodule=late_modules.Digits())
    trainer.save_checkpoint(folder / "last.ckpt")
    content: dict[str, Any] = torch.load(folder / "last.ckpt", weights_only=True)
    return content


@pytest.mark.parametrize(
    ("name", "setup"),
    [
        ("Plain", ""),
        ("CompiledInSetup", "predict"),
        ("CompiledForFit", "predict"),
        ("CompiledInPlace", "predict"),
        ("CompiledForwardFunction", "predict"),
        ("InConfigureModel", ""),
        ("InSetup", "predict"),
        ("InSetupForFit", "fit"),
        ("OfTheData", "predict with a trainer"),
        ("ScaledInSetup", "predict"),
        ("Weighed", ""),
        ("Lazy", ""),
        ("Parametrized", ""),
        ("WeightNormInSetup", "predict"),
    ],
)
def test_what_is_restored_has_the_hash_of_training_and_predicts_to_the_bit(
    tmp_path: Path, name: str, setup: str
) -> None:
    module = getattr(late_modules, name)()
    checkpoint = trained(module, tmp_path)
    samples = torch.randn(5, 64)
    module.eval()
    wanted = module(samples).detach()

    found = restored(config(name), checkpoint, allowed=ALLOWED)
    assert found.setup == setup
    assert weights_hash(found.module, found.names) == weights_hash(module)
    served = restored(config(name), checkpoint, allowed=ALLOWED, setups=(found.setup,)).module
    predictor = Predictor(None, served, torch.nn.Identity())  # type: ignore[arg-type]
    with torch.inference_mode():
        assert torch.equal(predictor.outputs(samples), wanted)
    assert not any("_orig_mod" in key for key in predictor.module.state_dict())


def test_a_layer_of_a_wrapped_net_may_be_compiled(tmp_path: Path) -> None:
    from sweeps.worker.building import build_module

    wanted = config("Net", {"_target_": "lightning_modules.systems.classifier.Classifier"})
    module = build_module(wanted, allowed=ALLOWED)
    checkpoint = trained(module, tmp_path)
    samples = torch.randn(5, 64)
    expected = module.eval()(samples).detach()
    assert torch.equal(restored(wanted, checkpoint, allowed=ALLOWED).module(samples), expected)


def test_what_is_made_of_data_that_was_set_up_is_explained(tmp_path: Path) -> None:
    checkpoint = trained(late_modules.OfTheBatches(), tmp_path)
    with pytest.raises(RuntimeError) as caught:
        restored(config("OfTheBatches"), checkpoint, allowed=ALLOWED)
    assert "setup()" in str(caught.value) and "configure_model" in str(caught.value)


def test_weights_of_another_module_do_not_fit(tmp_path: Path) -> None:
    checkpoint = trained(late_modules.Plain(), tmp_path)
    for name in ("InConfigureModel", "Lazy"):
        with pytest.raises(RuntimeError):
            restored(config(name), checkpoint, allowed=ALLOWED)
    checkpoint["state_dict"] = {}
    with pytest.raises(RuntimeError, match=r"layer\.weight"):
        restored(config("CompiledInSetup"), checkpoint, allowed=ALLOWED)


def test_a_model_that_is_not_allowed_is_refused_as_such() -> None:
    with pytest.raises(ConfigError, match="allowed module"):
        restored(config("CompiledInSetup"), {"state_dict": {}}, allowed=("torch.nn",))
