"""Compose, drive, record and compare hyperparameter sweeps over Lightning modules.

In a notebook: `sweeps.load_study("digits-mlp-1").trials_frame()`. Importing this package imports nothing else.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeps.report.advice import advice, importances
    from sweeps.results.study import load_study, runs_frame

__all__ = ["advice", "importances", "load_study", "runs_frame"]

_HOMES = {
    "advice": "sweeps.report.advice",
    "importances": "sweeps.report.advice",
    "load_study": "sweeps.results.study",
    "runs_frame": "sweeps.results.study",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, and no sooner."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
