"""Where the studies under test are stored."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def new_url(tmp_path):
    """The URL of a SQLite file that is not there yet."""
    return f"sqlite:///{tmp_path}/store/optuna.db"


@pytest.fixture
def url(new_url, empty_file):
    """The URL of a SQLite file with Optuna's tables and nothing in them; copied, since making it takes longer."""
    file = Path(new_url.removeprefix("sqlite:///"))
    file.parent.mkdir()
    shutil.copy(empty_file, file)
    return new_url
