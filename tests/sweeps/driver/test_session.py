"""What a sweep is planned as, and how often its driver composes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeDisplay, FakeLauncher, FakeSearch, FakeStore, complete

from sweeps.config.composer import Composer
from sweeps.core.errors import ConfigError, SpaceError, UsageError
from sweeps.core.messages import Place
from sweeps.driver.driver import Driver, Limits
from sweeps.driver.jobs import JobBuilder
from sweeps.driver.session import CommandLine
from sweeps.driver.sweep_setup import SweepPlan, plan_sweep
from sweeps.driver.trial_runs import TrialSetup
from sweeps.launchers.slots import Slot
from sweeps.tracking.recorder import Recorder


def planned(*overrides: str) -> SweepPlan:
    return plan_sweep(CommandLine(overrides=("optimizer.lr=0.01,0.1", *overrides), config_name="sweep"))


def test_a_plan_has_the_corners_of_its_space_and_what_it_is_judged_by() -> None:
    plan = planned("study.metric=val/loss", "study.direction=minimize", "study.constraints='num_params <= 1e6'")
    assert [config["optimizer"]["lr"] for _, config in plan.corners()] == [0.01, 0.1]
    assert (plan.terms.directions, plan.judged) == ({"val/loss": "minimize"}, ["val/loss", "num_params"])


@pytest.mark.parametrize(("pruner", "prunes"), [("none", False), ("median", True)])
def test_only_a_pruner_of_epochs_makes_ranks_wait_for_answers(pruner: str, prunes: bool) -> None:
    assert planned(f"pruner={pruner}").prunes is prunes


@pytest.mark.parametrize(
    ("override", "error", "key"),
    [
        ("study.num_trials=0", ConfigError, "study.num_trials"),
        ("study.enqueue=[{optimizer.lr:5}]", SpaceError, "study.enqueue[0]"),
        ("study.direction=up", ConfigError, "study.direction"),
    ],
)
def test_a_plan_refuses_what_makes_no_sense(override: str, error: type[UsageError], key: str) -> None:
    with pytest.raises(error) as caught:
        planned(override)
    assert key in str(caught.value)


@pytest.mark.parametrize(("replicates", "per_trial"), [(1, 1), (2, 3)])
def test_a_config_is_composed_once(
    replicates: int, per_trial: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of a trial once, and that of each of its replicates once if there are several."""
    plan, composed = planned(f"study.replicates={replicates}"), []
    compose = Composer.trial

    def counting(self: Composer, values: Mapping[str, Any], seed: int) -> dict[str, Any]:
        composed.append(values)
        return compose(self, values, seed)

    monkeypatch.setattr(Composer, "trial", counting)
    recorder = Recorder(FakeStore, unsent=tmp_path / "unsent.jsonl", timeout_s=1)
    totals = Driver(
        search=FakeSearch(),
        setup=TrialSetup(
            compose=lambda values, number, replicate: plan.trial({"optimizer.lr": 0.1}, number, replicate),
            folder=lambda number: tmp_path / str(number),
            name=lambda number, values: f"#{number}",
            run_tags={},
            prunes=False,
            has_parent=False,
            replicates=replicates,
        ),
        slots=[Slot(index=0, threads=1)],
        limits=Limits(num_trials=3),
        launcher=FakeLauncher(lambda number: complete(0.5)),
        recorder=recorder,
        display=FakeDisplay(),
    ).run()
    recorder.close()
    assert totals.count("complete") == 3
    assert len(composed) == 3 * per_trial


def test_a_job_has_what_is_the_commands_and_what_is_the_slots() -> None:
    builder = JobBuilder(
        python_path=("/mine",),
        allowed_modules=("mine",),
        hidden=lambda config: ((("key",), "secret"),) if config["hides"] else (),
        place=Place(rank=1, world_size=2),
        environment=(("A", "1"),),
    )
    slot = Slot(index=0, threads=3, gpus=("7",))
    job = builder.job("measure", Path("/folder"), slot, [{"hides": False}, {"hides": True}], limit_s=2.0)
    assert (job.kind, job.folder, job.threads, job.limit_s) == ("measure", "/folder", 3, 2.0)
    assert (job.python_path, job.allowed_modules, job.place.rank) == (("/mine",), ("mine",), 1)
    assert job.environment == (("A", "1"), *slot.environment)
    assert list(job.hidden.values()) == [((("key",), "secret"),)]
