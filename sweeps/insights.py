"""An address that notebooks of earlier versions import from; the code is in `sweeps/report/advice.py`."""

from sweeps.report.advice import advice, importances

__all__ = ["advice", "importances"]
