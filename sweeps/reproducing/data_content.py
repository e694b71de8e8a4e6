"""The fingerprint of the data: what the samples of each split are, without their order and their augmentation.

A loader that has a method `fingerprint()` says itself what its samples are. Of other loaders the data set is looked
at: all of a `TensorDataset`, up to a size; some samples of any other, spread evenly, with fixed random streams.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from pytorch_lightning.utilities.combined_loader import CombinedLoader
from torch.utils.data import IterableDataset, TensorDataset

from sweeps.core.failure_text import one_line
from sweeps.reproducing.hashing import Name, feed, leaves
from sweeps.seeding import seed_streams

__all__ = ["data_content"]

_MAX_SAMPLES = 128
_MAX_BYTES = 256_000_000


def data_content(loaders: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return for each split (train, val, test) that has a loader a hash of its samples, and what was hashed.

    Where there is nothing to hash, `problem` says why.
    """
    found: dict[str, dict[str, Any]] = {}
    for split, loader in loaders.items():
        parts = list(_single(loader))
        for index, part in enumerate(parts):
            name = split if len(parts) == 1 else f"{split}/{index}"
            try:
                found[name] = _content(part)
            except Exception as error:  # of the user's own code: training has come through, and is not to fail here
                found[name] = {"problem": one_line(error)[:300]}
    return found


def _single(loader: Any) -> Iterator[Any]:
    if isinstance(loader, CombinedLoader):
        yield from loader.flattened
    elif isinstance(loader, list | tuple):
        for item in loader:
            yield from _single(item)
    elif isinstance(loader, Mapping):
        for item in loader.values():
            yield from _single(item)
    elif loader is not None:
        yield loader


def _content(loader: Any) -> dict[str, Any]:
    if callable(getattr(loader, "fingerprint", None)):
        return {"hash": str(loader.fingerprint()), "hashed": "all samples"}
    dataset = getattr(loader, "dataset", loader)
    if isinstance(dataset, IterableDataset) or not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        return {"problem": "it can only be read from its beginning to its end"}
    if isinstance(dataset, TensorDataset):
        size = sum(tensor.numel() * tensor.element_size() for tensor in dataset.tensors)
        if size <= _MAX_BYTES:
            return {"hash": _hash(dataset.tensors), "hashed": "all samples"}
    return _of_some(dataset)


def _of_some(dataset: Any) -> dict[str, Any]:
    total = len(dataset)
    places = sorted({index * total // _MAX_SAMPLES for index in range(_MAX_SAMPLES)}) if total else []
    digest = hashlib.blake2b(digest_size=20)
    feed(digest, total)
    for place in places:
        seed_streams(place)  # what augments with the usual random numbers does the same every time
        sample = dataset[place]
        has_values = False
        for leaf in leaves([sample]):
            feed(digest, leaf)
            has_values = has_values or not isinstance(leaf, Name)
        if not has_values:
            return {"problem": f"sample {place}, a {type(sample).__name__}, has no tensor, number or text to be hashed"}
    return {"hash": digest.hexdigest(), "hashed": f"{len(places)} of {total} samples"}


def _hash(tensors: Iterable[torch.Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=20)
    for tensor in tensors:
        feed(digest, tensor)
    return digest.hexdigest()
