"""The store that a check uses for a while."""

from pathlib import Path

import pytest

from sweeps.core.errors import ConfigError, LightsweepError, PreflightError
from sweeps.driver.dry_run import spare_store


@pytest.fixture
def store(tmp_path: Path) -> Path:
    entry = tmp_path / "store" / "data" / "digits-1"
    entry.mkdir(parents=True)
    (entry / "x.npy").write_text("decoded")
    return tmp_path / "store"


def test_decoded_data_is_at_hand_and_what_is_new_stays_aside(store: Path) -> None:
    with spare_store(store) as spare:
        assert (spare / "data" / "digits-1" / "x.npy").read_text() == "decoded"
        (spare / "data" / "mnist-1").mkdir()
    assert not spare.exists()
    assert [path.name for path in (store / "data").iterdir()] == ["digits-1"]
    assert (store / "data" / "digits-1" / "x.npy").exists()


def test_without_a_store_none_is_made(tmp_path: Path) -> None:
    with spare_store(tmp_path / "none") as spare:
        assert spare.is_dir()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("kind", "stays"), [(ConfigError, False), (PreflightError, True)])
def test_messages_name_the_real_data_and_logs_stay_where_they_are_named(
    store: Path, kind: type[LightsweepError], stays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(store.parent))
    with pytest.raises(kind) as caught, spare_store(store) as spare:
        (spare / "check-1").mkdir()
        raise kind(f"nothing in {spare}/data; see {spare}/check-1")
    assert str(caught.value) == f"nothing in {store}/data; see {spare}/check-1"
    assert (spare / "check-1").exists() == stays
    assert not (spare / "data").exists()


def test_an_interrupt_leaves_nothing(store: Path) -> None:
    with pytest.raises(KeyboardInterrupt), spare_store(store) as spare:
        raise KeyboardInterrupt
    assert not spare.exists()
