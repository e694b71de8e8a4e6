"""What a model is made of: which checkpoint, which samples, and what its numbers mean."""

import os
import pickle
from collections import defaultdict, deque
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from sweeps.cli.commands.promote import own_code
from sweeps.config.composer import ALLOWED_MODULES, Composer
from sweeps.core.errors import ConfigError, StoreError
from sweeps.serving import package as promoting
from sweeps.serving.package import content_digest

OWN_DATA = """
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset


class Numbers(pl.LightningDataModule):
    def __init__(self, kind: str = "pair", dtype: str = "float32"):
        super().__init__()
        self.kind, self.x = kind, torch.arange(30, dtype=getattr(torch, dtype)).reshape(10, 3)

    def setup(self, stage=None):
        if self.kind == "gone":
            raise FileNotFoundError("it is gone")

    def val_dataloader(self):
        if self.kind == "raw":
            raise AssertionError("nobody needs it")
        if self.kind == "mapping":
            return [[{"x": self.x}]]
        return DataLoader(TensorDataset(self.x, torch.zeros(10)) if self.kind == "pair" else self.x, batch_size=5)
"""


OWN_RAW_DATA = """

class RawNumbers(Numbers):
    def raw_input(self, num_samples):
        if self.kind == "none":
            return {"sample": 1}
        transform = {"_target_": "numbers_of_mine.Tenth"}
        return {"samples": self.x[:num_samples].to(torch.int16), "transform": transform, "class_names": ["a", "b"]}


class Tenth(torch.nn.Module):
    def forward(self, x):
        return x / 10
"""


@pytest.fixture
def numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The samples that a user's own data module gives."""
    (tmp_path / "numbers_of_mine.py").write_text(OWN_DATA + OWN_RAW_DATA)
    monkeypatch.syspath_prepend(str(tmp_path))

    def samples(target: str = "Numbers", **arguments: str) -> Any:
        config = {"seed": 0, "data": {"_target_": f"numbers_of_mine.{target}", **arguments}}
        return promoting.sample_data(config, (*ALLOWED_MODULES, "numbers_of_mine"))

    return samples


@pytest.mark.parametrize("kind", ["pair", "tensor"])
def test_samples_of_any_loader_are_taken_as_the_net_reads_them(numbers: Any, kind: str) -> None:
    spec, examples, classes = numbers(kind=kind)

    assert (spec.shape, spec.dtype, spec.transform, classes) == ((3,), "float32", None, ())
    np.testing.assert_array_equal(examples, np.arange(12, dtype=np.float32).reshape(4, 3))


def test_a_data_module_of_ones_own_can_say_what_its_raw_samples_are(numbers: Any) -> None:
    spec, examples, classes = numbers("RawNumbers", kind="raw")
    transform = promoting.transform_of(spec.transform, allowed=("numbers_of_mine",))

    assert (spec.dtype, spec.least, classes, examples.tolist()[1]) == ("int16", None, ("a", "b"), [3, 4, 5])
    assert torch.equal(transform(torch.tensor([3])), torch.tensor([0.3]))
    with pytest.raises(ConfigError, match="must return a mapping with `samples`"):
        numbers("RawNumbers", kind="none")


def test_batches_that_begin_with_no_tensor_are_refused(numbers: Any) -> None:
    with pytest.raises(ConfigError, match=r"one tensor of samples.*is a dict"):
        numbers(kind="mapping")


def test_numbers_that_no_file_has_are_refused(numbers: Any) -> None:
    with pytest.raises(ConfigError, match=r"must be one of uint8, .* but are bfloat16"):
        numbers(dtype="bfloat16")


def test_data_that_is_gone_is_told(numbers: Any) -> None:
    with pytest.raises(StoreError, match="cannot be had: it is gone"):
        numbers(kind="gone")


def test_raw_images_become_what_the_net_reads_to_the_same_bits(tmp_path: Path) -> None:
    config = Composer("train", [f"store_dir={tmp_path}", "data.eval_batch_size=4"]).trial({}, seed=0)
    spec, examples, classes = promoting.sample_data(config, ALLOWED_MODULES)
    data: Any = promoting.build_data(config, allowed=ALLOWED_MODULES)
    data.setup()
    read, _ = next(iter(data.val_dataloader()))

    assert (spec.dtype, spec.greatest, classes) == ("uint8", 16, tuple("0123456789"))
    transform = promoting.transform_of(spec.transform, allowed=ALLOWED_MODULES)
    assert torch.equal(transform(torch.from_numpy(examples)), read)


@pytest.mark.parametrize(
    ("outputs", "names", "told", "expected"),
    [
        ([[2.0, -1.0]], ("cat", "dog"), 2, ("scores", ("cat", "dog"))),
        ([[0.25, 0.75]], (), 2, ("probabilities", ("0", "1"))),
        ([[2.0, -1.0]], (), None, ("values", ())),
        ([[2.0, -1.0, 3.0]], ("cat", "dog"), 2, ("values", ())),
        ([[0.5]], ("cat",), 1, ("values", ())),
    ],
)
def test_rows_are_of_classes_if_there_are_as_many(outputs: Any, names: Any, told: Any, expected: Any) -> None:
    assert promoting.output_kind(torch.tensor(outputs), names, {"data": {"num_classes": told}}) == expected


def checkpoint(name: str, step: int, score: float | None) -> Any:
    state = {} if score is None else {"ModelCheckpoint{}": {"monitor": "val/acc", "current_score": torch.tensor(score)}}
    return promoting.Checkpoint(name=name, content={"global_step": step, "callbacks": state, "state_dict": {}})


@pytest.mark.parametrize(
    ("scores", "direction", "chosen"),
    [((0.5, 0.9, 0.7), "maximize", "1"), ((0.5, 0.9, 0.7), "minimize", "0"), ((None, None, None), "maximize", "2")],
)
def test_of_several_checkpoints_the_best_is_taken(scores: Any, direction: str, chosen: str) -> None:
    found = [checkpoint(str(step), step, score) for step, score in enumerate(scores)]
    original: Any = SimpleNamespace(evidence=SimpleNamespace(value=scores[int(chosen)]))
    best, notes = promoting.best_checkpoint(
        found, original, {"objective": {"metric": "val/acc", "direction": direction}}
    )

    assert best.name == chosen
    assert notes == ([] if scores[0] else ["2 is the last checkpoint of 3: none was saved for val/acc."])


def test_a_checkpoint_that_was_saved_beside_the_best_is_not_taken_for_it() -> None:
    found = [checkpoint(name, step, 0.9) for step, name in enumerate(["a-epoch=1.ckpt", "epoch=0.ckpt"])]
    for one in found:
        (state,) = one.content["callbacks"].values()
        state["best_k_models"] = {"/where/it/was/epoch=0.ckpt": 0.9}
    original: Any = SimpleNamespace(evidence=SimpleNamespace(value=0.9))
    best, notes = promoting.best_checkpoint(
        found, original, {"objective": {"metric": "val/acc", "direction": "maximize"}}
    )
    assert (best.name, notes) == ("epoch=0.ckpt", [])


class Harmful:
    """Runs when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return (open, (str(self.canary), "w"))


def test_nothing_of_a_checkpoint_is_run_even_if_it_seems_to_be_ones_own(tmp_path: Path) -> None:
    """An artifact is a copy that this user has made of a file that others may have put there."""
    odd = [Path("a"), partial(torch.optim.Adam, lr=1), defaultdict(list, {1: [2]}), deque([1]), Harmful, len, Plain()]
    content = {"state_dict": {"w": torch.ones(2)}, "hyper_parameters": [Harmful(tmp_path / "harm"), *odd]}
    torch.save(content, tmp_path / "a.ckpt")
    (tmp_path / "a.ckpt").chmod(0o600)

    found = promoting.read_checkpoint(tmp_path / "a.ckpt")

    assert torch.equal(found.content["state_dict"]["w"], torch.ones(2))
    assert not (tmp_path / "harm").exists()
    with pytest.raises(StoreError, match=r"holds io.open, which the module reads"):
        torch.save(found.content, tmp_path / "b.ckpt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"state_dict": {}}), "cannot be read"),
        ({"state_dict": {}, "epoch": [1]}, "epoch"),
        ({"state_dict": 1}, "not a checkpoint"),
        ({"state_dict": {}, "x": os.system}, "has more in it than weights, which might run"),
    ],
    ids=["bare pickle", "epoch", "weights", "system"],
)
def test_file_that_is_no_checkpoint_is_told(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "a.ckpt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)

    with pytest.raises(StoreError, match=message):
        promoting.read_checkpoint(path)


def test_code_of_ones_own_brings_the_packages_that_it_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pack_of_mine").mkdir()
    (tmp_path / "pack_of_mine" / "__init__.py").write_text(
        "import torch, os\nfrom sklearn.datasets import load_digits\n"
    )
    (tmp_path / "net_of_mine.py").write_text("from pack_of_mine import thing\nimport PIL.Image\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    code, requirements = own_code(["net_of_mine", "pack_of_mine.sub", "torchmetrics.text.bert"], [tmp_path])

    assert code == [tmp_path / "net_of_mine.py", tmp_path / "pack_of_mine"]
    assert [requirement.partition("==")[0] for requirement in requirements] == ["pillow", "scikit-learn"]


def test_another_line_of_code_is_another_model(tmp_path: Path) -> None:
    for name in ("model.json", "config.yaml", "net.py"):
        (tmp_path / name).write_text("1")
    before = content_digest(tmp_path, [tmp_path / "net.py"], ["torch==1"])

    assert content_digest(tmp_path, [tmp_path / "net.py"], ["torch==2"]) != before
    (tmp_path / "net.py").write_text("2")
    assert content_digest(tmp_path, [tmp_path / "net.py"], ["torch==1"]) != before


class Plain(pl.LightningModule):
    """Leaves nothing of its own in a checkpoint."""


class Vocabulary(pl.LightningModule):
    """Leaves something there, and reads it."""

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.words = checkpoint["words"]


@pytest.mark.parametrize(("module", "more"), [(Plain(), set()), (Vocabulary(), {"words"})], ids=["plain", "own"])
def test_of_a_checkpoint_only_the_modules_own_is_kept(module: pl.LightningModule, more: set[str]) -> None:
    content = {"state_dict": {}, "epoch": 1, "global_step": 2, "words": ["a"], "callbacks": {}, "loops": {}}
    content |= {"hyper_parameters": {"password": "x"}, "datamodule_hyper_parameters": {"password": "x"}}

    kept = promoting.kept_content(promoting.Checkpoint(name="a.ckpt", content=content), module)

    assert set(kept) == {"state_dict", "epoch", "global_step"} | more
