"""Read `study.yaml`, the file in a study's folder by which the study is found by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeps.core import paths
from sweeps.core.errors import StoreError, StudyError, did_you_mean
from sweeps.core.safe_yaml import read_yaml

__all__ = ["read_choices", "read_record", "recorded_studies"]

_FOREIGN = (
    "has the command line that would be run, but others than you can have written it. If it is as it should be, make "
    "it yours alone (chown and chmod go-w). Or type the whole command line: `lightsweep sweep study.name=NAME ...` "
    "also continues a study."
)

_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "study": str,
    "config_name": str,
    "config_dir": (str, type(None)),
    "overrides": list,
}


def read_record(name: str, store_dir: Path, *, is_run: bool = False) -> Mapping[str, Any]:
    """Return what `study.yaml` holds of a study: its command line, and its space as text.

    Args:
        name: Of the study.
        store_dir: The folder with the store.
        is_run: Whether the command line will be run: one that others can have written names code of their choice.

    Raises:
        StudyError: There is no such study in the store.
        StoreError: The record cannot be read, or has to be the user's alone and is not.
    """
    record = paths.study_dir(store_dir, name) / paths.STUDY
    if not record.is_file():
        hint = did_you_mean(name, recorded_studies(store_dir)) or "There is none yet."
        raise StudyError(f"There is no study {name!r} in {store_dir}. {hint}")
    return _read(record, unless_own=_FOREIGN if is_run else "")


def _read(path: Path, *, unless_own: str = "") -> Mapping[str, Any]:
    found = read_yaml(path, unless_own=unless_own)
    for key, kind in _KINDS.items():
        if not isinstance(found, dict) or not isinstance(found.get(key), kind):
            raise StoreError(f"{path} is not the record of a study: {key} is missing or has the wrong type.")
    if not all(isinstance(override, str) for override in found["overrides"]):
        raise StoreError(f"{path} is not the record of a study: its overrides must be texts.")
    record: Mapping[str, Any] = found
    return record


def recorded_studies(store_dir: Path) -> dict[str, Mapping[str, Any]]:
    """Return the records of a store by the name of the study; those that cannot be read are left out."""
    found: dict[str, Mapping[str, Any]] = {}
    for path in sorted(store_dir.glob(f"*/{paths.STUDY}")):
        try:
            record = read_yaml(path)
            found[str(record["study"])] = record
        except (OSError, StoreError, TypeError, KeyError):  # half written, or not ours
            continue
    return found


def read_choices(folder: Path) -> dict[str, Any] | None:
    """Return the options of groups that hold for every trial of the study in a folder; None without a record.

    Raises:
        StoreError: The record cannot be read.
    """
    path = folder / paths.STUDY
    if not path.is_file():
        return None
    found = read_yaml(path)
    return dict(found.get("choices") or {}) if isinstance(found, dict) else {}
