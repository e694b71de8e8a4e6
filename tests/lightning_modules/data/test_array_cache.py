import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest

from lightning_modules.data.array_cache import cached_arrays


def decode_slowly(folder: Path) -> None:
    with (folder.parent / "decoded").open("a") as log:
        log.write(f"{os.getpid()}\n")
    time.sleep(0.2)
    np.save(folder / "x.npy", np.arange(10))


def open_and_sum(cache_dir: Path) -> int:
    return int(cached_arrays(cache_dir, "numbers", {"size": 10}, decode_slowly).arrays["x"].sum())


def decode_never(folder: Path) -> None:
    raise AssertionError("it is in the cache")


def decode_and_die(folder: Path) -> None:
    np.save(folder / "half.npy", np.arange(3))
    raise OSError("disk full")


def test_four_racing_processes_decode_once(tmp_path):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert pool.map(open_and_sum, [tmp_path] * 4, chunksize=1) == [45] * 4
    assert len((tmp_path / "decoded").read_text().splitlines()) == 1


def test_a_warm_cache_is_memory_mapped_and_not_decoded_again(tmp_path):
    open_and_sum(tmp_path)
    array = cached_arrays(tmp_path, "numbers", {"size": 10}, decode_never).arrays["x"]
    assert isinstance(array, np.memmap)


def test_a_changed_source_is_decoded_again(tmp_path):
    open_and_sum(tmp_path)
    with pytest.raises(AssertionError, match="it is in the cache"):
        cached_arrays(tmp_path, "numbers", {"size": 11}, decode_never)


def test_writing_to_an_array_stays_private(tmp_path):
    open_and_sum(tmp_path)
    cached_arrays(tmp_path, "numbers", {"size": 10}, decode_never).arrays["x"][:] = 0
    assert open_and_sum(tmp_path) == 45


def test_what_a_failed_decoding_left_is_never_seen(tmp_path):
    with pytest.raises(OSError, match="disk full"):
        cached_arrays(tmp_path, "numbers", {"size": 10}, decode_and_die)
    assert set(cached_arrays(tmp_path, "numbers", {"size": 10}, decode_slowly).arrays) == {"x"}


def test_the_fingerprint_is_of_the_content(tmp_path):
    def write(values):
        return lambda folder: np.save(folder / "x.npy", np.array(values))

    one, same, other = (
        cached_arrays(tmp_path, "numbers", source, write(values)).fingerprint
        for source, values in [("a", [1, 2]), ("b", [1, 2]), ("c", [1, 3])]
    )
    assert one == same != other
