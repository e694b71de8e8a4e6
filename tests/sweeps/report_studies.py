"""Studies as a store would tell them, made of plain values: for tests of what is drawn of them."""

import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sweeps.report.build import make_charts
from sweeps.report.page import page
from sweeps.report.study_view import StudyView
from sweeps.results.histories import History
from sweeps.results.queries import TrialRow
from sweeps.results.summary import next_commands, summarize
from sweeps.search.importance import Importance
from sweeps.search.space.declare import parse_space
from sweeps.search.space.space import Space
from sweeps.tracking.runs import StoredRun

ACC = {"val/acc": "maximize"}
START_MS = 1_790_000_000_000


def trial(number: int, value: float | None = None, /, state: str = "complete", **more: Any) -> TrialRow:
    """A trial of a study that maximises val/acc; `more` replaces what it has by itself."""
    fields: dict[str, Any] = {
        "run_id": f"{number:032x}",
        "name": f"#{number}",
        "study": "a",
        "trial": number,
        "state": state,
        "metric": "val/acc",
        "direction": "maximize",
        "value": value,
        "metrics": {} if value is None else {"val/acc": value},
        "params": {},
        "duration_s": 2.0,
        "reason": "",
        "folder": f"{number:04d}",
        "objectives": ACC,
        "values": {"val/acc": value} if state == "complete" and value is not None else {},
        "began_ms": START_MS + 1000 * number,
        "slot": number % 2,
    }
    return TrialRow(**fields | more)


class PlainStudy:
    """What the report asks of a `StoredStudy`, without a store."""

    def __init__(
        self,
        trials: Sequence[TrialRow],
        *,
        space: Mapping[str, Any] | None = None,
        histories: Mapping[str, Mapping[int, Sequence[float]]] | None = None,
        objectives: Mapping[str, str] = ACC,
        best: Sequence[int] | None = None,
        steps: Mapping[int, Sequence[int]] | None = None,
        **run_tags: str,
    ) -> None:
        self.uri = "sqlite:///nowhere.db"
        self.name = "a"
        self.trials = list(trials)
        self.objectives = dict(objectives)
        self.space: Space | None = None if space is None else parse_space(space)
        known = {f"lightsweep.{key}": value for key, value in {"study": "a", "state": "complete", **run_tags}.items()}
        self.parent = StoredRun(
            run_id="f" * 32,
            name="a",
            status="FINISHED",
            start_ms=START_MS,
            end_ms=None,
            tags=known,
            metrics={},
            params={},
            artifact_uri="",
        )
        able = [
            row
            for row in trials
            if row.state == "complete"
            and not row.infeasible
            and math.isfinite(math.nan if row.value is None else row.value)
        ]
        sign = -1 if next(iter(objectives.values())) == "maximize" else 1
        leader = sorted(able, key=lambda row: sign * (row.value or 0.0))[:1]
        self.best = leader if best is None else [row for row in trials if row.trial in best]
        self._histories = histories or {}
        self._steps = steps or {}

    def histories(self, metric: str) -> dict[int, History]:
        return {
            number: History(
                steps=np.array(self._steps.get(number, range(len(values)))),
                values=np.array(values, dtype=float),
                times_s=np.arange(len(values)) * 1.0,
            )
            for number, values in self._histories.get(metric, {}).items()
        }


def view_of(study: PlainStudy, importances: Mapping[str, float] | None = None) -> StudyView:
    """The study as charts see it; what has less than a tenth of the importance may be chance."""
    shares = importances or {}
    weights = [Importance(key=key, share=share, is_clear=share >= 0.1) for key, share in shares.items()]
    return StudyView(study, {"val/acc": weights} if weights else {}, now_ms=START_MS + 100_000)  # type: ignore[arg-type]


SPACE = {
    "optimizer": "choice(adam,sgd)",
    "optimizer.lr": "tag(log,interval(0.0001,0.1))",
    "optimizer.momentum": "interval(0.0,0.99) when optimizer=sgd",
    "data.batch_size": "choice(32,64,128)",
    "model.depth": "range(1,5)",
    "model.activation": "choice(relu,tanh,gelu)",
}
IMPORTANCES = {"optimizer.lr": 0.63, "model.depth": 0.21, "optimizer": 0.09, "model.activation": 0.05}


def varied(count: int = 60, *, num_steps: int = 12) -> PlainStudy:
    """A study with trials of every kind, whose learning curves go on to their values."""
    chance = random.Random(4)
    rows, curves = [], {}
    began = START_MS
    for number in range(count):
        params: dict[str, Any] = {
            "optimizer": chance.choice(["adam", "sgd"]),
            "optimizer.lr": 10 ** chance.uniform(-4, -1),
            "data.batch_size": chance.choice([32, 64, 128]),
            "model.depth": chance.randint(1, 4),
            "model.activation": chance.choice(["relu", "tanh", "gelu"]),
        }
        if params["optimizer"] == "sgd":
            params["optimizer.momentum"] = chance.uniform(0, 0.99)
        value = 0.95 - 0.08 * (math.log10(params["optimizer.lr"]) + 2.3) ** 2 - 0.02 * abs(params["model.depth"] - 3)
        value += chance.gauss(0, 0.012)
        state, more = "complete", {}
        draw = chance.random()
        if draw < 0.25 and number > 5:
            state, more = "pruned", {"reason": f"{value:.3f} at step 3 is below the median 0.9 of 8 trials"}
        elif draw < 0.3:
            state, more = "failed", {"reason": "RuntimeError: <script>alert(1)</script>"}
        elif draw < 0.36:
            more = {"infeasible": "num_params=900000 violates num_params <= 1e5"}
        length = {"pruned": 4, "failed": 2}.get(state, num_steps)
        curves[number] = [value - 0.5 * math.exp(-step / 2.5) + chance.gauss(0, 0.004) for step in range(length)]
        duration_s = length * chance.uniform(0.8, 1.4)
        known = None if state == "failed" else value
        rows.append(
            trial(
                number,
                known,
                state=state,
                params=params,
                duration_s=duration_s,
                slot=number % 2,
                began_ms=int(began + 1000 * (number // 2) * 13),
                **more,
            )
        )
    return PlainStudy(rows, space=SPACE, histories={"val/acc": curves})


EVIL = "</script><script>alert('x')</script><img src=x onerror=alert(1)> $a_{b}$ <!-- &amp; \" '"


def evil() -> StudyView:
    """A study in which every text wants to be markup."""
    more = {"reason": EVIL, "infeasible": EVIL, "objectives": {EVIL: "maximize"}, "metric": EVIL}
    rows = [
        trial(n, 0.1 * n, params={EVIL: f"{EVIL}{n % 3}", "lr": 0.1 * n}, values={EVIL: 0.1 * n}, **more)
        for n in range(8)
    ]
    study = PlainStudy(rows, objectives={EVIL: "maximize"}, histories={EVIL: {0: [0.1, 0.2]}}, best=[7])
    study.name = EVIL
    return view_of(study)


def page_of(view: StudyView, **more: Any) -> str:
    """The report of a study; `more` may have its advice and its commands."""
    summary = summarize(view.study, Path("mlruns"))
    commands = more.get("commands", next_commands(summary))
    return page(view, summary, make_charts(view), advice=more.get("advice", []), commands=commands)
