"""What the hashes of batches and samples are made of: tensors and plain values, wherever they are in a structure."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["bytes_of", "leaves"]

_DEPTH = 6
_PLAIN = (Tensor, str, bytes, int, float)


def leaves(structure: Any, depth: int = _DEPTH) -> Iterator[object]:
    """Yield the tensors and the plain values; other objects have no bytes that are the same every time."""
    if isinstance(structure, _PLAIN):
        yield structure
    elif depth == 0:  # an object that holds itself
        return
    elif isinstance(structure, list | tuple):
        for item in structure:
            yield from leaves(item, depth - 1)
    elif isinstance(structure, Mapping):
        for key in structure:
            yield str(key)
            yield from leaves(structure[key], depth - 1)
    elif callable(getattr(structure, "tobytes", None)):  # an array, an image
        yield structure.tobytes()
    elif hasattr(structure, "__dict__"):
        yield from leaves(vars(structure), depth - 1)


def bytes_of(tensor: Tensor) -> Any:
    """Return the bytes of a tensor, row by row, as `hashlib` takes them.

    They are a copy: torch never again resizes a storage that NumPy has seen, as FSDP must to gather its weights.
    """
    plain = tensor.detach().to("cpu", copy=True).contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy().data
