"""What a person sees: lines in a pipe, bars in a terminal."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sweeps.cli.live import LineDisplay, LiveDisplay, make_display, warn_unsent
from sweeps.core.messages import Progress
from sweeps.core.trials import TrialResult
from sweeps.driver.display import Display, Heading, TrialView
from sweeps.driver.forecast import Budget
from sweeps.results.summary import BestTrial
from sweeps.tracking.store import Unsent


def ended(**changes: Any) -> TrialResult:
    complete = {"state": "complete", "value": 0.9, "values": {"optimizer.lr": 0.1}, "duration_s": 2.0, "job": 0}
    return TrialResult(**complete | changes)


def heading(**changes: Any) -> Heading:
    return Heading(
        **{
            "title": "study s: 3 trials",
            "name": "s",
            "metric": "val/acc",
            "direction": "maximize",
            "num_trials": 3,
            **changes,
        }
    )


def shown(is_terminal: bool, *, width: int = 100, **changes: Any) -> tuple[Display, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=is_terminal, color_system=None)
    return make_display(heading(**changes), console), out


def start(display: Display, number: int = 0, **values: Any) -> None:
    display.trial_started(
        TrialView(number=number, values=values or {"optimizer.lr": 0.1}, slot=0, job=number, began_s=0.0)
    )


def test_terminal_gets_bars_and_a_pipe_gets_lines() -> None:
    live, _ = shown(True)
    live.close()

    assert isinstance(live, LiveDisplay)
    assert isinstance(shown(False)[0], LineDisplay)


def test_a_trial_that_goes_on_says_from_where() -> None:
    display, out = shown(False)
    display.trial_started(
        TrialView(number=3, values={"optimizer.lr": 0.1}, slot=0, job=0, began_s=0.0, resume_step=840)
    )
    assert "trial 3 resumed at step 840" in out.getvalue()


def test_lines_tell_start_and_end_of_each_trial_without_bars() -> None:
    display, out = shown(False)
    start(display)
    display.trial_progressed(0, Progress(epoch=0, max_epochs=2, step=1, num_steps=9))
    display.trial_reported(0, 0.5, 0)
    display.tick()
    display.trial_ended(ended())
    display.close()

    assert out.getvalue().splitlines() == [
        "study s: 3 trials",
        "trial 0 started  lr=0.1",
        "trial 0 complete  val/acc=0.9  best so far  2.0 s  lr=0.1",
    ]


@pytest.mark.parametrize(("direction", "best"), [("maximize", 1), ("minimize", 0)])
def test_best_follows_the_direction(direction: str, best: int) -> None:
    display, out = shown(False, direction=direction)
    display.trial_ended(ended(number=0, value=0.1))
    display.trial_ended(ended(number=1, value=0.2))

    last = out.getvalue().splitlines()[-1]
    assert ("best so far" in last) == (best == 1)


def test_failed_and_pruned_trials_say_why() -> None:
    display, out = shown(False)
    display.trial_ended(ended(state="failed", value=None, reason="ValueError: [bold]no"))
    display.trial_ended(ended(number=1, state="pruned", reason="below the median"))

    failed, pruned = out.getvalue().splitlines()[1:]
    assert failed.endswith("(ValueError: [bold]no)") and failed.startswith("trial 0 failed")
    assert pruned.endswith("(below the median)") and "best" not in pruned


def test_long_line_is_not_broken_in_a_pipe() -> None:
    display, out = shown(False, width=40)
    start(display, **{f"model.key_{index}": 0.123456 for index in range(20)})

    assert len(out.getvalue().splitlines()) == 2


def test_bars_show_epoch_value_and_the_study() -> None:
    display, out = shown(True)
    start(display)
    display.trial_progressed(0, Progress(epoch=1, max_epochs=5, step=7, num_steps=20))
    display.trial_reported(0, 0.25, 0)
    start(display, 1)
    display.stopping("interrupt", 2)
    display.close()

    text = out.getvalue()
    assert "epoch 2/5 step 7" in text and "val/acc=0.25" in text
    assert "s  0/3 trials" in text and "Ctrl-C again stops at once" in text


@pytest.mark.parametrize("width", [20, 40, 79])
def test_bars_fit_a_narrow_terminal(width: int) -> None:
    display, out = shown(True, width=width)
    start(display, **{f"model.key_{index}": 0.123456 for index in range(20)})
    display.trial_ended(ended())
    display.close()

    assert "best so far" in " ".join(out.getvalue().split())


def test_single_run_is_not_called_a_trial() -> None:
    display, out = shown(False, title="train 0 digits mlp: 2 epochs", is_sweep=False, num_trials=1)
    start(display)
    display.trial_reported(0, 0.5, 0)
    display.trial_ended(ended(values={}))

    assert "trial" not in out.getvalue() and "best so far" not in out.getvalue()
    assert "validation 1  val/acc=0.5" in out.getvalue()


def test_unknown_length_is_shown_without_a_total() -> None:
    display, out = shown(True)
    start(display)
    display.trial_progressed(0, Progress(epoch=0, max_epochs=-1, step=3, num_steps=-1))
    start(display, 1)
    display.close()

    assert "epoch 1 step 3" in out.getvalue()


def test_of_several_objectives_each_is_shown_and_the_front_is_marked() -> None:
    display, out = shown(False, objectives={"val/acc": "maximize", "num_params": "minimize"})
    for number, accuracy, size in ((0, 0.9, 12345.0), (1, 0.8, 20000.0), (2, 0.8, 100.0)):
        display.trial_ended(ended(number=number, value=accuracy, objectives={"val/acc": accuracy, "num_params": size}))
    assert "val/acc=0.9 num_params=12345  on the front" in out.getvalue()
    assert [line for line in out.getvalue().splitlines() if "trial 1" in line and "front" in line] == []
    assert "val/acc=0.8 num_params=100  on the front" in out.getvalue()


def test_the_best_so_far_is_that_of_the_study() -> None:
    display, out = shown(False, best_before=(BestTrial(number=0, objectives={"val/acc": 0.95}, params={}),))
    display.trial_ended(ended(number=1, value=0.9))
    assert "best so far" not in out.getvalue()
    display.trial_ended(ended(number=2, value=0.96))
    assert "trial 2 complete  val/acc=0.96  best so far" in out.getvalue()


def test_the_front_is_that_of_the_study() -> None:
    sizes = {"val/acc": "maximize", "num_params": "minimize"}
    before = BestTrial(number=0, objectives={"val/acc": 0.9, "num_params": 100.0}, params={})
    display, out = shown(False, objectives=sizes, best_before=(before,))
    display.trial_ended(ended(number=1, value=0.8, objectives={"val/acc": 0.8, "num_params": 200.0}))
    assert "on the front" not in out.getvalue()
    display.trial_ended(ended(number=2, value=0.8, objectives={"val/acc": 0.8, "num_params": 50.0}))
    assert "num_params=50  on the front" in out.getvalue()


def test_a_trial_that_violates_a_constraint_is_not_the_best() -> None:
    display, out = shown(False)
    display.trial_ended(ended(infeasible="num_params=20 violates num_params <= 10"))
    assert "best so far" not in out.getvalue()
    assert "(num_params=20 violates num_params <= 10)" in out.getvalue()


def steered(clock: Any, **budget: Any) -> tuple[LineDisplay, io.StringIO]:
    out = io.StringIO()
    whole = Budget(num_trials=20, num_slots=2, devices_per_slot=2, **budget)
    console = Console(file=out, width=200)
    return LineDisplay(heading(num_trials=20, budget=whole, device_s_before=3600.0), console, clock), out


def test_lines_look_ahead_when_each_slot_had_a_trial_and_at_each_quarter() -> None:
    now = [0.0]
    display, out = steered(lambda: now[0])
    for number in range(20):
        display.trial_started(TrialView(number=number, values={}, slot=0, job=number, began_s=now[0]))
        now[0] += number % 2 * 60.0  # two at once take a minute
        display.trial_ended(ended(number=number, duration_s=60.0))
    lines = out.getvalue().splitlines()

    ahead = {
        sum(" complete " in before for before in lines[:at]): line for at, line in enumerate(lines) if "cast" in line
    }
    assert list(ahead) == [2, 5, 10, 15]
    assert ahead[2] == "forecast: all 20 trials in about 9 min 00 s, 1.7 device-hours"
    assert ahead[10] == "forecast: all 20 trials in about 5 min 00 s, 1.7 device-hours"


def test_lines_name_the_budget_that_ends_a_sweep() -> None:
    now = [60.0]
    display, out = steered(lambda: now[0], timeout_s=300.0)
    now[0] += 60.0
    for number in range(2):
        display.trial_ended(ended(number=number, duration_s=60.0))
    assert "forecast: study.timeout_s ends it in about 4 min 00 s, after 10 trials, " in out.getvalue()


def test_bars_show_what_is_ahead_from_the_progress_of_the_first_trials() -> None:
    out = io.StringIO()
    whole = Budget(num_trials=4, num_slots=2)
    display = LiveDisplay(
        heading(num_trials=4, budget=whole),
        Console(file=out, width=120, force_terminal=True, color_system=None),
        lambda: 30.0,
    )
    start(display)
    start(display, 1)
    for number in range(2):
        display.trial_progressed(number, Progress(epoch=1, max_epochs=5, step=5, num_steps=10))
    display.tick()
    start(display, 2)
    display.close()

    assert "all 4 trials in about 1 min 30 s" in out.getvalue()


def test_bars_look_no_further_once_all_trials_have_ended() -> None:
    out = io.StringIO()
    display = LiveDisplay(
        heading(num_trials=2, budget=Budget(num_trials=2, num_slots=1)),
        Console(file=out, width=120, force_terminal=True, color_system=None),
        lambda: 30.0,
    )
    display.trial_ended(ended(number=0, duration_s=60.0))
    assert "all 2 trials in about 1 min 00 s" in out.getvalue()
    display.trial_ended(ended(number=1, duration_s=60.0))
    display.close()

    _, at_the_end, then = out.getvalue().partition("2/2 trials")
    assert at_the_end and "in about" not in then


def test_a_trial_that_somebody_asked_for_says_so() -> None:
    for is_terminal in (False, True):
        display, out = shown(is_terminal)
        display.trial_started(
            TrialView(number=3, values={"optimizer.lr": 0.01}, slot=0, job=3, began_s=0.0, is_enqueued=True)
        )
        display.say("trial 4 enqueued  lr=0.02")
        display.close()
        assert "(enqueued)" in out.getvalue() and "trial 4 enqueued  lr=0.02" in out.getvalue()


@pytest.mark.parametrize(
    ("why", "words"),
    [
        ("drain", "no new trials"),
        ("stop", "running trials finish their step"),
        ("device_hours", "study.device_hours is used up"),
    ],
)
def test_each_way_to_stop_is_told(why: str, words: str) -> None:
    display, out = shown(False)
    display.stopping(why, 1)
    assert words in out.getvalue()


def test_a_bar_names_what_is_reported_and_a_training_has_the_first_objective() -> None:
    live, out = shown(True, reported="val/loss")
    start(live)
    live.trial_reported(0, 0.43, 1)
    start(live, 1)  # draws at once
    live.close()
    assert "val/loss=0.43" in out.getvalue()

    lines, out = shown(False, objectives={"val/acc": "maximize", "num_params": "minimize"}, replicates=2)
    start(lines)
    lines.trial_ended(ended(replicate=0))
    assert "replicate 0 complete  val/acc=0.9  2.0 s" in out.getvalue()


@pytest.mark.parametrize(
    ("is_sweep", "records", "words"),
    [
        (True, ["val/x of trial 3", "val/x of trial 3", "tag a of the study"], "2 records"),
        (False, ["val/x of trial 0"], "1 record (val/x);"),
        (True, [f"[m{number}] of trial 0" for number in range(12)], "[m9] of trial 0 and 2 more"),
    ],
)
def test_what_is_unsent_is_named_with_its_file(is_sweep: bool, records: list[str], words: str) -> None:
    out = io.StringIO()
    unsent = Unsent(file=Path("mlruns/unsent.jsonl"), records=tuple(records))
    warn_unsent(unsent, Console(file=out, width=40), is_sweep=is_sweep)
    assert words.replace("2 records", "3 records (val/x of trial 3, tag a of the study)") in out.getvalue()
    assert "mlruns/unsent.jsonl" in out.getvalue() and len(out.getvalue().splitlines()) == 1
