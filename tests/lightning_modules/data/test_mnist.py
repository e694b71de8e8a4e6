import gzip
import hashlib
import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from lightning_modules.data.mnist import MNIST, FashionMNIST

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
SHAPES = {
    "train-images-idx3-ubyte": (60, 4, 4),
    "train-labels-idx1-ubyte": (60,),
    "t10k-images-idx3-ubyte": (20, 4, 4),
    "t10k-labels-idx1-ubyte": (20,),
}


def write_idx_files(folder: Path, compress: bool = True, seed: int = 0) -> None:
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(seed)
    for name, shape in SHAPES.items():
        sizes = b"".join(size.to_bytes(4, "big") for size in shape)
        values = random.integers(0, 10, shape, dtype=np.uint8).tobytes()
        content = bytes([0, 0, 8, len(shape)]) + sizes + values
        path = folder / (f"{name}.gz" if compress else name)
        path.write_bytes(gzip.compress(content) if compress else content)


def mnist(tmp_path, kind=MNIST, **options):
    shape = {"num_classes": 10, "input_shape": [1, 4, 4], "cache_dir": str(tmp_path / "cache")}
    return kind(**(shape | options))


def num_samples(loader) -> int:
    return sum(len(y) for _, y in loader)


@pytest.mark.parametrize("compress", [True, False])
def test_files_are_found_in_a_given_folder_compressed_or_plain(tmp_path, compress):
    write_idx_files(tmp_path / "idx", compress)
    data = mnist(tmp_path, root=[str(tmp_path / "empty"), str(tmp_path / "idx")])
    data.setup()
    parts = [data.train_dataloader(), data.val_dataloader(), data.test_dataloader()]
    assert list(map(num_samples, parts)) == [54, 6, 20]


def test_missing_files_are_told_with_every_folder_and_the_command_that_gets_them(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        mnist(tmp_path, FashionMNIST, root=[str(tmp_path / "one"), str(tmp_path / "two")]).setup()
    message = str(caught.value)
    assert str(tmp_path / "one") in message and str(tmp_path / "two") in message
    assert "apt-get install dataset-fashion-mnist" in message
    assert "data.root=" in message and "data.download=true" in message


def test_a_changed_file_is_decoded_again(tmp_path):
    write_idx_files(tmp_path / "idx", seed=0)
    first = mnist(tmp_path, root=str(tmp_path / "idx"))
    first.setup()
    write_idx_files(tmp_path / "idx", seed=1)
    os.utime(tmp_path / "idx" / "train-images-idx3-ubyte.gz", ns=(1, 1))  # clocks may be coarse
    second = mnist(tmp_path, root=str(tmp_path / "idx"))
    second.setup()
    assert first.fingerprint != second.fingerprint


def test_images_and_labels_that_do_not_belong_together_are_refused(tmp_path):
    write_idx_files(tmp_path / "idx")
    (tmp_path / "idx" / "t10k-labels-idx1-ubyte.gz").replace(tmp_path / "idx" / "train-labels-idx1-ubyte.gz")
    write_idx_files(tmp_path / "other")
    (tmp_path / "other" / "t10k-labels-idx1-ubyte.gz").rename(tmp_path / "idx" / "t10k-labels-idx1-ubyte.gz")
    with pytest.raises(ValueError, match="a label for each of 60 images"):
        mnist(tmp_path, root=str(tmp_path / "idx")).setup()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def mirror(tmp_path):
    """The address of a server with the four files, and their checksums."""
    write_idx_files(tmp_path / "served")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=tmp_path / "served"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    checksums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "served").iterdir()}
    yield f"http://127.0.0.1:{server.server_port}", checksums
    server.shutdown()
    server.server_close()


def test_files_are_fetched_once_when_that_is_allowed(tmp_path, mirror):
    address, checksums = mirror
    for mirrors in ([address], []):  # the second time they are there
        data = mnist(tmp_path, download=True, mirrors=mirrors)
        data.checksums = checksums
        data.setup()
    assert num_samples(data.test_dataloader()) == 20


def test_files_with_another_checksum_are_refused(tmp_path, mirror):
    with pytest.raises(FileNotFoundError, match=r"SHA-256 must be 440fcabf.*(.|\n)*data\.root="):
        mnist(tmp_path, download=True, mirrors=[mirror[0]]).setup()


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="apt-get install dataset-fashion-mnist")
def test_the_real_fashion_mnist_is_read(tmp_path):
    data = mnist(tmp_path, FashionMNIST, input_shape=[1, 28, 28], root=str(DEBIAN), mean=0.286, std=0.353)
    data.setup()
    parts = [data.train_dataloader(), data.val_dataloader(), data.test_dataloader()]
    assert list(map(num_samples, parts)) == [54_000, 6_000, 10_000]
    x, y = next(iter(data.test_dataloader()))
    assert [data.class_names[number] for number in y[:3]] == ["Ankle boot", "Pullover", "Trouser"]
    assert abs(x.mean()) < 0.05 and abs(x.std() - 1) < 0.05
