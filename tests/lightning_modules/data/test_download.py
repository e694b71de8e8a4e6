import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lightning_modules.data.download import DownloadError, download

CONTENT = b"sixty thousand digits"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def mirror(tmp_path):
    """The address of a server that has `file` with CONTENT."""
    served = tmp_path / "served"
    served.mkdir()
    (served / "file").write_bytes(CONTENT)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=served))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_file_with_the_right_checksum_takes_its_place(mirror, tmp_path):
    download([mirror], tmp_path / "new" / "file", SHA256, timeout_s=5)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]
    assert (tmp_path / "new" / "file").read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing_behind(mirror, tmp_path):
    with pytest.raises(DownloadError, match=f"must be {'0' * 64}, but is {SHA256}"):
        download([mirror], tmp_path / "new" / "file", "0" * 64, timeout_s=5)
    assert list((tmp_path / "new").iterdir()) == []


def test_the_next_mirror_is_tried_when_one_fails(mirror, tmp_path):
    download(["http://127.0.0.1:9", f"{mirror}/absent", mirror], tmp_path / "file", SHA256, timeout_s=5)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_every_mirror_is_named_with_its_reason_when_all_fail(mirror, tmp_path):
    with pytest.raises(DownloadError) as caught:
        download([f"{mirror}/absent", "http://127.0.0.1:9"], tmp_path / "file", SHA256, timeout_s=5)
    assert "/absent/file: HTTP Error 404" in str(caught.value)
    assert "127.0.0.1:9/file: " in str(caught.value)


def test_local_files_are_not_mirrors(tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    with pytest.raises(DownloadError, match="must begin with http"):
        download([tmp_path.as_uri()], tmp_path / "new" / "file", SHA256, timeout_s=5)
