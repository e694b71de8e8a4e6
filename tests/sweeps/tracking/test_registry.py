"""What a registered model is called."""

import pytest

from sweeps.core.errors import UsageError
from sweeps.tracking.registry import ModelName, parse_model_name, require_alias, require_name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("digits", ModelName(name="digits")),
        ("digits@champion", ModelName(name="digits", alias="champion")),
        ("digits/12", ModelName(name="digits", version=12)),
        ("models:/digits@champion", ModelName(name="digits", alias="champion")),
        ("models:/digits/3", ModelName(name="digits", version=3)),
        ("my model.v2@b-2_c", ModelName(name="my model.v2", alias="b-2_c")),
    ],
)
def test_names_are_taken_apart_and_put_together(text: str, expected: ModelName) -> None:
    assert parse_model_name(text) == expected
    assert str(parse_model_name(text)) == text.removeprefix("models:/")


@pytest.mark.parametrize("text", ["", "@champion", "digits@", "digits@a b", "digits/", "digits/0", "digits/x", "/3"])
def test_what_is_no_name_says_how_one_looks(text: str) -> None:
    with pytest.raises(UsageError, match="NAME@ALIAS"):
        parse_model_name(text)


@pytest.mark.parametrize("name", ["a/b", "a:b", "a@b", "", " a", "a ", "-a", "..", "\x1b[31m", "a\n", "x" * 300])
def test_a_new_name_is_one_that_can_be_typed(name: str) -> None:
    with pytest.raises(UsageError, match="--name must begin"):
        require_name(name)


@pytest.mark.parametrize("alias", ["latest", "Latest", "v1", "V22", "", "a b", "a@b", "é"])
def test_an_alias_is_one_that_mlflow_takes(alias: str) -> None:
    with pytest.raises(UsageError, match="--alias must be"):
        require_alias(alias)
    require_alias("v1-of-mine")
