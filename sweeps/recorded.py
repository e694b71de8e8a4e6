"""The record that a sweep leaves in its folder, from which a study is known by its name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sweeps import paths
from sweeps.errors import StudyError, did_you_mean

__all__ = ["read_record"]


def read_record(name: str, store_dir: Path) -> Mapping[str, Any]:
    """Return what `study.yaml` holds of a study: its command line, and its space as text.

    Raises:
        StudyError: There is no such study in the store.
    """
    record = paths.study_dir(store_dir, name) / paths.STUDY
    if not record.is_file():
        known = [str(_read(path)["study"]) for path in sorted(store_dir.glob(f"*/{paths.STUDY}"))]
        hint = did_you_mean(name, known) or "There is none yet."
        raise StudyError(f"There is no study {name!r} in {store_dir}. {hint}")
    found: Mapping[str, Any] = _read(record)
    return found


def _read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))
