import gzip

import numpy as np
import pytest

from lightning_modules.data.idx import read_idx

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes([0, 0, CODES[array.dtype.str[1:]], array.ndim])
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + sizes + array.astype(array.dtype.newbyteorder(">")).tobytes()


IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_every_type_comes_back_as_it_was_written(tmp_path, dtype, compress):
    array = np.arange(-6, 6).reshape(2, 3, 2).astype(dtype)
    (tmp_path / "file").write_bytes(compress(idx_bytes(array)))
    read = read_idx(tmp_path / "file")
    assert np.array_equal(read, array)
    assert read.dtype == array.dtype


@pytest.mark.parametrize("content", [b"", b"\0\0", b"PK\3\4 a zip file", b"\0\0\x07\1\0\0\0\0"])
def test_another_kind_of_file_is_refused(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match="must be an IDX file"):
        read_idx(tmp_path / "file")


def test_a_truncated_header_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(idx_bytes(IMAGES)[:10])
    with pytest.raises(ValueError, match="header of 16 bytes, but has 10"):
        read_idx(tmp_path / "file")


@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: content + b"\0"])
def test_values_missing_or_left_over_are_refused(tmp_path, change):
    (tmp_path / "file").write_bytes(change(idx_bytes(IMAGES)))
    with pytest.raises(ValueError, match=r"must have 76 bytes for shape \[5, 4, 3\].*fetch it again"):
        read_idx(tmp_path / "file")


@pytest.mark.parametrize("damage", [lambda gz: gz[:-12], lambda gz: gz[:20] + b"damaged!" + gz[28:]])
def test_a_damaged_gzip_file_is_refused(tmp_path, damage):
    (tmp_path / "file.gz").write_bytes(damage(gzip.compress(idx_bytes(IMAGES))))
    with pytest.raises(ValueError, match="complete gzip file"):
        read_idx(tmp_path / "file.gz")
