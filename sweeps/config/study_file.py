"""The record that a sweep leaves in its folder, from which a study is known by its name."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sweeps.core import paths
from sweeps.core.errors import StoreError, StudyError, did_you_mean
from sweeps.core.safe_yaml import read_yaml

__all__ = ["read_record"]

_FOREIGN = (
    "has the command line that would be run, but others than you can have written it. If it is as it should be, make "
    "it yours alone (chown and chmod go-w). Or type the whole command line: `lightsweep sweep study.name=NAME ...` "
    "goes on with a study, too."
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
        hint = did_you_mean(name, _known(store_dir)) or "There is none yet."
        raise StudyError(f"There is no study {name!r} in {store_dir}. {hint}")
    return _read(record, unless_own=_FOREIGN if is_run else "")


def _read(path: Path, *, unless_own: str = "") -> Mapping[str, Any]:
    found = read_yaml(path, unless_own=unless_own)
    for key, kind in _KINDS.items():
        if not isinstance(found, dict) or not isinstance(found.get(key), kind):
            raise StoreError(f"{path} is no record of a study: {key} is missing, or is not what it should be.")
    if not all(isinstance(override, str) for override in found["overrides"]):
        raise StoreError(f"{path} is no record of a study: its overrides must be texts.")
    record: Mapping[str, Any] = found
    return record


def _known(store_dir: Path) -> Iterator[str]:
    for path in sorted(store_dir.glob(f"*/{paths.STUDY}")):
        try:
            yield str(_read(path)["study"])
        except (OSError, StoreError):  # half written, or not ours
            continue
