"""Hash tensors and plain values on any device, and fingerprint data sets with these hashes.

The fingerprint identifies the samples of each split, without their order and their augmentation. A loader that has a
method `fingerprint()` returns its own. Otherwise the data set is read: all of a `TensorDataset`, up to a size; some
samples of any other, spread evenly, with fixed random streams.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from types import MemberDescriptorType
from typing import Any

import torch
from pytorch_lightning.utilities.combined_loader import CombinedLoader
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils.data import IterableDataset, TensorDataset

from sweeps.core.failure_text import one_line
from sweeps.worker.seeding import seed_streams

__all__ = ["Name", "bytes_of", "data_content", "feed", "form", "leaves", "parts"]

_MAX_SAMPLES = 128
_MAX_BYTES = 256_000_000
_DEPTH = 6
_PLAIN = (Tensor, str, bytes, int, float, complex)
_FORM = ("dtype", "shape", "mode", "size", "typecode")  # of an array, an image
_SPARSE = {
    torch.sparse_coo: ("_indices", "_values"),
    torch.sparse_csr: ("crow_indices", "col_indices", "values"),
    torch.sparse_bsr: ("crow_indices", "col_indices", "values"),
    torch.sparse_csc: ("ccol_indices", "row_indices", "values"),
    torch.sparse_bsc: ("ccol_indices", "row_indices", "values"),
}


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


class Name(str):
    """A leaf that says what comes next, a key or the form of an array, and is not a value."""

    __slots__ = ()


def leaves(structure: Any, depth: int = _DEPTH) -> Iterator[object]:
    """Yield the tensors and the plain values; other objects have no bytes that are the same every time."""
    if isinstance(structure, _PLAIN):
        yield structure
    elif isinstance(structure, bytearray):
        yield bytes(structure)
    elif depth == 0:  # an object that holds itself
        return
    elif isinstance(structure, list | tuple):
        for item in structure:
            yield from leaves(item, depth - 1)
    elif isinstance(structure, Mapping):
        for key in structure:
            yield Name(key)
            yield from leaves(structure[key], depth - 1)
    elif getattr(getattr(structure, "dtype", None), "hasobject", False):  # its bytes are addresses
        yield from leaves(structure.tolist(), depth - 1)
    elif callable(getattr(structure, "tobytes", None)):  # an array, an image
        yield Name([getattr(structure, name) for name in _FORM if hasattr(structure, name)])
        yield structure.tobytes()
    else:
        yield from leaves(_attributes(structure), depth - 1)


def feed(digest: Any, leaf: object) -> None:
    """Add a leaf to a hash: the type, the shape and the bytes of a tensor, or a plain value."""
    if not isinstance(leaf, Tensor):
        digest.update(leaf if isinstance(leaf, bytes) else f"{leaf!r}\n".encode())
        return
    inner = parts(leaf)
    if len(inner) > 1:
        digest.update(f"{form(leaf)}\n".encode())
    for part in inner:
        digest.update(f"{part.dtype} {tuple(part.shape)}\n".encode())
        digest.update(bytes_of(part))


def parts(tensor: Tensor) -> list[Tensor]:
    """Return the plain tensors that hold all of a tensor; of a usual one itself, of a distributed one what is here.

    A sparse one has indices and values, a nested one sizes or offsets and values, a quantized one whole numbers and
    what they stand for, and a class of somebody's own what it says.
    """
    if isinstance(tensor, DTensor):
        return parts(tensor.to_local())
    tensor = tensor.detach()
    if tensor.layout in _SPARSE:
        return [getattr(tensor, name)() for name in _SPARSE[tensor.layout]]
    if tensor.layout is torch.jagged:
        found = (tensor.values(), tensor.offsets(), tensor.lengths())  # type: ignore[attr-defined]
        return [part for part in found if part is not None]
    if tensor.is_nested:
        return [tensor._nested_tensor_size(), tensor.contiguous().values()]
    if tensor.is_quantized:
        return [tensor.int_repr(), tensor.dequantize()]
    if tensor.layout is not torch.strided:
        return [tensor.to_dense()]
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        return [part for name in names for part in parts(getattr(tensor, name))]
    return [tensor]


def form(tensor: Tensor) -> str:
    """Return what a tensor is that has several parts: they do not say how they belong together."""
    shape = None if tensor.is_nested else tuple(tensor.shape)  # of a nested one the numbers are in its parts
    return f"{tensor.layout} {tensor.dtype} {shape}"


def bytes_of(tensor: Tensor) -> Any:
    """Return the bytes of a tensor that is one part, row by row, as `hashlib` takes them.

    They are a copy: torch never again resizes a storage that NumPy has seen, as FSDP must to gather its weights.
    """
    plain = tensor.detach().to("cpu", copy=True).contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy().data


def _attributes(thing: object) -> dict[str, Any]:
    """Return what an object holds by name, in `__slots__` and in `__dict__`."""
    slots = (
        name
        for of in type(thing).__mro__
        if "__slots__" in vars(of)
        for name, member in vars(of).items()
        if isinstance(member, MemberDescriptorType) and hasattr(thing, name)
    )
    return {name: getattr(thing, name) for name in slots} | getattr(thing, "__dict__", {})
