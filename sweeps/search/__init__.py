"""The search: the space, Optuna's study, samplers, pruners, storage.

The only room that imports Optuna. Start reading at `study.py`; `space/` turns sweep expressions into distributions, and
needs no Optuna.
"""
