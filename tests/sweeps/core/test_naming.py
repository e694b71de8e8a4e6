"""Names and numbers for people."""

import pytest

from sweeps.core.text import brief, duration, number, run_name, short_names, values_text


def test_short_name_is_the_last_word() -> None:
    assert short_names(["optimizer.lr", "model.depth"]) == {"optimizer.lr": "lr", "model.depth": "depth"}


def test_short_names_tell_keys_apart() -> None:
    names = short_names(["optimizer.lr", "scheduler.lr", "a.optimizer.lr", "lr"])

    assert len(set(names.values())) == 4
    assert names["scheduler.lr"] == "scheduler.lr" and names["a.optimizer.lr"] == "a.optimizer.lr"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.00312345, "0.003123"), (3, "3"), (True, "True"), ("relu", "relu"), (None, "None"), ([1, 2], "[1, 2]")],
)
def test_number_has_four_digits(value: object, text: str) -> None:
    assert number(value) == text


def test_run_name_says_what_was_tried() -> None:
    assert run_name(12, {"optimizer.lr": 0.0031, "model.depth": 3}) == "#12 lr=0.0031 depth=3"
    assert run_name(0, {}) == "#0"
    assert len(run_name(1, {f"model.key_{index}": index for index in range(99)})) <= 200


def test_values_text_is_empty_without_values() -> None:
    assert values_text({}) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (9.94, "9.9 s"), (42.4, "42 s"), (61, "1 min 01 s"), (3599, "59 min 59 s"), (7800, "2 h 10 min")],
)
def test_duration_reads_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("seconds", [9.96, 59.7, 3599.8])
def test_duration_never_rounds_to_a_full_unit(seconds: float) -> None:
    assert not duration(seconds).startswith(("10.0 s", "60 s", "60 min"))


def test_long_texts_are_brief_and_stay_apart() -> None:
    assert brief("x" * 100) == "x" * 100
    one, other = brief("x" * 5000 + "a"), brief("x" * 5000 + "b")
    assert one != other and len(one) == len(other) == 100 and "5,001 characters" in one
    assert len(values_text({"model.prompt": "x" * 5000, "model.lr": 0.1})) < 150
