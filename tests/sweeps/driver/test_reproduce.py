"""`reproduce` without training: which records it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest

from sweeps.config.composer import Composer, to_yaml
from sweeps.core import paths
from sweeps.driver.reproduce import ReproduceRequest, reproduce
from sweeps.driver.session import Reporter

RUN = {"run_id": "r", "name": "n", "status": "RUNNING", "start_ms": 0, "end_ms": None, "tags": {}, "metrics": {}}
RUN |= {"params": {}, "artifact_uri": ""}


@pytest.mark.parametrize("devices", ["x", [0], None, True, 1.5])
@pytest.mark.parametrize("key", ["devices", "num_nodes"])
def test_a_record_with_devices_of_another_kind_is_incomplete(tmp_path: Path, key: str, devices: Any) -> None:
    config = Composer("train", [f"store_dir={tmp_path}", "trainer=cpu"]).trial({}, seed=0)
    config["trainer"][key] = devices
    (tmp_path / "it").mkdir()
    (tmp_path / "it" / paths.CONFIG).write_text(to_yaml(config))
    record = {"name": "train#0", "notes": [], "state": "complete", "edited": [], "value": 0.5, "replicates": []}
    (tmp_path / "it" / "run.json").write_text(json.dumps(record | {"points": {}, "run": RUN}))
    request = ReproduceRequest(run=str(tmp_path / "it"), store_dir=tmp_path)
    found = reproduce(request, Reporter())
    assert found.verdict.kind == "not verifiable"
    assert f"trainer.{key} must be a whole number, but the record has {devices!r}" in found.verdict.reason
