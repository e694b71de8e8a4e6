"""A study is moved over to another space: completely or not at all, and it goes on."""

import itertools
import os
import signal
from contextlib import contextmanager, suppress
from multiprocessing import get_context

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState
from studies import FINITE, MEDIAN, SPACE, make, run, stored

from sweeps.core.errors import StoreError, StudyError
from sweeps.search.space.declare import parse_space
from sweeps.search.storage import open_storage
from sweeps.search.terms import StudyTerms
from sweeps.search.transfer import migrate, note_recorded, unrecorded

NARROW = parse_space({**SPACE.describe(), "depth": "range(1,3)", "act": "tanh,relu,gelu"})
BASE = {"depth": 3, "act": "tanh", "lr": 0.01, "width": 8}


def unknown(key):
    raise KeyError(key)


def move(url, space, base=BASE, recorded=lambda number: unknown, **more):
    return migrate(
        more.pop("storage", None) or open_storage(url),
        "study",
        space=space,
        terms=StudyTerms.of(**more),
        recorded=recorded,
        composed=lambda values: {**base, **values}.__getitem__,
    )


def fill(url, sampler="random", count=12, space=SPACE):
    """Run a study in which trials have ended in every way."""
    study = make(url, space, sampler, pruner=MEDIAN)
    for number in range(count):
        ask = study.ask()
        study.report(ask.number, 0.1 * number, 0)
        state = ("complete", "complete", "pruned", "failed")[number % 4]
        study.tell(ask.number, state, 0.1 * number if state == "complete" else None, "" if number % 4 < 2 else "why")
    study.tell(study.ask().number, "interrupted", reason="Ctrl-C")
    return study


def test_what_fits_keeps_its_number_and_all_it_has_and_the_rest_its_number_alone(url):
    fill(url)
    before = stored(url)
    moved = move(url, NARROW)
    after = stored(url)
    assert moved.backup == "study~1" and stored(url, "study~1") == before
    assert moved.dropped.keys() == {t.number for t in before if t.params["depth"] > 2}
    assert 0 < moved.num_kept == len(before) - len(moved.dropped) < len(before)
    for was, now in zip(before, after, strict=True):
        assert now.number == was.number and now.user_attrs["origin"] == {"study": "study~1", "trial": was.number}
        if now.number in moved.dropped:
            assert (now.state, now.params, now.values, now.intermediate_values) == (TrialState.FAIL, {}, None, {})
            assert now.user_attrs["dropped"] == f"depth={was.params['depth']} is not in range(1,3)"
            continue
        for name in ("state", "values", "params", "intermediate_values", "datetime_start", "datetime_complete"):
            assert getattr(now, name) == getattr(was, name)
        assert now.user_attrs.items() >= was.user_attrs.items() and now.distributions == NARROW.distributions


def test_dropped_trials_count_as_nothing(url):
    fill(url)
    moved = move(url, NARROW)
    study = make(url, NARROW)
    assert study.dropped == moved.dropped and study.counts["dropped"] == len(moved.dropped)
    ended = [t for t in stored(url) if t.state.is_finished() and t.number not in moved.dropped]
    assert study.num_finished == len(ended)
    number, reason = next(iter(moved.dropped.items()))
    assert study.end_of(number) == ("dropped", None, reason)
    assert study.best.number == max((t for t in ended if t.values), key=lambda t: t.value).number


def test_the_best_trial_may_be_dropped(url):
    study = make(url)
    run(study, 8)
    depth = study.best.values["depth"]
    space = parse_space({**SPACE.describe(), "depth": ",".join(str(d) for d in range(1, 5) if d != depth)})
    before = study.best.number
    assert before in move(url, space).dropped
    assert make(url, space).best.number != before


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes", "gp", "qmc"])
def test_a_study_that_was_moved_goes_on(url, sampler):
    fill(url, sampler)
    move(url, NARROW)
    values = run(make(url, NARROW, sampler), 6)  # the interrupted one, if it fits, and new ones
    values += run(make(url, NARROW, sampler), 2)
    assert all(found["depth"] < 3 and found["act"] in ("relu", "tanh", "gelu") for found in values)
    assert [trial.number for trial in stored(url)] == list(range(len(stored(url))))
    attrs = [key for trial in stored(url)[:12] for key in trial.system_attrs]
    assert not [key for key in attrs if key.startswith(("cma", "tpe", "gp", "grid"))]


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "gp"])
def test_samplers_learn_from_the_trials_that_were_kept(url, sampler):
    space = parse_space({"lr": "tag(log,interval(1e-4,1e-1))", "wd": "interval(0,1)"})
    wider = parse_space({"lr": "tag(log,interval(1e-5,1))", "wd": "interval(0,2)"})
    run(make(url, space, sampler), 12)
    assert move(url, wider).dropped == {}
    study = make(url, wider, sampler)
    run(study, 2)
    inferred = study.optuna.sampler.infer_relative_search_space(study.optuna, stored(url)[-1])
    assert inferred == wider.distributions


def test_brute_force_goes_on_where_trials_were_dropped(url):
    space = parse_space({"depth": "1,2,3", "act": "relu,tanh,gelu"})
    run(make(url, space, "brute_force"), 9)
    fewer = parse_space({"depth": "1,2", "act": "relu,tanh,gelu,selu"})
    assert len(move(url, fewer).dropped) == 3
    study = make(url, fewer, "brute_force")
    found = run(study, 2)
    assert study.is_exhausted and {tuple(values.values()) for values in found} == {(1, "selu"), (2, "selu")}


def test_a_grid_does_not_try_again_what_was_tried(url):
    study = make(url, FINITE, "grid")
    seen = run(study, 2)
    study.tell(study.ask().number, "interrupted")
    wider = parse_space({"depth": "range(1,5)", "width": "choice([8],[16,8],[32])"})
    assert move(url, wider, recorded=lambda number: unknown).dropped == {}
    study = make(url, wider, "grid")
    while not study.is_exhausted:
        seen += run(study, 1)
    assert sorted(map(str, seen)) == sorted(map(str, wider.points()))


def test_what_was_enqueued_waits_on_if_it_fits(url):
    study = make(url)
    for values in ({"depth": 2, "lr": 0.01}, {"depth": 4}, {}):
        study.enqueue(values)
    moved = move(url, NARROW, recorded=lambda number: None)
    assert moved.dropped == {1: "depth: 4 is not in range(1,3)"}
    study = make(url, NARROW)
    assert study.ask().values.items() >= {"depth": 2, "lr": 0.01}.items()
    assert [study.ask().number, study.ask().number] == [2, 3]


def test_a_trial_that_a_dead_driver_left_running_goes_on(url):
    ask = make(url).ask()
    wider = parse_space({**SPACE.describe(), "depth": "range(0,9)"})
    assert move(url, wider).dropped == {}
    study = make(url, wider)
    assert study.close_stale() == [] and study.counts["interrupted"] == 1
    assert study.ask() == ask


def test_a_trial_that_died_before_it_began_is_proposed_again_where_the_new_space_asks_for_more(url):
    ask = make(url).ask()
    wider = parse_space({**SPACE.describe(), "width": "8,16"})
    assert move(url, wider, recorded=lambda number: None).dropped == {}
    again = make(url, wider).ask()
    assert again.number == ask.number and again.values.items() > ask.values.items()


def test_what_was_not_searched_is_taken_from_the_trials_own_configuration(url):
    run(make(url), 3)
    wider = parse_space({**SPACE.describe(), "width": "8,16"})
    widths = {0: {"width": 16}, 1: {"width": 32}, 2: {}}
    moved = move(url, wider, recorded=lambda number: widths[number].__getitem__)
    assert moved.dropped == {
        1: "width=32 is not in choice(8,16)",
        2: "its width was not searched, and is not known",
    }
    assert stored(url)[0].params["width"] == 16


def test_what_is_searched_no_more_must_be_what_the_configuration_says(url):
    run(make(url), 8)
    fewer = parse_space({key: text for key, text in SPACE.describe().items() if key != "depth"})
    before = stored(url)
    moved = move(url, fewer)
    assert moved.dropped == {
        t.number: f"depth={t.params['depth']}, but now it is not searched and 3"
        for t in before
        if t.params["depth"] != 3
    }


def test_another_metric_or_direction_is_refused(url):
    make(url)
    for more in ({"metric": "val/loss"}, {"direction": "minimize"}):
        with pytest.raises(StudyError, match=f"study.{next(iter(more))}: was .* --migrate .* another study.name"):
            move(url, NARROW, **more)


def test_the_same_space_and_a_study_that_is_not_there_are_left_alone(url):
    assert move(url, NARROW) is None
    run(make(url), 1)
    assert move(url, SPACE) is None
    assert optuna.get_all_study_names(url) == ["study"]


def test_a_study_may_be_moved_again_and_what_was_dropped_stays_so(url):
    fill(url)
    first = move(url, NARROW)
    run(make(url, NARROW), 2)
    second = move(url, SPACE)
    assert second.backup == "study~2"
    study = make(url)
    assert study.dropped == first.dropped | second.dropped
    kept = [t for t in stored(url) if t.number not in study.dropped]
    assert all(trial.user_attrs["origin"] == {"study": "study~2", "trial": trial.number} for trial in kept)


def test_a_migration_is_recorded_once(url):
    fill(url)
    assert unrecorded(make(url)) is None
    move(url, NARROW)
    study = make(url, NARROW)
    assert (unrecorded(study).backup, unrecorded(study).space_before) == ("study~1", SPACE.describe())
    note_recorded(study)
    assert unrecorded(make(url, NARROW)) is None


# --- crashes -------------------------------------------------------------------------------------------


@contextmanager
def dying_at(count, die):
    """Die before the statement or commit of this number; there may be fewer."""
    left = itertools.count(count - 1, -1)

    def before(*args):
        if next(left) == 0:
            die()

    events = [(sa.Engine, "before_cursor_execute"), (sa.Engine, "commit")]
    for target, name in events:
        sa.event.listen(target, name, before)
    try:
        yield
    finally:
        for target, name in events:
            sa.event.remove(target, name, before)


def assert_old_or_new_wherever_it_dies(url, attempt, stride):
    """Let moves die a little later each time; until one is through, all of the study is what it was."""
    fill(url, count=2)
    look = open_storage(url)
    before = look.get_all_trials(look.get_study_id_from_name("study"))
    for count in itertools.count(1, stride):
        attempt(url, count)
        study_id = look.get_study_id_from_name("study")
        if look.get_study_user_attrs(study_id)["space"] == NARROW.describe():
            break
        assert look.get_all_trials(study_id) == before
        assert "study~1" not in [study.study_name for study in look.get_all_studies()]
    assert count > 50
    assert stored(url, "study~1") == before and len(stored(url)) == len(before)
    assert sorted(optuna.get_all_study_names(url)) == ["study", "study~1"]
    assert move(url, NARROW) is None and len(run(make(url, NARROW), 2)) == 2


def move_and_raise(url, count):
    def die():
        raise OSError("the machine is tired")

    storage = open_storage(url)
    with dying_at(count, die), suppress(OSError):
        move(url, NARROW, storage=storage)
    storage.remove_session()  # as the end of the process would
    storage.engine.dispose()


def _move_and_be_killed(url, count):
    storage = open_storage(url)
    with dying_at(count, lambda: os.kill(os.getpid(), signal.SIGKILL)):
        move(url, NARROW, storage=storage)


def move_and_be_killed(url, count):
    driver = get_context("fork").Process(target=_move_and_be_killed, args=(url, count))
    driver.start()
    driver.join()


def test_an_error_anywhere_leaves_the_old_study_or_the_new_one(url):
    assert_old_or_new_wherever_it_dies(url, move_and_raise, stride=1)


def test_a_kill_anywhere_leaves_the_old_study_or_the_new_one(url):
    assert_old_or_new_wherever_it_dies(url, move_and_be_killed, stride=7)


@pytest.mark.postgres
def test_an_error_anywhere_on_postgresql_leaves_the_old_study_or_the_new_one(postgres_url):
    url = postgres_url.replace("postgresql:", "postgresql+psycopg:")
    assert_old_or_new_wherever_it_dies(url, move_and_raise, stride=7)


def test_a_database_that_does_not_answer_leaves_the_study_as_it_was(url):
    fill(url, count=4)
    before = stored(url)
    with open_storage(url).engine.begin() as connection:
        connection.exec_driver_sql(
            "create trigger no before update on studies begin select raise(abort, 'the disk is full'); end"
        )
    with pytest.raises(StoreError, match="does not answer: the disk is full"):
        move(url, NARROW)
    assert stored(url) == before


def test_a_study_that_happens_to_have_the_unfinished_ones_name_is_not_deleted(url):
    run(make(url, name="study~new"), 1)
    run(make(url), 1)
    with pytest.raises(StudyError, match="'study~new'"):
        move(url, NARROW)
    assert len(stored(url, "study~new")) == 1


def test_a_move_does_not_change_what_is_reported(url):
    fill(url)
    with pytest.raises(StudyError, match=r"objective.metric: .*was maximize val/acc, now minimize val/loss"):
        move(url, NARROW, reported=("val/loss", "minimize"))
    assert optuna.get_all_study_names(url) == ["study"]
