"""A study: what to try next, when to stop a trial, and the record of it in Optuna's SQL storage.

This is the only door to Optuna besides `space/`. It starts nothing and trains nothing.

One driver owns a study while it runs, so Optuna thinks over trials held in memory, and the database is
written in one transaction per ask and one per tell. Reports wait for the next of these, or for
`flush_interval_s`; a finished trial is on disk when `tell` returns.
"""

from sweeps.study.builders import ENUMERATING, build_pruner, build_sampler, seed_of
from sweeps.study.storage import open_storage
from sweeps.study.study import Best, Study

__all__ = ["ENUMERATING", "Best", "Study", "build_pruner", "build_sampler", "open_storage", "seed_of"]
