"""What a reproduction elsewhere is given: whole paths, the user's folders, data that no commit holds."""

from pathlib import Path
from typing import Any

import pytest

from sweeps.cli.commands.reproduce_isolated import Plan, absolute_uri, config_dir_in, link_data, relative_names
from sweeps.core.errors import UsageError
from sweeps.reproduce.checkout import Checkout, RecordedCode


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    code = RecordedCode(
        commit="a" * 40, root="/home/me/proj", folder="/home/me/proj/sub", config_dir=None, patch=b"", files=()
    )
    checkout = Checkout(top=(tmp_path / "top").resolve(), code=code)
    checkout.folder.mkdir(parents=True)
    return checkout


@pytest.mark.parametrize(
    ("uri", "whole"),
    [
        ("sqlite:///store/mlflow.db", "sqlite:///{cwd}/store/mlflow.db"),
        ("sqlite:////abs/mlflow.db", "sqlite:////abs/mlflow.db"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
    ],
)
def test_the_address_of_a_store_holds_in_another_folder(uri: str, whole: str) -> None:
    assert absolute_uri(uri) == whole.format(cwd=Path.cwd())


def test_data_below_the_working_folder_is_found_and_the_commits_own_stays(tmp_path: Path, checkout: Checkout) -> None:
    for name in ("pictures/a", "tables", "old"):
        (tmp_path / "here" / name).mkdir(parents=True)
    (checkout.folder / "old").mkdir()
    (checkout.folder / "link").symlink_to(tmp_path)
    (tmp_path / "here" / "link").mkdir()
    data = {"_target_": "x.Y", "root": "pictures", "more": ["tables/", "gone", "link/new", "../here", "/etc", "a\nb"]}
    names = relative_names({"data": data}, ["data.root=old"])
    link_data(names, tmp_path / "here", checkout)
    assert (checkout.folder / "pictures" / "a").is_dir() and (checkout.folder / "tables").is_symlink()
    assert not (checkout.folder / "old").is_symlink()
    assert sorted(path.name for path in checkout.folder.iterdir()) == ["link", "old", "pictures", "tables"]


def plan(tmp_path: Path, config_dir: str | None, checkout: Checkout) -> tuple[Any, Checkout]:
    code = RecordedCode(
        **{field: getattr(checkout.code, field) for field in ("commit", "root", "folder", "patch", "files")},
        config_dir=config_dir,
    )
    repository = tmp_path / "proj"
    repository.mkdir(exist_ok=True)
    return Plan(original=None, repository=repository, code=code), Checkout(top=checkout.top, code=code)  # type: ignore[arg-type]


def test_the_folder_of_options_is_that_of_the_recorded_code(tmp_path: Path, checkout: Checkout) -> None:
    inside, outside = checkout.root / "mine", checkout.top / "home/me/theirs"
    inside.mkdir()
    outside.mkdir()
    for recorded, expected in ((None, None), ("/home/me/proj/mine", inside), ("/home/me/theirs", outside)):
        assert config_dir_in(None, *plan(tmp_path, recorded, checkout)) == expected
    own, other = tmp_path / "proj" / "mine", tmp_path / "other"
    assert config_dir_in(own, *plan(tmp_path, None, checkout)) == inside
    assert config_dir_in(other, *plan(tmp_path, None, checkout)) == other
    assert config_dir_in(other, *plan(tmp_path, "/home/me/theirs", checkout)) == outside
    with pytest.raises(UsageError, match="no such folder"):
        config_dir_in(tmp_path / "proj" / "new", *plan(tmp_path, None, checkout))
