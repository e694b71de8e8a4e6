"""A study goes on in another space, and a new one knows its results, at the real command."""

import json
from pathlib import Path
from typing import Any

import pytest

from sweeps.core.urls import default_uri

SHORT = ("trainer.max_epochs=1", "trainer.accelerator=cpu", "launcher.slots=2", "pruner=none", "test=false")
SPACE = ("search=none", "optimizer.lr=tag(log,interval(1e-4,1e-1))", "model.depth=range(1,4)")


def rows_of(lightsweep: Any, study: str) -> dict[int, dict[str, Any]]:
    printed = lightsweep("compare", study, "--format", "json").stdout
    return {row["trial"]: row for row in json.loads(printed)}


@pytest.mark.slow
def test_a_study_is_moved_goes_on_and_others_import_what_it_found(tmp_path: Path, lightsweep: Any) -> None:
    first = lightsweep("sweep", "study.name=s", "study.num_trials=4", *SHORT, *SPACE)
    assert first.returncode == 0, first.stdout + first.stderr
    before = rows_of(lightsweep, "s")
    best = max(before.values(), key=lambda row: row["value"])
    others = [depth for depth in (1, 2, 3) if depth != best["params"]["model.depth"]]
    narrower = f"model.depth={others[0]},{others[1]}"
    refused = lightsweep("resume", "s", narrower)
    assert refused.returncode == 1
    assert "model.depth: was range(1,4), now choice(" in refused.stderr and "--migrate" in refused.stderr

    moved = lightsweep("resume", "s", "--migrate", narrower, "study.num_trials=4")
    assert moved.returncode == 0, moved.stdout + moved.stderr
    after = rows_of(lightsweep, "s")
    dropped = [number for number, row in before.items() if row["params"]["model.depth"] not in others]
    assert f"{4 - len(dropped)} trials are kept, {len(dropped)} dropped" in moved.stdout
    assert {number for number, row in after.items() if row["state"] == "dropped"} == set(dropped)
    assert {number: after[number]["run_id"] for number in before} == {n: row["run_id"] for n, row in before.items()}
    assert sorted(after) == list(range(4 + len(dropped)))
    assert next(iter(after)) != best["trial"] and f"best: #{best['trial']} " not in moved.stdout
    assert parent_tag(tmp_path, "search.model.depth").startswith("choice(")
    assert parent_tag(tmp_path, "lightsweep.backup") == "s~1"
    again = lightsweep("resume", "s")
    assert "has its 4 trials already" in again.stdout, again.stdout + again.stderr

    warm = lightsweep("sweep", "study.name=t", "study.num_trials=1", "study.warm_start=s", *SHORT, *SPACE)
    assert warm.returncode == 0, warm.stdout + warm.stderr
    assert "warm start: imported 4 trials from study s" in warm.stdout
    assert list(rows_of(lightsweep, "t")) == [4]


def parent_tag(folder: Path, key: str) -> str:
    import sqlalchemy as sa

    query = """select value from tags where key = :key and run_uuid in
               (select run_uuid from tags where key = 'lightsweep.kind' and value = 'study')"""
    engine = sa.create_engine(default_uri(folder / "mlruns"))
    with engine.connect() as connection:
        return str(connection.execute(sa.text(query), {"key": key}).scalar())
