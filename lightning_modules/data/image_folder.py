"""Image files sorted into one folder a class."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lightning_modules.data.array_cache import cached_arrays
from lightning_modules.data.module import ImageSource, TensorDataModule

__all__ = ["ImageFolder"]

_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_PARTS = ("train", "val", "test")
_MODES = {1: "L", 3: "RGB"}

_Files = dict[str, list[tuple[str, Path]]]
"""For each part, (class name, file) in a fixed order."""


@dataclass(kw_only=True, eq=False, repr=False)
class ImageFolder(TensorDataModule):
    """Images from `root/CLASS/*`, or from `root/train/CLASS/*` and, if there are, `root/val` and `root/test`.

    Every image is resized to `input_shape` (bilinear, smoothed when it shrinks) and made grey or RGB, once
    for all trials. Classes are numbered in the alphabetical order of their folders. Needs Pillow.

    Args:
        root: the folder.
        input_shape: channels (1 is grey, 3 is RGB), height and width that images are made to have.
        cache_dir: where the decoded images are kept; takes channels x height x width bytes for each.
        val_fraction: as in `TensorDataModule`; not used if there is `root/val`.
        test_fraction: as in `TensorDataModule`; not used if there is `root/test`.
        num_folds: as in `TensorDataModule`; its folds take the place of `root/val`.

    The other arguments are those of `TensorDataModule`.

    Raises:
        ValueError: a number is out of its range, or an image has neither one channel nor three.
    """

    root: str
    eval_batch_size: int = 256
    test_fraction: float = 0.1
    std: float | list[float] = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.input_shape) != 3 or self.input_shape[0] not in _MODES:
            raise ValueError(
                "data.input_shape must be [1, height, width] for grey or [3, height, width] for RGB images, "
                f"but got {self.input_shape}"
            )

    def open_source(self) -> ImageSource:
        """Return the images of `root`.

        Raises:
            FileNotFoundError: there is no such folder, or no image in a part of it.
            ValueError: a file is not an image, or a class is in `val` or `test` only.
            ImportError: Pillow is not installed and the images are not in the cache.
        """
        root = Path(self.root).expanduser()
        files = _list_files(root)
        source = {"root": str(root.resolve()), "shape": self.input_shape, "files": _states(files)}
        cached = cached_arrays(
            self.cache_dir, "image_folder", source, lambda folder: _decode(files, self.input_shape, folder)
        )
        return ImageSource(cached=cached, class_names=_class_names(files))


def _list_files(root: Path) -> _Files:
    if not root.is_dir():
        raise FileNotFoundError(f"data.root must be a folder of images, but {root.absolute()} is not there")
    own_parts = [part for part in _PARTS if (root / part).is_dir()] if (root / "train").is_dir() else []
    files = {part: list(_classified(root / part)) for part in own_parts} or {"train": list(_classified(root))}
    for part, found in files.items():
        if not found:
            folder = root / part if own_parts else root
            raise FileNotFoundError(
                f"{folder.absolute()} must have a folder of images for each class, but there are none: "
                "images are expected at CLASS/NAME.png below it"
            )
    for part, found in files.items():
        if unknown := {name for name, _ in found} - set(_class_names(files)):
            raise ValueError(
                f"every class must be in {root / 'train'}, but {root / part} also has " + ", ".join(sorted(unknown))
            )
    return files


def _classified(folder: Path) -> Iterator[tuple[str, Path]]:
    for class_folder in sorted(path for path in folder.iterdir() if path.is_dir()):
        for path in sorted(class_folder.iterdir()):
            if path.suffix.lower() in _SUFFIXES:
                yield class_folder.name, path


def _class_names(files: _Files) -> list[str]:
    return sorted({name for name, _ in files["train"]})


def _states(files: _Files) -> list[list[str | int]]:
    found: list[list[str | int]] = []
    for part, each in files.items():
        for name, path in each:
            status = path.stat()
            found.append([part, name, path.name, status.st_size, status.st_mtime_ns])
    return found


def _decode(files: _Files, shape: list[int], folder: Path) -> None:
    numbers = {name: number for number, name in enumerate(_class_names(files))}
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside Python's lock
        for part, found in files.items():
            x = np.lib.format.open_memmap(
                folder / f"{part}_x.npy", mode="w+", dtype=np.uint8, shape=(len(found), *shape)
            )
            for at, image in enumerate(pool.map(lambda one: _read_image(one[1], shape), found)):
                x[at] = image
            x.flush()
            np.save(folder / f"{part}_y.npy", np.array([numbers[name] for name, _ in found], dtype=np.int64))


def _read_image(path: Path, shape: list[int]) -> np.ndarray:
    """Return one image as C x H x W, uint8."""
    try:
        from PIL import Image  # not at the top: it is an extra, and a warm cache does without
    except ImportError as exc:
        raise ImportError(
            "data=image_folder needs Pillow, which is not installed: pip install 'lightsweep[images]'"
        ) from exc
    channels, height, width = shape
    try:
        with Image.open(path) as image:
            converted = image.convert(_MODES[channels])
    except (OSError, ValueError, Image.DecompressionBombError) as exc:
        raise ValueError(f"{path} must be an image that can be read, but {exc}: repair it or remove it") from exc
    if converted.size != (width, height):
        converted = converted.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(converted).reshape(height, width, channels).transpose(2, 0, 1)
