"""A study: what to try next, when to stop a trial, and the record of it in Optuna's SQL storage.

This is the only door to Optuna besides `space/`. It starts nothing and trains nothing.

One driver owns a study while it runs, so Optuna thinks over trials held in memory, and the database is
written in one transaction per ask and one per tell. Reports wait for the next of these, or for
`flush_interval_s`; a finished trial is on disk when `tell` returns.
"""

from sweeps.search.objectives import parse_constraints, parse_objectives, require_judgeable
from sweeps.search.samplers import ENUMERATING, build_pruner, build_sampler, seed_of
from sweeps.search.states import TrialCounts, count_trials
from sweeps.search.storage import dashboard, open_storage
from sweeps.search.study import Best, Study
from sweeps.search.transfer import (
    Loan,
    Migration,
    is_stored,
    migrate,
    note_recorded,
    require_lenders,
    unrecorded,
    warm_start,
)

__all__ = [
    "ENUMERATING",
    "Best",
    "Loan",
    "Migration",
    "Study",
    "TrialCounts",
    "build_pruner",
    "build_sampler",
    "count_trials",
    "dashboard",
    "is_stored",
    "migrate",
    "note_recorded",
    "open_storage",
    "parse_constraints",
    "parse_objectives",
    "require_judgeable",
    "require_lenders",
    "seed_of",
    "unrecorded",
    "warm_start",
]
