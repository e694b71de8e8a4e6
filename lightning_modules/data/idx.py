"""The IDX format of MNIST: big-endian arrays, plain or compressed with gzip.

A file is two zero bytes, a byte for the type, a byte for the number of dimensions, a 32-bit size for each
dimension and the values (http://yann.lecun.com/exdb/mnist, "the IDX file format").
"""

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np

__all__ = ["read_idx"]

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP_MAGIC = b"\x1f\x8b"


def read_idx(path: Path) -> np.ndarray:
    """Return the array of an IDX file, in the byte order of this machine.

    Its content shows whether it is compressed, not its name.

    Raises:
        ValueError: the file is not an IDX file, or holds fewer or more bytes than its header says.
        OSError: the file cannot be read.
    """
    content = path.read_bytes()
    if content.startswith(_GZIP_MAGIC):
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as exc:
            raise ValueError(f"{path} must be a complete gzip file, but {exc}: fetch it again") from exc
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _TYPES:
        raise ValueError(f"{path} must be an IDX file, but begins with {content[:4].hex(' ') or 'nothing'}")
    dtype, ndim = np.dtype(_TYPES[content[2]]), content[3]
    header = 4 + 4 * ndim
    if len(content) < header:
        raise ValueError(f"{path} must have a header of {header} bytes, but has {len(content)}: fetch it again")
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, header, 4))
    expected = header + prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise ValueError(
            f"{path} must have {expected} bytes for shape {list(shape)}, but has {len(content)}: fetch it again"
        )
    return np.frombuffer(content, dtype, offset=header).reshape(shape).astype(dtype.newbyteorder("="))
