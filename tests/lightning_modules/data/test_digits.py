import sys
import time

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningModule, Trainer

from lightning_modules.data.augmentation import Augmentation
from lightning_modules.data.digits import Digits


def digits(folder, **options) -> Digits:
    shape = {"num_classes": 10, "input_shape": [1, 8, 8], "cache_dir": str(folder), "test_fraction": 0.15}
    return Digits(**(shape | options))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A folder in which the digits are decoded."""
    folder = tmp_path_factory.mktemp("cache")
    digits(folder).setup()
    return folder


def samples(loader) -> torch.Tensor:
    return torch.cat([x for x, _ in loader])


def rows(loader) -> set[bytes]:
    return {one.numpy().tobytes() for one in samples(loader)}


def test_the_pixels_are_scikit_learns_standardised(cache):
    from sklearn.datasets import load_digits

    data = digits(cache, test_fraction=0.0, val_fraction=0.0, mean=0.25, std=0.5, eval_batch_size=2000)
    data.setup()
    loader = data.train_dataloader()
    x = samples(loader)[torch.argsort(loader.sampler.indices())]
    assert np.allclose(x[:, 0].numpy(), (load_digits().images / 16 - 0.25) / 0.5, atol=1e-6)


def test_the_parts_are_disjoint_and_complete(cache):
    data = digits(cache)
    data.setup()
    parts = [data.train_dataloader(), data.val_dataloader(), data.test_dataloader()]
    counts = [len(samples(part)) for part in parts]
    assert counts == [1376, 152, 269]
    assert sum(len(rows(part)) for part in parts) == len(set.union(*map(rows, parts)))


def test_the_parts_depend_on_the_split_seed_and_not_on_the_seed(cache):
    one, same, other = (digits(cache, **o) for o in ({}, {"seed": 1}, {"split_seed": 1}))
    for data in (one, same, other):
        data.setup()
    assert rows(one.val_dataloader()) == rows(same.val_dataloader()) != rows(other.val_dataloader())


def test_folds_take_turns_as_the_validation_part_and_keep_the_test_part(cache):
    folds = [digits(cache, num_folds=3, fold=fold) for fold in range(3)]
    for data in folds:
        data.setup()
    assert not rows(folds[0].val_dataloader()) & rows(folds[1].val_dataloader())
    assert sum(len(samples(data.val_dataloader())) for data in folds) == 1797 - 269
    assert rows(folds[0].test_dataloader()) == rows(folds[2].test_dataloader())


def test_only_training_images_are_augmented(cache):
    plain, augmented = digits(cache), digits(cache, augmentation=Augmentation(crop_padding=1))
    for data in (plain, augmented):
        data.setup()
    assert torch.equal(samples(plain.val_dataloader()), samples(augmented.val_dataloader()))
    assert not torch.equal(samples(plain.train_dataloader()), samples(augmented.train_dataloader()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"num_classes": 12},
            r"data\.num_classes is 12, but Digits has 10 classes: set data\.num_classes=10",
        ),
        ({"input_shape": [1, 28, 28]}, r"data\.input_shape is \[1, 28, 28\].* set data\.input_shape=\[1,8,8\]"),
        ({"mean": [0.1, 0.2]}, r"data\.mean must be one number or one for each of 1 channels"),
    ],
)
def test_a_configuration_that_does_not_fit_the_source_is_told_what_does(cache, options, message):
    with pytest.raises(ValueError, match=message):
        digits(cache, **options).setup()


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"val_fraction": 1.0}, "data.val_fraction"),
        ({"test_fraction": -0.1}, "data.test_fraction"),
        ({"num_folds": 3, "fold": 3}, "data.fold"),
    ],
)
def test_impossible_numbers_are_refused_by_their_dotted_key(cache, options, key):
    with pytest.raises(ValueError, match=key):
        digits(cache, **options)


def test_every_process_sees_the_same_fingerprint(cache):
    one, other = digits(cache), digits(cache)
    one.setup(), other.setup()
    assert one.fingerprint == other.fingerprint != ""


def test_set_up_from_a_warm_cache_is_quick_and_needs_no_scikit_learn(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    durations_ms = []
    for _ in range(5):
        begin = time.perf_counter()
        digits(cache).setup()
        durations_ms.append(1e3 * (time.perf_counter() - begin))
    assert min(durations_ms) < 100  # 1 ms where this was written; a cold cache takes seconds


class Recorder(LightningModule):
    """Trains nothing; keeps a copy of every training batch by (epoch, batch)."""

    def __init__(self, save_at=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = {}
        self.save_at = save_at

    def training_step(self, batch, batch_idx):
        self.seen[self.current_epoch, batch_idx] = batch[0].clone()
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        pass

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if self.save_at == (self.current_epoch, batch_idx, "batch"):
            self.trainer.save_checkpoint(self.trainer.default_root_dir + "/saved.ckpt")

    def on_validation_end(self):
        if self.save_at == (self.current_epoch, "validation"):
            self.trainer.save_checkpoint(self.trainer.default_root_dir + "/saved.ckpt")

    def on_train_epoch_end(self):
        if self.save_at == (self.current_epoch, "epoch"):
            self.trainer.save_checkpoint(self.trainer.default_root_dir + "/saved.ckpt")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def recorded(folder, data, save_at=None, checkpoint=None) -> dict:
    recorder = Recorder(save_at)
    Trainer(
        accelerator="cpu",
        max_epochs=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    ).fit(recorder, data, ckpt_path=checkpoint, weights_only=True)
    return recorder.seen


@pytest.mark.parametrize("save_at", [(1, 4, "batch"), (1, "validation"), (1, "epoch")])
def test_a_resumed_training_sees_the_batches_of_an_uninterrupted_one(cache, tmp_path, save_at):
    def data():
        return digits(cache, batch_size=100, augmentation=Augmentation(crop_padding=1, rotation_degrees=9.0))

    whole = recorded(tmp_path, data(), save_at)
    rest = recorded(tmp_path, data(), checkpoint=str(tmp_path / "saved.ckpt"))
    expected = [key for key in whole if key > ((1, 4) if save_at[-1] == "batch" else (1, 99))]
    assert list(rest) == expected
    assert all(torch.equal(rest[key], whole[key]) for key in rest)


def test_two_data_modules_are_never_equal() -> None:
    one, other = (Digits(num_classes=10, input_shape=[1, 8, 8], cache_dir="data") for _ in range(2))
    assert one != other and hash(one) != hash(other)
