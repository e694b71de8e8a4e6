"""The handwritten digits that come with scikit-learn: 1,797 real images of 8 x 8, on every machine."""

from importlib.metadata import version
from pathlib import Path

import numpy as np

from lightning_modules.data.array_cache import cached_arrays
from lightning_modules.data.module import ImageSource, TensorDataModule

__all__ = ["Digits"]


class Digits(TensorDataModule):
    """Ten digits in 1 x 8 x 8 pixels with values from 0 to 16 (Alpaydin & Kaynak, UCI 1998).

    scikit-learn is imported, for a second, only when nobody has decoded its file into `cache_dir` before.
    """

    def open_source(self) -> ImageSource:
        """Return all 1,797 digits; the source is not split into parts."""
        source = {"package": "scikit-learn", "version": version("scikit-learn")}
        cached = cached_arrays(self.cache_dir, "digits", source, _decode)
        return ImageSource(cached=cached, class_names=[str(digit) for digit in range(10)], pixel_max=16)


def _decode(folder: Path) -> None:
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    digits = load_digits()
    np.save(folder / "train_x.npy", digits.images.astype(np.uint8)[:, None])
    np.save(folder / "train_y.npy", digits.target.astype(np.int64))
