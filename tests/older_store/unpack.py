"""A store that an earlier Lightsweep has written, put into a folder: `python unpack.py FOLDER`.

`older_store.tar.xz` was made by `make.sh` with commit b90f984, in the folder /tmp/older. MLflow keeps the absolute
addresses of artifacts, so the four columns of its tables that have them are given the new folder. No other file of a
store needs that: checkpoints and provenance name the folder that they were written in, but nothing is looked for there.

    small            six trials: complete, pruned, and infeasible by a constraint
    front            two objectives
    repeated         two replicates a trial
    conditional      parameters with conditions, and ranges of options
    types            parameters of all types; a migration has dropped some of its trials
    failing          by the user's own code in mine/; some trials have the result of another
    interrupted      by Ctrl-C in its second trial of three, killed by SIGKILL there
    train#0, #1      single runs, the second with mine/
    digits           a registered model: version 1 of train#0, version 2, called champion, of best:small
    samples.json     four samples for it
"""

import sqlite3
import sys
import tarfile
from contextlib import closing
from pathlib import Path

__all__ = ["unpack"]

_MADE_IN = "/tmp/older"
_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)


def unpack(folder: Path) -> Path:
    """Put the store into a folder, as `mlruns` below it, and return the folder."""
    with tarfile.open(Path(__file__).parent / "older_store.tar.xz") as packed:
        packed.extractall(folder, filter="data")
    with closing(sqlite3.connect(folder / "mlruns" / "mlflow.db")) as database, database:
        for table, column in _ADDRESSES:
            database.execute(f"update {table} set {column} = replace({column}, ?, ?)", (_MADE_IN, str(folder)))
    return folder


if __name__ == "__main__":
    unpack(Path(sys.argv[1]).resolve())
