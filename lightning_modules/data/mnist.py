"""MNIST and what was made to replace it: 60,000 + 10,000 grey images of 28 x 28 in four IDX files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from lightning_modules.data.array_cache import cached_arrays
from lightning_modules.data.download import DownloadError, download
from lightning_modules.data.idx import read_idx
from lightning_modules.data.module import ImageSource, TensorDataModule

__all__ = ["MNIST", "FashionMNIST"]

_FILES = {
    "train_x": "train-images-idx3-ubyte.gz",
    "train_y": "train-labels-idx1-ubyte.gz",
    "test_x": "t10k-images-idx3-ubyte.gz",
    "test_y": "t10k-labels-idx1-ubyte.gz",
}


@dataclass(kw_only=True, eq=False, repr=False)
class MNIST(TensorDataModule):
    """Handwritten digits (LeCun et al. 1998), from a local folder or, with `download`, from a mirror.

    Args:
        root: the folder, or folders, that may hold the four IDX files, each with or without `.gz`. The folder
            below `cache_dir` where downloads go is looked in last.
        download: whether to fetch the files when no folder holds them.
        mirrors: folders on the web, tried in order; what they give must have the right SHA-256.
        timeout_s: how long a mirror may stay silent.

    The other arguments are those of `TensorDataModule`; the test part is the source's own.

    Raises:
        ValueError: a number is out of its range.
    """

    name = "mnist"
    classes: ClassVar[Sequence[str]] = tuple("0123456789")
    how_to_get = "data.download=true, or data.root=FOLDER with its four IDX files, or data=digits"
    checksums: ClassVar[Mapping[str, str]] = {
        "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    }

    root: str | list[str] | None = None
    download: bool = False
    mirrors: list[str] | None = None
    timeout_s: float = 30.0
    test_fraction: float = field(default=0.0, init=False)  # the source has a test part

    @property
    def folders(self) -> list[Path]:
        """The folders that may hold the files, in the order in which they are searched."""
        roots = [] if self.root is None else [self.root] if isinstance(self.root, str) else self.root
        return [*(Path(root).expanduser() for root in roots), self._download_folder]

    def open_source(self) -> ImageSource:
        """Return the images of the first folder that holds all four files; fetch them if that is allowed.

        Raises:
            FileNotFoundError: no folder holds them, and they may not or cannot be fetched.
            ValueError: a file is damaged, or images and labels do not belong together.
        """
        files = self._find() or self._fetch()
        source = {name: _state(path) for name, path in files.items()}
        cached = cached_arrays(self.cache_dir, self.name, source, lambda folder: _decode(files, folder))
        return ImageSource(cached=cached, class_names=self.classes)

    @property
    def _download_folder(self) -> Path:
        return Path(self.cache_dir) / f"{self.name}-downloads"

    def _find(self) -> dict[str, Path] | None:
        for folder in self.folders:
            paths = {name: _either(folder / file) for name, file in _FILES.items()}
            if all(path.is_file() for path in paths.values()):
                return paths
        return None

    def _fetch(self) -> dict[str, Path]:
        if not self.download:
            raise FileNotFoundError(self._missing("data.download is false"))
        from filelock import FileLock  # not at the top: only the first trial of all needs it

        self._download_folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self._download_folder / ".lock"):
                for file in _FILES.values():
                    if not _either(self._download_folder / file).is_file():
                        download(self.mirrors or [], self._download_folder / file, self.checksums[file], self.timeout_s)
        except DownloadError as exc:
            raise FileNotFoundError(self._missing(f"no mirror gave them:\n{exc}")) from exc
        return {name: _either(self._download_folder / file) for name, file in _FILES.items()}

    def _missing(self, reason: str) -> str:
        looked_in = ", ".join(str(folder.absolute()) for folder in self.folders)
        return (
            f"the files of {self.name} must be in one of these folders: {looked_in}; but they are not, and "
            f"{reason}\nGet them with: {self.how_to_get}"
        )


class FashionMNIST(MNIST):
    """Pictures of clothes (Xiao et al. 2017), in MNIST's form; arguments as in `MNIST`."""

    name = "fashion_mnist"
    classes = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )
    how_to_get = "apt-get install dataset-fashion-mnist, or data.download=true, or data.root=FOLDER"
    checksums: ClassVar[Mapping[str, str]] = {
        "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    }


def _either(compressed: Path) -> Path:
    """Return the path of a file, compressed or plain: the one that exists, else the compressed one."""
    plain = compressed.with_suffix("")
    return plain if plain.is_file() and not compressed.is_file() else compressed


def _state(path: Path) -> list[str | int]:
    status = path.stat()
    return [str(path.resolve()), status.st_size, status.st_mtime_ns]


def _decode(files: dict[str, Path], folder: Path) -> None:
    for part in ("train", "test"):
        x, y = read_idx(files[f"{part}_x"]), read_idx(files[f"{part}_y"])
        if x.ndim != 3 or x.dtype != np.uint8:
            raise ValueError(f"{files[f'{part}_x']} must hold images in bytes, but holds {x.dtype} {x.shape}")
        if y.shape != x.shape[:1]:
            raise ValueError(f"{files[f'{part}_y']} must hold a label for each of {len(x)} images, but holds {y.shape}")
        np.save(folder / f"{part}_x.npy", x[:, None])
        np.save(folder / f"{part}_y.npy", y.astype(np.int64))
