"""A store of MLflow's own making with runs of every kind, for tests that read single runs."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Points = Mapping[str, Sequence[float]]
ACC = {"metric": "val/acc", "direction": "maximize"}


class StoreWriter:
    """Writes runs as Lightsweep tags them, and knows their ids."""

    def __init__(self, uri: str, artifacts: Path) -> None:
        from mlflow.tracking import MlflowClient

        self.uri = uri
        self.client = MlflowClient(uri, registry_uri=uri)
        self.experiment = self.client.create_experiment("lightsweep", artifact_location=artifacts.as_uri())

    def add(
        self, points: Points, config: Mapping[str, Any] | None = None, *, began_ms: int = 1000, **run_tags: str
    ) -> str:
        from mlflow.entities import Metric, Param

        known = {f"lightsweep.{key}": value for key, value in run_tags.items()}
        run_id = str(self.client.create_run(self.experiment, start_time=began_ms, tags=known).info.run_id)
        metrics = [
            Metric(key, value, 10 * step, step) for key, values in points.items() for step, value in enumerate(values)
        ]
        for start in range(0, len(metrics), 1000):
            self.client.log_batch(run_id, metrics=metrics[start : start + 1000])
        self.client.log_batch(run_id, params=[Param(key, str(value)) for key, value in (config or {}).items()])
        self.client.set_terminated(run_id, end_time=began_ms + 2500)
        return run_id

    def trial(
        self, study: str, number: int, value: float | None, points: Points, *, began_ms: int = 1000, **run_tags: str
    ) -> str:
        ending = {} if value is None else {"value": repr(value)}
        known = {"kind": "trial", "study": study, "trial": str(number), "state": "complete", "folder": f"{number:04d}"}
        params = {"model.depth": number, "optimizer.lr": 0.1}
        config = {**params, "data.batch_size": 32 * (number + 1), "data.fold": 0, "model.width": 64}
        known |= {**ACC, **ending, "params": json.dumps(params), **run_tags}
        return self.add(points, config, began_ms=began_ms, **known)


def fill(uri: str, folder: Path) -> dict[str, str]:
    """Write the store and return the ids of its runs by what the tests call them."""
    store = StoreWriter(uri, folder / "the artifacts")
    ids = {"parent": store.add({}, kind="study", study="a", state="complete", **ACC)}
    ids["a0"] = store.trial("a", 0, 0.5, {"val/acc": [0.5], "val/loss": [1.0, 0.75, 0.875]})
    ids["a1"] = store.trial("a", 1, 0.9, {"val/acc": [0.1, 0.9, 0.7], "epoch": [0, 1, 2]}, enqueued="true")
    why = {"state": "pruned", "reason": "nan at step 5"}
    odd = {"val/loss": [1.0, math.inf, math.nan, -math.inf, 2.0], "val/acc": [math.nan, math.nan]}
    ids["a2"] = store.trial("a", 2, math.nan, odd, **why)
    ids["a3"] = store.trial("a", 3, 0.95, {}, infeasible="num_params=9 violates num_params <= 1")
    ids["a4"] = store.trial("a", 4, 0.3, {"train/loss_step": [(step * 7) % 13 for step in range(1234)]})
    ids["dropped"] = store.trial("a", 1, 0.99, {}, state="dropped")
    for replicate in "01":
        ids[f"a1/{replicate}"] = store.trial("a", 1, 0.9, {}, kind="replicate", replicate=replicate)
    store.add({}, kind="study", study="front")
    both = {"objectives": '{"val/acc": "maximize", "val/loss": "minimize"}'}
    for number, (acc, loss) in enumerate([(0.5, 0.1), (0.9, 0.4), (0.8, 0.9)]):
        values = json.dumps({"val/acc": acc, "val/loss": loss})
        ids[f"front{number}"] = store.trial("front", number, acc, {"val/acc": [acc]}, values=values, **both)
    store.add({}, kind="study", study="restated")  # the best checkpoint's 0.9 after the last epoch
    ids["restated0"] = store.trial(
        "restated", 0, 0.9, {"val/acc": [0.2, 0.9, 0.4, 0.9], "own": [1, 1, 3, 4], "epoch": [0, 1, 2]}
    )
    store.add({}, kind="study", study="train")
    store.trial("train", 3, 0.1, {})
    store.add({}, kind="study", study="it's 50%#1")
    ids["odd name"] = store.trial("it's 50%#1", 0, 0.1, {})
    for number in (3, 4):
        ids[f"train{number}"] = store.add({"val/acc": [0.7]}, kind="train", folder=f"000{number}", state="complete")
    ids["stranger"] = store.add({"accuracy": [1.0]}, {"lr": 0.1})
    ids["deleted"] = store.trial("a", 9, 0.9, {})
    store.client.delete_run(ids["deleted"])
    (folder / "config.yaml").write_text("model:\n  depth: 1\n")
    for run in ("a1", "train3"):
        store.client.log_artifact(ids[run], str(folder / "config.yaml"))
    store.client.log_artifact(ids["a1"], str(folder / "config.yaml"), "more/of it")
    return ids
