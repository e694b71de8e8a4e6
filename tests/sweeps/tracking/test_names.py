"""Names go to MLflow and back one to one, and MLflow takes each of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric, _validate_param, _validate_tag

from sweeps.tracking.names import MAX_NAME, looked_up_name, shown_name, stored_file, stored_name

AWKWARD = [
    "",
    "/",
    "//",
    ".",
    "..",
    "a",
    "_",
    "_x",
    "x",
    "40",
    "4",
    "_x40_",
    "_x_",
    "@",
    " ",
    "é",
    "e\u0301",
    "\n",
    "😀",
]
awkward = st.one_of(
    st.text(),
    st.lists(st.sampled_from(AWKWARD)).map("".join),
    st.text("/.@_x40ab", max_size=12),
    st.text("a/@", min_size=200, max_size=300),
)


@given(awkward)
def test_any_name_is_one_that_mlflow_takes_and_is_found_again(name: str) -> None:
    stored = stored_name(name)
    _validate_metric(stored, 0.5, 0, 0)
    assert _validate_param(stored, "x").key == _validate_tag(stored, "x").key == stored
    assert shown_name(stored) == (stored if "_sha256_" in stored else name)
    assert looked_up_name(shown_name(stored)) == stored


@given(awkward, awkward)
def test_two_names_are_never_one(first: str, second: str) -> None:
    assert (stored_name(first) == stored_name(second)) == (first == second)


@given(awkward)
def test_a_name_and_one_that_reads_like_what_it_is_stored_as_are_two(name: str) -> None:
    other = stored_name(name)
    assert (stored_name(other) == stored_name(name)) == (other == name)


@given(st.from_regex(r"[\w.\- :]{1,20}(/[\w\- :][\w.\- :]{0,20}){0,3}", fullmatch=True))
def test_what_mlflow_takes_is_stored_as_it_is(name: str) -> None:
    if not name.startswith(".") and "_x" not in name:
        assert stored_name(name) == name


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("val/AR@100", "val/AR_x40_100"),
        ("val/AR_100", "val/AR_100"),
        ("val//f1", "val/_x2F_f1"),
        ("val/", "val_x2F_"),
        ("/val", "_x2F_val"),
        ("a/./b", "a/_x2E_/b"),
        ("..a", "_x2E_.a"),
        ("", "_x_"),
        ("psnr_x4", "psnr_x4"),
        ("pos_x_mean", "pos_x_mean"),
        ("a_x40_b", "a_x5F_x40_b"),
        ("val/F1 score: top-5 (%)", "val/F1 score: top-5 _x28__x25__x29_"),
    ],
)
def test_the_rule_by_examples(name: str, stored: str) -> None:
    assert stored_name(name) == stored and shown_name(stored) == name


def test_long_names_of_one_beginning_stay_apart() -> None:
    one, other = stored_name("a" * 300), stored_name("a" * 299 + "b")
    assert one != other and len(one) == len(other) == MAX_NAME
    assert stored_name(one) != one, "a name that reads like one that was cut"


@pytest.mark.parametrize("foreign", ["a_x61_", "_xFFFFFF_", "a_x0041_"])
def test_a_name_that_another_program_stored_is_shown_as_it_is(foreign: str) -> None:
    assert shown_name(foreign) == foreign


@given(st.text(min_size=1).filter(lambda name: "/" not in name), st.text(min_size=1))
def test_files_are_called_by_names_that_lead_nowhere_and_are_never_one(name: str, other: str) -> None:
    stored = stored_file(name)
    assert len(stored.encode()) <= 255 and not set("?#%\\\n\0") & set(stored)
    assert (stored == stored_file(other)) == (name == other)


def test_a_file_keeps_its_ending() -> None:
    assert stored_file("epoch=0 a?b.ckpt") == "epoch=0 a_x3F_b.ckpt"
    assert stored_file("é" * 200 + ".ckpt").endswith(".ckpt")
