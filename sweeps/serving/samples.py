"""Read samples to predict for from a file: CSV, .npy, .npz, JSON, or an image where the model takes images."""

import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeps.core.errors import UsageError
from sweeps.serving.model import SampleSpec

__all__ = ["read_samples"]

_IMAGES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
_KINDS = ".csv, .npy, .npz, .json, or an image such as .png"
_KEYS = ("inputs", "instances")  # of JSON as MLflow's server takes it
_MODES = {1: "L", 3: "RGB"}
_WHITE = 255

Numbers = NDArray[Any]


def read_samples(path: Path, spec: SampleSpec) -> Numbers:
    """Return the samples of a file, N x the shape of one, as the model takes them.

    A CSV has a sample a line, its numbers in the order of its dimensions, and may begin with a line of names. An array,
    or a list in JSON, has the shape of one sample or of several, or a sample a row; dimensions of one may be left out.

    Raises:
        UsageError: There is no such file, its format is not known, or it holds other samples.
    """
    if not path.is_file():
        raise UsageError(f"There is no file {path}.")
    suffix = path.suffix.lower()
    if suffix in _IMAGES:
        return _image(path, spec)
    readers = {".csv": _csv, ".npy": _npy, ".npz": _npz, ".json": _json}
    if suffix not in readers:
        raise UsageError(f"A file of samples must be {_KINDS}, but got {path}.")
    try:
        found = readers[suffix](path)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, RecursionError) as error:
        raise UsageError(f"{path} cannot be read as {suffix[1:]}: {' '.join(str(error).split())[:200]}") from error
    return _cast(_shaped(found, spec, path), spec, path)


def _csv(path: Path) -> Numbers:
    with path.open(encoding="utf-8-sig") as file:
        first = file.readline()
    found = np.loadtxt(
        path, delimiter=",", skiprows=int(not _is_numbers(first)), ndmin=2, dtype=np.float64, encoding="utf-8-sig"
    )
    return found.reshape(len(found), -1)


def _is_numbers(line: str) -> bool:
    try:
        [float(cell) for cell in line.split(",")]
    except ValueError:
        return False
    return True


def _npy(path: Path) -> Numbers:
    return _plain(np.load(path, allow_pickle=False))


def _npz(path: Path) -> Numbers:
    with np.load(path, allow_pickle=False) as arrays:
        names = list(arrays)
        chosen = names if len(names) == 1 else [name for name in ("x", "samples", *_KEYS) if name in names][:1]
        if not chosen:
            raise ValueError(f"it must have one array, or one that is called x, but has {', '.join(names) or 'none'}")
        return _plain(arrays[chosen[0]])


def _json(path: Path) -> Numbers:
    tree = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(tree, dict):
        names = [name for name in _KEYS if name in tree]
        if not names:
            raise ValueError(
                f"an object must have {' or '.join(_KEYS)}, but has {', '.join(map(str, tree)) or 'nothing'}"
            )
        tree = tree[names[0]]
    return _plain(np.array(tree))


def _plain(found: Any) -> Numbers:
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "iufb":
        raise ValueError("it must have numbers, and nothing but numbers")
    return found


def _image(path: Path, spec: SampleSpec) -> Numbers:
    """Read an image as `data=image_folder` does: made grey or RGB, and resized."""
    if len(spec.shape) != 3 or spec.shape[0] not in _MODES or spec.greatest is None or spec.least != 0:
        raise UsageError(f"{path} is an image, but the model takes {spec}.")
    try:
        from PIL import Image
    except ImportError as error:
        raise UsageError(f"To read {path}, Pillow is needed: pip install 'lightsweep[images]'") from error
    channels, height, width = spec.shape
    try:
        with Image.open(path) as image:
            converted = image.convert(_MODES[channels])
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(f"{path} is not an image that can be read: {' '.join(str(error).split())[:200]}") from error
    if converted.size != (width, height):
        converted = converted.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(converted, dtype=np.float64).reshape(height, width, channels).transpose(2, 0, 1)
    return np.rint(pixels * (spec.greatest / _WHITE)).astype(spec.dtype)[None]


def _shaped(found: Numbers, spec: SampleSpec, path: Path) -> Numbers:
    """Return an array as N x the shape of a sample, if it can only mean that."""
    size = math.prod(spec.shape)
    one = [length for length in spec.shape if length != 1]  # 8 x 8 is 1 x 8 x 8
    own = [length for length in found.shape[1:] if length != 1]
    if found.ndim and found.size and (own == one or found.shape[1:] == (size,)):
        return found.reshape(len(found), *spec.shape)
    if found.size == size and ([length for length in found.shape if length != 1] == one or found.shape == (size,)):
        return found.reshape(1, *spec.shape)
    got = " x ".join(map(str, found.shape)) or "one number"
    raise UsageError(f"{path} must have samples of {spec}, {size} numbers each, but has {got}.")


def _cast(found: Numbers, spec: SampleSpec, path: Path) -> Numbers:
    """Return numbers in the model's type, if none is changed by that more than by rounding."""
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        raise UsageError(f"{path} must have finite numbers, but has NaN or infinity.")
    wanted = np.dtype(spec.dtype)
    if wanted.kind != "f":
        limits = np.iinfo(wanted)
        wrong = (found < limits.min) | (found > limits.max)
        if found.dtype.kind == "f":
            wrong |= found != np.rint(found)
        if wrong.any():
            at = np.unravel_index(int(wrong.argmax()), wrong.shape)
            value = found[at]
            raise UsageError(
                f"{path} must have samples of {spec}, but sample {at[0]} has a {value:g}, which is not such a number."
            )
    return found.astype(wanted)
