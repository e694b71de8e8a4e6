"""The base of all data here: labelled images, memory mapped, split, batched and dealt to ranks."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor

from lightning_modules.data.array_cache import CachedArrays
from lightning_modules.data.augmentation import Augmentation
from lightning_modules.data.pixels import Pixels
from lightning_modules.data.split import fold_out, hold_out
from lightning_modules.data.tensor_batches import TensorBatches

__all__ = ["ImageSource", "TensorDataModule"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSource:
    """Labelled images as a subclass of `TensorDataModule` finds them.

    Args:
        cached: arrays `train_x` (N x C x H x W, uint8) and `train_y` (N, int64), and likewise `val_x`,
            `val_y`, `test_x` and `test_y` where the source has these parts of its own.
        class_names: the name of each class number.
        pixel_max: the pixel value that means white.
    """

    cached: CachedArrays
    class_names: Sequence[str]
    pixel_max: int = 255


@dataclass(frozen=True, slots=True)
class _Part:
    """Some of the samples of a source."""

    x: Tensor
    y: Tensor
    indices: Tensor | None = None


@dataclass(slots=True)
class _Parts:
    """What `setup` made of a source; none of it before."""

    train: _Part | None = None
    val: _Part | None = None
    test: _Part | None = None
    class_names: Sequence[str] = ()
    fingerprint: str = ""
    pixel_max: int = 255


@dataclass(kw_only=True, eq=False, repr=False)
class TensorDataModule(LightningDataModule, ABC):
    """Train, validate and test on one source of images.

    **Subclasses.** Arguments are the fields of a dataclass. A subclass adds its own, or gives one another default, by
    declaring it as a field, and is decorated as this class is.

    **Splits.** They depend on `split_seed` and not on `seed`, so all trials of a study are judged on the same
    samples. A part that the source brings along is used as it is. Else the test part is held out first, then
    the validation part, both stratified by class; with `num_folds` the validation part is fold number `fold`.

    **Batches.** `batch_size` is for each rank. Every order and every augmentation is derived from (`seed`,
    epoch, batch, rank). Validation and testing count each sample once, whatever the number of ranks.

    **Setup.** It is quick when another trial has decoded the source before, and needs no `prepare_data`:
    whichever process comes first decodes, the others wait.

    Args:
        num_classes: the number of classes; checked against the source.
        input_shape: channels, height and width of an image; checked against the source.
        cache_dir: the folder in which decoded images are kept for other trials.
        batch_size: training samples of a batch on each rank.
        eval_batch_size: validation or test samples of a batch on each rank.
        drop_last: whether training leaves out an incomplete last batch.
        seed: the seed of the order and the augmentation.
        split_seed: the seed of the splits.
        val_fraction: the part of the training samples that is held out for validation.
        test_fraction: the part of all samples that is held out for testing.
        num_folds: the number of folds of a cross-validation; None for a single split by `val_fraction`.
        fold: which fold validates, from 0.
        mean: mean of each channel, with pixels in [0, 1]: one number for all, or one a channel.
        std: standard deviation of each channel, likewise.
        augmentation: random changes to training images; None for none.

    Raises:
        ValueError: a number is out of its range.
    """

    num_classes: int
    input_shape: list[int]
    cache_dir: str
    batch_size: int = 64
    eval_batch_size: int = 1024
    drop_last: bool = False
    seed: int = 0
    split_seed: int = 0
    val_fraction: float = 0.1
    test_fraction: float = 0.0
    num_folds: int | None = None
    fold: int = 0
    mean: float | list[float] = 0.5
    std: float | list[float] = 0.5
    augmentation: Augmentation | None = None

    content_ignores = ("seed", "batch_size", "eval_batch_size", "drop_last", "mean", "std", "augmentation")
    """arguments that the samples, as they are before any change to them, do not depend on"""

    def __post_init__(self) -> None:
        super().__init__()
        for key, fraction in {"data.val_fraction": self.val_fraction, "data.test_fraction": self.test_fraction}.items():
            if not 0 <= fraction < 1:
                raise ValueError(f"{key} must be at least 0 and below 1, but got {fraction}")
        if self.num_folds is not None and not (self.num_folds >= 2 and 0 <= self.fold < self.num_folds):
            raise ValueError(
                "data.num_folds must be 2 or more and data.fold a number from 0 to one less, "
                f"but got data.num_folds={self.num_folds} data.fold={self.fold}"
            )
        self.input_shape = list(self.input_shape)
        self._parts = _Parts()

    @abstractmethod
    def open_source(self) -> ImageSource:
        """Return the images, decoded and cached; called once in each process, by `setup`.

        Raises:
            FileNotFoundError: the source is not on this machine; the message says how to get it.
            ValueError: the source is damaged.
        """

    @property
    def class_names(self) -> list[str]:
        """The name of each class number; empty before `setup`."""
        return list(self._parts.class_names)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of all decoded images and labels; empty before `setup`."""
        return self._parts.fingerprint

    def setup(self, stage: str | None = None) -> None:
        """Open the source, check what the configuration says of it, and split it.

        Raises:
            ValueError: `num_classes` or `input_shape` is not the source's, or a part would be empty.
            FileNotFoundError: see `open_source`.
        """
        if self._parts.train is None:
            source = self.open_source()
            self._check(source)
            self._parts = self._split(source)

    def train_dataloader(self) -> TensorBatches:
        """Return the training batches of this rank, in a new order every epoch."""
        return self._batches(self._parts.train, is_training=True)

    def val_dataloader(self) -> TensorBatches:
        """Return the validation batches of this rank."""
        return self._batches(self._parts.val)

    def test_dataloader(self) -> TensorBatches:
        """Return the test batches of this rank."""
        return self._batches(self._parts.test)

    def raw_input(self, num_samples: int) -> dict[str, Any]:
        """Return what a net that was trained on this data takes when it is served: images as the source has them.

        Returns:
            Plain data and a tensor, after `setup`: `samples`, some validation images (uint8, at most `num_samples`
            x C x H x W); `transform`, the module that makes of them what the net reads, as a configuration;
            `least` and `greatest`, the range of a pixel; `class_names`.
        """
        part = self._parts.val
        if part is None:
            raise RuntimeError("setup() must be called before samples are asked for")
        x = part.x[:num_samples] if part.indices is None else part.x[part.indices[:num_samples]]
        pixel_max = self._parts.pixel_max
        return {
            "samples": x,
            "transform": {
                "_target_": "lightning_modules.data.pixels.Standardize",
                "pixel_max": pixel_max,
                "mean": self.mean,
                "std": self.std,
            },
            "least": 0,
            "greatest": pixel_max,
            "class_names": self.class_names,
        }

    def _check(self, source: ImageSource) -> None:
        name = type(self).__name__
        num_classes, shape = len(source.class_names), list(source.cached.arrays["train_x"].shape[1:])
        if self.num_classes != num_classes:
            raise ValueError(
                f"data.num_classes is {self.num_classes}, but {name} has {num_classes} classes: "
                f"set data.num_classes={num_classes}"
            )
        if self.input_shape != shape:
            raise ValueError(
                f"data.input_shape is {self.input_shape}, but an image of {name} is {shape}: "
                f"set data.input_shape=[{','.join(map(str, shape))}]"
            )
        for key, value in {"data.mean": self.mean, "data.std": self.std}.items():
            if not isinstance(value, int | float) and len(value) not in (1, shape[0]):
                raise ValueError(f"{key} must be one number or one for each of {shape[0]} channels, got {value}")

    def _split(self, source: ImageSource) -> _Parts:
        arrays = source.cached.arrays
        own = {
            name: _Part(torch.from_numpy(arrays[f"{name}_x"]), torch.from_numpy(arrays[f"{name}_y"]))
            for name in ("train", "val", "test")
            if f"{name}_x" in arrays
        }
        whole, y = own["train"], arrays["train_y"]
        train = np.arange(len(y))
        if "test" not in own:
            train, test = hold_out(y, train, self.test_fraction, self.split_seed)
            own["test"] = _Part(whole.x, whole.y, torch.from_numpy(test))
        if self.num_folds is not None:
            train, val = fold_out(y, train, self.num_folds, self.fold, self.split_seed)
            own["val"] = _Part(whole.x, whole.y, torch.from_numpy(val))
        elif "val" not in own:
            train, val = hold_out(y, train, self.val_fraction, self.split_seed)
            own["val"] = _Part(whole.x, whole.y, torch.from_numpy(val))
        return _Parts(
            train=_Part(whole.x, whole.y, torch.from_numpy(train)),
            val=own["val"],
            test=own["test"],
            class_names=source.class_names,
            fingerprint=source.cached.fingerprint,
            pixel_max=source.pixel_max,
        )

    def _batches(self, part: _Part | None, is_training: bool = False) -> TensorBatches:
        if part is None:
            raise RuntimeError("setup() must be called before the batches are asked for")
        # None without ranks; not `world_size`, since ranks that share a net's layers are dealt the same samples
        place = (self.trainer and self.trainer.distributed_sampler_kwargs) or {"rank": 0, "num_replicas": 1}
        return TensorBatches(
            part.x,
            part.y,
            batch_size=self.batch_size if is_training else self.eval_batch_size,
            shuffle=is_training,
            seed=self.seed,
            drop_last=self.drop_last and is_training,
            rank=place["rank"],
            world_size=place["num_replicas"],
            indices=part.indices,
            transform=Pixels(self._parts.pixel_max, self.mean, self.std, self.augmentation if is_training else None),
        )
