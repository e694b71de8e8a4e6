"""The names of files, and files that readers never see half written."""

import os
import threading
from pathlib import Path

import pytest

from sweeps.core import paths
from sweeps.core.errors import StoreError


def linked(folder: Path) -> tuple[Path, Path]:
    """Return a file of the user's, and a link to it that somebody has put into the store."""
    own, link = folder / "own", folder / "link"
    own.write_text("own")
    link.symlink_to(own)
    return own, link


@pytest.mark.parametrize("how", ["append", "write"])
def test_link_in_the_store_is_replaced_and_not_written_through(tmp_path: Path, how: str) -> None:
    own, link = linked(tmp_path)

    if how == "append":
        with os.fdopen(paths.open_to_append(link), "w") as file:
            file.write("a line")
    else:
        paths.write_bytes(link, b"a line")

    assert own.read_text() == "own" and not link.is_symlink() and link.read_text() == "a line"


def test_what_is_appended_comes_behind(tmp_path: Path) -> None:
    for line in "ab":
        with os.fdopen(paths.open_to_append(tmp_path / "log"), "w") as file:
            file.write(line)

    assert (tmp_path / "log").read_text() == "ab"


def test_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    reader = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)

    with pytest.raises(OSError, match="Not a file"):
        paths.open_to_append(tmp_path / "log")
    os.close(reader)
    with pytest.raises(OSError, match="log"):
        paths.open_to_append(tmp_path / "log")


def test_only_the_stores_own_folder_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    store = tmp_path / "mlruns"
    store.symlink_to(tmp_path / "disk")
    assert paths.train_dir(store) == store / "train" / "0000"

    (store / "reproductions").symlink_to(tmp_path)
    with pytest.raises(StoreError, match="reproductions must be a folder, but is a link"):
        paths.reproduction_dir(store)


@pytest.mark.parametrize("name", ["digits-mlp-1", "a.b_c", "x" * 80])
def test_plain_study_name_is_its_folder(tmp_path: Path, name: str) -> None:
    assert paths.study_dir(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize(
    "name", ["train", "data", "artifacts", "../up", "/abs", "a/b", "ä ö", "..", ".", "x" * 81, "?"]
)
def test_any_study_name_gives_a_safe_folder_of_its_own(tmp_path: Path, name: str) -> None:
    folder = paths.study_dir(tmp_path, name)

    assert folder.parent == tmp_path and folder.name != name
    assert folder.name not in {"", ".", "..", "train", "data", "artifacts"}
    assert folder.name == "".join(c for c in folder.name if c.isascii() and (c.isalnum() or c in "._-"))


def test_different_study_names_never_share_a_folder(tmp_path: Path) -> None:
    names = ["a b", "a-b", "a/b", "a--b", "a?b", " a b"]

    assert len({paths.study_dir(tmp_path, name) for name in names}) == len(names)


def test_train_folders_are_numbered_and_never_shared(tmp_path: Path) -> None:
    made: list[Path] = []
    threads = [threading.Thread(target=lambda: made.append(paths.train_dir(tmp_path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(folder.name for folder in made) == [f"{number:04d}" for number in range(8)]


def test_check_leaves_nothing_when_removed(tmp_path: Path) -> None:
    folder = paths.check_dir(tmp_path / "mlruns")
    folder.rmdir()

    assert list((tmp_path / "mlruns").iterdir()) == []


def test_written_text_replaces_the_old_and_leaves_nothing_aside(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "study.yaml"
    paths.write_text(path, "old")
    paths.write_text(path, "new ä")

    assert path.read_text(encoding="utf-8") == "new ä"
    assert list(path.parent.iterdir()) == [path]


def test_text_that_cannot_be_written_leaves_the_old(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    paths.write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        paths.write_text(path, "\ud800")

    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_shipped_configuration_is_found() -> None:
    assert (paths.conf_dir() / "train.yaml").is_file()
