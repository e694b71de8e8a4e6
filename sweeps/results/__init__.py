"""Recorded runs, read back: rows of trials, filters, one run in detail, histories, frames.

Reads MLflow's tables by SQL, or a tracking server. Start reading at `rows.py`; `study.py` is the public Python API.
"""
