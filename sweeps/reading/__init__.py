"""Runs read back from the store: rows by SQL, single runs, studies, frames; and how they are chosen and printed."""
