"""The names of files, and files that readers never see half written."""

import threading
from pathlib import Path

import pytest

from sweeps import paths


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
